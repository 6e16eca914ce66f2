"""One stretch of work: a crew, and a watch over it until there is a reason to end.

Guarantees: it ends for one reason, which it names, and when it has ended no worker is left; the units in hand are then
committed, given back or, if someone was in haste, lost (and run again), never failed. Redis may come and go meanwhile:
the workers ride it out, and this brings the workspace's own back. Workers that die are replaced, slower each time.
Cost: five looks at the queue a second, a look at disk, device and teacher every two, a read of each committed shard.
"""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from foundation.errors import FactoryError, Failure, Unavailable, UsageError
from foundation.records import Unit
from queue_workers.blame import Blame
from queue_workers.crew import Crew, News
from queue_workers.protocol import Ack, Stop
from queue_workers.redis_server import connect, revive
from queue_workers.rq_queue import RqQueue
from queue_workers.runner import Context, Ran, Recall, run_unit
from queue_workers.supply import NoRoom

if TYPE_CHECKING:
    from foundation.console import Progress
    from foundation.log import EventLog
    from foundation.workspace import Workspace
    from generator.teachers.make import ReadyTeacher
    from queue_workers.ledger import Ledger
    from queue_workers.pulse import Pulse
    from queue_workers.signals import Signals
    from queue_workers.supply import Supply

PATIENCE = 5  # different units the teacher fails in a row, or deaths of workers in a row, that are too many
LOOK = 0.2  # seconds between two looks at the queue
SLOW_LOOK = 2.0  # seconds between two looks at disk, device and teacher
BREATHER = 1.0  # seconds a worker waits after a trouble that is not the unit's own
GRACE = 5.0  # seconds of a drain that are kept for giving back what is not done by then
HASTE = 2.0  # seconds the giving back may take when the end was asked for twice
LONGEST_PAUSE = 60.0  # seconds until a worker that died is replaced
REDIS_PAUSE = 10.0  # seconds between two tries to bring Redis back
REDIS_PATIENCE = 120.0  # seconds `factory work` waits for a Redis that went away

Why = Literal["stop", "done", "teacher", "disk", "device", "well", "crew", "redis", "broken"]


@dataclass(frozen=True)
class End:
    """Why a stretch ended; `trouble` says it for a person where something is wrong. `hurry`: units in hand cannot end well."""

    why: Why
    trouble: FactoryError | None = None
    hurry: bool = False


@dataclass
class Watch:
    """What all stretches of one command share. `patient`: what can pass is waited for."""

    workspace: Workspace
    queue: RqQueue
    ledger: Ledger
    supply: Supply
    pulse: Pulse
    signals: Signals
    log: EventLog
    bar: Progress
    patient: bool


