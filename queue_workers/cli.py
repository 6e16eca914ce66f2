"""`factory enqueue | work | status | reconcile | stop`.

Guarantees: standard output has results alone, with `--json` one document. Cost: nothing heavy is imported until a
command runs.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from foundation.prompt_type import PromptType
    from foundation.workspace import Workspace
    from queue_workers.rq_queue import RqQueue

JSON = typer.Option(False, "--json", help="Print one JSON document.")


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    for command in (enqueue, work, status, reconcile, stop):
        app.command()(command)


def enqueue(
    prompt_type: list[str] = typer.Option([], "--prompt-type", metavar="T", help="An id or a family; may be repeated."),
    all_: bool = typer.Option(False, "--all", help="Every prompt type."),
    limit: int | None = typer.Option(
        None, min=1, metavar="N", help="The first N snippets, rounded up to whole blocks."
    ),
    priority: str = typer.Option("normal", metavar="high|normal|low", help="Which queue the new units wait in."),
    round_: int = typer.Option(0, "--round", min=0, help="Another round asks anew about the same text."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Say what would be planned; write nothing."),
    as_json: bool = JSON,
) -> None:
    """Plan prompt types over the corpus and queue what is not committed yet."""
    from foundation.console import emit_json
    from foundation.errors import UsageError
    from foundation.workspace import Workspace
    from generator.catalogue import load_catalogue, select
    from queue_workers import ledger, plan
    from queue_workers.protocol import PRIORITIES

    workspace = Workspace.find()
    known = next((one for one in PRIORITIES if one == priority), None)
    if known is None:
        raise UsageError(f"no such priority: {priority}", mend=f"take one of {', '.join(PRIORITIES)}")
    if all_ == bool(prompt_type):
        raise UsageError(
            "--all and --prompt-type exclude each other" if all_ else "say which prompt types",
            mend="--all, or --prompt-type T once or more; `factory prompts list` shows them",
        )
    types: list[PromptType] = list(load_catalogue().values()) if all_ else select(prompt_type)
    store = workspace.store
    blocks = plan.first_blocks(store, limit)
    queued = 0
    with ExitStack() as stack:
        # The queue comes first: one that cannot be reached leaves no plan behind.
        queue = None if dry_run else stack.enter_context(_queue(workspace))
        with workspace.lock("plan"):
            planned = plan.load_plan(store)
            new = plan.draft(planned, types, blocks, round_=round_, priority=known)
            if queue:
                plan.add(store, new, types, workspace.settings.split)
        if queue:
            queued = ledger.reconcile(plan.load_plan(store), store, queue)
    items = sum(plan.Corpus.count(block) for line in new.lines for block in line.blocks)
    if as_json:
        document = {
            "prompt_types": len(types),
            "blocks": len(blocks),
            "units": new.size,
            "items": items,
            "queued": queued,
        }
        emit_json(document | {"planned": planned.size + (0 if dry_run else new.size), "dry_run": dry_run})
        return
    verb = "would plan" if dry_run else "planned"
    print(f"{verb} {new.size:,} new units ({items:,} items) of {len(types)} prompt types over {len(blocks):,} blocks")
    if not dry_run:
        print(f"queued {queued:,} units; next: factory work --burst")


def work(
    burst: bool = typer.Option(False, "--burst", help="End when everything planned is committed or set aside."),
    workers: int | None = typer.Option(
        None, min=1, max=64, help="Worker processes; default: work.workers in factory.toml."
    ),
    as_json: bool = JSON,
) -> None:
    """Run planned units: ask the teacher, gate, commit. Ctrl-C finishes what is in hand and ends."""
    from foundation.console import emit_json
    from foundation.errors import Failure
    from foundation.workspace import Workspace
    from queue_workers.work import work as run

    workspace = Workspace.find()
    summary = run(workspace, burst=burst, workers=workers or workspace.settings.work.workers)
    done = summary.totals
    rate = done.records / max(summary.seconds, 1e-3)
    if as_json:
        document = {
            "units": done.units,
            "items": done.items,
            "items_accepted": done.accepted,
            "items_rejected": done.rejected,
        }
        document |= {"records": done.records, "tokens": done.tokens, "failed": summary.failed, "left": summary.left}
        emit_json(document | {"seconds": round(summary.seconds, 3)})
    else:
        share = f"{done.accepted / done.items:.0%}" if done.items else "none"
        print(f"committed {done.units:,} units in {summary.seconds:.1f} s; {summary.left:,} are left")
        print(f"{done.items:,} items, {share} accepted: {done.records:,} records ({rate:,.0f}/s)")
    if summary.failed:
        raise Failure(
            f"{summary.failed} units were set aside after repeated failures",
            mend="mend what the lines above name, then `factory reconcile --retry-failed` and `factory work --burst`",
        )


def status(as_json: bool = JSON) -> None:
    """Count what is planned, committed, queued and in flight, and what came of it."""
    from dataclasses import asdict

    from foundation.console import emit_json, table
    from foundation.workspace import Workspace
    from queue_workers.ledger import open_ledger
    from queue_workers.plan import load_plan

    workspace = Workspace.find()
    plan = load_plan(workspace.store)
    counts = {"planned": plan.size, "committed": 0, "queued": 0, "in_flight": 0, "failed": 0}
    if plan.lines:
        with _queue(workspace) as queue:
            depth = queue.depth()
            counts |= {"queued": depth.queued, "in_flight": depth.in_flight, "failed": len(queue.failures())}
    # After the queue: a unit that is committed meanwhile is counted twice for a moment, but never in neither.
    with open_ledger(workspace.store, workspace.cache) as ledger:
        totals, kinds = ledger.totals(), ledger.by_prompt_type()
    counts["committed"] = totals.units
    items = {"items": totals.items, "items_accepted": totals.accepted, "items_rejected": totals.rejected}
    counts |= {**items, "records": totals.records}
    if as_json:
        emit_json(counts | {"prompt_types": {name: asdict(one) for name, one in kinds.items()}})
        return
    table(("", "count"), [(name.replace("_", " "), count) for name, count in counts.items()])
    if kinds:
        print()
        rows = [
            (name, one.units, one.items, one.accepted / max(1, one.items), one.records) for name, one in kinds.items()
        ]
        columns = ("prompt type", "units", "items", "accepted", "records")
        table(columns, [(*row[:3], f"{row[3]:.0%}", row[4]) for row in rows])
    if totals.broken:
        print(f"\n{totals.broken:,} lines of shards or rejects cannot be read: see `factory report`")


def reconcile(
    retry_failed: bool = typer.Option(False, "--retry-failed", help="Queue the units that were set aside as well."),
    as_json: bool = JSON,
) -> None:
    """Queue exactly what is planned and neither committed, queued, in flight nor set aside."""
    from foundation.console import emit_json
    from foundation.workspace import Workspace
    from queue_workers import ledger
    from queue_workers.plan import load_plan

    workspace = Workspace.find()
    plan = load_plan(workspace.store)
    document = {"planned": plan.size, "requeued": 0, "retried": 0, "queued": 0, "in_flight": 0, "failed": 0}
    if plan.lines:
        with _queue(workspace) as queue:
            if retry_failed:
                document["retried"] = queue.control("retry")
            document["requeued"] = ledger.reconcile(plan, workspace.store, queue)
            depth = queue.depth()
            document |= {"queued": depth.queued, "in_flight": depth.in_flight, "failed": len(queue.failures())}
    if as_json:
        emit_json(document)
        return
    retried = f" and {document['retried']:,} that had been set aside" if retry_failed else ""
    print(f"queued {document['requeued']:,} units that were in no list{retried}")
    print(f"now {document['queued']:,} queued, {document['in_flight']:,} in flight, {document['failed']:,} set aside")


def stop() -> None:
    """Let running workers finish what they have in hand, then stop the workspace's own Redis."""
    from foundation.errors import Failure
    from foundation.workspace import Workspace
    from queue_workers import presence, redis_server

    workspace = Workspace.find()
    found = presence.workers(workspace)
    left = presence.drain(found, workspace.settings.queue.lease + 60)
    if left:
        raise Failure(f"still at work: pids {', '.join(map(str, left))}", mend="end them with kill -9: nothing is lost")
    stopped = redis_server.stop(workspace)
    own = "stopped" if stopped else "in use by another command, or not this workspace's own"
    print(f"{len(found)} running `factory work` ended; Redis: {own}")


@contextmanager
def _queue(workspace: Workspace) -> Iterator[RqQueue]:
    """The workspace's queue, and its Redis for as long."""
    from queue_workers.plan import queue_name
    from queue_workers.redis_server import redis_connection
    from queue_workers.rq_queue import RqQueue

    with redis_connection(workspace) as redis:
        yield RqQueue(redis, queue_name(workspace.store), workspace.settings.queue)
