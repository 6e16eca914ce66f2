"""A spot fleet acted out: 500 workers, one in a hundred interrupted each minute, a million units; nothing lost, nothing doubled.

The clock is fake, so two days pass in minutes; the queue and the store are those in memory. Everything else is what a
worker runs: the plan and its units, `run_unit` with the real gates, `commit`, the leases, `reconcile`. The queue is kept
short, so that a unit that comes back is soon run again, if need be beside the worker that still has it in hand. The teacher alone
is a stand-in that answers at once, one reply in twenty of them spoilt, drawn anew at each try, so that two tries at one
unit differ. A worker runs its unit at the moment it would have ended, and sees of the unit's shard what stood there when
it leased it: two that have the same unit in hand really race for one name.

An interruption is a notice of two minutes (the unit is finished if it can be within the drain, else given back), a
sudden death (before the teacher is asked, while it answers, after it, between rejects and shard, between commit and ack)
or a silence past the lease, after which the worker commits and acks as if nothing had been. Workers extend their leases
three times a lease. At the end every item of the plan is looked for in the shards and in the rejects that complement them.

Prints one JSON document, and a table on standard error. Exit code 1 if anything was lost, doubled or set aside.

    .venv/bin/python benchmarks/fleet_sim.py [--units 1000000] [--workers 500] [--seed 1]
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import itertools
import json
import math
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks._audit import Audit, audit
from benchmarks._fleet_work import Fate, InstantTeacher, Killed, make_store
from foundation.reader import SHARDS
from foundation.records import Unit
from foundation.store_memory import MemoryStore
from generator.gates import Gates
from queue_workers import plan as plans
from queue_workers.ledger import reconcile
from queue_workers.memory import MemoryQueue
from queue_workers.runner import Context, Recall, run_unit

DEATHS: tuple[Fate, ...] = ("before", "during", "after", "between", "unacked")
INTERRUPTED = 0.01  # of the workers, each minute
SHORTEST, LONGEST = 60.0, 120.0  # seconds of one unit
SILENCE = 60.0, 900.0  # seconds, drawn evenly
DRAIN = 90.0  # of the two minutes' notice
BOOT = 120.0  # seconds until another machine stands in for one that is gone
LOOK = 5.0  # seconds an idle worker waits


COLUMNS = {
    "lease": ".0f",
    "units": ",",
    "items": ",",
    "deliveries": ",",
    "deliveries_repeated": ",",
    "deliveries_of_committed": ",",
    "commits_refused": ",",
    "acks_refused": ",",
    "lost_units": ",",
    "doubled_records": ",",
    "dead_lettered": ",",
    "teacher_calls_repeated": ".2%",
    "work_repeated": ".2%",
    "heartbeats": ",",
    "mean_wait_for_lease": ".1f",
    "makespan_hours": ".2f",
    "makespan_over_ideal": ".2%",
    "core_seconds": ",.0f",
    "units_per_core_second": ",.0f",
    "peak_memory_mb": ",",
}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class SeenStore:
    """The store as one delivery sees it: its own shard as it stood when the unit was leased; and a death between two puts.

    It counts commits that came second, and puts over a shard that stood: there must be none.
    """

    def __init__(self, store: MemoryStore) -> None:
        self.store, self.get, self.list = store, store.get, store.list
        self.delete, self.stamp = store.delete, store.stamp
        self.refused = self.rewritten = 0
        self.begin("", committed=False)

    def begin(self, fate: Fate, *, committed: bool) -> None:
        """Another delivery; `committed`: whether its unit was when it was leased."""
        self.fate, self.committed, self.won, self.puts = fate, committed, False, 0

    def exists(self, name: str) -> bool:
        return self.committed if name.startswith(SHARDS) else self.store.exists(name)

    def put(self, name: str, data: bytes) -> None:
        self.rewritten += name.startswith(SHARDS) and self.store.exists(name)
        self.store.put(name, data)

    def put_once(self, name: str, data: bytes) -> bool:
        if self.fate == "between" and self.puts:
            raise Killed
        self.puts += 1
        put = self.store.put_once(name, data)
        if name.startswith(SHARDS):
            self.won, self.refused = put, self.refused + (not put)
        return put


@dataclass(slots=True)
class Delivery:
    """A unit in a worker's hand. `ends` is when something comes of it; heartbeats go on until `beats`."""

    unit: Unit
    token: int
    fate: Fate
    duration: float
    busy: float
    ends: float
    beats: float
    beat: float = 0.0


