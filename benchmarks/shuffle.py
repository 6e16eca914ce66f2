"""What `trainer shuffle` costs: bytes a second and memory, beside a bare two-pass loop and GNU shuf over the same shards.

The workspace is made: records of 464 bytes (short names and words of the wwii example: the most work a byte that the contract
allows), in shards of 256. The bare loop is plain Python in one process that looks into no line: it spreads lines over as many
files by chance, shuffles each and writes it. shuf holds everything in memory. Neither waits for the disk, checks anything or
writes a manifest; `trainer shuffle` does, and its time is that of the whole command, start included: once with every core,
once with one. Memory is the highest sum of the proportional share (PSS) of all processes, looked at twenty times a second.
Each is run `--repeat` times in turn and the quickest counts, since other work disturbs in one direction only. Prints one JSON
document; absolute figures are this machine's own. A full run needs 1.5 GB of disk, deleted at the end.

    .venv/bin/python benchmarks/shuffle.py [--full | --records 250000] [--memory 107M] [--repeat 3] [--json FILE]
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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import psutil

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from benchmarks._memory import shared_memory  # noqa: E402

FULL, SHARD, LINE = 1_000_000, 256, 464
GOAL = {"megabytes_a_second": 190, "megabytes": 107}  # terashuf's, for 464 MB in a million records
BARE = """
import os, random, sys
from pathlib import Path
files, target = int(sys.argv[1]), Path("bare")
target.mkdir()
draw, slots = random.Random(1).randrange, [[] for _ in range(files)]
held = 0
def flush():
    for at, slot in enumerate(slots):
        with open(target / f"{at:04d}", "ab") as file:
            file.write(b"".join(slot))
        slot.clear()
for folder, _, names in os.walk("shards"):
    for name in names:
        data = Path(folder, name).read_bytes()
        for line in data.splitlines(True):
            slots[draw(files)].append(line)
        held += len(data)
        if held > 8 << 20:
            flush()
            held = 0
flush()
for at in range(files):
    lines = (target / f"{at:04d}").read_bytes().splitlines(True)
    random.Random(at).shuffle(lines)
    (target / f"{at:04d}").write_bytes(b"".join(lines))
"""


def make(workspace: Path, records: int) -> None:
    """Write the workspace that is measured."""
    draw = random.Random(1)
    texts = sorted((REPOSITORY / "examples/wwii/articles").iterdir())[:40]
    words = [
        word for text in texts for word in text.read_text("utf-8").split() if word.isascii() and word.isprintable()
    ]
    (workspace / "shards/wh/who").mkdir(parents=True)
    (workspace / "factory.toml").write_text("version = 1\n")
    for begin in range(0, records, SHARD):
        unit = f"{draw.getrandbits(32):08x}"
        lines = [_record(draw, unit, words) for _ in range(min(SHARD, records - begin))]
        (workspace / f"shards/wh/who/{draw.getrandbits(96):024x}.jsonl").write_bytes(b"\n".join(lines) + b"\n")


def _record(draw: random.Random, unit: str, words: Sequence[str]) -> bytes:
    names = [f"{draw.getrandbits(32):08x}" for _ in range(4)]
    row: dict[str, Any] = {
        **{"v": 1, "id": names[0], "item": names[1], "unit": unit, "prompt_type": "wh/who", "fingerprint": "f"},
        **{"family": "wh", "split": "train", "messages": [], "supervised": [1], "snippet_id": names[2]},
        **{"article_id": names[3], "title": "T", "source": "s", "teacher": "rules:2", "sampling": {}, "seed": 1},
        **{"usage": {}, "round": 0, "attempt": unit},
    }
    at = draw.randrange(len(words) - 100)
    text = " ".join(words[at : at + 100]).replace('"', "'").replace("\\", "/")
    room = LINE - 1 - len(orjson.dumps(row | {"messages": _turns("", "")}))
    row["messages"] = _turns(text[: room // 2], text[room // 2 : room].rstrip().ljust(room - room // 2, "."))
    return orjson.dumps(row)


def _turns(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def measured(command: Sequence[str], cwd: Path, cores: int = 0) -> dict[str, float]:
    """Seconds of the clock and of all cores together, and the highest memory in bytes."""
    before, begun, highest = _of_children(), time.perf_counter(), 0
    allowed = sorted(os.sched_getaffinity(0))[: cores or None]
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, allowed),
    )
    watched = psutil.Process(process.pid)
    while process.poll() is None:
        highest = max(highest, shared_memory(watched))
        time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)[:80]} ended with {process.returncode}")
    return {"seconds": time.perf_counter() - begun, "core_seconds": _of_children() - before, "memory": highest}


def _of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def contest(workspace: Path, files: int, memory: str, repeat: int) -> dict[str, dict[str, float]]:
    """The quickest run of each, taken in turn; its memory is the highest of all runs."""
    ours = [sys.executable, "-c", "from trainer.cli import main; main()", "shuffle", "--json", "--memory", memory]
    shuf = ["sh", "-c", "find shards -type f -exec cat {} + | shuf > shuffled.txt"]
    found: dict[str, list[dict[str, float]]] = {"ours": [], "ours_one_core": [], "bare": [], "shuf": []}
    for _ in range(repeat):
        found["ours"].append(measured(ours, workspace))
        found["ours_one_core"].append(measured(ours, workspace, cores=1))
        shutil.rmtree(workspace / "train")
        found["bare"].append(measured([sys.executable, "-c", BARE, str(files)], workspace))
        shutil.rmtree(workspace / "bare")
        found["shuf"].append(measured(shuf, workspace))
        (workspace / "shuffled.txt").unlink()
    best = {name: min(runs, key=lambda run: run["seconds"]) for name, runs in found.items()}
    return {name: run | {"memory": max(one["memory"] for one in found[name])} for name, run in best.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=FULL // 4)
    parser.add_argument("--full", action="store_true", help=f"{FULL:,} records: what the goal is about")
    parser.add_argument("--memory", default="107M", help="what `trainer shuffle` may take")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the document to this file too")
    chosen = parser.parse_args()
    records = FULL if chosen.full else chosen.records
    with tempfile.TemporaryDirectory() as temporary:
        workspace = Path(temporary) / "w"
        make(workspace, records)
        size = sum(file.stat().st_size for file in workspace.glob("shards/wh/who/*"))
        runs = contest(workspace, max(1, size >> 22), chosen.memory, chosen.repeat)
    document = {
        "records": records,
        "megabytes": round(size / 1e6, 1),
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 1),
        "runs": {
            name: {
                "seconds": round(run["seconds"], 2),
                "core_seconds": round(run["core_seconds"], 2),
                "megabytes_a_second": round(size / run["seconds"] / 1e6),
                "peak_pss_megabytes": round(run["memory"] / 1e6),
            }
            for name, run in runs.items()
        },
        "rate_to_bare": round(runs["bare"]["seconds"] / runs["ours"]["seconds"], 2),
        "rate_to_shuf": round(runs["shuf"]["seconds"] / runs["ours"]["seconds"], 2),
        "core_seconds_to_bare": round(runs["ours"]["core_seconds"] / runs["bare"]["core_seconds"], 2),
        "goal_for_a_million": GOAL,
    }
    print(json.dumps(document, indent=2))
    if chosen.json:
        chosen.json.write_text(json.dumps(document, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
