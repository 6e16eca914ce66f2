"""What waits in the queue: kept from running dry, and said to be finished only when it is.

Guarantees: a queue that was flushed, or that lost its last second, gets back exactly what the plan still needs: as soon as
it is found empty or its server was away, else within minutes; finished means that plan - committed - set aside - paused
is empty, and nothing is in flight.
Cost: a look at the queue's depth a call; when it runs low a reading of the plan; a reading of the shards when it is empty
and every `LONGEST`. Each of the two readings takes at most a twentieth of the time, and neither holds the other up.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from foundation.errors import Failure, from_os_error
from queue_workers.controls import load_controls
from queue_workers.ledger import reconcile
from queue_workers.plan import load_plan
from queue_workers.protocol import Depth
from queue_workers.refill import Refilled

if TYPE_CHECKING:
    from foundation.log import EventLog
    from foundation.workspace import Workspace
    from queue_workers.protocol import Queue
    from queue_workers.refill import Refill

SHARE = 20  # what took t seconds is not repeated for SHARE * t
HASTE = 5  # the same while an end is in sight
SLACK = 5.0  # seconds between two readings of a plan that has nothing to take
BUSY = 0.5  # seconds until it is tried again while another command plans
LONGEST = 300.0  # seconds between two readings of the shards while the queue runs low again and again but never dry


class NoRoom(Failure):
    """The operating system takes no plan, or gives none: a full disk as a rule."""


class Supply:
    """`refill` plans more when little waits; without it, what is planned is all. `ends`: it is to be finished some time."""

    def __init__(
        self, workspace: Workspace, queue: Queue, log: EventLog, *, refill: Refill | None = None, ends: bool = False
    ) -> None:
        self.workspace, self.queue, self.log, self.refill, self.ends = workspace, queue, log, refill, ends
        self.round: int | None = None
        self.finished = False
        self.low = workspace.settings.plan.low_water if refill else 1
        self._owed = False  # a look that was to be `now` found the plan locked
        self._next = self._reconcile_empty = self._reconcile_low = 0.0

    def reconcile(self) -> int | None:
        """Queue what is planned and nowhere; how many units that were. None, at once, while another command plans."""
        with ExitStack() as stack:
            try:
                stack.enter_context(self.workspace.lock("plan", wait=False))
            except Failure:
                return None
            return reconcile(load_plan(self.workspace.store), self.workspace.store, self.queue)

    def broken(self) -> Failure | None:
        """What is wrong with the plan, if it cannot be read: no waiting mends that."""
        try:
            load_plan(self.workspace.store)
            load_controls(self.workspace.store)
        except Failure as error:
            return error
        except OSError:
            return None
        return None

    def look(self, *, now: bool = False) -> Depth:
        """The queue's depth; before that, if little waits and it is time (or `now`), it is filled up.

        Raises `Unavailable` while the queue's server is away, `NoRoom` where the disk refuses, `UsageError` if there is
        nothing to plan from; another `Failure` is the server's refusal, unless `broken` says more.
        """
        now = now or self._owed
        depth = self.queue.depth()
        held = depth.queued >= self.low or (depth.paused and depth.queued)
        if (time.monotonic() < self._next and (not now or self._owed)) or (held and not now):
            return depth
        began = time.monotonic()
        due = now or began >= (self._reconcile_low if depth.queued else self._reconcile_empty)
        try:
            found = self._reconcile_now() if due else 0
            self._owed = now and found is None
            if found is None:  # another command plans, for a moment or, stopped, for hours
                self._next = time.monotonic() + BUSY
                return depth
            began = time.monotonic()
            more = self.refill.top_up(drain=self.ends) if self.refill else Refilled(done=True)
        except OSError as error:  # a full disk takes no plan either
            full = from_os_error(error)
            raise NoRoom(full.what, where=full.where, mend=full.mend) from error
        self._tell(found, more)
        after = self.queue.depth()
        nothing = not (found or more.units or depth.queued or depth.in_flight or after.queued or after.in_flight)
        self.finished = self.ends and due and nothing and more.done
        self._next = self._after(began, SLACK if more.done and not self.ends else 0.2)
        return after

    def _reconcile_now(self) -> int | None:
        began = time.monotonic()
        found = self.reconcile()
        if found is None:
            return None
        self._reconcile_empty, self._reconcile_low = self._after(began, 0.2), self._after(began, LONGEST)
        return found

    def _after(self, began: float, least: float) -> float:
        """When what began then may be done again, so that it takes little of the time."""
        took = time.monotonic() - began
        return time.monotonic() + max(least, (HASTE if self.ends else SHARE) * took)

    def _tell(self, found: int, more: Refilled) -> None:
        if found:
            self.log.event("reconciled", units=found)
        if not more.units:
            return
        if more.round is not None and more.round != self.round:
            tell = f"round {more.round} begins" if self.round is not None else ""
            self.round = more.round
            self.log.event("round_opened", round=more.round, tell=tell)
        self.log.event("refilled", units=more.units, round=more.round)
