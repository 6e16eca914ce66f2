"""`factory pause | resume | promote | demote | failures`: what runs when, said while it runs.

Guarantees: what was said is kept in the store before the queue hears of it, so it outlasts both, and a command that was
killed half-way is completed by the next `factory reconcile`, which every run begins with. Standard output has results
alone, with `--json` one document. Cost: nothing heavy is imported until a command runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from queue_workers.commands.common import JSON, listed, open_queue

if TYPE_CHECKING:
    from foundation.store import Store
    from queue_workers.plan import Plan
    from queue_workers.protocol import Priority, Queue

TYPES = typer.Option([], "--prompt-type", metavar="T", help="An id or a family; may be repeated. Default: everything.")
SOME = typer.Option(..., "--prompt-type", metavar="T", help="An id or a family; may be repeated.")


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    for command in (pause, resume, promote, demote, failures):
        app.command()(command)


def pause(prompt_type: list[str] = TYPES, as_json: bool = JSON) -> None:
    """Begin no more units, of some prompt types or at all; those in hand are finished. The plan stays as it is."""
    from foundation.console import emit_json
    from queue_workers.controls import change_controls, load_controls, settle

    with _planning() as (store, queue, plan):
        names = _names(prompt_type, plan)
        before = load_controls(store)
        if names:
            now = change_controls(store, paused_types=tuple(sorted({*before.paused_types, *names})))
        else:
            now = change_controls(store, paused=True)
        withdrawn = settle(store, queue)
        depth = queue.depth()
    if as_json:
        document = {"paused": now.paused, "paused_types": list(now.paused_types), "withdrawn": withdrawn}
        emit_json(document | {"queued": depth.queued, "in_flight": depth.in_flight})
    elif names:
        print(f"paused {listed(names)}: {withdrawn:,} waiting units held back, until `factory resume --prompt-type T`")
        print(f"{depth.queued:,} units of other prompt types wait; {depth.in_flight:,} in flight are finished")
    else:
        print(f"paused: {depth.queued:,} units wait until `factory resume`; {depth.in_flight:,} in flight are finished")


def resume(prompt_type: list[str] = TYPES, as_json: bool = JSON) -> None:
    """Undo `factory pause`: of some prompt types, or of everything (prompt types that were paused by name stay so)."""
    from foundation.console import emit_json
    from queue_workers.controls import change_controls, load_controls
    from queue_workers.ledger import reconcile

    with _planning() as (store, queue, plan):
        before = load_controls(store)
        # One that is paused can always be resumed, planned or not.
        names = _names(prompt_type, plan, before.paused_types)
        if names:
            now = change_controls(store, paused_types=tuple(sorted({*before.paused_types} - {*names})))
        else:
            now = change_controls(store, paused=False)
        queued = reconcile(plan, store, queue)
        depth = queue.depth()
    if as_json:
        document = {"paused": now.paused, "paused_types": list(now.paused_types), "requeued": queued}
        emit_json(document | {"queued": depth.queued, "in_flight": depth.in_flight})
        return
    resumed = [name for name in names if name in before.paused_types]
    if names:
        print(f"resumed {listed(resumed)}: {queued:,} units queued again" if resumed else "none of these was paused")
    else:
        print(f"resumed: {depth.queued:,} units wait" if before.paused else "the queue was not paused")
    if now.paused:
        print("everything is still paused: `factory resume` goes on")
    if now.paused_types:
        print(f"still paused by name: {', '.join(now.paused_types)}")


def promote(prompt_type: list[str] = SOME, as_json: bool = JSON) -> None:
    """Let some prompt types go first, from the next unit on."""
    _set_priority(prompt_type, "high", as_json)


def demote(prompt_type: list[str] = SOME, as_json: bool = JSON) -> None:
    """Let some prompt types go last, from the next unit on."""
    _set_priority(prompt_type, "low", as_json)


def _set_priority(prompt_type: list[str], priority: Priority, as_json: bool) -> None:
    from foundation.console import emit_json
    from queue_workers.controls import change_controls, load_controls, settle, unsettle
    from queue_workers.ledger import reconcile

    with _planning() as (store, queue, plan):
        names = _names(prompt_type, plan)
        now = load_controls(store)
        changed = [name for name in names if now.priorities.get(name) != priority]
        now = change_controls(
            store,
            priorities={**now.priorities, **dict.fromkeys(names, priority)},
            unsettled=unsettle(now, changed, "withdraw"),
        )
        moved = settle(store, queue)
        reconcile(plan, store, queue)
        depth = queue.depth()
    counts = {"high": depth.high, "normal": depth.normal, "low": depth.low}
    if as_json:
        emit_json({"prompt_types": names, "priority": priority, "moved": moved, "queued": counts})
        return
    print(f"{listed(names)}: priority {priority} from now on; {moved:,} waiting units moved")
    print(f"now {', '.join(f'{count:,} {name}' for name, count in counts.items())}")
    paused = [name for name in names if name in now.paused_types]
    if paused:
        print(f"paused, and so not queued: {', '.join(paused)}")
    idle = sorted(set(names) - {line.prompt_type for line in plan.lines})
    if idle:
        print(f"not planned yet: {listed(idle)}; it holds for what is planned later")


def failures(
    prompt_type: list[str] = TYPES,
    retry: bool = typer.Option(False, "--retry", help="Queue them again, with their counters at zero."),
    as_json: bool = JSON,
) -> None:
    """List the units that were set aside after repeated failures, with the last error of each."""
    from foundation.console import emit_json, table
    from queue_workers.controls import settle

    with _planning() as (store, queue, plan):
        rows = queue.failures()
        names = _names(prompt_type, plan, [row.unit.prompt_type for row in rows])
        if names:
            rows = [row for row in rows if row.unit.prompt_type in names]
        retried = queue.control("retry", names) if retry and rows else 0
        if retried:
            settle(store, queue)  # what is paused is not queued by this either
    rows.sort(key=lambda row: (row.unit.prompt_type, row.unit.block, row.unit.start))
    if as_json:
        emit_json({"failures": [row.model_dump() for row in rows], "retried": retried})
        return
    if not rows:
        print("no unit is set aside")
        return
    cells = [
        (row.unit.id, row.unit.prompt_type, row.failures, row.lost, (row.error.splitlines() or [""])[0][:160])
        for row in rows
    ]
    table(("unit", "prompt type", "failures", "lost", "last error"), cells)
    if retry:
        print(f"\nqueued {retried:,} units again; next: factory work --burst")
    else:
        print(f"\n{len(rows):,} units are set aside; when the cause is mended: factory failures --retry")


@contextmanager
def _planning() -> Iterator[tuple[Store, Queue, Plan]]:
    """Store, queue and plan, with no other command changing any of them. A queue that is away is told before anything is."""
    from foundation.workspace import Workspace
    from queue_workers.plan import load_plan

    workspace = Workspace.find()
    with open_queue(workspace) as queue, workspace.lock("plan"):
        yield workspace.store, queue, load_plan(workspace.store)


def _names(asked: list[str], plan: Plan, more: list[str] | tuple[str, ...] = ()) -> list[str]:
    """Ids of the prompt types asked for; empty if none was. `more` are ids that are known from elsewhere."""
    from foundation.workspace import Workspace
    from generator.catalogue import load_catalogue
    from queue_workers.controls import known_types, named_types

    return (
        named_types(asked, known_types(plan, [*load_catalogue(own=Workspace.find().prompts), *more])) if asked else []
    )
