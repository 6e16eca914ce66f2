"""A measured pilot: a few items, drawn from all there are to do, through the real teacher, prompts and gates. Writes nothing.

Guarantees: the draw is a function of seed, prompt type and corpus: one item from each of as many equal parts, so it is
spread over corpus and rounds, and each prompt type's is its own. What an item cost is what its calls cost, of accepted
and rejected ones alike. What is withdrawn is not drawn. Cost: that of the items; with withdrawn text one pass over the corpus
(10 µs a snippet), with partners one more (0.14 ms a snippet).

Before a server, where calls wait for each other, the items of several types are asked about in turns (`in_turns`), so that
all of them wait alike, and a type's share of the time is not that of its place in line.

What it cannot see: items are judged in units of the pilot's own, whose snippets lie apart. What is rejected because a
neighbour in its unit gave the same (duplicates, entries asked about already) is therefore seen in part only: with `rules`,
over all of wh, contrastive and cross, six pilots said 31 % accepted and 2,440 records on average, where 29 % and 1,903 came.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import statistics
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from foundation.corpus import Corpus, jsonl
from foundation.errors import UsageError
from foundation.prompt_type import PromptType
from foundation.reader import identities, tombstones
from foundation.records import ChatReply, Snippet, SplitPolicy, Unit, Usage
from generator.gates import Gates
from generator.partners import Kind, Partner, choose, with_partner
from generator.pipeline import Outcome, produce
from generator.render import Source
from generator.teachers.base import Teacher, TeacherRequest

Place = tuple[str, int]  # a block, and a position in it
TURN = 2  # items of a type in one turn


class Population:
    """The snippets that there are to ask about, in order. Raises `UsageError` if there is none."""

    def __init__(self, corpus: Corpus) -> None:
        withdrawn = identities(tombstones(corpus.store))
        some = any(kind in ("snippet", "article") for kind, _ in withdrawn)
        self.corpus = corpus
        self.parts: list[tuple[str, Sequence[int]]] = []  # of each block the positions that stand
        for block in corpus.blocks():
            standing: Sequence[int] = range(corpus.count(block))
            if some:
                snippets = corpus.part(block, 0, corpus.count(block))
                standing = [
                    index
                    for index, one in enumerate(snippets)
                    if ("snippet", one.id) not in withdrawn and ("article", one.article_id) not in withdrawn
                ]
            self.parts.append((block, standing))
        self.size = sum(len(standing) for _, standing in self.parts)
        if not self.size:
            raise UsageError(
                "the corpus is empty",
                where=str(getattr(corpus.store, "root", "")),
                mend="put text in it with `factory ingest PATH`",
            )

    def places(self, numbers: Iterable[int]) -> list[Place]:
        """Where the snippets of these numbers, in rising order, stand."""
        found: list[Place] = []
        parts = iter(self.parts)
        start, (block, standing) = 0, next(parts)
        for number in numbers:
            while number - start >= len(standing):
                start += len(standing)
                block, standing = next(parts)
            found.append((block, standing[number - start]))
        return found


def draw(total: int, count: int, *seed: object) -> list[int]:
    """`count` numbers below `total` (all, if there are fewer): one at random from each of `count` equal parts."""
    count = min(count, total)
    chance = random.Random(":".join(map(str, seed)))
    return [chance.randrange(part * total // count, (part + 1) * total // count) for part in range(count)]


@dataclass(frozen=True, slots=True)
class Job:
    """Items of one prompt type and round, as one unit. `around` are more snippets of their articles, as a unit sees them."""

    prompt_type: PromptType
    round: int
    sources: tuple[Source, ...]
    around: tuple[Snippet, ...] = ()


def jobs_of(
    prompt_types: Sequence[PromptType],
    population: Population,
    policy: SplitPolicy,
    *,
    count: int,
    rounds: int = 1,
    seed: int = 0,
) -> list[Job]:
    """What to ask: `count` items of each type, spread over all snippets and rounds."""
    drawn: list[tuple[PromptType, int, list[Place]]] = []
    for prompt_type in prompt_types:
        by_round: defaultdict[int, list[int]] = defaultdict(list)
        for number in draw(population.size * rounds, count, seed, prompt_type.id):
            by_round[number // population.size].append(number % population.size)
        drawn += ((prompt_type, round_, population.places(numbers)) for round_, numbers in by_round.items())
    blocks: defaultdict[tuple[Kind, int], set[str]] = defaultdict(set)
    for prompt_type, round_, places in drawn:
        if prompt_type.partner:
            blocks[prompt_type.partner, round_] |= {block for block, _ in places}
    chosen = {key: choose(key[0], sorted(names), population.corpus, policy, key[1]) for key, names in blocks.items()}
    return [
        job_at(one, round_, places, population.corpus, chosen.get((one.partner, round_)) if one.partner else None)
        for one, round_, places in drawn
    ]


def in_turns(jobs: Sequence[Job], seed: int = 0) -> list[Job]:
    """The same items in jobs of a few, one of each prompt type in a round, in a seeded order. One type's are left as they are."""
    parts: defaultdict[str, list[Job]] = defaultdict(list)
    for job in jobs:
        cuts = range(0, len(job.sources), TURN)
        parts[job.prompt_type.id] += (replace(job, sources=job.sources[cut : cut + TURN]) for cut in cuts)
    if len(parts) < 2:
        return list(jobs)
    chance, found = random.Random(f"{seed}:turns"), list[Job]()
    for some in parts.values():
        chance.shuffle(some)
    for turn in itertools.zip_longest(*parts.values()):
        standing = [job for job in turn if job]
        found += chance.sample(standing, len(standing))
    return found


