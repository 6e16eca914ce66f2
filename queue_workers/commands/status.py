"""`factory status`: what is planned, done and in hand, how fast it goes, what it costs, and what is wrong.

Guarantees: it looks and changes nothing: no Redis is started for it, and what nobody knows is said to be unknown.
Standard output has results alone: with `--json` one document, with `--watch --json` one a line. A Redis elsewhere that
does not answer is a failure, told after everything else. Cost: see `queue_workers/view.py`; nothing heavy is imported
until it runs.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import typer

from queue_workers.commands.common import JSON

if TYPE_CHECKING:
    from rich.console import Group

    from queue_workers.view import View

INTERVAL = 2.0  # seconds between two looks of --watch


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    for command in (status,):
        app.command()(command)


def status(
    watch: bool = typer.Option(False, "--watch", help="Look again every two seconds, until Ctrl-C."),
    as_json: bool = JSON,
) -> None:
    """Say what is planned, done and in hand, how fast it goes, what it costs, and what is wrong."""
    from foundation.console import emit_json, show
    from foundation.errors import Failure
    from foundation.workspace import Workspace
    from queue_workers.view import Counts, look

    workspace = Workspace.find()
    counts = Counts(workspace)
    if watch:
        _watch(lambda: look(workspace, counts), as_json)
        return
    view = look(workspace, counts)
    if as_json:
        emit_json(document(view))
    else:
        show(picture(view))
    if workspace.settings.queue.url.get_secret_value() and view.queue.error:
        raise Failure(view.queue.error)


def _watch(see: Any, as_json: bool) -> None:
    from foundation.console import emit_json, live, show

    try:
        if as_json:
            _repeat(lambda: emit_json(document(see()), line=True))
        elif sys.stdout.isatty():
            with live() as draw:
                _repeat(lambda: draw(picture(see())))
        else:
            _repeat(lambda: show(picture(see()), ""))
    except KeyboardInterrupt:
        pass  # how a watch ends


def _repeat(step: Any) -> None:
    while True:
        began = time.monotonic()
        step()
        time.sleep(max(0.1, INTERVAL - (time.monotonic() - began)))


def document(view: View) -> dict[str, Any]:
    """The JSON document. Times are seconds since 1970, sizes bytes, rates a second; null is unknown."""
    from dataclasses import asdict

    queue, totals, teacher = view.queue, view.totals, view.teacher
    return {
        "time": view.time,
        "state": view.state,
        "planned": view.planned,
        "committed": totals.units,
        "queued": queue.high + queue.normal + queue.low if view.known else None,
        "queued_by_priority": {"high": queue.high, "normal": queue.normal, "low": queue.low} if view.known else None,
        "in_flight": queue.in_flight if view.known else None,
        "failed": sum(queue.failed.values()) if view.known else None,
        "left": view.left,
        "paused": view.paused,
        "paused_prompt_types": [name for name, kind in view.kinds.items() if kind.paused],
        "paused_units": view.paused_units,
        "items": totals.items,
        "items_accepted": totals.accepted,
        "items_rejected": totals.rejected,
        "accept_rate": totals.accepted / totals.items if totals.items else None,
        "records": totals.records,
        "records_per_second": view.rate("records"),
        "items_per_second": view.rate("items"),
        "tokens_per_second": view.rate("tokens"),
        "eta_seconds": view.eta,
        "queue": {"running": queue.running, "known": view.known, "time": queue.time},
        "teacher": {**teacher.model_dump(), "hit_ratio": teacher.hit_ratio} if teacher else None,
        "gpus": [gpu.model_dump() for gpu in view.gpus],
        "device_holder": view.holder,
        "disk_free": view.free,
        "hours": view.used.seconds / 3600,
        "kwh": view.used.kwh,
        "money": view.used.money,
        "processes": [one.model_dump(exclude={"teacher", "gpus", "hours", "kwh", "money"}) for one in view.snapshots],
        "wrong": view.wrong(),
        "events": view.complaints(),
        "prompt_types": {
            name: asdict(kind.done) | {"planned": kind.planned, "failed": kind.failed, "paused": kind.paused}
            for name, kind in view.kinds.items()
        },
    }


def picture(view: View) -> Group:
    """What a person is shown: what matters most comes first, since a small terminal cuts the end."""
    from rich.console import Group
    from rich.text import Text

    from foundation.console import grid

    parts: list[Any] = [Text(f"! {line}", style="bold red") for line in view.wrong()]
    parts += [grid(("", ""), _facts(view)), ""]
    if view.kinds:
        headings = ("prompt type", "units", "of", "items", "accepted", "records", "set aside", "")
        rows = [
            (
                *(name, kind.done.units, kind.planned, kind.done.items, _percent(kind.done.accepted, kind.done.items)),
                *(kind.done.records, kind.failed or None, "paused" if kind.paused or view.paused else ""),
            )
            for name, kind in view.kinds.items()
        ]
        parts += [grid(headings, rows)]
    parts += [Text(_event(event), style="dim") for event in view.complaints()]
    return Group(*parts)


def _facts(view: View) -> list[tuple[str, str]]:
    from queue_workers.view import duration

    queue, totals, used = view.queue, view.totals, view.used
    waiting, aside = "unknown: it was not stopped in order, and does not run", "unknown"
    if view.known:
        rest = "" if queue.running or not view.planned else " (at rest)"
        waiting = (
            f"{queue.high:,} high, {queue.normal:,} normal, {queue.low:,} low; {queue.in_flight:,} in flight{rest}"
        )
        aside = f"{sum(queue.failed.values()):,} units"
    money = f", {used.money:,.2f} of money" if used.money else ""
    facts = [
        ("state", _state(view)),
        ("units", f"{totals.units:,} committed of {view.planned:,} planned; {view.left:,} left"),
        ("queue", waiting),
        ("set aside", aside),
        ("paused", f"{view.paused_units:,} units" if view.paused_units else ""),
        ("items", f"{totals.items:,}, {_percent(totals.accepted, totals.items) or 'none'} accepted"),
        ("records", f"{totals.records:,}"),
        ("rate", f"{view.rate('records'):,.1f} records/s, {view.rate('tokens'):,.0f} tokens/s read and written"),
        ("done in", _eta(view)),
        ("teacher", _teacher(view)),
        *((f"GPU {number}", _gpu(gpu)) for number, gpu in enumerate(view.gpus)),
        ("so far", f"{duration(used.seconds)} at work, {used.kwh:,.2f} kWh{money}"),
    ]
    return [fact for fact in facts if fact[1]]


def _state(view: View) -> str:
    from queue_workers.view import duration

    if not view.snapshots:
        return "stopped"
    return "; ".join(
        f"{one.state}{f' ({one.reason})' if one.reason else ''}: factory {one.command}, pid {one.pid}, "
        f"{one.workers} workers, for {duration(max(0.0, view.time - one.since))}"
        for one in view.snapshots
    )


def _eta(view: View) -> str:
    from queue_workers.view import duration

    if not view.planned:
        return ""
    return "unknown" if view.eta is None else duration(view.eta) if view.eta else "nothing is left"


def _teacher(view: View) -> str:
    teacher = view.teacher
    if teacher is None:
        return ""
    text = f"{teacher.name}, {teacher.state}"
    if teacher.running or teacher.waiting:
        text += f"; {teacher.running:,} requests running, {teacher.waiting:,} waiting"
    if teacher.limit:
        text += f"; {teacher.limit:,} a worker at most"
    if teacher.hit_ratio is not None:
        text += f"; {teacher.hit_ratio:.0%} of prompt tokens from the prefix cache"
    return text + (f"; restarted {teacher.restarts} times" if teacher.restarts else "")


def _gpu(gpu: Any) -> str:
    busy = "unknown" if gpu.busy is None else f"{gpu.busy:.0%}"
    watts = "" if gpu.watts is None else f", {gpu.watts:,.0f} W"
    return f"{gpu.name}: {busy} busy, {gpu.used / 2**30:,.1f} of {gpu.total / 2**30:,.1f} GiB{watts}"


def _event(event: dict[str, Any]) -> str:
    said = str(event.get("message") or event.get("error") or "").partition("\n")[0]
    return f"{str(event['time'])[:16].replace('T', ' ')} UTC  {event['level']}  {event['event']}  {said}"


def _percent(part: int, whole: int) -> str:
    return f"{part / whole:.0%}" if whole else ""
