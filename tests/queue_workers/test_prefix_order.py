"""Units wait in an order that suits a prefix cache: neighbours are of one prompt type, and begin with the same text."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from foundation.records import Unit
from foundation.workspace import Workspace
from generator.catalogue import select
from queue_workers import plan
from queue_workers.memory import MemoryQueue
from queue_workers.plan import load_plan
from queue_workers.refill import Refill
from tests.queue_workers.conftest import add_block

TYPES = ("wh/who", "qpt/formal", "cloze/entity", "contrastive/person", "wh/when")


def _runs(units: list[Unit], key: str) -> int:
    """How often a worker that takes the units in this order meets another prompt type, or block."""
    return len(list(groupby(units, key=lambda unit: (unit.prompt_type, unit.block if key == "block" else ""))))


def _taken(queue: MemoryQueue) -> list[Unit]:
    taken = []
    while delivery := queue.take():
        taken.append(delivery[0])
    return taken


def test_what_is_enqueued_waits_type_by_type(workspace: Workspace) -> None:
    blocks, chosen = [add_block(workspace, 256) for _ in range(3)], select(TYPES)
    new = plan.draft(load_plan(workspace.store), chosen, blocks, round_=0, priority="normal")
    plan.add(workspace.store, new, chosen, workspace.settings.split)
    queue = MemoryQueue()
    queue.submit(load_plan(workspace.store).units("normal"), "normal")
    units = _taken(queue)
    assert len(units) > 3 * len(TYPES)
    assert _runs(units, "type") == len(TYPES)


def test_refill_mixes_types_a_block_at_a_time(workspace: Workspace) -> None:
    """So a type comes back often enough to be mixed, and its fixed text is read anew at most once a block."""
    for _ in range(4):
        add_block(workspace, 256)
    table = "".join(f'"{name}" = 1\n' for name in TYPES)
    families = "".join(f'"{name}" = 0\n' for name in ("choice", "cloze", "contrastive", "cross", "dialogue"))
    others = "".join(f'"{name}" = 0\n' for name in ("qpt", "rewrite", "structure", "truth", "wh"))
    toml = Path(workspace.root / "factory.toml")
    toml.write_text(
        f'[teacher]\nbackend = "openai"\n[plan]\nlow_water = 8\nrounds = 1\n[plan.weights]\n{table}{families}{others}'
    )
    queue, units = MemoryQueue(), []
    refill = Refill(Workspace(workspace.root), queue)
    for _ in range(30):
        refill.top_up(drain=True)
        units += _taken(queue)
    assert {unit.prompt_type for unit in units} == set(TYPES)
    assert _runs(units, "block") == 4 * len(TYPES), "a block's units of one type were torn apart"
