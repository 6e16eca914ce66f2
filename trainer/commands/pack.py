"""`trainer pack`.

Guarantees: one of the data commands at a time in a workspace; one that fails leaves the former result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from foundation.console import emit_json, say, table
from trainer.commands.options import AS_JSON, LOCK

if TYPE_CHECKING:
    from trainer.pack import PackMeta


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("pack")(pack_command)


def pack_command(as_json: bool = AS_JSON) -> None:
    """Tokenise the shuffled records and pack them into contexts; writes train/packs."""
    from foundation.workspace import Workspace
    from trainer.pack import pack

    workspace = Workspace.find()
    with workspace.lock(LOCK, wait=False):
        metas = pack(workspace)
    if as_json:
        emit_json({"splits": {meta.split: meta.figures() for meta in metas}})
        return
    _show_packs(metas)


def _show_packs(metas: list[PackMeta]) -> None:
    first = metas[0]
    headings = ("split", "records", "contexts", "tokens", "full", "records/context", "trained on", "too long")
    rows = []
    for meta in metas:
        figures = meta.figures()
        per_context, share = figures["records_per_context"], f"{meta.supervised / max(1, meta.tokens):.1%}"
        rows.append(
            (
                meta.split,
                meta.records,
                meta.packs,
                meta.tokens,
                f"{meta.efficiency:.2%}",
                per_context,
                share,
                meta.too_long,
            )
        )
        if meta.too_long:
            say(
                f"{meta.split}: {meta.too_long:,} records are longer than the context of {meta.context} (the longest: {meta.longest:,} tokens)"
            )
    table(headings, rows, title=f"contexts of {first.context:,} tokens, vocabulary {first.vocabulary:,}")
