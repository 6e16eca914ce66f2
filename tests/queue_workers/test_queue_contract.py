"""What every queue owes, over memory and over RQ with a real Redis."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from foundation.records import Unit
from foundation.settings import QueueSettings
from foundation.workspace import Workspace
from queue_workers.memory import MemoryQueue
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


class Backend:
    """A queue under test. `lose` takes the next unit the way a worker does that dies with it."""

    def __init__(self, queue: Queue, lose: Callable[[], None]) -> None:
        self.queue, self.lose = queue, lose

    def drain(self, handler: Callable[[Unit], Ack], seconds: float = 20) -> None:
        """Consume until nothing is queued or in flight."""
        until = time.monotonic() + seconds

        def empty() -> bool:
            assert time.monotonic() < until, f"still not empty: {self.queue.depth()}"
            depth = self.queue.depth()
            return depth.queued + depth.in_flight == 0

        self.queue.consume(handler, empty)


def _memory() -> Backend:
    now = [0.0]
    queue = MemoryQueue(lease=10, max_failures=3, max_lost=2, clock=lambda: now[0])

    def lose() -> None:
        assert queue.take()
        now[0] += 11

    return Backend(queue, lose)


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


@pytest.fixture(params=["memory", "rq"])
def backend(request: pytest.FixtureRequest, workspace: Workspace, tmp_path: Path) -> Iterator[Backend]:
    if request.param == "memory":
        yield _memory()
        return
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


def test_units_come_once_in_order_and_by_priority(backend: Backend, trace: Trace) -> None:
    units = make_units(6)
    assert backend.queue.submit(units[:2], "low") == 2
    assert backend.queue.submit(units[2:4], "normal") == 2
    assert backend.queue.submit(units[4:], "high") == 2
    depth = backend.queue.depth()
    assert (depth.high, depth.normal, depth.low, depth.queued, depth.in_flight) == (2, 2, 2, 6, 0)
    backend.drain(_done(trace))
    assert trace.starts() == [4, 5, 2, 3, 0, 1]
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
            file.write(f"{backend.queue.submit([unit], 'normal')} {backend.queue.depth().in_flight}\n")
        return DONE

    backend.drain(handle)
    assert trace.starts() == [0, 1, 2]
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
    assert sorted(trace.starts()) == [0, 0, 0, 1, 1, 1, 2]
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
        return DONE if trace.add(unit) == 3 else Ack("failed", "twice more")

    backend.drain(handle)
    assert trace.starts() == [0, 0, 0]
    assert backend.queue.failures() == []
    assert backend.queue.control("retry") == 0


def test_a_released_unit_comes_back_and_is_not_counted(backend: Backend, trace: Trace) -> None:
    backend.queue.submit(make_units(1), "normal")
    backend.drain(lambda unit: DONE if trace.add(unit) == 6 else RELEASE)
    assert trace.starts() == [0] * 6
    assert backend.queue.failures() == []


def test_a_lost_delivery_comes_back_and_is_counted_apart(backend: Backend, trace: Trace) -> None:
    backend.queue.submit(make_units(1), "normal")
    backend.lose()  # once lost of twice allowed, then twice failed of three times allowed
    backend.drain(lambda unit: DONE if trace.add(unit) == 3 else Ack("failed", "own"))
    assert trace.starts() == [0, 0, 0]
    assert backend.queue.failures() == []


def test_a_unit_that_is_lost_too_often_is_set_aside(backend: Backend, trace: Trace) -> None:
    backend.queue.submit(make_units(2), "normal")
    backend.lose()
    backend.drain(_done_once(trace))
    assert sorted(trace.starts()) == [0, 1]
    backend.queue.submit(make_units(1), "normal")
    backend.lose()
    backend.lose()
    backend.drain(_done(trace))
    (row,) = backend.queue.failures()
    assert (row.unit.start, row.failures, row.lost) == (0, 0, 2)
    assert row.error
    assert sorted(trace.starts()) == [0, 1]


def _done_once(trace: Trace) -> Callable[[Unit], Ack]:
    def handle(unit: Unit) -> Ack:
        assert trace.add(unit) == 1
        return DONE

    return handle


def test_consume_ends_when_told_and_leaves_the_rest(backend: Backend, trace: Trace) -> None:
    backend.queue.submit(make_units(5), "normal")
    backend.queue.consume(_done(trace), lambda: len(trace.starts()) >= 2)
    assert trace.starts() == [0, 1]
    assert backend.queue.depth().normal == 3
    began = time.monotonic()
    backend.drain(_done(trace))
    backend.queue.consume(_done(trace), lambda: time.monotonic() > began + 0.5)  # nothing waits: it idles, then ends
    assert time.monotonic() - began < 10
    assert trace.starts() == [0, 1, 2, 3, 4]


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