Partners = Mapping[str, Sequence[Partner | None]]  # by block, of each of its snippets


def job_at(
    prompt_type: PromptType, round_: int, places: Sequence[Place], corpus: Corpus, chosen: Partners | None
) -> Job:
    """The job of the snippets at these places; `chosen` where the type asks for partners."""
    sources, around = [], []
    for block, index in places:
        snippets = corpus.snippets(block)
        snippet = snippets[index]
        sources.append(with_partner(snippet, chosen[block][index], corpus) if chosen else Source(snippet))
        around += [one for one in snippets if one.article_id == snippet.article_id]
    return Job(prompt_type, round_, tuple(sources), tuple(around))


@dataclass(frozen=True, slots=True)
class Seen:
    """What became of one item. Tokens and `seconds` (sending to last token) are of all its calls; bytes as they would be kept.

    `reasons` are what its rejects were rejected by (`schema/too-short`); an accepted item of several calls may have some too.
    """

    accepted: bool
    records: int = 0
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    shard_bytes: int = 0
    reject_bytes: int = 0
    reasons: tuple[str, ...] = ()


@dataclass(slots=True)
class Pilot:
    """What came of it, by prompt type; `in_flight` is how many calls the teacher had at once, on average."""

    seen: dict[str, list[Seen]] = field(default_factory=dict)
    wall: float = 0.0
    watts: float | None = None

    @property
    def all(self) -> list[Seen]:
        return [one for some in self.seen.values() for one in some]

    @property
    def in_flight(self) -> float:
        return sum(one.seconds for one in self.all) / self.wall if self.wall else 0.0


class Noting:
    """A teacher of whose replies is kept what they cost, by item."""

    def __init__(self, teacher: Teacher, heard: Callable[[ChatReply], object] = lambda reply: None) -> None:
        self.teacher, self.name, self.heard = teacher, teacher.name, heard
        self.spent: defaultdict[str, dict[str, Usage]] = defaultdict(dict)

    async def complete(self, requests: Sequence[TeacherRequest]) -> AsyncIterator[ChatReply]:
        async for reply in self.teacher.complete(requests):
            self.spent[reply.id.partition(":")[0]].setdefault(reply.id, reply.usage)
            self.heard(reply)
            yield reply

    async def close(self) -> None:
        await self.teacher.close()

    def seen(self, outcome: Outcome, seconds: float | None = None) -> Seen:
        """An outcome with what it cost; `seconds` in place of what the teacher says it took."""
        spent = list(self.spent[outcome.item].values())
        return Seen(
            accepted=bool(outcome.records),
            records=len(outcome.records),
            calls=len(spent),
            prompt_tokens=sum(one.prompt_tokens for one in spent),
            completion_tokens=sum(one.completion_tokens for one in spent),
            seconds=sum(one.seconds for one in spent) if seconds is None else seconds,
            shard_bytes=len(jsonl(outcome.records)),
            reject_bytes=len(jsonl(outcome.rejects)),
            reasons=tuple(f"{one.gate}/{one.code}" if one.code else one.gate for one in outcome.rejects),
        )


