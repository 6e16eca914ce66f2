"""What every queue owes, over every backend: memory, memory that is unruly on purpose, and RQ with a real Redis.

A backend joins by a `Backend`: its queue, how a worker dies in it, and whether it keeps order and delivers once where
nothing is lost. Nothing else may be leaned on: deliveries repeat, come out of order, and leases expire.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from foundation.records import Unit
from foundation.tables import QueueSettings
from foundation.workspace import Workspace
from queue_workers.memory import MemoryQueue, UnrulyMemoryQueue
from queue_workers.protocol import DONE, RELEASE, Ack, Queue
from queue_workers.redis_server import redis_connection
from queue_workers.rq_queue import RqQueue
from tests.queue_workers.conftest import make_units


class Trace:
    """Deliveries as lines of a file: RQ's handlers run in other processes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def add(self, unit: Unit) -> int:
        """Write a delivery down; how often this unit was delivered so far."""
        with open(self.path, "a") as file:
            file.write(f"{unit.start}\n")
        return self.starts().count(unit.start)

    def starts(self) -> list[int]:
        return [int(line) for line in self.path.read_text().split()]


@dataclass
class Backend:
    """A queue under test. `lose` takes the next unit the way a worker does that dies with it.

    `ordered`: within a priority first in, first out. `once`: no delivery repeats unless one was lost, failed or released.
    """

    queue: Queue
    lose: Callable[[], None]
    ordered: bool = True
    once: bool = True

    def drain(self, handler: Callable[[Unit], Ack], seconds: float = 60) -> None:
        """Consume until nothing is queued or in flight."""
        until = time.monotonic() + seconds

        def empty() -> bool:
            assert time.monotonic() < until, f"still not empty: {self.queue.depth()}"
            depth = self.queue.depth()
            return depth.queued + depth.in_flight == 0

        self.queue.consume(handler, empty)

    def assert_delivered(self, trace: Trace, wanted: list[int]) -> None:
        """These deliveries, in this order, as far as the backend keeps order and delivers once."""
        starts = trace.starts()
        if self.once:
            assert (starts if self.ordered else sorted(starts)) == (wanted if self.ordered else sorted(wanted))
            return
        count, least = Counter(starts), Counter(wanted)
        assert count.keys() == least.keys()
        assert all(count[start] >= least[start] for start in least), (starts, wanted)


def _memory(queue: type[MemoryQueue] = MemoryQueue, **more: int) -> Backend:
    now = [0.0]
    made = queue(lease=10, max_failures=3, max_lost=2, clock=lambda: now[0], **more)

    def lose() -> None:
        while (delivery := made.take()) and delivery[1] == 0:
            pass  # a second delivery: nobody's to lose
        assert delivery
        now[0] += 11

    return Backend(made, lose)


def _unruly(seed: int) -> Backend:
    backend = _memory(UnrulyMemoryQueue, seed=seed)
    backend.ordered = backend.once = False
    return backend


def _rq(workspace: Workspace, redis: object, tmp_path: Path) -> Backend:
    settings = QueueSettings(lease=10, heartbeat=1, max_failures=3, max_lost=2)
    queue = RqQueue(redis, "contract", settings)  # type: ignore[arg-type]

    def lose() -> None:
        mark = tmp_path / "killed"

        def die(_: Unit) -> Ack:
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
            return DONE

        queue.consume(die, mark.exists)
        mark.unlink()

    return Backend(queue, lose)


@pytest.fixture(params=["memory", "unruly-1", "unruly-2", "unruly-3", "rq"])
def backend(request: pytest.FixtureRequest, workspace: Workspace, tmp_path: Path) -> Iterator[Backend]:
    kind, _, seed = request.param.partition("-")
    if kind == "memory":
        yield _memory()
    elif kind == "unruly":
        yield _unruly(int(seed))
    else:
        with redis_connection(workspace) as redis:
            yield _rq(workspace, redis, tmp_path)


@pytest.fixture
def trace(tmp_path: Path) -> Trace:
    return Trace(tmp_path / "trace")


