"""What a queue over RQ keeps in Redis, and the few scripts that change it, each in one step that nothing can cut in two.

Guarantees: a queued unit is one job, and is in exactly one of: a list, in flight, set aside; who has lost a delivery can
settle nothing; leases run by Redis's own clock, so no worker's clock matters. A message can only name a unit: whatever
function or callback of RQ's it asks for is never called.
Costs: 0.55 KB of Redis a queued unit where `hash-max-listpack-value` is 512 (the workspace's own), 1 KB where it is 64;
queueing 40,000 units a second; `withdraw` holds Redis for 0.6 s at 400,000 units.

Redis keys, all of one workspace by its NAME: RQ's lists `rq:queue:NAME-high|normal|low`, its registries of what runs
(`rq:wip:...`, `JOB:EXECUTION` by when its lease ends), its jobs `rq:job:NAME_TAG_UNIT` (TAG of the prompt type); ours are
`qpt:NAME:owners` (worker of a delivery), `:failures`, `:lost`, `:errors` by unit id, `:dead` (JSON), `:paused`,
`:held` (tags of the prompt types that are held back).
"""

from __future__ import annotations

import contextlib
import json
import uuid
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import orjson
from pydantic import ValidationError
from redis.exceptions import LockError
from rq import Queue
from rq.job import JobStatus
from rq.utils import as_text, now, utcformat
from rq.worker_registration import clean_worker_registry

from foundation.errors import Unavailable
from foundation.ids import stable_id
from foundation.records import Unit
from queue_workers.identity import died_here, worker_name
from queue_workers.protocol import LONGEST, PRIORITIES, Depth, FailedUnit, Priority
from queue_workers.rq_scripts import BEAT, DEPTH, PUSH, SETTLE, TAKE, WITHDRAW

if TYPE_CHECKING:
    from redis import Redis

    from foundation.tables import QueueSettings

MARGIN = 30  # seconds past its longest time before a unit that did not end itself is ended
CHUNK = 1000
LEVEL = 1  # of zlib: as short for ids as its default, and faster
LOCKED = 30.0  # seconds a submitter may be held up before another one goes ahead
FUNCTION = "queue_workers.unit"  # a name RQ's format asks for; nothing calls it
LONGEST_ERROR = 2000  # characters


class Malformed(Exception):
    """The message names no unit: it is dropped, since no retry can mend it."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A delivery: `id` is the job's, `execution` sets it apart from the job's other deliveries."""

    id: str
    execution: str
    priority: Priority
    data: bytes

    @property
    def entry(self) -> str:
        return f"{self.id}:{self.execution}"

    @property
    def unit(self) -> Unit:
        """Raises `Malformed`."""
        try:
            return Unit.model_validate(json.loads(zlib.decompress(self.data))[2][0])
        except (ValidationError, ValueError, LookupError, TypeError, zlib.error) as error:
            raise Malformed(f"the message names no unit: {error}") from error


