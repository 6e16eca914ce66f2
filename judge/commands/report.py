"""`judge report`: one HTML page on one judging, or on several side by side.

Guarantees: the page is put in place whole or not at all; standard output has its path (with `--json` one document).
Cost: nothing heavy is imported until the command runs; then 0.5 s for 600 answers, most of it imports.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from judge.report.collect import Judging


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command("report")(report)


def report(
    verdicts: list[Path] = typer.Argument(
        None,
        metavar="VERDICTS",
        help="Files that `judge run --out` wrote; default: the newest of the workspace. Of several each is compared with the first.",
        show_default=False,
    ),
    out: Path | None = typer.Option(
        None, "--out", metavar="FILE", help="Where to write the page; default: FILE.html beside the first VERDICTS."
    ),
    title: str = typer.Option("", "--title", metavar="TEXT", help="The page's heading; default: by checkpoint."),
    answers: list[Path] = typer.Option(
        [], "--answers", metavar="FILE", help="Where the judged answers are now, if they were moved; may be repeated."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the path and the main figures as one JSON document."),
) -> None:
    """Write one self-contained HTML page: the score, how far to believe it, and every answer, filterable."""
    from foundation.console import emit_json, plain, say
    from foundation.errors import UsageError
    from foundation.store import LocalStore
    from judge.report.collect import collect, newest
    from judge.report.page import comparisons, render

    if not verdicts:
        from foundation.workspace import Workspace

        workspace = Workspace.find()
        verdicts = [newest(workspace.root, workspace.train)]
        say(f"the newest judging: {verdicts[0]}")
    path = (out or verdicts[0].with_name(f"{verdicts[0].name}.html")).absolute()
    for gone in (one for one in answers if not one.is_file()):
        raise UsageError("there is no such file of answers", where=str(gone), mend="mend --answers")
    if path.is_dir():
        raise UsageError("that is a folder", where=str(path), mend="name a file: --out FILE")
    if not path.parent.is_dir():
        raise UsageError("the folder for the page does not exist", where=str(path), mend="make it, or mend --out")
    judgings = collect(verdicts, answers)
    kept = {file.resolve() for one in judgings for file in (*one.files, one.answers)}
    if path.resolve() in kept:
        raise UsageError("--out names a file that the page is made from", where=str(path), mend="name another file")
    page = render(judgings, title).encode()
    LocalStore(path.parent).put(path.name, page)
    for one in judgings:
        for problem in one.summary.get("problems") or ():
            say(f"mind: {plain(str(problem))} ({one.path})")
    if as_json:
        emit_json(
            {
                "path": str(path),
                "bytes": len(page),
                "judgings": [figures(one) for one in judgings],
                "comparisons": _compared(comparisons(judgings)),
            }
        )
    else:
        print(path)


def figures(judging: Judging) -> dict[str, Any]:
    """The main figures of one judging; those that are refused are None."""
    summary = judging.summary
    names = (
        "valid",
        "refused",
        "problems",
        "counts",
        "pass_rate",
        "low",
        "high",
        "corrected",
        "clustered",
        "stop_rate",
    )
    return {
        "verdicts": str(judging.path),
        "answers": str(judging.answers),
        "checkpoints": summary.get("checkpoints"),
        "grader": summary["grader"]["name"],
        "rows": len(judging.rows),
        "articles": judging.articles_of(),
        **{name: summary.get(name) for name in names},
        "by_split": {
            name: {key: one.get(key) for key in ("pass_rate", "low", "high", "corrected", "clustered")}
            for name, one in (summary.get("by_split") or {}).items()
        },
    }


def _compared(found: Sequence[Any]) -> list[dict[str, Any]]:
    from dataclasses import asdict

    return [
        {
            "first": str(one.one.path),
            "second": str(one.other.path),
            "warning": one.warning,
            "changes": [asdict(change) for change in one.changes],
        }
        for one in found
    ]
