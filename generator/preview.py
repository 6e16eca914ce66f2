"""A look at a prompt type: what the teacher is asked, what it answers, and what becomes of it. Writes nothing.

Guarantees: the same rendering, teacher, gates and pipeline as `factory work`. Cost: that of n items a type.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from foundation.corpus import Corpus
from foundation.errors import UsageError
from foundation.prompt_type import PromptType
from foundation.records import ChatReply, ChatRequest, Snippet, SplitPolicy, Unit, item_id
from generator.gates import Gates
from generator.partners import choose, with_partner
from generator.pipeline import Outcome, produce
from generator.render import Source
from generator.teachers.base import Teacher, TeacherRequest


@dataclass(frozen=True, slots=True)
class Look:
    """One item: its snippet, the requests as they were sent (one a call; none if it was not asked about), and its outcome."""

    prompt_type: str
    snippet: Snippet
    requests: tuple[ChatRequest, ...]
    outcome: Outcome

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "prompt_type": self.prompt_type,
            "snippet": self.snippet.model_dump(),
            "prompts": [[message.model_dump() for message in one.messages] for one in self.requests],
            "records": [record.model_dump() for record in self.outcome.records],
            "rejects": [reject.model_dump() for reject in self.outcome.rejects],
        }


Place = tuple[str, int]  # a block, and a position in it


def sample(corpus: Corpus, count: int) -> dict[Place, Snippet]:
    """`count` snippets, spread evenly over the corpus; all of them if there are fewer.

    Raises `UsageError` if the corpus is empty.
    """
    blocks = corpus.blocks()
    total = sum(corpus.count(block) for block in blocks)
    if not total:
        raise UsageError(
            "the corpus is empty",
            where=str(getattr(corpus.store, "root", "")),
            mend="put text in it with `factory ingest PATH`",
        )
    count = min(count, total)
    wanted = [(number * total) // count for number in range(count)]
    chosen: dict[Place, Snippet] = {}
    start = 0
    for block in blocks:
        stop = start + corpus.count(block)
        inside = [index - start for index in wanted if start <= index < stop]
        if inside:
            snippets = corpus.snippets(block)
            chosen |= {(block, index): snippets[index] for index in inside}
        start = stop
    return chosen


class _Noting:
    """A teacher whose requests are kept, by item."""

    def __init__(self, teacher: Teacher) -> None:
        self.teacher, self.name = teacher, teacher.name
        self.requests: dict[str, list[ChatRequest]] = {}

    async def complete(self, requests: Sequence[TeacherRequest]) -> AsyncIterator[ChatReply]:
        for request in requests:
            self.requests.setdefault(request.chat.id.partition(":")[0], []).append(request.chat)
        async for reply in self.teacher.complete(requests):
            yield reply

    async def close(self) -> None:
        await self.teacher.close()


async def look(
    teacher: Teacher,
    prompt_types: Sequence[PromptType],
    places: Mapping[Place, Snippet],
    corpus: Corpus,
    policy: SplitPolicy,
    round_: int = 0,
) -> list[Look]:
    """Every snippet through every prompt type, in order. The teacher is closed at the end."""
    gates = Gates()
    looks: list[Look] = []
    around = [snippet for block in {block for block, _ in places} for snippet in corpus.snippets(block)]
    try:
        for prompt_type in prompt_types:
            noting = _Noting(teacher)
            unit = Unit(
                id="preview",
                block="preview",
                start=0,
                stop=len(places),
                prompt_type=prompt_type.id,
                fingerprint=prompt_type.fingerprint,
                round=round_,
            )
            sources = _sources(prompt_type, places, corpus, policy, round_)
            outcomes = {
                outcome.item: outcome
                async for outcome in produce(
                    noting,
                    prompt_type,
                    sources,
                    unit=unit,
                    policy=policy,
                    attempt="preview",
                    gates=gates,
                    around=around,
                )
            }
            for snippet in places.values():
                item = item_id(snippet.id, unit.fingerprint, round_)
                looks.append(Look(prompt_type.id, snippet, tuple(noting.requests.get(item, ())), outcomes[item]))
    finally:
        await teacher.close()
    return looks


def _sources(
    prompt_type: PromptType, places: Mapping[Place, Snippet], corpus: Corpus, policy: SplitPolicy, round_: int
) -> list[Source]:
    """Each snippet with the partner that a plan would choose for it."""
    if not prompt_type.partner:
        return [Source(snippet) for snippet in places.values()]
    chosen = choose(prompt_type.partner, sorted({block for block, _ in places}), corpus, policy, round_)
    return [with_partner(snippet, chosen[block][index], corpus) for (block, index), snippet in places.items()]
