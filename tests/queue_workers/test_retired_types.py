"""A prompt type that was retired is not planned: its units would yield nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from foundation.reader import Tombstone
from foundation.workspace import Workspace
from queue_workers.memory import MemoryQueue
from queue_workers.plan import load_plan
from queue_workers.refill import Refill
from tests.queue_workers.conftest import add_block
from tests.support.commands import run, run_json


@pytest.fixture
def room(tmp_path: Path) -> Workspace:
    workspace = Workspace.init(tmp_path / "w")
    (workspace.root / "factory.toml").write_text('[teacher]\nbackend = "rules"\n')
    add_block(workspace, 30)
    return workspace


def retire(workspace: Workspace, *names: str) -> None:
    for name in names:
        stone = Tombstone(kind="prompt_type", value=name)
        workspace.store.put_once(stone.name, stone.model_dump_json().encode())


def test_enqueue_leaves_them_out_and_says_so(room: Workspace) -> None:
    retire(room, "wh/who")
    document = run_json(
        "factory", "enqueue", "--prompt-type", "wh/who", "--prompt-type", "wh/when", "--json", cwd=room.root
    )
    assert document["retired"] == ["wh/who"]
    assert {line.prompt_type for line in load_plan(room.store).lines} == {"wh/when"}


def test_enqueue_of_nothing_else_is_refused(room: Workspace) -> None:
    retire(room, "wh/who")
    refused = run("factory", "enqueue", "--prompt-type", "wh/who", cwd=room.root, code=2)
    assert "retired: wh/who" in refused.stderr and "--undo" in refused.stderr
    assert load_plan(room.store).lines == ()


def test_refill_takes_the_others_and_is_done_when_there_are_none(room: Workspace) -> None:
    queue = MemoryQueue()
    refill = Refill(room, queue)
    ids = [kind.prompt_type.id for kind in refill.kinds]
    retire(room, *ids[1:])
    while refill.top_up(drain=True).units:
        while queue.take():
            pass
    assert {line.prompt_type for line in load_plan(room.store).lines} == {ids[0]}
    retire(room, ids[0])
    assert refill.top_up(drain=False).done
