"""Killed in the middle of a unit, a re-run pays the teacher for what was in flight alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from foundation.workspace import Workspace
from generator.teachers.kept import REPLIES
from tests.faults.test_kills import LOOPS
from tests.support.asked import TYPE, asked_teacher
from tests.support.faults import assert_all_is_there, ended, factory, finish, gone, kill_tree, wait_for

IN_FLIGHT = 2 * 4  # two workers, four requests each


@LOOPS
def test_no_more_requests_are_repeated_than_were_in_flight(
    make: Callable[..., Workspace], loop: tuple[str, ...]
) -> None:
    with asked_teacher() as server:
        workspace = make(blocks=3, size=60, types=[TYPE], settings=server.settings())

        def stop_answering(_: int) -> None:
            if len(server.asked) >= 90:
                server.mode = "hold"

        server.on_request = stop_answering
        with factory(workspace, *loop) as first:
            server.wait_until_held(2)
            tree = kill_tree(first)
            wait_for(lambda: gone(tree))
        assert any((workspace.cache / REPLIES).iterdir())
        before = len(server.asked)
        server.on_request, server.mode = lambda _: None, "answer"
        finish(workspace, *loop)
        asked = Counter(server.asked)
        assert 0 < sum(asked.values()) - 180 <= IN_FLIGHT, f"{before} were asked before the kill"
        assert set(asked) == set(range(180))
        assert list((workspace.cache / REPLIES).iterdir()) == []
        assert_all_is_there(workspace)


@pytest.mark.slow
def test_a_drain_that_has_no_patience_pays_for_nothing_twice_but_what_was_in_flight(
    make: Callable[..., Workspace],
) -> None:
    with asked_teacher() as server:
        workspace = make(blocks=2, size=60, types=[TYPE], settings=server.settings())
        server.on_request = lambda _: setattr(server, "mode", "hold") if len(server.asked) >= 60 else None
        with factory(workspace, "run", "--drain") as first:
            server.wait_until_held(2)
            for _ in range(2):  # to end at once: the units in hand are given back
                first.terminate()
            ended(first, workspace)
        server.on_request, server.mode = lambda _: None, "answer"
        finish(workspace, "run", "--drain")
        assert 0 < len(server.asked) - 120 <= IN_FLIGHT, server.asked
        assert_all_is_there(workspace)
