"""What an export costs, beside a bare loop and beside `datasets`: records a second and peak memory, each in its own process.

Makes a workspace of made-up records in a temporary folder (shards as the line commits them, 27 records each), then exports
it. The bare loop reads the same shards, parses each line with orjson and writes JSON lines or Parquet: no check, no tombstone,
no duplicates, no card. `datasets` loads the same shards as JSON and writes Parquet.

    .venv/bin/python benchmarks/export.py --records 300000
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PER_SHARD = 27
TYPES = ("wh/who", "qpt/formal", "rewrite/bullet-points")
FACTORY = "from generator.cli import main; main()"
BARE = """
import sys, glob, orjson
import pyarrow as pa, pyarrow.parquet as pq
form, out = sys.argv[1:]
rows, writer, file = [], None, open(out, "wb")
for path in sorted(glob.glob("shards/*/*/*.jsonl")):
    for line in open(path, "rb").read().splitlines():
        row = orjson.loads(line)
        if form == "jsonl":
            file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
        else:
            rows.append(row)
    if len(rows) > 10_000:
        table = pa.Table.from_pylist(rows)
        writer = writer or pq.ParquetWriter(file, table.schema, compression="zstd")
        writer.write_table(table)
        rows = []
if rows:
    table = pa.Table.from_pylist(rows)
    writer = writer or pq.ParquetWriter(file, table.schema, compression="zstd")
    writer.write_table(table)
if writer:
    writer.close()
"""
DATASETS = """
import sys, glob
from datasets import load_dataset
data = load_dataset("json", data_files=sorted(glob.glob("shards/*/*/*.jsonl")), split="train")
data.to_parquet(sys.argv[1])
"""


def fill(root: Path, records: int) -> None:
    """A workspace with that many records; every text is drawn anew from 4,000 words."""
    sys.path.insert(0, str(REPOSITORY))
    from foundation.ids import stable_id
    from foundation.records import Record, Sampling, Usage, messages_of
    from foundation.workspace import Workspace

    store = Workspace.init(root).store
    draw = random.Random(1)
    words = [stable_id("word", number)[: draw.randint(3, 9)] for number in range(4000)]
    for shard in range(-(-records // PER_SHARD)):
        unit, kind = stable_id("unit", shard), TYPES[shard % len(TYPES)]
        lines = []
        for number in range(PER_SHARD):
            id_ = stable_id("record", shard, number)
            question, answer = (" ".join(draw.choices(words, k=count)) for count in (16, 60))
            record = Record(
                id=id_,
                item=id_,
                unit=unit,
                prompt_type=kind,
                fingerprint="f",
                family=kind.partition("/")[0],
                split=draw.choices(("train", "phrasing", "unseen"), (93, 2, 5))[0],
                messages=messages_of([("user", question), ("assistant", answer)]),
                supervised=(1,),
                snippet_id=id_,
                article_id=stable_id("article", shard % 300),
                title="An article",
                source="made-up",
                teacher="rules:2",
                sampling=Sampling(),
                seed=1,
                usage=Usage(),
                round=0,
                attempt="a",
            )
            lines.append(record.model_dump_json())
        path = root / "shards" / kind / f"{unit}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n")
    assert store.exists("factory.toml")


def measure(root: Path, code: str, *arguments: str) -> tuple[float, float, float]:
    """Seconds, seconds of processor, and MB at most of one process."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "HF_HOME": str(root.parent / "hf"),
        "HF_HUB_OFFLINE": "1",
    }
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=root,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(errors.decode()[-2000:])
    return time.perf_counter() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=300_000)
    parser.add_argument("--datasets", action="store_true", help="also the datasets library (slow)")
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryDirectory(prefix="export-") as name:
        folder = Path(name)
        fill(folder / "w", options.records)
        runs = [
            ("ours, jsonl, duplicates marked", FACTORY, ("export", "../a", "--format", "jsonl")),
            ("ours, jsonl, not looked for", FACTORY, ("export", "../b", "--near-duplicates", "keep")),
            ("bare loop, jsonl", BARE, ("jsonl", "../c")),
            ("ours, hf, duplicates marked", FACTORY, ("export", "../d", "--format", "hf")),
            ("bare loop, parquet", BARE, ("parquet", "../e")),
        ]
        if options.datasets:
            runs.append(("datasets, json to parquet", DATASETS, ("../f",)))
        for label, code, arguments in runs:
            seconds, busy, memory = measure(folder / "w", code, *arguments)
            found = {
                "what": label,
                "records_per_second": round(options.records / seconds),
                "microseconds_of_processor_a_record": round(busy / options.records * 1e6, 1),
                "megabytes": round(memory),
            }
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
