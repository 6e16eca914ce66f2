"""The ledger: counts that follow the shards, whatever becomes of the index."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from foundation.errors import Failure
from foundation.store import LocalStore
from foundation.workspace import Workspace
from generator.gates import Gates
from generator.teachers.rules.teacher import RulesTeacher
from queue_workers.ledger import Ledger, Totals, committed, open_ledger, reconcile, remaining
from queue_workers.memory import MemoryQueue
from queue_workers.plan import Plan, load_plan
from queue_workers.runner import Context, run_unit
from tests.queue_workers.test_runner import Spoilt, make_context, make_units, rows


@pytest.fixture
def begun(workspace: Workspace) -> Workspace:
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


def test_items_are_accepted_plus_rejected(begun: Workspace) -> None:
    totals = _totals(begun)
    records, rejects = rows(begun, "shards/*/*/*.jsonl"), rows(begun, "rejects/*/*/*.jsonl")
    assert totals.units == 3
    assert totals.items == totals.accepted + totals.rejected == 192
    assert totals.records == len(records)
    assert totals.accepted == len({row["item"] for row in records})
    assert totals.rejected == len({row["item"] for row in rejects}) >= 64
    assert totals.broken == 0


def test_rejects_of_an_attempt_that_was_not_committed_are_not_counted(begun: Workspace) -> None:
    before = _totals(begun)
    for file in sorted(begun.root.glob("rejects/*/*/*.jsonl")):
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        # a killed attempt that had rejected one item more, and one that had rejected one less
        for number, kept in enumerate((lines[:-1], [*lines, {**lines[0], "item": "0" * 24}])):
            unit, attempt = file.name.split(".")[:2]
            if number and not (begun.root / "shards/wh/who" / f"{unit}.jsonl").read_bytes():
                continue  # nothing is longer than a whole unit
            text = "".join(json.dumps({**line, "attempt": f"dead{number}"}) + "\n" for line in kept)
            file.with_name(f"{unit}.dead{number}.jsonl").write_text(text)
            assert attempt != f"dead{number}"
    (begun.cache / "index.sqlite").unlink()
    assert _totals(begun) == before


def test_the_index_follows_the_shards_both_ways(begun: Workspace) -> None:
    before = _totals(begun)
    unit = next(remaining(load_plan(begun.store), begun.store))
    assert run_unit(unit, make_context(begun, RulesTeacher())).ack.state == "done"
    after = _totals(begun)
    assert (after - before).units == 1
    assert (after - before).items == 64
    (begun.root / unit.shard).unlink()
    assert _totals(begun) == before


@pytest.mark.parametrize("spoil", [b"", b"this is no database" * 100, None])
def test_a_lost_or_broken_index_is_made_anew(begun: Workspace, spoil: bytes | None) -> None:
    before = _totals(begun)
    for path in begun.cache.glob("index.sqlite*"):
        path.unlink()
    if spoil is not None:
        (begun.cache / "index.sqlite").write_bytes(spoil)
    assert _totals(begun) == before


def test_an_index_that_cannot_be_written_is_a_failure(begun: Workspace) -> None:
    for path in begun.cache.glob("index.sqlite*"):
        path.unlink()
    (begun.cache / "index.sqlite").mkdir()
    with pytest.raises(Failure, match="index of committed units"):
        _totals(begun)


def test_a_torn_line_is_counted_and_passed_over(begun: Workspace) -> None:
    shard = max(begun.root.glob("shards/*/*/*.jsonl"), key=lambda path: path.stat().st_size)
    before = _totals(begun)
    shard.write_bytes(shard.read_bytes()[:-100])
    (begun.cache / "index.sqlite").unlink()
    after = _totals(begun)
    assert (after.broken, after.records) == (1, before.records - 1)


def test_reconcile_queues_exactly_the_rest(begun: Workspace) -> None:
    plan, queue = load_plan(begun.store), MemoryQueue()
    assert reconcile(plan, begun.store, queue) == 1
    assert reconcile(plan, begun.store, queue) == 0
    taken = queue.take()
    assert taken
    assert reconcile(plan, begun.store, queue) == 0  # in flight
    assert [taken[0].id] == [unit.id for unit in remaining(plan, begun.store)]


def test_a_context_reads_a_prompt_type_once(begun: Workspace, tmp_path: Path) -> None:
    context: Context = make_context(begun, RulesTeacher())
    fingerprint = load_plan(begun.store).lines[0].fingerprint
    context.warm({fingerprint})
    begun.store.delete(f"prompt_types/{fingerprint}.json")
    assert context.prompt_type(fingerprint).id == "wh/who"


def _settle(workspace: Workspace) -> None:
    """Make every folder of shards look untouched for a while."""
    for folder in (workspace.root / "shards", *(workspace.root / "shards").rglob("*/")):
        then = folder.stat().st_mtime - 60
        os.utime(folder, (then, then))


class _Counting(LocalStore):
    """Counts the folders of shards that were listed."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.listed: list[str] = []

    def list(self, prefix: str = "") -> Iterator[str]:
        if prefix.startswith("shards"):
            self.listed.append(prefix)
        return super().list(prefix)


