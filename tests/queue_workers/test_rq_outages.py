"""Redis goes away and comes back under a worker: killed, cut off, mute. And what is stored: one step at a time, RQ's format."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import rq
from redis import Redis
from rq.job import Job
from rq.serializers import JSONSerializer

from foundation.errors import Unavailable
from foundation.records import Unit
from foundation.tables import QueueSettings
from foundation.workspace import Workspace
from queue_workers import redis_server
from queue_workers.protocol import DONE, LONGEST, Ack
from queue_workers.redis_client import connect
from queue_workers.redis_server import redis_connection
from queue_workers.rq_queue import MARGIN, RqQueue
from queue_workers.rq_units import FUNCTION, describe
from tests.queue_workers.conftest import make_units
from tests.queue_workers.test_redis_server import remote_redis
from tests.queue_workers.test_rq_queue import drain, make_queue, wait_for, worker
from tests.support.tcp_proxy import TcpProxy, tcp_proxy


@pytest.fixture
def redis(workspace: Workspace) -> Iterator[Redis]:
    with redis_connection(workspace) as client:
        yield client


def kill_redis(workspace: Workspace) -> None:
    pid = redis_server._pid(workspace)
    assert pid
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: redis_server._pid(workspace) is None)


def when_told(folder: Path) -> Callable[[Unit], Ack]:
    """A handler that counts its runs and ends when the file `go` is there."""

    def handle(_: Unit) -> Ack:
        with open(folder / "runs", "a") as file:
            file.write("x")
        while not (folder / "go").exists():
            time.sleep(0.02)
        (folder / "ended").touch()
        return DONE

    return handle


def test_a_unit_outlives_a_redis_that_is_killed_and_started_again(
    workspace: Workspace, redis: Redis, tmp_path: Path
) -> None:
    # given a unit that runs, and its lease in the append-only file
    queue = make_queue(redis, heartbeat=3)
    queue.submit(make_units(2), "normal")
    with worker(workspace, when_told(tmp_path), heartbeat=3):
        wait_for((tmp_path / "runs").exists)
        time.sleep(1.5)
        # when Redis is gone for longer than the lease, and comes back
        kill_redis(workspace)
        time.sleep(4)
        with redis_connection(workspace):
            # then the unit was never lost: the living get the time for a heartbeat, before any house is kept
            time.sleep(2)
            assert make_queue(redis).depth().in_flight == 1
            (tmp_path / "go").touch()
            wait_for(lambda: make_queue(redis).depth().queued + make_queue(redis).depth().in_flight == 0, 30)
            assert (tmp_path / "runs").read_text() == "xx"  # each unit once
            assert not redis.exists("qpt:test:lost")


def test_a_unit_that_ends_while_redis_is_away_is_acked_when_it_is_back(
    workspace: Workspace, redis: Redis, tmp_path: Path
) -> None:
    queue = make_queue(redis, heartbeat=30)
    queue.submit(make_units(1), "normal")
    with worker(workspace, when_told(tmp_path), heartbeat=30) as process:
        wait_for((tmp_path / "runs").exists)
        time.sleep(1.5)
        kill_redis(workspace)
        (tmp_path / "go").touch()
        wait_for((tmp_path / "ended").exists)
        time.sleep(1)
        assert process.is_alive()
        began = time.monotonic()
        with redis_connection(workspace):
            wait_for(lambda: make_queue(redis).depth().in_flight == 0, 30)
            print(f"acked {time.monotonic() - began:.1f} s after Redis was back")
            assert (tmp_path / "runs").read_text() == "x"
            assert queue.depth().queued == 0


def test_a_worker_that_is_stopped_while_redis_is_away_ends_and_says_so(
    workspace: Workspace, redis: Redis, tmp_path: Path
) -> None:
    queue = make_queue(redis)
    queue.submit(make_units(1), "normal")

    def handle(_: Unit) -> Ack:
        kill_redis(workspace)
        (tmp_path / "killed").touch()
        return DONE

    # when it is stopped with a unit in hand that cannot be acked
    began = time.monotonic()
    with pytest.raises(Unavailable) as caught:
        queue.consume(handle, (tmp_path / "killed").exists)
    print(f"given up after {time.monotonic() - began:.1f} s")
    assert "Redis cannot be reached" in caught.value.what
    assert caught.value.mend


def test_an_idle_worker_waits_for_redis_and_hears_a_stop(workspace: Workspace, redis: Redis) -> None:
    queue = make_queue(redis)
    asked: list[float] = []

    def stop() -> bool:
        if not asked:
            kill_redis(workspace)
        asked.append(time.monotonic())
        return asked[-1] > asked[0] + 2

    queue.consume(lambda _: DONE, stop)  # with nothing in hand there is nothing to complain of
    assert len(asked) > 3  # it asked again and again
    with pytest.raises(Unavailable, match="cannot be reached"):
        queue.depth()


def test_a_worker_killed_on_another_host_is_given_up_after_its_silence(
    workspace: Workspace, redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a worker whose name says another host, killed with its unit in hand
    queue = make_queue(redis, heartbeat=3)
    queue.submit(make_units(1), "normal")
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("queue_workers.identity._host", lambda: "elsewhere/1")
        with worker(workspace, when_told(tmp_path), heartbeat=3) as process:
            wait_for((tmp_path / "runs").exists)
            wait_for(lambda: redis.info("server")["uptime_in_seconds"] > 4)  # type: ignore[index]
            process.kill()
            process.join()
    began = time.monotonic()
    # then another one runs it, counted as lost, once its heartbeat (3 s here, 20 by default) and a quarter are over
    (tmp_path / "go").touch()

    def handle(unit: Unit) -> Ack:
        (tmp_path / "lost").write_bytes(redis.hget("qpt:test:lost", unit.id) or b"")  # type: ignore[arg-type]
        return DONE

    drain(queue, handle, 60)
    print(f"run again {time.monotonic() - began:.1f} s after the kill")
    assert (tmp_path / "lost").read_text() == "1"
    assert not redis.exists("qpt:test:lost")  # done: its counters are gone
    assert not redis.exists("qpt:test:owners")


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[TcpProxy]:
    folder = tmp_path / "server"
    folder.mkdir()
    with remote_redis(folder, password="") as port, tcp_proxy(port) as between:
        yield between


def far_queue(proxy: TcpProxy, **settings: int) -> RqQueue:
    """Over the proxy, with time-outs of a second instead of ten."""
    url = f"redis://127.0.0.1:{proxy.port}/0?socket_timeout=1&socket_connect_timeout=1"
    made = QueueSettings(**{"lease": 10, "heartbeat": 2, "url": url, **settings})  # type: ignore[arg-type]

    class Here:  # all that `connect` asks of a workspace
        class settings:
            queue = made

    return RqQueue(connect(Here), "far", made)  # type: ignore[arg-type]


def test_a_reset_connection_is_no_event(proxy: TcpProxy, tmp_path: Path) -> None:
    queue = far_queue(proxy)
    assert queue.submit(make_units(5), "normal") == 5

    def handle(unit: Unit) -> Ack:
        (tmp_path / f"ran-{unit.start}").touch()
        proxy_pids.append(unit.start)
        return DONE

    proxy_pids: list[int] = []
    done = [0]

    def stop() -> bool:
        proxy.reset()  # before each look
        done[0] = len(list(tmp_path.glob("ran-*")))
        return done[0] == 5 and queue.depth().in_flight == 0

    queue.consume(handle, stop)
    assert queue.depth().queued == 0
    assert queue.failures() == []


def test_a_mute_network_is_noticed_by_who_asks(proxy: TcpProxy) -> None:
    queue = far_queue(proxy)
    queue.submit(make_units(1), "normal")
    proxy.swallow()
    began = time.monotonic()
    with pytest.raises(Unavailable, match="cannot be reached"):
        queue.depth()
    took = time.monotonic() - began
    print(f"a mute network noticed after {took:.1f} s, with time-outs of 1 s")
    assert took < 60
    proxy.forward()
    assert queue.depth().queued == 1


def test_a_worker_outlasts_a_mute_network_and_acks_after(proxy: TcpProxy, tmp_path: Path) -> None:
    queue = far_queue(proxy, heartbeat=60)
    queue.submit(make_units(2), "normal")

    def handle(unit: Unit) -> Ack:
        with open(tmp_path / "runs", "a") as file:
            file.write(f"{unit.start}")
        (tmp_path / "began").touch()
        time.sleep(1)
        return DONE

    began = time.monotonic()

    def stop() -> bool:  # asked while it waits for Redis
        ended = time.monotonic() - began
        assert ended < 100
        if (tmp_path / "began").exists() and not (tmp_path / "over").exists():
            if proxy.mode == "forward":
                proxy.swallow()
            elif ended > 5:
                proxy.forward()
                (tmp_path / "over").touch()
        return (tmp_path / "over").exists() and queue.depth().queued + queue.depth().in_flight == 0

    queue.consume(handle, stop)
    assert (tmp_path / "runs").read_text() == "01"


def test_a_lease_far_in_the_future_hides_no_dead_worker(redis: Redis, tmp_path: Path) -> None:
    # given a delivery of a worker elsewhere that died, taken while Redis's clock was ten years ahead
    queue = make_queue(redis, heartbeat=3)
    queue.submit(make_units(1), "normal")
    taken = queue._units.take("test:elsewhere/1:1:1")
    assert taken
    wip = "rq:wip:test-normal"
    redis.zadd(wip, {taken.entry: time.time() + 10 * 365 * 86400})
    # then it comes back all the same, a heartbeat after house is kept
    redis.delete("qpt:test:house")
    assert drain(queue, lambda _: DONE) < 30
    assert not redis.zcard(wip)


def test_a_clock_that_jumps_ahead_costs_a_repeat_and_nothing_else(redis: Redis, tmp_path: Path) -> None:
    # given a unit in hand whose lease is over at once, as if Redis's clock had jumped by a day
    queue = make_queue(redis, heartbeat=3)
    queue.submit(make_units(1), "normal")
    taken = queue._units.take("test:elsewhere/1:1:1")
    assert taken
    redis.zadd("rq:wip:test-normal", {taken.entry: time.time() - 86400})
    wait_for(lambda: redis.info("server")["uptime_in_seconds"] > 3)  # type: ignore[index]
    queue._units.keep_house(due=False)
    # then it is queued a second time, and whoever held it can neither ack nor fail it any more
    assert (queue.depth().queued, queue.depth().in_flight) == (1, 0)
    assert not queue._units.beat(taken)
    assert not queue._units.settle(taken, "failed", "late")
    assert not queue._units.settle(taken, "done")
    assert (queue.depth().queued, queue.depth().in_flight) == (1, 0)
    assert queue.failures() == []
    drain(queue, lambda _: DONE)


def test_a_second_ack_does_nothing(redis: Redis) -> None:
    queue = make_queue(redis)
    queue.submit(make_units(1), "normal")
    taken = queue._units.take("test:here")
    assert taken
    assert queue._units.settle(taken, "failed", "own")
    assert not queue._units.settle(taken, "failed", "own")
    assert redis.hvals("qpt:test:failures") == [b"1"]
    assert queue.depth().queued == 1
    again = queue._units.take("test:here")
    assert again
    assert queue._units.settle(again, "done")
    assert queue._units.depth().queued == 0
    assert not [key for key in redis.keys("*") if b"rq:job" in key or b":failures" in key or b":owners" in key]


def test_a_submitter_that_was_killed_does_not_hold_up_the_next(redis: Redis, workspace: Workspace) -> None:
    queue = make_queue(redis)
    child = os.fork()
    if child == 0:
        with make_queue(connect(workspace))._units.changing():
            os.kill(os.getpid(), signal.SIGKILL)
        os._exit(1)
    os.waitpid(child, 0)
    assert redis.exists("qpt:test:changing")
    began = time.monotonic()
    assert queue.submit(make_units(1), "normal") == 1
    print(f"taken over after {time.monotonic() - began:.1f} s")
    assert time.monotonic() - began < 25  # it would end by itself after 30 s


def test_who_was_held_up_too_long_stops_and_says_so(redis: Redis) -> None:
    queue = make_queue(redis)

    def units() -> Iterator[Unit]:
        redis.set("qpt:test:changing", "another", px=2000)  # its lock has ended, and another one is at it
        yield from make_units(1)

    with pytest.raises(Unavailable, match="held up"):
        queue.submit(units(), "normal")
    assert queue.submit(make_units(1), "normal") == 1  # it had added nothing after that
    assert queue.depth().queued == 1


def test_our_jobs_are_in_rq_s_own_format(redis: Redis) -> None:
    # given a unit queued by us, and the same one by RQ itself
    queue = make_queue(redis)
    (unit,) = make_units(1)
    queue.submit([unit], "low")
    theirs = rq.Queue("test-low", connection=redis, serializer=JSONSerializer)
    theirs.enqueue_many(
        [
            rq.Queue.prepare_data(
                FUNCTION,
                args=(unit.model_dump(),),
                timeout=LONGEST * 10 + MARGIN,
                result_ttl=0,
                description=describe(unit),
                job_id="theirs",
            )
        ]
    )
    # then RQ reads the same job from both, and finds both in its list
    jobs = [Job.fetch(id_, connection=redis, serializer=JSONSerializer) for id_ in theirs.job_ids]
    assert [job.id for job in jobs] == [queue._units.job_id(unit), "theirs"]
    times = ("created_at", "enqueued_at", "data")
    ours, rqs = ({key: value for key, value in job.to_dict().items() if key not in times} for job in jobs)
    assert ours == rqs
    assert (jobs[0].func_name, jobs[0].args, jobs[0].kwargs) == (jobs[1].func_name, jobs[1].args, jobs[1].kwargs)
    assert abs((jobs[0].enqueued_at - jobs[1].enqueued_at).total_seconds()) < 60
    assert theirs.started_job_registry.key == queue._units.wip_key("low")
    assert redis.ttl(f"rq:job:{jobs[0].id}") == -1


def test_a_queued_unit_is_small_and_many_are_withdrawn_at_once(redis: Redis) -> None:
    queue = make_queue(redis)
    units = make_units(20_000)
    before = redis.info("memory")["used_memory"]  # type: ignore[index]
    began = time.monotonic()
    assert queue.submit(units, "low") == 20_000
    submitted = time.monotonic() - began
    size = (redis.info("memory")["used_memory"] - before) / 20_000  # type: ignore[index]
    began = time.monotonic()
    assert queue.control("withdraw", ["wh/who"]) == 20_000
    withdrawn = time.monotonic() - began
    print(f"20,000 units: {submitted:.2f} s to submit, {withdrawn:.2f} s to withdraw, {size:.0f} B each")
    assert size <= 750
    assert redis.keys("rq:job:*") == []
