"""`factory pause | resume | promote | demote | cancel | failures` as a user types them, over the workspace's own Redis."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from foundation.workspace import Workspace
from generator.catalogue import select
from queue_workers.controls import change_controls, load_controls
from queue_workers.plan import PlanLine, append, load_plan
from tests.queue_workers.conftest import add_block
from tests.support.commands import REPOSITORY, run, run_json

TWO = ("--prompt-type", "wh/who", "--prompt-type", "wh/when")


@pytest.fixture
def queued(workspace: Workspace) -> Workspace:
    """Two blocks of 128, two prompt types: eight units wait."""
    for _ in range(2):
        add_block(workspace, 128)
    assert run_json("factory", "enqueue", *TWO, cwd=workspace.root)["queued"] == 8
    return workspace


def status(workspace: Workspace) -> dict[str, int]:
    told = run_json("factory", "reconcile", cwd=workspace.root)
    assert isinstance(told, dict)
    return told


def test_a_promoted_type_goes_first_and_a_demoted_one_last(queued: Workspace) -> None:
    told = run_json("factory", "promote", "--prompt-type", "wh/who", cwd=queued.root)
    assert told == {
        "prompt_types": ["wh/who"],
        "priority": "high",
        "moved": 4,
        "queued": {"high": 4, "normal": 4, "low": 0},
    }
    again = run_json("factory", "promote", "--prompt-type", "wh/who", cwd=queued.root)
    assert (again["moved"], again["queued"]["high"]) == (0, 4)
    told = run_json("factory", "demote", "--prompt-type", "wh", cwd=queued.root)
    assert (told["prompt_types"], told["moved"]) == ([one.id for one in select(["wh"])], 8)
    assert told["queued"] == {"high": 0, "normal": 0, "low": 8}
    out = run("factory", "promote", "--prompt-type", "cloze", cwd=queued.root).stdout
    assert "0 waiting units moved" in out
    assert "not planned yet" in out
    # what is planned later follows, and is told so
    out = run("factory", "enqueue", "--prompt-type", "wh/who", "--round", "1", cwd=queued.root).stdout
    assert "wh/who: priority low" in out
    assert status(queued)["queued"] == 12
    assert run_json("factory", "work", "--burst", cwd=queued.root)["units"] == 12


def test_paused_types_wait_and_the_rest_is_worked_off(queued: Workspace) -> None:
    told = run_json("factory", "pause", "--prompt-type", "wh/who", cwd=queued.root)
    assert (told["paused"], told["paused_types"], told["withdrawn"], told["queued"]) == (False, ["wh/who"], 4, 4)
    assert status(queued)["requeued"] == 0
    told = run_json("factory", "enqueue", *TWO, "--round", "1", cwd=queued.root)
    assert (told["units"], told["queued"], told["paused"]) == (8, 4, ["wh/who"])
    assert run_json("factory", "work", "--burst", cwd=queued.root)["units"] == 8
    told = run_json("factory", "resume", "--prompt-type", "wh/who", cwd=queued.root)
    assert (told["paused_types"], told["requeued"], told["queued"]) == ([], 8, 8)
    assert "none of these was paused" in run("factory", "resume", *TWO, cwd=queued.root).stdout


def test_a_paused_queue_begins_nothing(queued: Workspace) -> None:
    told = run_json("factory", "pause", cwd=queued.root)
    assert (told["paused"], told["queued"], told["in_flight"]) == (True, 8, 0)
    assert "everything is paused" in run("factory", "enqueue", *TWO, cwd=queued.root).stdout
    assert "still paused" in run("factory", "resume", *TWO, cwd=queued.root).stdout
    told = run_json("factory", "resume", cwd=queued.root)
    assert (told["paused"], told["queued"]) == (False, 8)
    assert "was not paused" in run("factory", "resume", cwd=queued.root).stdout
    assert run_json("factory", "work", "--burst", cwd=queued.root)["units"] == 8


def test_what_is_cancelled_is_gone_and_can_be_enqueued_again(queued: Workspace) -> None:
    arguments = ("cancel", "--yes", "--prompt-type", "wh/who")
    told = run_json("factory", *arguments, "--dry-run", cwd=queued.root)
    assert (told["cancelled"], told["items"], told["removed"], told["planned"]) == (4, 256, 0, 8)
    assert status(queued)["queued"] == 8
    told = run_json("factory", *arguments, cwd=queued.root)
    assert (told["cancelled"], told["items"], told["removed"], told["planned"]) == (4, 256, 4, 4)
    assert run_json("factory", *arguments, cwd=queued.root)["cancelled"] == 0
    assert run_json("factory", "work", "--burst", cwd=queued.root)["units"] == 4
    told = run_json("factory", "enqueue", *TWO, cwd=queued.root)
    assert (told["units"], told["queued"], told["planned"]) == (4, 4, 8)
    assert run_json("factory", "cancel", "--all", "--yes", cwd=queued.root)["planned"] == 4
    told = run_json("factory", "reconcile", "--rebuild", cwd=queued.root)
    assert (told["planned"], told["committed"], told["left"], told["beyond_plan"]) == (4, 4, 0, 0)


def test_cancel_asks_on_a_terminal(queued: Workspace) -> None:
    argv = [sys.executable, "-c", "from generator.cli import main; main()", "cancel", "--all"]
    for answer, yes, left in ((b"n\n", (), 8), (b"y\n", (), 0)):
        terminal, its_end = pty.openpty()
        try:
            os.write(terminal, answer)
            done = subprocess.run(
                [*argv, *yes],
                cwd=queued.root,
                env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
                stdin=its_end,
                capture_output=True,
                text=True,
                timeout=60,
            )
        finally:
            os.close(terminal)
            os.close(its_end)
        assert "out of the plan?" in done.stderr
        assert load_plan(queued.store).size == left
        assert done.returncode == (1 if left else 0)
    assert run("factory", "enqueue", *TWO, cwd=queued.root).returncode == 0
    run("factory", "cancel", "--all", "--yes", cwd=queued.root)


def test_a_type_that_left_the_catalogue_can_still_be_controlled(queued: Workspace) -> None:
    line = load_plan(queued.store).lines[0]
    old = PlanLine(prompt_type="old/gone", fingerprint="0" * 24, unit=64, blocks=line.blocks)
    append(queued.store, [old])
    assert status(queued)["requeued"] == 4
    assert run_json("factory", "promote", "--prompt-type", "old", cwd=queued.root)["moved"] == 4
    assert run_json("factory", "pause", "--prompt-type", "old/gone", cwd=queued.root)["withdrawn"] == 4
    assert run_json("factory", "cancel", "--yes", "--prompt-type", "old/gone", cwd=queued.root)["cancelled"] == 4
    # even when nothing of it is planned any more
    assert run_json("factory", "resume", "--prompt-type", "old/gone", cwd=queued.root)["paused_types"] == []


def test_a_command_that_was_killed_half_way_is_completed(queued: Workspace) -> None:
    with queued.lock("plan"):
        change_controls(queued.store, priorities={"wh/who": "high"}, unsettled={"wh/who": "withdraw"})
    assert status(queued)["requeued"] == 4
    assert load_controls(queued.store).unsettled == {}
    assert run_json("factory", "promote", "--prompt-type", "wh/who", cwd=queued.root)["queued"]["high"] == 4


def test_wrong_use_is_told_and_changes_nothing(queued: Workspace) -> None:
    for command in ("pause", "resume", "promote", "demote", "cancel", "failures"):
        done = run("factory", command, "--prompt-type", "wh/whom", cwd=queued.root, code=2)
        assert done.stdout == ""
        assert "wh/who" in done.stderr
    for arguments in (("promote",), ("cancel",), ("cancel", "--all", *TWO)):
        assert "--prompt-type" in run("factory", *arguments, cwd=queued.root, code=2).stderr
    assert status(queued)["queued"] == 8


def test_nothing_is_set_aside(queued: Workspace) -> None:
    assert run_json("factory", "failures", cwd=queued.root) == {"failures": [], "retried": 0}
    assert "no unit is set aside" in run("factory", "failures", "--retry", cwd=queued.root).stdout
