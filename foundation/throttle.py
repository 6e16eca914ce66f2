"""How many requests may be in flight: as many as the server turns into more replies, learnt by all processes together.

The rule. The limit moves in trial steps: double until the first that fails, then a quarter. A step is judged by goodput, which
is in flight / seconds a token (Little's law: nothing has to be timed, and waves do no harm), of requests that were sent under
that limit, each in the place of another (those that fill up see a shorter queue). One that makes it grow by at least a fifth
of what was added in flight pays, and the next follows at once; another only adds latency, and is taken back. Then the limit
rests, longer after each vain try (2 to 16 rounds), and tries the other way by the same measure: fewer in flight must not cost
more than a fifth of what they are fewer. Where replies became half as slow again, or that much quicker, it does not rest.
A round is as many replies as the limit; a step is judged as soon as it is clear (two standard errors), after 8 rounds anyhow.
Refusals (429, 503, time-outs, resets) of more than one in twenty, and not of one alone: a step up is taken back, else the
limit is cut by three tenths; only requests sent since the last change count, so it is cut once a window. Replies within
`brisk` seconds harm nobody: then the limit grows without proof. What the server's Retry-After asks for, all keep.

Guarantees: between 1 and `most`; the state is in shared memory made before the fork, so workers and their forks learn from one
another, and the parent sees it; a process killed at any moment leaves it usable. No clock but for Retry-After: the same replies
lead to the same limit. Seen too: prompt tokens, and those of them that the server took from its prefix cache.
Cost: 1 us a reply; two system calls an eighth of a round.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import time
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum, auto

START = 16
BRISK = 0.25  # seconds
LEAST = 8  # replies in a round
WORTH = 0.2  # share of what was added in flight that goodput must gain
STEP, FIRST_STEP = 1.25, 2.0
CUT = 0.7
TOLERATED = 20  # one refusal in so many in flight
CLEAR = 2.0  # standard errors
LONGEST_TRIAL = 8  # rounds
SLOWER = 1.5  # times as slow as before: something changed
FIRST_REST, LONGEST_REST = 2, 16  # rounds
LONGEST_WAIT = 60.0  # seconds that Retry-After can ask for
FIRST_REPLIES = 3  # that are looked at: does the server obey the schema?


class _At(IntEnum):
    """Places in the shared memory, one double each."""

    LIMIT = 0
    CHANGES = auto()  # changes of the limit so far
    BEFORE = auto()  # the limit before the step that is on trial; 0: none is
    PACE = auto()  # seconds a token at the limit before; without a trial, when it was last judged
    ERROR = auto()  # its variance as a share of its square
    STEP = auto()
    REST = auto()  # rounds after the next vain try
    RESTING = auto()  # rounds before this one
    DOWN = auto()  # which way the next try goes: 1 down, 0 up
    REPLIES = auto()  # since the last change or trial, as the next six
    SECONDS = auto()
    TOKENS = auto()
    SECONDS_SQUARED = auto()
    SECONDS_TOKENS = auto()
    TOKENS_SQUARED = auto()
    REFUSED = auto()
    RESUME = auto()  # monotonic clock, before which nothing is sent
    PROMPT = auto()
    CACHED = auto()
    CHECKED = auto()  # first replies that were to obey a schema
    OBEYED = auto()
    SERVED = auto()  # monotonic clock, when the last reply came that was merged


@dataclass
class _Heard:
    """What this process has to add; not yet merged."""

    changes: float = 0.0
    replies: int = 0
    seconds: float = 0.0
    tokens: int = 0
    seconds_squared: float = 0.0
    seconds_tokens: float = 0.0
    tokens_squared: float = 0.0
    refused: int = 0
    served: float = 0.0
    prompt: int = 0
    cached: int = 0


class Throttle:
    """`most` in flight for each process; made before the fork. `start` = `most` begins there, and is never slow."""

    def __init__(self, most: int, *, start: int = START, brisk: float = BRISK) -> None:
        self.most, self.brisk = most, brisk
        self._file = os.memfd_create("throttle")
        os.ftruncate(self._file, 8 * len(_At))
        self._shared = memoryview(mmap.mmap(self._file, 8 * len(_At))).cast("d")
        weakref.finalize(self, os.close, self._file)
        shared, self._heard = self._shared, _Heard()
        shared[_At.LIMIT], shared[_At.STEP], shared[_At.REST] = min(start, most), FIRST_STEP, FIRST_REST

    @property
    def limit(self) -> int:
        """Requests a process may have in flight now."""
        return int(self._shared[0])

    @property
    def changes(self) -> float:
        """Which limit this is; whoever sends a request keeps it, for `heard` and `refused`."""
        return self._shared[1]

    @property
    def wait(self) -> float:
        """Seconds in which nothing may be sent, as the server asked."""
        resume = self._shared[_At.RESUME]
        return max(0.0, resume - time.monotonic()) if resume else 0.0

    @property
    def cache(self) -> tuple[int, int]:
        """Prompt tokens of the replies that told, and how many of them came from the server's prefix cache."""
        return int(self._shared[_At.PROMPT]), int(self._shared[_At.CACHED])

    @property
    def served(self) -> float:
        """When the last reply came of those that were added, of any process, as `time.monotonic`."""
        return self._shared[_At.SERVED]

    def heard(self, changes: float, seconds: float, tokens: int, *, full: bool = True) -> None:
        """A reply of so many tokens came after so many seconds. `full`: it was sent in the place of another."""
        heard = self._under(changes)
        heard.served = time.monotonic()
        if (full or seconds < self.brisk) and changes == self._shared[1]:
            tokens = tokens or 1
            heard.replies += 1
            heard.seconds += seconds
            heard.tokens += tokens
            heard.seconds_squared += seconds * seconds
            heard.seconds_tokens += seconds * tokens
            heard.tokens_squared += tokens * tokens
        if heard.replies > self._shared[0] / 8:
            self.merge()

    def refused(self, changes: float, wait: float = 0.0) -> None:
        """The server refused a request, or lost it. `wait`: the seconds until it wants to be asked again, if it said so."""
        if wait > 0:
            resume = time.monotonic() + min(wait, LONGEST_WAIT)
            self._shared[_At.RESUME] = max(resume, self._shared[_At.RESUME])
        if changes == self._shared[1]:
            self._under(changes).refused += self.most + 1 if wait else 1  # a server that says when is taken at its word
            self.merge()

    def _under(self, changes: float) -> _Heard:
        """What this process heard under that limit. What it heard under another is of no use any more."""
        heard = self._heard
        if changes != heard.changes:
            self._heard = heard = _Heard(changes, served=heard.served, prompt=heard.prompt, cached=heard.cached)
        return heard

    def cached(self, prompt: int, cached: int) -> None:
        """A reply told how much of its prompt came from the cache."""
        self._heard.prompt += prompt
        self._heard.cached += cached

    def obeys(self, obeyed: bool) -> bool:
        """Whether one of the run's first replies obeyed its schema. True if now, and only now, is the time to say that none did."""
        shared = self._shared
        with self._alone() as alone:
            if not alone or shared[_At.CHECKED] >= FIRST_REPLIES:
                return False
            shared[_At.CHECKED] += 1
            shared[_At.OBEYED] += obeyed
            return shared[_At.CHECKED] == FIRST_REPLIES and not shared[_At.OBEYED]

    @property
    def checking(self) -> bool:
        return self._shared[_At.CHECKED] < FIRST_REPLIES

    def merge(self) -> None:
        """Add what this process heard to what all did, and judge the round if it is over. Later, if another one is at it."""
        shared, heard = self._shared, self._heard
        with self._alone() as alone:
            if not alone:
                return
            shared[_At.PROMPT] += heard.prompt
            shared[_At.CACHED] += heard.cached
            shared[_At.SERVED] = max(shared[_At.SERVED], heard.served)
            if heard.changes == shared[_At.CHANGES]:
                shared[_At.REPLIES] += heard.replies
                shared[_At.SECONDS] += heard.seconds
                shared[_At.TOKENS] += heard.tokens
                shared[_At.SECONDS_SQUARED] += heard.seconds_squared
                shared[_At.SECONDS_TOKENS] += heard.seconds_tokens
                shared[_At.TOKENS_SQUARED] += heard.tokens_squared
                shared[_At.REFUSED] += heard.refused
                self._judge()
            self._heard = _Heard(heard.changes)

    def _judge(self) -> None:
        """Whether it is time for a change, now that something was added."""
        shared = self._shared
        limit, replies, before = shared[_At.LIMIT], shared[_At.REPLIES], shared[_At.BEFORE]
        refused = shared[_At.REFUSED]
        if refused > 1 and refused * TOLERATED > max(limit, replies):
            if 0 < before < limit:
                self._take_back(before)
            else:
                self._cut(limit)
            return
        brisk = bool(replies) and shared[_At.SECONDS] / replies < self.brisk
        full_round = LEAST if brisk else max(LEAST, limit)
        if replies < full_round:
            return
        pace, error = self._measure()
        if before:
            gain = self._gain(limit / before, pace)
            down = limit < before
            if not brisk or down:
                clear = (gain - 1) ** 2 > CLEAR**2 * (error + shared[_At.ERROR])
                if not clear and replies < LONGEST_TRIAL * full_round:
                    return
                if gain < 1:
                    self._take_back(before)
                    return
            shared[_At.REST] = FIRST_REST
        else:
            last = shared[_At.PACE]
            changed = pace > SLOWER * last or last > SLOWER * pace
            if last and not changed and replies < (1 + shared[_At.RESTING]) * full_round:
                return
            down = not brisk and last > 0 and (pace > last if changed else bool(shared[_At.DOWN]))
        shared[_At.PACE], shared[_At.ERROR] = pace, error
        self._begin_round()
        self._try(limit, -1 if down else 1)

    def _measure(self) -> tuple[float, float]:
        """Seconds a token, and its variance as a share of its square: those of a quotient of two sums."""
        shared = self._shared
        pace = shared[_At.SECONDS] / max(1.0, shared[_At.TOKENS])  # (none, after a kill in the middle of `merge`)
        squares = shared[_At.SECONDS_SQUARED] - 2 * pace * shared[_At.SECONDS_TOKENS]
        return pace, max(0.0, squares + pace * pace * shared[_At.TOKENS_SQUARED]) / max(shared[_At.SECONDS], 1e-9) ** 2

    def _gain(self, ratio: float, pace: float) -> float:
        """Goodput after a step by `ratio`, as a multiple of the least at which it pays."""
        return ratio * self._shared[_At.PACE] / max(pace, 1e-9) / (1 + WORTH * (ratio - 1))

    def _try(self, limit: float, way: int) -> None:
        shared = self._shared
        shared[_At.BEFORE] = 0
        shared[_At.DOWN] = way < 0
        shared[_At.RESTING] = shared[_At.REST]
        if way > 0:
            to = min(self.most, max(limit + 1, limit * shared[_At.STEP] // 1))
        else:
            to = max(1.0, min(limit - 1, limit / STEP // 1))
        if to == limit:  # it cannot go there: the other way, when it has rested
            shared[_At.DOWN] = way > 0
            shared[_At.RESTING] = LONGEST_REST
        else:
            self._set(to)
            shared[_At.BEFORE] = limit

    def _take_back(self, before: float) -> None:
        """The step does not pay: the limit before it, and a longer rest until the next try, which goes the other way."""
        shared = self._shared
        shared[_At.STEP], shared[_At.DOWN] = STEP, not shared[_At.DOWN]
        shared[_At.RESTING] = shared[_At.REST]
        shared[_At.REST] = min(LONGEST_REST, 2 * shared[_At.REST])
        self._set(before)
        shared[_At.BEFORE] = 0

    def _cut(self, limit: float) -> None:
        """Fewer, for the server cannot bear what it bore: once for all requests sent until now."""
        shared = self._shared
        shared[_At.STEP], shared[_At.REST], shared[_At.RESTING] = FIRST_STEP, FIRST_REST, 1
        shared[_At.PACE] = shared[_At.BEFORE] = shared[_At.DOWN] = 0
        self._set(max(1.0, limit * CUT // 1))

    def _set(self, limit: float) -> None:
        self._begin_round()
        self._shared[_At.LIMIT] = limit
        self._shared[_At.CHANGES] += 1

    def _begin_round(self) -> None:
        for place in range(_At.REPLIES, _At.REFUSED + 1):
            self._shared[place] = 0

    @contextlib.contextmanager
    def _alone(self) -> Iterator[bool]:
        """Whether no other process changes the state now. The kernel gives a lock back whose holder was killed."""
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        try:
            yield True
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)
