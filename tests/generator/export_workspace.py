"""For the tests of the export: a small workspace that the real line filled, and who loads what was exported."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from foundation.records import Record
from foundation.workspace import Workspace
from tests.support.commands import run
from tests.support.faults import clear

ARTICLES = Path(__file__).resolve().parents[2] / "examples" / "wwii" / "articles"
TYPES = ("wh/who", "contrastive/person", "qpt/formal", "cross/same-entity-in-two-articles", "rewrite/bullet-points")
SETTINGS = '[teacher]\nbackend = "rules"\n[split]\nunseen = 0.3\nphrasing = 0.2\n[work]\nworkers = 1\nmin_free = 0\n'
FRONT = (
    {"source": "qpt-wwii", "license": "Apache-2.0"},
    {"source": "other-wiki", "license": "CC BY-SA 4.0", "url": "https://example.org/wiki/{n}"},
    {"source": "attic"},  # says nothing of a licence
)
LOADER = """
import json, sys
from datasets import load_dataset
for path in sys.argv[1:]:
    data = load_dataset(path)
    rows = {split: data[split].to_list() for split in data}
    print(json.dumps({"rows": rows, "features": [str(data[split].features) for split in data]}))
"""


def build(folder: Path) -> Path:
    """Six articles under three licences, one of them silent; five prompt types, by rules."""
    articles = folder / "articles"
    articles.mkdir(parents=True)
    for number, path in enumerate(sorted(ARTICLES.glob("*.md"))[:6]):
        _, front, text = path.read_text("utf-8").split("---\n", 2)
        title = next(line for line in front.splitlines() if line.startswith("title:"))
        keys = [f"{key}: {value.format(n=number)}" for key, value in FRONT[number % 3].items()]
        (articles / path.name).write_text("\n".join(["---", title, *keys, "---", text]), "utf-8")
    root = folder / "w"
    run("factory", "init", str(root), cwd=folder)
    (root / "factory.toml").write_text(SETTINGS)
    run("factory", "ingest", str(articles), cwd=root)
    run("factory", "enqueue", *(word for name in TYPES for word in ("--prompt-type", name)), cwd=root)
    run("factory", "work", "--burst", cwd=root)
    clear(Workspace(root))
    return root


def load(tmp_path: Path, *paths: Path) -> list[dict[str, Any]]:
    """Each export as `datasets.load_dataset` sees it: `rows` by split, and `features`."""
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    argv = [sys.executable, "-c", LOADER, *map(str, paths)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=200, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def tree(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, by name."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_whole(folder: Path) -> None:
    """Its checksums are right, and name every file but themselves."""
    files = tree(folder)
    sums = dict(reversed(line.split("  ", 1)) for line in files.pop("SHA256SUMS").decode().splitlines())
    assert sums == {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}


def records_of(root: Path) -> list[Record]:
    """The committed records, read without the project's reader, in its order."""
    paths = sorted(root.glob("shards/*/*/*.jsonl"), key=lambda path: path.relative_to(root).parts)
    return [Record.model_validate_json(line) for path in paths for line in path.read_bytes().splitlines()]


def plant(root: Path, *records: Record, name: str = "f" * 24) -> str:
    """Commit a shard of these records by hand; it is read after the others of its type."""
    shard = f"shards/{records[0].prompt_type}/{name}.jsonl"
    lines = (record.model_copy(update={"unit": name}).model_dump_json() for record in records)
    assert Workspace(root).store.put_once(shard, "".join(f"{line}\n" for line in lines).encode())
    return shard
