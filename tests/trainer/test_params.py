"""`trainer params`: exact counts, and memory that adds up."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import REPOSITORY, run, run_json

COUNTS = {
    "smoke-10m": 10_096_896,
    "smoke-12m": 12_194_048,
    "base-100m": 97_536_768,
    "wwii-183m": 179_880_960,
    "ladder-100m": 101_028_480,
}
PARTS = ("weights", "gradients", "moments", "copies", "activations", "head", "working", "allowance")


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    rows = run_json("trainer", "params", cwd=tmp_path_factory.mktemp("anywhere"))
    return {row["preset"]: row for row in rows}


def test_counts_are_those_that_were_promised(every: dict[str, Any]) -> None:
    assert {name: every[name]["parameters"] for name in COUNTS} == COUNTS
    assert all(next(iter(row)) == "preset" and list(row)[1] == "parameters" for row in every.values())


def test_one_preset_is_one_object_and_its_memory_adds_up(tmp_path: Path, every: dict[str, Any]) -> None:
    row = run_json("trainer", "params", "wwii-183m", "--batch", "3", cwd=tmp_path)
    assert list(row)[:2] == ["preset", "parameters"]
    assert (row["physical_batch"], row["context"]) == (3, 4096)
    assert {(step["optimizer"], step["recompute"]) for step in row["memory"]} == {
        (optimizer, recompute) for optimizer in ("adamw", "muon") for recompute in (False, True)
    }
    for step in row["memory"]:
        assert step["total"] == sum(step[part] for part in PARTS)
        assert all(isinstance(step[part], int) for part in PARTS)
    assert row["memory"][0]["total"] < 15 << 30
    assert row["memory"][0]["activations"] == 3 * every["wwii-183m"]["memory"][0]["activations"]


def test_what_fits_grows_with_the_card_and_a_7b_does_not_fit_a_small_one(every: dict[str, Any]) -> None:
    for row in every.values():
        for optimizer, recompute in (("adamw", False), ("muon", True)):
            most = [
                one["physical_batch"]
                for one in row["fits"]
                if (one["optimizer"], one["recompute"]) == (optimizer, recompute)
            ]
            assert len(most) == 4
            assert most == sorted(most)
    assert {one["physical_batch"] for one in every["ladder-7b"]["fits"] if one["card"] == 16 << 30} == {0}


def test_a_shorter_context_and_less_left_free_fit_more(tmp_path: Path, every: dict[str, Any]) -> None:
    row = run_json("trainer", "params", "wwii-183m", "--context", "1024", "--leave-vram", "512M", cwd=tmp_path)
    assert row["context"] == 1024
    assert row["parameters"] == every["wwii-183m"]["parameters"]  # its positions stay
    assert row["fits"][0]["physical_batch"] > 4 * every["wwii-183m"]["fits"][0]["physical_batch"]


def test_the_demo_takes_any_vocabulary(tmp_path: Path, every: dict[str, Any]) -> None:
    row = run_json("trainer", "params", "demo", "--vocabulary", "2000", cwd=tmp_path)
    assert row["parameters"] == every["demo"]["parameters"] - (4096 - 2000) * 256


def test_pages_are_no_wider_than_100_columns(tmp_path: Path) -> None:
    overview = run("trainer", "params", cwd=tmp_path)
    page = run("trainer", "params", "ladder-7b", "--batch", "2", cwd=tmp_path)
    lines = [line for out in (overview, page) for line in (out.stdout + out.stderr).splitlines()]
    assert {line for line in lines if len(line.rstrip()) > 100} == set()
    assert "179,880,960" in overview.stdout
    assert page.stdout.startswith("ladder-7b: 7,503,876,096 parameters\n  the shape of Mistral-7B\n")
    sixteen = next(line for line in page.stdout.splitlines() if line.startswith("16 GB"))
    assert sixteen.split()[2:] == ["no"] * 4


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["no-such"], "no such preset: no-such"),
        (["wwii183m"], "did you mean wwii-183m?"),
        (["wwii-183m", "--context", "8192"], "learned 4,096 positions"),
        (["base-100m", "--vocabulary", "64000"], "has embeddings for 16,384"),
        (["--leave-vram", "much"], "not a size: 'much'"),
        (["--supervised", "0"], "not a share: '0'"),
    ],
)
def test_wrong_use_is_said_once(tmp_path: Path, wrong: list[str], said: str) -> None:
    done = run("trainer", "params", *wrong, cwd=tmp_path, code=2)
    assert said in done.stderr
    assert not done.stdout


def test_no_torch_is_loaded() -> None:
    code = "import sys; sys.argv = ['trainer', 'params', '--json']\nfrom trainer.cli import main\n"
    code += "try: main()\nexcept SystemExit: pass\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True, capture_output=True, timeout=60)
