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


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("shuffle")(shuffle_command)


def shuffle_command(
    seed: int | None = typer.Option(None, min=0, help="Seed of the order; default: train.seed of factory.toml."),
    as_json: bool = AS_JSON,
) -> None:
    """Shuffle the committed records into train/shuffled, split by split."""
    from foundation.workspace import Workspace
    from trainer.shuffle import shuffle

    workspace = Workspace.find()
    with workspace.lock(LOCK, wait=False):
        meta = shuffle(workspace, workspace.settings.train.seed if seed is None else seed)
    _name_left_out(meta)
    if as_json:
        emit_json(meta.model_dump(mode="json", exclude={"v"}))
        return
    left_out = {"withdrawn": meta.withdrawn, "broken lines": meta.broken_lines, "without an answer": meta.unanswered}
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
