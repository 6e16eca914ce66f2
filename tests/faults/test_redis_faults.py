"""Redis killed, flushed, cut off by the network, and mute: the queue is a cache, and the work goes on by itself or is
taken up by the next command."""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import redis

from foundation.workspace import Workspace
from queue_workers.ledger import reconcile
from queue_workers.plan import load_plan
from queue_workers.redis_server import _binary
from tests.faults.conftest import Recovery
from tests.faults.test_kills import MOSTLY_RUN, RUN, WORK
from tests.support.asked import TYPE, Asked, asked_teacher
from tests.support.commands import run_json
from tests.support.faults import (
    RULES,
    assert_all_is_there,
    committed,
    ended,
    factory,
    finish,
    kill_redis,
    queue_of,
    redis_pid,
    wait_for,
)
from tests.support.tcp_proxy import TcpProxy, tcp_proxy


@pytest.fixture
def asked() -> Iterator[Asked]:
    with asked_teacher("hold") as server:
        yield server


def test_the_append_only_file_brings_the_queue_and_its_counters_back(workspace: Workspace) -> None:
    with queue_of(workspace) as queue:
        assert reconcile(load_plan(workspace.store), workspace.store, queue) == 60
        before = queue.depth()
        time.sleep(1.5)  # it is synced each second
        kill_redis(workspace)
    with queue_of(workspace) as queue:
        assert queue.depth() == before
        assert reconcile(load_plan(workspace.store), workspace.store, queue) == 0
    finish(workspace, *WORK)
    assert_all_is_there(workspace)


def test_redis_killed_under_run_is_started_again_by_it(
    make: Callable[..., Workspace], asked: Asked, recovery: Recovery
) -> None:
    workspace = make(blocks=8, types=[TYPE], settings=asked.settings())
    with factory(workspace, *RUN) as process:
        asked.wait_until_held(2)
        killed = redis_pid(workspace)
        kill_redis(workspace)
        asked.mode = "answer"
        with recovery("Redis killed under run, its append-only file read again"):
            wait_for(lambda: redis_pid(workspace) not in (0, killed), what="a new Redis")
            wait_for(lambda: len(committed(workspace)) > 2, what="a unit that was leased from it")
        ended(process, workspace)
    assert_all_is_there(workspace)


@pytest.mark.slow
def test_redis_killed_again_and_again_under_run(workspace: Workspace) -> None:
    with factory(workspace, *RUN) as process:
        for _ in range(3):
            before = len(committed(workspace))
            wait_for(lambda before=before: len(committed(workspace)) > before or process.poll() is not None)  # type: ignore[misc]
            if process.poll() is None and redis_pid(workspace):
                kill_redis(workspace)
        ended(process, workspace)
    assert_all_is_there(workspace)


def test_redis_killed_under_work(make: Callable[..., Workspace], asked: Asked, recovery: Recovery) -> None:
    workspace = make(blocks=8, types=[TYPE], settings=asked.settings())
    with factory(workspace, *WORK) as process:
        asked.wait_until_held(2)
        kill_redis(workspace)
        asked.mode = "answer"
        assert process.wait(100) in (0, 1)  # it mends it, or it says so and ends
    with recovery("Redis killed under work, the command given again"):
        finish(workspace, *WORK)
    assert_all_is_there(workspace)


def test_everything_flushed_and_then_reconciled(workspace: Workspace, recovery: Recovery) -> None:
    with factory(workspace, *WORK) as process:
        wait_for(lambda: committed(workspace))
        process.terminate()
        ended(process, workspace, code=process.wait(100))
    done = len(committed(workspace))
    assert 0 < done < 60
    with queue_of(workspace) as queue:
        queue.redis.flushall()
        with recovery("FLUSHALL, then factory reconcile"):
            assert run_json("factory", "reconcile", cwd=workspace.root)["requeued"] == 60 - done
        assert queue.depth().queued == 60 - done
    finish(workspace, *WORK)
    assert_all_is_there(workspace)