def _done(trace: Trace) -> Callable[[Unit], Ack]:
    def handle(unit: Unit) -> Ack:
        trace.add(unit)
        return DONE

    return handle


def test_units_come_by_priority_and_in_order(backend: Backend, trace: Trace) -> None:
    units = make_units(6)
    assert backend.queue.submit(units[:2], "low") == 2
    assert backend.queue.submit(units[2:4], "normal") == 2
    assert backend.queue.submit(units[4:], "high") == 2
    depth = backend.queue.depth()
    assert (depth.high, depth.normal, depth.low, depth.queued, depth.in_flight) == (2, 2, 2, 6, 0)
    backend.drain(_done(trace))
    backend.assert_delivered(trace, [4, 5, 2, 3, 0, 1])
    firsts = sorted(range(6), key=trace.starts().index)
    assert [start // 2 for start in firsts] == [2, 2, 1, 1, 0, 0]  # a priority holds even where order does not
    assert backend.queue.failures() == []


def test_the_handler_gets_the_unit_as_it_was_submitted(backend: Backend, tmp_path: Path) -> None:
    (unit,) = make_units(1)
    backend.queue.submit([unit], "normal")

    def handle(got: Unit) -> Ack:
        (tmp_path / "got").write_text(got.model_dump_json())
        return DONE

    backend.drain(handle)
    assert Unit.model_validate_json((tmp_path / "got").read_text()) == unit


def test_a_unit_that_is_queued_or_in_flight_is_not_taken_again(backend: Backend, trace: Trace, tmp_path: Path) -> None:
    units = make_units(3)
    assert backend.queue.submit(units, "normal") == 3
    assert backend.queue.submit(units, "normal") == 0
    assert backend.queue.submit(units, "high") == 0

    def handle(unit: Unit) -> Ack:
        trace.add(unit)
        with open(tmp_path / "taken", "a") as file:
            if trace.starts().count(unit.start) == 1:
                file.write(f"{backend.queue.submit([unit], 'normal')} {backend.queue.depth().in_flight}\n")
        return DONE

    backend.drain(handle)
    backend.assert_delivered(trace, [0, 1, 2])
    assert (tmp_path / "taken").read_text() == "0 1\n" * 3
    assert backend.queue.submit(units[:1], "normal") == 1  # done and forgotten: the store knows that it is committed


def test_a_unit_that_fails_is_set_aside_with_its_error_and_the_rest_go_on(backend: Backend, trace: Trace) -> None:
    units = make_units(3)
    backend.queue.submit(units, "normal")

    def handle(unit: Unit) -> Ack:
        trace.add(unit)
        if unit.start == 0:
            return Ack("failed", "poison")
        if unit.start == 1:
            raise ValueError("raised poison")
        return DONE

    backend.drain(handle)
    count = Counter(trace.starts())
    assert (count[0], count[1], count[2]) == (3, 3, 1) if backend.once else (count[0] >= 3 and count[1] >= 3)
    rows = {row.unit.start: row for row in backend.queue.failures()}
    assert sorted(rows) == [0, 1]
    assert (rows[0].failures, rows[0].lost, rows[0].error) == (3, 0, "poison")
    assert (rows[1].failures, rows[1].lost, rows[1].error) == (3, 0, "ValueError: raised poison")
    assert backend.queue.submit(units, "normal") == 1  # the one that is done; what is set aside stays aside


def test_retry_puts_back_what_was_set_aside_with_counters_at_zero(backend: Backend, trace: Trace) -> None:
    backend.queue.submit(make_units(1), "low")
    backend.drain(lambda unit: Ack("failed", "poison"))
    assert len(backend.queue.failures()) == 1
    assert backend.queue.control("retry") == 1
    assert backend.queue.failures() == []
    assert backend.queue.depth().low == 1

    def handle(unit: Unit) -> Ack:
        return DONE if trace.add(unit) >= 3 else Ack("failed", "twice more")

    backend.drain(handle)
    backend.assert_delivered(trace, [0, 0, 0] if backend.once else [0])
    assert backend.queue.failures() == []
    assert backend.queue.control("retry") == 0


def test_a_released_unit_comes_back_and_is_not_counted(backend: Backend, trace: Trace) -> None:
    backend.queue.submit(make_units(1), "normal")
    backend.drain(lambda unit: DONE if trace.add(unit) >= 6 else RELEASE)
    backend.assert_delivered(trace, [0] * 6)
    assert backend.queue.failures() == []


def test_a_lost_delivery_comes_back_and_is_counted_apart(backend: Backend, trace: Trace) -> None:
    backend.queue.submit(make_units(1), "normal")
    backend.lose()  # once lost of twice allowed, then twice failed of three times allowed
    backend.drain(lambda unit: DONE if trace.add(unit) >= 3 else Ack("failed", "own"))
    backend.assert_delivered(trace, [0, 0, 0])
    assert backend.queue.failures() == []


def test_a_unit_that_is_lost_too_often_is_set_aside(backend: Backend, trace: Trace) -> None:
    backend.queue.submit(make_units(2), "normal")
    backend.lose()
    backend.drain(_done(trace))
    assert set(trace.starts()) == {0, 1}
    before = trace.starts()
    backend.queue.submit(make_units(1), "normal")
    backend.lose()
    backend.lose()
    backend.drain(_done(trace))
    (row,) = backend.queue.failures()
    assert (row.unit.start, row.failures, row.lost) == (0, 0, 2)
    assert row.error
    if backend.once:
        assert trace.starts() == before and sorted(before) == [0, 1]


def test_consume_ends_when_told_and_leaves_the_rest(backend: Backend, trace: Trace) -> None:
    backend.queue.submit(make_units(5), "normal")
    backend.queue.consume(_done(trace), lambda: len(set(trace.starts())) >= 2)
    if backend.ordered:
        assert trace.starts() == [0, 1]
    assert backend.queue.depth().normal == 3
    began = time.monotonic()
    backend.drain(_done(trace))
    backend.queue.consume(_done(trace), lambda: time.monotonic() > began + 0.5)  # nothing waits: it idles, then ends
    assert time.monotonic() - began < 30
    backend.assert_delivered(trace, [0, 1, 2, 3, 4])


def test_what_it_holds_is_looked_up_before_the_first_unit_is_drawn(backend: Backend, trace: Trace) -> None:
    # Given a unit that is finished between the two looks of a reconcile: acked, hence committed, before the drawing
    (unit,) = make_units(1)
    backend.queue.submit([unit], "normal")

    def units() -> Iterator[Unit]:
        drawn.append(backend.queue.depth().queued)
        yield unit

    drawn: list[int] = []
    assert backend.queue.submit(units(), "normal") == 0
    assert drawn == [1]
    backend.drain(_done(trace))


def _types(*names: str) -> list[Unit]:
    """Two units of each prompt type, one after the other."""
    made = []
    for place, name in enumerate(names):
        for unit in make_units(2, name):
            start = unit.start + 2 * place
            made.append(unit.model_copy(update={"id": f"{start:024x}", "start": start, "stop": start + 1}))
    return made


def test_what_waits_is_withdrawn_by_prompt_type_and_can_be_queued_again(backend: Backend, trace: Trace) -> None:
    queue, units = backend.queue, _types("wh/who", "wh/when", "fact/which_one")
    queue.submit(units, "low")
    assert queue.control("withdraw", ["wh/when", "not/planned"]) == 2
    assert queue.depth().low == 4
    assert queue.submit(units, "high") == 2  # at another priority, and only those
    backend.drain(_done(trace))
    backend.assert_delivered(trace, [2, 3, 0, 1, 4, 5])
    queue.submit(units, "normal")
    assert queue.control("withdraw") == 6
    assert queue.depth().queued == 0
    assert queue.control("withdraw") == 0


def test_what_is_in_flight_is_not_withdrawn(backend: Backend, trace: Trace, tmp_path: Path) -> None:
    backend.queue.submit(make_units(3), "normal")

    def handle(unit: Unit) -> Ack:
        trace.add(unit)
        if not (tmp_path / "withdrawn").exists():
            (tmp_path / "withdrawn").write_text(f"{backend.queue.control('withdraw', ['wh/who'])} {unit.start}")
            assert backend.queue.depth().in_flight == 1
            assert backend.queue.submit([unit], "normal") == 0
        return DONE

    backend.drain(handle)
    count, start = map(int, (tmp_path / "withdrawn").read_text().split())
    assert count == 2
    assert set(trace.starts()) == {start}
    assert backend.queue.failures() == []


def test_what_was_set_aside_is_retried_and_forgotten_by_prompt_type(backend: Backend, trace: Trace) -> None:
    queue, units = backend.queue, _types("wh/who", "wh/when", "fact/which_one")
    queue.submit(units, "low")
    backend.drain(lambda unit: Ack("failed", "poison"))
    assert len(queue.failures()) == 6
    assert queue.control("forget", ["wh/who"]) == 2
    assert queue.control("retry", ["wh/when"]) == 2
    assert {row.unit.prompt_type for row in queue.failures()} == {"fact/which_one"}
    assert queue.depth().low == 2
    assert queue.submit(units, "low") == 2  # what was forgotten is the plan's again; what is set aside stays aside
    backend.drain(_done(trace))
    backend.assert_delivered(trace, [2, 3, 0, 1])
    assert queue.control("forget") == 2
    assert queue.failures() == []
    assert queue.submit(units[4:], "low") == 2


def test_a_paused_queue_delivers_nothing_until_it_is_resumed(backend: Backend, trace: Trace) -> None:
    queue = backend.queue
    queue.submit(make_units(2), "normal")
    assert queue.control("pause") == 2
    assert queue.depth().paused
    assert queue.submit(make_units(3), "high") == 1  # it takes units in all the same
    began = time.monotonic()
    queue.consume(_done(trace), lambda: time.monotonic() > began + 1)
    assert trace.starts() == []
    assert time.monotonic() - began < 30  # it heard the stop
    assert queue.control("resume") == 3
    assert not queue.depth().paused
    backend.drain(_done(trace))
    backend.assert_delivered(trace, [2, 0, 1])


def test_a_pause_takes_effect_before_the_next_unit(backend: Backend, trace: Trace) -> None:
    backend.queue.submit(make_units(4), "normal")

    def handle(unit: Unit) -> Ack:
        if trace.add(unit) == 1 and len(set(trace.starts())) == 2:
            backend.queue.control("pause")
        return DONE

    began = time.monotonic()
    backend.queue.consume(handle, lambda: time.monotonic() > began + 2)
    assert len(set(trace.starts())) == 2
    assert (backend.queue.depth().queued, backend.queue.depth().in_flight) == (2, 0)


def test_a_pause_is_for_the_whole_queue(backend: Backend) -> None:
    with pytest.raises(ValueError, match="whole queue"):
        backend.queue.control("pause", ["wh/who"])


@pytest.mark.parametrize("ack", [RELEASE, Ack("failed", "no")])
def test_a_held_type_comes_back_in_no_way(backend: Backend, trace: Trace, ack: Ack) -> None:
    queue, units = backend.queue, _types("wh/who", "wh/when")
    queue.submit(units[:1], "normal")

    def handle(unit: Unit) -> Ack:
        trace.add(unit)
        queue.control("hold", ["wh/who"])
        return ack

    backend.drain(handle)
    assert set(trace.starts()) == {0}
    assert queue.failures() == []
    assert queue.submit(units, "normal") == 2
    queue.control("hold", ["wh/when"])  # the exact set: what waits of it is handed out no more
    assert queue.submit(units, "normal") == 2
    seen = trace.starts()
    backend.drain(_done(trace))
    assert set(trace.starts()[len(seen) :]) == {0, 1}
    queue.control("hold")
    assert queue.submit(units[2:], "normal") == 2


def test_a_lost_unit_of_a_held_type_is_dropped(backend: Backend, trace: Trace) -> None:
    backend.queue.submit(make_units(1), "normal")
    backend.lose()
    backend.queue.control("hold", ["wh/who"])
    backend.drain(_done(trace))
    assert trace.starts() == []
    assert backend.queue.failures() == []
