"""SIGKILL for `factory retire` and its undo, at each write: a tombstone is there whole or not, and the same command again mends it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import pytest

from foundation.reader import read, tombstones
from foundation.store import TEMPORARY
from foundation.workspace import Workspace
from tests.faults.test_kill_commands import kill_at
from tests.faults.test_kills import WORK
from tests.support.faults import assert_all_is_there, dies_at, finish

RETIRE = ("retire", "--prompt-type", "wh/who", "--prompt-type", "cloze/entity", "--prompt-type", "wh/when")
UNDO = (*RETIRE, "--undo")


def standing(workspace: Workspace) -> list[str]:
    return [record.model_dump_json() for record in read(workspace.store)]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_retire_and_undo_killed_at_each_write(make: Callable[..., Workspace], after: bool) -> None:
    # given a workspace whose work is done
    workspace = make(blocks=2)
    finish(workspace, *WORK)
    before = standing(workspace)
    gone = [line for line in before if any(f'"prompt_type":"{name}"' in line for name in RETIRE[2::2])]
    assert gone and len(gone) < len(before)
    # when retiring is killed at the first and at the second of three tombstones
    counts = []
    for _ in range(2):
        assert kill_at(workspace, dies_at("foundation.store:os.link", after=after, nth=1), *RETIRE) == -9
        counts.append(len(tombstones(workspace.store)))
    assert counts == ([1, 2] if after else [0, 0])
    # then each is there or not, and the same command does the rest
    finish(workspace, *RETIRE, "--reason", "again")
    assert sorted(stone.reason for stone in tombstones(workspace.store)) == [""] * counts[-1] + ["again"] * (
        3 - counts[-1]
    )
    assert standing(workspace) == [line for line in before if line not in gone]
    # and what a killed put left is no tombstone, and gc takes it, and nothing else, an hour later
    left = list(workspace.root.glob(f"tombstones/{TEMPORARY}*"))
    assert left
    for path in left:
        os.utime(path, (time.time() - 4000,) * 2)
    finish(workspace, "gc")
    assert not any(path.exists() for path in left) and len(tombstones(workspace.store)) == 3
    # and the same of taking it back
    for number in (3, 2) if after else (3, 3):
        assert len(tombstones(workspace.store)) == number
        assert kill_at(workspace, dies_at("foundation.store:LocalStore.delete", after=after, nth=1), *UNDO) == -9
    finish(workspace, *UNDO)
    assert tombstones(workspace.store) == () and standing(workspace) == before
    assert_all_is_there(workspace)
