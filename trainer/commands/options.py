"""Options and helpers that several `trainer` commands share. Cost: nothing heavy is imported."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from foundation.console import Progress
    from foundation.records import Record

LOCK = "train-data"  # one of shuffle, tokenizer and pack at a time in a workspace
AS_JSON = typer.Option(False, "--json", help="Print one JSON document.")
RUN = typer.Option("main", "--run", help="Name of the run: a folder in train/runs/.")
DEVICE = typer.Option("auto", "--device", help="auto, cpu or cuda.")
CHECKPOINT = typer.Option(None, "--checkpoint", help="Folder of a checkpoint; default: the run's newest.")
Device = Literal["auto", "cpu", "cuda"]


def counted(records: Iterable[Record], bar: Progress) -> Iterator[Record]:
    """The records, each one noted on `bar`."""
    for record in records:
        bar.advance()
        yield record
