"""The meter of a running `factory run` or `factory work`: how fast it goes, and what it used so far.

Guarantees: a rate is over the last five minutes of work; in the first seconds over those, and time that was paused, idle
or waiting is left out, so a rate is right at once when work goes on. While nothing works every rate is 0. Energy and
money are totals of the workspace (`cache/meter.json`): they outlive a restart, and a kill loses at most a minute of them.
Of several processes at work in one workspace one counts energy and money, the others tell what it has written.

What is counted: the draw of the visible GPUs while the command runs, whoever uses them (not the rest of the machine), and
the hours it runs. Cost: one look at NVML a tick (about 1 ms), one small file a minute.
"""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from foundation.errors import Failure
from foundation.store import replace_file
from queue_workers.gpus import Gpus
from queue_workers.ledger import Totals

if TYPE_CHECKING:
    from foundation.workspace import Workspace
    from queue_workers.snapshot import GpuUse

WINDOW = 300  # seconds of work a rate looks back
SAVED = 60.0  # seconds between two writes of what was used
FILE = "meter.json"  # in the workspace's cache/


@dataclass(frozen=True, slots=True)
class Used:
    """What the workspace used since it was made: `seconds` a command was at work here, `kwh` its GPUs drew, `money`."""

    seconds: float = 0.0
    kwh: float = 0.0
    money: float = 0.0


class Meter:
    """`add` each committed unit, `tick` every few seconds, `fields` for the snapshot, `close` at the end."""

    def __init__(
        self, workspace: Workspace, *, clock: Callable[[], float] = time.monotonic, gpus: Gpus | None = None
    ) -> None:
        self.workspace, self.clock = workspace, clock
        self.done = Totals()
        self._reader = gpus or Gpus()
        self._gpus: tuple[GpuUse, ...] = ()
        self._buckets: deque[tuple[int, Totals]] = deque()  # one a second of work
        self._last = self._saved = clock()
        self._worked, self._working = 0.0, True
        self._counting: ExitStack | None = None
        self._used = read_used(workspace)

    def add(self, done: Totals) -> None:
        """Count what was just committed."""
        self.done += done
        second = int(self._now())
        if self._buckets and self._buckets[-1][0] == second:
            self._buckets[-1] = (second, self._buckets[-1][1] + done)
        else:
            self._buckets.append((second, done))

    def tick(self, working: bool = True) -> None:
        """Look at the GPUs and the clock. `working` holds from now on: False while paused, waiting or out of work."""
        now = self.clock()
        self._worked, self._working = self._now(), working
        gpus = self._reader.look()
        if self._counts():
            # The mean of this look and the last one stands for the time between them.
            watts = (_watts(self._gpus or gpus) + _watts(gpus)) / 2
            self._use(now - self._last, watts)
        elif now - self._saved >= SAVED:
            self._used, self._saved = read_used(self.workspace), now
        self._gpus, self._last = gpus, now
        if self._counting and now - self._saved >= SAVED:
            self._save()

    def fields(self) -> dict[str, Any]:
        """The fields of a `Snapshot` that are the meter's."""
        records, items, tokens = self.rates()
        done, used = self.done, self._used
        return {
            **{"units": done.units, "items": done.items, "accepted": done.accepted},
            **{"records": done.records, "tokens": done.tokens},
            **{"records_per_second": records, "items_per_second": items, "tokens_per_second": tokens},
            **{"gpus": self._gpus, "hours": used.seconds / 3600, "kwh": used.kwh, "money": used.money},
        }

    def rates(self) -> tuple[float, float, float]:
        """Records, items and tokens a second."""
        now = self._now()
        while self._buckets and self._buckets[0][0] < now - WINDOW:
            self._buckets.popleft()
        if not self._working:
            return 0.0, 0.0, 0.0
        seconds = max(1.0, min(now, WINDOW))
        counts = [totals for _, totals in self._buckets]
        return (
            sum(one.records for one in counts) / seconds,
            sum(one.items for one in counts) / seconds,
            sum(one.tokens for one in counts) / seconds,
        )

    def close(self) -> None:
        """Write what was used, and let NVML and the count go."""
        self.tick(self._working)
        if self._counting:
            self._save()
            self._counting.close()
            self._counting = None
        self._reader.close()

    def _now(self) -> float:
        """Seconds of work so far: a clock that stands still while nothing works."""
        return self._worked + (self.clock() - self._last if self._working else 0.0)

    def _counts(self) -> bool:
        """Whether this process is the one that counts energy and money; it becomes it when the one before ends."""
        if self._counting is None:
            stack = ExitStack()
            try:
                stack.enter_context(self.workspace.lock(f"meter-{socket.gethostname()}", wait=False))
            except (Failure, OSError):
                return False
            self._counting, self._used = stack, read_used(self.workspace)
        return True

    def _use(self, seconds: float, watts: float) -> None:
        kwh = watts * seconds / 3.6e6
        prices, used = self.workspace.settings.work, self._used
        money = prices.hourly_price * seconds / 3600 + prices.kwh_price * kwh
        self._used = Used(used.seconds + seconds, used.kwh + kwh, used.money + money)

    def _save(self) -> None:
        self._saved = self.clock()
        with contextlib.suppress(OSError):  # not worth the work
            replace_file(self.workspace.cache / FILE, json.dumps({"v": 1, **asdict(self._used)}).encode())


def read_used(workspace: Workspace) -> Used:
    """What was used so far, as last written; nothing if that cannot be read."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        row = json.loads((workspace.cache / FILE).read_bytes())
        return Used(*(max(0.0, float(row[name])) for name in Used.__slots__))
    return Used()


def _watts(gpus: tuple[GpuUse, ...]) -> float:
    return sum(gpu.watts or 0.0 for gpu in gpus)
