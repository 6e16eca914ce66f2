"""`trainer shuffle`.

Guarantees: one of the data commands at a time in a workspace; one that fails leaves the former result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from foundation.console import emit_json, say, table
from trainer.commands.options import AS_JSON, LOCK

if TYPE_CHECKING:
    from trainer.shuffle import ShuffleMeta

LISTS = {"v", "sizes"}  # not for people, nor for `--json`


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("shuffle")(shuffle_command)


def shuffle_command(
    seed: int | None = typer.Option(None, min=0, help="Seed of the order; default: train.seed of factory.toml."),
    share: str = typer.Option(
        "",
        help="Share of the train split to take, 10% or 0.1: a larger one holds a smaller one's; default: train.share.",
    ),
    memory: str = typer.Option("256M", help="Memory to stay within, all processes together; at least 64M."),
    as_json: bool = AS_JSON,
) -> None:
    """Shuffle the committed records into train/shuffled, split by split."""
    from foundation import quantities
    from foundation.workspace import Workspace
    from trainer.shuffle import shuffle

    limit, part = quantities.size_bytes(memory), quantities.share(share) if share else 0.0
    workspace = Workspace.find()
    settings = workspace.settings.train
    with workspace.lock(LOCK, wait=False):
        meta = shuffle(
            workspace,
            settings.seed if seed is None else seed,
            share=part or settings.share,
            share_key=settings.share_key,
            memory=limit,
        )
    _name_left_out(meta)
    if as_json:
        emit_json(meta.model_dump(mode="json", exclude=LISTS))
        return
    left_out = {"withdrawn": meta.withdrawn, "broken lines": meta.broken_lines, "without an answer": meta.unanswered}
    if meta.share < 1:
        left_out[f"outside the share of {meta.share:.4g}"] = meta.not_shared
    table(("shuffled", ""), {"shards": meta.shards, **meta.records, **left_out, "seed": meta.seed}.items())


def _name_left_out(meta: ShuffleMeta) -> None:
    for kind, count, named in (
        ("broken line", meta.broken_lines, meta.broken),
        ("record without an answer", meta.unanswered, meta.unanswered_records),
    ):
        for name in named:
            say(f"left out, {kind}: {name}")
        if count > len(named):
            say(f"... and {count - len(named):,} more")
