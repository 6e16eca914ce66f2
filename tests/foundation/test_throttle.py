"""The limit finds what a server sustains: the rule against servers simulated with a clock of their own, and shared by forks."""

from __future__ import annotations

import heapq
import os
import random
import signal
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from foundation.throttle import LONGEST_WAIT, Throttle


@dataclass
class Simulated:
    """`workers` clients of one server, each with as many in flight as the throttle lets it. No wall clock: `now` is ours.

    `serve(in_flight)` is the seconds a request takes that begins beside so many others; None refuses it.
    """

    throttle: Throttle
    serve: Callable[[int], float | None]
    slots: int = 10**9  # served at once; the rest waits in line
    workers: int = 1
    now: float = 0.0
    done: int = 0
    refused: int = 0
    _ends: list[tuple[float, int, int, float, float, bool]] = field(default_factory=list)
    _line: deque[tuple[int, float, float, bool]] = field(default_factory=deque)
    _flying: list[int] = field(default_factory=list)
    _number: int = 0

    def run(self, seconds: float) -> float:
        """Goodput in that time: replies a second."""
        self._flying = self._flying or [0] * self.workers
        until, before = self.now + seconds, self.done
        self._send()
        while self._ends and self._ends[0][0] <= until:
            self.now, _, worker, sent, changes, full = heapq.heappop(self._ends)
            self._flying[worker] -= 1
            if changes < 0:
                self.throttle.refused(-changes - 1)
                self.refused += 1
            else:
                self.done += 1
                self.throttle.heard(changes, self.now - sent, 1, full=full)
                if self._line and len(self._ends) < self.slots:
                    self._begin(*self._line.popleft())
            self._send()
        self.now = until
        return (self.done - before) / seconds

    def _send(self) -> None:
        for worker in range(self.workers):
            while self._flying[worker] < self.throttle.limit:
                self._flying[worker] += 1
                full = self._flying[worker] == self.throttle.limit
                one = (worker, self.now, self.throttle.changes, full)
                if len(self._ends) < self.slots:
                    self._begin(*one)
                else:
                    self._line.append(one)

    def _begin(self, worker: int, sent: float, changes: float, full: bool) -> None:
        takes = self.serve(sum(end[4] >= 0 for end in self._ends))
        self._number += 1  # told at once, or after a moment, that it is refused
        end = self.now + (0.05 if takes is None else takes)
        heapq.heappush(self._ends, (end, self._number, worker, sent, -changes - 1 if takes is None else changes, full))


def spread(seconds: float, share: float) -> float:
    return seconds * random.uniform(1 - share, 1 + share)


@pytest.fixture(autouse=True)
def _same_luck() -> None:
    random.seed(5)


@pytest.mark.parametrize("slots", [3, 8, 40, 100])
def test_a_queue_is_not_filled_for_nothing(slots: int) -> None:
    """Beyond so many at once a server only makes wait: the limit stays near, and nothing is lost by it."""
    server = Simulated(Throttle(512), lambda _: spread(1.0, 0.3), slots)
    server.run(120 if slots > 8 else 400)
    goodput = server.run(200)
    assert slots <= server.throttle.limit <= 2 * slots + 2
    assert goodput > 0.95 * slots


@pytest.mark.parametrize("slots", [5, 20, 100])
def test_refusals_keep_it_at_what_is_borne(slots: int) -> None:
    server = Simulated(Throttle(512), lambda flying: spread(1.0, 0.3) if flying < slots else None)
    server.run(300)
    server.refused = 0
    goodput = server.run(300)
    assert 0.7 * slots <= server.throttle.limit <= 1.3 * slots
    assert goodput > 0.85 * slots
    assert server.refused < 0.05 * 300 * goodput


def test_it_grows_while_batching_pays() -> None:
    """As an engine does that batches: each one more in flight slows all a little, and all together gain."""
    server = Simulated(Throttle(256), lambda flying: spread(2.0 * (1 + flying / 128), 0.2))
    server.run(100)
    assert server.throttle.limit >= 128, "at 64 it gave 21 a second, at 128 32 and at 256 43"


