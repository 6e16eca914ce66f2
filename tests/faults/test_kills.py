"""SIGKILL and SIGSTOP for each process of `factory work` and `factory run`, in the middle of a unit and at the worst
lines: nothing lost, nothing doubled, nothing left over."""

from __future__ import annotations

import contextlib
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from foundation.store import TEMPORARY
from foundation.workspace import Workspace
from queue_workers.plan import load_plan
from queue_workers.presence import at_work
from tests.faults.conftest import Recovery
from tests.support.asked import TYPE, Asked, asked_teacher
from tests.support.faults import (
    assert_all_is_there,
    committed,
    dies_at,
    ended,
    factory,
    finish,
    gone,
    kill_tree,
    processes_of,
    signal_tree,
    wait_for,
)

WORK, RUN = ("work", "--burst"), ("run", "--drain")
LOOPS = pytest.mark.parametrize("loop", [WORK, RUN], ids=["work", "run"])
# Both share their code; where `run` alone tells enough for every day, `make test-all` looks at `work` too.
MOSTLY_RUN = pytest.mark.parametrize("loop", [pytest.param(WORK, marks=pytest.mark.slow), RUN], ids=["work", "run"])


@pytest.fixture
def asked() -> Iterator[Asked]:
    with asked_teacher("hold") as server:
        yield server


@pytest.fixture
def held(asked: Asked, make: Callable[..., Workspace]) -> Workspace:
    """Eight units whose teacher answers when the test says so."""
    return make(blocks=8, types=[TYPE], settings=asked.settings())


def once(flag: Path) -> str:
    """An expression that is true the first time, over all processes."""
    return f"not os.path.exists({str(flag)!r}) and open({str(flag)!r}, 'x')"


@LOOPS
def test_the_whole_tree_killed_in_the_middle_of_a_unit(
    held: Workspace, asked: Asked, loop: tuple[str, ...], recovery: Recovery
) -> None:
    with factory(held, *loop) as first:
        asked.wait_until_held(2)
        tree = kill_tree(first)
        wait_for(lambda: gone(tree))
    in_hand, since = set(asked.asked), len(asked.asked)
    asked.mode = "answer"
    with recovery(f"the whole tree killed ({loop[0]}, started again at once)"), factory(held, *loop) as second:
        asked.wait_until_asked(in_hand, since)
        ended(second, held)
    assert_all_is_there(held)


@MOSTLY_RUN
@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_the_whole_tree_killed_at_random_moments(workspace: Workspace, loop: tuple[str, ...], seed: int) -> None:
    draw = random.Random(seed)
    kills = 0
    while kills < 4:
        before = len(committed(workspace))
        with factory(workspace, *loop) as process:
            wait_for(lambda before=before: len(committed(workspace)) > before)  # type: ignore[misc]
            time.sleep(draw.random() * 0.4)  # at a random moment of the work, not of the start
            tree = kill_tree(process)
            wait_for(lambda tree=tree: gone(tree))  # type: ignore[misc]
            kills += 1
        if len(committed(workspace)) == load_plan(workspace.store).size:
            break
    finish(workspace, *loop)
    assert kills > 1
    assert_all_is_there(workspace)


@MOSTLY_RUN
def test_only_the_parent_killed_takes_everyone_along(
    held: Workspace, asked: Asked, loop: tuple[str, ...], recovery: Recovery
) -> None:
    with factory(held, *loop) as first:
        asked.wait_until_held(2)
        wait_for(lambda: len(first.children(recursive=True)) >= 4, what="two work-horses")
        children = first.children(recursive=True)
        first.kill()
        with recovery(f"only the parent killed ({loop[0]}): its children gone"):
            wait_for(lambda: gone(children))
    assert [one.name() for one in processes_of(held) if "redis" not in one.name()] == []
    asked.mode = "answer"
    finish(held, *loop)
    assert_all_is_there(held)


@MOSTLY_RUN
@pytest.mark.parametrize("victim", ["work-horse", "worker"])
def test_a_killed_worker_is_replaced_and_its_unit_runs_again(
    held: Workspace, asked: Asked, loop: tuple[str, ...], victim: str, recovery: Recovery
) -> None:
    with factory(held, *loop) as process:
        asked.wait_until_held(2)
        horses = asked.clients()
        assert horses
        victims = horses if victim == "work-horse" else [horse.parent() for horse in horses]
        in_hand, since = set(asked.asked), len(asked.asked)
        for one in victims:
            assert one
            one.kill()
        wait_for(lambda: gone(horses))  # a worker takes its work-horse along
        asked.mode = "answer"
        with recovery(f"a {victim} killed ({loop[0]})"):
            asked.wait_until_asked(in_hand, since)
        ended(process, held)  # it goes on by itself to the end
    assert_all_is_there(held)


