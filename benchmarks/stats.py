"""What `factory stats` costs: seconds and memory over a million records, beside a bare loop that only parses the same files.

The workspace is made from a real run of the `rules` teacher on the wwii example: each record is a real one of its type whose
texts go over, at a random word, into those of another (so texts are real, of real length, and rarely the same), in shards of
256, with a reject for every fifth. The bare loop is one process with `orjson`, and reads first, so both find the files in the
page cache. Where other work shares the machine, the seconds spent on a core say more than those of the clock. Memory is the highest
sum of the proportional share (PSS) of all processes, looked at five times a second. Prints one JSON document; absolute figures are this machine's own. Needs 2.5 GB of disk for a million, deleted at the end.

    .venv/bin/python benchmarks/stats.py [--records 1000000] [--keep FOLDER]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import orjson
import psutil

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from benchmarks._memory import shared_memory  # noqa: E402

SHARD = 256
REJECTED = 5  # one in so many
LIMITS = {"seconds": 60, "megabytes": 500}  # for a million records on two cores
Row = dict[str, Any]


def command(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", "from generator.cli import main; main()", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(
        argv, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def run(*arguments: str, cwd: Path) -> str:
    process = command(*arguments, cwd=cwd)
    told = process.communicate()[0]
    if process.returncode:
        raise SystemExit(f"factory {' '.join(arguments)} ended with {process.returncode}")
    return told


def real_run(folder: Path) -> Path:
    """A workspace with every prompt type over the wwii example, by the rules teacher."""
    workspace = folder / "real"
    run("init", str(workspace), cwd=folder)
    (workspace / "factory.toml").write_text('[teacher]\nbackend = "rules"\n')
    run("ingest", str(REPOSITORY / "examples/wwii/articles"), cwd=workspace)
    run("enqueue", "--all", cwd=workspace)
    run("work", "--burst", cwd=workspace)
    return workspace


def by_type(workspace: Path, folder: str) -> dict[str, list[Row]]:
    found = defaultdict(list)
    for file in sorted(workspace.glob(f"{folder}/*/*/*.jsonl")):
        for line in file.read_bytes().splitlines():
            row = orjson.loads(line)
            found[row["prompt_type"]].append(row)
    return found


def crossed(one: str, other: str, draw: random.Random) -> str:
    """The beginning of one text and the end of another, as long as the first."""
    words, others = one.split(" "), other.split(" ")
    at = draw.randrange(len(words) + 1)
    return " ".join(words[:at] + others[at : len(words)])


def synthetic(real: Path, workspace: Path, records: int) -> None:
    """Write the workspace that is measured."""
    draw = random.Random(5)
    accepted, rejected = by_type(real, "shards"), by_type(real, "rejects")
    workspace.mkdir()
    shutil.copy(real / "factory.toml", workspace)
    shutil.copytree(real / "corpus", workspace / "corpus")
    types = draw.choices(list(accepted), [len(rows) for rows in accepted.values()], k=-(-records // SHARD))
    left = records
    for kind in types:
        unit, attempt = f"{draw.getrandbits(96):024x}", f"{draw.getrandbits(48):012x}"
        lines, items = [], []
        for _ in range(min(SHARD, left)):
            row, other = draw.choices(accepted[kind], k=2)
            turns = [
                turn | {"content": crossed(turn["content"], second["content"], draw)}
                for turn, second in zip(row["messages"], other["messages"], strict=False)
            ]
            turns += row["messages"][len(turns) :]
            identity, item = f"{draw.getrandbits(96):024x}", f"{draw.getrandbits(96):024x}"
            pair = identity if row["pair_id"] else ""
            new = {"id": identity, "item": item, "unit": unit, "attempt": attempt, "messages": turns, "pair_id": pair}
            lines.append(orjson.dumps(row | new))
            items.append(item)
        left -= len(items)
        write(workspace / f"shards/{kind}/{unit}.jsonl", lines)
        refused = []
        for item in items[::REJECTED]:
            row = draw.choice(rejected.get(kind) or rejected["wh/who"])
            identity = f"{draw.getrandbits(96):024x}"
            new = {"id": identity, "item": f"{item[:-1]}x", "unit": unit, "attempt": attempt, "prompt_type": kind}
            refused.append(orjson.dumps(row | new))
        write(workspace / f"rejects/{kind}/{unit}.{attempt}.jsonl", refused)


def write(path: Path, lines: list[bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\n".join(lines) + b"\n")


def bare_loop(workspace: Path) -> tuple[int, int, float, float]:
    """Lines and bytes that were parsed, and the seconds it took: of the clock, and of a core."""
    begun, spent, lines, size = time.perf_counter(), time.process_time(), 0, 0
    for folder in ("shards", "rejects"):
        for file in workspace.glob(f"{folder}/*/*/*.jsonl"):
            data = file.read_bytes()
            size += len(data)
            for line in data.splitlines():
                orjson.loads(line)
                lines += 1
    return lines, size, time.perf_counter() - begun, time.process_time() - spent


def measured(workspace: Path) -> tuple[Row, float, float, int]:
    """The document, seconds of the clock and of all cores together, and the highest memory; start-up included."""
    begun, spent, highest = time.perf_counter(), of_children(), 0
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", "from generator.cli import main; main()", "stats", "--json"],
            cwd=workspace,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            stdout=out,
            stderr=subprocess.DEVNULL,
        )
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            highest = max(highest, shared_memory(watched))
            time.sleep(0.2)
        seconds = time.perf_counter() - begun
        out.seek(0)
        return json.loads(out.read()), seconds, of_children() - spent, highest


def of_children() -> float:
    """Seconds that ended processes of ours, and theirs, have spent on a core."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--keep", type=Path, help="make the workspace here, or measure the one that is here")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        workspace = (chosen.keep or Path(temporary) / "w").absolute()
        if not workspace.exists():
            synthetic(real_run(Path(temporary)), workspace, chosen.records)
        lines, size, bare, bare_core = bare_loop(workspace)
        told, seconds, core, memory = measured(workspace)
    total = told["total"]
    print(
        json.dumps(
            {
                "records": total["records"],
                "rejects": lines - total["records"],
                "bytes": size,
                "cores": len(os.sched_getaffinity(0)),
                "stats_seconds": round(seconds, 1),
                "stats_core_seconds": round(core, 1),
                "stats_peak_pss_megabytes": round(memory / 1e6),
                "bare_seconds": round(bare, 1),
                "bare_core_seconds": round(bare_core, 1),
                "ratio": round(seconds / bare, 2),
                "load": round(os.getloadavg()[0], 1),
                "duplicates": total["duplicates"],
                "limits_for_a_million_on_two_cores": LIMITS,
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
