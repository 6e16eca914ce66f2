"""The pilot: what it draws, what it counts, and that it writes nothing."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from foundation.corpus import Corpus
from foundation.errors import Failure, UsageError
from foundation.reader import Tombstone
from foundation.records import ChatReply, Snippet, Usage
from foundation.workspace import Workspace
from generator.catalogue import load_catalogue, select
from generator.gates import Gates
from generator.ingest.run import ingest
from generator.partners import choose
from generator.pilot import TURN, Job, Pilot, Population, ask, draw, in_turns, jobs_of
from generator.render import Source
from generator.teachers.base import TeacherRequest
from tests.generator.conftest import ARTICLES
from tests.generator.scripted import POLICY, ScriptedTeacher, said

GOOD = {"question": "What happened to those who fought in the winter war?"}


def _run(teacher: ScriptedTeacher, jobs: Sequence[Job], gates: Gates, **more: object) -> Pilot:
    return asyncio.run(ask(teacher, jobs, POLICY, gates, **{"at_once": 64, **more}))  # type: ignore[arg-type]


def test_a_draw_is_spread_seeded_and_even() -> None:
    # one from each of as many equal parts
    for total, count in ((1000, 10), (7, 3), (1003, 48)):
        numbers = draw(total, count, 1, "wh/who")
        assert len(numbers) == count
        assert all(part * total // count <= one < (part + 1) * total // count for part, one in enumerate(numbers))
    # of fewer, all; the same seed gives the same, another seed or type others
    assert draw(3, 10, 1) == [0, 1, 2]
    assert draw(1000, 10, 1, "a") == draw(1000, 10, 1, "a") != draw(1000, 10, 1, "b")
    assert draw(1000, 10, 1, "a") != draw(1000, 10, 2, "a")
    # and every number is as likely as any other
    drawn = Counter(one for seed in range(4000) for one in draw(10, 2, seed))
    assert all(abs(drawn[number] - 800) < 120 for number in range(10)), drawn


def test_what_is_withdrawn_is_not_drawn(tmp_path: Path) -> None:
    # given a corpus of which one article and one snippet of another are withdrawn
    workspace = Workspace.init(tmp_path / "w")
    ingest(workspace, [ARTICLES / "winter-war.md", ARTICLES / "battle-of-britain.md"])
    store = workspace.store
    snippets = list(Corpus(store).all_snippets())
    article, one = snippets[0].article_id, next(s for s in snippets if s.article_id != snippets[0].article_id)
    for stone in (Tombstone(kind="article", value=article), Tombstone(kind="snippet", value=one.id)):
        store.put(stone.name, stone.model_dump_json().encode())
    # when all is drawn
    population = Population(Corpus(store))
    (job,) = jobs_of(select(["qpt/formal"]), population, POLICY, count=10_000)
    # then it is exactly the rest
    left = [s.id for s in snippets if s.article_id != article and s.id != one.id]
    assert [source.snippet.id for source in job.sources] == left
    assert population.size == len(left) < len(snippets)


def test_an_empty_corpus_is_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="empty"):
        Population(Corpus(Workspace.init(tmp_path / "w").store))


def test_jobs_have_items_of_their_own_over_all_rounds_and_the_plans_partners(wwii_workspace: Path) -> None:
    corpus = Corpus(Workspace(wwii_workspace).store)
    population = Population(corpus)
    types = [*select(["wh/who", "wh/when"]), load_catalogue()["cross/compared-passages"]]
    jobs = jobs_of(types, population, POLICY, count=12, rounds=3, seed=5)
    # each type has its items, spread over the rounds, and no two types the same
    by_type = {one.id: [job for job in jobs if job.prompt_type.id == one.id] for one in types}
    drawn = {id_: [s.snippet.id for job in some for s in job.sources] for id_, some in by_type.items()}
    assert all(len(some) == 12 for some in drawn.values())
    assert all({job.round for job in some} == {0, 1, 2} for some in by_type.values())
    assert drawn["wh/who"] != drawn["wh/when"]
    # what an answer may name is what a unit would see: the rest of the article in its block
    assert all({s.snippet.article_id for s in job.sources} == {s.article_id for s in job.around} for job in jobs)
    # and a partner is the one that a plan would choose in that round
    for job in by_type["cross/compared-passages"]:
        assert job.prompt_type.partner
        planned = choose(job.prompt_type.partner, corpus.blocks(), corpus, POLICY, job.round)
        ids = {s.id: p for b in corpus.blocks() for s, p in zip(corpus.snippets(b), planned[b], strict=True)}
        for source in job.sources:
            expected = ids[source.snippet.id]
            assert (source.partner.id if source.partner else None) == (expected.snippet_id if expected else None)


def test_what_an_item_cost_is_all_its_calls_accepted_or_not(wwii_snippets: list[Snippet], warm_gates: Gates) -> None:
    # given a teacher that answers every second item with too long a text, and one that is not counted
    types = select(["qpt/formal"])
    sources = tuple(Source(one) for one in wwii_snippets[:400:100])

    def script(requests: Sequence[TeacherRequest]) -> list[ChatReply]:
        cost = Usage(prompt_tokens=100, completion_tokens=20, seconds=2.0)
        answers = [said(one, GOOD, "stop" if n % 2 == 0 else "length") for n, one in enumerate(requests)]
        return [answer.model_copy(update={"usage": cost}) for answer in answers for _ in range(2)]  # each one twice

    teacher = ScriptedTeacher(script)
    warm_up = Job(types[0], 0, (Source(wwii_snippets[50]),))
    pilot = _run(teacher, [Job(types[0], 0, sources)], warm_gates, warm_up=warm_up)
    # then a second reply to one request costs nothing more, and a rejected item as much as an accepted one
    seen = pilot.seen["qpt/formal"]
    assert len(seen) == len(sources) and [len(call) for call in teacher.asked] == [1, len(sources)]
    assert {(one.calls, one.prompt_tokens, one.completion_tokens, one.seconds) for one in seen} == {(1, 100, 20, 2.0)}
    assert Counter(one.accepted for one in seen) == {True: 1, False: len(sources) - 1}  # the third is a duplicate
    assert [one.reasons for one in seen] == [(), ("finish/length",), ("duplicate/exact",)]
    assert all(bool(one.shard_bytes) == one.accepted != bool(one.reject_bytes) for one in seen)
    assert pilot.in_flight == pytest.approx(2.0 * len(sources) / pilot.wall)


def test_all_types_stand_in_line_alike(wwii_workspace: Path) -> None:
    population = Population(Corpus(Workspace(wwii_workspace).store))
    types = select(["wh/who", "wh/when", "contrastive/person"])
    jobs = jobs_of(types, population, POLICY, count=23, seed=5)
    mixed = in_turns(jobs, 5)

    def items(some: Sequence[Job]) -> Counter[tuple[str, str]]:
        return Counter((job.prompt_type.id, source.snippet.id) for job in some for source in job.sources)

    # the same items, a few at once, with what their articles say beside them
    assert items(mixed) == items(jobs) and max(len(job.sources) for job in mixed) == TURN
    assert all({s.snippet.article_id for s in job.sources} <= {s.article_id for s in job.around} for job in mixed)
    # each round has one job of each type, and no type is always the first
    ids = [job.prompt_type.id for job in mixed]
    rounds = [ids[start : start + 3] for start in range(0, len(ids), 3)]
    assert all(sorted(one) == sorted(type_.id for type_ in types) for one in rounds)
    assert len({one[0] for one in rounds}) > 1
    # another seed, another order; of one type there is nobody to wait for
    assert ids != [job.prompt_type.id for job in in_turns(jobs, 6)] and in_turns(jobs, 5) == mixed
    assert in_turns(jobs[:1]) == jobs[:1]


class _Crowd(ScriptedTeacher):
    """Counts who is in it at once, and waits until it has been left alone for a moment."""

    most = now = 0
    closed = False

    async def complete(self, requests: Sequence[TeacherRequest]) -> AsyncIterator[ChatReply]:
        self.now += len(requests)
        self.most = max(self.most, self.now)
        for _ in range(5):
            await asyncio.sleep(0)
        async for reply in super().complete(requests):
            yield reply
        self.now -= len(requests)

    async def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize(("at_once", "most"), [(1, 2), (5, 4), (100, 20)])
def test_jobs_run_side_by_side_as_far_as_they_may(
    wwii_snippets: list[Snippet], warm_gates: Gates, at_once: int, most: int
) -> None:
    (one,) = select(["qpt/formal"])
    jobs = [
        Job(one, number, (Source(wwii_snippets[number]), Source(wwii_snippets[-number - 1]))) for number in range(10)
    ]
    teacher = _Crowd(lambda requests: [said(request, GOOD) for request in requests])
    pilot = _run(teacher, jobs, warm_gates, at_once=at_once)
    assert teacher.most == most
    assert teacher.closed
    assert len(pilot.all) == 20


def test_a_teacher_that_fails_is_one_clear_failure_and_is_closed(
    wwii_snippets: list[Snippet], warm_gates: Gates
) -> None:
    (one,) = select(["qpt/formal"])
    jobs = [Job(one, number, (Source(wwii_snippets[number]),)) for number in range(4)]
    teacher = _Crowd(lambda requests: [said(request, "", "error", "HTTP 500") for request in requests])
    with pytest.raises(Failure, match="HTTP 500"):
        _run(teacher, jobs, warm_gates)
    assert teacher.closed
