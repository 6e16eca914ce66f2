"""The Queue protocol over RQ and Redis.

Guarantees: at least once; one job a unit; a message is JSON and can only name a unit. A worker that died on this host is
noticed within a quarter of the heartbeat, one elsewhere after `heartbeat` seconds of silence and a quarter; its unit is
queued again and counted as lost. Taking, acking, setting aside and withdrawing are one step each, so a unit is never in
two places nor in none. A Redis that is away is `Unavailable`, in one message.
Costs: see `rq_units` (what lies in Redis) and `rq_worker` (what runs).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, TypeVar

from queue_workers.protocol import PRIORITIES, Command, Depth, FailedUnit, Handler, Priority, Stop, check_control
from queue_workers.redis_client import clear_errors
from queue_workers.rq_units import MARGIN, Units
from queue_workers.rq_worker import consume

if TYPE_CHECKING:
    from redis import Redis

    from foundation.records import Unit
    from foundation.tables import QueueSettings

__all__ = ["MARGIN", "RqQueue"]

T = TypeVar("T")


class RqQueue:
    """`name` is the workspace's: letters and digits."""

    def __init__(self, redis: Redis, name: str, settings: QueueSettings) -> None:
        self.redis, self.name, self.settings = redis, name, settings
        self._units = Units(redis, name, settings)

    def submit(self, units: Iterable[Unit], priority: Priority) -> int:
        with clear_errors(self._url):
            self._units.keep_house(due=False)
            self._units.keep_register()
            with self._units.changing() as hold_on:
                held = self._units.held()

                def sift(chunk: list[Unit]) -> list[Unit]:
                    if hold_on():  # drawing took long: listing every shard may
                        held.update(self._units.held())
                    fresh = {unit.id: unit for unit in chunk if unit.id not in held}
                    held.update(fresh)
                    return self._units.allowed(fresh.values())

                return self._units.push(units, priority, sift)

    def consume(self, handler: Handler, stop: Stop) -> None:
        """Blocks in this process, which must be in its main thread; each unit runs in a fork of it.

        Raises `Failure` if the worker ended without being asked to, `Unavailable` if it could not ack its last unit.
        """
        with clear_errors(self._url):
            consume(self._units, handler, stop)

    def depth(self) -> Depth:
        return self._ask(self._units.depth)

    def failures(self) -> list[FailedUnit]:
        return self._ask(self._units.dead)

    def control(self, command: Command, prompt_types: Collection[str] = ()) -> int:
        check_control(command, prompt_types)
        return self._ask(lambda: self._control(command, prompt_types))

    def _control(self, command: Command, prompt_types: Collection[str]) -> int:
        if command in ("pause", "resume"):
            if command == "pause":
                self.redis.set(self._units.key("paused"), 1)
            else:
                self.redis.delete(self._units.key("paused"))
            return self._units.depth().queued
        if command == "withdraw":
            return self._units.withdraw(prompt_types)  # one step a list, possible without memory: it needs no lock
        if command == "hold":
            self._units.hold(prompt_types)
            return 0
        with self._units.changing() as hold_on:

            def sift(chunk: list[Unit]) -> list[Unit]:
                hold_on()
                return self._units.allowed(chunk)

            dead = self._units.dead(prompt_types)
            self._units.drop_dead(dead)
            if command == "retry":
                for priority in PRIORITIES:
                    units = (row.unit for row in dead if row.priority == priority)
                    self._units.push(units, priority, sift)
            return len(dead)

    def _ask(self, question: Callable[[], T]) -> T:
        with clear_errors(self._url):
            return question()

    @property
    def _url(self) -> str:
        return self.settings.url.get_secret_value()
