"""Client of an OpenAI-compatible `/chat/completions`: many requests in flight, replies as they come.

Guarantees: one reply per request; as many in flight as the server sustains (`foundation.throttle`), `concurrency` at most;
5xx, resets and time-outs are retried with full jitter, then reported in the reply (`error`), so one bad request never fails
the rest; 429 is nobody's fault, and is tried again for as long as one request may take. Retry-After is kept, up to a minute. A
prompt that the server says is too long for its model is `declined`: it would be again. A server that is away (it cannot be
connected to, it resets or says 429 or 503 to the last, and answers nobody else meanwhile) raises `Unavailable` instead: its
requests are as good as they were. A server whose first replies are not the JSON that was asked for is told of, once. The
key never appears in an error. Cost: 45-75 us of CPU a request of 3 KB (a bare aiohttp loop: 120-190, see
`benchmarks/client.py`), one set of connections per call of `complete` (120 us each); no state is tied to an event loop; some
4 s until a server counts as away.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import json
import random
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from foundation.console import say
from foundation.errors import Failure, Unavailable
from foundation.http_client import Answer, Broken, Pool
from foundation.records import ChatReply, ChatRequest, Sampling, Usage
from foundation.throttle import Throttle

RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
OVERLOAD = frozenset({429, 503, 504})
LONGEST_PAUSE = {429: 30.0}  # seconds between two tries, at most; of any other fault 8
# How servers say that a prompt, with what may be written after it, does not fit the model. They agree on no code.
TOO_LONG = re.compile(
    r"context[ _](?:length|size|window)|maximum (?:model|input) length|max_model_len|(?:prompt|input) is too long"
    r"|must have less than \d+ tokens|max_new_tokens` must be",
    re.IGNORECASE,
)
REFUSED_LENGTH = frozenset({400, 413, 422})


@dataclass(frozen=True)
class ChatClient:
    """`base_url` ends in /v1. `extra` is merged into every request body; `table` of the settings is what errors name. With
    `thoughts`, what a server parts from the text as reasoning stands before it again, in <think> tags.

    What `throttle` learns is shared with every fork made after this was.
    """

    base_url: str
    model: str
    api_key: str = ""
    concurrency: int = 64
    timeout: float = 120.0
    attempts: int = 4
    extra: tuple[tuple[str, Any], ...] = ()
    table: str = "teacher"
    thoughts: bool = False
    throttle: Throttle = field(default=None, compare=False, repr=False)  # type: ignore[assignment]  # or one is made

    def __post_init__(self) -> None:
        if self.throttle is None or self.throttle.most != self.concurrency:
            object.__setattr__(self, "throttle", Throttle(self.concurrency))

    async def complete(
        self, requests: Sequence[ChatRequest], again: Callable[[ChatReply], ChatRequest | None] | None = None
    ) -> AsyncIterator[ChatReply]:
        """Replies in the order they arrive, exactly one per request, each taken from `requests` when it is sent.

        `again` says what to ask instead of a reply, at once and in its place: a reply for which it has nothing counts.
        """
        if not requests:
            return
        async with self._pool(self.timeout) as pool:
            call = _Call(self, pool, iter(requests), again)
            tasks = [asyncio.create_task(call.pull()) for _ in range(min(self.concurrency, len(requests)))]
            try:
                for _ in range(len(requests)):
                    yield await call.next()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                self.throttle.merge()

    async def status(self, seconds: float) -> int:
        """The HTTP status of the server's answer to a question for its models: any answer means that it is there.

        Raises `Unavailable` if none came in `seconds`.
        """
        return (await self.models(seconds))[0]

    async def models(self, seconds: float) -> tuple[int, list[str]]:
        """The same, and the models that the server names; none if it tells nothing of the kind."""
        try:
            async with self._pool(seconds) as pool:
                answer = await pool.ask("/models")
        except (OSError, ValueError) as error:
            raise self.unavailable(str(error) or f"no answer in {seconds:g} s") from error
        with contextlib.suppress(ValueError, LookupError, TypeError):
            found = orjson.loads(answer.body)
            listed = found["data"] if isinstance(found, dict) else found
            return answer.status, [one["id"] for one in listed if isinstance(one["id"], str)]
        return answer.status, []

    def _pool(self, seconds: float) -> Pool:
        headers = {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        return Pool(self.base_url, headers, seconds)

    def fixed(self, sampling: Sampling, schema: dict[str, Any] | None) -> dict[str, Any]:
        """What the bodies of all requests with these have in common; the schema, its longest part, as bytes already."""
        body: dict[str, Any] = {
            "model": self.model,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            **dict(self.extra),
        }
        if schema is not None:
            output = {"type": "json_schema", "json_schema": {"name": "output", "schema": schema, "strict": True}}
            body["response_format"] = orjson.Fragment(orjson.dumps(output))
        return body

    @property
    def address(self) -> str:
        """`base_url` without the name and password that may stand in it."""
        before, _, rest = self.base_url.partition("://")
        host, slash, path = rest.partition("/")
        return f"{before}://{host.rpartition('@')[2]}{slash}{path}"

    def unavailable(self, detail: str) -> Unavailable:
        if detail.startswith("HTTP "):
            return Unavailable(
                f"the server turns requests away: {detail}",
                where=self.address,
                mend="wait, or see its quota, its rate limit and its load",
            )
        return Unavailable(
            f"the server cannot be reached: {detail}",
            where=self.address,
            mend=f"start it, or mend {self.table}.base_url in factory.toml",
        )

    def refused(self, status: int, detail: str) -> Failure:
        mend = (
            f"mend api_key (FACTORY_{self.table.upper()}__API_KEY)"
            if status in (401, 403)
            else "mend model or base_url in factory.toml"
        )
        return Failure(
            f"the server refuses the request: {detail}", where=f"{self.address}, model {self.model}", mend=mend
        )


@dataclass
class _Call:
    """One call of `complete`: what its tasks share."""

    client: ChatClient
    pool: Pool
    waiting: Iterator[ChatRequest]
    again: Callable[[ChatReply], ChatRequest | None] | None = None
    served: float = 0.0
    """When the server last answered any request, as `time.monotonic`."""
    _results: deque[ChatReply | BaseException] = field(default_factory=deque)
    _news: asyncio.Future[None] | None = None
    _flying: int = 0
    _gate: deque[asyncio.Future[None]] = field(default_factory=deque)
    _sampling: Sampling | None = None
    _schema: dict[str, Any] | None = None
    _fixed: dict[str, Any] = field(default_factory=dict)

    async def next(self) -> ChatReply:
        """The next reply. Raises what a task raised."""
        while not self._results:
            self._news = asyncio.get_running_loop().create_future()
            await self._news
        result = self._results.popleft()
        if isinstance(result, BaseException):
            raise result
        return result

    async def pull(self) -> None:
        """Be one of those that take the next request that nobody took."""
        try:
            for request in self.waiting:
                reply = await self._one(request)
                while self.again and (instead := self.again(reply)):
                    reply = await self._one(instead)
                self._put(reply)
        except BaseException as error:
            self._put(error)
            raise

    def _put(self, result: ChatReply | BaseException) -> None:
        self._results.append(result)
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    async def _one(self, request: ChatRequest) -> ChatReply:
        client, throttle, body = self.client, self.client.throttle, self._body(request)
        detail, tries, faults = "", 0, 0
        gone = turned_away = 0.0  # since when it is away, and says 429, as far as this one can tell
        while True:
            if tries:
                # Full jitter: those that were refused together must not come back together.
                longest = LONGEST_PAUSE[429] if turned_away else 8.0
                await asyncio.sleep(random.uniform(0, min(longest, 0.5 * 2 ** min(tries, 10))))
            changes, full = await self._enter()
            began, status = time.perf_counter(), 0
            try:
                answer = await self.pool.ask("/chat/completions", body)
                seconds, status = time.perf_counter() - began, answer.status
                if status == 200:
                    reply, cached = _parse(request.id, answer.body, seconds, client.thoughts)
                    self._heard(request, reply, cached, changes, full)
                    return reply
                said = answer.body.decode("utf-8", "replace")
                detail = f"HTTP {status}: {said[:300]}"
                if status in (401, 403, 404):
                    raise client.refused(status, detail)
                if status not in RETRIED:
                    self.served = time.monotonic()
                    too_long = status in REFUSED_LENGTH and TOO_LONG.search(said)
                    return ChatReply(id=request.id, text="", finish="declined" if too_long else "error", detail=detail)
                away = status in (429, 503)
                if status in OVERLOAD:
                    throttle.refused(changes, _seconds(answer))
            except (OSError, ValueError) as error:
                detail, away = f"{type(error).__name__}: {error}"[:300], isinstance(error, ConnectionError)
                if isinstance(error, (TimeoutError, Broken)):
                    throttle.refused(changes)
            finally:
                self._leave()
            now, tries, faults = time.monotonic(), tries + 1, faults + (status != 429)
            gone = (gone or now) if away else 0.0
            turned_away = (turned_away or now) if status == 429 else 0.0
            over = now - turned_away > client.timeout if turned_away else faults >= client.attempts
            # A server that asks for longer pauses than one request may take is away, not slow.
            if over or (gone and now + throttle.wait - gone > client.timeout):
                break
        if gone and max(self.served, throttle.served) <= gone:
            raise client.unavailable(detail)
        return ChatReply(id=request.id, text="", finish="error", detail=detail)

    async def _enter(self) -> tuple[float, bool]:
        """Wait until one more may be in flight: under which limit, and whether that is reached."""
        throttle = self.client.throttle
        while True:
            if wait := throttle.wait:
                await asyncio.sleep(wait * random.uniform(1.0, 1.1))
            limit = throttle.limit
            if self._flying < limit:
                break
            turn = asyncio.get_running_loop().create_future()
            self._gate.append(turn)
            await turn
        self._flying += 1
        return throttle.changes, self._flying == limit

    def _leave(self) -> None:
        self._flying -= 1
        free = self.client.throttle.limit - self._flying
        while free > 0 and self._gate:
            turn = self._gate.popleft()
            if not turn.done():
                turn.set_result(None)
                free -= 1

    def _body(self, request: ChatRequest) -> bytes:
        if request.sampling is not self._sampling or request.schema_ != self._schema:
            self._sampling, self._schema = request.sampling, request.schema_
            self._fixed = self.client.fixed(request.sampling, request.schema_)
        messages = [{"role": message.role, "content": message.content} for message in request.messages]
        try:
            return orjson.dumps({"messages": messages, "seed": request.seed, **self._fixed})
        except orjson.JSONEncodeError:  # half a surrogate pair
            messages = [{"role": message.role, "content": _writable(message.content)} for message in request.messages]
            return orjson.dumps({"messages": messages, "seed": request.seed, **self._fixed})

    def _heard(self, request: ChatRequest, reply: ChatReply, cached: int | None, changes: float, full: bool) -> None:
        """A reply is a sign of life, a measure for the limit, and, if it is one of the first, of the server's obedience."""
        self.served = time.monotonic()
        throttle, usage = self.client.throttle, reply.usage
        if cached is not None:
            throttle.cached(usage.prompt_tokens, cached)
        throttle.heard(changes, usage.seconds, usage.completion_tokens, full=full)
        first = request.schema_ is not None and reply.finish == "stop" and throttle.checking
        if first and throttle.obeys(_obeys(reply.text, request.schema_)):
            say(
                f"warning: {self.client.address} does not obey response_format: its first replies are not the JSON that "
                f"was asked for, but {reply.text[:60]!a}; what is not is rejected and counted\n"
                "  mend:  take a server with structured output (vLLM, SGLang and llama.cpp have it); a model that thinks "
                "aloud must not, or its server must part the thoughts from the answer; `factory doctor` asks again"
            )


