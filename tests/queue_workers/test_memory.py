"""The queue in memory beyond the contract: leases by a fake clock, speed at scale, and disorder that is real and repeats."""

from __future__ import annotations

import time

from queue_workers.memory import MemoryQueue, UnrulyMemoryQueue
from queue_workers.protocol import DONE, Ack
from tests.queue_workers.conftest import make_units


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_lease_that_is_extended_does_not_run_out() -> None:
    clock = Clock()
    queue = MemoryQueue(lease=10, clock=clock)
    first, second = make_units(2)
    queue.submit([first, second], "normal")
    one, other = queue.take(), queue.take()
    assert one and other
    for _ in range(3):
        clock.now += 8
        assert queue.extend(first.id, one[1])
    assert not queue.extend(second.id, other[1])  # it ran out, and waits again
    assert (queue.depth().queued, queue.depth().in_flight) == (1, 1)
    assert not queue.settle(second.id, other[1], DONE)
    assert queue.settle(first.id, one[1], DONE)
    clock.now += 100
    again = queue.take()
    assert again and again[0] == second
    assert queue.failures() == []


def test_a_lease_is_over_for_who_asks_late() -> None:
    clock = Clock()
    queue = MemoryQueue(lease=10, clock=clock)
    queue.submit(make_units(1), "normal")
    delivery = queue.take()
    assert delivery
    clock.now = 10.0
    assert not queue.settle(delivery[0].id, delivery[1], DONE)  # though nobody looked for expired leases meanwhile
    assert queue.depth().queued == 1


def test_it_takes_no_longer_the_more_it_holds() -> None:
    units = make_units(100_000)

    def seconds(count: int) -> float:
        """Per unit: submit, lease to 500 workers at a time, extend, fail once, settle."""
        clock = Clock()
        queue = MemoryQueue(lease=100, clock=clock)
        began = time.process_time()
        queue.submit(units[:count], "low")
        left = 2 * count
        while left:
            out = [delivery for _ in range(500) if (delivery := queue.take())]
            for place, (unit, token) in enumerate(out):
                clock.now += 0.001
                assert queue.extend(unit.id, token)
                failed = left - place > count
                assert queue.settle(unit.id, token, Ack("failed") if failed else DONE)
            left -= len(out)
        assert queue.depth().queued == queue.depth().in_flight == 0
        return (time.process_time() - began) / count

    few, many = min(seconds(10_000) for _ in range(3)), seconds(100_000)
    print(f"a unit: {few * 1e6:.1f} us among 10,000, {many * 1e6:.1f} us among 100,000")
    assert many < 8 * few  # it would be 10 times if anything were looked through


def test_the_unruly_one_is_unruly_and_repeats_itself() -> None:
    def deliveries(seed: int) -> list[tuple[int, bool]]:
        queue = UnrulyMemoryQueue(seed=seed)
        queue.submit(make_units(100), "normal")
        seen = []
        while (delivery := queue.take()) or queue.depth().queued:
            if delivery:
                unit, token = delivery
                seen.append((unit.start, queue.settle(unit.id, token, DONE)))
        return seen

    seen = deliveries(1)
    settled = [start for start, owned in seen if owned]
    assert sorted(settled) == list(range(100))
    assert settled != sorted(settled)
    assert sum(not owned for _, owned in seen) > 5
    assert seen == deliveries(1) != deliveries(2)
