"""`factory retire`: withdraw what was made of an article, a snippet, a prompt type or a unit; list that; take it back.

Guarantees: what is committed stays on disk: a tombstone is put or deleted whole, so a command that was killed has done a
thing or not, and the same command again does the rest. Standard output has the result alone (with `--json` one document).
Cost: see `generator/retire.py`; nothing heavy is imported until the command runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from foundation.reader import Tombstone
    from foundation.workspace import Workspace
    from generator.retire import Identity, Lost, Target, Toll

SPLITS = ("train", "phrasing", "unseen")
EDITS = "edits"  # the group of tombstones that ingest made
MOST_ROWS = 12  # prompt types that are told one by one


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command("retire")(retire)


def retire(
    article: list[str] = typer.Option([], "--article", metavar="TITLE|ID", help="All that was made of an article."),
    snippet: list[str] = typer.Option([], "--snippet", metavar="ID", help="All that was made of a snippet."),
    prompt_type: list[str] = typer.Option([], "--prompt-type", metavar="T", help="Of a prompt type, or of a family."),
    fingerprint: list[str] = typer.Option([], "--fingerprint", metavar="F", help="Of one version of a prompt type."),
    unit: list[str] = typer.Option([], "--unit", metavar="ID", help="All that came of a unit."),
    reason: str = typer.Option("", "--reason", metavar="TEXT", help="Why; `--list` shows it."),
    undo: bool = typer.Option(False, "--undo", help="Take it back: it stands again."),
    list_: bool = typer.Option(False, "--list", help="Show what is retired, why, and how many records that withdraws."),
    dry_run: bool = typer.Option(
        False, "--dry-run", help="Say what would be withdrawn, or brought back; write nothing."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document."),
) -> None:
    """Withdraw records from every use: of an article, a snippet, a prompt type, one version of it, or a unit."""
    from foundation.errors import UsageError
    from foundation.workspace import Workspace
    from generator.retire import Names, stones_by_identity

    workspace = Workspace.find()
    asked = {"article": article, "snippet": snippet, "fingerprint": fingerprint, "unit": unit}
    some = bool(prompt_type or any(asked.values()))
    if list_ and (some or undo or reason or dry_run):
        raise UsageError("--list stands alone", mend="`factory retire --list`, with --json if you like")
    if not list_ and not some:
        raise UsageError(
            "say what to retire", mend="--article, --snippet, --prompt-type, --fingerprint or --unit; or --list"
        )
    if undo and reason:
        raise UsageError("--undo takes no --reason", mend="leave one of them out")
    standing = stones_by_identity(workspace.store)
    names = Names(workspace, standing.keys())
    if list_:
        _list(workspace, names.label, standing, as_json)
        return
    targets = [getattr(names, kind)(value) for kind, values in asked.items() for value in values]
    targets += [one for value in prompt_type for one in names.prompt_types(value)]
    targets = list(dict.fromkeys(targets))
    if undo:
        _undo(workspace, targets, standing, dry_run, as_json)
    else:
        _retire(workspace, targets, standing, reason, dry_run, as_json)


def _retire(
    workspace: Workspace,
    targets: list[Target],
    standing: dict[Identity, Tombstone],
    reason: str,
    dry_run: bool,
    as_json: bool,
) -> None:
    from contextlib import nullcontext

    from foundation.console import emit_json, progress
    from foundation.errors import UsageError
    from generator.ingest.run import EDITED
    from generator.retire import count, of_an_edit, units_left, write

    if reason == EDITED or reason.startswith(f"{EDITED}; "):
        raise UsageError(
            "that is the reason which ingest gives, and takes back by itself", where=reason, mend="word it another way"
        )
    edits = {identity for identity, stone in standing.items() if of_an_edit(stone)}
    new = [one for one in targets if one.identity not in standing or one.identity in edits]
    with progress("files looked at") as bar:
        mine = {one.identity for one in new} - edits
        toll = count(workspace.store, {"": mine}, frozenset(standing), bar.advance)
    left = units_left(workspace.store, targets)
    if not dry_run:
        # An ingest that runs now may be about to take back what an edit withdrew.
        replaced = any(one.identity in edits for one in new)
        with workspace.lock("ingest", wait=False) if replaced else nullcontext():
            new = [one for one in new if write(workspace.store, one, reason, standing.get(one.identity))]
    already = [one for one in targets if one not in new]
    if as_json:
        emit_json(
            {
                "retired": _rows(new),
                "already": _rows(already),
                **_document(toll),
                "units_left": left,
                "dry_run": dry_run,
            }
        )
        return
    for one in already:
        why = standing[one.identity].reason if one.identity in standing else ""
        print(f"already retired: {one.label}{f' ({why})' if why else ''}")
    for one in new:
        print(f"{'would retire' if dry_run else 'retired'} {one.label}")
    if new:
        _print(toll, "would withdraw" if dry_run else "withdrawn")
        print("what was shuffled for training before keeps what it has; the next `trainer shuffle` leaves these out")
    for name, units in sorted(left.items()):
        if units:
            print(f"{units:,} planned units of {name} would still run, and yield nothing:")
            print(f"  factory cancel --prompt-type {name}")
    if new and not dry_run:
        print(f"to take it back: factory retire --undo {_options(new)}")


def _undo(
    workspace: Workspace, targets: list[Target], standing: dict[Identity, Tombstone], dry_run: bool, as_json: bool
) -> None:
    from foundation.console import emit_json, progress
    from generator.retire import count, lost, still_edited, take_back

    store = workspace.store
    stay = [one for one in targets if one.identity in standing and still_edited(standing[one.identity])]
    dead = [one for one in targets if one.identity in standing and one not in stay]
    others = standing.keys() - {one.identity for one in dead}
    with progress("files looked at") as bar:
        toll = count(store, {"": {one.identity for one in dead}}, others, bar.advance)
    with progress("planned blocks looked at") as bar:
        missing = lost(store, dead, others, bar.advance)
    if not dry_run:
        for one in (*dead, *stay):
            take_back(store, standing[one.identity])
    alive = [one for one in targets if one.identity not in standing]
    if as_json:
        document = {"undone": _rows(dead), "not_retired": _rows(alive), "edited": _rows(stay), **_document(toll)}
        gone = {"missing_items": +missing.items, "without_partner": +missing.alone}
        emit_json({**document, **gone, "dry_run": dry_run})
        return
    for one in alive:
        print(f"not retired: {one.label}")
    for one in stay:
        print(f"{one.label} stays withdrawn, as it was before: an edit took it out of its article")
    for one in dead:
        print(f"{'would stand' if dry_run else 'stands'} again: {one.label}")
    if dead:
        _print(toll, "would be back" if dry_run else "back")
        _print_missing(missing)


def _print_missing(missing: Lost) -> None:
    """What does not come back."""
    items, alone = missing.items.total(), missing.alone.total()
    if items:
        print(
            f"not back: {items:,} items of {len(+missing.items):,} prompt types, whose units ran while this was retired"
        )
    if alone:
        print(
            f"not back: {alone:,} items that were rejected meanwhile, since this text was the second one of their pair"
        )
    if items or alone:
        print(
            "those units are done and stay as they are; another round asks about all text anew: factory enqueue --round N"
        )


def _list(workspace: Workspace, label: Any, standing: dict[Identity, Tombstone], as_json: bool) -> None:
    from foundation.console import emit_json, progress, table
    from generator.retire import count, of_an_edit

    edits = {identity for identity, stone in standing.items() if of_an_edit(stone)}
    own = {f"{kind} {value}": {(kind, value)} for kind, value in standing if (kind, value) not in edits}
    with progress("files looked at") as bar:
        toll = count(workspace.store, {**own, EDITS: edits}, advance=bar.advance)
    if as_json:
        rows = [
            stone.model_dump(exclude={"v"})
            | {"label": label(*identity), "records": toll.each[" ".join(identity)] if identity not in edits else None}
            for identity, stone in sorted(standing.items())
        ]
        emit_json({"tombstones": rows, "records_of_edits": toll.each[EDITS], **_document(toll)})
        return
    if not standing:
        print("nothing is retired")
        return
    cells: list[tuple[object, ...]] = [
        (label(kind, value), stone.reason or "-", toll.each[f"{kind} {value}"])
        for (kind, value), stone in sorted(standing.items())
        if (kind, value) not in edits
    ]
    if edits:
        cells.append((f"{len(edits):,} snippets", "edits of their articles, as ingest found", toll.each[EDITS]))
    table(("retired", "reason", "records"), cells)
    if len(cells) > 1:
        print(f"\nin all {toll.records.total():,} records: one may be named by several")


def _rows(targets: Sequence[Target]) -> list[dict[str, str]]:
    return [{"kind": one.kind, "value": one.value, "label": one.label} for one in targets]


def _document(toll: Toll) -> dict[str, Any]:
    splits: Counter[str] = Counter()
    types: Counter[str] = Counter()
    for (prompt_type, split), records in toll.records.items():
        splits[split] += records
        types[prompt_type] += records
    return {
        "records": toll.records.total(),
        "rejects": toll.rejects.total(),
        "by_split": {split: splits[split] for split in SPLITS},
        "by_prompt_type": dict(sorted(types.items())),
    }


def _print(toll: Toll, verb: str) -> None:
    """The toll as a table by prompt type and split, if it is not nothing."""
    from foundation.console import table

    records, rejects = toll.records.total(), toll.rejects.total()
    types = sorted({prompt_type for prompt_type, _ in (*toll.records, *toll.rejects)})
    if not types:
        print(f"{verb}: nothing, since nothing of it is committed")
        return
    kinds = f"{len(types):,} prompt type{'s' if len(types) > 1 else ''}"
    print(f"{verb}: {records:,} records and {rejects:,} rejects of {kinds}")
    by_family = len(types) > MOST_ROWS
    rows: dict[str, list[int]] = {}
    for one in types:
        row = rows.setdefault(one.partition("/")[0] if by_family else one, [0] * (len(SPLITS) + 1))
        for column, split in enumerate(SPLITS):
            row[column] += toll.records[one, split]
            row[-1] += toll.rejects[one, split]
    if len(rows) > 1:
        rows["all"] = [sum(column) for column in zip(*rows.values(), strict=True)]
    table(("family" if by_family else "prompt type", *SPLITS, "rejects"), [(name, *row) for name, row in rows.items()])
    if by_family:
        print("`--json` has every prompt type")


def _options(targets: Sequence[Target]) -> str:
    """The targets as one would name them on the command line."""
    return " ".join(f"--{one.kind.replace('_', '-')} {one.value}" for one in targets)
