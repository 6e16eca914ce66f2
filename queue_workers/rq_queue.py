"""The Queue protocol over RQ and Redis: RQ's own fork worker, made to count, to notice death, and to run no foreign code.

Guarantees: at least once; one job a unit; a message is JSON and can only name a unit: whatever function or callback it
asks for is never called. A worker that died on this host is noticed within a quarter of the heartbeat, one elsewhere
after `heartbeat` seconds of silence; its unit is queued again and counted as lost. A work-horse dies with its worker.
Costs: about 10 ms a delivery (the fork), 0.7 KB of Redis a queued unit, 8,000 units a second submitted.
Misses: a worker killed in the few ms between taking a job off its list and marking it started leaves it in no list (RQ
pops from three queues with BLPOP); `reconcile` finds it.

Redis keys, all of one workspace by its NAME: RQ's lists and registries for queues `NAME-high|normal|low`, jobs
`NAME_UNIT`, and hashes by unit id: `qpt:NAME:failures`, `:lost` (counters), `:errors` (the last one), `:dead` (JSON).
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar

import rq
from pydantic import ValidationError
from rq import worker_registration
from rq.exceptions import AbandonedJobError, DeserializationError, StopRequested
from rq.executions import Execution, ExecutionRegistry
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.utils import as_text

from foundation.errors import Failure
from foundation.processes import die_with_parent
from foundation.records import Unit
from queue_workers.identity import died_here, worker_name
from queue_workers.protocol import PRIORITIES, Ack, Command, Depth, FailedUnit, Handler, Priority, Stop

if TYPE_CHECKING:
    from redis import Redis

    from foundation.settings import QueueSettings

MARGIN = 30  # seconds past the lease before RQ ends a unit that did not end itself
KEPT = 7 * 24 * 3600  # seconds RQ keeps a job that was set aside; our own record of it stays
RETRIES = 10**6  # our own counters decide; RQ's are used up by lost deliveries too
CHUNK = 1000
GAP = 0.25  # seconds; a worker takes a few ms from popping a job to marking it started


class _UnitFailed(Exception):
    """The handler said failed, or raised."""


class _Released(Exception):
    """The handler gave the unit back."""


class _Malformed(Exception):
    """The message names no unit: it is dropped, since no retry can mend it."""


class _Executions(ExecutionRegistry):
    def get_executions(self, start: int = 0, end: int = -1) -> list[Execution]:
        # RQ fetches each one, and fails where a dead worker's has expired; to delete them their ids are enough.
        return [Execution(id_, self.job_id, self.connection) for id_ in self.get_execution_ids(start, end)]


class _Delivery(Job):
    """A job that can only be a unit, whatever its message says."""

    handler: ClassVar[Handler | None] = None

    @property
    def execution_registry(self) -> _Executions:
        return _Executions(self.id, connection=self.connection)

    def restore(self, raw_data: dict[Any, Any]) -> Any:
        code = (b"success_callback_name", b"failure_callback_name", b"stopped_callback_name", b"webhooks")
        return super().restore({key: value for key, value in raw_data.items() if key not in code})

    def unit(self) -> Unit:
        try:
            return Unit.model_validate(self.args[0])
        except (ValidationError, DeserializationError, IndexError, TypeError, KeyError) as error:
            raise _Malformed(f"the message names no unit: {error}") from error

    def perform(self) -> None:
        unit, handler = self.unit(), type(self).handler
        assert handler is not None
        try:
            ack = handler(unit)
        except Exception as error:
            raise _UnitFailed(f"{type(error).__name__}: {error}") from error
        if ack.state == "failed":
            raise _UnitFailed(ack.error)
        if ack.state == "release":
            raise _Released(ack.error)


class _Worker(rq.Worker):
    """RQ's fork worker, with our stop, our housekeeping and no second thread to fork from."""

    stop: Stop
    keep_house: Callable[[], None]
    heartbeat_seconds: int
    told_to_stop = False

    @property
    def dequeue_timeout(self) -> int:
        return 1  # how late a stop is noticed while idle

    @property
    def should_run_maintenance_tasks(self) -> bool:
        return True

    def run_maintenance_tasks(self) -> None:
        """RQ calls this between jobs and at each turn of the wait for one."""
        if self.stop():
            self.told_to_stop = True
            raise StopRequested
        self.keep_house()

    def maintain_heartbeats(self, job: Job) -> None:
        super().maintain_heartbeats(job)
        self.keep_house()

    def get_heartbeat_ttl(self, job: Job) -> int:
        return self.heartbeat_seconds

    def setup_work_horse_signals(self) -> None:
        super().setup_work_horse_signals()
        die_with_parent(signal.SIGKILL)
        if os.getppid() != self.pid:  # it died before we asked
            os._exit(1)

    def _install_signal_handlers(self) -> None:
        """The caller's `stop` decides; RQ's handlers may drop a job that was just popped."""

    def check_for_suspension(self, burst: bool) -> None:
        """RQ's switch is one for all of a Redis, and deaf to `stop`."""

    def subscribe(self) -> None:
        """No commands over pub/sub: they need a thread, and a fork from a threaded process may hang."""

    def unsubscribe(self) -> None: ...


