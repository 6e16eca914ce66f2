"""A teacher that replies by script: the test says which reply each request gets, in which order, and how often."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from foundation.records import ChatReply, Usage
from generator.teachers.base import TeacherRequest

Script = Callable[[Sequence[TeacherRequest]], Sequence[ChatReply]]


class ScriptedTeacher:
    """Hands out what `script` makes of the requests; raises what it raises."""

    name = "scripted:1"

    def __init__(self, script: Script) -> None:
        self.script = script

    async def complete(self, requests: Sequence[TeacherRequest]) -> AsyncIterator[ChatReply]:
        for reply in self.script(requests):
            yield reply

    async def close(self) -> None:
        pass


def said(request: TeacherRequest, fields: Any, finish: Any = "stop", detail: str = "") -> ChatReply:
    """The reply to one request; `fields` is text, or becomes JSON."""
    text = fields if isinstance(fields, str) else json.dumps(fields)
    return ChatReply(id=request.chat.id, text=text, finish=finish, detail=detail, usage=Usage(prompt_tokens=7))
