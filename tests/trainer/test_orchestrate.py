"""The orchestrator with its real stages: killed in each of them it goes on, and ends where an unbroken run ends."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from foundation.errors import UsageError
from foundation.ids import stable_id
from foundation.processes import marked
from foundation.records import Answer, Verdict
from foundation.workspace import Workspace
from tests.support.commands import REPOSITORY, run, run_json
from tests.trainer.small_run import packed_workspace
from trainer.orchestrate import orchestrate
from trainer.stages import MARK

pytestmark = pytest.mark.timeout(600)

JUDGE = "\n[orchestrate]\nrounds = 2\n\n[judge]\nanswers = 3\n"


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with packs, to be copied; eight steps in all."""
    folder = tmp_path_factory.mktemp("packed") / "w"
    packed_workspace(folder, 2, epochs=1.0, evaluate_every=4, checkpoint_every=2)
    return folder


def _copy(packed: Path, folder: Path) -> Workspace:
    subprocess.run(["cp", "-a", str(packed), str(folder)], check=True)  # links of the packs included
    with open(folder / "factory.toml", "a", encoding="utf-8") as file:
        file.write(JUDGE)
    return Workspace(folder)


@pytest.fixture
def workspace(packed: Path, tmp_path: Path) -> Workspace:
    return _copy(packed, tmp_path / "w")


@pytest.fixture(scope="module")
def whole(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, dict[str, Any]]:
    """A workspace whose run `main` went through both its rounds unbroken, and what the command printed."""
    workspace = _copy(packed, tmp_path_factory.mktemp("whole") / "w")
    return workspace, run_json("trainer", "run", "--orchestrate", cwd=workspace.root, timeout=500)


def _weights(workspace: Workspace, name: str = "main") -> str:
    newest = sorted((workspace.train / "runs" / name / "checkpoints").glob("step-*"))[-1]
    return newest.name + hashlib.sha256((newest / "model.safetensors").read_bytes()).hexdigest()


def _rounds(workspace: Workspace, name: str = "main") -> list[dict[str, Any]]:
    lines = (workspace.train / "runs" / name / "rounds.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "seconds"} for line in lines]


def _start(workspace: Workspace, name: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "trainer.cli", "run", "--orchestrate", "--run", name, "--json"]
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]))
    return subprocess.Popen(
        argv,
        cwd=workspace.root,
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _until(condition: Any, process: subprocess.Popen[str], seconds: float = 240) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.02)


def _mark(workspace: Workspace, name: str) -> str:
    return stable_id("orchestrate", str(workspace.root), name)


def test_killed_in_every_stage_it_ends_where_an_unbroken_run_ends(whole: tuple[Workspace, dict[str, Any]]) -> None:
    workspace, _ = whole
    # when a run is killed once in each kind of stage, and asked to stop in a fourth
    for stage in ("1-train", "1-answer-phrasing", "1-judge-unseen"):
        log = workspace.logs / f"broken-{stage}.log"
        process = _start(workspace, "broken")
        _until(log.exists, process)
        time.sleep(0.2)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=20)
    process = _start(workspace, "broken")
    log = workspace.logs / "broken-2-train.log"
    _until(lambda: log.exists() and "train broken" in log.read_text(), process)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    # then it stops well, with nothing left, and says how to go on
    assert process.returncode == 0, err
    assert json.loads(out)["stopped"] is True
    assert "the same command goes on from here" in err
    assert marked(MARK, _mark(workspace, "broken")) == []
    # and its end is that of the unbroken one, with no judging lost or made twice
    rest = run_json("trainer", "run", "--orchestrate", "--run", "broken", cwd=workspace.root, timeout=500)
    assert (rest["stopped"], rest["rounds_trained"]) == (False, 2)
    assert _weights(workspace, "broken") == _weights(workspace)
    assert _rounds(workspace, "broken") == _rounds(workspace)
    assert marked(MARK, _mark(workspace, "broken")) == []


def test_each_round_is_trained_answered_judged_and_drawn_once(whole: tuple[Workspace, dict[str, Any]]) -> None:
    workspace, found = whole
    assert (found["stopped"], found["rounds_trained"], found["step"]) == (False, 2, found["steps"])
    assert [(row["round"], row["split"]) for row in _rounds(workspace)] == [
        (1, "phrasing"),
        (1, "unseen"),
        (2, "phrasing"),
        (2, "unseen"),
    ]
    folder = workspace.train / "runs" / "main"
    steps = [row["step"] for row in found["results"] if row["split"] == "phrasing"]
    assert steps == [round(found["steps"] / 2), found["steps"]]
    for number, step in zip((1, 2), steps, strict=True):
        for split in ("phrasing", "unseen"):
            answers = [
                Answer.model_validate_json(line)
                for line in (folder / f"rounds/{number}/answers-{split}.jsonl").read_text().splitlines()
            ]
            verdicts = [
                Verdict.model_validate_json(line)
                for line in (folder / f"rounds/{number}/verdicts-{split}.jsonl").read_text().splitlines()
            ]
            assert [verdict.item_id for verdict in verdicts] == [answer.item.id for answer in answers]
            assert len(answers) == 3
            assert {answer.checkpoint for answer in answers} == {f"main/step-{step:06d}"}
            assert {answer.item.split for answer in answers} == {split}
    for row in found["results"]:
        assert row["low"] <= row["pass_rate"] <= row["high"]
        assert row["baseline"] is not None
        assert set(row["seconds"]) == {"train", "answer", "judge"}
        assert row["error"] == ""
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")
    # and run again, nothing is repeated
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    began = time.monotonic()
    again = run_json("trainer", "run", "--orchestrate", cwd=workspace.root)
    assert time.monotonic() - began < 10
    assert again["results"] == found["results"]
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == before


def test_a_judge_that_fails_is_recorded_and_made_up_for_later(workspace: Workspace) -> None:
    toml = workspace.root / "factory.toml"
    good = toml.read_text().replace("rounds = 2", "rounds = 1")
    toml.write_text(good + 'backend = "openai"\nbase_url = "nowhere"\n')
    done = run("trainer", "run", "--orchestrate", cwd=workspace.root, timeout=300)
    assert "training goes on" in done.stderr
    assert "Traceback" not in done.stderr
    rows = _rounds(workspace)
    assert [row["pass_rate"] for row in rows] == [None, None]
    assert all("judge.base_url is not a URL" in row["error"] for row in rows)
    trained = (workspace.logs / "main-1-train.log").stat().st_mtime_ns
    toml.write_text(good)
    run("trainer", "run", "--orchestrate", cwd=workspace.root, timeout=300)
    rows = _rounds(workspace)
    assert [row["error"] for row in rows] == ["", ""]
    assert all(row["pass_rate"] is not None for row in rows)
    assert (workspace.logs / "main-1-train.log").stat().st_mtime_ns == trained
    # another number of rounds is another run
    with pytest.raises(UsageError, match="begun with 1 rounds"):
        orchestrate(workspace, run="main", rounds=3)


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
        orchestrate(workspace, run="../up", rounds=1)
    empty = Workspace.init(tmp_path / "empty")
    with pytest.raises(UsageError, match="no tokenizer"):
        orchestrate(empty, run="main", rounds=1)


def test_the_orchestrator_itself_holds_no_model() -> None:
    script = "import sys, trainer.orchestrate\nprint([n for n in ('torch', 'matplotlib', 'judge', 'generator') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert done.stdout.strip() == "[]"
