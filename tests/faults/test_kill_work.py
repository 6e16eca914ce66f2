"""`factory work` killed in the middle, in every way one command can be: nothing lost, nothing doubled, nothing left over."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from foundation.records import Record, Reject, Unit
from foundation.store import TEMPORARY, LocalStore
from foundation.workspace import Workspace
from generator.gates import Gates
from generator.teachers.rules.teacher import RulesTeacher
from queue_workers import redis_server
from queue_workers.ledger import reconcile
from queue_workers.plan import load_plan, load_split, queue_name
from queue_workers.presence import at_work
from queue_workers.protocol import Ack
from queue_workers.redis_server import connect, redis_connection
from queue_workers.rq_queue import RqQueue
from queue_workers.runner import Context, run_unit
from tests.support.commands import REPOSITORY, run, run_json

NAMES = ("Harald Brecht", "Anna Lindqvist", "Tomas Vereen", "Ilse Marran", "Peter Oswin", "Clara Duval")
PLACES = ("Tarvik", "Osmark", "Lindhaven", "Brenna", "Kolmar", "Esterwick")
EVENTS = (
    "General {name} defended {place} against the siege from March {year} until the relief came.",
    "Admiral {name} commanded the squadron that left {place} on {day} May {year}.",
    "The Treaty of {place} was signed by {name} on {day} June {year}.",
    "In {year} the government moved {count} workers from {place} to the northern yards.",
    "{name} wrote {count} letters about the campaign of {year} while he lived in {place}.",
    "The bridge at {place} was destroyed by engineers under {name} in {year}.",
)


def article(number: int) -> str:
    """About forty plain sentences, different in each article."""
    draw = random.Random(number)
    sentences = [
        draw.choice(EVENTS).format(
            name=draw.choice(NAMES),
            place=draw.choice(PLACES),
            year=draw.randint(1900, 1950),
            day=draw.randint(1, 28),
            count=draw.randint(100, 9999),
        )
        for _ in range(40)
    ]
    return " ".join(sentences)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ingested corpus of some 200 snippets, made once."""
    folder = tmp_path_factory.mktemp("kill")
    texts = folder / "texts"
    texts.mkdir()
    for number in range(24):
        (texts / f"Campaign {number}.txt").write_text(article(number))
    run("factory", "init", str(folder / "w"), cwd=folder)
    run("factory", "ingest", str(texts), cwd=folder / "w")
    return folder / "w"


@pytest.fixture
def workspace(template: Path, tmp_path: Path) -> Iterator[Workspace]:
    """That corpus, planned for all prompt types; leases and heartbeats are short."""
    root = tmp_path / "w"
    subprocess.run(["cp", "-r", str(template), str(root)], check=True)
    (root / "factory.toml").write_text(
        '[teacher]\nbackend = "rules"\n[queue]\nlease = 20\nheartbeat = 4\n[work]\nworkers = 2\n'
    )
    made = Workspace(root)
    run("factory", "enqueue", "--all", cwd=root)
    yield made
    assert redis_server.stop(made)


@contextlib.contextmanager
def working(workspace: Workspace) -> Iterator[psutil.Process]:
    """`factory work --burst`; its whole tree is killed when the context ends."""
    argv = [sys.executable, "-c", "from generator.cli import main; main()", "work", "--burst"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    with open(workspace.root / "work.log", "ab") as log:
        process = psutil.Popen(argv, cwd=workspace.root, env=environment, stdout=log, stderr=log)
        try:
            yield process
        finally:
            kill_tree(process)
            process.wait(10)


def kill_tree(process: psutil.Process) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        tree = [*process.children(recursive=True), process]
        for one in tree:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        return tree
    return []


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.01)


def committed(workspace: Workspace) -> list[Path]:
    return list(workspace.root.glob("shards/*/*/*.jsonl"))


def gone(processes: list[psutil.Process]) -> bool:
    return not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in processes)


def assert_all_is_there(workspace: Workspace) -> None:
    """Every planned unit committed once, every item accounted for, every id unique, nothing half-written or running."""
    plan = list(load_plan(workspace.store).units())
    assert {path.stem for path in committed(workspace)} == {unit.id for unit in plan}
    status = run_json("factory", "status", cwd=workspace.root)
    assert (status["planned"], status["committed"]) == (len(plan), len(plan))
    assert (status["queued"], status["in_flight"], status["failed"]) == (0, 0, 0)
    items = sum(unit.stop - unit.start for unit in plan)
    assert status["items"] == status["items_accepted"] + status["items_rejected"] == items
    records = [
        Record.model_validate_json(line) for path in committed(workspace) for line in path.read_text().splitlines()
    ]
    assert status["records"] == len(records) > 0
    assert [id_ for id_, count in Counter(record.id for record in records).items() if count > 1] == []
    for path in workspace.root.glob("rejects/*/*/*.jsonl"):
        for line in path.read_text().splitlines():
            Reject.model_validate_json(line)
    assert list(workspace.root.rglob(f"{TEMPORARY}*")) == []
    assert not workspace.socket("redis.sock").exists()


@pytest.mark.parametrize("seed", [1, 2])
def test_the_whole_tree_killed_again_and_again(workspace: Workspace, seed: int) -> None:
    draw = random.Random(seed)
    kills = 0
    while kills < 4 and len(committed(workspace)) < load_plan(workspace.store).size:
        before = len(committed(workspace))
        with working(workspace) as work:
            wait_for(lambda before=before: len(committed(workspace)) > before or not work.is_running())  # type: ignore[misc]
            time.sleep(draw.random() * 0.5)  # at a random moment of the work, not of the start
            if gone([work]):
                break
            tree = kill_tree(work)
            kills += 1
            wait_for(lambda tree=tree: gone(tree), 5)  # type: ignore[misc]
    assert kills > 1
    began = time.monotonic()
    run("factory", "work", "--burst", cwd=workspace.root)
    print(f"{kills} kills; the rest took {time.monotonic() - began:.1f} s")
    assert_all_is_there(workspace)


