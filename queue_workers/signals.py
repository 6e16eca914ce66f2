"""SIGTERM, Ctrl-C and the end of the terminal (SIGHUP), of a command that runs for long.

Guarantees: each one is counted; none is lost, none breaks off what must be finished. What merely waits (a server that
loads, a pause) is broken off by the first. Cost: three signal handlers.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from typing import Any


class Stopped(KeyboardInterrupt):
    """The person, or the system, wants an end, and nothing is in hand."""


class Signals:
    """`count` is how often an end was asked for: 1 is a drain, more is haste."""

    def __init__(self) -> None:
        self.count = 0
        self._breaks = False

    @contextlib.contextmanager
    def handled(self) -> Iterator[Signals]:
        """Hear these signals until the context ends. A SIGHUP that is ignored (`nohup`) stays so."""
        numbers = [signal.SIGTERM, signal.SIGINT]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            numbers.append(signal.SIGHUP)
        before = {number: signal.signal(number, self._hear) for number in numbers}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def breaking(self) -> Iterator[None]:
        """Within, the next signal raises `Stopped`; so does one that came before."""
        self._breaks = True
        try:
            self.check()
            yield
        finally:
            self._breaks = False

    def check(self) -> None:
        """Raises `Stopped` if an end was asked for."""
        if self.count:
            raise Stopped

    def _hear(self, *_: Any) -> None:
        self.count += 1
        if self._breaks:
            self._breaks = False
            raise Stopped
