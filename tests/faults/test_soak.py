"""`factory run` for twenty minutes on units of four items: flat memory, flat handles, no zombie, no slow-down, a clean end.

`QPT_SOAK_MINUTES` sets another length. What is asserted are trends and ratios within the run, never a speed.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, astuple, dataclass
from operator import attrgetter
from pathlib import Path

import psutil
import pytest

from benchmarks._audit import audit
from foundation.store import TEMPORARY
from foundation.workspace import Workspace
from queue_workers import redis_server
from queue_workers.plan import load_plan
from tests.support.commands import run_json
from tests.support.faults import (
    RULES,
    end_with_sigterm,
    factory,
    finish,
    output,
    processes_of,
    redis_pid,
    wait_for,
)

MINUTES = float(os.environ.get("QPT_SOAK_MINUTES", "20"))
EVERY = 5.0  # seconds between two samples
WARM_UP = 0.2  # share of the samples that is left out
MORE_MEMORY = 24 << 20  # bytes the whole tree may grow by
MORE_HANDLES, MORE_THREADS = 8, 4  # the same, and a work-horse comes and goes between two looks
SLOWER = 0.6  # units of the second half for one of the first, at least


@dataclass(frozen=True)
class Sample:
    """The process tree and its Redis at one moment. `memory` is the proportional set size: a shared page counts once."""

    seconds: float
    memory: int
    redis: int
    handles: int
    threads: int
    processes: int
    committed: int


def look(tree: psutil.Process, workspace: Workspace, began: float, zombies: dict[int, int]) -> Sample:
    """Measure. A process that ends meanwhile is left out; `zombies` counts in how many looks in a row a pid was one."""
    memory = redis = handles = threads = processes = 0
    dead: dict[int, int] = {}
    server = redis_pid(workspace)
    for process in {tree, *tree.children(recursive=True), *([psutil.Process(server)] if server else [])}:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.status() == psutil.STATUS_ZOMBIE:
                dead[process.pid] = zombies.get(process.pid, 0) + 1
                continue
            used, fds, count = process.memory_full_info().pss, process.num_fds(), process.num_threads()
            memory, handles, threads, processes = memory + used, handles + fds, threads + count, processes + 1
            redis += used if process.pid == server else 0
    zombies.clear()
    zombies.update(dead)
    return Sample(time.monotonic() - began, memory, redis, handles, threads, processes, count_shards(workspace))


def count_shards(workspace: Workspace) -> int:
    """How many shards stand there now."""
    folders = workspace.root.glob("shards/*/*")
    return sum(not name.startswith(TEMPORARY) for folder in folders for name in os.listdir(folder))


def thirds(samples: Sequence[Sample], what: Callable[[Sample], float]) -> tuple[float, float]:
    """What nine in ten samples of the first third, and of the last, do not pass: with every work-horse there."""
    third = len(samples) // 3
    first, last = (statistics.quantiles(map(what, part), n=10)[-1] for part in (samples[:third], samples[-third:]))
    return first, last


def halves(samples: Sequence[Sample]) -> tuple[float, float]:
    """Units a minute in the first half and in the second."""

    def rate(first: Sample, last: Sample) -> float:
        return 60 * (last.committed - first.committed) / (last.seconds - first.seconds)

    middle = samples[len(samples) // 2]
    return rate(samples[0], middle), rate(middle, samples[-1])


def tell(samples: Sequence[Sample], folder: Path) -> None:
    """Print some samples, and keep all of them beside the test's other files."""
    (folder / "soak.json").write_text(json.dumps([asdict(sample) for sample in samples]))
    print(
        f"{'seconds':>8} {'memory MB':>9} {'redis MB':>8} {'handles':>7} {'threads':>7} {'processes':>9} {'committed':>9}"
    )
    for sample in samples[:: max(1, len(samples) // 20)]:
        seconds, memory, redis, *rest = astuple(sample)
        handles, threads, processes, committed = rest
        print(
            f"{seconds:8.0f} {memory / 2**20:9.1f} {redis / 2**20:8.1f} {handles:7} {threads:7} {processes:9} {committed:9}"
        )


@pytest.mark.slow
@pytest.mark.timeout(MINUTES * 60 + 900)
def test_a_long_run_stays_as_it_was(make: Callable[..., Workspace], tmp_path: Path) -> None:
    workspace = make(blocks=150, settings=f"{RULES}[work]\nworkers = 2\n", planned=False)
    samples: list[Sample] = []
    zombies: dict[int, int] = {}
    with factory(workspace, "run") as run:
        wait_for(lambda: count_shards(workspace), what="the first unit")
        began = time.monotonic()
        while time.monotonic() < began + 60 * MINUTES:
            assert run.poll() is None, output(workspace).read_text()[-4000:]
            samples.append(look(run, workspace, began, zombies))
            assert max(zombies.values(), default=0) < 3, f"zombies: {zombies}"
            time.sleep(EVERY)
        tree = run.children(recursive=True)
        end_with_sigterm(run, workspace)
    tell(samples, tmp_path)
    _assert_flat(samples[int(WARM_UP * len(samples)) :])
    wait_for(lambda: not any(map(psutil.Process.is_running, tree)), 20, "the end of its children")
    _assert_all_accounted_for(workspace)


def _assert_flat(samples: Sequence[Sample]) -> None:
    memory, handles, threads = (thirds(samples, attrgetter(name)) for name in ("memory", "handles", "threads"))
    before, after = halves(samples)
    print(f"memory {memory[0] / 2**20:.1f} -> {memory[1] / 2**20:.1f} MB, handles {handles}, threads {threads}")
    print(f"units a minute {before:.0f} -> {after:.0f}")
    assert memory[1] - memory[0] < MORE_MEMORY
    assert handles[1] - handles[0] < MORE_HANDLES
    assert threads[1] - threads[0] < MORE_THREADS
    assert after > SLOWER * before > 0


def _assert_all_accounted_for(workspace: Workspace) -> None:
    """Nothing is in flight or half-written after the drain; then the rest of the plan is run, and all of it is there."""
    assert list(workspace.root.rglob(f"{TEMPORARY}*")) == []
    status = run_json("factory", "status", cwd=workspace.root)
    assert (status["in_flight"], status["failed"]) == (0, 0)
    assert status["committed"] == count_shards(workspace) < status["planned"]
    finish(workspace, "work", "--burst")
    plan = load_plan(workspace.store)
    found = audit(workspace.store, plan)
    print(found)
    assert found.well
    assert found.units == plan.size == count_shards(workspace)
    assert found.superseded_rejects == 0
    text = output(workspace).read_text()
    assert "Traceback" not in text, text[-4000:]
    assert redis_server.stop(workspace)
    wait_for(lambda: not processes_of(workspace), 20, "the end of every process")
