"""The Teacher protocol: requests in, replies as they come.

Guarantees: exactly one reply per request, in any order; a teacher that cannot do one request says so in its reply
(`declined` or `error`), it never raises for one bad request. It raises `Failure` when it cannot be reached at all.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from foundation.prompt_type import ASK, PromptType
from foundation.records import ChatReply, ChatRequest
from generator.render import Source


@dataclass(frozen=True, slots=True)
class TeacherRequest:
    """One call for one item. An LLM reads `chat` alone; `rules` reads the rest.

    `values` are the fields of earlier phases, and `each`, the entry of a list that this call is about.
    """

    chat: ChatRequest
    prompt_type: PromptType
    source: Source
    round: int
    phase: str = ASK
    values: Mapping[str, Any] = field(default_factory=dict)


class Teacher(Protocol):
    """This is the whole surface."""

    name: str
    """Provenance: `backend:model@revision`."""

    def complete(self, requests: Sequence[TeacherRequest]) -> AsyncIterator[ChatReply]:
        """Replies as they come, one per request."""
        ...

    async def close(self) -> None:
        """Let go of connections. A managed server is ended by whoever started it."""
        ...
