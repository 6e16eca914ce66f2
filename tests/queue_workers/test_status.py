"""`factory status`: what it says of a factory that works, rests, waits or is paused, and that looking changes nothing."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from foundation.log import EventLog
from foundation.workspace import Workspace
from queue_workers import snapshot
from queue_workers.controls import change_controls
from queue_workers.glance import Glance
from queue_workers.identity import began
from queue_workers.ledger import Totals
from queue_workers.redis_server import redis_connection
from queue_workers.view import Counts, Kind, View, duration, look
from tests.queue_workers.conftest import add_block
from tests.queue_workers.observed import GPU, TEACHER, plan_units, say_running
from tests.queue_workers.test_metrics import get, read, value
from tests.support.commands import REPOSITORY, run, run_json

KEYS = {
    *("planned", "committed", "queued", "in_flight", "failed"),
    *("items", "items_accepted", "items_rejected", "records", "prompt_types"),
}


def status(workspace: Workspace) -> dict[str, Any]:
    document: dict[str, Any] = run_json("factory", "status", cwd=workspace.root)
    return document


def text(workspace: Workspace) -> str:
    return run("factory", "status", cwd=workspace.root).stdout


def files(workspace: Workspace) -> set[str]:
    return {str(path.relative_to(workspace.root)) for path in workspace.root.rglob("*")}


def test_an_empty_workspace(workspace: Workspace) -> None:
    document = status(workspace)
    assert document.keys() >= KEYS
    assert not any(document[key] for key in KEYS)
    assert (document["state"], document["wrong"], document["eta_seconds"]) == ("stopped", [], 0)
    assert "0 committed of 0 planned" in text(workspace)


def test_looking_starts_nothing_and_tells_what_the_queue_held(workspace: Workspace) -> None:
    # given a queue that was put to rest by the last command that used it
    plan_units(workspace)
    run("factory", "reconcile", cwd=workspace.root)
    status(workspace)  # makes the index of counts
    before = files(workspace)
    # when one looks
    document = status(workspace)
    shown = text(workspace)
    # then it is known what it held, and nothing was started or written
    assert document["queued_by_priority"] == {"high": 0, "normal": 4, "low": 0}
    assert (document["queued"], document["in_flight"], document["failed"]) == (4, 0, 0)
    assert (document["queue"]["running"], document["queue"]["known"]) == (False, True)
    assert "4 normal" in shown and "at rest" in shown
    assert files(workspace) == before
    assert not workspace.socket("redis.sock").exists()
    # and it is what it holds when it wakes
    with redis_connection(workspace):
        assert not (workspace.run / "queue.json").exists()
        awake = status(workspace)
        assert awake["queue"]["running"]
        assert awake["queued_by_priority"] == document["queued_by_priority"]


def test_a_queue_that_was_killed_is_unknown(workspace: Workspace) -> None:
    plan_units(workspace)
    with redis_connection(workspace) as redis:
        run("factory", "reconcile", cwd=workspace.root)
        pid = int(redis.info("server")["process_id"])
        os.kill(pid, signal.SIGKILL)
        until = time.monotonic() + 30
        while began(pid):
            assert time.monotonic() < until
            time.sleep(0.01)
        document = status(workspace)
        assert (document["queued"], document["in_flight"], document["failed"]) == (None, None, None)
        assert document["left"] == document["planned"] == 4  # the plan and the shards are known all the same
        assert not document["queue"]["known"]
        assert "unknown" in text(workspace)


def test_what_runs_is_told(workspace: Workspace) -> None:
    plan_units(workspace)
    with redis_connection(workspace):
        run("factory", "reconcile", cwd=workspace.root)
        say_running(
            workspace,
            **{"records_per_second": 7.5, "tokens_per_second": 900.0, "items_per_second": 0.5, "records": 80},
            **{"teacher": TEACHER, "gpus": (GPU,), "kwh": 1.5, "money": 3.25, "hours": 10.0, "round": 2},
        )
        document, shown = status(workspace), text(workspace)
    assert (document["state"], document["wrong"]) == ("working", [])
    assert document["eta_seconds"] == pytest.approx(512)
    assert (document["records_per_second"], document["tokens_per_second"]) == (7.5, 900)
    assert document["teacher"]["hit_ratio"] == 0.64
    assert document["teacher"]["limit"] == 48
    assert document["gpus"][0]["used"] == GPU.used
    assert (document["kwh"], document["money"], document["hours"]) == (1.5, 3.25, 10)
    assert document["processes"][0]["pid"] == os.getpid()
    assert document["processes"][0]["round"] == 2
    for part in (
        f"working: factory run, pid {os.getpid()}, 3 workers, for 1 h 00 min",
        "7.5 records/s, 900 tokens/s",
        "8 min",
        "vllm Qwen3, well; 96 requests running, 4 waiting; 48 a worker at most; 64% of prompt tokens from the prefix cache",
        "; restarted 2 times",
        "97% busy, 12.0 of 16.0 GiB, 282 W",
        "10 h 00 min at work, 1.50 kWh, 3.25 of money",
    ):
        assert part in shown
    assert not shown.startswith("!")


def test_without_a_rate_the_end_is_unknown(workspace: Workspace) -> None:
    plan_units(workspace)
    say_running(workspace, state="starting")
    assert status(workspace)["eta_seconds"] is None
    assert re.search(r"done in +unknown", text(workspace))


def test_what_is_wrong_stands_first(workspace: Workspace) -> None:
    plan_units(workspace)
    now = time.time()
    say_running(workspace, state="waiting", reason="disk is full", teacher=TEACHER.model_copy(update={"state": "hung"}))
    wrong = status(workspace)["wrong"]
    assert wrong[0] == "waiting: disk is full"
    assert wrong[1] == "the teacher vllm Qwen3 is hung"
    assert text(workspace).startswith("! waiting: disk is full\n")
    say_running(workspace, written=now - 400)
    assert any("has said nothing for 6 min" in line for line in status(workspace)["wrong"])


def test_a_run_that_ended_is_told_since_when(workspace: Workspace) -> None:
    plan_units(workspace)
    EventLog(workspace.logs, "run").event("teacher-died", level="error", tell="the teacher died: out of memory")
    EventLog(workspace.logs, "run").event("ended")
    document = status(workspace)
    assert re.fullmatch(
        r"nothing runs here since \d{4}-\d\d-\d\d \d\d:\d\d, and 4 units are left: `factory run`", document["wrong"][0]
    )
    assert [event["message"] for event in document["events"]] == ["the teacher died: out of memory"]
    assert "the teacher died: out of memory" in text(workspace)
    # and a snapshot of a process that is gone, or of another that has its pid, is no news
    gone = subprocess.Popen(["true"])
    gone.wait()
    made = say_running(workspace)
    snapshot.write(workspace, made.model_copy(update={"pid": gone.pid}))
    snapshot.write(workspace, made.model_copy(update={"began": "1"}))
    assert status(workspace)["state"] == "stopped"


def test_a_pause_is_told_with_its_age(workspace: Workspace) -> None:
    plan_units(workspace)
    change_controls(workspace.store, paused_types=("wh/who",))
    document = status(workspace)
    assert (document["paused"], document["paused_prompt_types"], document["paused_units"]) == (False, ["wh/who"], 2)
    assert document["prompt_types"]["wh/who"]["paused"] is True
    controls = workspace.root / "plan/controls.json"
    old = time.time() - 3 * 86400 - 60
    os.utime(controls, (old, old))
    assert "paused for 3 days 0 h: wh/who (2 units)" in status(workspace)["wrong"]
    change_controls(workspace.store, paused=True)
    os.utime(controls, (old, old))
    say_running(workspace, state="paused", items_per_second=1.0)
    document = status(workspace)
    assert document["eta_seconds"] is None
    assert document["paused_units"] == 4
    assert "paused for 3 days 0 h: `factory resume`" in document["wrong"]


def test_what_was_set_aside_is_told_by_prompt_type(workspace: Workspace) -> None:
    plan_units(workspace)
    (block,) = workspace.root.glob("corpus/blocks/*")
    block.rename(workspace.root / "away")
    run("factory", "work", "--burst", cwd=workspace.root, code=1)
    document = status(workspace)
    assert (document["failed"], document["left"], document["queued"]) == (4, 0, 0)
    assert {name: kind["failed"] for name, kind in document["prompt_types"].items()} == {"wh/when": 2, "wh/who": 2}
    assert "4 units were set aside after repeated failures: `factory failures`" in document["wrong"]
    (workspace.root / "away").rename(block)


def test_a_disk_without_room_is_wrong(workspace: Workspace) -> None:
    environment = {"FACTORY_WORK__MIN_FREE": str(10**9)}
    wrong = run_json("factory", "status", cwd=workspace.root, env=environment)["wrong"]
    assert re.fullmatch(r"the disk has [\d,]+ MB free, and 1,000,000,000 are asked for", wrong[0])


def test_a_redis_elsewhere_that_is_away_is_told_after_the_rest(workspace: Workspace) -> None:
    plan_units(workspace)
    environment = {"FACTORY_QUEUE__URL": "redis://:hunter2@127.0.0.1:1/0"}
    done = run("factory", "status", "--json", cwd=workspace.root, code=1, env=environment)
    document = json.loads(done.stdout)
    assert (document["planned"], document["queued"]) == (4, None)
    assert "Redis cannot be reached" in done.stderr
    assert any("Redis cannot be reached" in line for line in document["wrong"])
    assert "hunter2" not in done.stdout + done.stderr


def test_the_end_is_reckoned_from_what_is_left_and_not_paused() -> None:
    def view(*kinds: Kind, rate: float, **fields: Any) -> View:
        made = snapshot.Snapshot(
            **snapshot.mine(), command="run", since=0, written=0, state="working", items_per_second=rate
        )
        named = {f"t/{number}": kind for number, kind in enumerate(kinds)}
        return View(time=0, kinds=named, totals=Totals(), queue=Glance(time=0), snapshots=[made], **fields)

    half = Kind(planned=10, planned_items=1000, done=Totals(units=4, items=390), failed=1)
    assert (half.left, half.items_left) == (5, 500)
    assert view(half, rate=2).eta == 250
    assert view(half, Kind(planned=99, planned_items=99, paused=True), rate=2).eta == 250
    assert view(half, rate=0).eta is None
    assert view(half, rate=2, paused=True).eta is None
    done = Kind(planned=1, planned_items=64, done=Totals(units=1, items=60))
    assert view(done, rate=0).eta == 0  # retired text leaves nothing behind
    assert Kind(planned=1, done=Totals(units=2)).left == 0


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (59.9, "59 s"),
        (61, "1 min"),
        (3 * 3600 + 300, "3 h 05 min"),
        (86400, "1 day 0 h"),
        (3e5, "3 days 11 h"),
    ],
)
def test_durations_read_well(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_counts_are_read_anew_only_when_that_is_cheap(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []
    monkeypatch.setattr(Counts, "_read", lambda self: (reads.append(1), time.sleep(0.2)))
    counts = Counts(workspace)
    for _ in range(10):
        counts.get()
    assert len(reads) == 1
    assert look(workspace, counts).totals == Totals()


def test_beside_a_running_command_the_shards_are_not_listed(workspace: Workspace) -> None:
    plan_units(workspace)
    run("factory", "work", "--burst", cwd=workspace.root)
    assert status(workspace)["committed"] == 4
    # given a shard that went away unseen, while a command that follows the shards is at work
    next(workspace.root.glob("shards/*/*/*.jsonl")).unlink()
    say_running(workspace, units=4)
    assert status(workspace)["committed"] == 4  # its word is taken
    # but not if it has said nothing for long, if the index was deleted, or if nothing runs
    say_running(workspace, units=4, written=time.time() - 60)
    assert status(workspace)["committed"] == 3
    say_running(workspace, units=3)
    for path in workspace.cache.glob("index.sqlite*"):
        path.unlink()
    assert status(workspace)["committed"] == 3


def test_a_real_run_from_start_to_end(workspace: Workspace) -> None:
    # given a factory run that plans for itself, with metrics
    add_block(workspace, 256)
    port = free_port()
    argv = [sys.executable, "-c", "from generator.cli import main; main()", "run", "--metrics-port", str(port)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "FACTORY_WORK__HOURLY_PRICE": "3600"}
    with open(workspace.root / "said", "wb") as said:
        process = subprocess.Popen(argv, cwd=workspace.root, env=environment, stdout=said, stderr=said)
    try:
        # when it works
        until = time.monotonic() + 120
        while True:
            document = status(workspace)
            if document["records_per_second"] > 0 and document["committed"] > 0:
                break
            assert process.poll() is None, (workspace.root / "said").read_text()
            assert time.monotonic() < until, document
            time.sleep(0.2)
        # then status tells all of it, and so do the metrics
        assert document["state"] == "working"
        assert document["queue"]["running"]
        assert (document["processes"][0]["pid"], document["processes"][0]["command"]) == (process.pid, "run")
        assert document["teacher"]["state"] == "well"
        assert document["eta_seconds"] >= 0
        assert document["money"] > 0
        assert document["planned"] > 0
        samples = read(get(port)[2])
        assert value(samples, "up") == 1
        assert sum(number for (name, _), number in samples.items() if name == "factory_records_total") > 0
        # and a second one on the same port says so, and changes nothing
        taken = run(
            "factory", "run", "--metrics-port", str(port), cwd=Workspace.init(workspace.root / "other").root, code=2
        )
        assert "another process listens on it" in taken.stderr
        assert not list((workspace.root / "other").glob("run/redis*"))
    finally:
        process.send_signal(signal.SIGINT)
        code = process.wait(120)
    assert code == 0, (workspace.root / "said").read_text()
    # and when it has ended, that is told, with what was used
    document = status(workspace)
    assert (document["state"], document["processes"]) == ("stopped", [])
    assert document["queue"]["known"] and not document["queue"]["running"]
    assert document["money"] == pytest.approx(document["hours"] * 3600)
    assert document["committed"] + document["queued"] + document["failed"] == document["planned"]
    with pytest.raises(ConnectionRefusedError):
        get(port)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@contextmanager
def watching(
    workspace: Workspace, *arguments: str, terminal: bool = False
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """`factory status --watch` and a descriptor to read what it writes; ended with the context."""
    reader, writer = pty.openpty() if terminal else os.pipe()
    argv = [sys.executable, "-c", "from generator.cli import main; main()", "status", "--watch", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "TERM": "xterm", "COLUMNS": "120", "LINES": "50"}
    process = subprocess.Popen(argv, cwd=workspace.root, env=environment, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    try:
        yield process, reader
    finally:
        process.kill()
        process.communicate()
        os.close(reader)


def read_until(reader: int, enough: Any) -> str:
    output = b""
    while not enough(output.decode("utf-8", "replace")):
        chunk = os.read(reader, 65536)
        assert chunk, output
        output += chunk
    return output.decode("utf-8", "replace")


def test_watch_redraws_in_place_on_a_terminal_and_ends_well(workspace: Workspace) -> None:
    plan_units(workspace)
    with watching(workspace, terminal=True) as (process, reader):
        first = read_until(reader, lambda output: "wh/who" in output)
        assert "stopped" in first
        say_running(workspace, state="draining")
        second = read_until(reader, lambda output: "draining" in output and "wh/who" in output)
        assert "\x1b[1A" in second  # the cursor went back up: the same picture, drawn anew
        assert len(os.listdir(f"/proc/{process.pid}/task")) == 1
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_watch_as_json_is_a_line_each_time(workspace: Workspace) -> None:
    plan_units(workspace)
    with watching(workspace, "--json") as (process, reader):
        output = read_until(reader, lambda output: output.count("\n") >= 2)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    first, second = (json.loads(line) for line in output.splitlines()[:2])
    assert first.keys() == second.keys() >= KEYS
    assert second["time"] - first["time"] > 1


def test_watch_without_a_terminal_is_a_block_each_time(workspace: Workspace) -> None:
    with watching(workspace) as (process, reader):
        output = read_until(reader, lambda output: output.count("state ") >= 2)
        assert "\x1b" not in output
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
