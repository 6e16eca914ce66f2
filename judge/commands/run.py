"""`judge run`.

Guarantees: standard output has the result alone. Cost: the graders are imported when it runs, so `--help` answers at once.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import typer

from foundation.console import emit_json, say, table
from foundation.errors import UsageError

if TYPE_CHECKING:
    from judge.stats import Rate


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command("run")(run_command)


def run_command(
    answers: Path = typer.Option(..., "--answers", help="What `trainer answer` wrote.", metavar="FILE"),
    out: Path = typer.Option(
        ..., "--out", help="Where the verdicts go; FILE.shuffled.jsonl and FILE.summary.json beside it.", metavar="FILE"
    ),
    backend: Literal["rules", "vllm", "openai"] | None = typer.Option(
        None, "--backend", help="Who grades; default: judge.backend of factory.toml."
    ),
    baseline: bool = typer.Option(
        True, help="Judge every question against another one's answer as well: what luck alone would pass."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the summary as one JSON document."),
) -> None:
    """Judge answers: one verdict a line, and a pass rate with its interval beside that of shuffled answers."""
    from foundation.workspace import Workspace
    from judge.llm import make_grader
    from judge.run import judge

    for number in (signal.SIGTERM, signal.SIGINT):  # Ctrl-C too: a shell's background jobs are started deaf to it
        signal.signal(number, _interrupt)
    if not out.absolute().parent.is_dir():
        raise UsageError("the folder for the verdicts does not exist", where=str(out), mend="make it, or mend --out")
    grader = make_grader(Workspace.find(), backend or "")
    say(f"grader: {grader.name} ({grader.about})")
    summary = judge(answers, out, grader, baseline=baseline)
    if summary["pass_rate"] is None:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in summary["reasons"]["UNSCORED"].items())
        say(f"no answer could be scored, so there is no pass rate ({reasons}); the reasons stand in {out}")
    emit_json(summary) if as_json else _show(summary)


def _interrupt(_number: int, _frame: object) -> NoReturn:
    """SIGTERM ends a run as Ctrl-C does: what is judged is kept, and the engine is ended."""
    raise KeyboardInterrupt


def _show(summary: dict[str, Any]) -> None:
    rows = [_row("all", summary)]
    rows += [_row(name, figures) for name, figures in summary["by_family"].items()]
    table(("answers", "PASS", "FAIL", "UNSCORED", "pass rate (95 %)", "shuffled answers"), rows)
    if summary["baseline"]:
        clear = "above" if summary["clearly_above_baseline"] else "NOT clearly above"
        say(
            f"the pass rate is {clear} that of shuffled answers; {summary['stop_rate']:.0%} of the answers came to an end"
        )


def _row(name: str, figures: dict[str, Any]) -> tuple[object, ...]:
    baseline = figures["baseline"]
    shuffled = _shown(baseline) if baseline else "–"
    return (name, *figures["counts"].values(), _shown(figures), shuffled)


def _shown(figures: dict[str, Any]) -> str:
    from judge import stats

    rate: Rate = stats.rate(figures["passed"], figures["scored"])
    return stats.shown(rate)
