"""Options that several `trainer` commands share. Cost: nothing heavy is imported."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Literal

import typer

if TYPE_CHECKING:
    from foundation.records import Split

LOCK = "train-data"  # one of shuffle, tokenizer and pack at a time in a workspace
AS_JSON = typer.Option(False, "--json", help="Print one JSON document.")
RUN = typer.Option("main", "--run", help="Name of the run: a folder in train/runs/.")
DEVICE = typer.Option("auto", "--device", help="auto, cpu or cuda.")
CHECKPOINT = typer.Option(
    None,
    "--checkpoint",
    help="Folder of a checkpoint, `best` (lowest loss on held-out phrasings) or `best-judged` (highest pass rate on them); "
    "default: the run's newest.",
)
Device = Literal["auto", "cpu", "cuda"]
ALL: tuple[Split, ...] = ("phrasing", "unseen", "train")


class Asked(StrEnum):
    """What `--split` takes, given once or more: typer knows no list of literals."""

    phrasing = "phrasing"
    unseen = "unseen"
    train = "train"
    all = "all"


def splits_of(asked: list[Asked]) -> list[Split]:
    """The splits that `--split` names, in its order, each once; `all` is all of them."""
    named: list[Split] = []
    for one in asked:
        named += [split for split in ALL if one in (split, Asked.all)]
    return list(dict.fromkeys(named))
