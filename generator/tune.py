"""`factory teacher tune`: which settings of the teacher write most on the user's own prompts, found by trying them.

Guarantees: one dimension at a time, from the settings in force, keeping what is better; a candidate that does not start, or
breaks, is told and passed over. The settings in force are measured twice at first and once more at the end; noise is how far
those readings lie apart, and 3 % at least. A step is kept if it beats the step before (the first: the mean of the readings)
by more than the noise known by then, and accepts no fewer items. At the end the steps are gone through again with the noise
known then: one that falls short of it is undone, unless a further step of the same dimension makes up for it, and so is all
that other dimensions put on top. What wins was thus measured as it is written, and each of its changes counts.
Above 25 % of noise the machine is too busy to tell, and nothing changes. Each trial runs units as `factory run` does (so
many workers, the same pipeline and gates), and counts the replies within its window, after a warm-up. Nothing is written here, and no engine stays. Cost: the minutes asked for,
engine starts included; a start that takes longer than expected may overrun them by itself.

Not known: what other prompts would say. Trials on one engine go on to other units, since it keeps prefixes it has seen; a corpus
smaller than what a trial reads meets its own again, and flatters all trials alike.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import uvloop

from foundation.console import say
from foundation.corpus import Corpus
from foundation.errors import FactoryError, Failure
from foundation.prompt_type import PromptType
from foundation.records import ChatReply, SplitPolicy
from foundation.workspace import Workspace
from generator.estimate import share
from generator.gates import Gates
from generator.partners import choose
from generator.pilot import Job, Noting, Population, at_full, job_at, outcomes_of
from generator.teachers.make import teacher_from_settings

if TYPE_CHECKING:
    from generator.teachers.base import Teacher
    from generator.teachers.make import ReadyTeacher

GAIN = 0.03  # less is noise
BUSY = 0.25  # of noise: more, and nothing can be told
BLOCKS = 64  # of the corpus, that trials read
WARM = 0.25  # of a trial's seconds, before those that count
LONGEST = 60.0  # seconds of one trial
HIGHEST = 4096  # concurrency that the settings take


@dataclass(frozen=True)
class Candidate:
    """Settings to try. `concurrency` is a worker's; `args` are teacher.args; `why` says what is new in it."""

    why: str
    concurrency: int
    args: tuple[str, ...] = ()


Step = Callable[[Candidate], Candidate | None]  # a neighbour; None where there is none


@dataclass(frozen=True)
class Dimension:
    """What is changed at once: `up` as long as it helps, else `down` as long as that does."""

    name: str
    up: Step
    down: Step = lambda candidate: None


@dataclass(frozen=True)
class Trial:
    """What one candidate did. Rates are per second of the window; `error` says why there are none."""

    candidate: Candidate
    seconds: float = 0.0
    calls: int = 0
    tokens: int = 0
    items: int = 0
    accepted: int = 0
    error: str = ""

    @property
    def rate(self) -> float:
        """Completion tokens a second; calls, where the server tells of no tokens."""
        return (self.tokens or self.calls) / self.seconds if self.seconds else 0.0

    def document(self) -> dict[str, object]:
        seconds = self.seconds or 1.0
        return {
            "candidate": self.candidate.why,
            "concurrency": self.candidate.concurrency,
            "args": list(self.candidate.args),
            "seconds": round(self.seconds, 2),
            "completion_tokens_per_second": round(self.tokens / seconds, 1),
            "calls_per_second": round(self.calls / seconds, 2),
            "items": self.items,
            "accept_rate": round(self.accepted / self.items, 4) if self.items else None,
            "error": self.error,
        }

    def told(self) -> str:
        if self.error:
            return f"passed over: {self.error}"
        rate = f", accepted {self.accepted / self.items:.0%}" if self.items else ""
        return f"{self.tokens / self.seconds:,.0f} tokens and {self.calls / self.seconds:,.1f} calls a second{rate}"


@dataclass
class Verdict:
    """What came of it. `best` is what to write; None: nothing is better by more than noise.

    `plain` are the rates of the settings in force; `skipped` had no time, `undone` was kept for a while. `start` is how long
    the engine took to start, at the longest.
    """

    trials: list[Trial] = field(default_factory=list)
    best: Candidate | None = None
    gain: float = 0.0
    plain: list[float] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    undone: list[str] = field(default_factory=list)
    others: int = 0
    start: float = 0.0

    @property
    def mean(self) -> float:
        """The rate of the settings in force."""
        return sum(self.plain) / len(self.plain)

    @property
    def noise(self) -> float:
        """How far the readings of the settings in force lie apart."""
        return max(GAIN, (max(self.plain) - min(self.plain)) / self.mean) if self.plain else GAIN

    @property
    def busy(self) -> bool:
        """Whether the machine is too busy to tell."""
        return self.noise > BUSY