@MOSTLY_RUN
@pytest.mark.parametrize(
    "also_worker", [pytest.param(False, marks=pytest.mark.slow), True], ids=["horse", "horse+worker"]
)
@pytest.mark.parametrize(
    ("place", "after", "which"),
    [
        ("queue_workers.runner:commit", True, "True"),
        ("foundation.store:os.link", False, "'/shards/' in str(a[1]) and str(a[1]).endswith('.jsonl')"),
        ("foundation.store:os.link", True, "'/shards/' in str(a[1]) and str(a[1]).endswith('.jsonl')"),
        ("foundation.store:os.link", True, "'/rejects/' in str(a[1]) and str(a[1]).endswith('.jsonl')"),
    ],
    ids=["commit|ack", "temporary|put", "put|folder-sync", "rejects|shard"],
)
def test_killed_at_the_worst_line(
    workspace: Workspace, tmp_path: Path, loop: tuple[str, ...], place: str, after: bool, which: str, also_worker: bool
) -> None:
    flag = tmp_path / "died"
    when = f"{which} and ({once(flag)})" + (" and (os.kill(os.getppid(), signal.SIGKILL) or True)" * also_worker)
    with factory(workspace, *loop, prelude=dies_at(place, after=after, when=when)) as process:
        ended(process, workspace)
    assert flag.exists()
    assert_all_is_there(workspace)


def test_each_unit_loses_its_worker_between_commit_and_ack_and_none_is_asked_about_twice(
    held: Workspace, asked: Asked
) -> None:
    asked.mode = "answer"
    with factory(held, *WORK, prelude=dies_at("queue_workers.runner:commit", after=True)) as process:
        ended(process, held)
    assert len(asked.asked) == len(set(asked.asked)) == 32
    assert_all_is_there(held)


@LOOPS
def test_stopped_past_the_lease_and_woken(
    held: Workspace, asked: Asked, loop: tuple[str, ...], recovery: Recovery
) -> None:
    # given a whole command that the machine put to sleep with two units in hand
    with factory(held, *loop) as sleeper:
        asked.wait_until_held(2)
        signal_tree(sleeper, signal.SIGSTOP)
        in_hand, since = set(asked.asked), len(asked.asked)
        asked.mode = "answer"  # what it sees when it wakes
        # when another command works meanwhile, it does those units too
        with recovery(f"a {loop[0]} asleep past its heartbeat, beside another command"), factory(held, *WORK) as other:
            asked.wait_until_asked(in_hand, since)
            ended(other, held)
        assert len(committed(held)) == 8
        shards = {path: (path.stat().st_ino, path.read_bytes()) for path in committed(held)}
        # then the one that wakes up changes nothing, and ends well
        signal_tree(sleeper, signal.SIGCONT)
        ended(sleeper, held)
    assert shards == {path: (path.stat().st_ino, path.read_bytes()) for path in committed(held)}
    assert_all_is_there(held)


@MOSTLY_RUN
def test_one_worker_stopped_past_its_heartbeat_and_woken(
    held: Workspace, asked: Asked, loop: tuple[str, ...], recovery: Recovery
) -> None:
    with factory(held, *loop) as process:
        asked.wait_until_held(2)
        horse = asked.clients()[0]
        worker = horse.parent()
        assert worker
        signal_tree(worker, signal.SIGSTOP)
        in_hand, since = set(asked.asked), len(asked.asked)
        asked.mode = "answer"
        with recovery(f"one worker asleep past its heartbeat ({loop[0]})"):
            asked.wait_until_asked(in_hand, since)
        wait_for(lambda: len(committed(held)) == 8, what="all units")
        with contextlib.suppress(psutil.NoSuchProcess):  # whoever drains does not wait for a sleeper for ever
            signal_tree(worker, signal.SIGCONT)
        ended(process, held)
    assert_all_is_there(held)


def test_a_temporary_that_someone_may_be_writing_is_left_alone(workspace: Workspace) -> None:
    with at_work(workspace):
        temporary = workspace.root / "shards" / f"{TEMPORARY}mine"
        temporary.parent.mkdir(exist_ok=True)
        temporary.touch()
        finish(workspace, *WORK)
        assert temporary.exists()
    assert not temporary.exists()
