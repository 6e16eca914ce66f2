"""`factory init` and `factory ingest`: a workspace, and its corpus.

Guarantees: standard output has the summary alone (with `--json` one document). Cost: nothing heavy is imported until a
command runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from generator.ingest.run import Summary


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command("init")(init)
    app.command("ingest")(ingest)


def init(
    directory: Path = typer.Argument(..., metavar="DIR", help="A new folder, or one that is no workspace yet."),
) -> None:
    """Make a workspace: a folder with a factory.toml that explains every setting."""
    from foundation.console import say
    from foundation.workspace import Workspace

    workspace = Workspace.init(directory)
    print(workspace.root)
    say(f"a new workspace; next: cd {directory} && factory ingest PATH")


def ingest(
    paths: list[Path] = typer.Argument(
        ..., metavar="PATH...", help="Files or folders: .txt, .md, .jsonl, MediaWiki .xml and .xml.bz2."
    ),
    titles: Path | None = typer.Option(
        None, "--titles", metavar="FILE", help="Keep these titles only: one a line, # begins a comment."
    ),
    source: str | None = typer.Option(
        None, "--source", metavar="NAME", help="Name of the collection, where a file does not say its own."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the summary as one JSON document."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Read and count; write nothing."),
) -> None:
    """Read text into the corpus: articles, sentences, snippets, blocks."""
    from foundation.console import emit_json
    from foundation.workspace import Workspace
    from generator.ingest.run import ingest as run

    summary = run(Workspace.find(), paths, titles=titles, source=source, dry_run=dry_run)
    if as_json:
        emit_json(summary.document())
    else:
        _print(summary)


def _print(summary: Summary) -> None:
    from foundation.console import table

    rows: list[tuple[str, int | str]] = [("files", summary.files), ("pages read", summary.read)]
    rows += [(f"  {name}", getattr(summary, name)) for name in ("new", "edited", "unchanged")]
    rows += [(f"  skipped: {reason}", count) for reason, count in summary.skipped.most_common()]
    rows += [("articles repaired", summary.repaired), ("sentences kept", summary.sentences)]
    rows += [(f"  dropped: {reason}", count) for reason, count in summary.dropped.most_common()]
    rows += [
        ("new snippets", summary.snippets),
        ("  kept of edited articles", summary.kept),
        ("  duplicates dropped", summary.duplicates),
    ]
    rows += [("  withdrawn by edits", summary.retired), ("new blocks", summary.blocks)]
    if summary.titles_missing:
        rows.append(("titles not found", len(summary.titles_missing)))
    table(("ingested" if not summary.dry_run else "would be ingested", "count"), rows)
