"""What queue, plan and store cost, each beside the least that could do the same, over a real Redis and a local folder.

(a) a unit's lease, commit and ack beside a bare loop that writes the same bytes; (b) `factory enqueue` of a million items;
(c) `factory status` at 400,000 committed units beside a bare scan of the same tree; (d) `factory promote` of 50,000 waiting
units. Commands are timed as a user waits for them, start-up included. The shards of (c) are empty: what is in them is read
once, when they are committed. Prints one JSON document, in about two minutes; absolute figures are this machine's own.

    .venv/bin/python benchmarks/queue_cost.py
"""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from foundation.corpus import BLOCK, BLOCKS, jsonl  # noqa: E402
from foundation.records import Message, Record, Sampling, Unit, Usage  # noqa: E402
from foundation.workspace import Workspace  # noqa: E402
from generator import catalogue  # noqa: E402
from queue_workers.commands.common import open_queue  # noqa: E402
from queue_workers.ledger import reconcile  # noqa: E402
from queue_workers.plan import Plan, add, draft, load_plan  # noqa: E402
from queue_workers.protocol import DONE, Ack  # noqa: E402
from queue_workers.redis_server import stop  # noqa: E402

UNIT_SECONDS = 60  # of a teacher's time, which a unit is sized for
COSTED = 300
COMMITTED = 400_000
WAITING = 50_000
MILLION = 1_000_000


def factory(workspace: Workspace, *arguments: str, prompts: Path = catalogue.FOLDER) -> tuple[Any, float]:
    """The document that `factory … --json` prints, with the prompt files of that folder, and its seconds."""
    code = (
        f"from pathlib import Path; from generator import catalogue; catalogue.FOLDER = Path({str(prompts)!r}); "
        "from generator.cli import main; main()"
    )
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments, "--json"],
        cwd=workspace.root,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        check=True,
        stdout=subprocess.PIPE,
    )
    return json.loads(done.stdout), time.perf_counter() - begun


@contextmanager
def workspace(folder: Path, blocks: int) -> Iterator[Workspace]:
    """A workspace of so many full blocks; they are empty files, since planning reads none. Its Redis ends with it."""
    made = Workspace.init(folder)
    (made.root / BLOCKS).mkdir(parents=True)
    for number in range(1, blocks + 1):
        (made.root / BLOCKS / f"{number:06d}-{number:012x}-{BLOCK}.jsonl").touch()
    try:
        with open_queue(made):  # one Redis for all commands, as while `factory run` is up
            yield made
    finally:
        stop(made)


def prompts_of(folder: Path, unit: int) -> Path:
    """The project's prompt files, cut into units of so many snippets."""
    for source in catalogue.FOLDER.glob("*/*.md"):
        lines = source.read_text().splitlines()
        target = folder / f"prompts-{unit}" / source.relative_to(catalogue.FOLDER)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("\n".join(f"unit: {unit}" if line.startswith("unit:") else line for line in lines))
    return folder / f"prompts-{unit}"


def plan_types(made: Workspace, names: list[str], rounds: int) -> Plan:
    """Plan whole rounds of some prompt types over every block; nothing is queued."""
    types = catalogue.select(names)
    blocks = [path.stem for path in sorted((made.root / BLOCKS).iterdir())]
    for round_ in range(rounds):
        with made.lock("plan"):
            add(
                made.store,
                draft(load_plan(made.store), types, blocks, round_=round_, priority="normal"),
                types,
                made.settings.split,
            )
    return load_plan(made.store)


def a_shard(unit: Unit) -> bytes:
    """64 records of the usual size, as the line writes them."""
    answer = (
        "The treaty was signed in the spring of that year, after the harbour had been closed for three months. " * 4
    )
    record = Record(
        id="0" * 24,
        item="0" * 24,
        unit=unit.id,
        prompt_type=unit.prompt_type,
        fingerprint=unit.fingerprint,
        family="wh",
        split="train",
        messages=(Message(role="user", content="When was it signed?"), Message(role="assistant", content=answer)),
        supervised=(1,),
        snippet_id="0" * 24,
        article_id="0" * 24,
        title="A treaty",
        source="corpus",
        teacher="rules",
        sampling=Sampling(),
        seed=1,
        usage=Usage(),
        round=0,
        attempt="0" * 12,
    )
    return jsonl([record] * 64)


