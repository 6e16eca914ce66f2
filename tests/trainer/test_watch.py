"""`trainer watch`: what it says of a run in each of its states, and how it follows one and ends."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import pytest
from rich.console import Console

from foundation.workspace import FILE, Workspace
from tests.support.commands import REPOSITORY, run, run_json
from tests.trainer.written_run import fill, judged, run_info
from trainer.metrics import METRICS, RUN, RoundPoint
from trainer.watch import Watcher, curve, ending, holder, line, newest_checkpoint, picture
from trainer.watch_rounds import rounds_table

POINTS = (
    RoundPoint(round=1, step=100, pass_rate=0.31, low=0.25, high=0.37, baseline=0.12, unscored=2, corrected=0.33,
               corrected_low=0.26, corrected_high=0.4, seconds={"train": 100, "judge": 80}),
    RoundPoint(round=1, step=100, split="unseen", pass_rate=0.05, low=0.02, high=0.09, seconds={"train": 100, "judge": 80}),
    RoundPoint(round=1, step=100, split="train", pass_rate=0.5, low=0.45, high=0.55, seconds={"train": 100, "judge": 80}),
    RoundPoint(round=2, step=200, error="the judge could not be reached"),
)  # fmt: skip
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY)}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """One without a run."""
    (tmp_path / FILE).write_text("version = 1\n")
    return Workspace(tmp_path)


def folder(workspace: Workspace, run: str = "main") -> Path:
    path = workspace.train / "runs" / run
    path.mkdir(parents=True, exist_ok=True)
    return path


def shown(workspace: Workspace, width: int = 100, height: int = 40) -> str:
    """The picture of the run, as text."""
    look = Watcher(workspace, "main").look()
    assert look
    console = Console(width=width, file=open(os.devnull, "w"), record=True)  # noqa: SIM115
    console.print(picture(look, width, height))
    return console.export_text()


@contextmanager
def holding(workspace: Workspace, name: str) -> Iterator[subprocess.Popen[str]]:
    """A process that holds that lock of the workspace."""
    code = (
        "import sys, time; from pathlib import Path; from foundation.workspace import Workspace\n"
        f"with Workspace(Path({str(workspace.root)!r})).lock({name!r}, wait=False):\n"
        "    print('held', flush=True); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
    try:
        assert process.stdout and process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()


def watching(workspace: Workspace, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "from trainer.cli import main; main()", "watch", "--interval", "0.1", *options]
    return subprocess.Popen(
        command, cwd=workspace.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    )


def test_a_run_that_trains_is_told_with_every_figure(workspace: Workspace) -> None:
    # given a run that is trained by a process, at step 60 of 200
    fill(folder(workspace), 60, run_info(run="main", optimizer="muon", schedule="wsd", physical_batch=2))
    judged(folder(workspace), *POINTS)
    (folder(workspace) / "checkpoints" / "step-000040").mkdir(parents=True)
    with holding(workspace, "train-main") as process:
        # when somebody looks
        document = run_json_of(workspace)
        picture_ = shown(workspace, 140)
    # then all of it is there
    assert (document["state"], document["pid"]) == ("training", process.pid)
    expected = {
        "run": "main", "step": 60, "steps": 200, "epoch": 1.2, "tokens": 120_000, "phrasing": 4 / 60, "unseen": 5.0,
        "learning_rate": 1e-3, "weight_decay": 0.1, "grad_norm": 0.5, "tokens_per_second": 51_200.4, "mfu": 0.412,
        "memory": 3 << 30, "seconds_left": 140 * 2.25, "checkpoint": "step-000040", "skipped": None, "silent": False,
    }  # fmt: skip
    assert {name: document[name] for name in expected} == expected
    assert document["loss"] == pytest.approx(sum(8 / step for step in range(52, 61)) / 9)
    assert 0 <= document["since"] < 60
    assert [point["pass_rate"] for point in document["rounds"]] == [0.31, 0.05, 0.5, None]
    assert document["info"]["git"] == "abc1234"
    for part in (
        "run main", f"training (pid {process.pid}, last line", "git abc1234", "4,262,144 parameters", "muon, wsd",
        "60 of 200 steps  5 min left", "held-out phrasing 0.067", "unseen article 5.000", "tokens/s 51,200", "MFU 41.2 %",
        "memory 3.0 GiB", "learning rate 0.001", "weight decay 0.1", "gradient norm 0.5", "checkpoint step-000040",
        "31 % (25–37 %)", "12 %", "5 % (2–9 %)", "50 % (45–55 %)", "33 % (26–40 %)", "round 2, held-out phrasing failed: the judge could not be reached",
        "█", "best checkpoint by loss 0.100 at step 40", "best by pass rate 31 % (25–37 %) at step 100",
        "trained less held-out 19 points (11 to 27)", "train 2 min, judge 80 s: 44 % for answering and judging",
    ):  # fmt: skip
        assert part in picture_, part


def run_json_of(workspace: Workspace) -> dict[str, Any]:
    """`trainer watch --once --json`."""
    found: dict[str, Any] = run_json("trainer", "watch", "--once", cwd=workspace.root)
    return found


def test_a_run_whose_process_is_gone_is_stopped_and_one_at_its_last_step_is_done(workspace: Workspace) -> None:
    fill(folder(workspace), 60)
    with holding(workspace, "train-main"):
        pass  # killed: its lock's file still names it
    assert state(workspace) == "stopped"
    assert "no process on this machine trains it" in shown(workspace)
    fill(folder(workspace), 200, start=61)
    assert state(workspace) == "done"


def test_between_its_stages_an_orchestrated_run_is_answering_or_judging(workspace: Workspace) -> None:
    fill(folder(workspace), 200)
    with holding(workspace, "orchestrate-main"):
        assert state(workspace) == "answering or judging"
        with holding(workspace, "train-main"):
            assert state(workspace) == "training"
    assert state(workspace) == "done"


def state(workspace: Workspace) -> str:
    look = Watcher(workspace, "main").look()
    assert look
    return look.state


def test_looking_takes_no_lock(workspace: Workspace) -> None:
    fill(folder(workspace), 10)
    watcher = Watcher(workspace, "main")
    for _ in range(20):
        watcher.look()
        with workspace.lock("train-main", wait=False):
            assert watcher.look().state == "training"  # type: ignore[union-attr]


def test_a_process_that_took_a_dead_ones_number_holds_nothing(workspace: Workspace, tmp_path: Path) -> None:
    lock = tmp_path / "train-main.lock"
    assert holder(lock) is None
    lock.write_text(f"pid {os.getpid()}")
    assert holder(lock) is None
    with open(lock):
        found = holder(lock)
        assert found and found[0] == os.getpid()
    for broken in ("", "pid ", "pid 99999999", "\x00"):
        lock.write_text(broken)
        assert holder(lock) is None


def test_a_run_that_says_nothing_for_long_is_called_silent(workspace: Workspace) -> None:
    fill(folder(workspace), 10)
    look = Watcher(workspace, "main").look()
    assert look
    training = replace(look, state="training", pid=1, seconds_left=190 * 2.0)
    assert not replace(training, since=199.0, running=1000.0).silent
    assert replace(training, since=201.0, running=1000.0).silent
    assert not replace(training, since=5000.0, running=100.0).silent  # it has only just begun
    assert not replace(look, state="stopped", since=5000.0).silent
    assert "silent for 3 min" in line(replace(training, since=201.0, running=1000.0))


def test_a_missing_run_is_named_with_those_there_are(workspace: Workspace) -> None:
    fill(folder(workspace, "other"), 1)
    told = run("trainer", "watch", "--once", cwd=workspace.root, code=2).stderr
    assert "there is no run main" in told and "--run: other" in told
    assert "not a run's name" in run("trainer", "watch", "--run", "../x", cwd=workspace.root, code=2).stderr


def test_it_waits_for_a_run_follows_it_and_ends_with_it(workspace: Workspace) -> None:
    process = watching(workspace)
    try:
        assert line_of(process.stderr) == "waiting for run main"
        fill(folder(workspace), 20, run_info(steps=30))
        assert line_of(process.stdout).startswith("step 20 of 30, loss ")
        with open(folder(workspace) / METRICS, "a") as file:
            file.write('{"step": 21, "ep')  # a line that is being written
        fill(folder(workspace), 0, run_info(steps=30), start=1)
        time.sleep(0.3)
        with open(folder(workspace) / METRICS, "a") as file:
            file.write('och": 0.4, "tokens": 42000, "supervised": 1, "loss": 0.25}\n')
        assert line_of(process.stdout).startswith("step 21 of 30, loss ")
        fill(folder(workspace), 30, run_info(steps=30), start=22)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert out.splitlines()[-1].startswith("step 30 of 30, ") and out.rstrip().endswith(", done")
    assert "run main is done: 30 steps, 60,000 tokens, loss 0." in err
    assert process.returncode == 0


def line_of(stream: IO[str] | None, timeout: float = 60) -> str:
    assert stream and select.select([stream], [], [], timeout)[0], "nothing was said"
    return stream.readline().rstrip()


def test_as_json_each_news_is_a_document_on_a_line(workspace: Workspace) -> None:
    fill(folder(workspace), 30, run_info(steps=30))
    out, _ = watching(workspace, "--json").communicate(timeout=60)
    (document,) = (json.loads(one) for one in out.splitlines())
    assert (document["state"], document["step"]) == ("done", 30)


def test_interrupted_it_ends_quietly(workspace: Workspace) -> None:
    process = watching(workspace)
    line_of(process.stderr)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "", "")


def test_on_a_terminal_the_picture_is_redrawn_until_the_run_is_done(workspace: Workspace) -> None:
    fill(folder(workspace), 20, run_info(steps=30, run="main"))
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", "from trainer.cli import main; main()", "watch", "--interval", "0.1"]
    environment = ENVIRONMENT | {"TERM": "xterm", "COLUMNS": "100", "LINES": "40"}
    process = subprocess.Popen(command, cwd=workspace.root, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    seen = ""
    deadline = time.monotonic() + 60
    filled = False
    while time.monotonic() < deadline:
        try:
            seen += os.read(ours, 65536).decode(errors="replace") if select.select([ours], [], [], 0.2)[0] else ""
        except OSError:  # the other end is closed
            break
        if "20 of 30 steps" in seen and not filled:
            filled = True
            fill(folder(workspace), 30, run_info(steps=30, run="main"), start=21)
    os.close(ours)
    assert process.wait(60) == 0
    assert "30 of 30 steps" in seen
    assert "run main is done: 30 steps" in seen


@pytest.mark.parametrize(("width", "height"), [(60, 15), (80, 24), (200, 60)])
def test_the_picture_fits_its_terminal(workspace: Workspace, width: int, height: int) -> None:
    fill(folder(workspace), 60, run_info(run="main"))
    judged(folder(workspace), *[POINTS[0].model_copy(update={"round": number}) for number in range(1, 31)])
    rows = shown(workspace, width, height).splitlines()
    assert max(map(len, rows)) <= width
    if height >= 24:  # what does not fit a smaller one is cut below
        assert len(rows) < height
        assert any("█" in row for row in rows)


def test_a_run_that_has_only_begun_has_a_picture(workspace: Workspace) -> None:
    fill(folder(workspace), 0)
    assert "0 of 200 steps" in shown(workspace)
    (folder(workspace) / METRICS).unlink()
    assert "0 of 200 steps" in shown(workspace)


def test_a_damaged_run_is_a_clear_error(workspace: Workspace) -> None:
    (folder(workspace) / RUN).write_text("{")
    assert "no readable run.json" in run("trainer", "watch", "--once", cwd=workspace.root, code=1).stderr


def test_the_curve_keeps_its_ends_and_its_shape() -> None:
    rows = curve([4.0, 3.0, 2.0, 1.0], 40, 4)
    assert rows[0].rstrip() == "   4.000 ███████"
    assert rows[3] == "   1.000 " + 21 * "█" + 7 * "▁"
    assert len({len(row) for row in rows}) == 1
    assert [len(row) for row in curve([1.0] * 100_000, 80, 3)] == [80] * 3
    assert len(curve([2.0], 20, 2)) == 2
    # what happened at the very start of a long run does not flatten the rest
    assert curve([1000.0] + [2.0] * 300 + [1.0] * 300, 80, 2)[0].startswith("   2.000 ")


def test_the_newest_checkpoint_is_by_number(tmp_path: Path) -> None:
    for name in ("step-000900", "step-1000000", ".step-2000000-tmp", "step-x"):
        (tmp_path / name).mkdir()
    assert newest_checkpoint(tmp_path) == "step-1000000"
    assert newest_checkpoint(tmp_path / "missing") == ""


def test_what_is_said_at_the_end_has_the_pass_rate_of_held_out_phrasings(workspace: Workspace) -> None:
    fill(folder(workspace), 200, run_info(run="main"))
    judged(folder(workspace), *POINTS)
    look = Watcher(workspace, "main").look()
    assert look
    assert ", judged right 31 % (25–37 %) at step 100, the newest judging failed" in ending(look)
    judged(folder(workspace), *POINTS[:3])
    again = Watcher(workspace, "main").look()
    assert again and ending(again).endswith(", judged right 31 % (25–37 %)")


def row(width: int, *points: RoundPoint) -> list[str]:
    """The rounds' table, as lines."""
    console = Console(width=width, file=open(os.devnull, "w"), record=True)  # noqa: SIM115
    console.print(rounds_table(points, width, 10)[0])
    return console.export_text().splitlines()


