"""A fleet acted out small: many interruptions, several seeds; nothing lost, nothing doubled. And the audit that says so can say no."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from benchmarks import fleet_sim
from benchmarks._audit import Audit, audit
from benchmarks._fleet_work import make_store
from benchmarks.fleet_sim import DEATHS, Clock, Fleet, simulate
from foundation.reader import REJECTS, SHARDS
from foundation.store_memory import MemoryStore
from queue_workers.memory import MemoryQueue, UnrulyMemoryQueue
from queue_workers.plan import Plan, load_plan


@pytest.mark.parametrize(
    ("seed", "lease"), [(1, 60), *(pytest.param(*more, marks=pytest.mark.slow) for more in ((2, 180), (3, 600)))]
)
def test_nothing_is_lost_or_doubled(seed: int, lease: float) -> None:
    report = simulate(4000, workers=50, seed=seed, lease=lease)
    print(report)
    assert report.well
    assert report.audit.units >= 4000
    assert report.audit.items == report.teacher_calls - round(report.teacher_calls_repeated * report.audit.items)
    assert report.deliveries_repeated > 0
    assert report.teacher_calls_repeated < 0.1  # at one in a hundred a minute


@pytest.mark.parametrize("seed", [4, pytest.param(5, marks=pytest.mark.slow)])
@pytest.mark.parametrize("unruly", [False, True])
def test_nor_when_a_third_is_interrupted_each_minute(monkeypatch: pytest.MonkeyPatch, seed: int, unruly: bool) -> None:
    monkeypatch.setattr(fleet_sim, "INTERRUPTED", 0.33)

    def queue(*, lease: float, clock: Clock) -> MemoryQueue:
        return (
            UnrulyMemoryQueue(seed=seed, lease=lease, clock=clock) if unruly else MemoryQueue(lease=lease, clock=clock)
        )

    report = simulate(2000, workers=50, seed=seed, lease=90, queue=queue)
    print(report)
    assert report.well
    # and everything that can go wrong did
    assert report.interruptions.keys() == {*DEATHS, "notice", "given back", "silent"}
    assert report.commits_refused > 0
    assert report.acks_refused > 0
    assert report.deliveries_of_committed > 0
    assert report.audit.superseded_rejects > 0


def _played() -> tuple[MemoryStore, Plan]:
    store, clock = make_store(1), Clock()
    plan = load_plan(store)
    Fleet(store, plan.units(), MemoryQueue(clock=clock), clock, workers=10, seed=1).run()
    assert audit(store, plan).well
    return store, plan


def _lose(store: MemoryStore, plan: Plan) -> None:
    store.delete(next(plan.units()).shard)


def _take_a_record_away(store: MemoryStore, plan: Plan) -> None:
    name = next(name for name in store.list(f"{SHARDS}/wh/when") if store.get(name))
    store.put(name, store.get(name).split(b"\n", 1)[1])


def _halve_a_pair(store: MemoryStore, plan: Plan) -> None:
    name = next(name for name in store.list(f"{SHARDS}/contrastive") if store.get(name))
    store.put(name, store.get(name).split(b"\n", 1)[1])


def _double_a_record(store: MemoryStore, plan: Plan) -> None:
    name = next(name for name in store.list(SHARDS) if store.get(name))
    store.put(name, store.get(name) + store.get(name))


def _copy_a_shard(store: MemoryStore, plan: Plan) -> None:
    store.put(f"{SHARDS}/wh/who/another.jsonl", b"")


def _lose_rejects(store: MemoryStore, plan: Plan) -> None:
    store.delete(next(store.list(REJECTS)))


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (_lose, {"lost_units"}),
        (_take_a_record_away, {"items_unaccounted"}),
        (_halve_a_pair, {"items_miscounted"}),
        (_double_a_record, {"doubled_records", "items_miscounted"}),
        (_copy_a_shard, {"foreign_shards"}),
        (_lose_rejects, {"items_unaccounted"}),
    ],
)
def test_the_audit_finds_what_is_wrong(spoil: Callable[[MemoryStore, Plan], None], what: set[str]) -> None:
    store, plan = _played()
    spoil(store, plan)
    found = audit(store, plan)
    assert not found.well
    faults = {"lost_units", "foreign_shards", "doubled_records", "items_unaccounted", "items_miscounted"}
    assert {name for name in faults if getattr(found, name) != getattr(Audit(), name)} == what
