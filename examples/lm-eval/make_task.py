"""Two tasks for lm-evaluation-harness from a workspace's own held-out questions: rows (JSONL) and their YAML, in one folder.

`factory_choice`: the four options of choice/four-options, scored by likelihood. `factory_exact`: short answers (cloze/entity),
written and compared. Questions are those that `trainer answer` would ask, so none that stands in the train split is among
them. docs/evaluation.md has the commands. Prints one JSON document: how many rows each task has, and what was left out.

    python examples/lm-eval/make_task.py --workspace demo --split phrasing --out demo/lm-eval
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml

from foundation.errors import FactoryError, UsageError
from foundation.records import EvalItem
from foundation.store import LocalStore
from foundation.workspace import FILE, Workspace
from trainer.evalset import eval_items

HERE = Path(__file__).resolve().parent
OPTION = re.compile(r"^[A-Z]\) .+$", re.MULTILINE)
SPLITS = ("phrasing", "unseen", "train")
Row = dict[str, Any]


def choice_row(item: EvalItem) -> Row | None:
    """The question as it stands, its options, and the number of the one that the reference begins with; None if not exactly one."""
    options = OPTION.findall(item.question)
    right = [
        number for number, option in enumerate(options) if f"{item.reference} ".startswith((f"{option}.", f"{option} "))
    ]
    if len(options) < 2 or len(right) != 1:
        return None
    return {"id": item.id, "question": item.question, "choices": options, "answer": right[0]}


def exact_row(item: EvalItem) -> Row | None:
    return {"id": item.id, "question": item.question, "answer": item.reference}


def write_task(out: Path, task: str, rows: Iterable[Row]) -> None:
    """Write TASK.jsonl and factory_TASK.yaml, which names it by its whole path: the harness may be started anywhere."""
    store = LocalStore(out)
    store.put(f"{task}.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
    settings = yaml.safe_load((HERE / f"factory_{task}.yaml").read_text("utf-8"))
    settings["dataset_kwargs"]["data_files"]["test"] = str(out.resolve() / f"{task}.jsonl")
    store.put(f"factory_{task}.yaml", yaml.safe_dump(settings, sort_keys=False, allow_unicode=True).encode())


def make(arguments: argparse.Namespace) -> Row:
    """Write both tasks. Raises `UsageError` if the split holds no question of a wanted type."""
    if not (arguments.workspace / FILE).is_file():
        raise UsageError("no workspace there", where=str(arguments.workspace), mend="name a folder with a factory.toml")
    items, _ = eval_items(Workspace(arguments.workspace), arguments.split, arguments.limit, seed=0)
    told: Row = {"split": arguments.split, "folder": str(arguments.out)}
    kinds: tuple[tuple[str, str, Callable[[EvalItem], Row | None]], ...] = (
        ("choice", arguments.choice, choice_row),
        ("exact", arguments.exact, exact_row),
    )
    for task, prompt_type, row_of in kinds:
        asked = [row_of(item) for item in items if item.prompt_type == prompt_type]
        rows = [row for row in asked if row is not None]
        if not rows:
            raise UsageError(
                f"no question of {prompt_type} can be asked among the {len(items)} of the split {arguments.split}",
                where=str(arguments.workspace),
                mend=f"name another split, or another type with --{task}",
            )
        write_task(arguments.out, task, rows)
        told[f"factory_{task}"] = {"prompt_type": prompt_type, "rows": len(rows), "left_out": len(asked) - len(rows)}
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder for rows and YAML files")
    parser.add_argument("--split", choices=SPLITS, default="phrasing")
    parser.add_argument("--choice", default="choice/four-options", help="prompt type for factory_choice")
    parser.add_argument("--exact", default="cloze/entity", help="prompt type for factory_exact")
    parser.add_argument("--limit", type=int, default=5000, help="questions of all types that are looked at")
    try:
        print(json.dumps(make(parser.parse_args())))
    except FactoryError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from error


if __name__ == "__main__":
    main()
