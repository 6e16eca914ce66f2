"""Teacher over any OpenAI-compatible server; the managed vLLM one is reached the same way.

Guarantees: those of `foundation.chat_client`. Cost: network only; nothing here is tied to one event loop, so one
object serves any number of units, forked workers included, and what its client learns of the server all of them know.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from foundation.chat_client import ChatClient
from foundation.records import ChatReply
from generator.teachers.base import TeacherRequest


class OpenAITeacher:
    """Asks the server for each request's `chat`; `name` is what records keep as provenance."""

    def __init__(self, client: ChatClient, name: str) -> None:
        self.client, self.name = client, name

    def complete(self, requests: Sequence[TeacherRequest]) -> AsyncIterator[ChatReply]:
        """The client's own generator: to close it is to let go of its connections."""
        return self.client.complete([request.chat for request in requests])

    async def close(self) -> None:
        """Nothing is held between calls."""
