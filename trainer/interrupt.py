"""How a run is asked to stop: SIGTERM, Ctrl-C, a terminal that hangs up, or a file named STOP in its folder.

Guarantees: asked once, it ends at the next point where nothing is lost, with a checkpoint; a second signal ends the process
at once. While everything is saved (torch.compile at the start takes half a minute) it does not even wait for such a point.
Cost: one `stat` a look.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from foundation.console import say

STOP = "STOP"
Asked = Literal["", "signal", "stop"]


class Interrupted(BaseException):
    """Raised out of work that may be dropped. No `Exception`, so that no library takes it for a failure of its own."""


@dataclass
class Interrupt:
    """`asked` is how it was asked to stop, empty if it was not. `unsaved`: whether a checkpoint is due before the end."""

    folder: Path
    asked: Asked = ""
    unsaved: bool = True

    def look(self) -> Asked:
        """Whether to stop now, and how that was asked."""
        if not self.asked and (self.folder / STOP).exists():
            self.asked = "stop"
            say(f"found {self.folder / STOP}: stopping with a checkpoint")
        return self.asked

    def check(self) -> None:
        """Raises `Interrupted` if a stop was asked for: the work in hand is to be dropped."""
        if self.look():
            raise Interrupted

    def done(self) -> None:
        """The stop was obeyed: take its file away."""
        if self.asked == "stop":
            (self.folder / STOP).unlink(missing_ok=True)


def unheard() -> bool:
    """Whether whoever read standard error is gone: the other end of a pipe, or the terminal."""
    try:
        look = select.poll()
        look.register(sys.stderr.fileno(), 0)
    except (OSError, ValueError):  # not a file of the system's
        return False
    return bool(look.poll(0))


def fall_silent() -> None:
    """Let standard error lead nowhere: what is still said there must cost neither a checkpoint nor the exit status."""
    sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


@contextmanager
def interrupt(folder: Path) -> Iterator[Interrupt]:
    """Listen for signals and for the file until the block ends. A file from before is removed, and a line says so."""
    asked = Interrupt(folder)
    if (folder / STOP).exists():
        (folder / STOP).unlink()
        say(f"removed {folder / STOP}, left from before this run")

    def note(_number: int, _frame: object) -> None:
        asked.asked = "signal"
        for one, handler in before.items():
            signal.signal(one, handler)
        if signal.SIGHUP in before:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)  # terminal and shell send one each
        try:
            with suppress(RuntimeError):  # Python refuses a line within a line
                say(f"stopping{', with a checkpoint' if asked.unsaved else ''}; once more ends it at once")
        except OSError:  # whoever read them is gone: `| tee` gets the same Ctrl-C
            fall_silent()
        if not asked.unsaved:
            raise Interrupted

    before = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    if before[signal.SIGHUP] is signal.SIG_IGN:
        del before[signal.SIGHUP]  # `nohup` wants it so
    for one in before:
        signal.signal(one, note)
    try:
        yield asked
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