def _obeys(text: str, schema: dict[str, Any] | None) -> bool:
    """Whether it is an object with the fields asked for. The gates look closer."""
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(text, strict=False)  # a grammar lets raw control characters into strings; a gate does not
        return isinstance(found, dict) and set((schema or {}).get("required", ())) <= found.keys()
    return False


def _seconds(answer: Answer) -> float:
    """What Retry-After asks for, in seconds or as a date; 0 if nothing that can be read."""
    said = answer.retry_after.strip()
    if not said:
        return 0.0
    with contextlib.suppress(ValueError):
        seconds = float(said)
        return seconds if 0 < seconds < float("inf") else 0.0
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        return max(0.0, email.utils.parsedate_to_datetime(said).timestamp() - time.time())
    return 0.0


def _writable(text: Any) -> Any:
    """Half a surrogate pair, as JSON may bring where an answer was cut, as U+FFFD: no file could be written with it."""
    if not isinstance(text, str) or text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _tokens(usage: Any, name: str) -> int | None:
    """A count that the server gave; None if it gave none, or nonsense: an answer is not thrown away for that."""
    found = usage.get(name) if isinstance(usage, dict) else None
    return found if type(found) is int and 0 <= found < 1 << 40 else None


def _parse(request_id: str, body: bytes, seconds: float, thoughts: bool = False) -> tuple[ChatReply, int | None]:
    """The reply, and the prompt tokens that were cached, if the server tells. Raises `ValueError` if it is none."""
    try:
        try:
            found = orjson.loads(body)
        except orjson.JSONDecodeError:
            found = json.loads(body)  # takes half a surrogate pair, and NaN
        choice, usage = found["choices"][0], found.get("usage") or {}
        finish, message = choice.get("finish_reason"), choice["message"]
        text = message.get("content") or message.get("refusal") or ""
        # vLLM calls it reasoning, and did call it reasoning_content, as others do
        thought = message.get("reasoning") or message.get("reasoning_content") if thoughts else None
        if thought:
            text = f"<think>{thought}</think>{text}"
        reply = ChatReply(
            id=request_id,
            text=_writable(text),
            finish="stop" if finish == "stop" else "length",
            usage=Usage(
                prompt_tokens=_tokens(usage, "prompt_tokens") or 0,
                completion_tokens=_tokens(usage, "completion_tokens") or 0,
                seconds=round(seconds, 4),
            ),
            detail=str(finish or ""),
        )
        cached = _tokens(usage.get("prompt_tokens_details"), "cached_tokens") if isinstance(usage, dict) else None
        return reply, None if cached is None else min(cached, reply.usage.prompt_tokens)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        what = "no JSON" if isinstance(error, json.JSONDecodeError) else "no chat completion"
        raise ValueError(f"the answer is {what}: {body[:200].decode('utf-8', 'replace')}") from error
