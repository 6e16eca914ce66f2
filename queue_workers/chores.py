"""What a running `factory run` does now and then beside its work: serve metrics, and count what other machines commit.

Guarantees: a metrics child that died is started again, slower each time, with one event; a chore that fails is told, and
ends nothing. Cost: one look at a child every two seconds; following the shards every five minutes, less often where
it takes more than a twentieth of that.
"""

from __future__ import annotations

import multiprocessing
import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from foundation.errors import FactoryError
from queue_workers.metrics import serve_metrics

if TYPE_CHECKING:
    from collections.abc import Callable

    from foundation.log import EventLog
    from foundation.workspace import Workspace
    from queue_workers.ledger import Ledger

FOLLOW = 300.0  # seconds between two looks at what others committed
SHARE = 20  # what took t seconds is not repeated for SHARE * t
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 300.0  # seconds until the metrics are served again


class MetricsServer:
    """The metrics child, kept alive. `port` None: none is wanted. Use it as a context; raises `UsageError` as that does."""

    def __init__(self, workspace: Workspace, port: int | None) -> None:
        self.workspace, self.port = workspace, port
        self._stack = ExitStack()
        self._pause, self._again_at = FIRST_PAUSE, 0.0

    def __enter__(self) -> MetricsServer:
        if self.port is not None:
            self.port = self._stack.enter_context(serve_metrics(self.workspace, self.port))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def keep(self, log: EventLog) -> None:
        """Start it again if it died."""
        now = time.monotonic()
        if self.port is None or any(child.name == "metrics" for child in multiprocessing.active_children()):
            return
        if not self._again_at:
            self._again_at = now + self._pause
            self._pause = min(LONGEST_PAUSE, 2 * self._pause)
            tell = f"the process that served metrics ended; port {self.port} is served again soon"
            log.event("metrics_lost", level="warning", tell=tell, port=self.port)
        elif now >= self._again_at:
            self._again_at = 0.0
            self._stack.close()
            try:
                self._stack.enter_context(serve_metrics(self.workspace, self.port))
            except FactoryError as error:
                log.event("metrics_refused", level="warning", error=str(error), port=self.port)


class Follow:
    """Keep the ledger up with what is committed elsewhere."""

    def __init__(self, ledger: Ledger, log: EventLog) -> None:
        self.ledger, self.log = ledger, log
        self._due = time.monotonic() + FOLLOW

    def keep(self) -> None:
        began = time.monotonic()
        if began < self._due:
            return
        try:
            self.ledger.refresh()
        except (FactoryError, OSError) as error:
            self.log.event("not_counted", level="warning", error=str(error))
        took = time.monotonic() - began
        self._due = time.monotonic() + max(FOLLOW, SHARE * took)


def chores(log: EventLog, metrics: MetricsServer | None, ledger: Ledger | None) -> Callable[[], None]:
    """What is to be called every few seconds."""
    keep: list[Callable[[], None]] = [partial(metrics.keep, log)] if metrics else []
    if ledger:
        keep.append(Follow(ledger, log).keep)

    def do() -> None:
        for chore in keep:
            chore()

    return do
