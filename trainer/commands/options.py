"""Options that several `trainer` commands share. Cost: nothing heavy is imported."""

from __future__ import annotations

from typing import Literal

import typer

LOCK = "train-data"  # one of shuffle, tokenizer and pack at a time in a workspace
AS_JSON = typer.Option(False, "--json", help="Print one JSON document.")
RUN = typer.Option("main", "--run", help="Name of the run: a folder in train/runs/.")
DEVICE = typer.Option("auto", "--device", help="auto, cpu or cuda.")
CHECKPOINT = typer.Option(
    None, "--checkpoint", help="Folder of a checkpoint, or `best` (lowest loss on phrasing); default: the run's newest."
)
Device = Literal["auto", "cpu", "cuda"]
