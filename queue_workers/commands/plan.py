"""`factory enqueue | reconcile | cancel`: what is planned, and what of it is queued.

Guarantees: standard output has results alone, with `--json` one document; a command that was killed half-way is completed
by the next `factory reconcile`, which every run begins with. Cost: nothing heavy is imported until a command runs.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import typer

from queue_workers.commands.common import JSON, listed, open_queue

if TYPE_CHECKING:
    from foundation.prompt_type import PromptType
    from foundation.workspace import Workspace
    from queue_workers.controls import Controls
    from queue_workers.protocol import Priority

TYPES = typer.Option([], "--prompt-type", metavar="T", help="An id or a family; may be repeated.")
ALL = typer.Option(False, "--all", help="Every prompt type.")


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    for command in (enqueue, reconcile, cancel):
        app.command()(command)


def enqueue(
    prompt_type: list[str] = TYPES,
    all_: bool = ALL,
    limit: int | None = typer.Option(
        None, min=1, metavar="N", help="The first N snippets, rounded up to whole blocks."
    ),
    priority: str = typer.Option("normal", metavar="high|normal|low", help="Which queue the new units wait in."),
    round_: int = typer.Option(0, "--round", min=0, help="Another round asks anew about the same text."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Say what would be planned; write nothing."),
    as_json: bool = JSON,
) -> None:
    """Plan prompt types over the corpus and queue what is not committed yet."""
    from foundation.console import emit_json, say
    from foundation.errors import UsageError
    from foundation.workspace import Workspace
    from queue_workers import ledger, plan
    from queue_workers.controls import load_controls, plan_again
    from queue_workers.protocol import PRIORITIES

    workspace = Workspace.find()
    known = next((one for one in PRIORITIES if one == priority), None)
    if known is None:
        raise UsageError(f"no such priority: {priority}", mend=f"take one of {', '.join(PRIORITIES)}")
    _one_of(all_, prompt_type)
    store = workspace.store
    types, retired = _chosen(workspace, prompt_type, all_)
    blocks = plan.first_blocks(store, limit)
    queued = 0
    with ExitStack() as stack:
        if not dry_run:  # the queue comes first: one that cannot be reached leaves no plan behind
            queue = stack.enter_context(open_queue(workspace))
            stack.enter_context(workspace.lock("plan"))
        planned = plan.load_plan(store)
        new = plan.draft(planned, types, blocks, round_=round_, priority=known)
        back = plan.draft_back(planned, types, blocks, round_=round_, priority=known)
        new = plan.Plan((*new.lines, *back.lines))
        if not dry_run:
            plan_again(store, [one.id for one in types])
            plan.add(store, new, types, workspace.settings.split)
            queued = ledger.reconcile(plan.load_plan(store), store, queue)
        controls = load_controls(store)
    paused = [one.id for one in types if one.id in controls.paused_types]
    if as_json:
        document = {
            "prompt_types": len(types),
            "blocks": len(blocks),
            "units": new.size,
            "items": new.items,
            "queued": queued,
            "planned": planned.size + (0 if dry_run else new.size),
            "paused": paused,
            "retired": retired,
            "dry_run": dry_run,
        }
        emit_json(document)
        return
    verb = "would plan" if dry_run else "planned"
    print(
        f"{verb} {new.size:,} new units ({new.items:,} items) of {len(types)} prompt types over {len(blocks):,} blocks"
    )
    if not dry_run:
        print(f"queued {queued:,} units; `factory run` works on them, or `factory work --burst`")
    if retired:
        say(f"left out, since they are retired: {listed(retired)}")
    _say_controls(controls, [one.id for one in types], known)
    _warn(workspace, types)


def _chosen(workspace: Workspace, names: list[str], all_: bool) -> tuple[list[PromptType], list[str]]:
    """The prompt types that were asked for, and the ids of those left out since they are retired."""
    from foundation.errors import UsageError
    from generator.catalogue import load_catalogue, select
    from queue_workers.controls import retired_types

    types = list(load_catalogue(own=workspace.prompts).values()) if all_ else select(names, workspace.prompts)
    retired = retired_types(workspace.store, types)
    standing = [one for one in types if one.id not in retired]
    if retired and not standing:
        raise UsageError(
            f"retired: {listed(retired)}", where="tombstones/", mend="`factory retire --undo --prompt-type T` first"
        )
    return standing, retired


def _warn(workspace: Workspace, types: list[PromptType]) -> None:
    """Say what of these prompt types will not come to what one may think."""
    from foundation.console import say
    from generator.teachers.make import unable
    from queue_workers import plan

    for id_ in plan.same_version(workspace.store, types):
        say(
            f"warning: {id_} was planned before with other words and the same version; raise its version (`factory prompts lint`)"
        )
    if cannot := unable(workspace, [one.id for one in types]):
        print(f"the teacher is `rules`, which cannot make and will decline: {', '.join(cannot)}")


def reconcile(
    rebuild: bool = typer.Option(False, "--rebuild", help="Make the index of committed units anew from the shards."),
    as_json: bool = JSON,
) -> None:
    """Queue exactly what is planned and neither committed, paused, queued, in flight nor set aside."""
    from foundation.console import emit_json
    from foundation.workspace import Workspace
    from queue_workers import ledger
    from queue_workers.plan import load_plan

    workspace = Workspace.find()
    store = workspace.store
    plan = load_plan(store)
    document = {"planned": plan.size, "requeued": 0, "queued": 0, "in_flight": 0, "failed": 0}
    if plan.lines or plan.cancelled:
        with open_queue(workspace) as queue:
            with workspace.lock("plan"):
                document["requeued"] = ledger.reconcile(load_plan(store), store, queue)
            depth = queue.depth()
            document |= {"queued": depth.queued, "in_flight": depth.in_flight, "failed": len(queue.failures())}
    if rebuild:
        with ledger.open_ledger(store, workspace.cache, rebuild=True) as index:
            account = index.account(load_plan(store))
        document |= {
            "planned": account.planned,
            "committed": account.committed,
            "left": account.left,
            "beyond_plan": account.beyond,
        }
    if as_json:
        emit_json(document)
        return
    print(f"queued {document['requeued']:,} units that were in no list")
    print(f"now {document['queued']:,} queued, {document['in_flight']:,} in flight, {document['failed']:,} set aside")
    if document["failed"]:
        print("next: factory failures [--retry]")
    if rebuild:
        parts = f"{account.committed:,} committed + {account.left:,} left = {account.planned:,} planned units"
        beyond = f"; {account.beyond:,} committed that are not in the plan" if account.beyond else ""
        print(f"index made anew: {parts}{beyond}")


def cancel(
    prompt_type: list[str] = TYPES,
    all_: bool = ALL,
    dry_run: bool = typer.Option(False, "--dry-run", help="Say what would be cancelled; write nothing."),
    yes: bool = typer.Option(False, "--yes", "-y", help="Do not ask."),
    as_json: bool = JSON,
) -> None:
    """Take what is not committed of some prompt types out of the plan and the queue; `factory enqueue` brings it back."""
    from foundation.console import emit_json
    from foundation.workspace import Workspace
    from generator.catalogue import load_catalogue
    from queue_workers import controls, plan
    from queue_workers.ledger import committed

    workspace = Workspace.find()
    _one_of(all_, prompt_type)
    store, catalogue = workspace.store, load_catalogue(own=workspace.prompts)
    removed = 0
    with ExitStack() as stack:
        planned = plan.load_plan(store)
        known = controls.known_types(planned, catalogue)
        names = known if all_ else controls.named_types(prompt_type, known)
        if not dry_run:
            if not yes:
                _confirm(f"take what is not committed of {listed(names)} out of the plan?")
            queue = stack.enter_context(open_queue(workspace))
            stack.enter_context(workspace.lock("plan"))
            planned = plan.load_plan(store)
        lines = plan.draft_cancel(planned, names, committed(store), catalogue.values())
        out = plan.Plan(tuple(line.model_copy(update={"cancel": False}) for line in lines))
        kept = plan.Plan(lines)
        units, items = out.size - kept.size, out.items - kept.items
        if not dry_run:
            # Said before it is done: killed in between, it is the queue that is emptied and filled again.
            now = controls.load_controls(store)
            cancelled = tuple(sorted({*now.cancelled, *names}))
            unsettled = controls.unsettle(now, names, "drop")
            controls.change_controls(store, cancelled=cancelled, unsettled=unsettled)
            plan.append(store, lines)
            removed = controls.settle(store, queue)
    if as_json:
        document = {"prompt_types": names, "cancelled": units, "items": items, "removed": removed, "dry_run": dry_run}
        emit_json(document | {"planned": planned.size - (0 if dry_run else units)})
        return
    verb = "would take" if dry_run else "took"
    print(f"{verb} {units:,} units ({items:,} items) of {listed(names)} out of the plan")
    if not dry_run:
        print(f"{removed:,} of them waited in the queue or were set aside; what is in flight is finished and kept")
        again = " ".join(f"--prompt-type {name}" for name in prompt_type) or "--all"
        print(f"`factory run` leaves them alone now; to bring them back: factory enqueue {again}")


def _confirm(question: str) -> None:
    """Raises `UsageError` where nobody can be asked."""
    from foundation.errors import UsageError

    if not sys.stdin.isatty():
        raise UsageError("nobody can be asked here", where=question, mend="--yes, or first --dry-run")
    typer.confirm(question, abort=True, err=True)


def _one_of(all_: bool, prompt_types: list[str]) -> None:
    from foundation.errors import UsageError

    if all_ == bool(prompt_types):
        raise UsageError(
            "--all and --prompt-type exclude each other" if all_ else "say which prompt types",
            mend="--all, or --prompt-type T once or more; `factory prompts list` shows them",
        )


def _say_controls(controls: Controls, names: list[str], priority: Priority) -> None:
    """What else decides when the units just planned will run."""
    paused = [name for name in names if name in controls.paused_types]
    if paused:
        print(f"paused: {listed(paused)}; it stays planned until `factory resume --prompt-type T`")
    if controls.paused:
        print("everything is paused: `factory resume` goes on")
    for other in ("high", "normal", "low"):
        overruled = [name for name in names if controls.priorities.get(name, priority) == other != priority]
        if overruled:
            print(f"{listed(overruled)}: priority {other}, as `factory promote` or `demote` said")
