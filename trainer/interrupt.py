"""How a run is asked to stop: SIGTERM, Ctrl-C, or a file named STOP in its folder.

Guarantees: asked once, it ends at the next point where nothing is lost, with a checkpoint; a second signal ends the process
at once. While everything is saved (torch.compile at the start takes half a minute) it does not even wait for such a point.
Cost: one `stat` a look.
"""

from __future__ import annotations

import signal
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
        # Python refuses a line within a line, and whoever read them may be gone (`| tee` gets the same Ctrl-C).
        with suppress(RuntimeError, OSError):
            say("stopping, with a checkpoint; once more ends it at once")
        if not asked.unsaved:
            raise Interrupted

    before = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)}
    for one in before:
        signal.signal(one, note)
    try:
        yield asked
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