class _LastError(logging.Handler):
    """Keeps what RQ logged last as an error, to say why a worker ended by itself. Everything else is dropped."""

    last: str = ""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR:
            cause = record.exc_info[1] if record.exc_info else None
            self.last = f"{type(cause).__name__}: {cause}" if cause else record.getMessage()


class RqQueue:
    """`name` is the workspace's: letters and digits."""

    def __init__(self, redis: Redis, name: str, settings: QueueSettings) -> None:
        self.redis, self.name, self.settings = redis, name, settings
        self._queues: dict[Priority, rq.Queue] = {
            priority: rq.Queue(f"{name}-{priority}", connection=redis, serializer=JSONSerializer, job_class=_Delivery)
            for priority in PRIORITIES
        }

    def submit(self, units: Iterable[Unit], priority: Priority) -> int:
        self._keep_house(due=False)
        added = 0
        # One submitter at a time, or two could both find a unit missing. The lock outlives a killed one by 10 s.
        with self.redis.lock(self._key("submit"), timeout=10) as lock:
            held = self._held()
            if any(worker_registration.get_keys(queue=queue) for queue in self._queues.values()):
                # A unit just popped is in no list until its worker marks it started. Seen twice, it is there once.
                time.sleep(GAP)
                held |= self._held()
            fresh = (unit for unit in units if unit.id not in held)
            while chunk := list(islice(fresh, CHUNK)):
                self._push(chunk, priority)
                held.update(unit.id for unit in chunk)
                added += len(chunk)
                lock.reacquire()
        return added

    def consume(self, handler: Handler, stop: Stop) -> None:
        """Blocks in this process, which must be in its main thread; each unit runs in a fork of it.

        Raises `Failure` if RQ's worker ended without being asked to.
        """

        def run(unit: Unit) -> Ack:
            ack = handler(unit)
            if ack.state == "done":
                self._forget(unit.id)
            return ack

        log = logging.getLogger("rq")
        log.propagate = False
        log.handlers = [errors := _LastError()]  # or RQ would log to standard output
        heartbeat = self.settings.heartbeat
        job_class = type("Delivery", (_Delivery,), {"handler": staticmethod(run)})
        worker = _Worker(
            list(self._queues.values()),
            name=worker_name(self.name),
            connection=self.redis,
            serializer=JSONSerializer,
            job_class=job_class,
            worker_ttl=heartbeat,
            job_monitoring_interval=max(1, heartbeat // 4),
            exception_handlers=[self._on_exception],
            work_horse_killed_handler=self._on_killed,
        )
        worker.log_result_lifespan = worker.log_job_description = False
        worker.stop, worker.keep_house = stop, self._keep_house
        worker.heartbeat_seconds = max(3, heartbeat)  # three of the shortest intervals, or a busy machine looks dead
        worker.work()
        if not worker.told_to_stop:
            raise Failure(f"a queue worker ended by itself: {errors.last or 'no reason given'}", mend="is Redis up?")

    def depth(self) -> Depth:
        with self.redis.pipeline() as pipe:
            for queue in self._queues.values():
                pipe.llen(queue.key)
                pipe.zcard(queue.started_job_registry.key)
            high, high_out, normal, normal_out, low, low_out = pipe.execute()
        return Depth(high, normal, low, high_out + normal_out + low_out)

    def failures(self) -> list[FailedUnit]:
        return [FailedUnit.model_validate_json(row) for row in self.redis.hvals(self._key("dead"))]

    def control(self, command: Command) -> int:
        dead = self.failures()
        for row in dead:
            self._forget(row.unit.id)
        for priority in PRIORITIES:
            self.submit([row.unit for row in dead if row.priority == priority], priority)
        return len(dead)

    def _key(self, what: str) -> str:
        return f"qpt:{self.name}:{what}"

    def _forget(self, unit_id: str) -> None:
        with self.redis.pipeline() as pipe:
            for hash_ in ("failures", "lost", "errors", "dead"):
                pipe.hdel(self._key(hash_), unit_id)
            pipe.execute()

    def _held(self) -> set[str]:
        """Ids of the units that are queued, in flight or set aside, as of one moment."""
        with self.redis.pipeline() as pipe:  # MULTI: a unit on its way from one to the other is seen in one of them
            pipe.hkeys(self._key("dead"))
            for queue in self._queues.values():
                pipe.lrange(queue.key, 0, -1)
                pipe.zrange(queue.started_job_registry.key, 0, -1)
            dead, *jobs = pipe.execute()
        start = len(self.name) + 1
        held = {entry.decode().partition(":")[0][start:] for entries in jobs for entry in entries}
        return held.union(entry.decode() for entry in dead)

    def _push(self, units: list[Unit], priority: Priority) -> None:
        if not units:
            return
        queue = self._queues[priority]
        jobs = [
            rq.Queue.prepare_data(
                "queue_workers.unit",  # a name RQ asks for; `_Delivery` never calls it
                args=[unit.model_dump()],
                timeout=self.settings.lease + MARGIN,
                result_ttl=0,
                failure_ttl=KEPT,
                description=f"{unit.prompt_type} {unit.block}[{unit.start}:{unit.stop}]",
                job_id=f"{self.name}_{unit.id}",
                retry=rq.Retry(max=RETRIES),
            )
            for unit in units
        ]
        with self.redis.pipeline() as pipe:
            # What an earlier delivery left under that id (a time to live, an error) must not pass on.
            pipe.delete(*(Job.key_for(job.job_id) for job in jobs if job.job_id))
            queue.enqueue_many(jobs, pipeline=pipe)
            pipe.execute()

    def _keep_house(self, due: bool = True) -> None:
        """Give back what dead workers held. With `due`, at most once in a quarter of the heartbeat for all workers together."""
        pause = self.settings.heartbeat * 250
        if due and not self.redis.set(self._key("house"), 1, nx=True, px=pause):
            return
        for queue in self._queues.values():
            registry = queue.started_job_registry
            for job_id, execution in registry.get_job_and_execution_ids(cleanup=False):
                entry = f"{job_id}:{execution}"
                worker = self.redis.hget(f"rq:execution:{entry}", "worker_name")
                if worker and died_here(as_text(worker)):
                    self.redis.zadd(registry.key, {entry: 1}, xx=True)  # as if its heartbeat had run out in 1970
            registry.cleanup(exception_handlers=[self._on_exception])
            queue.failed_job_registry.cleanup()
            worker_registration.clean_worker_registry(queue)

    def _on_exception(self, job: Job, kind: type[BaseException], error: BaseException, _: Any) -> None:
        """RQ calls this before it decides on a retry: in the work-horse, and for a job whose heartbeat ran out."""
        if issubclass(kind, _Malformed):
            job.retries_left = None
        elif issubclass(kind, _UnitFailed):
            self._count(job, "failures", str(error))
        elif issubclass(kind, AbandonedJobError):
            self._count(job, "lost", "its worker died")
        elif not issubclass(kind, _Released):
            # The bookkeeping after the handler failed: the unit may well be committed.
            self._count(job, "lost", f"{kind.__name__}: {error}")

    def _on_killed(self, job: Job, _: Any, status: int | None, __: Any) -> None:
        """RQ calls this in the worker when its work-horse ended without a word."""
        by = f" by signal {os.WTERMSIG(status)}" if status and os.WIFSIGNALED(status) else ""
        self._count(job, "lost", f"the process that ran it was ended{by}")

    def _count(self, job: Job, counter: str, error: str) -> None:
        assert isinstance(job, _Delivery)
        try:
            unit = job.unit()
        except _Malformed:
            job.retries_left = None
            return
        with self.redis.pipeline() as pipe:
            pipe.hincrby(self._key("failures"), unit.id, int(counter == "failures"))
            pipe.hincrby(self._key("lost"), unit.id, int(counter == "lost"))
            pipe.hset(self._key("errors"), unit.id, error)
            failures, lost, _ = pipe.execute()
        if failures >= self.settings.max_failures or lost >= self.settings.max_lost:
            priority = next(priority for priority in PRIORITIES if job.origin == self._queues[priority].name)
            row = FailedUnit(unit=unit, priority=priority, failures=failures, lost=lost, error=error)
            self.redis.hset(self._key("dead"), unit.id, row.model_dump_json())
            job.retries_left = None  # RQ moves it to its failed jobs instead of the queue
