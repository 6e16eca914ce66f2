"""`factory run` and `factory work`: Redis, teacher, workers and refill under one process.

Guarantees: what is planned and neither committed nor queued is queued first; SIGTERM or Ctrl-C drains (units in hand
finish, or are given back when work.drain is over), a second one ends it at once; killed in any way it leaves nothing
running but Redis, and the next one goes on. `run` waits for all that can pass: a teacher that died, hangs or cannot be
reached, Redis, a full disk, a device that another asks for. `work` says what is wrong and ends. Wrong use ends both.
Cost: this process is idle but for five looks at the queue a second; nothing of it grows with the time it runs.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeVar

from foundation.console import progress
from foundation.devices import device_holder, device_wanted_by
from foundation.engine_health import Look
from foundation.errors import FactoryError, Failure, Unavailable, UsageError
from foundation.log import EventLog
from generator.gates import Gates
from generator.teachers.kept import REPLIES
from generator.teachers.make import teacher_from_settings
from queue_workers.blame import Blame
from queue_workers.chores import MetricsServer, chores
from queue_workers.ledger import Totals, open_ledger
from queue_workers.plan import fix_split, load_plan, queue_name
from queue_workers.presence import alone, at_work
from queue_workers.pulse import Pulse
from queue_workers.redis_server import redis_connection, revive
from queue_workers.refill import Refill
from queue_workers.rq_queue import RqQueue
from queue_workers.runner import Context
from queue_workers.shift import REDIS_PATIENCE, REDIS_PAUSE, SLOW_LOOK, End, Shift, Watch, no_room
from queue_workers.signals import Signals, Stopped
from queue_workers.summary import Ended, Start, Summary, sum_up
from queue_workers.supply import NoRoom, Supply

if TYPE_CHECKING:
    from collections.abc import Callable

    from foundation.console import Progress
    from foundation.workspace import Workspace
    from generator.teachers.make import ReadyTeacher

T = TypeVar("T")
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 300.0  # seconds between two tries
WELL = 600.0  # seconds of work after which a trouble is forgotten
FORGIVEN = 12  # tries of a teacher that fails all it is asked, about 25 minutes, before a command that is to end charges its units


def run(workspace: Workspace, *, drain: bool, metrics_port: int | None = None) -> Summary:
    """Work, and plan more, until told to stop; with `drain` until there is nothing more to take.

    Raises `Failure` if another one runs in this workspace, `UsageError` for what no waiting can mend.
    """
    with alone(workspace), MetricsServer(workspace, metrics_port) as metrics:
        fix_split(workspace.store, workspace.settings.split)
        return _Supervisor(
            workspace, "run", ends=drain, workers=workspace.settings.work.workers, metrics=metrics
        ).live()


def work(workspace: Workspace, *, burst: bool, workers: int) -> Summary:
    """Work on what is planned until told to stop; with `burst` until plan - committed - set aside - paused is empty.

    `workers` 0: as many as fit the teacher. Raises `UsageError` if nothing is planned, `Failure` if Redis or the
    teacher cannot be had or the disk is full.
    """
    if not load_plan(workspace.store).lines:
        raise UsageError("nothing is planned yet", where=str(workspace.root), mend="`factory enqueue --all` first")
    return _Supervisor(workspace, "work", ends=burst, workers=workers).live()


@dataclass
class _Backoff:
    """Pauses that double, until it went well for a while."""

    tries: int = 0

    def next(self) -> float:
        self.tries += 1
        return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self.tries - 1, 60))  # days of tries would overflow

    def went(self, seconds: float) -> None:
        """It was well for so long."""
        if seconds > WELL:
            self.tries = 0


class _Supervisor:
    """The life of one command. `workers` 0: as many as fit the teacher."""

    def __init__(
        self,
        workspace: Workspace,
        command: Literal["run", "work"],
        *,
        ends: bool,
        workers: int,
        metrics: MetricsServer | None = None,
    ) -> None:
        self.workspace, self.command, self.ends, self.workers = workspace, command, ends, workers
        self.metrics = metrics
        self.patient = command == "run"
        self.signals = Signals()
        self.log = EventLog(workspace.logs, command)
        self.backoff, self.room = _Backoff(), _Backoff()  # of the teacher, and of the disk
        self.probations = 0  # tries in a row of a teacher that fails all it is asked
        self.ready: ReadyTeacher | None = None
        self.teacher = ExitStack()  # holds the teacher
        self.restarts = 0
        self.begun = False  # Redis answered once: what it says no more may pass
        self.doubted = True  # what the queue holds must be compared with the plan: Redis may have lost some
        self.asked_at = 0.0  # when it was last seen whether someone asks for the device
        self.bar: Progress = _Silent()
        self.ended: Ended = "stopped"

    def live(self) -> Summary:
        start = time.monotonic()
        speak = self.patient and not os.isatty(2)
        self.pulse = Pulse(self.workspace, self.log, self.command, speak=speak)
        with ExitStack() as stack:
            stack.enter_context(self.signals.handled())
            stack.enter_context(self.pulse.beating())
            stack.callback(self._leave_teacher)
            self.log.event("run_started", ends=self.ends)
            try:
                return self._live(stack, start)
            except BaseException as error:
                self.log.event("run_ended", level="error", error=f"{type(error).__name__}: {error}")
                raise

    def _live(self, stack: ExitStack, start: float) -> Summary:
        workspace, store = self.workspace, self.workspace.store
        stack.enter_context(at_work(workspace))
        workspace.check_store()  # at work already, or another command that begins alone would sweep the probe away
        try:
            redis = self._patiently(lambda: stack.enter_context(redis_connection(workspace)))
            self.queue = RqQueue(redis, queue_name(store), workspace.settings.queue)
            aside = self._patiently(lambda: len(self.queue.failures()))
        except Stopped:
            return Summary(Totals(), 0, load_plan(store).size, time.monotonic() - start, "stopped")
        self.begun = True
        self.ledger = stack.enter_context(open_ledger(store, workspace.cache))
        self.pulse.chores = chores(self.log, self.metrics, self.ledger if self.patient else None)
        self.refill = Refill(workspace, self.queue) if self.patient else None
        self.supply = Supply(workspace, self.queue, self.log, refill=self.refill, ends=self.ends)
        before = Start(self.ledger.totals(), aside)
        shown = self.command == "work" or os.isatty(2)
        with progress("units") if shown else nullcontext(self.bar) as self.bar:
            try:
                while not self.signals.count and self._stretch():
                    pass
            except Stopped:
                pass
            self.pulse.say("draining", "ending the teacher")
            self._leave_teacher()
        summary = replace(
            sum_up(store, self.ledger, self.queue, before, self.pulse.meter.done),
            seconds=time.monotonic() - start,
            ended=self.ended,
            restarts=self.restarts,
            handovers=self.pulse.handovers,
            cached=self.pulse.teacher.hit_ratio,
        )
        self.log.event("run_ended", why=summary.ended, units=summary.totals.units, left=summary.left)
        return summary

    def _stretch(self) -> bool:
        """Work until something must be mended, and mend it. False when all is done."""
        try:
            depth = self._patiently(lambda: self.supply.look(now=self.doubted))
        except NoRoom as error:
            self._wait_for_room(error)
            return True
        self.doubted = False
        if self.ends and self.supply.finished:
            self.ended = "done"
            return False
        if depth.paused and self.ready is None:
            self.pulse.say("paused")
            self._wait(SLOW_LOOK)
            return True
        trouble = no_room(self.workspace)
        if trouble:
            self._wait_for_room(trouble)
        if self.ready is None:
            self._take_teacher()
            return True
        end = self._shift(self.ready)
        if end.why == "done":
            self.ended = "done"
            return False
        if end.why != "stop":
            self._mend(end)
        return True

    def _shift(self, ready: ReadyTeacher) -> End:
        context = Context(
            self.workspace.store,
            ready.teacher,
            self.gates,
            fix_split(self.workspace.store, self.workspace.settings.split),
            self.workspace.settings.queue.lease,
            self.workspace.cache / REPLIES if ready.costs else None,
        )
        planned = {line.fingerprint for line in load_plan(self.workspace.store).lines}
        context.warm(planned, [kind.prompt_type for kind in self.refill.kinds] if self.refill else [])
        watch = Watch(
            workspace=self.workspace,
            queue=self.queue,
            ledger=self.ledger,
            supply=self.supply,
            pulse=self.pulse,
            signals=self.signals,
            log=self.log,
            bar=self.bar,
            patient=self.patient,
        )
        fitting = self.workspace.settings.work.workers_for(rules=ready.teacher.name.startswith("rules"))
        workers = 1 if self.probations else self.workers or fitting
        blame = Blame(charging=self.ends and self.probations > FORGIVEN)
        shift = Shift(watch, ready, context, workers, probation=bool(self.probations), blame=blame)
        self.pulse.say("working")
        end = shift.run()
        self.doubted = shift.redis_away
        if end.why == "well" or (shift.done and end.why != "teacher"):
            self.probations = 0
        for backoff in (self.backoff, self.room):
            backoff.went(time.monotonic() - shift.began)
        return end

    def _mend(self, end: End) -> None:
        """After a stretch: what must be done, or waited for, before the next one."""
        trouble = end.trouble
        if end.why == "well":
            return
        if trouble and (end.why == "broken" or not self.patient):
            raise trouble
        if end.why == "device" and trouble:
            self._hand_over(trouble.what)
            self._wait_for_device(Failure(trouble.what))
        elif end.why == "disk" and trouble:
            self._wait_for_room(trouble)
        elif end.why == "teacher" and trouble:
            if not isinstance(trouble, Unavailable):
                self.probations += 1
            self._lose_teacher(trouble)

    def _take_teacher(self) -> None:
        """Start the teacher, or wait before the next try."""
        backend = self.workspace.settings.teacher.backend
        self.pulse.say("starting", "the teacher")
        try:
            with self.pulse.by_itself(), self.signals.breaking():
                ready = self.teacher.enter_context(
                    teacher_from_settings(self.workspace, purpose=f"factory {self.command}")
                )
        except UsageError:
            raise
        except Failure as error:
            if not self.patient:
                raise
            if backend != "openai" and (device_holder() or device_wanted_by()):
                self._wait_for_device(error)
            else:
                self._lose_teacher(error)
            return
        self.ready = ready
        self.gates = Gates()
        self.log.event("teacher_restarted" if self.restarts else "teacher_started", teacher=ready.teacher.name)
        self.pulse.saw(Look("well"), ready.teacher.name)

    def _lose_teacher(self, trouble: FactoryError) -> None:
        """End what is left of the teacher, and wait; the next stretch starts it again."""
        pause = self.backoff.next()
        tell = f"{trouble.what}; the next try is in {pause:.0f} s"
        self.log.event("teacher_lost", level="warning", tell=tell, error=str(trouble), pause=pause)
        self.pulse.say("waiting", trouble.what)
        self._leave_teacher()
        self.restarts += 1
        self.pulse.teacher = self.pulse.teacher.model_copy(update={"state": "dead", "restarts": self.restarts})
        self._wait(pause)

    def _leave_teacher(self) -> None:
        """What is left of it when it cannot be ended is told; the next start says whether that hinders."""
        self.ready = None
        try:
            with self.pulse.by_itself():
                self.teacher.close()
        except Failure as error:
            self.log.event("teacher_not_ended", level="error", tell=error.what, error=str(error))

    def _hand_over(self, why: str) -> None:
        state, reason = self.pulse.state, self.pulse.reason
        self.log.event("handed_over", tell=f"{why}: handing it over", to=why)
        self.pulse.say("waiting", why)
        self._leave_teacher()
        self.pulse.handovers += 1
        self.pulse.teacher = self.pulse.teacher.model_copy(update={"state": "none"})
        self.pulse.say(state, reason)

    def _be_asked(self) -> None:
        """Hand the device over if someone asks for it while this command merely waits."""
        device = self.ready.device if self.ready else None
        if device is None or not self.patient or time.monotonic() - self.asked_at < SLOW_LOOK:
            return
        self.asked_at = time.monotonic()
        if asker := device.wanted():
            self._hand_over(f"the device is asked for by {asker}")

    def _wait_for_device(self, trouble: Failure) -> None:
        """Wait until nobody holds the device or asks for it."""
        self.pulse.say("waiting", trouble.what)
        self.log.event("waiting", level="info", tell=f"waiting: {trouble.what}", reason=trouble.what)
        self._wait(1.0)
        while device_holder() or device_wanted_by():
            self._wait(1.0)
        self.log.event("device_free", tell="the device is free again")

    def _wait_for_room(self, trouble: FactoryError) -> None:
        """Wait until the disk has room; at least for a pause, since a quota does not show."""
        if not self.patient:
            raise trouble
        self.log.event("waiting", level="warning", tell=f"waiting: {trouble.what}", reason=trouble.what)
        self.pulse.say("waiting", trouble.what)
        self._wait(min(30.0, self.room.next()))
        while (found := no_room(self.workspace)) is not None:
            self.pulse.say("waiting", found.what)
            self._wait(SLOW_LOOK)

    def _patiently(self, act: Callable[[], T]) -> T:
        """What `act` returns; while Redis is away, it is brought back or waited for, as long as the command's patience.

        Once it was there, a refusal of its may pass as well. Raises what no waiting for Redis can mend.
        """
        began = pause = 0.0
        while True:
            try:
                result = act()
            except Failure as error:
                if not isinstance(error, Unavailable) and (
                    not (self.begun and self.patient) or isinstance(error, NoRoom)
                ):
                    raise
                if self.begun and not isinstance(error, Unavailable) and (broken := self.supply.broken()):
                    raise broken from None
                self.doubted = True
                began = began or time.monotonic()
                patience = REDIS_PATIENCE if self.begun else 0.0
                if not self.patient and time.monotonic() - began >= patience:
                    raise
                if not pause:
                    self.log.event("redis_lost", level="warning", tell=f"waiting: {error.what}", error=str(error))
                self.pulse.say("waiting", error.what)
                pause = min(REDIS_PAUSE, max(0.2, 2 * pause))
                self._wait(pause)
                self._revive_redis()
                continue
            if pause:
                seconds = round(time.monotonic() - began, 1)
                self.log.event("redis_restored", tell=f"going on after {seconds:g} s", seconds=seconds)
            return result

    def _revive_redis(self) -> None:
        with suppress(Failure):  # it says so again when it is asked next
            if self.begun and revive(self.workspace):
                self.pulse.redis_restarts += 1

    def _wait(self, seconds: float) -> None:
        """Raises `Stopped` when an end is asked for."""
        until = time.monotonic() + seconds
        while True:
            self.signals.check()
            self._be_asked()
            self.pulse.tick()
            self.bar.advance(0)
            left = until - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(0.2, left))


class _Silent:
    """No progress: there is no terminal, and the heartbeat speaks every ten minutes."""

    def advance(self, count: int = 1, note: str = "") -> None: ...
