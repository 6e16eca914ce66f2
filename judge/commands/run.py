"""`judge run`.

Guarantees: standard output has the result alone; what speaks against believing it is said first. Cost: the graders are
imported when it runs, so `--help` answers at once.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any, Literal, NoReturn

import typer

from foundation.console import emit_json, plain, say, table
from foundation.errors import UsageError


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command("run")(run_command)


def run_command(
    answers: Path = typer.Option(..., "--answers", help="What `trainer answer` wrote.", metavar="FILE"),
    out: Path = typer.Option(
        ...,
        "--out",
        help="Where the verdicts go; beside it FILE.shuffled.jsonl, FILE.canaries.jsonl and FILE.summary.json.",
        metavar="FILE",
    ),
    backend: Literal["rules", "vllm", "openai"] | None = typer.Option(
        None, "--backend", help="Who grades; default: judge.backend of factory.toml."
    ),
    baseline: bool = typer.Option(
        True, help="Judge every question against another one's answer as well: what luck alone would pass."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the summary as one JSON document."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Say what would be put to the grader, and stop."),
) -> None:
    """Judge answers: PASS, FAIL or UNSCORED with the reason, a pass rate, and how far to believe it.

    Every run also judges answers of known worth (canaries), a tenth of the answers three times, and other questions'
    answers. Verdicts are kept in train/verdicts.sqlite: what was judged before costs nothing, and a killed run goes on.
    """
    from foundation.workspace import Workspace
    from judge.llm import make_grader
    from judge.run import judge, preview

    for option, given in (("--answers", answers), ("--out", out)):
        if str(given) == "-":
            raise UsageError(
                f"{option} takes a file, not a stream: the files beside it are named after it", mend="name one"
            )
    if not out.absolute().parent.is_dir():
        raise UsageError("the folder for the verdicts does not exist", where=str(out), mend="make it, or mend --out")
    workspace = Workspace.find()
    grader = make_grader(workspace, backend or "")
    say(f"grader: {grader.name} ({grader.about})")
    if dry_run:
        planned = preview(answers, out, grader, workspace, baseline=baseline)
        emit_json(planned) if as_json else _show_plan(planned)
        return
    for number in (signal.SIGTERM, signal.SIGINT):  # Ctrl-C too: a shell's background jobs are started deaf to it
        signal.signal(number, _interrupt)
    summary = judge(answers, out, grader, workspace, baseline=baseline)
    for problem in summary["problems"]:
        say(plain(problem))
    emit_json(summary) if as_json else _show(summary, out)


def _interrupt(_number: int, _frame: object) -> NoReturn:
    """SIGTERM ends a run as Ctrl-C does: what is judged is kept, and the engine is ended."""
    raise KeyboardInterrupt


def _show_plan(planned: dict[str, Any]) -> None:
    names = {"answers": "answers", "votes": "votes 2 and 3 of a tenth", "baseline": "shuffled answers"}
    rows = [(names.get(part, part), *counts.values()) for part, counts in planned["parts"].items()]
    table(("", "rows", "settled by rule", "in the cache", "to be asked"), rows)
    say(f"{planned['ask']:,} requests for the grader; equal ones are asked once, and nothing has been started")


def _show(summary: dict[str, Any], out: Path) -> None:
    from foundation.splits import SPLIT_NAMES, split_name

    splits, name = summary["by_split"], summary["measure"]
    rows = [_row(split_name(one), splits[one]) for one in SPLIT_NAMES if one in splits]
    within = f"{split_name(name)}, " if name else ""
    rows += [_row(f"{within}{family}", figures) for family, figures in summary["by_family"].items()]
    headings = ("answers", "PASS", "FAIL", "UNSCORED", "pass rate (95 %)", "corrected (95 %)", "shuffled answers")
    table(headings, rows)
    _say_belief(summary, out)


def _say_belief(summary: dict[str, Any], out: Path) -> None:
    """What the judge did with answers of known worth, and with the same answer again."""
    from foundation.splits import split_name
    from judge import stats

    found, flips = summary["canaries"], summary["flips"]
    classes = found["classes"].items()
    if found["tpr"]["pass_rate"] is not None or found["fpr"]["pass_rate"] is not None:
        say(
            f"answers of known worth (canaries): the judge passes {_rate(found['tpr'])} of the right ones and "
            f"{_rate(found['fpr'])} of the wrong ones; kappa {_kappa(found['kappa'])}"
        )
    below = [_class(kind, one) for kind, one in classes if one["ok"] is False]
    few = [kind for kind, one in classes if one["floor"] is not None and one["ok"] is None]
    undeclared = [_class(kind, one) for kind, one in classes if one["floor"] is None]
    for label, kinds in (
        ("judged rightly, below the floor", below),
        ("too few to be held to their floor", few),
        ("judged rightly, without a floor", undeclared),
    ):
        if kinds:
            say(f"canaries {label}: {', '.join(kinds)}")
    if flips["repeated"]:
        rate = _span(flips["rate"], flips["low"], flips["high"])
        say(f"of {flips['repeated']:,} answers judged three times {flips['flipped']:,} got two verdicts: {rate}")
    main = summary["by_split"][summary["measure"]] if summary["measure"] else summary
    if main["clustered"] and main["pass_rate"] is not None:
        reach = _span(main["pass_rate"], main["clustered"]["low"], main["clustered"]["high"])
        what = split_name(summary["measure"]) if summary["measure"] else "all"
        say(f"{what}, over {len(summary['by_article']):,} articles whose questions stand or fall together: {reach}")
    if main["baseline"] and main["pass_rate"] is not None:
        clear = stats.clearly_above(*(stats.rate(one["passed"], one["scored"]) for one in (main, main["baseline"])))
        say(f"its pass rate is {'above' if clear else 'NOT clearly above'} that of shuffled answers")
    say(
        f"{100 * main['stop_rate']:.0f} % of its answers came to an end; verdicts made: {summary['graded']:,}, "
        f"known before: {summary['reused']:,}"
    )
    say(f"`judge report {out}` shows them on a page")


def _row(name: str, figures: dict[str, Any]) -> tuple[object, ...]:
    corrected, baseline = figures.get("corrected"), figures["baseline"]
    better = _span(corrected["value"], corrected["low"], corrected["high"]) if corrected else ""
    return (plain(name), *figures["counts"].values(), _rate(figures), better, _rate(baseline) if baseline else "")


def _rate(figures: dict[str, Any]) -> str:
    return _span(figures["pass_rate"], figures["low"], figures["high"])


def _span(value: float | None, low: float | None, high: float | None) -> str:
    """`41.2 % (34.0–48.8)`, or a dash where there is no figure."""
    if value is None or low is None or high is None:
        return "–"
    return f"{100 * value:.1f} % ({100 * low:.1f}–{100 * high:.1f})"


def _kappa(kappa: dict[str, float] | None) -> str:
    return f"{kappa['value']:.2f} ({kappa['low']:.2f}–{kappa['high']:.2f})" if kappa else "–"


def _class(kind: str, found: dict[str, Any]) -> str:
    silent = f" ({found['unscored']:,} unscored)" if found["unscored"] else ""
    return f"{kind} {found['right']:,} of {found['n'] - found['unscored']:,}{silent}"