def unit_cost(folder: Path) -> dict[str, Any]:
    """Lease, commit and ack of a unit, beside a loop that writes and syncs the same two files."""
    with workspace(folder / "cost", 80) as made, open_queue(made) as queue:
        plan = plan_types(made, ["wh/who"], 1)
        units = list(plan.units())[:COSTED]
        data = a_shard(units[0])
        queue.submit(units, "normal")
        done = multiprocessing.get_context("fork").Value("i", 0)

        def commit(unit: Unit) -> Ack:
            if not made.store.exists(unit.shard):
                made.store.put_once(unit.rejects("0" * 12), data)
                made.store.put_once(unit.shard, data)
            with done.get_lock():
                done.value += 1
            return DONE

        begun = time.perf_counter()
        queue.consume(commit, lambda: done.value >= COSTED)
        whole = (time.perf_counter() - begun) / COSTED
        assert queue.depth().queued == 0 and len(list(made.store.list("shards"))) == COSTED
    begun = time.perf_counter()
    for unit in units:
        for name in ("bare", "bare-rejects"):
            with open(folder / f"{name}-{unit.id}", "xb") as file:
                file.write(data)
                os.fsync(file.fileno())
    bare = (time.perf_counter() - begun) / COSTED
    return {
        "units": COSTED,
        "shard_bytes": len(data),
        "ms_a_unit": round(whole * 1000, 2),
        "bare_writes_ms_a_unit": round(bare * 1000, 2),
        "share_of_a_unit_of_60_s": round(whole / UNIT_SECONDS, 6),
        "wanted_at_most": 0.02,
    }


def enqueue_million(folder: Path, unit: int) -> dict[str, Any]:
    """`factory enqueue` of a million items in units of one size."""
    with workspace(folder / f"enqueue-{unit}", -(-MILLION // BLOCK)) as made:
        told, seconds = factory(made, "enqueue", "--prompt-type", "wh/who", prompts=prompts_of(folder, unit))
        assert told["items"] >= MILLION and told["queued"] == told["units"]
    return {
        "unit": unit,
        "items": told["items"],
        "units": told["units"],
        "seconds": round(seconds, 2),
        "wanted_at_most": 10,
    }


def bare_scan(folder: Path) -> int:
    """Count the files of a tree and nothing else."""
    count = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            count += bare_scan(Path(entry.path)) if entry.is_dir(follow_symlinks=False) else 1
    return count


def timed(act: Callable[[], Any], times: int = 3) -> float:
    """The shortest of some runs, in seconds."""
    found = []
    for _ in range(times):
        begun = time.perf_counter()
        act()
        found.append(time.perf_counter() - begun)
    return min(found)


def status_at_scale(folder: Path) -> dict[str, Any]:
    """`factory status` at rest, and just after a commit, beside a bare scan of the shards."""
    with workspace(folder / "status", 1000) as made:
        names = [name for name, one in catalogue.load_catalogue().items() if one.unit == 64]
        plan = plan_types(made, names, -(-COMMITTED // (len(names) * 4000)))
        last = ""
        for number, unit in enumerate(plan.units()):
            if number == COMMITTED:
                last = unit.shard
                break
            path = made.root / unit.shard
            if not number % 4000:
                path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
        _, first = factory(made, "status")
        time.sleep(4)  # until the folders' times have settled
        scan = timed(lambda: bare_scan(made.root / "shards"))
        factory(made, "status")
        rest = timed(lambda: factory(made, "status"))
        made.store.put_once(last, b"")
        told, busy = factory(made, "status")
        assert told["committed"] == COMMITTED + 1 and told["planned"] == plan.size
    return {
        "committed": COMMITTED,
        "prompt_types": len(names),
        "bare_scan_seconds": round(scan, 3),
        "status_seconds": round(rest, 3),
        "status_after_a_commit_seconds": round(busy, 3),
        "ratio_to_bare_scan": round(rest / scan, 2),
        "first_status_seconds": round(first, 2),
        "wanted_at_most": 1,
    }


def promote_waiting(folder: Path) -> dict[str, Any]:
    """`factory promote` of many waiting units behind as many others: when the next unit is one of them, and when all are."""
    prompts = prompts_of(folder, 16)
    with workspace(folder / "promote", -(-WAITING // (BLOCK // 16))) as made, open_queue(made) as queue:
        for name in ("wh/when", "wh/who"):
            factory(made, "enqueue", "--prompt-type", name, prompts=prompts)
        begun = time.perf_counter()
        code = "from generator.cli import main; main()"
        argv = [sys.executable, "-c", code, "promote", "--prompt-type", "wh/who", "--json"]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        process = subprocess.Popen(argv, cwd=made.root, env=environment, stdout=subprocess.PIPE)
        try:
            while not queue.depth().high and process.poll() is None:
                time.sleep(0.01)
            first = time.perf_counter() - begun
            told = json.loads(process.communicate()[0])
        finally:
            process.kill()
        seconds = time.perf_counter() - begun
        assert told["moved"] == told["queued"]["high"] >= WAITING
        assert reconcile(load_plan(made.store), made.store, queue) == 0
    return {
        "waiting": told["moved"],
        "seconds_until_the_next_unit_is_one": round(first, 2),
        "seconds_until_all_are_moved": round(seconds, 2),
    }


def main() -> None:
    """Measure and print."""
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        document = {
            "unit_cost": unit_cost(folder),
            "enqueue_a_million_items": [enqueue_million(folder, unit) for unit in (256, 64, 16)],
            "status": status_at_scale(folder),
            "promote": promote_waiting(folder),
        }
    print(json.dumps(document | {"seconds": round(time.perf_counter() - begun)}, indent=2))


if __name__ == "__main__":
    main()
