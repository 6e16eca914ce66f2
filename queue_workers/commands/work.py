"""`factory run | work | stop`: the processes that work.

Guarantees: standard output has results alone, with `--json` one document. Cost: nothing heavy is imported until a
command runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from queue_workers.commands.common import JSON

if TYPE_CHECKING:
    from queue_workers.summary import Summary

MARGIN = 60.0  # seconds a stop may take beyond work.drain: the teacher and Redis end after the workers


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    for command in (run, work, stop):
        app.command()(command)


def run(
    drain: bool = typer.Option(False, "--drain", help="End when there is nothing more to take and all of it is done."),
    metrics_port: int | None = typer.Option(
        None, "--metrics-port", min=1, max=65535, metavar="N", help="Serve Prometheus metrics on 127.0.0.1:N/metrics."
    ),
    as_json: bool = JSON,
) -> None:
    """Work for months: Redis, teacher, workers, and more work when little is left. Ctrl-C finishes what is in hand."""
    from foundation.workspace import Workspace
    from queue_workers.supervisor import run as live

    summary = live(Workspace.find(), drain=drain, metrics_port=metrics_port)
    _report(summary, as_json, "factory run --drain")


def work(
    burst: bool = typer.Option(False, "--burst", help="End when everything planned is committed or set aside."),
    workers: int | None = typer.Option(
        None, min=1, max=64, help="Worker processes; default: work.workers in factory.toml."
    ),
    as_json: bool = JSON,
) -> None:
    """Run planned units: ask the teacher, gate, commit. Ctrl-C finishes what is in hand and ends."""
    from foundation.workspace import Workspace
    from queue_workers.supervisor import work as live

    workspace = Workspace.find()
    summary = live(workspace, burst=burst, workers=workers or workspace.settings.work.workers)
    _report(summary, as_json, "factory work --burst")


def _report(summary: Summary, as_json: bool, command: str) -> None:
    """Print what was done. Raises `Failure` if units were set aside meanwhile and the end came by itself."""
    from foundation.console import emit_json, say
    from foundation.errors import Failure

    done = summary.totals
    rate = done.records / max(summary.seconds, 1e-3)
    if as_json:
        document: dict[str, int | float | str | None] = {
            "units": done.units,
            "items": done.items,
            "items_accepted": done.accepted,
            "items_rejected": done.rejected,
        }
        document |= {"records": done.records, "tokens": done.tokens, "failed": summary.failed, "left": summary.left}
        document |= {"set_aside": summary.aside, "paused": summary.paused, "handovers": summary.handovers}
        document |= {"teacher_restarts": summary.restarts, "ended": summary.ended}
        document |= {"prefix_cache_hit_ratio": None if summary.cached is None else round(summary.cached, 4)}
        emit_json(document | {"seconds": round(summary.seconds, 3)})
    else:
        share = f"{done.accepted / done.items:.0%}" if done.items else "none"
        print(f"committed {done.units:,} units in {summary.seconds:.1f} s; {summary.left:,} are left")
        print(f"{done.items:,} items, {share} accepted: {done.records:,} records ({rate:,.0f}/s)")
        if summary.cached is not None:
            print(f"{summary.cached:.0%} of prompt tokens came from the prefix cache")
    if summary.paused:
        say(f"{summary.paused:,} units are paused: `factory resume` lets them go on")
    if summary.failed and summary.ended == "done":
        raise Failure(
            f"{summary.failed} units were set aside after repeated failures",
            mend=f"see `factory failures`, mend that, then `factory failures --retry` and `{command}`",
        )
    if summary.aside:
        say(f"{summary.aside:,} units are set aside after repeated failures: see `factory failures`")


def stop(as_json: bool = JSON) -> None:
    """Let running workers finish what they have in hand, then stop the workspace's own Redis."""
    from foundation.console import emit_json
    from foundation.errors import Failure
    from foundation.workspace import Workspace
    from queue_workers import presence, redis_server

    workspace = Workspace.find()
    found = presence.workers(workspace)
    left = presence.drain(found, workspace.settings.work.drain + MARGIN)
    if left:
        raise Failure(f"still at work: pids {', '.join(map(str, left))}", mend="end them with kill -9: nothing is lost")
    stopped = redis_server.stop(workspace)
    if as_json:
        emit_json({"ended": sorted(found), "redis_stopped": stopped})
        return
    own = "stopped" if stopped else "in use by another command, or not this workspace's own"
    print(f"{len(found)} running `factory run` or `factory work` ended; Redis: {own}")