def test_only_the_parent_killed_takes_its_workers_along(workspace: Workspace) -> None:
    with working(workspace) as work:
        wait_for(lambda: committed(workspace))
        children = work.children(recursive=True)
        assert len(children) >= 2
        os.kill(work.pid, signal.SIGKILL)
        wait_for(lambda: gone(children), 2)
    run("factory", "work", "--burst", cwd=workspace.root)
    assert_all_is_there(workspace)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_worker_takes_its_work_horse_along_and_is_replaced(workspace: Workspace, workers: int) -> None:
    file = workspace.root / "factory.toml"
    file.write_text(file.read_text().replace("workers = 2", f"workers = {workers}"))
    with working(workspace) as work:
        wait_for(lambda: committed(workspace))
        worker = work.children()[0]
        horses = worker.children()
        worker.kill()
        wait_for(lambda: gone([worker, *horses]), 2)
        assert work.wait(60) == 0  # it goes on by itself to the end
    assert_all_is_there(workspace)


def _run_one(workspace: Workspace, handle: Callable[[Unit, Context], Ack]) -> None:
    """A worker process that hands its first unit to `handle`, which does not survive it."""

    def live() -> None:
        store = _DyingStore(workspace.root)
        context = Context(store, RulesTeacher(), Gates(), load_split(store), 20)
        queue = RqQueue(connect(workspace), queue_name(workspace.store), workspace.settings.queue)
        start = time.monotonic()
        queue.consume(lambda unit: handle(unit, context), lambda: time.monotonic() > start + 20)

    process = multiprocessing.get_context("fork").Process(target=live)
    process.start()
    process.join(30)
    assert process.exitcode == -signal.SIGKILL


def _kill_worker() -> None:
    """End this work-horse and its worker at this very point."""
    os.kill(os.getppid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


class _DyingStore(LocalStore):
    """Killed after a shard's temporary file is written, before it is linked to its name."""

    dying = False

    def _write_temporary(self, path: Path, data: bytes) -> Path:
        temporary = super()._write_temporary(path, data)
        if self.dying and "shards" in path.parts:
            _kill_worker()
        return temporary


def test_killed_between_commit_and_ack_the_unit_is_not_run_twice(workspace: Workspace) -> None:
    def commit_and_die(unit: Unit, context: Context) -> Ack:
        assert run_unit(unit, context).ack.state == "done"
        _kill_worker()
        return Ack("done")

    with redis_connection(workspace):
        _run_one(workspace, commit_and_die)
    (shard,) = committed(workspace)
    before = shard.stat()
    run("factory", "work", "--burst", cwd=workspace.root)
    assert (shard.stat().st_ino, shard.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert_all_is_there(workspace)


def test_killed_between_writing_and_putting_in_place(workspace: Workspace) -> None:
    def write_and_die(unit: Unit, context: Context) -> Ack:
        context.store.dying = True  # type: ignore[attr-defined]
        return run_unit(unit, context).ack

    with redis_connection(workspace):
        _run_one(workspace, write_and_die)
    assert not committed(workspace)
    assert len(list(workspace.root.rglob(f"{TEMPORARY}*"))) == 1
    run("factory", "work", "--burst", cwd=workspace.root)
    assert_all_is_there(workspace)


def test_a_temporary_that_someone_may_be_writing_is_left_alone(workspace: Workspace) -> None:
    with at_work(workspace):
        temporary = workspace.root / "shards" / f"{TEMPORARY}mine"
        temporary.parent.mkdir(exist_ok=True)
        temporary.touch()
        run("factory", "work", "--burst", cwd=workspace.root)
        assert temporary.exists()
    assert not temporary.exists()


def test_a_flushed_redis_while_it_works(workspace: Workspace) -> None:
    with working(workspace) as work:
        wait_for(lambda: committed(workspace))
        with redis_connection(workspace) as redis:
            redis.flushall()
        assert work.wait(90) == 0  # it finds the queue empty before the plan is done, and fills it again
    assert_all_is_there(workspace)


def test_reconcile_while_it_works_finds_nothing_missing(workspace: Workspace) -> None:
    plan = load_plan(workspace.store)
    with working(workspace) as work, redis_connection(workspace) as redis:
        queue = RqQueue(redis, queue_name(workspace.store), workspace.settings.queue)
        found = []
        while work.is_running() and work.status() != psutil.STATUS_ZOMBIE:
            found.append(reconcile(plan, workspace.store, queue))
            time.sleep(0.1)
        assert len(found) > 3
        assert sum(found) == 0
        assert work.wait(10) == 0
    assert_all_is_there(workspace)


def test_the_log_of_a_killed_run_holds_no_traceback(workspace: Workspace) -> None:
    with working(workspace) as work:
        wait_for(lambda: committed(workspace))
        for horse in [horse for worker in work.children() for horse in worker.children()]:
            with contextlib.suppress(psutil.NoSuchProcess):
                horse.kill()
        assert work.wait(90) == 0
    log = (workspace.root / "work.log").read_text()
    assert "Traceback" not in log
    assert json.loads(run("factory", "status", "--json", cwd=workspace.root).stdout)["failed"] == 0
    assert_all_is_there(workspace)