def at_full(teacher: Teacher, concurrency: int = 0) -> Teacher:
    """A teacher over a server that begins with all the requests that may be in flight, where a run feels its way up.

    `concurrency`: so many in place of its own. Another teacher is left as it is.
    """
    from foundation.throttle import Throttle
    from generator.teachers.openai import OpenAITeacher

    if not isinstance(teacher, OpenAITeacher):
        return teacher
    most = concurrency or teacher.client.concurrency
    client = replace(teacher.client, concurrency=most, throttle=Throttle(most, start=most))
    return OpenAITeacher(client, teacher.name)


async def outcomes_of(teacher: Teacher, job: Job, policy: SplitPolicy, gates: Gates) -> AsyncIterator[Outcome]:
    """The outcomes of a job's items, as the pipeline makes them."""
    unit = Unit(
        id="pilot",
        block="pilot",
        start=0,
        stop=len(job.sources),
        prompt_type=job.prompt_type.id,
        fingerprint=job.prompt_type.fingerprint,
        round=job.round,
    )
    async for outcome in produce(
        teacher, job.prompt_type, job.sources, unit=unit, policy=policy, attempt="pilot", gates=gates, around=job.around
    ):
        yield outcome


async def ask(
    teacher: Teacher,
    jobs: Sequence[Job],
    policy: SplitPolicy,
    gates: Gates,
    *,
    at_once: int,
    warm_up: Job | None = None,
    done: Callable[[], object] = lambda: None,
) -> Pilot:
    """Ask about every item, jobs side by side as long as they have some `at_once` items together. Closes the teacher.

    With `at_once` 1 jobs follow each other, and an item's seconds are those between its outcome and the one before: that
    is for a teacher that computes in this process. `warm_up` is asked about first, and not counted.
    """
    pilot, places = Pilot(), asyncio.Semaphore(max(1, at_once // max(1, max(len(job.sources) for job in jobs))))
    noting = Noting(teacher)

    async def one(job: Job) -> None:
        seen = pilot.seen.setdefault(job.prompt_type.id, [])
        async with places:
            times, outcomes = [time.perf_counter()], []
            async for outcome in outcomes_of(noting, job, policy, gates):
                times.append(time.perf_counter())
                outcomes.append(outcome)
                done()
        gaps = _shared_out(times) if at_once == 1 else [None] * len(outcomes)
        seen += map(noting.seen, outcomes, gaps)

    try:
        if warm_up:
            async for _ in outcomes_of(teacher, warm_up, policy, gates):
                pass
        watts, began = Watts(), time.perf_counter()
        watching = asyncio.create_task(watts.watch())
        tasks = [asyncio.create_task(one(job)) for job in jobs]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in (*tasks, watching):
                task.cancel()
            await asyncio.gather(*tasks, watching, return_exceptions=True)
        pilot.wall, pilot.watts = time.perf_counter() - began, watts.mean
    finally:
        await teacher.close()
    return pilot


def _shared_out(times: Sequence[float]) -> list[float]:
    """Seconds from each outcome to the next. The first comes after what is done for all of them: that is everyone's."""
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    if len(gaps) > 1:
        common = max(0.0, gaps[0] - statistics.median(gaps[1:]))
        gaps[0] -= common
        gaps = [gap + common / len(gaps) for gap in gaps]
    return gaps


class Watts:
    """What the GPUs that this process may use draw, by NVML, looked at twice a second. `mean` is None where none tells."""

    EVERY = 0.5

    def __init__(self) -> None:
        self._looks: list[float] = []

    @property
    def mean(self) -> float | None:
        return sum(self._looks) / len(self._looks) if self._looks else None

    async def watch(self) -> None:
        while self._look():
            await asyncio.sleep(self.EVERY)

    def _look(self) -> bool:
        from foundation.processes import visible_gpus

        gpus = visible_gpus()
        if not gpus:
            return False
        import pynvml

        try:
            pynvml.nvmlInit()
            try:
                handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in gpus]
                self._looks.append(sum(pynvml.nvmlDeviceGetPowerUsage(handle) for handle in handles) / 1000)
            finally:
                pynvml.nvmlShutdown()
        except pynvml.NVMLError:  # a slice of a GPU does not tell
            return False
        return True
