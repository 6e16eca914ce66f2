"""The Teacher protocol: requests in, replies as they come.

Guarantees: exactly one reply per request, in any order; a teacher that cannot do one request says so in its reply
(`declined` or `error`), it never raises for one bad request. It raises `Failure` when it cannot be reached at all.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from foundation.prompt_type import PromptType
from foundation.records import ChatReply, ChatRequest, Snippet


@dataclass(frozen=True, slots=True)
class TeacherRequest:
    """One item's question to the teacher. An LLM reads `chat` alone; `rules` reads the snippet and the prompt type."""

    chat: ChatRequest
    prompt_type: PromptType
    snippet: Snippet
    round: int


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
