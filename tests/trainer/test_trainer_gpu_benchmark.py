"""`benchmarks/trainer_gpu.py` where there is no GPU: its logic is tried on a CPU, and without a card it says so and ends well."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

from benchmarks.trainer_gpu import missed
from tests.support.commands import REPOSITORY

SCRIPT = "benchmarks/trainer_gpu.py"
# What a machine that has torch, numpy and pydantic may lack.
NOT_NEEDED = {"tokenizers", "typer", "rich", "orjson", "safetensors", "psutil", "matplotlib", "rq", "boto3", "lingua"}
ENDED = f"""
import runpy, sys
sys.argv = {[SCRIPT, "--device", "cpu", "--preset", "smoke-10m", "--small"]!r}
runpy.run_path({SCRIPT!r}, run_name="__main__")
print(*(sys.modules.keys() & {NOT_NEEDED!r}), file=sys.stderr)
"""


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [sys.executable, *arguments], cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=240
    )


def test_its_logic_runs_on_a_cpu_with_torch_numpy_and_pydantic_alone() -> None:
    done = bench("-c", ENDED)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == ""
    told = json.loads(done.stdout)
    assert told["device"] == "CPU"
    assert told["torch"] == torch.__version__
    (trained,) = told["training"]
    assert trained["useful_tokens_a_second"] > 0
    assert 0.5 < trained["filled"] <= 1
    assert trained["mfu"] is None, "a CPU has no peak to take a share of"
    assert trained["loss_first_last"][1] < trained["loss_first_last"][0]
    assert trained["estimate"]["tensors"] < trained["estimate"]["total"]
    (attention,) = told["attention"]
    assert attention["ratio"] == pytest.approx(
        attention["milliseconds"]["ours"] / attention["milliseconds"]["bare"], rel=0.01
    )
    (parity,) = told["parity"]
    for errors in parity["largest_error_over_largest_value"].values():
        assert 0 < max(errors.values()) < told["limits"]["parity"]
    assert not told["left_out"]
    assert told["missed"] is None, "limits are for a GPU"


def test_without_a_gpu_it_says_so_and_ends_well() -> None:
    done = bench(SCRIPT)
    assert done.returncode == 0
    assert "torch finds no CUDA GPU here, so nothing was measured" in done.stderr
    assert not done.stdout


def test_what_is_beyond_its_limit_is_named() -> None:
    good = {"preset": "wwii-183m", "physical_batch": 16, "mfu": 0.52, "tensors_over_estimate": 0.97}
    three = {**good, "physical_batch": 3, "mfu": 0.3, "taken_of_the_card": 12 << 30}
    attention = {"preset": "wwii-183m", "ratio": 1.04}
    parity = {"preset": "wwii-183m", "largest_error_over_largest_value": {"varlen": {"out": 0.004, "dq": 0.006}}}
    assert missed({"training": [good, three], "attention": [attention], "parity": [parity]}) == []
    said = missed(
        {
            "training": [{**good, "mfu": 0.41}, {**three, "taken_of_the_card": 16 << 30, "tensors_over_estimate": 1.2}],
            "attention": [{**attention, "ratio": 1.3}],
            "parity": [{**parity, "largest_error_over_largest_value": {"varlen": {"out": 0.2}}}],
        }
    )
    assert len(said) == 5
    assert "an MFU of 0.41, not 0.5" in said[0]
    assert "16.0 GB, not under 15.0" in said[2]
