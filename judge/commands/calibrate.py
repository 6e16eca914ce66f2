"""`judge label` and `judge calibrate`: labels that people make, and a judging beside them.

Guarantees: whoever labels sees no verdict; standard output has the result alone; texts that models wrote cannot move the
terminal's cursor. Cost: what they need is imported when they run, so `--help` answers at once.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NoReturn

import typer

from foundation.console import emit_json, plain, say, table
from foundation.errors import UsageError
from judge.commands.agree import SHOWN, interval, show_confusion, show_disagreements, show_notes


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command("label")(label_command)
    app.command("calibrate")(calibrate_command)


def label_command(
    answers: Path = typer.Option(..., "--answers", help="What `trainer answer` wrote.", metavar="FILE"),
    labels: Path | None = typer.Option(
        None, "--labels", help="Where the labels go, a line each; one that exists is added to.", metavar="FILE"
    ),
    sheet: Path | None = typer.Option(
        None, "--sheet", help="Write a CSV to fill in with a spreadsheet instead.", metavar="FILE.csv"
    ),
    count: int = typer.Option(100, "-n", "--count", min=1, help="Answers to label, drawn at random."),
    seed: int = typer.Option(1, "--seed", help="Which ones are drawn."),
    annotator: str = typer.Option("", "--annotator", help="Who labels, where several people do."),
    split: Literal["train", "phrasing", "unseen"] | None = typer.Option(None, "--split", help="Of this split alone."),
    family: str = typer.Option("", "--family", help="Of this prompt family alone."),
) -> None:
    """Label answers right or wrong, without seeing the judge's verdict: p, f, s(kip), b(ack), q(uit)."""
    from judge.files import read_answers
    from judge.label import sample

    if (labels is None) == (sheet is None):
        raise UsageError("name one place for the labels", mend="--labels FILE to label here, or --sheet FILE.csv")
    found = [
        answer
        for answer in read_answers(answers)[0]
        if split in (None, answer.item.split) and family in ("", answer.item.family)
    ]
    if not found:
        raise UsageError(
            "no answer is of that split and family", where=str(answers), mend="leave out --split or --family"
        )
    chosen = sample(found, count, seed)
    target = labels or sheet
    assert target is not None
    if target.exists() and target.samefile(answers):
        raise UsageError("this is the file of answers", where=str(target), mend="name another file for the labels")
    if not target.absolute().parent.is_dir():
        raise UsageError(
            "the folder for the labels does not exist", where=str(target), mend="make it, or mend the name"
        )
    if labels:
        _label(chosen, labels, annotator.strip())
    else:
        _sheet(chosen, target, annotator.strip())


def _label(chosen: list[Any], path: Path, annotator: str) -> None:
    from judge.label import Session, keyboard, opened

    signal.signal(signal.SIGTERM, _interrupt)  # as Ctrl-C: the terminal gets its manners back
    width = max(40, min(100, shutil.get_terminal_size((100, 24)).columns))
    with opened(path, annotator) as book:
        with keyboard() as keys:
            session = Session(chosen, book, keys, width)
            if session.done:
                say(f"{session.done:,} of {len(chosen):,} are labelled already")
            try:
                session.run()
            finally:
                left = len(chosen) - session.done
                say(f"\n{session.done:,} of {len(chosen):,} labelled, in {path}")
        if left:
            print(f"{left:,} left: the same command goes on from here")
        else:
            print(f"all {len(chosen):,} labelled; now: judge calibrate --labels {path} --verdicts FILE")


def _interrupt(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _sheet(chosen: list[Any], path: Path, annotator: str) -> None:
    from foundation.store import LocalStore
    from judge.label import sheet

    if path.exists():
        raise UsageError(
            "this file exists, and may hold labels", where=str(path), mend="name another one, or remove it"
        )
    LocalStore(path.absolute().parent).put(path.name, sheet(chosen, annotator))
    print(f"{len(chosen):,} rows in {path}: write PASS or FAIL in the column label, and save it as CSV")


def calibrate_command(
    labels: Path = typer.Option(
        ..., "--labels", help="What `judge label` wrote; JSONL or CSV with item_id, label and answer.", metavar="FILE"
    ),
    verdicts: Path = typer.Option(..., "--verdicts", help="What `judge run` wrote.", metavar="FILE"),
    answers: Path | None = typer.Option(
        None, "--answers", help="The answers that were judged; default: what the summary names.", metavar="FILE"
    ),
    out: Path | None = typer.Option(None, "--out", help="Write the JSON document here as well.", metavar="FILE.json"),
    within: float = typer.Option(
        5.0, "--within", min=0.1, max=50, help="Say how many labels give the pass rate to so many percentage points."
    ),
    show: int = typer.Option(SHOWN, "--show", min=0, help="Disagreements to show."),
    as_json: bool = typer.Option(False, "--json", help="Print all of it as one JSON document."),
) -> None:
    """Compare a judging with people's labels: whether it can be believed, and its pass rate corrected by them."""
    from judge.agree import read_judging
    from judge.calibrate import calibrate
    from judge.label import read_labels

    if out and not out.absolute().parent.is_dir():
        raise UsageError("the folder for the result does not exist", where=str(out), mend="make it, or mend --out")
    judging = read_judging(verdicts, answers)
    if out and out.exists() and any(out.samefile(one) for one in (labels, verdicts, judging.answers)):
        raise UsageError("--out names a file that is read", where=str(out), mend="name another file")
    found, blank = read_labels(labels)
    document = calibrate(judging, found, labels, blank=blank, within=within)
    if out:
        _write(out, document)
    if as_json:
        emit_json(document)
    else:
        _show(document, show)


def _write(out: Path, document: dict[str, Any]) -> None:
    import json

    from foundation.store import LocalStore

    text = json.dumps(document, ensure_ascii=False, indent=1) + "\n"
    LocalStore(out.absolute().parent).put(out.name, text.encode("utf-8", "backslashreplace"))


def _show(document: dict[str, Any], limit: int) -> None:
    from foundation.splits import split_name
    from judge.agree import percent

    grader = document["grader"] or {}
    print(plain(f"{document['verdicts']}: {grader.get('name', '?')} ({grader.get('about', '?')})"))
    labels = document["labels"]
    print(f"{labels['compared']:,} of {labels['labels']:,} labels compared\n")
    show_confusion(document["confusion"], "people", "judge")
    print()
    lines = [_row("all", document)]
    lines += [_row(split_name(name), own) for name, own in document["by_split"].items()]
    lines += [_row(name, own) for name, own in document["by_family"].items()]
    heads = ("labelled answers", "number", "agreement (95 %)", "kappa (95 %)", "of right ones it passes")
    table((*heads, "of wrong ones it passes", "people pass"), lines)
    for pair in document["annotators"]:
        one, other = (name or "(no name)" for name in pair["annotators"])
        agreement = pair["agreement"]
        text = (
            f"{one} and {other} agree on {percent(agreement)} of {agreement['of']:,}, kappa {interval(pair['kappa'])}"
        )
        print(plain(f"\n{text}"))
    show_disagreements(document["disagreements"], limit, (("people", "people"), ("judge", "judge")))
    show_notes(document["bottom_line"])


def _row(name: str, own: Mapping[str, Any]) -> tuple[object, ...]:
    from judge.agree import percent

    if "agreement" not in own:
        return (plain(name), str(own["n"]), "too few", "", "", "", "")
    rates = [percent(own[key], "pass_rate") for key in ("tpr", "fpr", "people_passed")]
    return (plain(name), str(own["n"]), percent(own["agreement"]), interval(own["kappa"]), *rates)
