"""`factory run` end to end, with the embedded teacher: one command that ends when told, and mends what can be mended."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from foundation.workspace import Workspace
from queue_workers import snapshot
from queue_workers.ledger import reconcile
from queue_workers.plan import load_plan
from queue_workers.presence import workers
from tests.support.asked import TYPE, Asked
from tests.support.commands import run_json
from tests.support.faults import (
    RULES,
    SHORT,
    assert_all_is_there,
    committed,
    end_with_sigterm,
    ended,
    event_names,
    factory,
    finish,
    free_port,
    gone,
    kill_redis,
    output,
    printed,
    processes_of,
    queue_of,
    wait_for,
)

DRAIN = ("run", "--drain")


def test_drain_plans_and_does_one_round_of_all_and_ends(make: Callable[..., Workspace]) -> None:
    workspace = make(blocks=10, planned=False)
    finish(workspace, *DRAIN, "--json")
    assert load_plan(workspace.store).size == 40
    document = printed(workspace)
    assert (document["units"], document["items"], document["left"], document["ended"]) == (40, 160, 0, "done")
    assert_all_is_there(workspace)
    names = event_names(workspace)
    assert names[0] == "run_started" and names[-1] == "run_ended"
    assert names.count("unit_done") == 40
    assert {"teacher_started", "round_opened", "refilled"} <= set(names)
    assert list(workspace.run.glob("state-*")) == []
    # and once more: there is nothing to do, and no teacher is started for it
    finish(workspace, *DRAIN)
    assert event_names(workspace).count("teacher_started") == 1


def test_a_second_run_is_refused_and_the_first_one_named(make: Callable[..., Workspace], asked: Asked) -> None:
    workspace = make(blocks=4, types=[TYPE], settings=asked.settings())
    with factory(workspace, "run") as first:
        asked.wait_until_held(2)
        finish(workspace, "run", code=1)
        text = output(workspace).read_text()
        assert f"another `factory run` is at work in this workspace: pid {first.pid}, since 20" in text
        assert first.poll() is None
        asked.mode = "answer"
        end_with_sigterm(first, workspace)


@pytest.mark.parametrize("signals", [1, 2])
def test_sigterm_gives_back_what_does_not_end_in_time(
    make: Callable[..., Workspace], asked: Asked, signals: int
) -> None:
    # given units in hand whose teacher never answers
    drain = 4 if signals == 1 else 90
    workspace = make(blocks=4, types=[TYPE], settings=f"{asked.settings()}drain = {drain}\n")
    with factory(workspace, *DRAIN) as process:
        asked.wait_until_held(2)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        if signals == 2:
            wait_for(lambda: "draining" in event_names(workspace), what="the drain")
            process.send_signal(signal.SIGTERM)
        ended(process, workspace)
        print(f"{signals} SIGTERM: ended after {time.monotonic() - began:.1f} s (work.drain {drain} s)")
    # then none of them counts as failed or lost, nothing is half-written, and the next one does them all
    assert event_names(workspace).count("unit_released") == 2
    assert "unit_failed" not in event_names(workspace)
    with queue_of(workspace) as queue:
        depth = queue.depth()
        assert (depth.queued, depth.in_flight, queue.failures()) == (4, 0, [])
        assert queue.redis.hlen(f"qpt:{queue.name}:lost") == 0
    asked.mode = "answer"
    finish(workspace, *DRAIN)
    assert_all_is_there(workspace)


def test_sigterm_to_every_process_at_once_ends_well(make: Callable[..., Workspace], asked: Asked) -> None:
    """What systemd does with KillMode=control-group: Redis, workers and work-horses hear it too."""
    workspace = make(blocks=6, types=[TYPE], settings=asked.settings())
    with factory(workspace, "run") as process:
        asked.wait_until_held(2)
        wait_for(lambda: len(processes_of(workspace)) >= 6, what="two work-horses")
        everyone = processes_of(workspace)
        began = time.monotonic()
        for one in everyone:
            one.send_signal(signal.SIGTERM)
        ended(process, workspace)
        wait_for(lambda: gone(everyone), what="their end")
        print(f"SIGTERM to all {len(everyone)} processes: ended after {time.monotonic() - began:.1f} s")
    assert "unit_failed" not in event_names(workspace)
    asked.mode = "answer"
    finish(workspace, *DRAIN)
    assert_all_is_there(workspace)


def test_stop_drains_run_and_work_alike(make: Callable[..., Workspace], asked: Asked) -> None:
    asked.mode = "answer"
    workspace = make(blocks=3, types=[TYPE], settings=asked.settings())
    with factory(workspace, "run") as one, factory(workspace, "work") as other:
        wait_for(lambda: len(workers(workspace)) == 2, what="both at work")
        wait_for(lambda: len(committed(workspace)) > 5, what="more than was planned")
        assert one.poll() is other.poll() is None
        document = run_json("factory", "stop", cwd=workspace.root)
        assert sorted(document["ended"]) == sorted([one.pid, other.pid])
        ended(one, workspace)
        ended(other, workspace)
    assert workers(workspace) == {}


def test_redis_killed_under_run_is_brought_back(make: Callable[..., Workspace], asked: Asked) -> None:
    workspace = make(blocks=8, types=[TYPE], settings=asked.settings())
    with factory(workspace, *DRAIN) as process:
        asked.wait_until_held(2)
        kill_redis(workspace)
        began = time.monotonic()
        wait_for(lambda: "redis_restored" in event_names(workspace), what="Redis")
        print(f"Redis killed with -9: back after {time.monotonic() - began:.1f} s")
        asked.mode = "answer"
        ended(process, workspace)
    assert "teacher_restarted" not in event_names(workspace)
    assert_all_is_there(workspace)


def test_a_flushed_redis_under_run_is_filled_again(make: Callable[..., Workspace], asked: Asked) -> None:
    workspace = make(blocks=30, types=[TYPE], settings=asked.settings())
    with factory(workspace, *DRAIN) as process:
        asked.wait_until_held(2)
        with queue_of(workspace) as queue:
            queue.redis.flushall()
        asked.mode = "answer"
        ended(process, workspace)
    assert_all_is_there(workspace)


def test_a_new_round_is_opened_when_one_is_planned(make: Callable[..., Workspace]) -> None:
    workspace = make(blocks=3, types=["wh/who"], planned=False, settings=f"{RULES}{SHORT}[work]\nworkers = 1\n")
    file = workspace.root / "factory.toml"
    file.write_text(file.read_text() + "low_water = 1\nrounds = 3\n")
    with factory(workspace, "run") as process:
        wait_for(lambda: len(committed(workspace)) == 9, what="three rounds")
        wait_for(lambda: any(one.state == "idle" for one in snapshot.read(workspace)), what="the end of all rounds")
        time.sleep(2)
        assert process.poll() is None  # it waits for more text, or for an order
        end_with_sigterm(process, workspace)
    plan = load_plan(workspace.store)
    assert sorted({unit.round for unit in plan.units()}) == [0, 1, 2]
    assert event_names(workspace).count("round_opened") == 3
    assert_all_is_there(workspace)


def test_a_paused_queue_keeps_its_run_and_goes_on(make: Callable[..., Workspace], asked: Asked) -> None:
    workspace = make(blocks=6, types=[TYPE], settings=asked.settings())
    with factory(workspace, *DRAIN) as process:
        asked.wait_until_held(2)
        finish(workspace, "pause")
        asked.mode = "answer"
        wait_for(lambda: len(committed(workspace)) == 2, what="the units in hand")
        wait_for(lambda: [one.state for one in snapshot.read(workspace)] == ["paused"], what="the pause")
        time.sleep(1)
        assert len(committed(workspace)) == 2 and process.poll() is None
        finish(workspace, "resume")
        ended(process, workspace)
    assert_all_is_there(workspace)


def test_a_paused_prompt_type_is_named_at_the_end(make: Callable[..., Workspace]) -> None:
    workspace = make(blocks=4)
    finish(workspace, "pause", "--prompt-type", "wh/who")
    finish(workspace, *DRAIN)
    assert len(committed(workspace)) == 12
    assert "4 units are paused: `factory resume`" in output(workspace).read_text()
    finish(workspace, "resume", "--prompt-type", "wh/who")
    finish(workspace, *DRAIN)
    assert_all_is_there(workspace)


def test_too_little_disk_is_waited_for_by_run_and_told_by_work(make: Callable[..., Workspace]) -> None:
    workspace = make(blocks=4)
    file, text = workspace.root / "factory.toml", (workspace.root / "factory.toml").read_text()
    file.write_text(text.replace("workers = 2", "workers = 2\nmin_free = 100000000"))
    finish(workspace, "work", "--burst", code=1)
    assert "work.min_free asks for" in output(workspace).read_text()
    with factory(workspace, *DRAIN) as process:
        wait_for(lambda: any("min_free" in one.reason for one in snapshot.read(workspace)), what="the wait")
        assert process.poll() is None and committed(workspace) == []
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        ended(process, workspace)
        print(f"SIGTERM while it waits: ended after {time.monotonic() - began:.1f} s")
    file.write_text(text)
    finish(workspace, *DRAIN)
    assert_all_is_there(workspace)


HOLD = """
import contextlib
from foundation.devices import hold_device
from generator.teachers.make import ReadyTeacher
from generator.teachers.rules import RulesTeacher
import queue_workers.supervisor as supervisor

