"""How every command speaks: results on standard output, everything else on standard error, one clear error.

Guarantees: with `--json` standard output holds one document and nothing else; no traceback without `--debug`; exit 2
for wrong use, 1 for failure, 130 for Ctrl-C. Progress bars on a terminal, plain lines elsewhere. Nothing here starts a
thread, so a process that draws may fork: what moves is redrawn by whoever calls. Cost: rich is imported only when
something is drawn; a bar is redrawn at most four times a second.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from foundation.errors import FactoryError, from_os_error

if TYPE_CHECKING:
    import typer
    from rich.console import Console, RenderableType
    from rich.table import Table

REDRAW = 0.25  # seconds between two pictures of a bar
SPEAK = 5.0  # seconds between two lines where there is no terminal
# Control characters (C0 but for the line feed, DEL, C1), what is invisible or turns the writing round, separators of lines.
_HIDDEN = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\xad\u061c\u070f\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e0fff]"
)


def new_app(help_: str) -> typer.Typer:
    """A typer application with the settings all three commands share, and `--version`."""
    import typer

    app = typer.Typer(
        help=help_, no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False, rich_markup_mode=None
    )

    def version(value: bool) -> None:
        if value:
            from importlib.metadata import version as installed

            print(installed("qpt-factory"))
            raise typer.Exit

    @app.callback()
    def root(
        debug: bool = typer.Option(False, "--debug", help="Show tracebacks."),
        show_version: bool = typer.Option(
            False, "--version", callback=version, is_eager=True, help="Print the version."
        ),
    ) -> None:
        if debug:
            os.environ["FACTORY_DEBUG"] = "1"

    return app


def run_app(app: typer.Typer) -> NoReturn:
    """Run a command line to its exit code; the only place where errors become text."""
    if "--debug" in sys.argv[1:]:  # accepted anywhere on the line, not only before the command
        sys.argv = [argument for argument in sys.argv if argument != "--debug"]
        os.environ["FACTORY_DEBUG"] = "1"
    debug = bool(os.environ.get("FACTORY_DEBUG"))
    try:
        app()
    except FactoryError as error:
        if debug:
            raise
        _die(str(error), error.exit_code)
    except KeyboardInterrupt:
        _die("interrupted", 130)
    except BrokenPipeError:
        sys.stderr.close()  # the reader went away: not an error
        os._exit(0)
    except OSError as error:
        if debug:
            raise
        _die(str(from_os_error(error)), 1)
    except Exception as error:
        if debug:
            raise
        _die(
            f"internal error: {type(error).__name__}: {error}\n  mend:  run it again with --debug and report what it prints",
            1,
        )
    sys.exit(0)


def _die(text: str, code: int) -> NoReturn:
    sys.stdout.flush()
    print(f"error: {text}", file=sys.stderr)
    sys.exit(code)


def emit_json(document: Any, *, line: bool = False) -> None:
    """One JSON document on standard output, at once; `line`: on one line, as one of many."""
    terminal = sys.stdout.isatty()  # where what a model wrote could move the cursor, or turn the line round
    indent = 2 if terminal and not line else None
    print(json.dumps(document, ensure_ascii=terminal, indent=indent, default=str), flush=True)


def say(text: str) -> None:
    """A line for the person: standard error, at once."""
    print(text, file=sys.stderr, flush=True)


def table(headings: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = "") -> None:
    """A table on standard output; columns of numbers are set to the right."""
    show(grid(headings, rows, title=title))


def grid(headings: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = "") -> Table:
    """The table that `table` prints, for `show` and `live`."""
    from rich.table import Table
    from rich.text import Text

    cells = [[_cell(value) for value in row] for row in rows]
    drawn = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    drawn.show_header = any(headings)
    for column, heading in enumerate(headings):
        numeric = bool(cells) and all(
            row[column].replace(",", "").rstrip("%").replace(".", "", 1).lstrip("-").isdigit() or not row[column]
            for row in cells
        )
        drawn.add_column(heading, justify="right" if numeric else "left", overflow="fold")
    for row in cells:
        drawn.add_row(*(Text(cell) for cell in row))
    return drawn


def show(*parts: RenderableType) -> None:
    """Print what rich can draw on standard output: as wide as the terminal, 200 characters elsewhere."""
    console = _stdout()
    for part in parts:
        console.print(part)
    sys.stdout.flush()


@contextmanager
def live() -> Iterator[Callable[[RenderableType], None]]:
    """A picture on standard output that each call redraws in place; what does not fit the terminal is cut below."""
    from rich.live import Live

    with Live(console=_stdout(), auto_refresh=False) as drawn:
        yield lambda picture: drawn.update(picture, refresh=True)


def _stdout() -> Console:
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 200, highlight=False, markup=False)


def _cell(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return "" if value is None else ("yes" if value else "no")
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1 else f"{value:,.1f}"
    return str(value)


class Progress(Protocol):
    def advance(self, count: int = 1, note: str = "") -> None:
        """Count `count` more done; `note` is shown behind the bar. With 0 it only lets the clock be redrawn."""


class _Lines:
    """Progress where there is no terminal: a plain line at most every five seconds, and one at the end."""

    def __init__(self, label: str, total: int | None) -> None:
        self.label, self.total, self.done, self.note = label, total, 0, ""
        self.said, self.last = -1, time.monotonic()

    def advance(self, count: int = 1, note: str = "") -> None:
        self.done += count
        self.note = note or self.note
        if self.done != self.said and time.monotonic() - self.last >= SPEAK:
            self.last = time.monotonic()
            self.print()

    def print(self) -> None:
        self.said = self.done
        of = f" of {self.total:,}" if self.total is not None else ""
        say(f"{self.label}: {self.done:,}{of}{'  ' + self.note if self.note else ''}")


class _Bar:
    def __init__(self, bar: Any, task: Any) -> None:
        self.bar, self.task, self.last = bar, task, 0.0

    def advance(self, count: int = 1, note: str = "") -> None:
        self.bar.update(self.task, advance=count, **({"note": note} if note else {}))
        if time.monotonic() - self.last >= REDRAW:
            self.last = time.monotonic()
            self.bar.refresh()


@contextmanager
def progress(label: str, total: int | None = None) -> Iterator[Progress]:
    """A progress bar on a terminal's standard error, plain lines elsewhere."""
    if not sys.stderr.isatty():
        lines = _Lines(label, total)
        yield lines
        lines.print()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with RichProgress(*columns, console=Console(stderr=True), auto_refresh=False) as bar:
        yield _Bar(bar, bar.add_task(label, total=total, note=""))


def plain(text: str) -> str:
    """`text` as a terminal may have it: what would move its cursor, colour it or turn it around is written as an escape.

    Line feeds stay.
    """
    return _HIDDEN.sub(lambda match: match.group().encode("unicode_escape").decode(), text)
