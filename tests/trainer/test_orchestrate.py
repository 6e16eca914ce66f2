"""The orchestrator with its real stages: killed in each of them it goes on, and ends where an unbroken run ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from foundation.errors import UsageError
from foundation.processes import marked
from foundation.records import Answer, Verdict
from foundation.tables import OrchestrateSettings
from foundation.workspace import Workspace
from tests.support.commands import REPOSITORY, run, run_json
from tests.trainer.orchestrated import copied, marks, packed, rounds, start, until, weights
from trainer.orchestrate import orchestrate
from trainer.stages import MARK

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packed(tmp_path_factory.mktemp("packed") / "w")


@pytest.fixture
def workspace(ready: Path, tmp_path: Path) -> Workspace:
    return copied(ready, tmp_path / "w")


@pytest.fixture(scope="module")
def whole(ready: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, dict[str, Any]]:
    """A workspace whose run `main` went through both its rounds unbroken, and what the command printed."""
    workspace = copied(ready, tmp_path_factory.mktemp("whole") / "w")
    return workspace, run_json("trainer", "run", "--orchestrate", cwd=workspace.root, timeout=500)


STAGES = ("train", "answer", "judge", "report")


def test_killed_in_every_stage_it_ends_where_an_unbroken_run_ends(whole: tuple[Workspace, dict[str, Any]]) -> None:
    workspace, _ = whole
    # when a run is killed once in each kind of stage, and asked to stop in another one
    for stage in STAGES:
        log = workspace.logs / f"broken-1-{stage}.log"
        process = start(workspace, "broken")
        until(log.exists, process)
        time.sleep(0.2)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=20)
    process = start(workspace, "broken")
    log = workspace.logs / "broken-2-train.log"
    until(lambda: log.exists() and "train broken" in log.read_text(), process)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    # then it stops well, with nothing left, and says how to go on
    assert process.returncode == 0, err
    assert json.loads(out)["stopped"] is True
    assert "the same command goes on from here" in err
    assert [marked(MARK, mark) for mark in marks(workspace, "broken")] == [[], []]
    # and its end is that of the unbroken one, with no judging lost or made twice
    rest = run_json("trainer", "run", "--orchestrate", "--run", "broken", cwd=workspace.root, timeout=500)
    assert (rest["stopped"], rest["rounds_trained"]) == (False, 2)
    assert weights(workspace, "broken") == weights(workspace)
    assert rounds(workspace, "broken") == rounds(workspace)
    assert [marked(MARK, mark) for mark in marks(workspace, "broken")] == [[], []]
    assert (workspace.train / "runs/broken/judged.html").exists()


def test_each_round_is_trained_answered_judged_and_drawn_once(whole: tuple[Workspace, dict[str, Any]]) -> None:
    workspace, found = whole
    assert (found["stopped"], found["rounds_trained"], found["step"]) == (False, 2, found["steps"])
    order = [(row["round"], row["split"]) for row in rounds(workspace)]
    assert order == [(number, split) for number in (1, 2) for split in ("phrasing", "unseen", "train")]
    folder = workspace.train / "runs" / "main"
    steps = [row["step"] for row in found["results"] if row["split"] == "phrasing"]
    assert steps == [round(found["steps"] / 2), found["steps"]]
    for number, step in zip((1, 2), steps, strict=True):
        lines = (folder / f"rounds/{number}/answers.jsonl").read_text().splitlines()
        answers = [Answer.model_validate_json(line) for line in lines]
        lines = (folder / f"rounds/{number}/verdicts.jsonl").read_text().splitlines()
        verdicts = [Verdict.model_validate_json(line) for line in lines]
        assert [verdict.item_id for verdict in verdicts] == [answer.item.id for answer in answers]
        splits = [answer.item.split for answer in answers]
        assert splits == ["phrasing"] * 3 + ["unseen"] * 3 + ["train"] * 3
        assert {answer.checkpoint for answer in answers} == {f"main/step-{step:06d}"}
    for row in found["results"]:
        assert row["error"] == ""
        assert set(row["seconds"]) == {"train", "answer", "judge"}
        assert row["gpu_seconds"] == {}
        assert (row["pass_rate"] is None) == (row["low"] is None)
    assert set(found["stages"]["seconds"]) == {"train", "answer", "judge"}
    assert 0 < found["stages"]["judging_share"] < 1
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert "main/step-" in (folder / "judged.html").read_text()
    # and run again, nothing is repeated
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    began = time.monotonic()
    again = run_json("trainer", "run", "--orchestrate", cwd=workspace.root)
    assert time.monotonic() - began < 10
    assert again["results"] == found["results"]
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == before


def _failing_judge(workspace: Workspace, *orchestrated: str) -> str:
    """Settings in which no judge can work; returns those in which one can, with one round."""
    toml = workspace.root / "factory.toml"
    good = toml.read_text().replace("rounds = 2", "\n".join(("rounds = 1", *orchestrated)))
    toml.write_text(good + 'backend = "openai"\nbase_url = "nowhere"\n')
    return good


def test_a_judge_that_fails_is_recorded_and_made_up_for_later(workspace: Workspace) -> None:
    good = _failing_judge(workspace)
    done = run("trainer", "run", "--orchestrate", cwd=workspace.root, timeout=300)
    assert "training goes on" in done.stderr
    assert "Traceback" not in done.stderr
    (row,) = rounds(workspace)
    assert (row["round"], row["split"], row["pass_rate"]) == (1, "phrasing", None)
    assert "judge.base_url is not a URL" in row["error"]
    trained = (workspace.logs / "main-1-train.log").stat().st_mtime_ns
    (workspace.root / "factory.toml").write_text(good)
    run("trainer", "run", "--orchestrate", cwd=workspace.root, timeout=300)
    rows = rounds(workspace)
    assert [(row["split"], row["error"]) for row in rows] == [("phrasing", ""), ("unseen", ""), ("train", "")]
    assert all(row["unscored"] is not None for row in rows)
    assert (workspace.logs / "main-1-train.log").stat().st_mtime_ns == trained
    # another number of rounds is another run
    with pytest.raises(UsageError, match="begun with 1 rounds, and is to have a judging every 3 steps"):
        orchestrate(workspace, run="main", settings=OrchestrateSettings(rounds=3, judge_every=3))


@pytest.mark.slow
def test_judges_that_fail_one_after_another_end_training_if_asked(workspace: Workspace) -> None:
    good = _failing_judge(workspace, "judge_every = 3", "give_up_after = 2")
    done = run("trainer", "run", "--orchestrate", cwd=workspace.root, code=1, timeout=300)
    assert "the newest 2 judgings gave no pass rate that can be believed" in done.stderr
    assert "judge.base_url is not a URL" in done.stderr
    assert "give_up_after" in done.stderr
    assert [row["round"] for row in rounds(workspace)] == [1, 2]
    # with a judge that works, what it missed is made up for, and training goes on to its end
    (workspace.root / "factory.toml").write_text(good.replace("give_up_after = 2", "give_up_after = 0"))
    rest = run_json("trainer", "run", "--orchestrate", cwd=workspace.root, timeout=500)
    assert rest["step"] == rest["steps"]
    assert [row["error"] for row in rounds(workspace)] == [""] * 3 * rest["rounds"]


def test_begun_anew_it_has_forgotten_everything(workspace: Workspace) -> None:
    """Stopped in its first seconds, or refused, a fresh run must not go on with what the old one left."""
    folder = workspace.train / "runs" / "main"
    run("trainer", "run", "--until-step", "3", cwd=workspace.root)
    (folder / "rounds" / "1").mkdir(parents=True)
    (folder / "rounds" / "1" / "answers.jsonl").write_text("of another run\n")
    process = start(workspace, "main", "--fresh")
    log = workspace.logs / "main-1-train.log"
    until(log.exists, process)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, json.loads(out)["stopped"]) == (0, True)
    assert "the same command without --fresh goes on from here" in err
    assert not (folder / "rounds").exists()
    assert not list((folder / "checkpoints").glob("step-000003"))
    assert not list(folder.parent.glob(".main.forgotten-*"))
    # what the stopped stage took is not lost
    state = json.loads((folder / "orchestrate.json").read_text())
    assert state["stopped"]["1/train"]["seconds"] > 0
    assert state["ends"] == [4, 8]


def test_lines_that_a_kill_left_out_are_written_when_it_is_opened_again(
    whole: tuple[Workspace, dict[str, Any]],
) -> None:
    workspace, found = whole
    lines = workspace.train / "runs/main/rounds.jsonl"
    before = lines.read_bytes()
    lines.unlink()
    again = run_json("trainer", "run", "--orchestrate", cwd=workspace.root)
    assert again["results"] == found["results"]
    assert lines.read_bytes() == before


def test_a_training_that_fails_ends_the_run_with_its_reason(workspace: Workspace) -> None:
    done = run("trainer", "run", "--orchestrate", "--device", "cuda", cwd=workspace.root, code=2, timeout=120)
    assert "round 1 could not be trained" in done.stderr
    assert "torch finds none" in done.stderr
    assert "run the same command again" in done.stderr
    assert not (workspace.train / "runs" / "main" / "rounds.jsonl").exists()


def test_wrong_use_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    done = run("trainer", "run", "--orchestrate", "--until-step", "3", cwd=workspace.root, code=2)
    assert "exclude each other" in done.stderr
    with pytest.raises(UsageError, match="not a run's name"):
        orchestrate(workspace, run="../up", settings=OrchestrateSettings())
    empty = Workspace.init(tmp_path / "empty")
    with pytest.raises(UsageError, match="no tokenizer"):
        orchestrate(empty, run="main", settings=OrchestrateSettings())


def test_the_orchestrator_itself_holds_no_model() -> None:
    script = "import sys, trainer.orchestrate\nprint([n for n in ('torch', 'matplotlib', 'judge', 'generator') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert done.stdout.strip() == "[]"
