"""A look at a prompt type: what the teacher is asked, what it answers, and what becomes of it. Writes nothing.

Guarantees: the same rendering, teacher, gates and pipeline as `factory work`. Cost: that of n items a type.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from foundation.corpus import Corpus
from foundation.errors import UsageError
from foundation.ids import seed_of
from foundation.prompt_type import PromptType
from foundation.records import ChatRequest, Snippet, SplitPolicy, Unit, item_id
from generator.gates import Gates
from generator.pipeline import Outcome, produce
from generator.render import chat_request
from generator.teachers.base import Teacher


@dataclass(frozen=True, slots=True)
class Look:
    """One item: its snippet, the request as it was sent, and its outcome."""

    prompt_type: str
    snippet: Snippet
    request: ChatRequest
    outcome: Outcome

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "prompt_type": self.prompt_type,
            "snippet": self.snippet.model_dump(),
            "prompt": [message.model_dump() for message in self.request.messages],
            "records": [record.model_dump() for record in self.outcome.records],
            "rejects": [reject.model_dump() for reject in self.outcome.rejects],
        }


def sample(corpus: Corpus, count: int) -> list[Snippet]:
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
    chosen: list[Snippet] = []
    start = 0
    for block in blocks:
        stop = start + corpus.count(block)
        inside = [index - start for index in wanted if start <= index < stop]
        if inside:
            snippets = corpus.snippets(block)
            chosen += [snippets[index] for index in inside]
        start = stop
    return chosen


async def look(
    teacher: Teacher,
    prompt_types: Sequence[PromptType],
    snippets: Sequence[Snippet],
    policy: SplitPolicy,
    round_: int = 0,
) -> list[Look]:
    """Every snippet through every prompt type, in order. The teacher is closed at the end."""
    gates = Gates()
    looks: list[Look] = []
    try:
        for prompt_type in prompt_types:
            unit = Unit(
                id="preview",
                block="preview",
                start=0,
                stop=len(snippets),
                prompt_type=prompt_type.id,
                fingerprint=prompt_type.fingerprint,
                round=round_,
            )
            outcomes = {
                outcome.item: outcome
                async for outcome in produce(
                    teacher, prompt_type, snippets, unit=unit, policy=policy, attempt="preview", gates=gates
                )
            }
            for snippet in snippets:
                item = item_id(snippet.id, unit.fingerprint, round_)
                request = chat_request(prompt_type, snippet, item, seed_of(item))
                looks.append(Look(prompt_type.id, snippet, request, outcomes[item]))
    finally:
        await teacher.close()
    return looks
