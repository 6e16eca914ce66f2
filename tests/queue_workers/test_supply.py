"""What waits in the queue: a plan that is held or broken, and who pays for the teacher's failures."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from foundation.errors import Failure
from foundation.log import EventLog
from foundation.workspace import Workspace
from queue_workers.blame import PLACES, Blame
from queue_workers.memory import MemoryQueue
from queue_workers.plan import load_plan
from queue_workers.supply import Supply
from tests.support.faults import make_workspace


@pytest.fixture
def filled(tmp_path: Path) -> Workspace:
    return make_workspace(tmp_path / "w", blocks=3, types=["wh/who"])


def make_supply(workspace: Workspace) -> Supply:
    return Supply(workspace, MemoryQueue(), EventLog(workspace.logs, "test"), ends=True)


def test_a_plan_that_another_command_holds_is_tried_again_later(filled: Workspace) -> None:
    supply = make_supply(filled)
    with filled.lock("plan"):  # as a command that was stopped with Ctrl-Z holds it
        assert supply.look(now=True).queued == 0  # at once
        assert not supply.finished
    supply._next = 0.0
    assert supply.look().queued == 3


def test_a_broken_plan_is_told_from_a_refusal(filled: Workspace) -> None:
    supply = make_supply(filled)
    assert supply.broken() is None
    filled.store.put("plan/zzz.jsonl", b"no json\n")
    with pytest.raises(Failure):
        supply.look(now=True)
    broken = supply.broken()
    assert broken is not None and "zzz.jsonl" in str(broken)


def test_a_unit_pays_only_for_what_the_teacher_did_others_after(filled: Workspace) -> None:
    one, two, three = load_plan(filled.store).units()
    blame = Blame()
    for _ in range(3):  # it fails all it is asked
        for unit in (one, two):
            assert not blame.charges(unit)
            blame.fails(unit)
    assert blame.in_a_row == 6
    blame.did(three)
    assert blame.charges(one) and blame.charges(two) and not blame.charges(three)
    assert blame.in_a_row == 0
    blame.did(one)
    assert not blame.charges(one) and blame.charges(two)
    blame.charge_all()
    assert blame.charges(three)


def test_workers_that_are_forked_before_hear_of_it_too(filled: Workspace) -> None:
    unit, other, _ = load_plan(filled.store).units()
    blame = Blame()
    read, write = os.pipe()
    go_read, go_write = os.pipe()
    pid = os.fork()
    if not pid:
        before = blame.charges(unit)
        os.read(go_read, 1)
        os.write(write, json.dumps([before, blame.charges(unit)]).encode())
        os._exit(0)
    blame.fails(unit)
    blame.did(other)
    for _ in range(PLACES - 1):
        blame.did(other)  # nothing new: no place is taken
    os.write(go_write, b"x")
    before, after = json.loads(os.read(read, 100))
    os.waitpid(pid, 0)
    for descriptor in (read, write, go_read, go_write):
        os.close(descriptor)
    assert after and blame.charges(unit)
    assert isinstance(before, bool)