class Units:
    """The units of the queue `name`: letters and digits. Methods raise what redis-py raises."""

    def __init__(self, redis: Redis, name: str, settings: QueueSettings) -> None:
        self.redis, self.name, self.settings = redis, name, settings
        self.heartbeat = max(3, settings.heartbeat)  # three of the shortest intervals, or a busy machine looks dead
        self.timeout = LONGEST * settings.lease + MARGIN
        self._take, self._beat, self._settle, self._push, self._withdraw, self._depth = (
            redis.register_script(script) for script in (TAKE, BEAT, SETTLE, PUSH, WITHDRAW, DEPTH)
        )

    def key(self, what: str) -> str:
        return f"qpt:{self.name}:{what}"

    def list_key(self, priority: Priority) -> str:
        return f"rq:queue:{self.name}-{priority}"

    def wip_key(self, priority: Priority) -> str:
        return f"rq:wip:{self.name}-{priority}"

    def _lists(self) -> list[str]:
        return [key for priority in PRIORITIES for key in (self.list_key(priority), self.wip_key(priority))]

    def take(self, worker: str) -> Taken | None:
        """Lease the first unit, high before normal before low. None if nothing waits or the queue is paused."""
        execution = uuid.uuid4().hex
        hashes = ("paused", "owners", "held", "failures", "lost", "errors")
        keys = [*map(self.key, hashes), *self._lists()]
        found = self._take(keys, [execution, worker, self.heartbeat])
        if found is None:
            return None
        place, job_id, data = found
        return Taken(job_id.decode(), execution, PRIORITIES[place], data)

    def beat(self, taken: Taken) -> bool:
        """Lease it for as long again, from now. False if the lease was lost meanwhile."""
        return bool(self._beat([self.wip_key(taken.priority)], [taken.entry, self.heartbeat]))

    def settle(self, taken: Taken, state: str, error: str = "", *, due: bool = False) -> bool:
        """End a delivery: done, failed, release or lost; with `due` only if its lease has ended.

        False, and nothing changes, if the lease was lost meanwhile. A message that names no unit is dropped.
        """
        try:
            unit = taken.unit
            unit_id, row = unit.id, unit.model_dump_json()
        except Malformed:
            unit_id, row, state = "", "", "drop"
        hashes = [self.key(hash_) for hash_ in ("owners", "failures", "lost", "errors", "dead")]
        keys = [
            self.list_key(taken.priority),
            self.wip_key(taken.priority),
            *hashes,
            f"rq:job:{taken.id}",
            self.key("held"),
        ]
        text = error[:LONGEST_ERROR].encode("utf-8", "replace")
        most = (self.settings.max_failures, self.settings.max_lost)
        args: list[str | bytes | int] = [taken.entry, taken.id, unit_id, row, taken.priority, state, text]
        return bool(self._settle(keys, [*args, *most, int(due)]))

    def push(self, units: Iterable[Unit], priority: Priority, sift: Callable[[list[Unit]], list[Unit]]) -> int:
        """Queue these at the end, a chunk at a time; how many. `sift` sees each chunk just before, and says what of it."""
        units, count = iter(units), 0
        while drawn := list(islice(units, CHUNK)):
            chunk = sift(drawn)
            if not chunk:
                continue
            shared = self._shared(priority)
            words: list[str | bytes | int] = [len(shared), *shared]
            for unit in chunk:
                data = orjson.dumps((FUNCTION, None, (unit.model_dump(),), {}))
                words += (self.job_id(unit), zlib.compress(data, LEVEL), describe(unit))
            self._push([self.list_key(priority), "rq:queues"], words)
            count += len(chunk)
        return count

    def job_id(self, unit: Unit) -> str:
        return f"{self.name}_{_tag(unit.prompt_type)}_{unit.id}"

    def withdraw(self, prompt_types: Collection[str]) -> int:
        tags = [_tag(prompt_type) for prompt_type in prompt_types]
        counters = [self.key(counter) for counter in ("failures", "lost", "errors")]
        return sum(self._withdraw([self.list_key(priority), *counters], tags) for priority in PRIORITIES)

    def hold(self, prompt_types: Collection[str]) -> None:
        """Hold back exactly these. What is so already is not written: a Redis without memory refuses to."""
        tags = {_tag(prompt_type) for prompt_type in prompt_types}
        if tags != self._held_tags():
            with self.redis.pipeline() as pipe:
                pipe.delete(self.key("held"))
                if tags:
                    pipe.sadd(self.key("held"), *tags)
                pipe.execute()

    def _held_tags(self) -> set[str]:
        return {str(as_text(tag)) for tag in self.redis.smembers(self.key("held"))}

    def allowed(self, units: Iterable[Unit]) -> list[Unit]:
        """Those whose prompt type is not held back."""
        tags = self._held_tags()
        return [unit for unit in units if _tag(unit.prompt_type) not in tags]

    def drop_dead(self, rows: Iterable[FailedUnit]) -> None:
        rows = iter(rows)
        while chunk := [row.unit.id for row in islice(rows, CHUNK)]:
            self.redis.hdel(self.key("dead"), *chunk)

    def dead(self, prompt_types: Collection[str] = ()) -> list[FailedUnit]:
        rows = (FailedUnit.model_validate_json(row) for row in self.redis.hvals(self.key("dead")))
        return [row for row in rows if not prompt_types or row.unit.prompt_type in prompt_types]

    def depth(self) -> Depth:
        keys = [self.key("paused"), *self._lists()]
        paused, high, high_out, normal, normal_out, low, low_out = self._depth(keys)
        return Depth(high, normal, low, high_out + normal_out + low_out, bool(paused))

    def held(self) -> set[str]:
        """Ids of the units that are queued, in flight or set aside, as of one moment."""
        with self.redis.pipeline() as pipe:
            pipe.hkeys(self.key("dead"))
            for priority in PRIORITIES:
                pipe.lrange(self.list_key(priority), 0, -1)
                pipe.zrange(self.wip_key(priority), 0, -1)
            dead, *jobs = pipe.execute()
        held = {entry.decode().partition(":")[0].rpartition("_")[2] for entries in jobs for entry in entries}
        return held.union(entry.decode() for entry in dead)

    @contextlib.contextmanager
    def changing(self) -> Iterator[Callable[[], bool]]:
        """One at a time adds units, or two could both find a unit missing. A dead holder's lock is taken over.

        Gives a function that holds on to the lock for as long again: whether it had lapsed and was taken anew, so that
        another one may have added units meanwhile. Raises `Unavailable` if another one has it.
        """
        lock = self.redis.lock(self.key("changing"), timeout=LOCKED, sleep=0.05)
        token = f"{uuid.uuid4().hex}@{worker_name(self.name)}"
        try:
            while not lock.acquire(blocking_timeout=1, token=token):
                holder = as_text(self.redis.get(lock.name) or "")
                if died_here(holder.partition("@")[2]):
                    with contextlib.suppress(LockError):  # another one was faster
                        lock.do_release(holder)

            def hold_on() -> bool:
                try:
                    lock.reacquire()
                except LockError:
                    if not lock.acquire(blocking=False, token=token):
                        raise
                    return True
                return False

            try:
                yield hold_on
            finally:
                with contextlib.suppress(LockError):  # it lapsed: there is nothing left to guard
                    lock.release()
        except LockError:
            raise Unavailable(
                f"this command was held up for more than {LOCKED:.0f} s while it filled the queue",
                mend="run it again: nothing is lost, and what is queued already is not queued twice",
            ) from None

    def keep_house(self, *, due: bool = True) -> None:
        """Give back what dead workers held. With `due`, at most once in a quarter of the heartbeat for all workers together.

        A Redis that was just started knows of no heartbeat since: whoever lives gets the time for one first.
        """
        if due and not self.redis.set(self.key("house"), 1, nx=True, px=self.settings.heartbeat * 250):
            return
        with self.redis.pipeline(transaction=False) as pipe:
            pipe.time()
            pipe.info("server")
            pipe.hgetall(self.key("owners"))
            for priority in PRIORITIES:
                pipe.zrange(self.wip_key(priority), 0, -1, withscores=True)
            (clock, _), server, owners, *runs = pipe.execute()
        fresh = int(server["uptime_in_seconds"]) <= self.heartbeat
        for priority, entries in zip(PRIORITIES, runs, strict=True):
            for entry, lease in entries:
                if lease > clock + self.heartbeat + 1:  # Redis's clock was ahead: such a lease might end in a year
                    self.redis.zadd(self.wip_key(priority), {entry: clock + self.heartbeat}, xx=True)
                if died_here(owners.get(entry, b"").decode()):
                    self._lose(entry, priority, due=False)
                elif lease <= clock and not fresh:
                    self._lose(entry, priority, due=True)

    def keep_register(self) -> None:
        """Drop the names of workers that were killed from RQ's lists of them."""
        for priority in PRIORITIES:
            clean_worker_registry(Queue(f"{self.name}-{priority}", connection=self.redis))

    def _lose(self, entry: bytes, priority: Priority, *, due: bool) -> None:
        job_id, _, execution = entry.decode().partition(":")
        data = self.redis.hget(f"rq:job:{job_id}", "data")
        assert not isinstance(data, str)
        self.settle(Taken(job_id, execution, priority, data or b""), "lost", "its worker died", due=due)

    def _shared(self, priority: Priority) -> list[str | int]:
        """The fields of RQ's format in which the jobs of one chunk do not differ; RQ reads one that is absent as empty."""
        moment = utcformat(now())
        fields: dict[str, str | int] = {
            "created_at": moment,
            "enqueued_at": moment,
            "origin": f"{self.name}-{priority}",
            "timeout": self.timeout,
            "result_ttl": 0,
            "status": JobStatus.QUEUED.value,
        }
        return [word for field in fields.items() for word in field]


def describe(unit: Unit) -> str:
    """What RQ's own tools show of a job."""
    return f"{unit.prompt_type} {unit.block}[{unit.start}:{unit.stop}]"


_tags: dict[str, str] = {}


def _tag(prompt_type: str) -> str:
    tag = _tags.get(prompt_type)
    if tag is None:
        tag = _tags[prompt_type] = stable_id(prompt_type)[:8]
    return tag
