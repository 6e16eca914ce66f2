"""How every command speaks: results on standard output, everything else on standard error, one clear error.

Guarantees: with `--json` standard output holds one document and nothing else; no traceback without `--debug`; exit 2
for wrong use, 1 for failure, 130 for Ctrl-C. Progress bars on a terminal, plain lines elsewhere. Cost: rich is
imported only when something is drawn.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from foundation.errors import FactoryError, from_os_error

if TYPE_CHECKING:
    import typer


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


def emit_json(document: Any) -> None:
    """One JSON document on standard output."""
    print(json.dumps(document, ensure_ascii=False, indent=2 if sys.stdout.isatty() else None, default=str))


def say(text: str) -> None:
    """A line for the person: standard error, at once."""
    print(text, file=sys.stderr, flush=True)


def table(headings: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = "") -> None:
    """A table on standard output; columns of numbers are set to the right."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    cells = [[_cell(value) for value in row] for row in rows]
    drawn = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column, heading in enumerate(headings):
        numeric = bool(cells) and all(
            row[column].replace(",", "").rstrip("%").replace(".", "", 1).lstrip("-").isdigit() or not row[column]
            for row in cells
        )
        drawn.add_column(heading, justify="right" if numeric else "left", overflow="fold")
    for row in cells:
        drawn.add_row(*(Text(cell) for cell in row))
    width = None if sys.stdout.isatty() else 200
    Console(width=width, highlight=False).print(drawn)


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
        """Count `count` more done; `note` is shown behind the bar."""


class _Lines:
    """Progress where there is no terminal: a plain line at most every five seconds, and one at the end."""

    def __init__(self, label: str, total: int | None) -> None:
        self.label, self.total, self.done, self.note = label, total, 0, ""
        self.last = time.monotonic()

    def advance(self, count: int = 1, note: str = "") -> None:
        self.done += count
        self.note = note or self.note
        if time.monotonic() - self.last >= 5:
            self.last = time.monotonic()
            self.print()

    def print(self) -> None:
        of = f" of {self.total:,}" if self.total is not None else ""
        say(f"{self.label}: {self.done:,}{of}{'  ' + self.note if self.note else ''}")


class _Bar:
    def __init__(self, bar: Any, task: Any) -> None:
        self.bar, self.task = bar, task

    def advance(self, count: int = 1, note: str = "") -> None:
        self.bar.update(self.task, advance=count, **({"note": note} if note else {}))


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
    )
    with RichProgress(*columns, TextColumn("{task.fields[note]}"), console=Console(stderr=True)) as bar:
        yield _Bar(bar, bar.add_task(label, total=total, note=""))
