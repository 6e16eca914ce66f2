"""The Queue protocol: units go in, deliveries come out at least once, and nothing is forgotten in between.

Guarantees every backend owes: a unit that is queued, in flight or set aside is not taken a second time by `submit`; a
delivery whose worker died comes back; failures of a unit's own and deliveries lost with a worker are counted apart, and
a unit that reaches either limit is set aside with its last error while the rest go on. Deliveries repeat, so a handler
asks the store first whether the unit is committed. Cost: ids only, no text, in a message.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

from foundation.records import Contract, Unit

Priority = Literal["high", "normal", "low"]
PRIORITIES: tuple[Priority, ...] = ("high", "normal", "low")
Command = Literal["retry", "forget", "withdraw", "pause", "resume", "hold"]
LONGEST = 20  # leases a unit may take in all: the runner ends it then, and a backend some time after, if that is stuck


@dataclass(frozen=True, slots=True)
class Ack:
    """What a handler says of a delivery. `failed` counts against the unit, `release` does not: it goes back as it was."""

    state: Literal["done", "failed", "release"]
    error: str = ""


DONE = Ack("done")
RELEASE = Ack("release")

Handler = Callable[[Unit], Ack]
"""Runs one unit. An exception it raises counts as failed."""

Stop = Callable[[], bool]
"""Asked between deliveries, at least once a second: True ends `consume` before the next one."""


class FailedUnit(Contract):
    """A unit that was set aside: how often it failed or was lost, and the last error."""

    v: Literal[1] = 1
    unit: Unit
    priority: Priority
    failures: int = 0
    lost: int = 0
    error: str = ""


@dataclass(frozen=True, slots=True)
class Depth:
    """Units waiting, by priority, and units out with a worker; whether the queue is paused."""

    high: int = 0
    normal: int = 0
    low: int = 0
    in_flight: int = 0
    paused: bool = False

    @property
    def queued(self) -> int:
        return self.high + self.normal + self.low


class Queue(Protocol):
    """This is the whole surface."""

    def submit(self, units: Iterable[Unit], priority: Priority) -> int:
        """Queue the units it does not hold yet, in order, and say how many that were.

        What it holds is looked up before the first unit is drawn, so a lazy `units` may leave out what is committed.
        """
        ...

    def consume(self, handler: Handler, stop: Stop) -> None:
        """Hand one unit at a time to `handler`, high before normal before low, until `stop` says so. Then the last one is acked."""
        ...

    def depth(self) -> Depth: ...

    def failures(self) -> list[FailedUnit]:
        """The units that were set aside."""
        ...

    def control(self, command: Command, prompt_types: Collection[str] = ()) -> int:
        """Act on the units of some prompt types, or of all; returns how many units it touched.

        `retry`: put what was set aside back with its counters at zero. `forget`: drop what was set aside. `withdraw`: drop
        what waits (never what is in flight); the plan still has it, so `reconcile` can queue it again, at another priority
        for instance. `hold`: these prompt types, and no others, are held back from now on (none: no type is): a unit of
        theirs is neither accepted by `submit` nor handed out, and one that fails, is released or lost is dropped, with its
        counters; it touches nothing by itself. `pause` and `resume` are for the whole queue (`ValueError` with prompt types): while it is paused
        `consume` begins no delivery, not even of a unit that is submitted later; they touch what waits.
        """
        ...


def check_control(command: Command, prompt_types: Collection[str]) -> None:
    """What every backend refuses. Raises `ValueError`."""
    if prompt_types and command in ("pause", "resume"):
        raise ValueError(f"{command} is for the whole queue; what of one prompt type waits can be withdrawn")
