"""`factory stats`: what came of each prompt type, why the rest was rejected, and where the right options stand.

Guarantees: read from the committed shards and their rejects, by the code that writes the report; standard output has the
tables alone (with `--json` one document). Cost: one pass over the shards, about 15 µs a record.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from generator.report.generation import Generation, TypeFigures

SHOWN = 4  # reasons a line of the table has room for


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command("stats")(stats)


def stats(
    prompt_type: list[str] = typer.Option([], "--prompt-type", metavar="T", help="An id or a family; may be repeated."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document."),
) -> None:
    """Say what was accepted and rejected, and why, by prompt type; and where the right options stand."""
    from foundation.console import emit_json, progress
    from foundation.workspace import Workspace
    from generator.catalogue import select
    from generator.report.generation import collect_generation

    workspace = Workspace.find()
    wanted = {one.id for one in select(prompt_type, workspace.prompts)} if prompt_type else set()
    with progress("units read") as bar:
        found = collect_generation(workspace.store, bar.advance)
    types = [one for id_, one in sorted(found.types.items()) if one.items and (not wanted or id_ in wanted)]
    if as_json:
        emit_json({"prompt_types": [_document(one) for one in types], "total": _total(types)})
        return
    _print(types, found)


def _document(one: TypeFigures) -> dict[str, Any]:
    return {
        "prompt_type": one.id,
        "items": one.items,
        "accepted": one.accepted,
        "rejected": one.rejected,
        "accept_rate": one.accept_rate,
        "records": one.records,
        "prompt_tokens": one.prompt_tokens,
        "completion_tokens": one.completion_tokens,
        "rejects": [
            {"gate": gate, "code": code, "phase": phase, "count": count}
            for (gate, code, phase), count in one.reasons.most_common()
        ],
        "teacher_put_right": dict(sorted(one.teacher_put.items())),
        "right_stands": dict(sorted(one.stands.items())),
    }


def _total(types: list[TypeFigures]) -> dict[str, Any]:
    items, accepted = sum(one.items for one in types), sum(one.accepted for one in types)
    return {
        "items": items,
        "accepted": accepted,
        "rejected": items - accepted,
        "accept_rate": accepted / items if items else None,
        "records": sum(one.records for one in types),
    }


def _print(types: list[TypeFigures], found: Generation) -> None:
    from foundation.console import table

    if not types:
        print("nothing is committed yet; next: factory enqueue, then factory run")
        return
    rows = [
        (one.id, one.items, one.accepted, one.rejected, f"{one.accept_rate:.0%}", one.records, _reasons(one.reasons))
        for one in types
    ]
    total = _total(types)
    rate = f"{total['accept_rate']:.0%}"
    rows.append(("all", total["items"], total["accepted"], total["rejected"], rate, total["records"], ""))
    table(("prompt type", "items", "accepted", "rejected", "rate", "records", "rejects by gate/code"), rows)
    if any(one.reasons.total() != one.rejected for one in types):
        print(
            "\nwhat is asked about entry by entry has a reject an entry: these codes may add up to more than its rejected items"
        )
    placed = [one for one in types if one.stands]
    if placed:
        print()
        cells = [(one.id, _shares(one.teacher_put), _shares(_positions(one.stands))) for one in placed]
        table(("prompt type", "where the teacher put the right option", "where it stands in the records"), cells)
    broken = found.read.broken_lines + found.broken_rejects
    if broken:
        print(f"\n{broken:,} broken lines were passed over; `factory report` names the first")


def _reasons(reasons: Counter[tuple[str, str, str]]) -> str:
    """The most frequent ones, with the phase where it is not the last."""
    parts = [
        f"{gate}/{code} {count:,}{'' if phase in ('ask', 'source') else f' ({phase})'}"
        for (gate, code, phase), count in reasons.most_common(SHOWN)
    ]
    more = reasons.total() - sum(count for _, count in reasons.most_common(SHOWN))
    return ", ".join([*parts, f"others {more:,}"] if more else parts)


def _positions(stands: Counter[str]) -> Counter[int]:
    """`right_first`, `wrong_first` and `right_3` as places, from 1."""
    places = {"right_first": 1, "wrong_first": 2}
    found: Counter[int] = Counter()
    for name, count in stands.items():  # versions of one type may have been ordered in both ways
        found[places.get(name) or int(name.rpartition("_")[2])] += count
    return found


def _shares(counts: Counter[int]) -> str:
    total = counts.total()
    return "  ".join(f"{place}: {count:,} ({count / total:.1%})" for place, count in sorted(counts.items())) or "-"
