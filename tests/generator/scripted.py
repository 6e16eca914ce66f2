"""A teacher that replies by script: the test says which reply each request gets, in which order, and how often."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from foundation.prompt_type import PromptType
from foundation.records import ChatReply, Record, Reject, Snippet, SplitPolicy, Unit, Usage
from generator.gates import Gates
from generator.pipeline import Outcome, produce
from generator.render import Source
from generator.teachers.base import Teacher, TeacherRequest

Script = Callable[[Sequence[TeacherRequest]], Sequence[ChatReply]]
POLICY = SplitPolicy(key="tests", unseen=0.05, phrasing=0.02)


class ScriptedTeacher:
    """Hands out what `script` makes of the requests; raises what it raises. `asked` are the requests, a list a call."""

    name = "scripted:1"

    def __init__(self, script: Script) -> None:
        self.script = script
        self.asked: list[list[TeacherRequest]] = []

    async def complete(self, requests: Sequence[TeacherRequest]) -> AsyncIterator[ChatReply]:
        self.asked.append(list(requests))
        for reply in self.script(requests):
            yield reply

    async def close(self) -> None:
        pass


def said(request: TeacherRequest, fields: Any, finish: Any = "stop", detail: str = "", tokens: int = 7) -> ChatReply:
    """The reply to one request; `fields` is text, or becomes JSON."""
    text = fields if isinstance(fields, str) else json.dumps(fields)
    return ChatReply(id=request.chat.id, text=text, finish=finish, detail=detail, usage=Usage(prompt_tokens=tokens))


def everyone(fields: Any) -> Script:
    """The same fields for every request, or what `fields` makes of each."""
    return lambda requests: [said(one, fields(one) if callable(fields) else fields) for one in requests]


def unit_of(prompt_type: PromptType, count: int, round_: int = 0) -> Unit:
    fingerprint = prompt_type.fingerprint
    id_ = Unit.make_id("000001", 0, count, fingerprint, round_)
    return Unit(
        id=id_, block="000001", start=0, stop=count, prompt_type=prompt_type.id, fingerprint=fingerprint, round=round_
    )


def run(
    teacher: Script | Teacher,
    prompt_type: PromptType,
    sources: Sequence[Snippet | Source],
    gates: Gates,
    attempt: str = "a1",
    policy: SplitPolicy = POLICY,
    around: Sequence[Snippet] = (),
) -> list[Outcome]:
    """What the real pipeline makes of one unit."""
    asked: Teacher = ScriptedTeacher(teacher) if callable(teacher) else teacher

    async def collect() -> list[Outcome]:
        stream = produce(
            asked,
            prompt_type,
            [one if isinstance(one, Source) else Source(one) for one in sources],
            unit=unit_of(prompt_type, len(sources)),
            policy=policy,
            attempt=attempt,
            gates=gates,
            around=around,
        )
        return [outcome async for outcome in stream]

    return asyncio.run(collect())


def records_of(outcomes: Sequence[Outcome]) -> list[Record]:
    return [record for outcome in outcomes for record in outcome.records]


def rejects_of(outcomes: Sequence[Outcome]) -> list[Reject]:
    return [reject for outcome in outcomes for reject in outcome.rejects]
