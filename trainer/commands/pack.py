"""`trainer pack`, and `trainer mix` behind it.

Guarantees: one of the data commands at a time in a workspace; one that fails leaves the former result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from foundation.console import emit_json, say, table
from trainer.commands import mix
from trainer.commands.options import AS_JSON, LOCK

if TYPE_CHECKING:
    from trainer.pack import PackMeta


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command("pack")(pack_command)
    mix.register(app)


def pack_command(
    raw: bool | None = typer.Option(
        None, "--raw/--no-raw", help="Pack the articles' own text too; default: if the mix asks for it."
    ),
    as_json: bool = AS_JSON,
) -> None:
    """Tokenise the shuffled records into train/packs, and show how full contexts they make."""
    from foundation.workspace import Workspace
    from trainer.pack import pack
    from trainer.presets import recipe

    workspace = Workspace.find()
    with workspace.lock(LOCK, wait=False):
        metas = pack(workspace, raw=raw)
    batch = recipe(workspace.settings.train).batch
    for meta in metas:
        _name_left_out(meta)
    if as_json:
        splits = {meta.split: {**meta.figures(), "records_per_step": records_per_step(meta, batch)} for meta in metas}
        emit_json({"batch": batch, "splits": splits})
        return
    _show_packs(metas, batch)


def records_per_step(meta: PackMeta, batch: int) -> float:
    """Records that one optimizer step of `batch` contexts is taken over."""
    return round(meta.records / max(1, meta.packs) * min(batch, max(1, meta.packs)), 1)


def _show_packs(metas: list[PackMeta], batch: int) -> None:
    first = metas[0]
    headings = ("split", "records", "contexts", "tokens", "full", "records/context", "trained on", "left out")
    rows: list[tuple[object, ...]] = []
    for meta in metas:
        full, per_context = f"{meta.efficiency:.2%}", f"{meta.records / max(1, meta.packs):.1f}"
        trained = f"{meta.supervised / max(1, meta.tokens):.1%}"
        left_out = meta.too_long + meta.unanswered
        rows.append((meta.split, meta.records, meta.packs, meta.tokens, full, per_context, trained, left_out))
        if meta.raw_documents:
            rows.append(("  of it raw text", meta.raw_documents, "", meta.raw_tokens, "", "", "100.0%", ""))
    title = (
        f"contexts of {first.context:,} tokens, vocabulary {first.vocabulary:,}; "
        f"a step of {batch} contexts is {records_per_step(first, batch):,.0f} records"
    )
    table(headings, rows, title=title)


def _name_left_out(meta: PackMeta) -> None:
    for why, count, named in (
        (f"longer than the context of {meta.context}", meta.too_long, meta.too_long_records),
        ("nothing to train on", meta.unanswered, meta.unanswered_records),
    ):
        for name in named:
            say(f"left out of {meta.split}, {why}: {name}")
        if count > len(named):
            say(f"... and {count - len(named):,} more of {meta.split}, {why}")
