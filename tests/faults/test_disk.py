"""A full disk: nothing half-written is ever taken for a shard; `work` says so and ends, `run` waits and goes on by itself."""

from __future__ import annotations

import contextlib
import resource
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from foundation.workspace import Workspace
from queue_workers.redis_server import redis_connection
from tests.faults.conftest import Recovery, clear
from tests.faults.test_kills import RUN, WORK
from tests.support import disk
from tests.support.asked import TYPE, Asked, asked_teacher
from tests.support.faults import (
    assert_all_is_there,
    committed,
    ended,
    factory,
    finish,
    make_workspace,
    output,
    wait_for,
)

MB = 2**20


@pytest.fixture
def asked() -> Iterator[Asked]:
    with asked_teacher("hold") as server:
        yield server


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MB."""
    with disk.small_disk(tmp_path, 24) as folder:
        yield folder


def fill(folder: Path, leave: int = 0) -> Path:
    """A file that takes all room but about `leave` bytes, whatever else is written meanwhile."""
    ballast = folder / "ballast"
    with open(ballast, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while shutil.disk_usage(folder).free > leave:
            file.write(bytes(min(MB, max(4096, shutil.disk_usage(folder).free - leave))))
    return ballast


@pytest.fixture
def workspace(small_disk: Path, asked: Asked) -> Iterator[Workspace]:
    made = make_workspace(small_disk, blocks=8, types=[TYPE], settings=asked.settings() + "min_free = 0\n")
    yield made
    clear(made)


def set_min_free(workspace: Workspace, megabytes: int) -> Workspace:
    file = workspace.root / "factory.toml"
    file.write_text(file.read_text().replace("min_free = 0", f"min_free = {megabytes}"))
    return Workspace(workspace.root)


def test_work_says_that_the_disk_is_full_and_the_next_one_goes_on(
    workspace: Workspace, asked: Asked, recovery: Recovery
) -> None:
    with factory(workspace, *WORK) as process:
        asked.wait_until_held(2)
        ballast = fill(workspace.root)
        asked.mode = "answer"
        wait_for(lambda: "disk is full" in output(workspace).read_text(), what="the message")
        ended(process, workspace, code=1)
    assert committed(workspace) == []
    ballast.unlink()
    with recovery("a full disk, room made, factory work given again"):
        finish(workspace, *WORK)
    assert_all_is_there(workspace, torn_log=True)  # an event that did not fit is lost, the work is not


def test_run_waits_for_room_and_goes_on_by_itself(workspace: Workspace, asked: Asked, recovery: Recovery) -> None:
    with factory(workspace, *RUN) as process:
        asked.wait_until_held(2)
        ballast = fill(workspace.root)
        asked.mode = "answer"
        wait_for(lambda: "disk" in output(workspace).read_text(), what="a word about the disk")
        time.sleep(3)
        assert process.poll() is None, output(workspace).read_text()
        assert committed(workspace) == []
        ballast.unlink()
        with recovery("a full disk under run, room made"):
            wait_for(lambda: committed(workspace), what="the next commit")
        ended(process, workspace)
    assert_all_is_there(workspace, torn_log=True)  # an event that did not fit is lost, the work is not


def test_run_begins_no_unit_while_the_disk_is_nearly_full(
    workspace: Workspace, asked: Asked, recovery: Recovery
) -> None:
    workspace = set_min_free(workspace, 6)
    with factory(workspace, *RUN) as process:
        asked.wait_until_held(2)
        ballast = fill(workspace.root, leave=4 * MB)
        wait_for(lambda: "disk" in output(workspace).read_text(), what="a word about the disk")
        asked.mode = "answer"
        time.sleep(5)
        assert process.poll() is None
        before = len(committed(workspace))
        assert before <= 4  # in hand, and begun before it looked
        ballast.unlink()
        with recovery("less than work.min_free under run, room made"):
            wait_for(lambda: len(committed(workspace)) > before, what="the next unit")
        ended(process, workspace)
    assert_all_is_there(workspace, torn_log=True)  # an event that did not fit is lost, the work is not


def _limited() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, resource.RLIM_INFINITY))


@pytest.mark.parametrize("loop", [WORK, RUN], ids=["work", "run"])
def test_no_file_may_grow(
    make: Callable[..., Workspace], asked: Asked, loop: tuple[str, ...], recovery: Recovery
) -> None:
    """RLIMIT_FSIZE lets small files through and refuses shards: what a quota does."""
    workspace = make(blocks=3, size=64, types=[TYPE], settings=asked.settings() + "min_free = 0\n")
    asked.mode = "answer"
    with redis_connection(workspace), factory(workspace, *loop, limit=_limited) as process:  # Redis is not limited
        wait_for(lambda: "disk" in output(workspace).read_text(), what="a word about the disk")
        if loop == WORK:
            ended(process, workspace, code=1)
        else:
            time.sleep(2)
            assert process.poll() is None
        assert committed(workspace) == []
        with recovery(f"RLIMIT_FSIZE under {loop[0]}, lifted"):
            if loop == WORK:
                finish(workspace, *WORK)
            else:
                for one in (psutil.Process(process.pid), *process.children(recursive=True)):
                    resource.prlimit(one.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
                wait_for(lambda: committed(workspace), what="the next commit")
        if loop == RUN:
            ended(process, workspace)
    assert_all_is_there(workspace, torn_log=True)  # an event that did not fit is lost, the work is not
