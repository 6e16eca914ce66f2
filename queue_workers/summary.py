"""What a command that worked says at its end.

Guarantees: counts are the ledger's and the queue's; where one of them cannot be asked any more, as far as is known.
Cost: a listing of the shards and 6 µs a planned unit.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from foundation.errors import Failure
from queue_workers.controls import load_controls
from queue_workers.ledger import Ledger, Totals, committed
from queue_workers.plan import load_plan

if TYPE_CHECKING:
    from foundation.store import Store
    from queue_workers.protocol import Queue

Ended = Literal["done", "stopped"]


@dataclass(frozen=True)
class Summary:
    """What was committed while it ran (`totals`), what was set aside (`failed`), and what is left of the plan, in units;
    `ended` says why it ended. `aside` and `paused` units are neither committed nor left;
    `cached` is the share of prompt tokens that the teacher's prefix cache had, None where no server told."""

    totals: Totals
    failed: int
    left: int
    seconds: float
    ended: Ended = "done"
    aside: int = 0
    paused: int = 0
    restarts: int = 0
    handovers: int = 0
    cached: float | None = None


@dataclass(frozen=True)
class Start:
    """What was there when the work began: counts of the ledger, and units set aside."""

    totals: Totals
    aside: int


def sum_up(store: Store, ledger: Ledger, queue: Queue, start: Start, done: Totals) -> Summary:
    """The summary but for what only the command knows; `done` is what it counted itself."""
    dead: set[str] = set()
    with suppress(Failure):
        ledger.refresh()
        done = ledger.totals() - start.totals
    with suppress(Failure):
        dead = {row.unit.id for row in queue.failures()}
    controls, there = load_controls(store), committed(store)
    left = paused = 0
    for unit in load_plan(store).units():
        if unit.id not in there and unit.id not in dead:
            if controls.paused or unit.prompt_type in controls.paused_types:
                paused += 1
            else:
                left += 1
    return Summary(done, max(0, len(dead) - start.aside), left, 0.0, aside=len(dead), paused=paused)
