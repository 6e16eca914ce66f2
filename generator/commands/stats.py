"""`factory stats`: what came of each prompt type, what it cost, how varied it is, and what comes twice.

Guarantees: read from the committed shards and their rejects, by the code that writes the report; standard output has the
tables alone (with `--json` one document, which has every figure). Of a few prompt types each figure is shown, of many the ones that tell
where to look. Cost: that of `generator.report.survey`, about 70 µs of CPU a record, shared out among up to four processes.
"""

from __future__ import annotations

from typing import Any

import typer

SHOWN = 4  # reasons a line of the table has room for
DETAILED = 6  # prompt types, at most, of which every figure is shown
LONGEST = 160  # characters of an example
Row = dict[str, Any]


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command("stats")(stats)


def stats(
    prompt_type: list[str] = typer.Option(
        [], "--prompt-type", metavar="T", help="An id or a family; may be repeated. Of up to six types every figure."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document."),
) -> None:
    """Say what was accepted and rejected and why, what it cost, how varied the texts are, and which come twice."""
    from foundation.console import emit_json, progress
    from foundation.workspace import Workspace
    from generator.report.figures import document
    from generator.report.generation import chosen_types
    from generator.report.survey import survey

    workspace = Workspace.find()
    wanted = chosen_types(workspace, prompt_type, workspace.store.list("shards"))
    with progress("units read") as bar:
        found = document(survey(workspace.store, wanted, bar.advance))
    if as_json:
        emit_json(found)
    else:
        _print(found)


def _print(found: Row) -> None:
    rows: list[Row] = found["prompt_types"]
    if not rows:
        print("nothing is committed yet; next: factory enqueue, then factory run")
        return
    _outcome(rows, found["total"])
    if len(rows) <= DETAILED:
        _spent(rows)
        written = [row for row in rows if row["records"]]
        if written:
            _variety(written)
            _lengths(written)
    else:
        _texts(rows)
    _options(rows)
    _duplicates(found, rows)
    for line in found["warnings"]:
        print(f"\nWARNING: {line}")
    if found["warnings"]:
        print(
            "  a type that asks for one form has it by nature; otherwise give its prompt more ways to ask, or more heat"
        )
    if found["broken_lines"]:
        print(f"\n{found['broken_lines']:,} broken lines were passed over; `factory report` names the first")


def _outcome(rows: list[Row], total: Row) -> None:
    from foundation.console import table

    cells = [
        (
            *(row[name] for name in ("prompt_type", "items", "accepted", "rejected")),
            _share(row["accept_rate"]),
            row["records"],
        )
        for row in (*rows, total | {"prompt_type": "all"})
    ]
    told = [*(_reasons(row["rejects"]) for row in rows), ""]
    headings = ("prompt type", "items", "accepted", "rejected", "rate", "records", "rejects by gate/code")
    table(headings, [(*cell, reasons) for cell, reasons in zip(cells, told, strict=True)])
    if any(sum(one["count"] for one in row["rejects"]) != row["rejected"] for row in rows):
        print(
            "\nwhat is asked about entry by entry has a reject an entry: these codes may add up to more than its rejected items"
        )


def _texts(rows: list[Row]) -> None:
    """One line a type: what tells where to look."""
    from foundation.console import table

    print()
    table(
        (
            "prompt type",
            "tokens a record",
            "question",
            "answer",
            "distinct-2",
            "commonest opening",
            "commonest skeleton",
            "twice",
        ),
        [
            (
                row["prompt_type"],
                "" if row["tokens_per_record"] is None else round(row["tokens_per_record"]),
                _lasting(row["lengths"]["question_words"]),
                _lasting(row["lengths"]["answer_words"]),
                _share(row["variety"].get("distinct_2")),
                *(_commonest(row["variety"].get(name)) for name in ("opening", "skeleton")),
                _share(row["duplicates"]["share"], 1),
            )
            for row in rows
            if row["records"]
        ],
    )
    print("question, answer: median words. twice: exact and near duplicates. `--prompt-type T` shows every figure")


def _spent(rows: list[Row]) -> None:
    from foundation.console import table

    if not any(row["prompt_tokens"] for row in rows):
        return  # the rules teacher has no tokens
    print()
    names = ("prompt_tokens", "completion_tokens", "seconds", "tokens_per_record")
    headings = ("prompt type", "prompt tokens", "completion tokens", "teacher seconds", "tokens a record")
    table(headings, [(row["prompt_type"], *(row[name] for name in names)) for row in rows])


def _variety(rows: list[Row]) -> None:
    from foundation.console import table

    print()
    headings = (
        "prompt type",
        "what",
        "questions",
        "distinct-1, 2, 3",
        "different",
        "entropy",
        "evenness",
        "share",
        "commonest",
    )
    cells = []
    for row in rows:
        varied = row["variety"]
        for name in ("opening", "skeleton") if varied else ():
            one = varied[name]
            grams = " ".join(_share(varied[f"distinct_{n}"]) for n in (1, 2, 3))
            first = (row["prompt_type"], name, varied["questions"], grams)
            told = (one["different"], f"{one['entropy']:.1f} bits", _share(one["evenness"]), _share(one["share"]))
            cells.append((*(first if name == "opening" else ("", name, "", "")), *told, one["commonest"]))
    table(headings, cells)


def _lengths(rows: list[Row]) -> None:
    from foundation.console import table

    print()
    marks = ("min", "p5", "median", "p95", "max")
    table(
        ("prompt type", "length of", *marks),
        [
            (row["prompt_type"] if not at else "", name.replace("_", ", "), *(counts.get(mark) for mark in marks))
            for row in rows
            for at, (name, counts) in enumerate(row["lengths"].items())
        ],
    )
    placed = [row for row in rows if row["places"]]
    if placed:
        print()
        names = ("first", "middle", "last", "unclear")
        headings = ("prompt type", "looked up", "from the snippet's first third", "middle", "last", "unclear")
        table(
            headings,
            [
                (row["prompt_type"], row["places"]["records"], *(_share(row["places"][name]) for name in names))
                for row in placed
            ],
        )


def _options(rows: list[Row]) -> None:
    from foundation.console import table

    placed = [row for row in rows if row["right_stands"]]
    if placed:
        print()
        cells = [
            (row["prompt_type"], _shares(row["teacher_put_right"]), _shares(_positions(row["right_stands"])))
            for row in placed
        ]
        table(("prompt type", "where the teacher put the right option", "where it stands in the records"), cells)


def _duplicates(found: Row, rows: list[Row]) -> None:
    from foundation.console import table

    total = found["total"]["duplicates"]
    print(
        f"\n{total['exact']:,} exact and {total['near']:,} near duplicates among {found['total']['records']:,} records "
        f"({_share(total['share'], 1) or '-'}); {total['across_types']:,} of them of a record of another prompt type"
    )
    repeated = [row for row in rows if row["duplicates"]["share"]]
    repeated.sort(key=lambda row: -row["duplicates"]["share"])
    if repeated:
        names = ("exact", "near", "across_types")
        table(
            ("prompt type", "exact", "near", "across types", "share"),
            [
                (
                    row["prompt_type"],
                    *(row["duplicates"][name] for name in names),
                    _share(row["duplicates"]["share"], 1),
                )
                for row in repeated[:DETAILED]
            ],
        )
        if repeated[DETAILED:]:
            print(f"and {len(repeated) - DETAILED} more prompt types")
        for group in found["groups"][:2]:
            print(f"\n{group['records']:,} alike, in {', '.join(group['prompt_types'])}:")
            print(f"  {_short(group['first'])}\n  {_short(group['last'])}")


def _reasons(rejects: list[Row]) -> str:
    """The most frequent ones, with the phase where it is not the last."""
    parts = []
    for one in rejects[:SHOWN]:
        phase = "" if one["phase"] in ("ask", "source") else f" ({one['phase']})"
        parts.append(f"{one['gate']}/{one['code']} {one['count']:,}{phase}")
    more = sum(one["count"] for one in rejects[SHOWN:])
    return ", ".join([*parts, f"others {more:,}"] if more else parts)


def _positions(stands: dict[str, int]) -> dict[int, int]:
    """`right_first`, `wrong_first` and `right_3` as places, from 1."""
    places = {"right_first": 1, "wrong_first": 2}
    found: dict[int, int] = {}
    for name, count in stands.items():  # versions of one type may have been ordered in both ways
        place = places.get(name) or int(name.rpartition("_")[2])
        found[place] = found.get(place, 0) + count
    return found


def _shares(counts: dict[int, int]) -> str:
    total = sum(counts.values())
    return "  ".join(f"{place}: {count:,} ({count / total:.1%})" for place, count in sorted(counts.items())) or "-"


def _share(value: float | None, digits: int = 0) -> str:
    return "" if value is None else f"{value:.{digits}%}"


def _lasting(marks: dict[str, int]) -> int | str:
    return marks.get("median", "")


def _commonest(one: Row | None) -> str:
    return f"{one['share']:.0%} {_short(one['commonest'])}" if one else ""


def _short(text: str) -> str:
    from foundation.console import plain

    line = plain(" ".join(text.split()))
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"