@dataclass
class Report:
    """What came of it, and what it cost. Times are of the fake clock, in seconds, but for the core's."""

    workers: int
    lease: float
    deliveries: int = 0
    deliveries_of_committed: int = 0
    heartbeats: int = 0
    interruptions: dict[str, int] = field(default_factory=dict)
    deliveries_repeated: int = 0
    commits_refused: int = 0
    acks_refused: int = 0
    shards_rewritten: int = 0
    dead_lettered: int = 0
    reconcile_found: int = 0
    audit: Audit = field(default_factory=Audit)
    teacher_calls: int = 0
    teacher_calls_repeated: float = 0.0
    work_repeated: float = 0.0
    mean_wait_for_lease: float = 0.0
    makespan_hours: float = 0.0
    makespan_over_ideal: float = 0.0
    core_seconds: float = 0.0
    units_per_core_second: float = 0.0
    peak_memory_mb: int = 0

    @property
    def well(self) -> bool:
        """Nothing lost, doubled, forgotten or set aside."""
        return self.audit.well and not (self.dead_lettered or self.reconcile_found or self.shards_rewritten)


class Fleet:
    """The workers, the clock and what happens when; `run` plays it to the end."""

    def __init__(
        self, store: MemoryStore, units: Iterator[Unit], queue: MemoryQueue, clock: Clock, *, workers: int, seed: int
    ) -> None:
        self.store, self.units, self.queue, self.clock, self.seen = store, units, queue, clock, SeenStore(store)
        self.random, self.teacher = random.Random(seed), InstantTeacher(seed)
        self.context = Context(self.seen, self.teacher, Gates(), plans.load_split(store), lease=3600)
        self.report, self.fates = Report(workers, queue.lease), Counter[str]()
        self.busy, self.useful, self.waits, self.last_commit = 0.0, 0.0, 0.0, 0.0
        # (when, tie-breaker, a delivery that comes to its end or its next heartbeat; None: a worker that is free)
        self._events: list[tuple[float, int, Delivery | None]] = [(0.0, -number, None) for number in range(workers)]
        self._drawn = 0

    def run(self) -> None:
        """Until the queue holds nothing."""
        while self._events:
            self.clock.now, _, delivery = heapq.heappop(self._events)
            if delivery is None:
                self._lease()
            elif self.clock.now < delivery.ends:
                self.report.heartbeats += 1
                self.queue.extend(delivery.unit.id, delivery.token)
                delivery.beat = self.clock.now
                self._at(self._next(delivery), delivery)
            else:
                self._end(delivery)
        self.report.interruptions = dict(sorted(self.fates.items()))

    def _at(self, when: float, delivery: Delivery | None) -> None:
        self._drawn += 1
        heapq.heappush(self._events, (when, self._drawn, delivery))

    def _next(self, delivery: Delivery) -> float:
        beat = self.clock.now + self.queue.lease / 3
        return beat if beat < min(delivery.beats, delivery.ends) else delivery.ends

    def _lease(self) -> None:
        if self.queue.depth().queued < self.report.workers:
            self.queue.submit(itertools.islice(self.units, self.report.workers), "normal")
        taken = self.queue.take()
        if taken is None:
            if self.queue.depth().in_flight:
                self._at(self.clock.now + LOOK, None)
            return
        self.report.deliveries += 1
        unit, token = taken
        if self.store.exists(unit.shard):  # as `run_unit` finds first: no time passes, and the teacher is not asked
            self.report.deliveries_of_committed += 1
            self._end(Delivery(unit, token, "", 0.0, 0.0, self.clock.now, self.clock.now), committed=True)
            return
        delivery = self._draw(unit, token)
        self._at(self._next(delivery), delivery)

    def _draw(self, unit: Unit, token: int) -> Delivery:
        """How long the unit takes this worker, and whether it is interrupted meanwhile."""
        draw, now = self.random, self.clock.now
        duration = draw.uniform(SHORTEST, LONGEST)
        plain = Delivery(unit, token, "", duration, duration, now + duration, now + duration, now)
        if draw.random() >= -math.expm1(-INTERRUPTED * duration / 60):
            return plain
        kind, into = draw.choice(("notice", "death", "silence")), draw.uniform(0, duration)
        if kind == "notice":
            late = duration - into > DRAIN
            plain.fate = "given back" if late else "notice"
            plain.busy = into + DRAIN if late else duration
        elif kind == "death":
            plain.fate = draw.choice(DEATHS)
            plain.busy = {"before": 0.0, "during": into}.get(plain.fate, duration)
        else:
            plain.fate = "silent"
            plain.beats, plain.ends = now + into, now + duration + draw.uniform(*SILENCE)
            return plain
        plain.ends = plain.beats = now + plain.busy
        return plain

    def _end(self, delivery: Delivery, *, committed: bool = False) -> None:
        """Run the unit as its worker did, as far as it came; ack it if it came so far; and set the worker to its next one."""
        fate, unit = delivery.fate, delivery.unit
        self.seen.begin(fate, committed=committed)
        self.teacher.fate, self.teacher.recall = fate, Recall()
        died = fate in DEATHS
        with contextlib.suppress(Killed):
            ran = run_unit(unit, self.context, self.teacher.recall)
            assert ran.ack.state == ("release" if fate == "given back" else "done"), ran
            if not died:
                self.report.acks_refused += not self.queue.settle(unit.id, delivery.token, ran.ack)
        if fate:
            self.fates[fate] += 1
        self.busy += delivery.busy
        if self.seen.won:
            self.useful += delivery.busy
            self.last_commit = self.clock.now
        if died:
            self.waits += delivery.beat + self.queue.lease - self.clock.now
        self._at(self.clock.now + (BOOT if died or fate in ("notice", "given back") else 0.0), None)


