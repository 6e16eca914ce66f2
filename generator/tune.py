"""`factory teacher tune`: which settings of the teacher write most on the user's own prompts, found by trying them.

Guarantees: one dimension at a time, from the settings in force, keeping what is better; a candidate that does not start, or
breaks, is told and passed over. What wins must beat the settings in force, measured first and again at the end, by more
than those two differ and by more than 3 %, and accept no fewer items; else nothing changes. Each trial runs units as `factory run` does
(so many workers, the same pipeline and gates), and counts the replies within its window, after a warm-up. Nothing is written
here, and no engine stays. Cost: the minutes asked for, engine starts included; a start that takes longer than expected may
overrun them by itself.

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
BLOCKS = 64  # of the corpus, that trials read
WARM = 0.25  # of a trial's seconds, before those that count
LONGEST = 60.0  # seconds of one trial
HIGHEST = 4096  # concurrency that the settings take
WORKERS = 3  # that `factory run` sets before a server, if the settings name no number


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
    """What came of it. `best` is what to write; None: nothing is better by more than noise."""

    trials: list[Trial] = field(default_factory=list)
    best: Candidate | None = None
    gain: float = 0.0
    noise: float = GAIN
    skipped: list[str] = field(default_factory=list)


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
        self.start = 0.0  # seconds that the last start took
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
            best = first
            for dimension in dimensions:
                found = self._climb(best, dimension.up)
                best = found if found is not best else self._climb(best, dimension.down)
            if best is not first:
                self._settle(first, best)
        return self.verdict

    def close(self) -> None:
        """End the engine that runs."""
        self._stack.close()
        self._stack, self._running, self._ready = contextlib.ExitStack(), None, None

    def _climb(self, best: Trial, step: Step) -> Trial:
        while (candidate := step(best.candidate)) is not None:
            if not self._time_for(candidate):
                self.verdict.skipped.append(candidate.why)
                return best
            try:
                found = self._try(candidate)
            except FactoryError as error:
                found = Trial(candidate, error=error.what)
                self._note(found)
            if found.rate <= best.rate * (1 + GAIN) or _fewer(found, best):
                return best
            best = found
        return best

    def _settle(self, first: Trial, best: Trial) -> None:
        """The settings in force once more; what is better must be so beyond their own difference."""
        rates = [first.rate]
        try:
            rates.append(self._try(replace(self.base, why="as it is, once more")).rate)
        except FactoryError as error:
            self._note(Trial(self.base, error=error.what))
        mean = sum(rates) / len(rates)
        self.verdict.noise = max(GAIN, abs(rates[0] - rates[-1]) / mean if mean else 1.0)
        self.verdict.gain = best.rate / mean - 1 if mean else 0.0
        if self.verdict.gain > self.verdict.noise:
            self.verdict.best = best.candidate

    def _time_for(self, candidate: Candidate) -> bool:
        """Whether a trial, and the last one of the settings in force, still fit."""
        starts = self.start * ((candidate.args != self._running) + 1)
        return time.monotonic() + starts + 2 * self.trial <= self.end

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
        self.start = time.monotonic() - began

    def _note(self, trial: Trial) -> None:
        say(f"  {trial.told()}")
        self.verdict.trials.append(trial)


def _fewer(trial: Trial, than: Trial) -> bool:
    """Whether fewer items pass, beyond chance: settings may speed a teacher up, not spoil it."""
    return share(trial.accepted, trial.items).high < share(than.accepted, than.items).low