def test_a_folder_that_did_not_change_is_not_listed_again(begun: Workspace) -> None:
    _settle(begun)
    before = _totals(begun)
    store = _Counting(begun.root)
    with open_ledger(store, begun.cache) as ledger:
        assert ledger.totals() == before
    assert not store.listed
    # when another unit is committed, its folder alone is listed; while that is young, again and again
    unit = next(remaining(load_plan(begun.store), begun.store))
    begun.store.put_once(unit.shard, b"")
    for _ in range(2):
        with open_ledger(store, begun.cache) as ledger:
            assert ledger.totals().units == before.units + 1
    assert store.listed == ["shards/wh/who"] * 2
    # and so is a new prompt type's, and a new family's
    for name in ("shards/wh/when", "shards/cause/why"):
        _settle(begun)
        with open_ledger(store, begun.cache):
            pass
        begun.store.put_once(f"{name}/{'0' * 24}.jsonl", b"")
        with open_ledger(store, begun.cache) as ledger:
            assert name.removeprefix("shards/") in ledger.by_prompt_type()
    _settle(begun)
    with open_ledger(store, begun.cache) as ledger:
        assert ledger.totals().units == before.units + 3


@pytest.mark.parametrize("shift", [-3600, 3600])
def test_a_clock_that_jumps_hides_no_shard(begun: Workspace, shift: int, monkeypatch: pytest.MonkeyPatch) -> None:
    unit = next(remaining(load_plan(begun.store), begun.store))
    _settle(begun)
    before = _totals(begun)
    now = time.time
    monkeypatch.setattr("foundation.store.time.time", lambda: now() + shift)
    begun.store.put_once(unit.shard, b"")
    folder = (begun.root / unit.shard).parent
    os.utime(folder, (now() + shift, now() + shift))
    assert _totals(begun).units == before.units + 1
    monkeypatch.undo()
    assert _totals(begun).units == before.units + 1
    (begun.root / unit.shard).unlink()
    assert _totals(begun) == before


def test_an_index_that_breaks_under_a_running_process_is_made_anew(begun: Workspace) -> None:
    before = _totals(begun)
    with open_ledger(begun.store, begun.cache) as ledger:
        file = begun.cache / "index.sqlite"
        ledger._database.execute("pragma wal_checkpoint(truncate)")
        file.write_bytes(file.read_bytes()[:100] + b"\xff" * (file.stat().st_size - 100))
        with contextlib.closing(Ledger(begun.store, file)) as other:
            other.refresh()
            assert other.totals() == before
    assert _totals(begun) == before


def test_an_index_of_another_version_is_made_anew(begun: Workspace) -> None:
    before = _totals(begun)
    with contextlib.closing(sqlite3.connect(begun.cache / "index.sqlite")) as database:
        database.executescript("drop table units; create table units (x); pragma user_version = 1")
    assert _totals(begun) == before


def test_made_anew_on_demand_it_forgets_what_it_believed(begun: Workspace) -> None:
    before = _totals(begun)
    with contextlib.closing(sqlite3.connect(begun.cache / "index.sqlite")) as database, database:
        database.execute("update sums set records = records + 1000")
    assert _totals(begun).records == before.records + 1000
    with open_ledger(begun.store, begun.cache, rebuild=True) as ledger:
        assert ledger.totals() == before
    assert _totals(begun) == before


def test_two_processes_that_keep_one_index_count_nothing_twice(begun: Workspace) -> None:
    unit = next(remaining(load_plan(begun.store), begun.store))
    before = _totals(begun)
    with open_ledger(begun.store, begun.cache) as one, open_ledger(begun.store, begun.cache) as other:
        assert run_unit(unit, make_context(begun, RulesTeacher())).ack.state == "done"
        told = [one.add(unit), other.add(unit)]
        assert told[0] == told[1] == one.totals() - before == other.totals() - before
        assert told[0].items == 64
        one.refresh()
        assert other.totals() - before == told[0]
    assert _totals(begun) - before == told[0]


def test_the_account_of_plan_and_shards(begun: Workspace) -> None:
    with open_ledger(begun.store, begun.cache) as ledger:
        account = ledger.account(load_plan(begun.store))
        assert (account.planned, account.committed, account.left, account.beyond) == (4, 3, 1, 0)
        assert account.items_planned == 256 == account.items_committed + account.items_left
        assert account.items_yielded == account.items_committed == ledger.totals().items
        assert ledger.account(Plan()).beyond == 3
    assert len(committed(begun.store)) == 3


def test_what_is_no_shard_is_not_taken_for_one(begun: Workspace) -> None:
    before = _totals(begun)
    for name in ("shards/README", "shards/wh/notes.txt"):
        (begun.root / name).write_text("by hand")
    assert _totals(begun) == before


@pytest.mark.parametrize("guess", ["", "right", "wrong"])
def test_adding_a_unit_needs_no_attempt_but_believes_none_that_left_nothing(begun: Workspace, guess: str) -> None:
    unit = list(load_plan(begun.store).units())[2]  # every item of it was rejected, so no record names the attempt
    file = next(name for name in begun.store.list(f"rejects/{unit.prompt_type}") if unit.id in name)
    attempt = {"right": file.rsplit(".", 2)[1], "wrong": "0" * 12}.get(guess, "")
    ledger = Ledger(begun.store, begun.cache / "index.sqlite")
    added = ledger.add(unit, attempt)
    ledger.close()
    assert (added.items, added.accepted, added.rejected) == (64, 0, 64)
