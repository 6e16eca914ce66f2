"""What the acted-out fleet of `fleet_sim.py` works on: a small corpus and its plan, and a teacher that answers at once.

Guarantees: the teacher is a stand-in, and its name says so; what it writes passes the real gates, but for one reply in twenty.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
from collections.abc import AsyncIterator, Sequence
from typing import Literal

from foundation.corpus import Corpus
from foundation.prompt_type import ASK
from foundation.records import ChatReply, Snippet
from foundation.store_memory import MemoryStore
from foundation.tables import SplitSettings
from generator.catalogue import select
from generator.teachers.base import TeacherRequest
from queue_workers import plan as plans
from queue_workers.runner import Recall

Fate = Literal["", "notice", "given back", "before", "during", "after", "between", "unacked", "silent"]
SIZES = {"wh/who": 1, "wh/when": 2, "truth/false-with-correction": 3, "contrastive/number": 4}  # items in a unit
BLOCKS, SNIPPETS = 8, 64
SPOILT = 0.05  # of the replies


class Killed(BaseException):
    """The end of a worker: nothing after this point is run, and nothing catches it."""


TEXTS = {  # by prompt type, the fields in any order; no two items of a unit have the same {n}
    "wh/who": '{"question": "Who led the ships that left with {n} sailors?", "answer": "Admiral Harald Brecht led them."}',
    "wh/when": '{"question": "When did the ships leave Tarvik with {n} sailors?", "answer": "They left in {year}."}',
    "truth/false-with-correction": '{"statement": "The ships left Osmark with {n} sailors.", "correction": "They left Tarvik."}',
    "contrastive/number": '{"stem": "How many sailors left Tarvik in {year}", "option_1": "{n} sailors", "option_2": "{n}5 sailors", '
    '"right": "1", "answer": "{n} sailors left Tarvik."}',
}


class InstantTeacher:
    """Stands in for a language model: a fitting text for every item, at once. No model. `calls` counts items, not phases."""

    name = "instant-stand-in"

    def __init__(self, seed: int) -> None:
        self.random, self.calls, self.fate, self.recall = random.Random(seed), 0, "", Recall()

    async def complete(self, requests: Sequence[TeacherRequest]) -> AsyncIterator[ChatReply]:
        if self.fate == "before":
            raise Killed
        answered = self.random.randrange(len(requests)) if self.fate in ("during", "given back") else len(requests)
        for request in requests[:answered]:
            self.calls += request.phase == request.prompt_type.chain[0].name
            spoilt = self.random.random() < SPOILT
            text = "no JSON at all" if spoilt else _fitting(request)
            yield ChatReply(id=request.chat.id, text=text, finish="stop")
        if self.fate == "given back":
            self.recall()
            await asyncio.sleep(60)  # far less: it is cancelled at once
        if answered < len(requests) or self.fate == "after":
            raise Killed

    async def close(self) -> None:
        """Nothing to let go of."""


def _fitting(request: TeacherRequest) -> str:
    """What a language model would say of this item."""
    index = request.source.snippet.index
    if request.phase != ASK:
        return json.dumps({request.prompt_type.each: [f"{index + 40} sailors"]})
    return TEXTS[request.prompt_type.id].replace("{n}", str(index + 40)).replace("{year}", f"19{index:02d}")


def make_store(units: int) -> MemoryStore:
    """A small corpus, and a plan of at least `units` units of one to four items over it, in as many rounds as that takes."""
    store, types = MemoryStore(), select(list(SIZES))
    for number in range(BLOCKS):
        store.put(*Corpus(store).block_file(number + 1, [_snippet(number, index) for index in range(SNIPPETS)]))
    blocks = Corpus(store).blocks()
    a_round = sum(-(-SNIPPETS // size) for size in SIZES.values()) * BLOCKS
    lines = tuple(
        line.model_copy(update={"unit": SIZES[line.prompt_type]})
        for round_ in range(math.ceil(units / a_round))
        for line in plans.draft(plans.Plan(), types, blocks, round_=round_, priority="normal").lines
    )
    plans.add(store, plans.Plan(lines), types, SplitSettings())
    return store


def _snippet(block: int, index: int) -> Snippet:
    sentence = f"In 19{index:02d} the {block + 2} ships of Admiral Harald Brecht left Tarvik with {index + 40} sailors."
    title = f"The Osmark campaign {block}"
    return Snippet(
        id=Snippet.make_id(sentence),
        article_id=f"{block}-{index // 8}",
        title=title,
        source="made-up",
        index=index,
        sentences=(sentence,),
        text=sentence,
    )
