"""The worker processes of one stretch, and how they tell their parent what they did.

Guarantees: a worker is a fork in a process group of its own, so Ctrl-C reaches the parent alone; it dies with the
parent, however that dies, and takes its work-horse along. What it tells is news, not the ledger: a message that finds the
pipe full is dropped. `close` leaves no process, no zombie and no open file. Cost: one pipe and about 10 MB a worker.
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
from pathlib import Path
from typing import Any

from foundation.processes import die_with_parent
from foundation.records import Unit
from queue_workers.protocol import Stop
from queue_workers.runner import Ran

LONGEST = 4096  # bytes of a message: up to PIPE_BUF a write is whole or not at all
_fork = multiprocessing.get_context("fork")  # a fork keeps the loaded detector, templates and teacher
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class News:
    """One message of a worker: what became of a unit; or, without a unit, why the worker ends."""

    state: str
    fault: str = ""
    error: str = ""
    attempt: str = ""
    seconds: float = 0.0
    items: tuple[tuple[str, str], ...] = ()
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
            # A signal that came before the worker's own handlers are set would be heard by the parent's, in the wrong process.
            signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
            try:
                process.start()
            finally:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            self._processes.append(process)

    @property
    def size(self) -> int:
        """How many are alive."""
        return sum(process.is_alive() for process in self._processes)

    def bury(self) -> int:
        """Forget those that ended; how many that were since the last time."""
        ended = [process for process in self._processes if not process.is_alive()]
        self._processes = [process for process in self._processes if process not in ended]
        for process in ended:
            _forget(process)
        return len(ended)

    def stop(self) -> None:
        """Ask all to end after the unit they have in hand."""
        for process in self._processes:
            process.terminate()

    def recall(self) -> None:
        """Ask all for the unit they have in hand: their work-horses give it back. `stop` comes first.

        Ask again until they have ended: a work-horse that is just being forked hears nothing yet."""
        for process in self._processes:
            if process.is_alive():
                for horse in _children(process.pid):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(horse, signal.SIGTERM)

    def kill(self) -> None:
        """End all now; a unit in hand counts as lost and is run again later."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            _forget(process)
        self._processes = []

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
            unit, items = row.pop("unit"), row.pop("items")
            named = tuple((item, error) for item, error in items)
            yield News(**row, items=named, unit=Unit.model_validate(unit) if unit else None)

    def _live(self, parent: int) -> None:
        stopped: list[int] = []
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        die_with_parent(signal.SIGKILL)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)
        os.setpgid(0, 0)
        os.close(self._read)
        try:
            self.body(lambda: bool(stopped), self._tell_of)
        except BaseException as error:
            self._tell(News("ended", "worker", f"{type(error).__name__}: {error}"[:1000]))
            os._exit(1)
        os._exit(0)

    def _tell_of(self, unit: Unit, ran: Ran) -> None:
        items = tuple((item, error[:200]) for item, error in ran.items)
        self._tell(News(ran.ack.state, ran.fault, ran.ack.error[:1000], ran.attempt, ran.seconds, items, unit))

    def _tell(self, news: News) -> None:
        row = asdict(news) | {"unit": news.unit.model_dump() if news.unit else None}
        line = json.dumps(row, ensure_ascii=False).encode("utf-8", "replace")
        if len(line) >= LONGEST:
            line = json.dumps(row | {"error": news.error[:300], "items": []}).encode()
        with contextlib.suppress(BlockingIOError):
            os.write(self._write, line + b"\n")


def _forget(process: Any) -> None:
    """Reap an ended process, and close what is kept open for it."""
    process.join()
    process.close()


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError, ValueError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []
