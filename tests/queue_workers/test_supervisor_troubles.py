"""`factory run` where its helpers die, refuse or will not end: it goes on, and no unit pays."""

from __future__ import annotations

import signal
from collections.abc import Callable

import psutil

from foundation.workspace import Workspace
from queue_workers.plan import load_plan
from tests.support.asked import TYPE, Asked
from tests.support.faults import (
    assert_all_is_there,
    committed,
    end_with_sigterm,
    ended,
    event_names,
    factory,
    free_port,
    output,
    printed,
    queue_of,
    wait_for,
)

DRAIN = ("run", "--drain")


def test_metrics_are_served_again_when_their_process_was_killed(make: Callable[..., Workspace], asked: Asked) -> None:
    import urllib.request

    port = free_port()
    workspace = make(blocks=4, types=[TYPE], settings=asked.settings())
    with factory(workspace, *DRAIN, "--metrics-port", str(port)) as process:
        asked.wait_until_held(2)
        served = [one.pid for one in psutil.net_connections("tcp") if one.laddr and one.laddr.port == port]
        assert served[0] != process.pid
        psutil.Process(served[0]).kill()

        def answers() -> bool:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                    return b"units_in_flight" in answer.read()
            except OSError:
                return False

        wait_for(lambda: "metrics_lost" in event_names(workspace) and answers(), what="the metrics")
        asked.mode = "answer"
        ended(process, workspace)
    assert_all_is_there(workspace)


WILL_NOT_END = """
import contextlib
from foundation.errors import Failure
from generator.teachers.make import teacher_from_settings
import queue_workers.supervisor as supervisor

@contextlib.contextmanager
def stubborn(workspace, *, purpose):
    with teacher_from_settings(workspace, purpose=purpose) as ready:
        yield ready
    raise Failure("GPU memory was not given back")

supervisor.teacher_from_settings = stubborn
"""


def test_a_teacher_that_cannot_be_ended_costs_no_summary(make: Callable[..., Workspace]) -> None:
    workspace = make(blocks=4)
    with factory(workspace, *DRAIN, "--json", prelude=WILL_NOT_END) as process:
        ended(process, workspace)
    assert printed(workspace)["left"] == 0
    assert "teacher_not_ended" in event_names(workspace)
    assert "GPU memory was not given back" in output(workspace).read_text()


def test_a_server_that_refuses_all_uses_up_no_unit(make: Callable[..., Workspace], asked: Asked) -> None:
    asked.mode = "refuse"
    workspace = make(blocks=2, types=[TYPE], settings=asked.settings())
    quick = (
        "import queue_workers.supervisor as s, queue_workers.shift as t\n"
        "s.FIRST_PAUSE = s.LONGEST_PAUSE = t.BREATHER = 0.01\ns.FORGIVEN = 1\n"
    )
    with factory(workspace, "run", prelude=quick) as process:
        wait_for(lambda: event_names(workspace).count("teacher_lost") >= 3, 120, "some tries")
        with queue_of(workspace) as queue:
            assert queue.failures() == []
            assert queue.redis.hlen(f"qpt:{queue.name}:failures") == 0
        end_with_sigterm(process, workspace)
    with factory(workspace, *DRAIN, prelude=quick) as process:  # this one is to end
        wait_for(lambda: process.poll() is not None, 200, "the end")
    with queue_of(workspace) as queue:
        assert len(queue.failures()) == load_plan(workspace.store).size


def test_a_terminal_that_goes_away_drains(make: Callable[..., Workspace], asked: Asked) -> None:
    asked.mode = "answer"
    workspace = make(blocks=4, types=[TYPE], settings=asked.settings())
    with factory(workspace, "run") as process:
        wait_for(lambda: committed(workspace), what="the first commit")
        process.send_signal(signal.SIGHUP)
        ended(process, workspace)
    assert "draining" in event_names(workspace)
