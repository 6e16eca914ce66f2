"""`trainer watch`. Cost: no torch is imported."""

from __future__ import annotations

import shutil
import sys
import time
from typing import TYPE_CHECKING

import typer

from foundation.console import emit_json, live, say, show
from trainer.commands.options import RUN

if TYPE_CHECKING:
    from rich.console import RenderableType

    from trainer.watch import Look, Watcher


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("watch")(watch_command)


def watch_command(
    run: str = RUN,
    once: bool = typer.Option(False, "--once", help="Look once, and end."),
    interval: float = typer.Option(2.0, "--interval", metavar="S", min=0.1, help="Seconds between two looks."),
    as_json: bool = typer.Option(
        False, "--json", help="Print one JSON document; without --once, one on a line whenever there is news."
    ),
) -> None:
    """Show a run as it trains: progress, losses, schedules, speed, memory, rounds, and whether its process lives.

    Waits for a run that has not begun, follows one that is stopped and goes on, and ends when the run is done. Ctrl-C ends
    it too; the run does not notice either.
    """
    try:
        from foundation.workspace import Workspace
        from trainer.watch import Watcher

        watcher = Watcher(Workspace.find(), run)
        if once:
            _once(watcher, as_json)
        elif as_json or not sys.stdout.isatty():
            _lines(watcher, interval, as_json)
        else:
            _live(watcher, interval)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


def _once(watcher: Watcher, as_json: bool) -> None:
    from foundation.errors import UsageError

    look = watcher.look()
    if look is None:
        known = sorted(it.parent.name for it in watcher.folder.parent.glob("*/run.json"))
        raise UsageError(
            f"there is no run {watcher.run}",
            where=str(watcher.folder),
            mend=f"name one with --run: {', '.join(known)}" if known else "`trainer run` begins one",
        )
    if as_json:
        emit_json(look.document())
    else:
        show(_picture(look))


def _lines(watcher: Watcher, interval: float, as_json: bool) -> None:
    """A line whenever there is news, until the run is done."""
    from trainer.watch import ending, line

    said: tuple[object, ...] | None = None
    while True:
        look = watcher.look()
        news = look and (look.state, look.step, look.phrasing, len(look.rounds), look.silent, look.checkpoint)
        if look and news != said:
            if as_json:
                emit_json(look.document(), line=True)
            else:
                print(line(look), flush=True)
        elif look is None and said != ():
            say(f"waiting for run {watcher.run}")
        said = news or ()
        if look and look.state == "done":
            say(ending(look))
            return
        time.sleep(interval)


def _live(watcher: Watcher, interval: float) -> None:
    """A picture in place, until the run is done."""
    from rich.text import Text

    from trainer.watch import ending

    with live() as draw:
        while (look := watcher.look()) is None or look.state != "done":
            draw(_picture(look) if look else Text(f"waiting for run {watcher.run}"))
            time.sleep(interval)
        draw(_picture(look))
    say(ending(look))


def _picture(look: Look) -> RenderableType:
    from trainer.watch import picture

    size = shutil.get_terminal_size((100, 40))
    return picture(look, size.columns, size.lines)
