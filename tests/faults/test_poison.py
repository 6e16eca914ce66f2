"""A unit that fails each time, and one that kills whoever runs it: set aside with its error, and the rest goes on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import psutil
import pytest

from foundation.corpus import BLOCKS
from foundation.workspace import Workspace
from queue_workers.plan import load_plan
from tests.faults.test_kills import MOSTLY_RUN, WORK
from tests.support.asked import TYPE, Asked, asked_teacher
from tests.support.faults import assert_all_is_there, factory, finish, output, queue_of


@MOSTLY_RUN
def test_a_unit_that_fails_each_time(make: Callable[..., Workspace], loop: tuple[str, ...]) -> None:
    # given a block that is planned and gone
    workspace = make(blocks=6)
    block = workspace.store.get
    units = list(load_plan(workspace.store).units())
    name = f"{BLOCKS}/{units[2].block}.jsonl"
    poison = {unit.id for unit in units if unit.block == units[2].block}
    data = block(name)
    workspace.store.delete(name)
    # when all is worked through
    with factory(workspace, *loop) as process:
        assert process.wait(200) == 1, output(workspace).read_text()
    # then its units are aside after three failures each, with the reason, and the others are done
    with queue_of(workspace) as queue:
        rows = queue.failures()
        assert {row.unit.id for row in rows} == poison
        assert {(row.failures, row.lost) for row in rows} == {(3, 0)}
        assert all("block" in row.error and "missing" in row.error for row in rows)
    workspace.store.put(name, data)
    assert_all_is_there(workspace, aside=poison)
    # and with the block back they are done like any other
    with queue_of(workspace) as queue:
        assert queue.control("retry") == len(poison)
    finish(workspace, *WORK)
    assert_all_is_there(workspace)


@pytest.fixture
def asked() -> Iterator[Asked]:
    with asked_teacher() as server:
        yield server


@MOSTLY_RUN
@pytest.mark.parametrize("victim", ["work-horse", "worker"])
def test_a_unit_that_kills_its_worker_each_time(
    make: Callable[..., Workspace], asked: Asked, loop: tuple[str, ...], victim: str
) -> None:
    # given one worker, and a unit whose third request is its death
    settings = asked.settings(workers=1, queue="lease = 20\nheartbeat = 4\nmax_lost = 6\n")
    workspace = make(blocks=6, types=[TYPE], settings=settings)
    poison = list(load_plan(workspace.store).units())[2].id
    deaths = []

    def kill(number: int) -> None:
        if number != 10:
            return
        for horse in asked.clients():
            with contextlib.suppress(psutil.NoSuchProcess):
                worker = horse.parent()
                horse.kill()
                deaths.append(horse.pid)
                if victim == "worker" and worker:
                    worker.kill()

    asked.on_request = kill
    # when all is worked through, with as many starts as `work` wants (it stops after some deaths in a row)
    for _ in range(3):
        with factory(workspace, *loop) as process:
            assert process.wait(200) in (0, 1), output(workspace).read_text()
        with queue_of(workspace) as queue:
            rows = queue.failures()
        if rows:
            break
        assert loop == WORK
    # then it is aside after that many deaths, and the rest is done
    assert [(row.unit.id, row.failures, row.lost) for row in rows] == [(poison, 0, 6)]
    assert rows[0].error
    assert len(deaths) == 6
    asked.on_request = lambda number: None
    if loop == WORK:
        finish(workspace, *WORK)  # what a `work` that stopped early had left
    assert_all_is_there(workspace, aside={poison})
    with queue_of(workspace) as queue:
        assert queue.control("retry") == 1
    finish(workspace, *WORK)
    assert_all_is_there(workspace)
