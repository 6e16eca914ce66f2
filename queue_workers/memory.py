"""The Queue protocol in memory: for tests and simulations, one process, nothing kept.

Guarantees: those of the protocol, with leases that expire by `clock` alone, so a fake clock can act out weeks; who has
lost a lease can settle nothing. Cost: O(1) and about 2 µs an operation whatever it holds, since all leases are
equally long and so expire in the order they were taken or extended; `withdraw` alone is O(waiting).
`UnrulyMemoryQueue` delivers the way a cloud queue may: out of order, and some units twice at a time.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from foundation.records import Unit
from queue_workers.protocol import (
    PRIORITIES,
    Ack,
    Command,
    Depth,
    FailedUnit,
    Handler,
    Priority,
    Stop,
    check_control,
)

IDLE = 0.005  # seconds between two looks while nothing waits


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
        self._paused = False
        self._held_types: frozenset[str] = frozenset()

    def submit(self, units: Iterable[Unit], priority: Priority) -> int:
        added = 0
        for unit in units:  # looked up one by one: in one process nothing is acked between the first look and the last
            if unit.id not in self._held and unit.prompt_type not in self._held_types:
                self._held[unit.id] = new = _Held(unit, priority)
                self._waiting[priority].append(new)
                added += 1
        return added

    def consume(self, handler: Handler, stop: Stop) -> None:
        while not stop():
            delivery = self.take()
            if delivery is None:
                time.sleep(IDLE)
                continue
            unit, token = delivery
            try:
                ack = handler(unit)
            except Exception as error:
                ack = Ack("failed", f"{type(error).__name__}: {error}")
            self.settle(unit.id, token, ack)

    def depth(self) -> Depth:
        counts = {priority: len(waiting) for priority, waiting in self._waiting.items()}
        return Depth(**counts, in_flight=len(self._in_flight), paused=self._paused)

    def failures(self) -> list[FailedUnit]:
        return [
            FailedUnit(unit=held.unit, priority=held.priority, failures=held.failures, lost=held.lost, error=held.error)
            for held in self._dead.values()
        ]

    def control(self, command: Command, prompt_types: Collection[str] = ()) -> int:
        check_control(command, prompt_types)
        if command in ("pause", "resume"):
            self._paused = command == "pause"
            return sum(map(len, self._waiting.values()))
        if command == "hold":
            self._held_types = frozenset(prompt_types)
            return 0
        if command == "withdraw":
            return sum(self._withdraw(priority, prompt_types) for priority in PRIORITIES)
        dead = [held for held in self._dead.values() if not prompt_types or held.unit.prompt_type in prompt_types]
        for held in dead:
            del self._dead[held.unit.id]
            if command == "forget":
                del self._held[held.unit.id]
            else:
                held.failures = held.lost = 0
                self._back(held)
        return len(dead)

    def take(self) -> tuple[Unit, int] | None:
        """Lease the next unit: it and the token that settles it. None when nothing waits, or the queue is paused."""
        self._expire()
        if self._paused:
            return None
        for priority in PRIORITIES:
            while self._waiting[priority]:
                held = self._pick(self._waiting[priority])
                if held.unit.prompt_type in self._held_types:
                    del self._held[held.unit.id]
                    continue
                self._tokens += 1
                held.token, held.expires = self._tokens, self.clock() + self.lease
                self._in_flight[held.unit.id] = held
                return held.unit, held.token
        return None

    def extend(self, unit_id: str, token: int) -> bool:
        """Lease a delivery for as long again, from now: the heartbeat of a worker. False if the lease was lost meanwhile."""
        held = self._owned(unit_id, token)
        if held is None:
            return False
        held.expires = self.clock() + self.lease
        del self._in_flight[unit_id]
        self._in_flight[unit_id] = held  # now the last to expire
        return True

    def settle(self, unit_id: str, token: int, ack: Ack) -> bool:
        """Ack a delivery. False, and nothing changes, if the lease was lost meanwhile."""
        held = self._owned(unit_id, token)
        if held is None:
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

    def _owned(self, unit_id: str, token: int) -> _Held | None:
        self._expire()
        held = self._in_flight.get(unit_id)
        return held if held is not None and held.token == token else None

    def _pick(self, waiting: deque[_Held]) -> _Held:
        return waiting.popleft()

    def _expire(self) -> None:
        now = self.clock()
        while self._in_flight:
            held = next(iter(self._in_flight.values()))
            if held.expires > now:
                return
            del self._in_flight[held.unit.id]
            held.lost += 1
            held.error = "its lease ran out"
            self._back(held)

    def _back(self, held: _Held) -> None:
        if held.unit.prompt_type in self._held_types:
            del self._held[held.unit.id]
        elif held.failures >= self.max_failures or held.lost >= self.max_lost:
            self._dead[held.unit.id] = held
        else:
            self._waiting[held.priority].append(held)

    def _withdraw(self, priority: Priority, prompt_types: Collection[str]) -> int:
        kept: deque[_Held] = deque()
        for held in self._waiting[priority]:
            if prompt_types and held.unit.prompt_type not in prompt_types:
                kept.append(held)
            else:
                del self._held[held.unit.id]
        gone = len(self._waiting[priority]) - len(kept)
        self._waiting[priority] = kept
        return gone


class UnrulyMemoryQueue(MemoryQueue):
    """Keeps what the protocol promises and nothing beyond: seeded disorder within a priority, and seeded second deliveries.

    A second delivery comes while the first one is out or after it was settled; nothing it is acked with counts.
    """

    WINDOW = 16  # how far from the head a unit may be taken
    TWICE = 0.25  # share of deliveries that come a second time

    def __init__(
        self,
        *,
        seed: int,
        lease: float = 180,
        max_failures: int = 3,
        max_lost: int = 10,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(lease=lease, max_failures=max_failures, max_lost=max_lost, clock=clock)
        self._random = random.Random(seed)
        self._again: deque[Unit] = deque()

    def take(self) -> tuple[Unit, int] | None:
        if self._again and not self._paused and self._random.random() < 0.5:
            again = self._again.popleft()
            if again.prompt_type not in self._held_types:
                return again, 0  # no delivery has this token
        delivery = super().take()
        if delivery is not None and self._random.random() < self.TWICE:
            self._again.append(delivery[0])
        return delivery

    def _pick(self, waiting: deque[_Held]) -> _Held:
        place = self._random.randrange(min(len(waiting), self.WINDOW))
        waiting.rotate(-place)
        held = waiting.popleft()
        waiting.rotate(place)
        return held