def test_a_server_without_limits_is_soon_given_the_most() -> None:
    throttle = Throttle(256)
    server = Simulated(throttle, lambda _: 0.2)
    server.run(1.3)
    assert throttle.limit == 256
    assert server.run(10) == pytest.approx(1280, rel=0.01)


@pytest.mark.parametrize("workers", [1, 3])
def test_three_workers_share_what_one_may_have(workers: int) -> None:
    server = Simulated(Throttle(256), lambda _: spread(1.0, 0.3), 48, workers=workers)
    server.run(120)
    assert 48 / workers <= server.throttle.limit <= 2 * 48 / workers + 2


def test_a_server_that_recovers_is_given_more_again() -> None:
    slots = 4
    server = Simulated(Throttle(64), lambda flying: spread(1.0, 0.3) if flying < slots else None)
    server.run(200)
    assert server.throttle.limit <= 5
    slots = 64
    server.run(200)
    assert server.throttle.limit >= 48


def test_a_server_that_becomes_slow_is_given_less_and_then_more_again() -> None:
    """Its neighbours take of it, and leave: it says nothing, but replies come late."""
    server = Simulated(Throttle(256), lambda _: spread(1.0, 0.3), 64)
    server.run(100)
    assert 64 <= server.throttle.limit <= 130
    server.slots = 8
    server.run(600)
    assert server.throttle.limit <= 24
    server.slots = 64
    server.run(300)
    assert server.throttle.limit >= 60


def test_an_outage_cuts_once_a_window_and_is_got_over() -> None:
    up = True
    server = Simulated(Throttle(64, start=64), lambda _: 1.0 if up else None)
    server.run(10)
    up = False
    server.run(0.06)
    assert server.throttle.limit >= 30, "sixty-four refusals at once are one cut, or two"
    server.run(5)
    assert server.throttle.limit == 1
    up = True
    server.run(60)
    assert server.throttle.limit == 64


def test_one_request_in_a_hundred_that_breaks_does_not_slow_the_rest() -> None:
    server = Simulated(Throttle(64), lambda _: None if random.random() < 0.01 else spread(1.0, 0.3))
    server.run(200)
    assert server.throttle.limit >= 48


def test_retry_after_is_kept_by_all_up_to_a_minute() -> None:
    throttle = Throttle(64)
    assert throttle.wait == 0.0
    throttle.refused(throttle.changes, 3600)
    assert LONGEST_WAIT - 1 < throttle.wait <= LONGEST_WAIT
    assert throttle.limit == 11, "a server that says when is taken at its word"


def test_a_reply_sent_under_another_limit_says_nothing_of_this_one() -> None:
    throttle = Throttle(64)
    old = throttle.changes
    throttle.refused(old)
    assert throttle.limit == 16, "one alone may be the request's own fault"
    throttle.refused(old)
    assert throttle.limit == 11
    for _ in range(20):
        throttle.refused(old)
        throttle.heard(old, 0.001, 1)
    throttle.merge()
    assert throttle.limit == 11


def test_forks_learn_from_one_another_and_one_that_is_killed_spoils_nothing() -> None:
    throttle = Throttle(256)
    children = []
    for _ in range(3):
        child = os.fork()
        if not child:
            try:
                deadline = time.monotonic() + 20
                while time.monotonic() < deadline:  # until it is killed
                    throttle.heard(throttle.changes, 0.001, 7)
                    throttle.cached(100, 80)
            finally:
                os._exit(1)
        children.append(child)
    deadline = time.monotonic() + 10
    while throttle.limit < 256 and time.monotonic() < deadline:
        time.sleep(0.01)
    for child in children:
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert throttle.limit == 256
    prompt, cached = throttle.cache
    assert cached == 0.8 * prompt > 0
    throttle.refused(throttle.changes, 0.01)
    assert throttle.limit == 179, "the lock of who was killed is free"


def test_the_first_replies_tell_once_whether_the_schema_is_obeyed() -> None:
    assert [throttle_says(told) for told in ([False] * 5, [False, True, False, False], [True] * 4)] == [1, 0, 0]


def throttle_says(told: list[bool]) -> int:
    throttle = Throttle(4)
    said = sum(throttle.obeys(one) for one in told)
    assert not throttle.checking
    return said
