"""RulesTeacher: makes grounded questions for the prompt types it knows, and declines the rest by name.

Guarantees: deterministic: the same unit and round give the same replies; a later round asks of other facts in other words.
Its replies are JSON and pass through the same gates as a language model's. It is never taken for one: its name says so.
Knows: simple English sentences in the past tense, best about events; nothing beyond the snippets of the unit.
Cost: about 0.5 ms of one core an item, most of it reading the snippet; the last few sets of snippets stay read.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from random import Random

import orjson

from foundation.records import ChatReply, Usage
from generator.teachers.base import TeacherRequest
from generator.teachers.rules import (
    choice,
    cloze,
    contrastive,
    cross,
    dialogue,
    passages,
    rewrite,
    structure,
    truth,
    wh,
)
from generator.teachers.rules.statements import Fields
from generator.teachers.rules.task import Declined, Library, Task

MAKERS: dict[str, Callable[[Task], Fields]] = {
    id_: maker
    for family in (choice, cloze, contrastive, cross, dialogue, passages, rewrite, structure, truth, wh)
    for id_, maker in family.MAKERS.items()
}
"""By prompt type: what makes the reply. A type that is not here needs a language model."""

LIBRARIES = 8  # snippet sets kept read: one for each prompt type of a block comes soon after another


class RulesTeacher:
    """The `Teacher` protocol, embedded."""

    name = "rules:2"

    def __init__(self) -> None:
        self._libraries: dict[tuple[str, frozenset[str]], Library] = {}

    async def complete(self, requests: Sequence[TeacherRequest]) -> AsyncIterator[ChatReply]:
        """One reply per request, in order. A snippet that lacks what its type needs is declined, with the reason."""
        library = self._library(requests)
        for request in requests:
            yield self._reply(request, library)
            await asyncio.sleep(0)  # one item is short; a cancellation need not wait for the unit

    def _library(self, requests: Sequence[TeacherRequest]) -> Library:
        """The unit's own snippets and partners, read. A later phase asks about fewer of them, and must find what the first
        one found; never another unit's, or a reply would depend on what was asked before."""
        snippets = {request.source.snippet.id: request.source.snippet for request in requests}
        partners = (request.source.partner for request in requests)
        snippets |= {partner.id: partner for partner in partners if partner}
        chain = requests[0].prompt_type.fingerprint if requests[0].prompt_type.phases else ""
        wanted = frozenset(snippets)
        key = (chain, wanted)
        if chain:
            key = next((one for one in reversed(self._libraries) if one[0] == chain and wanted <= one[1]), key)
        library = self._libraries.pop(key, None) or Library(list(snippets.values()))
        self._libraries[key] = library  # last used, last in order
        if len(self._libraries) > LIBRARIES:
            del self._libraries[next(iter(self._libraries))]
        return library

    async def close(self) -> None:
        """Nothing to let go of."""

    def _reply(self, request: TeacherRequest, library: Library) -> ChatReply:
        started = time.perf_counter()
        maker = MAKERS.get(request.prompt_type.id)
        if maker is None:
            detail = f"rules cannot make {request.prompt_type.id}; a language model is needed"
            return ChatReply(id=request.chat.id, text="", finish="declined", detail=detail)
        source = request.source
        task = Task(
            library,
            library.readings[source.snippet.id],
            request.prompt_type.id,
            request.round,
            Random(request.chat.seed),
            request.phase,
            request.values,
            library.readings[source.partner.id] if source.partner else None,
            source.entity,
        )
        try:
            fields = maker(task)
        except Declined as declined:
            return ChatReply(id=request.chat.id, text="", finish="declined", detail=str(declined))
        usage = Usage(seconds=time.perf_counter() - started)
        return ChatReply(id=request.chat.id, text=orjson.dumps(fields).decode(), finish="stop", usage=usage)
