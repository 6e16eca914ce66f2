"""The ledger: counts that follow the shards, whatever becomes of the index."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from foundation.errors import Failure
from foundation.workspace import Workspace
from generator.gates import Gates
from generator.teachers.rules.teacher import RulesTeacher
from queue_workers.ledger import Totals, open_ledger, reconcile, remaining
from queue_workers.memory import MemoryQueue
from queue_workers.plan import load_plan
from queue_workers.runner import Context, run_unit
from tests.queue_workers.test_runner import Spoilt, make_context, make_units, rows


@pytest.fixture
def committed(workspace: Workspace) -> Workspace:
    """Four units of which three are committed, one of them with every item rejected."""
    units = make_units(workspace, snippets=256)
    gates = Gates()
    for unit, way in zip(units, ("", "", "nonsense"), strict=False):
        context = make_context(workspace, Spoilt(way))
        context.gates = gates
        assert run_unit(unit, context).ack.state == "done"
    return workspace


def _totals(workspace: Workspace) -> Totals:
    with open_ledger(workspace.store, workspace.cache) as ledger:
        return ledger.totals()


def test_items_are_accepted_plus_rejected(committed: Workspace) -> None:
    totals = _totals(committed)
    records, rejects = rows(committed, "shards/*/*/*.jsonl"), rows(committed, "rejects/*/*/*.jsonl")
    assert totals.units == 3
    assert totals.items == totals.accepted + totals.rejected == 192
    assert totals.records == len(records)
    assert totals.accepted == len({row["item"] for row in records})
    assert totals.rejected == len({row["item"] for row in rejects}) >= 64
    assert totals.broken == 0


def test_rejects_of_an_attempt_that_was_not_committed_are_not_counted(committed: Workspace) -> None:
    before = _totals(committed)
    for file in sorted(committed.root.glob("rejects/*/*/*.jsonl")):
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        # a killed attempt that had rejected one item more, and one that had rejected one less
        for number, kept in enumerate((lines[:-1], [*lines, {**lines[0], "item": "0" * 24}])):
            unit, attempt = file.name.split(".")[:2]
            if number and not (committed.root / "shards/wh/who" / f"{unit}.jsonl").read_bytes():
                continue  # nothing is longer than a whole unit
            text = "".join(json.dumps({**line, "attempt": f"dead{number}"}) + "\n" for line in kept)
            file.with_name(f"{unit}.dead{number}.jsonl").write_text(text)
            assert attempt != f"dead{number}"
    (committed.cache / "index.sqlite").unlink()
    assert _totals(committed) == before


def test_the_index_follows_the_shards_both_ways(committed: Workspace) -> None:
    before = _totals(committed)
    unit = next(remaining(load_plan(committed.store), committed.store))
    assert run_unit(unit, make_context(committed, RulesTeacher())).ack.state == "done"
    after = _totals(committed)
    assert (after - before).units == 1
    assert (after - before).items == 64
    (committed.root / unit.shard).unlink()
    assert _totals(committed) == before


@pytest.mark.parametrize("spoil", [b"", b"this is no database" * 100, None])
def test_a_lost_or_broken_index_is_made_anew(committed: Workspace, spoil: bytes | None) -> None:
    before = _totals(committed)
    for path in committed.cache.glob("index.sqlite*"):
        path.unlink()
    if spoil is not None:
        (committed.cache / "index.sqlite").write_bytes(spoil)
    assert _totals(committed) == before


def test_an_index_that_cannot_be_written_is_a_failure(committed: Workspace) -> None:
    for path in committed.cache.glob("index.sqlite*"):
        path.unlink()
    (committed.cache / "index.sqlite").mkdir()
    with pytest.raises(Failure, match="index of committed units"):
        _totals(committed)


def test_a_torn_line_is_counted_and_passed_over(committed: Workspace) -> None:
    shard = max(committed.root.glob("shards/*/*/*.jsonl"), key=lambda path: path.stat().st_size)
    before = _totals(committed)
    shard.write_bytes(shard.read_bytes()[:-100])
    (committed.cache / "index.sqlite").unlink()
    after = _totals(committed)
    assert (after.broken, after.records) == (1, before.records - 1)


def test_reconcile_queues_exactly_the_rest(committed: Workspace) -> None:
    plan, queue = load_plan(committed.store), MemoryQueue()
    assert reconcile(plan, committed.store, queue) == 1
    assert reconcile(plan, committed.store, queue) == 0
    taken = queue.take()
    assert taken
    assert reconcile(plan, committed.store, queue) == 0  # in flight
    assert [taken[0].id] == [unit.id for unit in remaining(plan, committed.store)]


def test_a_context_reads_a_prompt_type_once(committed: Workspace, tmp_path: Path) -> None:
    context: Context = make_context(committed, RulesTeacher())
    fingerprint = load_plan(committed.store).lines[0].fingerprint
    context.warm({fingerprint})
    committed.store.delete(f"prompt_types/{fingerprint}.json")
    assert context.prompt_type(fingerprint).id == "wh/who"
