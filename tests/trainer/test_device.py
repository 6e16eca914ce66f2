"""`trainer run` and the device: it asks, waits, and holds; a second one stands behind it, and a stage does not ask."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from foundation.devices import FOLDER, device_holder, device_wanted_by, hold_device
from tests.support.commands import REPOSITORY, run, run_json
from tests.trainer.small_run import packed_workspace

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace that is ready for `trainer run`: few steps, one round."""
    folder = tmp_path_factory.mktemp("packed") / "w"
    packed_workspace(folder, 2, epochs=1.0)
    with open(folder / "factory.toml", "a", encoding="utf-8") as file:
        file.write("\n[orchestrate]\nrounds = 1\n")
    with open(folder / "factory.toml", "a", encoding="utf-8") as file:
        file.write("\n[judge]\nanswers = 2\n")
    return folder


@pytest.fixture(autouse=True)
def own_locks_for_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path / "devices"))


class Run:
    """A `trainer run` in another process; `said` is its standard error so far."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]))
        self.log = folder / "logs" / f"{'-'.join(arguments).replace('--', '')}.err"
        self.log.parent.mkdir(exist_ok=True)
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "trainer.cli", "run", "--device", "cpu", "--json", *arguments],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": path},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def said(self) -> str:
        return self.log.read_text()

    def until(self, condition: Callable[[], object]) -> None:
        until = time.monotonic() + 240
        while not condition():
            assert self.process.poll() is None, self.said
            assert time.monotonic() < until, "waited too long"
            time.sleep(0.01)

    def end(self, code: int = 0) -> str:
        """Its standard output."""
        out, _ = self.process.communicate(timeout=240)
        assert self.process.returncode == code, self.said
        return out


def test_it_waits_for_a_device_that_is_held_and_goes_on_when_it_is_let_go(packed: Path) -> None:
    with hold_device("factory run in /somewhere", name="cpu") as hold:
        one = Run(packed, "--run", "one", "--until-step", "2")
        one.until(lambda: "waiting" in one.said)
        assert hold.wanted() == f"trainer run in {packed}, pid {one.pid}"
        assert "libtorch" not in Path(f"/proc/{one.pid}/maps").read_text(), "it loaded torch before it had the device"
        assert not (packed / "train" / "runs" / "one").exists()
    assert json.loads(one.end())["step"] == 2
    told = f"the CPU is held by factory run in /somewhere, pid {os.getpid()}: asked it to hand over, waiting\n"
    assert one.said.startswith(f"{told}the CPU is ours now\n")
    assert device_holder("cpu") == device_wanted_by("cpu") == ""


def test_after_the_waiting_it_trains_on_the_packs_there_are_then(packed: Path, tmp_path: Path) -> None:
    """Planned before, it would train on files that are gone, and never be gone on with."""
    subprocess.run(["cp", "-a", str(packed), str(tmp_path / "w")], check=True)
    with hold_device("factory run", name="cpu"):
        waiting = Run(tmp_path / "w", "--run", "late", "--until-step", "1")
        waiting.until(lambda: "waiting" in waiting.said)
        run("trainer", "shuffle", cwd=tmp_path / "w", env={"FACTORY_TRAIN__SHARE": "0.5"})
        run("trainer", "pack", cwd=tmp_path / "w")
    waiting.end()
    again = run_json("trainer", "run", "--run", "late", "--until-step", "2", "--device", "cpu", cwd=tmp_path / "w")
    assert again["step"] == 2


def test_a_second_one_waits_for_the_first_and_ctrl_c_ends_the_waiting(packed: Path) -> None:
    first = Run(packed, "--run", "first")
    first.until(lambda: device_holder("cpu") == f"trainer run in {packed}, pid {first.pid}")
    first.process.send_signal(signal.SIGSTOP)  # so that it is not done too soon
    second = Run(packed, "--run", "second", "--until-step", "1")
    second.until(lambda: f"held by trainer run in {packed}, pid {first.pid}" in second.said)
    third = Run(packed, "--run", "third", "--until-step", "1")
    third.until(lambda: f"asked for by trainer run in {packed}, pid {second.pid} already" in third.said)
    second.process.send_signal(signal.SIGINT)
    second.end(130)
    assert "Traceback" not in second.said
    first.process.send_signal(signal.SIGCONT)
    first.end()
    assert json.loads(third.end())["step"] == 1
    assert "the CPU is ours now" in third.said


def test_an_orchestrated_run_asks_once_and_its_stages_do_not(packed: Path) -> None:
    with hold_device("factory run in /somewhere", name="cpu") as hold:
        rounds = Run(packed, "--run", "rounds", "--orchestrate")
        rounds.until(lambda: "waiting" in rounds.said)
        assert hold.wanted() == f"trainer run --orchestrate in {packed}, pid {rounds.pid}"
        assert not list((packed / "logs").glob("rounds-*"))
    rounds.until(lambda: device_holder("cpu"))
    holders = set()
    while rounds.process.poll() is None:
        holders.add(device_holder("cpu"))
        time.sleep(0.02)
    rounds.end()
    assert f"trainer run --orchestrate in {packed}, pid {rounds.pid}" in holders
    assert not any(holder.startswith("trainer run in") for holder in holders), "a stage took it"
    assert rounds.said.count("hand over") == 1
    assert (packed / "train" / "runs" / "rounds" / "rounds.jsonl").exists()
    # and when nothing is left to do, nobody is asked for anything
    with hold_device("factory run in /somewhere", name="cpu") as hold:
        again = run("trainer", "run", "--run", "rounds", "--orchestrate", "--device", "cpu", cwd=packed)
        assert hold.wanted() == ""
    assert "hand over" not in again.stderr


@pytest.mark.parametrize("wrong", ["FACTORY_TRAIN__PRESET=no-such", "no packs"])
def test_nobody_is_asked_in_vain(packed: Path, tmp_path: Path, wrong: str) -> None:
    folder, env = packed, dict([wrong.split("=")]) if "=" in wrong else {}
    if not env:
        folder = tmp_path / "bare"
        run("factory", "init", str(folder), cwd=tmp_path)
    with hold_device("factory run", name="cpu") as hold:
        done = run("trainer", "run", "--run", "vain", "--device", "cpu", cwd=folder, code=2, env=env)
        assert hold.wanted() == ""
    assert "hand over" not in done.stderr
