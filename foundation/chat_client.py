"""Client of an OpenAI-compatible `/chat/completions`: many requests in flight, replies as they come.

Guarantees: one reply per request; 429, 5xx, resets and time-outs are retried with jitter, then reported in the reply
(`error`), so one bad request never fails the rest. A prompt that the server says is too long for its model is `declined`: it
would be again. A server that is away (it cannot be connected to, it resets or says 503 to the last, and answers nobody else
meanwhile) raises `Unavailable` instead: its requests are as good as they were. The key never appears in an error. Cost: one
aiohttp session per call of `complete`; no state is tied to an event loop; some 4 s until a server counts as away. aiohttp
is imported with this module (0.4 s), so that a worker's forks find it loaded.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from foundation.errors import Failure, Unavailable
from foundation.records import ChatReply, ChatRequest, Usage

RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
AWAY = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, ConnectionError)  # no connection, or one that broke
SLOW = aiohttp.SocketTimeoutError  # of AWAY's family, but the connection stands
# How servers say that a prompt, with what may be written after it, does not fit the model. They agree on no code.
TOO_LONG = re.compile(
    r"context[ _](?:length|size|window)|maximum (?:model|input) length|max_model_len|(?:prompt|input) is too long"
    r"|must have less than \d+ tokens|max_new_tokens` must be",
    re.IGNORECASE,
)
REFUSED_LENGTH = frozenset({400, 413, 422})


@dataclass
class _Served:
    """When the server last answered any request of one call, as `time.monotonic`."""

    last: float = 0.0


@dataclass(frozen=True)
class ChatClient:
    """`base_url` ends in /v1. `extra` is merged into every request body; `table` of the settings is what errors name."""

    base_url: str
    model: str
    api_key: str = ""
    concurrency: int = 64
    timeout: float = 120.0
    attempts: int = 4
    extra: tuple[tuple[str, Any], ...] = ()
    table: str = "teacher"

    async def complete(self, requests: Sequence[ChatRequest]) -> AsyncIterator[ChatReply]:
        """Replies in the order they arrive, exactly one per request."""
        waiting, served = iter(requests), _Served()
        results: asyncio.Queue[ChatReply | BaseException] = asyncio.Queue()
        limits = aiohttp.ClientTimeout(total=self.timeout, sock_connect=10)
        connector = aiohttp.TCPConnector(limit=self.concurrency)
        async with aiohttp.ClientSession(headers=self._headers(), timeout=limits, connector=connector) as session:

            async def pull() -> None:
                try:
                    for request in waiting:  # one iterator shared by all: each takes the next that nobody took
                        results.put_nowait(await self._one(session, request, served))
                except BaseException as error:
                    results.put_nowait(error)
                    raise

            tasks = [asyncio.create_task(pull()) for _ in range(min(self.concurrency, len(requests)))]
            try:
                for _ in range(len(requests)):
                    result = await results.get()
                    if isinstance(result, BaseException):
                        raise result
                    yield result
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def status(self, seconds: float) -> int:
        """The HTTP status of the server's answer to a question for its models: any answer means that it is there.

        Raises `Unavailable` if none came in `seconds`.
        """
        timeout = aiohttp.ClientTimeout(total=seconds)
        try:
            async with (
                aiohttp.ClientSession(headers=self._headers(), timeout=timeout) as session,
                session.get(f"{self.base_url}/models") as response,
            ):
                return response.status
        except (aiohttp.ClientError, OSError) as error:
            raise self._unavailable(str(error) or f"no answer in {seconds:g} s") from error

    async def _one(self, session: aiohttp.ClientSession, request: ChatRequest, served: _Served) -> ChatReply:
        detail, gone = "", 0.0  # since when it is away, as far as this request can tell
        for attempt in range(self.attempts):
            if attempt:
                await asyncio.sleep(min(8.0, 0.25 * 2**attempt) * (0.5 + random.random()))
            began = time.perf_counter()
            try:
                async with session.post(f"{self.base_url}/chat/completions", json=self._body(request)) as response:
                    if response.status == 200:
                        reply = _parse(request.id, await response.json(), time.perf_counter() - began)
                        served.last = time.monotonic()
                        return reply
                    said = await response.text()
                    detail, away = f"HTTP {response.status}: {said[:300]}", response.status == 503
                    if response.status in (401, 403, 404):
                        raise self._refused(response.status, detail)
                    if response.status not in RETRIED:
                        served.last = time.monotonic()
                        too_long = response.status in REFUSED_LENGTH and TOO_LONG.search(said)
                        return ChatReply(
                            id=request.id, text="", finish="declined" if too_long else "error", detail=detail
                        )
            except (aiohttp.ClientError, OSError, ValueError, KeyError, TypeError, IndexError) as error:
                detail = f"{type(error).__name__}: {error}"[:300]
                away = isinstance(error, AWAY) and not isinstance(error, SLOW)
            gone = (gone or time.monotonic()) if away else 0.0
        if gone and served.last <= gone:
            raise self._unavailable(detail)
        return ChatReply(id=request.id, text="", finish="error", detail=detail)

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}

    def _body(self, request: ChatRequest) -> dict[str, Any]:
        sampling = request.sampling
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": message.role, "content": message.content} for message in request.messages],
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            "seed": request.seed,
            **dict(self.extra),
        }
        if request.schema_ is not None:
            schema = {"name": "output", "schema": request.schema_, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return body

    def _unavailable(self, detail: str) -> Unavailable:
        return Unavailable(
            f"the server cannot be reached: {detail}",
            where=self.base_url,
            mend=f"start it, or mend {self.table}.base_url in factory.toml",
        )

    def _refused(self, status: int, detail: str) -> Failure:
        mend = (
            f"mend api_key (FACTORY_{self.table.upper()}__API_KEY)"
            if status in (401, 403)
            else "mend model or base_url in factory.toml"
        )
        return Failure(
            f"the server refuses the request: {detail}", where=f"{self.base_url}, model {self.model}", mend=mend
        )


def _writable(text: Any) -> Any:
    """Half a surrogate pair, as JSON may bring where an answer was cut, as U+FFFD: no file could be written with it."""
    if not isinstance(text, str):
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _parse(request_id: str, body: dict[str, Any], seconds: float) -> ChatReply:
    choice = body["choices"][0]
    usage = body.get("usage") or {}
    return ChatReply(
        id=request_id,
        text=_writable(choice["message"].get("content") or ""),
        finish="stop" if choice.get("finish_reason") == "stop" else "length",
        usage=Usage(
            prompt_tokens=usage.get("prompt_tokens") or 0,
            completion_tokens=usage.get("completion_tokens") or 0,
            seconds=round(seconds, 4),
        ),
        detail=str(choice.get("finish_reason") or ""),
    )
