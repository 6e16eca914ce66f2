"""The judge beside the training: neither waits for the other, and both end together; and when the pass rate says enough."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from foundation.processes import marked
from foundation.workspace import Workspace
from tests.support.commands import run, run_json
from tests.support.fault_server import FaultServer, fault_server, reply
from tests.trainer.orchestrated import copied, marks, packed, rounds, start, until
from trainer.paths import KEEP
from trainer.stages import MARK

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packed(tmp_path_factory.mktemp("packed") / "w")


@pytest.fixture
def workspace(ready: Path, tmp_path: Path) -> Workspace:
    return copied(ready, tmp_path / "w")


def _judged_by(workspace: Workspace, server: FaultServer) -> None:
    with open(workspace.root / "factory.toml", "a", encoding="utf-8") as file:
        file.write(f'backend = "openai"\nmodel = "m"\nbase_url = "{server.url}"\n')


def test_training_goes_on_while_a_round_is_judged(workspace: Workspace) -> None:
    # given a judge that says nothing before it is let
    let = threading.Event()

    async def slow(_: FaultServer, __: dict[str, Any]) -> Any:
        while not let.is_set():
            await asyncio.sleep(0.02)
        return reply("Right.\nVERDICT: PASS")

    with fault_server(slow) as server:
        _judged_by(workspace, server)
        process = start(workspace, "main", "--judge-device", "cpu")
        folder = workspace.train / "runs" / "main"
        # when the second round is trained and answered
        until((folder / "rounds/2/answers.jsonl").exists, process)
        # then the first one is still being judged, beside it, and its checkpoint waits for that
        assert len(server.calls) > 0
        assert not (folder / "rounds.jsonl").exists()
        kept = [path.parent.name for path in (folder / "checkpoints").glob(f"step-*/{KEEP}")]
        assert sorted(kept) == ["step-000004", "step-000008"]
        let.set()
        out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    found = json.loads(out)
    assert (found["stopped"], found["rounds_trained"]) == (False, 2)
    assert {row["round"] for row in rounds(workspace)} == {1, 2}
    assert all(row["error"] == "" for row in rounds(workspace))
    assert (folder / "judged.html").exists()
    # a judge that passes everything is not believed, so no checkpoint is best by its word, and none is kept for it
    assert all("floor" in " ".join(row["problems"]) for row in rounds(workspace))
    assert found["best"] is None
    assert list((folder / "checkpoints").glob(f"step-*/{KEEP}")) == []


@pytest.mark.slow
def test_a_stop_ends_both_and_the_next_run_goes_on_with_both(workspace: Workspace) -> None:
    hold = [True]

    async def stuck(_: FaultServer, __: dict[str, Any]) -> Any:
        while hold[0]:
            await asyncio.sleep(0.02)
        return reply("Wrong.\nVERDICT: FAIL")

    with fault_server(stuck) as server:
        _judged_by(workspace, server)
        process = start(workspace, "main", "--judge-device", "cpu")
        log = workspace.logs / "main-2-train.log"
        until(lambda: server.calls and log.exists() and "train main" in log.read_text(), process)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert json.loads(out)["stopped"] is True
        assert [marked(MARK, mark) for mark in marks(workspace)] == [[], []]
        # killed with both at work, it leaves neither behind
        process = start(workspace, "main", "--judge-device", "cpu")
        log = workspace.logs / "main-1-judge.log"
        until(lambda: all(marked(MARK, mark) for mark in marks(workspace)), process)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=20)
        hold[0] = False
        rest = run_json("trainer", "run", "--orchestrate", "--judge-device", "cpu", cwd=workspace.root, timeout=500)
    assert (rest["stopped"], rest["rounds_trained"]) == (False, 2)
    assert {row["round"] for row in rounds(workspace)} == {1, 2}
    assert [marked(MARK, mark) for mark in marks(workspace)] == [[], []]


@pytest.mark.slow
def test_training_ends_when_the_pass_rate_has_long_been_flat(workspace: Workspace) -> None:
    toml = workspace.root / "factory.toml"
    toml.write_text(toml.read_text().replace("rounds = 2", "judge_every = 3\nflat_rounds = 1"))
    # eight steps teach this model nothing: no answer is right, however often it is asked
    done = run("trainer", "run", "--orchestrate", cwd=workspace.root, timeout=500)
    assert "training ends here: for 1 rounds no pass rate was above the interval of round 1" in done.stderr
    assert {row["round"] for row in rounds(workspace)} == {1, 2}
    state = json.loads((workspace.train / "runs/main/orchestrate.json").read_text())
    assert "round 1" in state["ended"]
    assert state["ends"] == [3, 6, 8]
    # asked again it says so again and does nothing
    again = run_json("trainer", "run", "--orchestrate", cwd=workspace.root)
    assert (again["ended"], again["step"]) == (state["ended"], 6)
    # where nothing is right nothing is best, and no checkpoint is kept for it
    assert list((workspace.train / "runs/main/checkpoints").glob(f"step-*/{KEEP}")) == []
    assert again["best"] is None
    # and without that wish it goes on
    toml.write_text(toml.read_text().replace("flat_rounds = 1", "flat_rounds = 0"))
    rest = run_json("trainer", "run", "--orchestrate", cwd=workspace.root, timeout=500)
    assert (rest["ended"], rest["step"]) == ("", 8)


def test_a_gpu_that_is_not_there_is_no_place_for_a_judge(workspace: Workspace) -> None:
    done = run("trainer", "run", "--orchestrate", "--judge-device", "cuda:1", cwd=workspace.root, code=2)
    assert "the judge cannot have cuda:1: there is no GPU here" in done.stderr
    done = run("trainer", "run", "--orchestrate", "--judge-device", "gpu", cwd=workspace.root, code=2)
    assert "not a device for the judge: 'gpu'" in done.stderr
    done = run("trainer", "run", "--judge-every", "5", cwd=workspace.root, code=2)
    assert "add --orchestrate" in done.stderr
    assert not (workspace.train / "runs").exists()