@contextlib.contextmanager
def with_a_device(workspace, *, purpose):  # the embedded teacher needs none: this one holds one all the same
    with hold_device(purpose) as device:
        yield ReadyTeacher(RulesTeacher(), device)

supervisor.teacher_from_settings = with_a_device
"""


def test_the_device_is_handed_over_and_taken_back(
    make: Callable[..., Workspace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QPT_DEVICES", str(tmp_path / "devices"))
    workspace = make(blocks=200)
    other = make(blocks=1)
    flag = tmp_path / "held"
    trainer = (
        "import time, pathlib, sys\nfrom foundation.devices import hold_device\n"
        f"with hold_device('trainer run', ask=True):\n    pathlib.Path({str(flag)!r}).touch(); time.sleep(3)\nsys.exit(0)\n"
    )
    with factory(workspace, *DRAIN, prelude=HOLD) as process:
        wait_for(lambda: committed(workspace), what="the first commit")
        began = time.monotonic()
        with factory(other, prelude=trainer) as asker:
            wait_for(flag.exists, what="the hand-over")
            print(f"handed over after {time.monotonic() - began:.1f} s")
            before = len(committed(workspace))
            wait_for(lambda: any("trainer run" in one.reason for one in snapshot.read(workspace)), what="the reason")
            assert asker.wait(60) == 0
        assert len(committed(workspace)) == before
        began = time.monotonic()
        wait_for(lambda: len(committed(workspace)) > before, what="the work after")
        print(f"at work again {time.monotonic() - began:.1f} s after the trainer's end")
        ended(process, workspace)
    assert {"handed_over", "device_free"} <= set(event_names(workspace))
    assert_all_is_there(workspace)


def test_thirty_stretches_leave_no_file_and_no_memory_behind(make: Callable[..., Workspace], asked: Asked) -> None:
    """The teacher dies again and again: what is started for each stretch goes with it."""
    asked.mode = "answer"
    workspace = make(blocks=400, types=[TYPE], settings=asked.settings(workers=1))
    quick = "import queue_workers.supervisor as s\ns.FIRST_PAUSE = s.LONGEST_PAUSE = 0.01\n"
    with factory(workspace, "run", prelude=quick + DIES.format(every=1)) as process:
        counts: list[tuple[int, int]] = []
        for stretches in (5, 35):
            wait_for(lambda n=stretches: event_names(workspace).count("teacher_lost") >= n, what="the stretches")  # type: ignore[misc]
            main = psutil.Process(process.pid)
            counts.append((main.num_fds(), main.memory_info().rss))
        zombies = [one for one in main.children() if one.status() == psutil.STATUS_ZOMBIE]
        end_with_sigterm(process, workspace)
    (fds, rss), (fds_after, rss_after) = counts
    print(
        f"open files {fds} -> {fds_after}, memory {rss / 1e6:.1f} -> {rss_after / 1e6:.1f} MB, zombies {len(zombies)}"
    )
    assert fds_after <= fds + 4  # a file of the log or of a shard may be open at that very moment
    assert rss_after < rss + 8e6


DIES = """
import contextlib
from foundation.engine_health import Look
from generator.teachers.make import ReadyTeacher, teacher_from_settings
import queue_workers.supervisor as supervisor, queue_workers.shift as shift

