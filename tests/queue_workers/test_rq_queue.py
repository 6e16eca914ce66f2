"""What only RQ can get wrong: foreign messages, dead workers, its own bookkeeping, and what lies in Redis."""

from __future__ import annotations

import contextlib
import errno
import json
import multiprocessing
import os
import signal
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import rq
from redis import Redis
from rq.serializers import JSONSerializer

from foundation.ids import stable_id
from foundation.records import Unit
from foundation.tables import QueueSettings
from foundation.workspace import Workspace
from queue_workers.identity import alive, began, died_here, worker_name
from queue_workers.protocol import DONE, RELEASE, Ack
from queue_workers.redis_server import connect, redis_connection
from queue_workers.rq_queue import RqQueue
from tests.queue_workers.conftest import make_units

_fork = multiprocessing.get_context("fork")


@pytest.fixture
def redis(workspace: Workspace) -> Iterator[Redis]:
    with redis_connection(workspace) as client:
        yield client


def make_queue(redis: Redis, **settings: int) -> RqQueue:
    return RqQueue(redis, "test", QueueSettings(**{"lease": 10, "heartbeat": 1, **settings}))  # type: ignore[arg-type]


def drain(queue: RqQueue, handler: Callable[[Unit], Ack], seconds: float = 60) -> float:
    """Consume until nothing is queued or in flight; how long that took."""
    start = time.monotonic()

    def empty() -> bool:
        assert time.monotonic() - start < seconds, f"still not empty: {queue.depth()}"
        return queue.depth().queued + queue.depth().in_flight == 0

    queue.consume(handler, empty)
    return time.monotonic() - start


@contextlib.contextmanager
def worker(workspace: Workspace, handler: Callable[[Unit], Ack], **settings: int) -> Iterator[Any]:
    """A worker in a process of its own; killed when the context ends."""

    def live() -> None:
        os.setpgid(0, 0)
        make_queue(connect(workspace), **settings).consume(handler, lambda: False)

    process = _fork.Process(target=live)
    process.start()
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid or 0, signal.SIGCONT)
        process.kill()
        process.join()


def wait_for(condition: Callable[[], object], seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.02)


def mark_pid_and_hang(folder: Path) -> Callable[[Unit], Ack]:
    def handle(_: Unit) -> Ack:
        (folder / "horse.tmp").write_text(f"{os.getpid()} {began(os.getpid())}")
        (folder / "horse.tmp").rename(folder / "horse")
        time.sleep(60)
        return DONE

    return handle


def horse_of(folder: Path) -> tuple[int, str]:
    wait_for((folder / "horse").exists)
    pid, beginning = (folder / "horse").read_text().split()
    return int(pid), beginning


def test_a_message_is_json_with_ids_alone_and_jobs_leave_nothing_behind(redis: Redis) -> None:
    queue = make_queue(redis)
    queue.submit(make_units(2), "normal")
    jobs = redis.keys("rq:job:*")
    assert len(jobs) == 2
    assert {key.decode().split("_")[1] for key in jobs} == {stable_id("wh/who")[:8]}  # type: ignore[union-attr]
    data = json.loads(zlib.decompress(redis.hget(jobs[0], "data")))  # type: ignore[arg-type]
    assert data[2] == [make_units(2)[int(data[2][0]["start"])].model_dump()]
    drain(queue, lambda _: DONE)
    left = {key.decode() for key in redis.keys("*")}
    assert not [
        key for key in left if key.startswith(("rq:job", "rq:results", "rq:executions", "rq:wip", "qpt:test:fail"))
    ]


def test_a_message_cannot_name_a_function(redis: Redis, tmp_path: Path) -> None:
    # given someone who can write to Redis and knows RQ
    foreign = rq.Queue("test-normal", connection=redis, serializer=JSONSerializer)
    foreign.enqueue("os.mkdir", args=[str(tmp_path / "ran")], job_id="test_foreign", result_ttl=0)
    queue = make_queue(redis)
    # when a worker takes the message, and a good one behind it
    queue.submit(make_units(1), "normal")
    drain(queue, lambda unit: (tmp_path / f"good-{unit.start}").touch() or DONE)
    # then it is dropped, without a retry, and the good one is run
    assert [path.name for path in tmp_path.iterdir() if path.name != "w"] == ["good-0"]
    assert queue.failures() == []
    assert queue.depth().queued == 0


