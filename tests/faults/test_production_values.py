"""At the values a user gets (heartbeat 20 s, lease 180 s): how soon the unit of a SIGKILLed worker runs again."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from foundation.workspace import Workspace
from tests.support.asked import TYPE, asked_teacher
from tests.support.faults import assert_all_is_there, ended, factory, gone, kill_tree, wait_for

PROMISED = 70.0  # seconds
ELSEWHERE = "import queue_workers.identity as i; i._host = lambda: 'another-host/1'"


@pytest.mark.parametrize(
    "prelude", ["", pytest.param(ELSEWHERE, marks=pytest.mark.slow)], ids=["this host", "another host"]
)
def test_the_unit_of_a_killed_tree_runs_again_within_70_seconds(
    make: Callable[..., Workspace], prelude: str, request: pytest.FixtureRequest
) -> None:
    with asked_teacher("hold") as asked:
        workspace = make(blocks=4, types=[TYPE], settings=asked.settings(queue=""))
        assert (workspace.settings.queue.heartbeat, workspace.settings.queue.lease) == (20, 180)
        with factory(workspace, "work", prelude=prelude) as first:
            asked.wait_until_held(2)
            # long enough for its heartbeats to be in step, not as fresh as at the start
            time.sleep(8)
            tree = kill_tree(first)
            killed = time.monotonic()
            wait_for(lambda: gone(tree))
        in_hand, since = set(asked.asked), len(asked.asked)
        asked.mode = "answer"
        with factory(workspace, "work", "--burst") as second:
            asked.wait_until_asked(in_hand, since)
            seconds = time.monotonic() - killed
            ended(second, workspace)
        where = "another host" if prelude else "this host"
        print(f"the unit of a worker killed on {where} ran again after {seconds:.1f} s")
        request.node.user_properties.append(("recovery", (f"SIGKILL at production values, {where}", seconds)))
        assert seconds < PROMISED
        assert_all_is_there(workspace)
