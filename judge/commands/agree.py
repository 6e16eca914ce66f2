"""`judge agree`.

Guarantees: standard output has the result alone; texts that models wrote cannot move the terminal's cursor.
Cost: what it reads is imported when it runs, so `--help` answers at once.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from foundation.console import emit_json, plain, table
from foundation.errors import UsageError

SHOWN = 10  # disagreements on a terminal, unless asked for more


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command("agree")(agree_command)


def agree_command(
    first: Path = typer.Argument(..., metavar="A", help="Verdicts that `judge run` wrote."),
    second: Path = typer.Argument(..., metavar="B", help="Those of another grader on the same answers."),
    answers: Path | None = typer.Option(
        None, "--answers", help="The answers both judged; default: what each summary names.", metavar="FILE"
    ),
    show: int = typer.Option(SHOWN, "--show", min=0, help="Disagreements to show."),
    as_json: bool = typer.Option(False, "--json", help="Print all of it as one JSON document."),
) -> None:
    """Compare two judges of the same answers: how often they agree, beyond chance, and which one passes more."""
    from judge.agree import agree, read_judging

    if first.exists() and second.exists() and first.samefile(second):
        raise UsageError(
            "this is one file twice, and agrees with itself",
            where=str(first),
            mend="name two judgings: `judge run --answers FILE --out OTHER`, with another --backend or judge.model",
        )
    document = agree(read_judging(first, answers), read_judging(second, answers))
    if as_json:
        emit_json(document)
    else:
        _show(document, show)


def _show(document: dict[str, Any], limit: int) -> None:
    from foundation.splits import split_name
    from judge.agree import percent

    for name in ("a", "b"):
        about = document[name]
        grader = about["grader"] or {}
        print(plain(f"{name.upper()}  {about['verdicts']}: {grader.get('name', '?')} ({grader.get('about', '?')})"))
        told = "its score is refused" if about["refused"] else f"passes {percent(about, 'pass_rate')}"
        print(plain(f"   fingerprint {about['fingerprint']}, {told}"))
    rows = document["rows"]
    told = f"\n{rows['common']:,} answers in common"
    for key, text in (
        ("answered_differently", "questions answered differently"),
        ("only_a", "questions only in A"),
        ("only_b", "questions only in B"),
    ):
        told += f", {rows[key]:,} {text}" if rows[key] else ""
    print(told + "\n")
    show_confusion(document["confusion"], "A", "B")
    print()
    lines = [_row("all", document)]
    lines += [_row(split_name(name), own) for name, own in document["by_split"].items()]
    lines += [_row(name, own) for name, own in document["by_family"].items()]
    heads = ("answers", "both scored", "agreement (95 %)", "kappa (95 %)", "A's pass rate less B's, points (95 %)")
    table((*heads, "only A passes", "only B passes", "p"), lines)
    show_disagreements(document["disagreements"], limit, (("A", "a"), ("B", "b")))
    show_notes(document["notes"])


def _row(name: str, own: Mapping[str, Any]) -> tuple[object, ...]:
    from judge.agree import percent

    if "agreement" not in own:
        return (plain(name), str(own["n"]), "too few", "", "", "", "", "")
    gap = own["difference"]
    return (
        plain(name),
        str(own["agreement"]["of"]),
        percent(own["agreement"]),
        interval(own["kappa"]),
        "–" if gap is None else f"{100 * gap['value']:+.1f} ({100 * gap['low']:+.1f} to {100 * gap['high']:+.1f})",
        str(own["only_first_passes"]),
        str(own["only_second_passes"]),
        "–" if own["mcnemar_p"] is None else f"{own['mcnemar_p']:.2g}",
    )


def interval(estimate: Mapping[str, float] | None) -> str:
    """`0.71 (0.55 to 0.87)`, or a dash."""
    return "–" if estimate is None else f"{estimate['value']:.2f} ({estimate['low']:.2f} to {estimate['high']:.2f})"


def show_confusion(counts: Mapping[str, Mapping[str, int]], rows: str, columns: str) -> None:
    """Counts by what the one said (down) and the other (across)."""
    heads = [f"{columns}: {word}" for word in next(iter(counts.values()))]
    table(("", *heads), [(f"{rows}: {word}", *own.values()) for word, own in counts.items()])


def show_disagreements(rows: Sequence[Mapping[str, Any]], limit: int, sides: Sequence[tuple[str, str]]) -> None:
    """The first `limit` of the rows two sides disagree about; `sides`: what each is called, and its key in a row."""
    from foundation.splits import split_name
    from judge.label import field

    width = max(40, min(120, shutil.get_terminal_size((100, 24)).columns))
    if rows:
        few = f", of which --show shows {limit:,}" if len(rows) > limit else ""
        print(f"\n{len(rows):,} disagreement{'s'[: len(rows) > 1]}{few}:")
    for number, row in enumerate(rows[:limit], 1):
        print(plain(f"\n{number}. {split_name(row['split'])}, {row['family']}, {row['item_id']}"))
        for name in ("question", "reference", "answer"):
            print(field(name, row[name], width))
        for called, key in sides:
            side = row[key] if isinstance(row[key], Mapping) else row
            word = row[key] if isinstance(row[key], str) else side["verdict"]
            more = "" if key == "people" else f" {side['reason']}: {side['explanation']}".replace(" : ", " ")
            print(field(called, word + more, width))
        for note in row.get("notes", ()):
            print(field("note", note, width))


def show_notes(notes: Sequence[str]) -> None:
    """What it all means, wrapped."""
    import textwrap

    width = max(40, min(120, shutil.get_terminal_size((100, 24)).columns))
    print()
    for note in notes:
        print(textwrap.fill(plain(note), width, initial_indent="- ", subsequent_indent="  "))
