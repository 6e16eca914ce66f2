"""A look at a prompt type: what the teacher is asked, what it answers, what that costs, and what becomes of it. Writes nothing.

Guarantees: the same rendering, teacher, gates and pipeline as `factory work`; every call has its answer beside it, as the
teacher gave it. Cost: that of n items a type.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from foundation.corpus import Corpus
from foundation.errors import UsageError
from foundation.prompt_type import ASK, PromptType
from foundation.records import ChatReply, ChatRequest, Snippet, SplitPolicy, Unit, Usage, item_id
from generator.gates import Gates
from generator.partners import choose, with_partner
from generator.pipeline import Outcome, produce
from generator.render import Source
from generator.teachers.base import Teacher, TeacherRequest


@dataclass(frozen=True, slots=True)
class Asked:
    """One call: the request as it was sent, and what came back; None if nothing did."""

    request: ChatRequest
    reply: ChatReply | None

    def document(self) -> dict[str, Any]:
        """As JSON, but for the messages."""
        reply = self.reply
        usage = reply.usage if reply else Usage()
        return {
            "call": self.request.id.partition(":")[2] or ASK,
            "finish": reply.finish if reply else None,
            "detail": reply.detail if reply else "no reply came",
            "text": reply.text if reply else "",
            **usage.model_dump(),
        }


@dataclass(frozen=True, slots=True)
class Look:
    """One item: its snippet, its calls to the teacher (none if it was not asked about), and its outcome."""

    prompt_type: str
    snippet: Snippet
    calls: tuple[Asked, ...]
    outcome: Outcome

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "prompt_type": self.prompt_type,
            "snippet": self.snippet.model_dump(),
            "prompts": [[message.model_dump() for message in one.request.messages] for one in self.calls],
            "calls": [one.document() for one in self.calls],
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


def spent(looks: Sequence[Look]) -> dict[str, Any]:
    """What some items cost, and came to."""
    usages = [call.reply.usage for one in looks for call in one.calls if call.reply]
    return {
        "items": len(looks),
        "accepted": sum(bool(one.outcome.records) for one in looks),
        "records": sum(len(one.outcome.records) for one in looks),
        "calls": sum(len(one.calls) for one in looks),
        "prompt_tokens": sum(usage.prompt_tokens for usage in usages),
        "completion_tokens": sum(usage.completion_tokens for usage in usages),
        "seconds": round(sum(usage.seconds for usage in usages), 3),
    }


class _Noting:
    """A teacher whose requests and first replies are kept, by item."""

    def __init__(self, teacher: Teacher) -> None:
        self.teacher, self.name = teacher, teacher.name
        self.requests: dict[str, list[ChatRequest]] = {}
        self.replies: dict[str, ChatReply] = {}

    async def complete(self, requests: Sequence[TeacherRequest]) -> AsyncIterator[ChatReply]:
        for request in requests:
            self.requests.setdefault(request.chat.id.partition(":")[0], []).append(request.chat)
        async for reply in self.teacher.complete(requests):
            self.replies.setdefault(reply.id, reply)
            yield reply

    def calls(self, item: str) -> tuple[Asked, ...]:
        return tuple(Asked(one, self.replies.get(one.id)) for one in self.requests.get(item, ()))

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
                looks.append(Look(prompt_type.id, snippet, noting.calls(item), outcomes[item]))
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
