"""`factory report`: one HTML page on what the workspace holds.

Guarantees: the page is put in place whole or not at all; standard output has its path (with `--json` one document).
Cost: nothing heavy is imported until the command runs; then one pass over the workspace.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from generator.report.collect import Report


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command("report")(report)


def report(
    out: Path | None = typer.Option(
        None, "--out", metavar="FILE", help="Where to write it; default: report.html in the workspace."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the path and the main figures as one JSON document."),
) -> None:
    """Write one self-contained HTML page: corpus, generation, packing, training, pass rates, examples."""
    from foundation.console import emit_json, progress
    from foundation.errors import UsageError
    from foundation.store import LocalStore
    from foundation.workspace import Workspace
    from generator.report.collect import collect
    from generator.report.page import render

    workspace = Workspace.find()
    path = (out or workspace.root / "report.html").absolute()
    if path.is_dir():
        raise UsageError("that is a folder", where=str(path), mend="name a file: --out FILE")
    with progress("units read") as bar:
        data = collect(workspace, bar.advance)
    # A file may hold half of a surrogate pair; it is shown as an escape, since UTF-8 has no place for it.
    page = render(data, path.parent).encode("utf-8", "backslashreplace")
    LocalStore(path.parent).put(path.name, page)
    if as_json:
        emit_json({"path": str(path), "bytes": len(page), **figures(data)})
    else:
        print(path)


def figures(data: Report) -> dict[str, Any]:
    """The page's main figures; None or empty for what is not there yet."""
    total = data.generation.total
    run = data.student.runs[0] if data.student.runs else None
    scored = data.student.scored
    return {
        "articles": data.corpus.articles,
        "articles_unseen": len(data.corpus.unseen),
        "snippets": data.corpus.snippets,
        "blocks": data.corpus.blocks,
        "words": data.corpus.words,
        "units": total.units,
        "items": total.items,
        "items_accepted": total.accepted,
        "items_rejected": total.rejected,
        "records": total.records,
        "prompt_types": len(data.generation.types),
        "prompt_tokens": total.prompt_tokens,
        "completion_tokens": total.completion_tokens,
        "packs": {
            packs.split: {"records": packs.records, "efficiency": packs.efficiency} for packs in data.student.packs
        },
        "run": run.name if run else None,
        "losses": run.losses if run else {},
        "rounds": [
            {
                "round": one.round,
                "split": one.split,
                "pass_rate": one.pass_rate,
                "corrected": one.corrected,
                "baseline": one.baseline,
                "believed": one.believed,
                "problems": one.problems,
            }
            for one in (scored.rounds if scored else [])
        ],
    }
