"""The worker processes of one `factory work`, and how they tell it what they did.

Guarantees: a worker is a fork in a process group of its own, so Ctrl-C reaches the parent alone; it dies with the
parent, however that dies; one that ends by itself is started again. What it tells is news, not the ledger: a message
that finds the pipe full is dropped. Cost: one pipe and about 10 MB a worker.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import select
import signal
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from foundation.processes import die_with_parent
from foundation.records import Unit
from queue_workers.protocol import Stop
from queue_workers.runner import Ran

_fork = multiprocessing.get_context("fork")  # a fork keeps the loaded detector, templates and teacher


@dataclass(frozen=True, slots=True)
class News:
    """One message of a worker: what became of a unit; or, without a unit, why the worker ends."""

    state: str
    fault: str
    error: str
    unit: Unit | None = None


class Crew:
    """`body(stop, tell)` is the life of a worker: it works until `stop()` is true, and calls `tell` after each unit."""

    def __init__(self, body: Callable[[Stop, Callable[[Unit, Ran], None]], None]) -> None:
        self.body = body
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        self._rest = b""
        self._processes: list[Any] = []

    def start(self, count: int) -> None:
        for _ in range(count):
            process = _fork.Process(target=self._live, args=(os.getpid(),))
            process.start()
            self._processes.append(process)

    @property
    def size(self) -> int:
        """How many are alive."""
        return sum(process.is_alive() for process in self._processes)

    def revive(self) -> int:
        """Start anew those that ended by themselves; how many that were."""
        ended = [process for process in self._processes if not process.is_alive()]
        self._processes = [process for process in self._processes if process not in ended]
        self.start(len(ended))
        return len(ended)

    def stop(self) -> None:
        """Ask all to end after the unit they have in hand."""
        for process in self._processes:
            process.terminate()

    def kill(self) -> None:
        """End all now; a unit in hand counts as lost and is run again later."""
        for process in self._processes:
            process.kill()
            process.join()

    def close(self) -> None:
        self.kill()
        os.close(self._read)
        os.close(self._write)

    def news(self, seconds: float) -> Iterator[News]:
        """What was told, after at most `seconds` of waiting for it."""
        ready, _, _ = select.select([self._read], [], [], seconds)
        if not ready:
            return
        *lines, self._rest = (self._rest + os.read(self._read, 1 << 20)).split(b"\n")
        for line in lines:
            row = json.loads(line)
            unit = row.pop("unit")
            yield News(**row, unit=Unit.model_validate(unit) if unit else None)

    def _live(self, parent: int) -> None:
        die_with_parent(signal.SIGKILL)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)
        os.setpgid(0, 0)
        stopped: list[int] = []
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
        try:
            self.body(
                lambda: bool(stopped), lambda unit, ran: self._tell(News(ran.ack.state, ran.fault, ran.ack.error, unit))
            )
        except BaseException as error:
            self._tell(News("ended", "worker", f"{type(error).__name__}: {error}"))
            os._exit(1)
        os._exit(0)

    def _tell(self, news: News) -> None:
        row = asdict(news) | {"unit": news.unit.model_dump() if news.unit else None, "error": news.error[:500]}
        with contextlib.suppress(BlockingIOError):
            os.write(self._write, json.dumps(row).encode() + b"\n")  # under 4,096 bytes: written whole or not at all