@pytest.mark.parametrize("field", ["success_callback_name", "failure_callback_name", "stopped_callback_name"])
@pytest.mark.parametrize("ack", [DONE, Ack("failed", "own")])
def test_a_message_cannot_name_a_callback(
    redis: Redis, tmp_path: Path, field: str, ack: Ack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOREIGN", str(tmp_path / "ran"))
    queue = make_queue(redis)
    (unit,) = make_units(1)
    queue.submit([unit], "normal")
    redis.hset(f"rq:job:{queue._units.job_id(unit)}", field, f"{foreign_code.__module__}.foreign_code")
    drain(queue, lambda _: ack)
    assert not (tmp_path / "ran").exists()


def foreign_code(*_: Any) -> None:
    Path(os.environ["FOREIGN"]).touch()


def test_a_message_that_is_no_json_is_dropped(redis: Redis, tmp_path: Path) -> None:
    queue = make_queue(redis)
    units = make_units(2)
    queue.submit(units, "normal")
    redis.hset(f"rq:job:{queue._units.job_id(units[0])}", "data", b"\x80\x04cos\nsystem\n")
    drain(queue, lambda unit: (tmp_path / f"ran-{unit.start}").touch() or DONE)
    assert [path.name for path in tmp_path.glob("ran-*")] == ["ran-1"]
    assert queue.submit(units[:1], "normal") == 1  # the plan still knows it


def test_a_dead_worker_is_noticed_on_its_host_and_its_unit_runs_at_once(
    workspace: Workspace, redis: Redis, tmp_path: Path
) -> None:
    queue = make_queue(redis, heartbeat=60)  # far longer than the test: silence is not what tells
    queue.submit(make_units(1), "normal")
    with worker(workspace, mark_pid_and_hang(tmp_path), heartbeat=60) as process:
        horse = horse_of(tmp_path)
        assert queue.depth().in_flight == 1
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    wait_for(lambda: not alive(*horse))  # the work-horse went with it
    redis.delete("qpt:test:house")  # its turn to look comes a quarter of the heartbeat later
    assert drain(queue, lambda _: DONE) < 30  # not 60
    assert queue.failures() == []


def test_a_unit_on_its_way_to_a_worker_is_in_flight_at_once(workspace: Workspace, redis: Redis) -> None:
    # given a worker that died in the moment between taking a unit and starting it
    queue = make_queue(redis)
    queue.submit(make_units(1), "normal")
    assert queue._units.take("test:elsewhere/1:1:1")
    # then the unit is in flight, not in no list; nobody can take it a second time
    assert (queue.depth().queued, queue.depth().in_flight) == (0, 1)
    assert queue.submit(make_units(1), "high") == 0
    # and it comes back by itself
    assert drain(queue, lambda _: DONE) < 20
    assert queue.failures() == []


def test_a_silent_worker_elsewhere_is_given_up_after_its_heartbeat(
    workspace: Workspace, redis: Redis, tmp_path: Path
) -> None:
    # given a worker that is stopped, not dead, and so holds its unit in silence
    queue = make_queue(redis, heartbeat=2)
    queue.submit(make_units(1), "normal")
    with worker(workspace, mark_pid_and_hang(tmp_path), heartbeat=2) as process:
        horse_of(tmp_path)
        os.kill(process.pid, signal.SIGSTOP)

        # when another one looks, then the unit comes back after the heartbeat, counted as lost
        def handle(unit: Unit) -> Ack:
            (tmp_path / "lost").write_bytes(redis.hget("qpt:test:lost", unit.id) or b"")  # type: ignore[arg-type]
            return DONE

        drain(queue, handle)
        assert (tmp_path / "lost").read_text() == "1"


def test_a_late_worker_that_wakes_up_leaves_nothing_queued_for_ever(
    workspace: Workspace, redis: Redis, tmp_path: Path
) -> None:
    # given a worker stopped past its heartbeat, whose unit another one has meanwhile done
    queue = make_queue(redis, heartbeat=1)
    queue.submit(make_units(1), "normal")
    (tmp_path / "go").touch()

    def slow(unit: Unit) -> Ack:
        mark = tmp_path / f"began-{os.getpid()}"
        mark.touch()
        while len(list(tmp_path.glob("began-*"))) == 1 and not (tmp_path / "woken").exists():
            time.sleep(0.05)
        return DONE

    with worker(workspace, slow) as process:
        wait_for(lambda: list(tmp_path.glob("began-*")))
        os.kill(process.pid, signal.SIGSTOP)
        drain(queue, slow)
        # when it wakes, finds its job gone, and gives the unit back
        (tmp_path / "woken").touch()
        os.kill(process.pid, signal.SIGCONT)
        time.sleep(1.5)
    # then one more delivery at most, and the queue is empty
    drain(queue, slow)
    assert queue.depth().queued + queue.depth().in_flight == 0
    assert queue.failures() == []


def test_a_killed_work_horse_is_a_lost_delivery(redis: Redis, tmp_path: Path) -> None:
    queue = make_queue(redis, max_lost=3)
    queue.submit(make_units(2), "normal")

    def handle(unit: Unit) -> Ack:
        with open(tmp_path / f"runs-{unit.start}", "a") as file:
            file.write("x")
        if unit.start == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return DONE

    drain(queue, handle)
    (row,) = queue.failures()
    assert (row.unit.start, row.failures, row.lost) == (0, 0, 3)
    assert "signal 9" in row.error
    assert (tmp_path / "runs-0").read_text() == "xxx"
    assert (tmp_path / "runs-1").read_text() == "x"


def test_a_unit_that_does_not_end_itself_is_ended(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("queue_workers.rq_units.MARGIN", -4)
    monkeypatch.setattr("queue_workers.rq_units.LONGEST", 1)
    queue = make_queue(redis, lease=5, max_failures=1)
    queue.submit(make_units(1), "normal")

    def handle(_: Unit) -> Ack:
        time.sleep(30)
        return DONE

    drain(queue, handle)
    (row,) = queue.failures()
    assert row.failures == 1
    assert "maximum timeout" in row.error


def test_a_flushed_redis_takes_the_plan_again(redis: Redis) -> None:
    queue = make_queue(redis)
    queue.submit(make_units(3), "normal")
    redis.flushall()
    assert queue.submit(make_units(3), "normal") == 3


def test_a_redis_flushed_under_a_running_unit_does_not_count_against_it(redis: Redis, tmp_path: Path) -> None:
    queue = make_queue(redis)
    queue.submit(make_units(1), "normal")

    def handle(_: Unit) -> Ack:
        if not (tmp_path / "flushed").exists():
            (tmp_path / "flushed").touch()
            redis.flushall()
        return DONE

    drain(queue, handle)
    assert queue.failures() == []
    assert queue.depth().queued == 0


def test_two_queues_share_a_redis_and_not_their_units(redis: Redis, tmp_path: Path) -> None:
    one, other = RqQueue(redis, "one", QueueSettings()), RqQueue(redis, "other", QueueSettings())
    assert one.submit(make_units(2), "normal") == 2
    assert other.submit(make_units(2), "normal") == 2
    drain(one, lambda _: DONE)
    assert other.depth().queued == 2
    drain(other, lambda _: RELEASE if not (tmp_path / "x").exists() and not (tmp_path / "x").touch() else DONE)


def test_a_pid_alone_is_not_an_identity() -> None:
    name = worker_name("q")
    assert not died_here(name)
    host, pid, beginning = name.rsplit(":", 3)[1:]
    assert int(pid) == os.getpid()
    assert died_here(f"q:{host}:{pid}:{int(beginning) - 1}")  # the pid went to another process
    assert died_here(f"q:{host}:4194303:{beginning}")
    assert not died_here(f"q:elsewhere/1:4194303:{beginning}")
    assert not died_here("a name that another program chose")


def test_a_machine_that_cannot_fork_gives_the_unit_back_and_goes_on(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue, fork, tries = make_queue(redis, max_failures=1), os.fork, []

    def full_then_fork() -> int:
        tries.append(1)
        if len(tries) == 1:
            raise OSError(errno.ENOMEM, "Cannot allocate memory")
        return fork()

    queue.submit(make_units(1), "normal")
    monkeypatch.setattr(os, "fork", full_then_fork)
    drain(queue, lambda _: DONE)
    assert len(tries) == 2
    assert queue.failures() == []


def test_nothing_of_what_is_gone_stays_in_redis(redis: Redis) -> None:
    queue = make_queue(redis)
    queue.submit(make_units(1), "normal")
    taken = queue._units.take("test:here")
    assert taken and queue._units.settle(taken, "failed", "own")
    redis.sadd("rq:workers", "rq:worker:killed")
    redis.sadd("rq:workers:test-normal", "rq:worker:killed")
    assert redis.hlen("qpt:test:failures") == redis.hlen("qpt:test:errors") == 1
    assert queue.control("withdraw") == 1
    assert queue.submit([], "normal") == 0
    assert not redis.exists("rq:workers", "rq:workers:test-normal", "qpt:test:failures", "qpt:test:errors")


def test_listing_the_shards_may_take_longer_than_the_lock(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("queue_workers.rq_units.LOCKED", 0.2)
    queue = make_queue(redis)

    def units() -> Iterator[Unit]:
        time.sleep(0.5)
        assert make_queue(redis).submit(make_units(1), "normal") == 1  # another one, in between
        yield from make_units(3)

    assert queue.submit(units(), "normal") == 2
    assert queue.depth().queued == 3
