"""A stage is heard, timed, and gone with everything it started, whatever session that is in."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from foundation.processes import marked, session_members
from trainer.stages import MARK, Ended, Lane, Signals, Stopped, end_leftovers, run_stage

DETACHED = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"], start_new_session=True)
print("child", child.pid, flush=True)
"""


@pytest.fixture
def lane_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Run the text of a module as a stage of a lane."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "modules"))
    (tmp_path / "modules").mkdir()
    (tmp_path / "w").mkdir()

    def run(lane: Lane, text: str, *arguments: str) -> Ended:
        (tmp_path / "modules" / "a_stage.py").write_text(text)
        return run_stage(lane, "a_stage", arguments, name="the stage", log=tmp_path / "log")

    return run


@pytest.fixture
def stage(lane_stage, tmp_path: Path):  # type: ignore[no-untyped-def]
    """Run the text of a module as a stage of a lane without a GPU."""

    def run(text: str, *arguments: str, signals: Signals | None = None) -> Ended:
        lane = Lane(mark=tmp_path.name, folder=tmp_path / "w", signals=signals or Signals())
        return lane_stage(lane, text, *arguments)

    return run


def test_lines_are_passed_on_and_the_document_is_the_result(
    stage, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:  # type: ignore[no-untyped-def,type-arg]
    text = (
        "import os, sys\nprint('one', sys.argv[1], os.getcwd(), os.environ['FACTORY_WORKSPACE'], file=sys.stderr)\n"
        "print('{not json')\nprint('{\"step\": 3}')\nprint('two', end='')"
    )
    ended = stage(text, "argument")
    assert (ended.code, ended.document) == (0, {"step": 3})
    out, err = capfd.readouterr()
    assert out == ""
    assert set(err.splitlines()) == {"{not json", f"one argument {tmp_path / 'w'} {tmp_path / 'w'}"}
    assert "two" in (tmp_path / "log").read_text()
    assert 0 < ended.seconds < 30


def test_a_log_is_of_the_last_attempt(stage, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    stage("print('first')")
    stage("print('second')")
    assert (tmp_path / "log").read_text() == "second\n"


def test_how_it_failed_is_told(stage) -> None:  # type: ignore[no-untyped-def]
    text = (
        "import sys\nprint('error: an early one')\nprint('noise')\nprint('error: no room\\n  where: here')\nsys.exit(2)"
    )
    ended = stage(text)
    assert (ended.code, ended.complaint) == (2, "no room\n  where: here")
    assert stage("import sys; sys.exit(3)").complaint == "exit code 3"
    killed = stage("import os; os.kill(os.getpid(), 9)")
    assert (killed.code, killed.complaint) == (-9, "killed by signal 9")


def test_a_child_in_another_session_does_not_outlive_the_stage(
    stage, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:  # type: ignore[no-untyped-def,type-arg]
    ended = stage(DETACHED)
    assert ended.code == 0
    child = int((tmp_path / "log").read_text().split()[1])
    assert marked(MARK, tmp_path.name) == []
    assert session_members(child) == []
    assert f"pids {child}" in capfd.readouterr().err


def test_a_file_ends_a_stage_that_knows_nothing_of_it(stage, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """An answer or a judging hears signals alone; and a stage that knows the file takes it away itself."""
    wish = tmp_path / "STOP"
    signals = Signals(file=wish)
    threading.Timer(1.0, wish.touch).start()
    began = time.monotonic()
    with pytest.raises(Stopped):
        stage("import time; time.sleep(120)", signals=signals)
    assert time.monotonic() - began < 60
    assert marked(MARK, tmp_path.name) == []
    wish.unlink()
    with pytest.raises(Stopped):
        stage("print('another one')", signals=signals)


def test_what_a_killed_orchestrator_left_is_ended_first(stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    """As if the parent had died at once: the marked process is found by its mark alone."""
    import subprocess
    import sys

    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(120)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", stubborn], env={**os.environ, MARK: "m1"}, start_new_session=True, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    assert marked(MARK, "m1") == [process.pid]
    assert marked(MARK, "m") == []
    end_leftovers("m1", patience=0.3)
    assert process.wait(5) == -signal.SIGKILL
    end_leftovers("m1")


def test_a_signal_ends_the_stage_and_says_so(stage, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    signals = Signals()
    text = (
        "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: (print('saved', flush=True), sys.exit(0)))\n"
        "print('up', flush=True)\ntime.sleep(120)"
    )

    def later() -> None:
        while not (tmp_path / "log").exists() or "up" not in (tmp_path / "log").read_text():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=later)
    thread.start()
    with signals.watched(), pytest.raises(Stopped):
        stage(text, signals=signals)
    thread.join()
    assert "saved" in (tmp_path / "log").read_text()
    assert marked(MARK, tmp_path.name) == []
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    with pytest.raises(Stopped):  # and nothing is started after it
        stage("print('never')", signals=signals)
    assert "never" not in (tmp_path / "log").read_text()


def test_a_folder_of_the_workspace_is_no_package(stage, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "w" / "json").mkdir()
    (tmp_path / "w" / "json" / "__init__.py").write_text("raise SystemExit(9)")
    assert stage("import json; json.dumps({})").code == 0


class PretendedGpu:
    """In place of NVML, which needs a card: `used` bytes on one GPU, and the processes that are at work there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, used: int) -> None:
        self.used, self.pids = used, set[int]()
        for module in ("trainer.stages", "foundation.processes"):
            monkeypatch.setattr(f"{module}.gpu_memory_used", lambda visible=None: [self.used])
            monkeypatch.setattr(f"{module}.gpu_processes", lambda among, visible=None: self.pids & set(among))


def test_memory_that_others_took_meanwhile_is_not_waited_for(
    lane_stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    gpu = PretendedGpu(monkeypatch, 1 << 30)
    lane = Lane(mark=tmp_path.name, folder=tmp_path / "w", signals=Signals(), gpu=True)
    assert lane_stage(lane, "pass").code == 0
    gpu.used = 9 << 30  # somebody else's program began between two stages
    began = time.monotonic()
    ended = lane_stage(lane, "pass")
    assert time.monotonic() - began < 20, "it waited for memory that no stage of ours took"
    assert ended.gpu_seconds == 0.0


def test_how_long_the_gpu_was_held_is_counted_for_a_short_stage_too(
    lane_stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    gpu = PretendedGpu(monkeypatch, 1 << 30)
    lane = Lane(mark=tmp_path.name, folder=tmp_path / "w", signals=Signals(), gpu=True)
    monkeypatch.setattr("trainer.stages.marked", lambda *_: [4711])
    monkeypatch.setattr("trainer.stages.end_leftovers", lambda *_: gpu.pids.clear())
    gpu.pids = {4711}
    ended = lane_stage(lane, "import time; time.sleep(2)")
    assert ended.gpu_seconds is not None
    assert 1 <= ended.gpu_seconds <= ended.seconds + 0.1  # it is told to a tenth
