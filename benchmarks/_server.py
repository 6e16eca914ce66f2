"""An OpenAI-compatible server that answers at once, or after so many milliseconds: what a teacher would cost, left out.

Guarantees: a process of its own; each reply is JSON of the fields that the request's schema asks for, made of the prompt's
subject and passage so that it passes every gate, with `usage`; it counts the requests, and notes when the first and the last came.
`/stats` tells, `/set?delay_ms=200` begins a new count. Knows the fields `question` and `answer` alone.
Cost: about 0.06 ms of one core a request: HTTP/1.1 is read by hand, no framework. Trusts its client; not for anything else.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import subprocess
import sys
import time
import urllib.request
from typing import Any

import orjson
import uvloop

_SUBJECT = re.compile(r"^Subject: (.*)$", re.MULTILINE)
_PASSAGE = re.compile(r"<passage>\n(.*?)(?:\n</passage>|$)", re.DOTALL)
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")


def answer(body: bytes) -> bytes:
    """The reply to one chat request: a question that names the subject and holds words of the passage, and maybe an answer."""
    request = orjson.loads(body)
    prompt = request["messages"][-1]["content"]
    subject, passage = _SUBJECT.search(prompt), _PASSAGE.search(prompt)
    title, text = subject[1] if subject else "it", passage[1] if passage else prompt
    fact = text.partition(". ")[0].rstrip(".")[:300]
    fields = {"question": f"What is known of {title}, and who was there when {fact[:150].rstrip()}?"}
    if b'"answer"' in body:
        fields["answer"] = f"{fact}."
    if b'"wh' in body or "answer" in fields:
        fields["question"] = f"Who is told of in the history of {title} from the day when {fact[:80].rstrip()}?"
    content = orjson.dumps(fields).decode()
    return orjson.dumps(
        {
            "id": "chatcmpl-0",
            "object": "chat.completion",
            "model": request["model"],
            "choices": [{"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": len(prompt) // 4, "completion_tokens": len(content) // 4, "total_tokens": 0},
        }
    )


class _Counts:
    """What was asked since the last `/set`."""

    def __init__(self, delay: float = 0.0) -> None:
        self.delay, self.requests, self.first, self.last = delay, 0, 0.0, 0.0
        self.now = self.most = 0
        self.cpu = _cpu()

    def document(self) -> dict[str, Any]:
        told = {"requests": self.requests, "first": self.first, "last": self.last, "most_in_flight": self.most}
        return told | {"cpu_seconds": round(_cpu() - self.cpu, 3)}


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class _Connection(asyncio.Protocol):
    counts = _Counts()

    def connection_made(self, transport: Any) -> None:
        self.transport, self.waiting = transport, b""

    def data_received(self, data: bytes) -> None:
        self.waiting += data
        while (head := self.waiting.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(self.waiting, 0, head + 2)
            end = head + 4 + (int(length[1]) if length else 0)
            if len(self.waiting) < end:
                return
            line, body = self.waiting[: self.waiting.index(b"\r\n")], self.waiting[head + 4 : end]
            self.waiting = self.waiting[end:]
            self._handle(line, body)

    def _handle(self, line: bytes, body: bytes) -> None:
        if not line.startswith(b"POST"):
            self._write(orjson.dumps(_look(line.split()[1].decode())))
            return
        counts = _Connection.counts
        counts.requests += 1
        counts.last = time.monotonic()
        counts.first = counts.first or counts.last
        counts.now += 1
        counts.most = max(counts.most, counts.now)
        if counts.delay:
            asyncio.get_running_loop().call_later(counts.delay, self._reply, answer(body))
        else:
            self._reply(answer(body))

    def _reply(self, content: bytes) -> None:
        _Connection.counts.now -= 1
        self._write(content)

    def _write(self, content: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
                % (len(content), content)
            )


def _look(path: str) -> dict[str, Any]:
    if path.startswith("/set"):
        _Connection.counts = _Counts(float(path.partition("delay_ms=")[2] or 0) / 1000)
    return _Connection.counts.document() if path.startswith("/s") else {"object": "list", "data": [{"id": "instant"}]}


class Server:
    """The server as a process, for a `with`; `url` ends in /v1."""

    def __enter__(self) -> Server:
        self.process = subprocess.Popen([sys.executable, __file__], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.root = f"http://127.0.0.1:{int(self.process.stdout.readline())}"
        self.url = f"{self.root}/v1"
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def set(self, delay_ms: float = 0) -> None:
        """Begin to count anew, and answer after so many milliseconds."""
        self._get(f"/set?delay_ms={delay_ms}")

    def stats(self) -> dict[str, Any]:
        return self._get("/stats")

    def _get(self, path: str) -> dict[str, Any]:
        with urllib.request.urlopen(self.root + path) as response:
            found: dict[str, Any] = json.load(response)
            return found


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(_Connection, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    parent = os.getppid()
    while os.getppid() == parent:  # it ends with whoever started it
        await asyncio.sleep(1)


if __name__ == "__main__":
    uvloop.run(_serve())