DOUBTED = RoundPoint(
    round=3, step=300, pass_rate=0.9, low=0.8, high=1.0, corrected=0.95, problems=("5.0 % of the answers are unscored",)
)


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 160])
def test_a_row_a_round_at_every_width_and_no_rate_of_a_judging_that_is_not_believed(width: int) -> None:
    rows = row(width, *POINTS, DOUBTED)
    assert max(map(len, rows)) <= width
    assert [one.split()[0] for one in rows[1:4]] == ["1", "2", "3"]
    assert "held-out phrasing" in rows[0] and "31 % (25–37 %)" in rows[1] and "failed" in rows[2]
    assert "not believed" in rows[3] and "90 %" not in rows[3] and "95 %" not in rows[3]
    if width >= 100:
        assert rows[4] == "round 3, held-out phrasing not believed: 5.0 % of the answers are unscored"
        assert "50 % (45–55 %)" in rows[1] and "5 % (2–9 %)" in rows[1] and "33 % (26–40 %)" in rows[1]
        assert rows[1].rstrip().endswith("44 %")


def test_what_judging_takes_counts_once_a_round_and_the_best_is_one_that_is_believed(workspace: Workspace) -> None:
    fill(folder(workspace), 60, run_info(run="main"))
    spent = {"seconds": {"train": 60, "answer": 30, "judge": 10}, "gpu_seconds": {"train": 60, "answer": 25}}
    points = [
        RoundPoint(round=number, step=20 * number, split=split, pass_rate=number / 10, **spent)  # type: ignore[arg-type]
        for number in (1, 2)
        for split in ("phrasing", "unseen", "train")
    ]
    judged(folder(workspace), *points, DOUBTED)
    document = run_json_of(workspace)
    assert document["stages"] == {
        "seconds": {"train": 120, "answer": 60, "judge": 20},
        "gpu_seconds": {"train": 120, "answer": 50},
        "judging_share": pytest.approx(0.4),
    }
    assert document["best_by_loss"] == {"step": 60, "phrasing": 4 / 60, "checkpoint": False}
    assert document["best_by_pass_rate"] == {"step": 40, "round": 2, "pass_rate": 0.2}
    assert document["trained_less_held_out"] == {"value": 0, "low": 0, "high": 0}
    assert [point["believed"] for point in document["rounds"]] == [True] * 6 + [False]
    assert "on the GPU 3 min: 40 % for answering and judging" in shown(workspace)


def test_a_run_that_was_ended_early_is_done_and_says_why(workspace: Workspace) -> None:
    # given a run whose orchestrator ended it at step 60 of 200
    fill(folder(workspace), 60, run_info(run="main"))
    state_of = folder(workspace) / "orchestrate.json"
    state_of.write_text('{"ended": "no higher pass rate for 3 rounds"}')
    # then it is done, in every way it is looked at
    document = run_json_of(workspace)
    assert (document["state"], document["ended"]) == ("done", "no higher pass rate for 3 rounds")
    assert "ended early: no higher pass rate for 3 rounds" in shown(workspace)
    _, told = watching(workspace).communicate(timeout=60)
    assert "it ended early: no higher pass rate for 3 rounds" in told
    # and one whose state says nothing of it, or is torn, is stopped
    for content in ('{"ended": ""}', "{}", "[]", '{"en'):
        state_of.write_text(content)
        assert state(workspace) == "stopped"


def test_it_imports_no_torch(workspace: Workspace) -> None:
    code = "import sys; import trainer.watch, trainer.plot, trainer.commands.watch; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env=ENVIRONMENT)
