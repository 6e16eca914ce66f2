"""The health of a vLLM server that runs: what it says of itself, and whether it still gets anything done.

Guarantees: a server is hung when, for the seconds asked for, it does not answer at all, or no token was read or written
while requests are in flight. One that says it is idle may not know better (its engine tells it of no request any more), so
an idle one is asked for one token whenever none came for as long; twice without an answer, it is hung too. A single slow
answer proves nothing. Cost: one request for its metrics (5 ms) a look.
"""

from __future__ import annotations

import json
import re
import time
import urllib.error
import urllib.request
from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import Literal

PATIENCE = 2.0  # seconds for one answer
PROBES = 2


@dataclass(frozen=True)
class Look:
    """A server at one moment. `running` and `waiting` are requests; `queries` and `hits` tokens looked up, and found, in the
    prefix cache; `tokens` those it generated; all three since it started. `detail` says why it is not well."""

    state: Literal["well", "dead", "hung"]
    detail: str = ""
    running: int = 0
    waiting: int = 0
    queries: int = 0
    hits: int = 0
    tokens: int = 0
    limit: int = 0
    """Requests a worker may have in flight now, as the client adapted it; 0: not known."""


def read_metrics(text: str) -> dict[str, float]:
    """Prometheus text as sums over all labels, by name; vLLM's own, without `vllm:` before them."""
    sums: dict[str, float] = defaultdict(float)
    for name, value in re.findall(r"^vllm:(\w+)(?:\{.*\})? (\S+)$", text, re.MULTILINE):
        sums[name] += float(value)
    return sums


@dataclass
class Health:
    """Looks at one server, and remembers when it last answered and last did something. `url` without /v1."""

    url: str
    model: str
    api_key: str = field(repr=False)
    _last: Look = field(default_factory=lambda: Look("well"))
    _done: float = 0.0  # tokens read and written, as last seen
    _moved: float = field(default_factory=time.monotonic)
    _answered: float = field(default_factory=time.monotonic)
    _failed_probes: int = 0

    def look(self, hung_after: float) -> Look:
        try:
            found = read_metrics(self._ask("/metrics"))
        except (OSError, ValueError) as error:  # URLError and time-outs are OSErrors
            silent = time.monotonic() - self._answered
            state: Literal["well", "hung"] = "hung" if silent > hung_after else "well"
            return replace(self._last, state=state, detail=f"no answer for {silent:.0f} s: {error}")
        self._answered = time.monotonic()
        self._last = Look(
            "well",
            running=int(found["num_requests_running"]),
            waiting=int(found["num_requests_waiting"]),
            queries=int(found["prefix_cache_queries_total"]),
            hits=int(found["prefix_cache_hits_total"]),
            tokens=int(found["generation_tokens_total"]),
        )
        done = found["prompt_tokens_total"] + found["generation_tokens_total"]
        if done != self._done:
            self._done, self._moved, self._failed_probes = done, self._answered, 0
        return self._judge(hung_after)

    def _judge(self, hung_after: float) -> Look:
        still = time.monotonic() - self._moved
        if still <= hung_after:
            return self._last
        flying = self._last.running + self._last.waiting
        if flying:
            return replace(self._last, state="hung", detail=f"no token for {still:.0f} s, {flying} requests in flight")
        if self._writes():
            self._moved, self._failed_probes = time.monotonic(), 0
            return self._last
        self._failed_probes += 1
        if self._failed_probes < PROBES:
            return self._last
        return replace(self._last, state="hung", detail=f"no token for {still:.0f} s, nor when it was asked for one")

    def _writes(self) -> bool:
        """Whether it writes one token when asked."""
        try:
            self._ask("/v1/completions", {"model": self.model, "prompt": "a", "max_tokens": 1})
        except urllib.error.HTTPError as error:
            return error.code < 500  # it refuses the question: then this tells nothing against it
        except OSError:
            return False
        return True

    def _ask(self, path: str, body: dict[str, object] | None = None) -> str:
        headers = {"Authorization": f"Bearer {self.api_key}", "Content-Type": "application/json"}
        data = json.dumps(body).encode() if body else None
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # loopback never goes through a proxy
        request = urllib.request.Request(f"{self.url}{path}", data, headers)
        with opener.open(request, timeout=PATIENCE) as answer:
            return str(answer.read().decode("utf-8", "replace"))
