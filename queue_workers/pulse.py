"""The signs of life of a running `factory run` or `factory work`: its snapshot, its heartbeat in the log, its clock.

Guarantees: the snapshot is never older than a few seconds while the process runs, also while it waits for a server to
load; every ten minutes one event says what was done; a clock that jumps, or a machine that slept, is told.
Cost: a tick is 1 ms and is due every two seconds; nothing of it is fsynced.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from queue_workers import snapshot
from queue_workers.meter import Meter
from queue_workers.snapshot import Snapshot, State, TeacherUse

if TYPE_CHECKING:
    from typing import Literal

    from foundation.engine_health import Look
    from foundation.log import EventLog
    from foundation.workspace import Workspace

EVERY = 2.0  # seconds between two snapshots
HEARTBEAT = 600.0  # seconds between two heartbeats in the log
JUMP = 5.0  # seconds the clock may drift between two ticks


class _Cache:
    """Prefix-cache tokens looked up and found, over all servers of a command: a new server counts from 0 again."""

    def __init__(self) -> None:
        self._ended = self._seen = self._told = (0, 0)

    def saw(self, queries: int, hits: int) -> dict[str, int]:
        """The sums, with what the server of now says of itself. One that is gone says 0."""
        if queries < self._seen[0]:
            self._ended = self._sums()
        self._seen = (queries, hits)
        return dict(zip(("queries", "hits"), self._sums(), strict=True))

    def lately(self) -> float | None:
        """The share that was found since this was asked last; None if nothing was looked up."""
        queries, hits = (now - before for now, before in zip(self._sums(), self._told, strict=True))
        self._told = self._sums()
        return round(hits / queries, 4) if queries else None

    def _sums(self) -> tuple[int, int]:
        return self._ended[0] + self._seen[0], self._ended[1] + self._seen[1]


class Pulse:
    """What this process says of itself. Set the attributes as they change; `tick` as often as you like."""

    def __init__(self, workspace: Workspace, log: EventLog, command: Literal["run", "work"], *, speak: bool) -> None:
        self.workspace, self.log, self.command, self.speak = workspace, log, command, speak
        self.meter = Meter(workspace)
        self.state: State = "starting"
        self.reason = ""
        self.workers = self.deaths = self.redis_restarts = self.handovers = 0
        self.round: int | None = None
        self.teacher = TeacherUse()
        self._cache = _Cache()
        self.chores: Callable[[], None] = lambda: None
        """What else is due now and then; not from within a timer's signal, since it may fork or take long."""
        self._timed = False
        self._since = time.time()
        self._ticked = 0.0
        self._beat = time.monotonic()
        self._drift = time.time() - time.monotonic()

    @contextlib.contextmanager
    def beating(self) -> Iterator[Pulse]:
        """Be seen until the context ends."""
        try:
            self.tick(now=True)
            yield self
        finally:
            self.meter.close()
            snapshot.remove(self.workspace)

    @contextlib.contextmanager
    def by_itself(self) -> Iterator[None]:
        """Tick from a timer, for as long as something blocks: no thread, since this process forks."""
        before = signal.signal(signal.SIGALRM, lambda *_: self.tick())
        self._timed = True
        signal.setitimer(signal.ITIMER_REAL, EVERY, EVERY)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
            self._timed = False

    def say(self, state: State, reason: str = "") -> None:
        """Enter a state; `reason` is why it waits."""
        if (state, reason) != (self.state, self.reason):
            self.state, self.reason = state, reason
            self.tick(now=True)

    def saw(self, look: Look, name: str) -> None:
        """What the teacher said of itself."""
        self.teacher = self.teacher.model_copy(
            update={
                **{"name": name, "state": look.state, "running": look.running, "waiting": look.waiting},
                **{"limit": look.limit, **self._cache.saw(look.queries, look.hits)},
            }
        )

    def tick(self, *, now: bool = False) -> None:
        """Write the snapshot if it is due, and what else is."""
        clock = time.monotonic()
        if not now and clock - self._ticked < EVERY:
            return
        self._ticked = clock
        self._watch_clock()
        self.meter.tick(self.state in ("working", "draining"))
        seen = Snapshot(
            **snapshot.mine(),
            command=self.command,
            since=self._since,
            written=time.time(),
            state=self.state,
            reason=self.reason,
            workers=self.workers,
            worker_deaths=self.deaths,
            redis_restarts=self.redis_restarts,
            handovers=self.handovers,
            round=self.round,
            teacher=self.teacher,
            **self.meter.fields(),
        )
        snapshot.write(self.workspace, seen)
        if clock - self._beat >= HEARTBEAT:
            self._beat = clock
            self.heartbeat(seen)
        if not self._timed:
            self.chores()

    def heartbeat(self, seen: Snapshot) -> None:
        """One event that says how it goes."""
        tell = f"{self.state}{f' ({self.reason})' if self.reason else ''}: {self.rates()}"
        cached = self._cache.lately()
        if cached is not None:
            tell += f", {cached:.0%} of prompt tokens from the prefix cache"
        fields = seen.model_dump(
            include={"state", "reason", "workers", "units", "records", "records_per_second", "tokens_per_second"}
        )
        fields |= {"prefix_cache_hit_ratio": cached, "requests_per_worker": seen.teacher.limit or None}
        self.log.event("heartbeat", tell=tell if self.speak else "", **fields)

    def rates(self) -> str:
        """Speed and yield, for a person."""
        done, (records, _, tokens) = self.meter.done, self.meter.rates()
        speed = f"{records:,.0f} records/s" + (f", {tokens:,.0f} tokens/s" if tokens else "")
        return f"{done.records:,} records ({speed}), {done.accepted / max(1, done.items):.0%} of items accepted"

    def _watch_clock(self) -> None:
        drift = time.time() - time.monotonic()
        jump, self._drift = drift - self._drift, drift
        if abs(jump) > JUMP:
            way = "on" if jump > 0 else "back"
            tell = f"the clock went {abs(jump):,.0f} s {way}: it was set, or the machine slept"
            self.log.event("clock_jumped", level="warning", tell=tell, seconds=round(jump, 1))
