"""`factory gc | doctor | service`: looking after a factory that runs for months.

Guarantees: standard output has results alone, with `--json` one document. Cost: nothing heavy is imported until a
command runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from queue_workers.commands.common import JSON

if TYPE_CHECKING:
    from queue_workers.forecast import Forecast
    from queue_workers.service import Service

services = typer.Typer(help="A systemd user service that runs `factory run` from boot to boot.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    for command in (gc, doctor):
        app.command()(command)
    for action in (install, uninstall, show):
        services.command()(action)
    app.add_typer(services, name="service")


def gc(
    dry_run: bool = typer.Option(False, "--dry-run", help="Say what would be removed, and remove nothing."),
    as_json: bool = JSON,
) -> None:
    """Remove what nobody needs any more, and forecast the disk that the plan still needs."""
    from foundation.console import emit_json, say, table
    from foundation.workspace import Workspace
    from queue_workers.forecast import forecast, size
    from queue_workers.gc import collect

    workspace = Workspace.find()
    swept = collect(workspace, dry_run=dry_run)
    ahead = forecast(workspace)
    if as_json:
        kinds = {kind: {"files": row.files, "bytes": row.bytes} for kind, row in sorted(swept.kinds.items())}
        removed = {"files": swept.total.files, "bytes": swept.total.bytes, "kinds": kinds}
        emit_json({"dry_run": dry_run, "busy": swept.busy, "removed": removed, "forecast": _document(ahead)})
    else:
        verb = "would remove" if dry_run else "removed"
        print(f"{verb} {swept.total.files:,} files, {size(swept.total.bytes)}")
        if swept.kinds:
            rows = [(kind, row.files, size(row.bytes)) for kind, row in sorted(swept.kinds.items())]
            table(("kind", "files", "size"), rows)
        for line in _told(ahead):
            print(line)
    if swept.busy:
        say("somebody works here: temporaries and rejects of units in hand were left alone")
    if ahead.warning:
        say(f"warning: {ahead.warning}")


def _document(ahead: Forecast) -> dict[str, Any]:
    kinds = {
        name: {"used": need.used, "items_left": round(need.items_left), "bytes_per_item": need.per_item}
        for name, need in ahead.kinds.items()
    }
    return {
        "used": ahead.used,
        "needed": ahead.needed if ahead.known else None,
        "round": ahead.round,
        "free": ahead.free,
        "min_free": ahead.min_free,
        "full_in_seconds": ahead.full_in,
        "files_needed": ahead.files_needed,
        "files_free": ahead.files_free,
        "warning": ahead.warning,
        "prompt_types": kinds,
    }


def _told(ahead: Forecast) -> list[str]:
    from queue_workers.forecast import size
    from queue_workers.view import duration

    needed = size(ahead.needed) if ahead.known else "an unknown size: nothing is committed yet"
    return [
        f"shards and rejects take {size(ahead.used)}; what is planned needs {needed} more; {size(ahead.free)} are free",
        *([f"each further round of the same prompt types takes {size(ahead.round)}"] if ahead.round else []),
        *([f"at the rate of now the disk is full in {duration(ahead.full_in)}"] if ahead.full_in is not None else []),
    ]


def doctor(as_json: bool = JSON) -> None:
    """Check all that a long run stands on, and say what to mend. Exit 1 if there is a problem."""
    from foundation.console import emit_json, table
    from foundation.workspace import Workspace
    from queue_workers.doctor import examine

    rows = examine(Workspace.find())
    problems = sum(row.state == "problem" for row in rows)
    warnings = sum(row.state == "warning" for row in rows)
    if as_json:
        checks = [{"check": row.check, "state": row.state, "found": row.found, "mend": row.mend} for row in rows]
        emit_json({"problems": problems, "warnings": warnings, "checks": checks})
    else:
        table(("check", "", "found"), [(row.check, row.state, row.found) for row in rows])
        for row in rows:
            if row.mend:
                print(f"{row.state}, {row.check}: {row.mend}")
        print(f"{problems} problems, {warnings} warnings, {len(rows) - problems - warnings} ok")
    if problems:
        raise typer.Exit(1)


def install(as_json: bool = JSON) -> None:
    """Write the unit for this workspace, and say the commands that start it. Runs nothing."""
    from foundation.console import emit_json, say
    from foundation.workspace import Workspace
    from queue_workers import service

    made = service.install(Workspace.find())
    missing = service.left_out()
    if as_json:
        emit_json(_service(made) | {"next": made.start_commands, "left_out": missing})
    else:
        print(f"wrote {made.path}")
        print("next:", *made.start_commands, sep="\n  ")
    if missing:
        say(
            f"not in the service: {', '.join(missing)}, which are set in this shell. "
            f"Write them into {made.environment} (a line each, mode 0600)"
        )


def uninstall(as_json: bool = JSON) -> None:
    """Remove the unit of this workspace, and say the commands that stop what runs. Runs nothing."""
    from foundation.console import emit_json
    from foundation.workspace import Workspace
    from queue_workers import service

    gone, there = service.uninstall(Workspace.find())
    if as_json:
        emit_json(_service(gone) | {"removed": there, "next": gone.stop_commands if there else ()})
    elif there:
        print(f"removed {gone.path}")
        print("next:", *gone.stop_commands, sep="\n  ")
    else:
        print(f"there is no service for this workspace: {gone.path}")


def show(as_json: bool = JSON) -> None:
    """Print the unit as `install` would write it now."""
    from foundation.console import emit_json, say
    from foundation.workspace import Workspace
    from queue_workers import service

    made = service.describe(Workspace.find())
    if as_json:
        emit_json(_service(made) | {"text": made.text})
        return
    state = "installed" if made.current else "installed, but not as below" if made.installed else "not installed"
    say(f"{made.path}: {state}")
    print(made.text, end="")


def _service(made: Service) -> dict[str, Any]:
    document = {"name": made.name, "path": str(made.path), "environment": str(made.environment)}
    return document | {"installed": made.installed, "current": made.current}