@dataclass
class Shift:
    """One stretch. On `probation` it ends with the first unit, which shows whether the teacher does better. `blame`
    says which units pay for what the teacher fails."""

    watch: Watch
    ready: ReadyTeacher
    context: Context
    workers: int
    probation: bool = False
    blame: Blame = field(default_factory=Blame)
    end: End | None = None
    began: float = field(default_factory=time.monotonic)
    done: int = 0
    _deaths: int = 0
    _missing: int = 0
    _revive_at: float = 0.0
    _slow_at: float = 0.0
    _ended_at: float = 0.0
    _recalled_at: float | None = None
    _away_since: float | None = None
    _away_tries: int = 0
    _redis_at: float = 0.0

    @property
    def redis_away(self) -> bool:
        """Whether Redis was not yet back when it ended."""
        return self._away_since is not None

    def run(self) -> End:
        """Work until there is a reason to end; returns it when the last worker has ended."""
        crew = Crew(self._work)
        try:
            crew.start(self.workers)
            while self.end is None or crew.size:
                for news in crew.news(LOOK):
                    self._hear(news)
                if self.end is None:
                    self._look(crew)
                if self.end is not None:
                    self._drain(crew)
                self._say(crew)
            for news in crew.news(0):
                self._hear(news)
        finally:
            crew.close()
            self.watch.pulse.workers = 0
        return self.end

    def _work(self, stop: Stop, tell: Callable[[Unit, Ran], None]) -> None:
        """The life of one worker process; `handle` runs in a fork of it."""
        workspace, queue = self.watch.workspace, self.watch.queue

        def handle(unit: Unit) -> Ack:
            recall = Recall()
            signal.signal(signal.SIGTERM, recall)
            ran = run_unit(unit, self.context, recall)
            tell(unit, ran)
            if ran.fault in ("teacher", "away", "store") and not recall.asked:
                time.sleep(BREATHER)
            if ran.fault == "teacher":
                return Ack("failed" if self.blame.charges(unit) else "release", ran.ack.error)
            return ran.ack

        RqQueue(connect(workspace), queue.name, queue.settings).consume(handle, stop)

    def _look(self, crew: Crew) -> None:
        """Whether there is a reason to end."""
        if self.watch.signals.count:
            self.watch.log.event("draining", tell="draining: each worker finishes its unit (once more to end at once)")
            self._finish("stop")
            return
        self._replace_the_dead(crew)
        self._look_at_redis()
        if self.end is None and self.watch.supply.finished:
            self._finish("done")
        if self.end is None and time.monotonic() >= self._slow_at:
            self._slow_at = time.monotonic() + SLOW_LOOK
            self._look_around()

    def _look_around(self) -> None:
        trouble = no_room(self.watch.workspace)
        if trouble:
            self._finish("disk", trouble)
            return
        asker = self.ready.device.wanted() if self.ready.device else ""
        if asker and self.watch.patient:
            self._finish("device", Failure(f"the device is asked for by {asker}"))
            return
        look = self.ready.look()
        self.watch.pulse.saw(look, self.ready.teacher.name)
        if look.state != "well":
            self._finish("teacher", Unavailable(f"the teacher is {look.state}: {look.detail}"), hurry=True)

    def _look_at_redis(self) -> None:
        """Keep the queue filled; where its server is away, wait for it or bring it back."""
        if time.monotonic() < self._redis_at:
            return
        watch = self.watch
        try:
            depth = watch.supply.look(now=self._away_since is not None)
        except (NoRoom, UsageError) as error:
            self._finish("disk" if isinstance(error, NoRoom) else "broken", error)
            return
        except Failure as error:
            broken = None if isinstance(error, Unavailable) else watch.supply.broken()
            if broken:
                self._finish("broken", broken)
            else:
                self._miss_redis(error)
            return
        if self._away_since is not None:
            seconds = round(time.monotonic() - self._away_since, 1)
            watch.log.event("redis_restored", tell=f"Redis is back after {seconds:g} s", seconds=seconds)
            self._away_since, self._away_tries = None, 0
        watch.pulse.round = watch.supply.round
        if depth.paused:
            watch.pulse.say("paused")
        else:
            watch.pulse.say("working" if depth.queued or depth.in_flight else "idle")

    def _miss_redis(self, error: Failure) -> None:
        watch, now = self.watch, time.monotonic()
        if self._away_since is None:
            self._away_since = now
            watch.log.event("redis_lost", level="warning", tell=f"waiting for Redis: {error.what}", error=str(error))
        watch.pulse.say("waiting", error.what)
        if not watch.patient and (not isinstance(error, Unavailable) or now - self._away_since > REDIS_PATIENCE):
            self._finish("redis", error, hurry=True)
            return
        try:
            if revive(watch.workspace):
                watch.pulse.redis_restarts += 1
                self._redis_at = 0.0
                return
        except Failure as failure:
            watch.pulse.say("waiting", failure.what)
        self._away_tries += 1
        self._redis_at = time.monotonic() + min(REDIS_PAUSE, 0.2 * 2 ** min(self._away_tries, 10))

    def _replace_the_dead(self, crew: Crew) -> None:
        dead, now = crew.bury(), time.monotonic()
        if dead:
            self._deaths, self._missing = self._deaths + dead, self._missing + dead
            self.watch.pulse.deaths += dead
            self._revive_at = now + min(LONGEST_PAUSE, 0.25 * 2 ** min(self._deaths, 10))
            self.watch.log.event("worker_died", level="warning", workers=dead, in_a_row=self._deaths)
            if self._deaths >= PATIENCE and not self.watch.patient:
                self._finish(
                    "crew", Failure(f"{self._deaths} workers ended by themselves", mend="read the lines above")
                )
        if self._missing and now >= self._revive_at and self.end is None:
            crew.start(self._missing)
            self._missing = 0

    def _drain(self, crew: Crew) -> None:
        """Wait for the units in hand, then ask for them, then take no for an answer no longer."""
        assert self.end
        drain, now = float(self.watch.workspace.settings.work.drain), time.monotonic()
        if not self._ended_at:
            self._ended_at = now
            what = self.end.trouble.what if self.end.trouble else ""
            if self.end.why in ("stop", "device", "disk"):
                self.watch.pulse.say("draining", what)
            if self.end.why in ("device", "disk"):
                self.watch.log.event("draining", tell=f"draining: {what}", reason=what)
            crew.stop()
        haste = self.end.hurry or self.watch.signals.count > 1
        if self._recalled_at is None and (haste or now - self._ended_at > max(drain - GRACE, drain / 2)):
            self._recalled_at = now
            crew.recall()
        elif self._recalled_at is not None:
            crew.recall()
            grace = HASTE if self.watch.signals.count > 1 else GRACE
            if self.watch.signals.count > 2 or now - self._recalled_at > grace:
                crew.kill()

    def _hear(self, news: News) -> None:
        watch = self.watch
        if news.unit is None:
            watch.log.event("worker_ended", level="warning", tell=f"a worker ended: {news.error}", error=news.error)
            return
        ids: dict[str, Any] = {"unit": news.unit.id, "prompt_type": news.unit.prompt_type, "attempt": news.attempt}
        if news.state == "done":
            errors = [{"item": item, "error": error} for item, error in news.items]
            self._count(
                news.unit, news.attempt, {**ids, "seconds": news.seconds, **({"errors": errors} if errors else {})}
            )
            return
        if news.fault == "recall":
            watch.log.event("unit_released", **ids, seconds=news.seconds)
            return
        tell = f"unit {news.unit.id} of {news.unit.prompt_type} was not committed: {news.error}"
        items = [{"item": item, "error": error} for item, error in news.items]
        watch.log.event(
            "unit_failed", level="warning", tell=tell, **ids, error=news.error, fault=news.fault, items=items
        )
        if news.fault == "store":
            self._finish("disk", Failure(news.error))
        if news.fault == "away":
            self._finish("teacher", Unavailable(news.error), hurry=True)
        if news.fault == "teacher":
            self._count_teacher(news)

    def _count(self, unit: Unit, attempt: str, fields: dict[str, Any]) -> None:
        watch = self.watch
        self.blame.did(unit)
        self._deaths = 0
        self.done += 1
        try:
            done = watch.ledger.add(unit, attempt)
        except (Failure, OSError) as error:  # the index or the shard cannot be read: the unit is committed all the same
            watch.log.event("not_counted", level="warning", error=str(error), **fields)
            return
        watch.pulse.meter.add(done)
        watch.log.event("unit_done", items=done.items, accepted=done.accepted, records=done.records, **fields)
        watch.bar.advance(1, watch.pulse.rates())
        if self.probation:
            self._finish("well")

    def _count_teacher(self, news: News) -> None:
        assert news.unit
        blame, watch = self.blame, self.watch
        blame.fails(news.unit)
        count = len(blame.failed)
        enough = self.probation or blame.in_a_row >= PATIENCE
        if enough and count < PATIENCE and watch.supply.ends and not watch.patient:
            blame.charge_all()  # or the few that are left would keep it from ending
            enough = False
        if enough:
            self._finish(
                "teacher",
                Failure(
                    f"the teacher failed {count} units in a row, the last one so: {news.error}",
                    mend="when that is mended, run the same command again: nothing is lost",
                ),
            )

    def _finish(self, why: Why, trouble: FactoryError | None = None, *, hurry: bool = False) -> None:
        self.end = self.end or End(why, trouble, hurry)

    def _say(self, crew: Crew) -> None:
        self.watch.pulse.workers = crew.size
        self.watch.pulse.tick()
        self.watch.bar.advance(0)


def no_room(workspace: Workspace) -> Failure | None:
    """Why the disk has too little room to begin a unit."""
    free, least = shutil.disk_usage(workspace.root).free, workspace.settings.work.min_free * 1_000_000
    if free >= least:
        return None
    return Failure(
        f"the disk has {free / 1e6:,.0f} MB free, and work.min_free asks for {least / 1e6:,.0f}",
        where=str(workspace.root),
        mend="free some space (`factory gc` shows what can go), or lower work.min_free",
    )
