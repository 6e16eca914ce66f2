"""`factory enqueue | work | status | reconcile | stop` as a user types them, and what they say when something is wrong."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from foundation.workspace import Workspace
from generator.catalogue import select
from queue_workers import plan
from queue_workers.identity import began
from queue_workers.ledger import reconcile
from queue_workers.presence import workers
from queue_workers.redis_server import redis_connection
from queue_workers.rq_queue import RqQueue
from tests.queue_workers.conftest import add_block
from tests.support.commands import REPOSITORY, run, run_json
from tests.support.fault_server import FaultServer, fault_server, reply

SECRET = "hunter2-s3cret"
TWO = ("--prompt-type", "wh/who", "--prompt-type", "wh/when")


@contextmanager
def working(
    workspace: Workspace, *arguments: str, env: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """`factory work` in the background; killed, with what it started, when the context ends."""
    argv = [sys.executable, "-c", "from generator.cli import main; main()", "work", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), **(env or {})}
    process = subprocess.Popen(
        argv, cwd=workspace.root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(condition: Callable[[], object], seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.02)


def shards(workspace: Workspace) -> list[Path]:
    return list(workspace.root.glob("shards/*/*/*.jsonl"))


@pytest.fixture
def planned(workspace: Workspace) -> Workspace:
    """Two blocks, two prompt types: eight units."""
    blocks, types = [add_block(workspace, 128) for _ in range(2)], select(["wh/who", "wh/when"])
    new = plan.draft(plan.Plan(), types, blocks, round_=0, priority="normal")
    plan.add(workspace.store, new, types, workspace.settings.split)
    with redis_connection(workspace) as redis:
        queue = RqQueue(redis, plan.queue_name(workspace.store), workspace.settings.queue)
        assert reconcile(new, workspace.store, queue) == 8
    return workspace


def test_from_nothing_to_done(workspace: Workspace) -> None:
    empty = run_json("factory", "status", cwd=workspace.root)
    assert not any(empty[key] for key in ("planned", "committed", "queued", "in_flight", "failed"))
    assert not any(empty[key] for key in ("items", "items_accepted", "items_rejected", "records", "prompt_types"))
    add_block(workspace, 70)
    told = run_json("factory", "enqueue", *TWO, "--dry-run", cwd=workspace.root)
    assert (told["units"], told["items"], told["queued"], told["dry_run"]) == (4, 140, 0, True)
    assert not (workspace.root / "plan").exists()
    told = run_json("factory", "enqueue", *TWO, "--priority", "low", cwd=workspace.root)
    assert (told["units"], told["items"], told["queued"], told["planned"]) == (4, 140, 4, 4)
    again = run_json("factory", "enqueue", *TWO, cwd=workspace.root)
    assert (again["units"], again["queued"], again["planned"]) == (0, 0, 4)
    status = run_json("factory", "status", cwd=workspace.root)
    assert (status["planned"], status["committed"], status["queued"]) == (4, 0, 4)
    done = run_json("factory", "work", "--burst", cwd=workspace.root)
    assert (done["units"], done["items"], done["left"], done["failed"]) == (4, 140, 0, 0)
    status = run_json("factory", "status", cwd=workspace.root)
    assert (status["planned"], status["committed"], status["queued"], status["in_flight"]) == (4, 4, 0, 0)
    assert status["items"] == status["items_accepted"] + status["items_rejected"] == 140
    assert status["records"] == done["records"] > 0
    kinds = status["prompt_types"]
    assert set(kinds) == {"wh/when", "wh/who"}
    assert sum(one["items"] for one in kinds.values()) == status["items"]
    assert run_json("factory", "work", "--burst", cwd=workspace.root)["units"] == 0
    assert run_json("factory", "enqueue", *TWO, cwd=workspace.root)["queued"] == 0
    assert "wh/when" in run("factory", "status", cwd=workspace.root).stdout


def test_another_round_asks_again(planned: Workspace) -> None:
    told = run_json("factory", "enqueue", "--prompt-type", "wh/who", "--round", "1", cwd=planned.root)
    assert (told["units"], told["planned"]) == (4, 12)
    assert run_json("factory", "work", "--burst", "--workers", "2", cwd=planned.root)["units"] == 12


@pytest.mark.parametrize(
    ("command", "word"),
    [
        (("enqueue", "--all"), "factory ingest"),
        (("enqueue",), "--prompt-type"),
        (("enqueue", "--all", "--prompt-type", "wh"), "--prompt-type"),
        (("enqueue", "--prompt-type", "wh/whom"), "wh/who"),
        (("enqueue", "--all", "--priority", "urgent"), "high, normal, low"),
        (("work", "--burst"), "factory enqueue"),
    ],
)
def test_wrong_use_is_told_with_the_mend(workspace: Workspace, command: tuple[str, ...], word: str) -> None:
    done = run("factory", *command, cwd=workspace.root, code=2)
    assert done.stdout == ""
    assert "mend:" in done.stderr
    assert word in done.stderr


def test_a_split_that_changed_is_refused(planned: Workspace) -> None:
    done = run("factory", "enqueue", "--all", cwd=planned.root, code=2, env={"FACTORY_SPLIT__KEY": "other"})
    assert "the split is fixed" in done.stderr
    assert run_json("factory", "status", cwd=planned.root)["planned"] == 8


def test_a_flushed_redis_and_reconcile(planned: Workspace) -> None:
    with redis_connection(planned) as redis:
        redis.flushall()
        assert run_json("factory", "status", cwd=planned.root)["queued"] == 0
        told = run_json("factory", "reconcile", cwd=planned.root)
        assert (told["planned"], told["requeued"], told["queued"]) == (8, 8, 8)
        assert run_json("factory", "reconcile", cwd=planned.root)["requeued"] == 0
        redis.flushall()
    assert run_json("factory", "work", "--burst", cwd=planned.root)["units"] == 8  # it reconciles by itself


def test_a_unit_that_cannot_be_done_is_set_aside_and_can_be_tried_again(planned: Workspace) -> None:
    # given a block that is missing
    block = sorted(planned.root.glob("corpus/blocks/*"))[0]
    block.rename(planned.root / "away")
    # when the plan is worked off
    done = run("factory", "work", "--burst", cwd=planned.root, code=1)
    # then its units are set aside after three failures each, and the rest is done
    assert "4 units were set aside" in done.stderr
    assert done.stderr.count("block of snippets is missing") == 12
    assert "committed 4 units" in done.stdout
    status = run_json("factory", "status", cwd=planned.root)
    assert (status["committed"], status["failed"], status["queued"]) == (4, 4, 0)
    assert run_json("factory", "reconcile", cwd=planned.root)["requeued"] == 0
    run("factory", "work", "--burst", cwd=planned.root)  # nothing new was set aside
    # and when the block is back, they are tried again
    (planned.root / "away").rename(block)
    told = run_json("factory", "failures", cwd=planned.root)
    assert (len(told["failures"]), told["retried"]) == (4, 0)
    assert "block of snippets is missing" in told["failures"][0]["error"]
    assert run_json("factory", "failures", "--retry", cwd=planned.root)["retried"] == 4
    assert run_json("factory", "work", "--burst", cwd=planned.root)["units"] == 4


def _openai(url: str) -> dict[str, str]:
    teacher = {"BACKEND": "openai", "MODEL": "m", "BASE_URL": url, "CONCURRENCY": "4"}
    return {f"FACTORY_TEACHER__{key}": value for key, value in teacher.items()}


def test_a_teacher_that_is_not_there_fails_before_any_unit_is_leased(planned: Workspace) -> None:
    done = run("factory", "work", "--burst", cwd=planned.root, code=1, env=_openai("http://127.0.0.1:1/v1"))
    assert "cannot be reached" in done.stderr
    status = run_json("factory", "status", cwd=planned.root)
    assert (status["queued"], status["committed"], status["failed"]) == (8, 0, 0)


def test_a_teacher_that_fails_unit_after_unit_stops_the_work(planned: Workspace) -> None:
    def refuse(_: FaultServer, __: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        return 403, {"error": "no more credit"}

    with fault_server(refuse) as server:
        done = run("factory", "work", "--burst", cwd=planned.root, code=1, env=_openai(server.url))
    assert "the teacher failed 5 units in a row" in done.stderr
    assert "no more credit" in done.stderr
    status = run_json("factory", "status", cwd=planned.root)
    assert (status["queued"], status["committed"], status["failed"]) == (8, 0, 0)  # none was used up
    assert run_json("factory", "work", "--burst", cwd=planned.root)["units"] == 8


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_drains(planned: Workspace, number: int) -> None:
    def slow(_: FaultServer, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        time.sleep(0.01)
        return reply("this is no JSON, and so a reject")

    with fault_server(slow) as server, working(planned, "--json", "--workers", "1", env=_openai(server.url)) as process:
        wait_for(lambda: server.calls)
        time.sleep(0.2)  # in the middle of a unit of 64 requests
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert "draining" in err
    assert '"units": 1' in out  # what was in hand was finished, and nothing else was begun
    assert len(server.calls) == 64
    status = run_json("factory", "status", cwd=planned.root)
    assert (status["committed"], status["queued"], status["in_flight"]) == (1, 7, 0)


def test_a_second_signal_ends_at_once_and_the_unit_comes_back(planned: Workspace) -> None:
    def hang(_: FaultServer, __: dict[str, Any]) -> int:
        return 60

    with (
        fault_server(hang) as server,
        working(planned, env={**_openai(server.url), "FACTORY_QUEUE__LEASE": "120"}) as process,
    ):
        wait_for(lambda: server.calls)
        process.send_signal(signal.SIGTERM)
        time.sleep(1)
        assert process.poll() is None
        start = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
        assert time.monotonic() - start < 5
    assert not shards(planned)
    assert run_json("factory", "work", "--burst", cwd=planned.root)["units"] == 8


def test_stop_drains_the_workers_and_stops_redis(planned: Workspace) -> None:
    with working(planned) as process:
        wait_for(lambda: shards(planned))
        assert workers(planned) == {process.pid: began(process.pid)}
        with redis_connection(planned) as redis:
            pid = int(redis.info("server")["process_id"])
        done = run("factory", "stop", cwd=planned.root)
        assert "1 running" in done.stdout
        assert "Redis: stopped" in done.stdout
        assert process.wait(10) == 0
    assert not began(pid)
    assert not planned.socket("redis.sock").exists()
    assert workers(planned) == {}


def test_stop_signals_no_stranger(planned: Workspace) -> None:
    # given the record of a worker that died, whose pid is now another process's
    (planned.run / f"work-{os.getpid()}").write_text("12345")
    assert "0 running" in run("factory", "stop", cwd=planned.root).stdout
    assert not (planned.run / f"work-{os.getpid()}").exists()


def test_a_full_disk_stops_the_work_and_loses_nothing(planned: Workspace) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))  # the index needs 32 KB, a shard more

    argv = [sys.executable, "-c", "from generator.cli import main; main()", "work", "--burst"]
    with redis_connection(planned):
        done = subprocess.run(
            argv,
            cwd=planned.root,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
            timeout=60,
            preexec_fn=limit,
        )
    assert done.returncode == 1
    assert "error: the disk is full" in done.stderr
    assert "Traceback" not in done.stderr
    assert not shards(planned)
    assert not list(planned.root.rglob(".tmp-*"))
    assert run_json("factory", "work", "--burst", cwd=planned.root)["units"] == 8
    assert run_json("factory", "status", cwd=planned.root)["failed"] == 0


@pytest.mark.parametrize("command", [("enqueue", "--all"), ("work", "--burst"), ("status",), ("reconcile",)])
def test_a_redis_that_cannot_be_reached_is_told_without_its_password(
    planned: Workspace, command: tuple[str, ...]
) -> None:
    env = {"FACTORY_QUEUE__URL": f"redis://:{SECRET}@127.0.0.1:1/0"}
    done = run("factory", *command, cwd=planned.root, code=1, env=env)
    assert "Redis cannot be reached" in done.stderr
    assert "redis://127.0.0.1:1/0" in done.stderr
    assert SECRET not in done.stderr + done.stdout


@pytest.mark.parametrize("command", [("enqueue", "--prompt-type", "cloze"), ("work", "--burst")])
def test_a_read_only_workspace_is_told(planned: Workspace, command: tuple[str, ...]) -> None:
    run("factory", "stop", cwd=planned.root)
    shutil.rmtree(planned.root / "cache", ignore_errors=True)
    inner = f"mount --bind {planned.root} {planned.root} && mount -o remount,ro,bind {planned.root} && cd {planned.root} && exec "
    factory = f"{sys.executable} -c 'from generator.cli import main; main()' {' '.join(command)}"
    unshare = ["unshare", "--mount", "--map-root-user", "sh", "-c"]
    if shutil.which("unshare") is None or subprocess.run([*unshare, inner + "true"], capture_output=True).returncode:
        pytest.skip("no mount namespaces here")
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([*unshare, inner + factory], capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 1, done.stderr
    assert "mounted read-only: nothing was written" in done.stderr
    assert "Traceback" not in done.stderr
