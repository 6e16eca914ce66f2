"""`factory work`: the workspace's Redis, its teacher and its workers under one process.

Guarantees: what is planned and neither committed nor queued is queued first; SIGTERM or Ctrl-C drains (each worker
finishes its unit and acks it), a second one ends it at once; killed in any way it leaves nothing running but Redis, and
the next one goes on. A full disk, or a teacher that fails unit after unit, stops the work instead of using up the units.
Cost: this process is idle but for 5 looks at the queue a second and a read of each committed shard.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from foundation.console import progress, say
from foundation.errors import Failure, UsageError
from foundation.records import Unit
from generator.gates import Gates
from generator.teachers.make import teacher_from_settings
from queue_workers.crew import Crew, News
from queue_workers.ledger import Ledger, Totals, open_ledger, reconcile, remaining
from queue_workers.plan import load_plan, load_split, queue_name
from queue_workers.presence import at_work
from queue_workers.protocol import Ack, Stop
from queue_workers.redis_server import connect, redis_connection
from queue_workers.rq_queue import MARGIN, RqQueue
from queue_workers.runner import Context, Ran, run_unit

if TYPE_CHECKING:
    from foundation.console import Progress
    from foundation.workspace import Workspace

PATIENCE = 5  # different units the teacher fails in a row, or deaths of workers in a row, before the work stops
LOOK = 0.2  # seconds between two looks at the queue
BREATHER = 1.0  # seconds a worker waits after a trouble that is not the unit's own


@dataclass(frozen=True)
class Summary:
    """What was committed while it ran, what was set aside, and what is left of the plan."""

    totals: Totals
    failed: int
    left: int
    seconds: float


def work(workspace: Workspace, *, burst: bool, workers: int) -> Summary:
    """Work until told to stop; with `burst` until plan - committed - set aside is empty.

    Raises `UsageError` if nothing is planned, `Failure` if Redis or the teacher cannot be had or the disk is full.
    """
    store = workspace.store
    plan = load_plan(store)
    if not plan.lines:
        raise UsageError("nothing is planned yet", where=str(workspace.root), mend="`factory enqueue --all` first")
    start = time.monotonic()
    with ExitStack() as stack:
        # Until the workers run there is nothing to drain: a SIGTERM unwinds like Ctrl-C, so what was started is ended.
        _handle(stack, signal.SIGTERM, signal.default_int_handler)
        redis = stack.enter_context(redis_connection(workspace))
        stack.enter_context(at_work(workspace))
        ledger = stack.enter_context(open_ledger(store, workspace.cache))
        queue = RqQueue(redis, queue_name(store), workspace.settings.queue)
        reconcile(plan, store, queue)
        before, failed = ledger.totals(), len(queue.failures())
        depth = queue.depth()
        if not burst or depth.queued or depth.in_flight:
            teacher = stack.enter_context(teacher_from_settings(workspace))
            context = Context(store, teacher, Gates(), load_split(store), workspace.settings.queue.lease)
            context.warm({line.fingerprint for line in plan.lines})
            shift = _Shift(workspace, queue, context, ledger, burst)
            crew = Crew(shift.worker)
            stack.callback(crew.close)
            crew.start(workers)  # before the progress bar: it has a thread, and a fork wants none
            for number in (signal.SIGTERM, signal.SIGINT):
                _handle(stack, number, shift.on_signal)
            with progress("units", depth.queued + depth.in_flight if burst else None) as bar:
                shift.run(crew, bar)
        ledger.refresh()
        dead = {row.unit.id for row in queue.failures()}
        left = sum(unit.id not in dead for unit in remaining(load_plan(store), store))
        return Summary(ledger.totals() - before, max(0, len(dead) - failed), left, time.monotonic() - start)


@dataclass
class _Shift:
    """One stretch of work: what the workers do, and what this process makes of their news."""

    workspace: Workspace
    queue: RqQueue
    context: Context
    ledger: Ledger
    burst: bool
    signals: int = 0
    trouble: Failure | None = None
    deaths: int = 0
    teacher_failed: set[str] = field(default_factory=set)
    began: float = field(default_factory=time.monotonic)
    done: Totals = field(default_factory=Totals)
    looked: float = 0.0

    def run(self, crew: Crew, bar: Progress) -> None:
        """Returns when the last worker has ended. Raises what stopped the work, if something did."""
        stopping: float | None = None
        while stopping is None or crew.size:
            for news in crew.news(LOOK):
                self._hear(news, bar)
            if stopping is not None:
                if self.signals > 1 or time.monotonic() - stopping > self.context.lease + MARGIN:
                    crew.kill()
            elif self._should_stop(crew):
                stopping = time.monotonic()
                crew.stop()
        for news in crew.news(0):
            self._hear(news, bar)
        if self.trouble:
            raise self.trouble

    def worker(self, stop: Stop, tell: Callable[[Unit, Ran], None]) -> None:
        """The life of one worker process."""

        def handle(unit: Unit) -> Ack:
            ran = run_unit(unit, self.context)
            tell(unit, ran)
            if ran.fault in ("teacher", "store"):
                time.sleep(BREATHER)
            return ran.ack

        RqQueue(connect(self.workspace), self.queue.name, self.queue.settings).consume(handle, stop)

    def _should_stop(self, crew: Crew) -> bool:
        if self.signals:
            say("draining: each worker finishes its unit (once more to end at once)")
            return True
        self.deaths += crew.revive()
        if self.deaths >= PATIENCE and not self.trouble:
            self.trouble = Failure(f"{self.deaths} workers ended by themselves", mend="read the lines above")
        try:
            return self.trouble is not None or (self.burst and self._finished())
        except RedisError as error:
            crew.kill()  # nothing they do can be acked
            self.trouble = Failure(
                f"Redis went away: {error}",
                where=str(self.workspace.root),
                mend="run the same command again: nothing is lost",
            )
            return True

    def _finished(self) -> bool:
        """Whether plan - committed - set aside is empty; what is in no list is queued again."""
        if time.monotonic() - self.looked < LOOK:
            return False
        self.looked = time.monotonic()
        depth = self.queue.depth()
        if depth.queued or depth.in_flight:
            return False
        store = self.context.store
        plan = load_plan(store)
        if reconcile(plan, store, self.queue):
            return False
        dead = {row.unit.id for row in self.queue.failures()}
        return all(unit.id in dead for unit in remaining(plan, store))

    def _hear(self, news: News, bar: Progress) -> None:
        if news.unit is None:
            say(f"a worker ended: {news.error}")
            return
        if news.state == "done":
            self.teacher_failed.clear()
            self.deaths = 0
            self.done += self.ledger.add(news.unit)
            bar.advance(1, self._rates())
            return
        say(f"unit {news.unit.id} of {news.unit.prompt_type} was not committed: {news.error}")
        if news.fault == "store":
            self.trouble = self.trouble or Failure(news.error)
        if news.fault == "teacher":
            self.teacher_failed.add(news.unit.id)
            if len(self.teacher_failed) >= PATIENCE:
                self.trouble = Failure(
                    f"the teacher failed {PATIENCE} units in a row, the last one so: {news.error}",
                    mend="when that is mended, run the same command again: nothing is lost",
                )

    def _rates(self) -> str:
        done = self.done
        rate = done.records / max(1e-3, time.monotonic() - self.began)
        return f"{done.records:,} records ({rate:,.0f}/s), {done.accepted / max(1, done.items):.0%} of items accepted"

    def on_signal(self, *_: Any) -> None:
        self.signals += 1


def _handle(stack: ExitStack, number: int, handler: Any) -> None:
    """Set a signal handler until the stack unwinds."""
    stack.callback(signal.signal, number, signal.signal(number, handler))
