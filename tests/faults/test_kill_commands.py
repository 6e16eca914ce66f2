"""SIGKILL for the short commands, between each two of their writes: the same command again, or the next start, mends it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import pytest

from foundation.store import TEMPORARY
from foundation.workspace import Workspace
from queue_workers.plan import load_plan
from tests.faults.test_kills import RUN, WORK
from tests.support.faults import TYPES, assert_all_is_there, dies_at, factory, finish, queue_of

ENQUEUE = ("enqueue", *(word for name in TYPES for word in ("--prompt-type", name)))
KILLED = (-9, 0)  # 0: it was done before it came to that line


def kill_at(workspace: Workspace, prelude: str, *command: str) -> int:
    with factory(workspace, *command, prelude=prelude) as process:
        code = process.wait(100)
    assert code in KILLED
    return int(code)


def collect(workspace: Workspace) -> None:
    """`factory gc` an hour later: what a killed `enqueue` left half-written may until then be another one's work."""
    for path in (*workspace.root.glob(f"plan/{TEMPORARY}*"), *workspace.root.glob(f"prompt_types/{TEMPORARY}*")):
        os.utime(path, (time.time() - 4000,) * 2)
    finish(workspace, "gc")


@pytest.mark.parametrize(
    ("place", "after"),
    [
        ("queue_workers.plan:add", False),
        ("foundation.store:os.link", True),  # the split policy's
        ("queue_workers.plan:add", True),
        ("queue_workers.rq_queue:RqQueue.submit", False),
    ],
)
def test_enqueue_killed(make: Callable[..., Workspace], place: str, after: bool) -> None:
    workspace = make(blocks=3, planned=False)
    assert kill_at(workspace, dies_at(place, after=after), *ENQUEUE) == -9
    finish(workspace, *ENQUEUE)
    assert load_plan(workspace.store).size == 12
    finish(workspace, *WORK)
    collect(workspace)
    assert_all_is_there(workspace)


@pytest.mark.slow
def test_enqueue_killed_at_each_write(make: Callable[..., Workspace]) -> None:
    workspace = make(blocks=2, planned=False)
    codes = []
    for number in range(1, 5):
        command = (*ENQUEUE, "--round", str(number))
        codes.append(kill_at(workspace, dies_at("foundation.store:os.link", after=True, nth=number), *command))
    for number in range(5, 9):
        command = (*ENQUEUE, "--round", str(number))
        codes.append(kill_at(workspace, dies_at("redis.client:Pipeline.execute", after=True, nth=number - 4), *command))
    assert codes.count(-9) >= 4
    for number in range(1, 9):
        finish(workspace, *ENQUEUE, "--round", str(number))
    assert load_plan(workspace.store).size == 8 * 8
    finish(workspace, *WORK)
    collect(workspace)
    assert_all_is_there(workspace)


def test_reconcile_killed_at_each_write(workspace: Workspace) -> None:
    codes = []
    for number in (1, 2, 4):
        codes.append(kill_at(workspace, dies_at("redis.client:Pipeline.execute", nth=number), "reconcile"))
        with queue_of(workspace) as queue:
            queue.redis.flushall()
    assert -9 in codes
    finish(workspace, "reconcile")
    with queue_of(workspace) as queue:
        assert queue.depth().queued == 60
    finish(workspace, *WORK)
    assert_all_is_there(workspace)


@pytest.mark.parametrize(
    "command",
    [
        ("pause",),
        ("pause", "--prompt-type", "wh/who"),
        ("promote", "--prompt-type", "wh/who"),
        ("demote", "--prompt-type", "wh/who"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("after", [pytest.param(False, marks=pytest.mark.slow), True], ids=["before", "after"])
def test_a_control_killed_between_store_and_queue(
    make: Callable[..., Workspace], command: tuple[str, ...], after: bool
) -> None:
    workspace = make(blocks=3)
    finish(workspace, "reconcile")
    place = "queue_workers.controls:change_controls"
    assert kill_at(workspace, dies_at(place, after=after), *command) == -9
    # what the store says is what holds from the next reconcile on; taken back, all goes on
    finish(workspace, "reconcile")
    with queue_of(workspace) as queue:
        depth = queue.depth()
    if after:
        waiting = {"pause": depth.paused or depth.queued == 9, "promote": depth.high == 3, "demote": depth.low == 3}
        assert waiting[command[0]], depth
    else:
        assert (depth.normal, depth.paused) == (12, False)
    if command[0] == "pause":
        finish(workspace, "resume", *command[1:])
    finish(workspace, *WORK)
    assert_all_is_there(workspace)


@pytest.mark.parametrize(
    "command",
    [
        ("promote", "--prompt-type", "wh/who"),
        pytest.param(("pause",), marks=pytest.mark.slow),
        pytest.param(("resume",), marks=pytest.mark.slow),
    ],
    ids=" ".join,
)
def test_a_control_killed_at_each_write_to_the_queue(make: Callable[..., Workspace], command: tuple[str, ...]) -> None:
    workspace = make(blocks=3)
    finish(workspace, "reconcile")
    for number in range(1, 4):
        kill_at(workspace, dies_at("redis.client:Pipeline.execute", nth=number), *command)
    finish(workspace, "resume")
    finish(workspace, *RUN)
    assert_all_is_there(workspace)