class Units:
    """Units to ask about, without end: runs of snippets as they are planned, of all types in turn, in a seeded order."""

    def __init__(self, prompt_types: Sequence[PromptType], corpus: Corpus, policy: SplitPolicy, seed: int = 0) -> None:
        self.prompt_types, self.corpus = prompt_types, corpus
        population, chance = Population(corpus), random.Random(seed)
        parts = [part for part in population.parts if part[1]]
        self.parts = chance.sample(parts, min(BLOCKS, len(parts)))
        blocks = [block for block, _ in self.parts]
        kinds = {one.partner for one in prompt_types if one.partner}
        self.partners = {kind: choose(kind, blocks, corpus, policy, 0) for kind in kinds}

    def __iter__(self) -> Iterator[Job]:
        for round_ in itertools.count():
            for block, standing in self.parts:
                for prompt_type in self.prompt_types:
                    chosen = self.partners.get(prompt_type.partner) if prompt_type.partner else None
                    for start in range(0, len(standing), prompt_type.unit):
                        places = [(block, index) for index in standing[start : start + prompt_type.unit]]
                        yield job_at(prompt_type, round_, places, self.corpus, chosen)


async def measure(
    teachers: Sequence[Teacher],
    units: Iterator[Job],
    policy: SplitPolicy,
    gates: Gates,
    candidate: Candidate,
    seconds: float,
    written: Callable[[], int] | None = None,
) -> Trial:
    """Let each teacher, as a worker, do unit after unit for so many seconds; the first quarter is not counted.

    `written` tells the tokens that the server wrote so far, unfinished replies too; without it those of finished ones count.
    """
    calls = tokens = items = accepted = 0
    counting = False

    def heard(reply: ChatReply) -> None:
        nonlocal calls, tokens
        if counting:
            calls += reply.finish in ("stop", "length")
            tokens += reply.usage.completion_tokens

    async def work(teacher: Teacher) -> None:
        nonlocal items, accepted
        for job in units:
            await asyncio.sleep(0)  # a unit of which nothing is asked would never let anyone else run
            noting = Noting(teacher, heard)  # one a unit: it keeps what every item cost
            async for outcome in outcomes_of(noting, job, policy, gates):
                items += 1
                accepted += bool(outcome.records)

    tasks = [asyncio.create_task(work(teacher)) for teacher in teachers]

    async def until(end: float) -> int:
        """Wait, unless a worker fails, and read the server's meter."""
        done, _ = await asyncio.wait(tasks, timeout=end - time.perf_counter(), return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
        return await asyncio.to_thread(written) if written else 0

    try:
        began = time.perf_counter()
        before = await until(began + WARM * seconds)
        counting, counted = True, time.perf_counter()
        after = await until(began + seconds)
        counting, counted = False, time.perf_counter() - counted
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for teacher in teachers:
            await teacher.close()
    return Trial(candidate, counted, calls, after - before if written else tokens, items, accepted)


class Tuner:
    """One search. `workers` as `factory run` would set to work; `seconds` for all of it."""

    def __init__(
        self, workspace: Workspace, units: Units, policy: SplitPolicy, *, workers: int, seconds: float, trial: float
    ) -> None:
        self.workspace, self.units, self.policy, self.workers = workspace, units, policy, workers
        self.trial, self.seconds, self.end = trial, seconds, 0.0
        self.gates = Gates()
        self.gates.warm()
        settings = workspace.settings.teacher
        self.base = Candidate("as it is", settings.concurrency, tuple(settings.args))
        self.verdict = Verdict()
        self._stack = contextlib.ExitStack()
        self._running: tuple[str, ...] | None = None  # the arguments of the server that runs
        self._ready: ReadyTeacher | None = None
        self._units = iter(units)

    def run(self, dimensions: Sequence[Dimension]) -> Verdict:
        """Try. Raises what the settings in force raise: what does not work as it is cannot be tuned."""
        self.end = time.monotonic() + self.seconds
        with contextlib.closing(self):
            first = self._try(self.base)
            if not first.rate:
                if first.items and not first.calls:
                    raise Failure(
                        f"of {first.items:,} items none reached the teacher: no passage of this corpus fits these prompt types",
                        where=f"{len(self.units.prompt_types):,} prompt types",
                        mend="name others with --prompt-type; `factory preview` shows why",
                    )
                raise Failure(
                    f"no reply came within the {first.seconds:,.0f} s that a trial counts",
                    where=f"{len(self.units.prompt_types):,} prompt types",
                    mend="give it more time with --minutes, or name prompt types with shorter answers",
                )
            self.verdict.plain = [first.rate, self._try(replace(self.base, why="as it is, again")).rate]
            if not self.verdict.busy:
                kept, climbs = [first], list[list[Trial]]()
                for dimension in dimensions:
                    climbs.append(self._climb(kept, dimension.up) or self._climb(kept, dimension.down))
                if len(kept) > 1:
                    self._settle(first, climbs)
        return self.verdict

    def close(self) -> None:
        """End the engine that runs."""
        self._stack.close()
        self._stack, self._running, self._ready = contextlib.ExitStack(), None, None

    def _climb(self, kept: list[Trial], step: Step) -> list[Trial]:
        """Go on from the last that was kept, as long as that is better. Returns what was."""
        before = len(kept)
        while (candidate := step(kept[-1].candidate)) is not None:
            if not self._time_for(candidate):
                self.verdict.skipped.append(candidate.why)
                break
            self.verdict.others += 1
            try:
                found = self._try(candidate)
            except FactoryError as error:
                found = Trial(candidate, error=error.what)
                self._note(found)
            if not self._better(found, kept):
                break
            kept.append(found)
        return kept[before:]

    def _better(self, found: Trial, kept: Sequence[Trial]) -> bool:
        """Whether it is so by more than the noise known by now, and accepts no fewer items."""
        before = kept[-1].rate if len(kept) > 1 else self.verdict.mean
        return found.rate > before * (1 + self.verdict.noise) and not _fewer(found, kept[-1])

    def _settle(self, first: Trial, climbs: Sequence[list[Trial]]) -> None:
        """The settings in force once more; then every step again, with the noise known now."""
        verdict = self.verdict
        try:
            verdict.plain.append(self._try(replace(self.base, why="as it is, once more")).rate)
        except FactoryError as error:
            self._note(Trial(self.base, error=error.what))
        steps = [one for climb in climbs for one in climb]
        verdict.gain, stands = steps[-1].rate / verdict.mean - 1, [first]
        for climb in climbs if not verdict.busy else ():
            for one in climb:
                if self._better(one, stands):
                    stands.append(one)
            if climb and stands[-1] is not climb[-1]:
                break  # other dimensions stood on what is undone
        if stands[-1] is not first:
            verdict.best, verdict.gain = stands[-1].candidate, stands[-1].rate / verdict.mean - 1
            steps = steps[steps.index(stands[-1]) + 1 :]
        verdict.undone = [one.candidate.why for one in steps]

    def _time_for(self, candidate: Candidate) -> bool:
        """Whether a trial, and the last one of the settings in force, still fit, with the starts they take."""
        starts = (candidate.args != self._running) + (candidate.args != self.base.args)
        return time.monotonic() + starts * self.verdict.start + 2 * self.trial <= self.end

    def _try(self, candidate: Candidate) -> Trial:
        say(f"trying {candidate.why}")
        if self._ready is None or candidate.args != self._running:
            self._begin(candidate)
        assert self._ready is not None
        # One for all, as the workers of a run share what they learn of the server.
        teachers = [at_full(self._ready.teacher, candidate.concurrency)] * self.workers
        try:
            found = uvloop.run(
                measure(teachers, self._units, self.policy, self.gates, candidate, self.trial, self._written())
            )
        except FactoryError:
            self.close()  # whatever state that left the server in
            raise
        self._note(found)
        return found

    def _written(self) -> Callable[[], int] | None:
        """The meter of an engine of our own."""
        ready = self._ready
        return (lambda: ready.look().tokens) if ready and ready.device else None

    def _begin(self, candidate: Candidate) -> None:
        """Start the teacher of these settings, in the place of the one that runs."""
        self.close()
        began = time.monotonic()
        trial, settings = Workspace(self.workspace.root), self.workspace.settings
        changed = {"concurrency": candidate.concurrency, "args": list(candidate.args)}
        trial.settings = settings.model_copy(update={"teacher": settings.teacher.model_copy(update=changed)})
        ready = self._stack.enter_context(teacher_from_settings(trial, purpose="factory teacher tune", settle=False))
        self._ready, self._running, self._units = ready, candidate.args, iter(self.units)
        self.verdict.start = max(self.verdict.start, time.monotonic() - began)

    def _note(self, trial: Trial) -> None:
        say(f"  {trial.told()}")
        self.verdict.trials.append(trial)


def _fewer(trial: Trial, than: Trial) -> bool:
    """Whether fewer items pass, beyond chance: settings may speed a teacher up, not spoil it."""
    return share(trial.accepted, trial.items).high < share(than.accepted, than.items).low
