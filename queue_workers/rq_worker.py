"""RQ's fork worker, made to count, to notice death, to outlast a Redis that is away, and to run no foreign code.

Guarantees: each unit runs in a fork (RQ's work-horse) that talks to no Redis and dies with its worker; it tells the worker
how the unit ended, and the worker acks. While Redis is away the unit runs on and the worker tries again, waiting longer
each time up to `MOST_WAIT`; once `stop` says so it gives up after one more try: the unit then comes to another worker, who
finds it committed. No second thread to fork from, no signal handler, no word on pub/sub.
Costs: about 10 ms a delivery (the fork); idle, four looks at the queue a second; a unit submitted to an idle worker waits
0.25 s at most. A connection whose packets vanish is noticed within 30 s (see `redis_client`); `stop` waits for that.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import rq
from redis.exceptions import RedisError
from rq.exceptions import StopRequested
from rq.serializers import JSONSerializer
from rq.timeouts import JobTimeoutException

from foundation.errors import FactoryError, Failure
from foundation.processes import die_with_parent
from queue_workers.identity import worker_name
from queue_workers.protocol import PRIORITIES, Ack, Handler, Stop
from queue_workers.redis_client import away, explain
from queue_workers.rq_units import Malformed, Taken, Units

if TYPE_CHECKING:
    from redis import Redis

LEAST_WAIT, MOST_WAIT = 0.02, 0.25  # seconds between two looks at an empty queue
LONGEST_WAIT = 5.0  # seconds between two tries while Redis is away
NO_ROOM = Ack("release", "this machine has no room for one more process")
NO_ROOM_WAIT = 2.0  # seconds before the next try
OVERDUE = 10.0  # seconds past its time-out before a work-horse that hears no signal is killed

T = TypeVar("T")


class Worker(rq.Worker):
    """Consumes `units` until `stop`. `trouble` says what ended it before, if something did."""

    def __init__(self, units: Units, handler: Handler, stop: Stop) -> None:
        self.units, self.handler, self.stop = units, handler, stop
        self.told_to_stop = False
        self.trouble: FactoryError | None = None
        self._away = 0  # tries in a row that found no Redis
        self._house_at = self._beat_at = 0.0
        self._pipe = (-1, -1)
        super().__init__(
            [rq.Queue(f"{units.name}-{priority}", connection=units.redis) for priority in PRIORITIES],
            name=worker_name(units.name),
            connection=units.redis,
            serializer=JSONSerializer,
            worker_ttl=units.heartbeat,
        )
        self.log_result_lifespan = self.log_job_description = False

    def dequeue_job_and_maintain_ttl(self, timeout: int | None, max_idle_time: int | None = None) -> tuple[Any, Any]:
        """Wait for the next unit. RQ's way, BLPOP, loses a unit whose worker dies at the wrong moment, and hears no stop."""
        wait = LEAST_WAIT
        while not self.stop():
            taken = self._try(self._look)
            if taken is not None:
                return taken, self.queues[PRIORITIES.index(taken.priority)]
            self._sleep(wait)
            wait = min(2 * wait, MOST_WAIT)
        self.told_to_stop = True
        raise StopRequested

    def execute_job(self, job: Any, queue: Any) -> None:
        """Run one delivery in a fork, then ack it."""
        taken: Taken = job
        ack = self._run(taken, queue)
        while self._try(lambda: self._settle(taken, ack)) is None:
            if self.stop():
                self._last_try(taken, ack)
                return
            self._sleep(0)
        if ack == NO_ROOM:
            self._sleep(NO_ROOM_WAIT)

    def _run(self, taken: Taken, queue: Any) -> Ack | str:
        """Run it in a fork; what that said, or how it died. A machine without room for one more process gives it back."""
        self._pipe = read, write = os.pipe()
        try:
            try:
                self.fork_work_horse(taken, queue)  # type: ignore[arg-type]  # of a job it reads only the id
            except OSError:
                return NO_ROOM
            finally:
                os.close(write)
            return self._watch(taken, read)
        finally:
            os.close(read)

    def perform_job(self, job: Any, queue: Any) -> bool:
        """In the work-horse: run the handler and say how it ended."""
        os.close(self._pipe[0])
        try:
            with self.death_penalty_class(self.units.timeout, JobTimeoutException, job_id=job.id):
                ack = self.handler(job.unit)
        except Malformed:
            ack = Ack("failed")  # no unit to count it against: `settle` drops it
        except BaseException as error:
            ack = Ack("failed", f"{type(error).__name__}: {error}")
        os.write(self._pipe[1], json.dumps([ack.state, ack.error[:2000]]).encode())
        return True

    def heartbeat(self, timeout: int | None = None, pipeline: Any = None) -> None:
        """Keep its name in RQ's list of workers."""
        beat = super().heartbeat
        self._try(lambda: beat(timeout, pipeline))

    def register_birth(self) -> None:
        self.connection.delete(self.key)  # its name holds its pid and when that began: nobody else's
        super().register_birth()

    def register_death(self) -> None:
        if not self._away:
            self._try(super().register_death)

    def setup_work_horse_signals(self) -> None:
        super().setup_work_horse_signals()
        die_with_parent(signal.SIGKILL)
        if os.getppid() != self.pid:  # it died before we asked
            os._exit(1)

    def check_for_suspension(self, burst: bool) -> None:
        """RQ's switch is one for all of a Redis, and deaf to `stop`; ours is in `Units.take`."""

    @property
    def should_run_maintenance_tasks(self) -> bool:
        return False

    def subscribe(self) -> None:
        """No commands over pub/sub: they need a thread, and a fork from a threaded process may hang."""

    def unsubscribe(self) -> None: ...

    def _install_signal_handlers(self) -> None:
        """The caller's `stop` decides."""

    def _set_connection(self, connection: Redis) -> Redis:
        return connection  # RQ would lengthen its time-outs for BLPOP

    def _set_ip_address(self, connection: Redis) -> None:
        self.ip_address = "unknown"  # a list of all clients, which a careful server does not allow

    def _look(self) -> Taken | None:
        self._keep()
        return self.units.take(self.name)

    def _keep(self) -> None:
        """What is due of heartbeat and housekeeping."""
        clock = time.monotonic()
        if clock >= self._beat_at:
            self._beat_at = clock + self.units.heartbeat / 4
            super().heartbeat()
        if clock >= self._house_at:
            self._house_at = clock + min(1.0, self.units.settings.heartbeat / 4)
            self.units.keep_house()

    def _watch(self, taken: Taken, read: int) -> Ack | str:
        """Keep the delivery's lease until its work-horse ends; what that said, or how it died."""
        horse = os.pidfd_open(self.horse_pid)
        overdue = time.monotonic() + self.units.timeout + OVERDUE
        try:
            while not select.select([horse], [], [], max(1.0, self.units.heartbeat / 4))[0]:
                if time.monotonic() > overdue:
                    self.kill_horse()
                self._try(lambda: self._hold(taken))
        except BaseException:
            self.kill_horse()
            raise
        finally:
            os.close(horse)
            _, status, _ = self.wait_for_horse()
            self._horse_pid = 0
        with contextlib.suppress(ValueError):  # it was killed before it could say a whole word
            return Ack(*json.loads(os.read(read, 1 << 16)))
        by = f" by signal {os.WTERMSIG(status)}" if status and os.WIFSIGNALED(status) else ""
        return f"the process that ran it was ended{by}"

    def _hold(self, taken: Taken) -> None:
        self.units.beat(taken)
        self._keep()

    def _settle(self, taken: Taken, ack: Ack | str) -> bool:
        if isinstance(ack, str):
            self.units.settle(taken, "lost", ack)
        else:
            self.units.settle(taken, ack.state, ack.error)
        return True

    def _last_try(self, taken: Taken, ack: Ack | str) -> None:
        try:
            self._settle(taken, ack)
        except (RedisError, OSError) as error:
            self.trouble = explain(error, self._url)
            raise StopRequested from None

    def _try(self, act: Callable[[], T]) -> T | None:
        """What `act` returns; None if Redis is away. Any other trouble with Redis ends the worker."""
        try:
            result = act()
        except (RedisError, OSError) as error:
            if not away(error):
                self.trouble = explain(error, self._url)
                raise StopRequested from None
            self._away += 1
            return None
        self._away = 0
        return result

    def _sleep(self, seconds: float) -> None:
        """Wait, longer while Redis is away, but hear a stop."""
        until = time.monotonic() + (min(LONGEST_WAIT, 0.1 * 2 ** min(self._away, 6)) if self._away else seconds)
        while (left := until - time.monotonic()) > 0 and not self.stop():
            time.sleep(min(left, MOST_WAIT))

    @property
    def _url(self) -> str:
        return self.units.settings.url.get_secret_value()


class _LastError(logging.Handler):
    """Keeps what RQ logged last as an error, to say why a worker ended by itself. Everything else is dropped."""

    last: str = ""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR:
            cause = record.exc_info[1] if record.exc_info else None
            self.last = f"{type(cause).__name__}: {cause}" if cause else record.getMessage()


def consume(units: Units, handler: Handler, stop: Stop) -> None:
    """Be a worker until told to stop. Raises `Failure` (`Unavailable` where Redis may come back) if something else ends it."""
    log = logging.getLogger("rq")
    log.propagate = False
    log.handlers = [errors := _LastError()]  # or RQ would log to standard output
    worker = Worker(units, handler, stop)
    worker.work()
    if worker.trouble:
        raise worker.trouble
    if not worker.told_to_stop:
        raise Failure(
            f"a queue worker ended by itself: {errors.last or 'no reason given'}", mend="see `factory doctor`"
        )
