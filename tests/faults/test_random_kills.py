"""A seeded loop of kills at random moments, of random victims, over 500 units of 4 items, under `factory run`."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable

import psutil
import pytest

from foundation.workspace import Workspace
from tests.faults.test_kills import RUN
from tests.support.faults import (
    assert_all_is_there,
    committed,
    ended,
    factory,
    kill_redis,
    kill_tree,
    output,
    redis_pid,
    wait_for,
)

VICTIMS = ("supervisor", "a child", "a work-horse", "Redis", "the whole tree", "the whole tree and Redis")


def kill_one(workspace: Workspace, process: psutil.Popen, victim: str, draw: random.Random) -> None:
    """SIGKILL for it, if it is there at this moment."""
    with contextlib.suppress(psutil.NoSuchProcess):
        if victim == "supervisor":
            process.kill()
        elif victim.startswith("the whole tree"):
            kill_tree(process)
        elif victim == "a child":
            draw.choice(process.children() or [process]).kill()
        elif victim == "a work-horse":
            horses = [horse for child in process.children() for horse in child.children()]
            draw.choice(horses or process.children() or [process]).kill()
        if victim.endswith("Redis") and redis_pid(workspace):
            kill_redis(workspace)


def act(workspace: Workspace, *, kills: int, seed: int, request: pytest.FixtureRequest) -> None:
    """Kill at evenly spread shares of the work, each a random moment later; start again what has ended."""
    draw = random.Random(seed)
    units, done, slowest = 500, 0, (0.0, "")
    with contextlib.ExitStack() as stack:
        process = stack.enter_context(factory(workspace, *RUN))
        while done < kills:
            mark = (done + 1) * (units - 20) // (kills + 1)
            began = time.monotonic()
            while len(committed(workspace)) < mark:
                if process.poll() is not None:
                    assert process.poll() < 0, output(workspace).read_text()[-4000:]
                    process = stack.enter_context(factory(workspace, *RUN))
                assert time.monotonic() < began + 200, f"after {done} kills nothing more is committed"
                time.sleep(0.02)
            time.sleep(draw.random() * 0.3)
            victim, before, killed = draw.choice(VICTIMS), len(committed(workspace)), time.monotonic()
            kill_one(workspace, process, victim, draw)
            done += 1
            if victim == "supervisor" or victim.startswith("the whole"):
                process.wait(20)
                process = stack.enter_context(factory(workspace, *RUN))
            wait_for(lambda before=before: len(committed(workspace)) > before, 200, f"a commit after {victim}")  # type: ignore[misc]
            slowest = max(slowest, (time.monotonic() - killed, victim))
        ended(process, workspace)
    name = f"{done} random kills (seed {seed}): the slowest, {slowest[1]}"
    request.node.user_properties.append(("recovery", (name, slowest[0])))
    assert len(committed(workspace)) == units
    assert_all_is_there(workspace)


def test_five_random_kills(make: Callable[..., Workspace], request: pytest.FixtureRequest) -> None:
    act(make(blocks=125), kills=5, seed=5, request=request)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [1, 2])
def test_twenty_random_kills(make: Callable[..., Workspace], seed: int, request: pytest.FixtureRequest) -> None:
    act(make(blocks=125), kills=20, seed=seed, request=request)