def simulate(
    units: int, *, workers: int, seed: int, lease: float, queue: Callable[..., MemoryQueue] = MemoryQueue
) -> Report:
    """Play one fleet through a plan of at least `units` units, and check what it left."""
    began, clock = time.process_time(), Clock()
    store = make_store(units)
    plan = plans.load_plan(store)
    fleet = Fleet(store, plan.units(), queue(lease=lease, clock=clock), clock, workers=workers, seed=seed)
    fleet.run()
    report = fleet.report
    report.dead_lettered = len(fleet.queue.failures())
    report.reconcile_found = reconcile(plan, store, fleet.queue)
    report.audit = found = audit(store, plan)
    report.deliveries_repeated = report.deliveries - found.units
    report.commits_refused, report.shards_rewritten = fleet.seen.refused, fleet.seen.rewritten
    report.teacher_calls = fleet.teacher.calls
    report.teacher_calls_repeated = fleet.teacher.calls / found.items - 1
    report.work_repeated = 1 - fleet.useful / fleet.busy
    report.mean_wait_for_lease = fleet.waits / max(1, sum(fleet.fates[fate] for fate in DEATHS))
    report.makespan_hours = fleet.last_commit / 3600
    report.makespan_over_ideal = fleet.last_commit / (found.units * (SHORTEST + LONGEST) / 2 / workers) - 1
    report.core_seconds = time.process_time() - began
    report.units_per_core_second = found.units / report.core_seconds
    report.peak_memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return report


def table(reports: Sequence[Report]) -> Iterator[str]:
    """One column a report."""
    for name, form in COLUMNS.items():
        values = ({**asdict(report), **asdict(report.audit)}[name] for report in reports)
        yield f"{name:26}" + "".join(f"{format(value, form):>14}" for value in values)


def main() -> int:
    """Play the fleet in full, then a tenth of it at each lease."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    sizes = [(options.units, 180.0), *((options.units // 10, lease) for lease in (60.0, 180.0, 600.0))]
    reports = []
    for units, lease in sizes:
        reports.append(report := simulate(units, workers=options.workers, seed=options.seed, lease=lease))
        how = "well" if report.well else "NOT WELL"
        print(f"{units:,} units, lease {lease:g} s: {how}, {report.core_seconds:.0f} s of a core", file=sys.stderr)
    print("\n".join(table(reports)), file=sys.stderr)
    print(json.dumps({"full": asdict(reports[0]), "leases": [asdict(report) for report in reports[1:]]}, indent=2))
    return 0 if all(report.well for report in reports) else 1


if __name__ == "__main__":
    sys.exit(main())
