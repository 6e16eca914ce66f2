"""`factory export`: the accepted records as a dataset to hand on, with its card.

Guarantees: those of `generator/export/run.py`; standard output has the summary alone (with `--json` one document).
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

if TYPE_CHECKING:
    from generator.export.run import Options

# (what typer shows and checks)
FormatName = Literal["jsonl", "parquet", "hf"]
Handling = Literal["mark", "drop", "keep"]


class SplitName(StrEnum):  # typer takes no list of a Literal
    train = "train"
    phrasing = "phrasing"
    unseen = "unseen"


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command("export")(export)


def export(
    out: Path = typer.Argument(..., metavar="OUT", help="A folder that is not there yet."),
    format_: FormatName = typer.Option("jsonl", "--format", help="hf: Parquet in the layout of the Hugging Face Hub."),
    prompt_type: list[str] = typer.Option([], "--prompt-type", metavar="T", help="An id or a family; may be repeated."),
    near_duplicates: Handling = typer.Option(
        "mark", "--near-duplicates", help="mark: in two columns; drop: leave out; keep: do not look for them."
    ),
    split: list[SplitName] = typer.Option(
        [], "--split", metavar="S", help="train, phrasing or unseen alone; may be repeated."
    ),
    dry_run: bool = typer.Option(False, "--dry-run", help="Say what would be written, and write nothing."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document."),
) -> None:
    """Write the accepted records as a dataset, one file set per split, with a card that says what they are."""
    from foundation.console import emit_json
    from foundation.workspace import Workspace
    from generator.export.run import Options
    from generator.export.run import export as export_records

    options = Options(
        format=format_,
        prompt_types=prompt_type,
        duplicates=near_duplicates,
        splits=[one.value for one in split],
        dry_run=dry_run,
    )
    found = export_records(Workspace.find(), out, options)
    if as_json:
        emit_json({"out": str(out), **found})
    else:
        _print(out, options, found)


def _print(out: Path, options: Options, found: dict[str, Any]) -> None:
    from foundation.console import table

    files = [name.rpartition("/")[2].partition("-")[0] for name in (file["name"] for file in found["files"])]
    rows = [(split, count, files.count(split)) for split, count in found["by_split"].items() if count]
    rows.append(("all", found["records"], len(files)))
    table(("split", "records", "files"), rows)
    duplicates = found["duplicates"]
    if duplicates["handling"] != "keep":
        done = f"{duplicates['dropped']:,} dropped" if duplicates["handling"] == "drop" else "marked"
        print(f"\nduplicates: {duplicates['exact']:,} exact, {duplicates['near']:,} near: {done}")
    if found["withdrawn"]:
        print(f"withdrawn: {found['withdrawn']:,} records of all splits left out")
    if options.dry_run:
        print(f"nothing was written; about {found['estimated_bytes'] / 2**20:,.0f} MB would be needed")
        return
    size = sum(file["bytes"] for file in found["files"])
    print(f"{size / 2**20:,.1f} MB in {out}; its README.md says what it is")
    if options.format == "hf":
        print(f'next: datasets.load_dataset("{out}"), or `hf upload NAME {out} --repo-type dataset`')