@MOSTLY_RUN
def test_everything_flushed_while_it_works(
    make: Callable[..., Workspace], asked: Asked, loop: tuple[str, ...], recovery: Recovery
) -> None:
    workspace = make(blocks=8, types=[TYPE], settings=asked.settings())
    with factory(workspace, *loop) as process:
        asked.wait_until_held(2)
        with queue_of(workspace) as queue:
            queue.redis.flushall()
        asked.mode = "answer"
        with recovery(f"FLUSHALL under {loop[0]}"):
            wait_for(lambda: len(committed(workspace)) == 8, what="all units")
        ended(process, workspace)
    assert_all_is_there(workspace)


def test_reconcile_while_it_works_finds_nothing_missing(workspace: Workspace) -> None:
    plan, found = load_plan(workspace.store), []
    with factory(workspace, *WORK) as process:
        wait_for(lambda: committed(workspace))
        with queue_of(workspace) as queue:
            while process.poll() is None:
                found.append(reconcile(plan, workspace.store, queue))
                time.sleep(0.1)
        ended(process, workspace)
    assert len(found) > 3
    assert sum(found) == 0
    assert_all_is_there(workspace)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[int]:
    """A Redis of its own on a TCP port of loopback; the port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tmp_path / "server"
    folder.mkdir()
    options = f"--port {port} --bind 127.0.0.1 --appendonly yes --maxmemory-policy noeviction --save".split()
    with open(folder / "log", "wb") as log:
        process = psutil.Popen([_binary(), *options, ""], cwd=folder, stdout=log, stderr=log)
    client = redis.Redis(port=port)

    def answers() -> bool:
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False

    try:
        wait_for(answers, 20, "Redis")
        yield port
    finally:
        client.close()
        process.kill()
        process.wait(20)
        shutil.rmtree(folder)


@pytest.fixture
def proxy(server: int) -> Iterator[TcpProxy]:
    with tcp_proxy(server) as between:
        yield between


@MOSTLY_RUN
@pytest.mark.parametrize("fault", ["reset", "refused", "swallowed"])
def test_the_way_to_redis_breaks_and_is_mended(
    make: Callable[..., Workspace],
    asked: Asked,
    proxy: TcpProxy,
    loop: tuple[str, ...],
    fault: str,
    recovery: Recovery,
) -> None:
    """Nobody starts anything again: the command goes on by itself when the way is free. (A reset needs no mending.)"""
    url = f'url = "redis://127.0.0.1:{proxy.port}/0"\nlease = 20\nheartbeat = 4\n'
    workspace = make(blocks=8, types=[TYPE], settings=asked.settings(queue=url))
    with factory(workspace, *loop) as process:
        asked.wait_until_held(2)
        {"reset": proxy.reset, "refused": proxy.refuse, "swallowed": proxy.swallow}[fault]()
        asked.mode = "answer"
        if fault != "reset":
            wait_for(lambda: len(committed(workspace)) >= 1, what="the units in hand")  # the store is still there
            time.sleep(6)  # longer than a heartbeat
            assert process.poll() is None, "it gave up"
        proxy.forward()
        with recovery(f"the way to Redis {fault} ({loop[0]})"):
            wait_for(lambda: len(committed(workspace)) > 2 or process.poll() is not None, what="the next unit")
        ended(process, workspace)
    assert_all_is_there(workspace, own_redis=False)


def test_connections_reset_again_and_again(make: Callable[..., Workspace], proxy: TcpProxy) -> None:
    url = f'[queue]\nurl = "redis://127.0.0.1:{proxy.port}/0"\nlease = 20\nheartbeat = 4\n[work]\nworkers = 2\n'
    workspace = make(blocks=20, settings=f"{RULES}{url}")
    with factory(workspace, *RUN) as process:
        wait_for(lambda: committed(workspace))
        for _ in range(5):
            proxy.reset()
            time.sleep(0.3)
        ended(process, workspace)
    assert_all_is_there(workspace, own_redis=False)


def test_a_command_that_meets_a_mute_redis_says_so(make: Callable[..., Workspace], proxy: TcpProxy) -> None:
    url = f'[queue]\nurl = "redis://127.0.0.1:{proxy.port}/0"\n'
    workspace = make(blocks=1, settings=f"{RULES}{url}")
    proxy.swallow()
    with factory(workspace, "reconcile") as process:
        ended(process, workspace, code=1, seconds=100)
    out = (workspace.root.with_name(f"{workspace.root.name}.out")).read_text()
    assert "Redis cannot be reached" in out and "mend:" in out and "Traceback" not in out
