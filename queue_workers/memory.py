"""The Queue protocol in memory: for tests and simulations, one process, nothing kept.

Guarantees: those of the protocol, with leases that expire by `clock` alone, so a fake clock can act out weeks.
Cost: O(1) an operation, but an expired lease is looked for at every `take`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from foundation.records import Unit
from queue_workers.protocol import PRIORITIES, Ack, Command, Depth, FailedUnit, Handler, Priority, Stop


@dataclass(slots=True)
class _Held:
    """What the queue knows of one unit. `token` names the delivery that owns it."""

    unit: Unit
    priority: Priority
    failures: int = 0
    lost: int = 0
    error: str = ""
    token: int = 0
    expires: float = 0.0


class MemoryQueue:
    """`lease` is in seconds of `clock`."""

    def __init__(
        self,
        *,
        lease: float = 180,
        max_failures: int = 3,
        max_lost: int = 10,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.lease, self.max_failures, self.max_lost, self.clock = lease, max_failures, max_lost, clock
        self._waiting: dict[Priority, deque[_Held]] = {priority: deque() for priority in PRIORITIES}
        self._held: dict[str, _Held] = {}
        self._in_flight: dict[str, _Held] = {}  # in the order they were leased: the first expires first
        self._dead: dict[str, _Held] = {}
        self._tokens = 0

    def submit(self, units: Iterable[Unit], priority: Priority) -> int:
        added = 0
        for unit in units:
            if unit.id not in self._held:
                self._held[unit.id] = held = _Held(unit, priority)
                self._waiting[priority].append(held)
                added += 1
        return added

    def consume(self, handler: Handler, stop: Stop) -> None:
        while not stop():
            delivery = self.take()
            if delivery is None:
                time.sleep(0.005)
                continue
            unit, token = delivery
            try:
                ack = handler(unit)
            except Exception as error:
                ack = Ack("failed", f"{type(error).__name__}: {error}")
            self.settle(unit.id, token, ack)

    def depth(self) -> Depth:
        counts = {priority: len(waiting) for priority, waiting in self._waiting.items()}
        return Depth(**counts, in_flight=len(self._in_flight))

    def failures(self) -> list[FailedUnit]:
        return [
            FailedUnit(unit=held.unit, priority=held.priority, failures=held.failures, lost=held.lost, error=held.error)
            for held in self._dead.values()
        ]

    def control(self, command: Command) -> int:
        dead, self._dead = self._dead, {}
        for held in dead.values():
            held.failures = held.lost = 0
            self._waiting[held.priority].append(held)
        return len(dead)

    def take(self) -> tuple[Unit, int] | None:
        """Lease the next unit: it and the token that settles it. None when nothing waits."""
        self._expire()
        for priority in PRIORITIES:
            if self._waiting[priority]:
                held = self._waiting[priority].popleft()
                self._tokens += 1
                held.token, held.expires = self._tokens, self.clock() + self.lease
                self._in_flight[held.unit.id] = held
                return held.unit, held.token
        return None

    def settle(self, unit_id: str, token: int, ack: Ack) -> bool:
        """Ack a delivery. False, and nothing changes, if the lease was lost meanwhile."""
        held = self._in_flight.get(unit_id)
        if held is None or held.token != token:
            return False
        del self._in_flight[unit_id]
        if ack.state == "done":
            del self._held[unit_id]
            return True
        if ack.state == "failed":
            held.failures += 1
            held.error = ack.error
        self._back(held)
        return True

    def _expire(self) -> None:
        while self._in_flight:
            held = next(iter(self._in_flight.values()))
            if held.expires > self.clock():
                return
            del self._in_flight[held.unit.id]
            held.lost += 1
            held.error = "its lease ran out"
            self._back(held)

    def _back(self, held: _Held) -> None:
        if held.failures >= self.max_failures or held.lost >= self.max_lost:
            self._dead[held.unit.id] = held
        else:
            self._waiting[held.priority].append(held)