shift.SLOW_LOOK = 0.05

@contextlib.contextmanager
def mortal(workspace, *, purpose):  # a real teacher that is said to be dead at its second look
    looks = []
    def look():
        looks.append(1)
        return Look("dead", "for the test") if len(looks) > {every} else Look("well")
    with teacher_from_settings(workspace, purpose=purpose) as ready:
        yield ReadyTeacher(ready.teacher, ready.device, look)

supervisor.teacher_from_settings = mortal
"""


def test_a_clock_that_jumps_is_told(make: Callable[..., Workspace], asked: Asked) -> None:
    workspace = make(blocks=4, types=[TYPE], settings=asked.settings())
    jump = (
        "import time, os\nreal = time.time\n"
        f"time.time = lambda: real() + (3600 if os.path.exists({str(workspace.root / 'jump')!r}) else 0)\n"
    )
    with factory(workspace, *DRAIN, prelude=jump) as process:
        asked.wait_until_held(2)
        (workspace.root / "jump").touch()
        wait_for(lambda: "clock_jumped" in event_names(workspace), what="the event")
        asked.mode = "answer"
        ended(process, workspace)
    assert "the clock went 3,600 s on" in output(workspace).read_text()
    assert_all_is_there(workspace)


def test_reconcile_beside_a_run_finds_nothing_missing(make: Callable[..., Workspace]) -> None:
    workspace = make(blocks=40)
    with factory(workspace, *DRAIN) as process, queue_of(workspace) as queue:
        wait_for(lambda: committed(workspace))
        found = []
        while process.poll() is None:
            with workspace.lock("plan"):
                found.append(reconcile(load_plan(workspace.store), workspace.store, queue))
            time.sleep(0.1)
        assert len(found) > 3
        assert sum(found) == 0
        ended(process, workspace)
    assert_all_is_there(workspace)


def test_metrics_are_served_while_it_runs(make: Callable[..., Workspace], asked: Asked) -> None:
    import urllib.request

    port = free_port()
    workspace = make(blocks=4, types=[TYPE], settings=asked.settings())
    with factory(workspace, *DRAIN, "--metrics-port", str(port)) as process:
        asked.wait_until_held(2)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
            assert b"units_in_flight" in answer.read()
        finish(workspace, "run", "--metrics-port", str(port), code=1)  # the second run is told of the first
        asked.mode = "answer"
        ended(process, workspace)
    assert_all_is_there(workspace)
