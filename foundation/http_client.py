"""HTTP/1.1 to one server, as little of it as a chat client needs: POST and GET over connections that are kept.

Guarantees: one answer a question, however it is framed (a length, chunks, the end of the connection); a question whose time is
over, or that is cancelled, leaves no connection behind; a kept connection that the server closed meanwhile is replaced and
the question asked again, once, unseen. No proxies, redirects, cookies or compression: none is asked for. TLS checks the
server against the system's certificates. Raises `NoConnection`, `Broken`, `TimeoutError` or, where it is not HTTP, `ValueError`.
Cost: 25 us a question of 2 KB on loopback (aiohttp: 150, both with uvloop), 120 us a connection. llhttp does the parsing.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import ssl
from collections.abc import Mapping
from typing import NamedTuple, Self, cast
from urllib.parse import unquote, urlsplit

import httptools

CONNECT = 10.0  # seconds for a connection
LARGEST = 64 << 20  # bytes of one answer: a server gone mad must not fill the memory
ENDS = (b"content-length", b"transfer-encoding")


class NoConnection(ConnectionError):
    """The server cannot be connected to."""


class Broken(ConnectionError):
    """The connection ended before the answer did. `unheard`: before its first byte."""

    unheard = False


class Answer(NamedTuple):
    """`retry_after` is that header as it was sent."""

    status: int
    body: bytes
    retry_after: str


class Pool:
    """The connections to `url` of one event loop, for as long as the context is entered; `timeout` is for one question."""

    def __init__(self, url: str, headers: Mapping[str, str], timeout: float) -> None:
        parts = urlsplit(url)
        self.host, self.secure = parts.hostname or "", parts.scheme == "https"
        self.port = parts.port or (443 if self.secure else 80)
        self.path, self.timeout = parts.path.rstrip("/"), timeout
        said = {"Host": parts.netloc.rpartition("@")[2], "Accept": "application/json", **headers}
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            said.setdefault("Authorization", f"Basic {base64.b64encode(pair.encode()).decode()}")
        # No white space but single blanks: a key that was read with its line end must not end the headers.
        self._headers = "".join(f"{name}: {' '.join(value.split())}\r\n" for name, value in said.items()).encode()
        self._heads: dict[str, bytes] = {}
        self.idle: list[_Connection] = []
        self.busy: set[_Connection] = set()

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(min(1.0, self.timeout / 8), self._sweep)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._timer.cancel()
        for connection in (*self.idle, *self.busy):
            connection.transport.abort()
        await asyncio.sleep(0)  # so that the sockets are closed when this returns

    async def ask(self, path: str, body: bytes | None = None) -> Answer:
        """POST `body` to `path`, or GET it."""
        head = self._heads.get(path)
        if head is None:
            verb, kind = ("GET", "") if body is None else ("POST", "Content-Type: application/json\r\n")
            head = f"{verb} {self.path}{path} HTTP/1.1\r\n{kind}".encode() + self._headers
            self._heads[path] = head
        question = head + b"\r\n" if body is None else b"%sContent-Length: %d\r\n\r\n%s" % (head, len(body), body)
        while self.idle:
            connection = self.idle.pop()
            if not connection.transport.is_closing():
                try:
                    return await connection.ask(question)
                except Broken as error:
                    if not error.unheard:
                        raise
                break  # its server had closed it already: another kept one may be in the same case
        return await (await self._connect()).ask(question)

    async def _connect(self) -> _Connection:
        try:
            async with asyncio.timeout(min(CONNECT, self.timeout)):
                _, connection = await self._loop.create_connection(
                    lambda: _Connection(self), self.host, self.port, ssl=_context() if self.secure else None
                )
        except TimeoutError as error:
            raise NoConnection(
                f"no connection to {self.host}:{self.port} in {min(CONNECT, self.timeout):g} s"
            ) from error
        except (OSError, ValueError) as error:  # no such host, refused, a certificate; a name that can be none
            raise NoConnection(f"cannot connect to {self.host}:{self.port}: {error}") from error
        return connection

    def _sweep(self) -> None:
        """End what takes too long. One look at all of them is cheaper than a timer for each."""
        now = self._loop.time()
        for connection in list(self.busy):
            if now >= connection.until:
                connection.fail(TimeoutError(f"no answer in {self.timeout:g} s"))
        self._timer = self._loop.call_later(min(1.0, self.timeout / 8), self._sweep)


class _Connection(asyncio.Protocol):
    """One connection, with one question at a time."""

    transport: asyncio.Transport

    def __init__(self, pool: Pool) -> None:
        self.pool, self.parser = pool, httptools.HttpResponseParser(self)
        self.until = 0.0
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[Answer] | None = None
        self._clear()

    def _clear(self) -> None:
        self._parts: list[bytes] = []
        self._size, self._retry_after = 0, ""
        self._heard = self._framed = self._headed = False

    async def ask(self, question: bytes) -> Answer:
        pool = self.pool
        waiter: asyncio.Future[Answer] = self._loop.create_future()
        self._waiter = waiter
        self.until = self._loop.time() + pool.timeout
        pool.busy.add(self)
        try:
            self.transport.write(question)
            return await waiter
        finally:
            if self._waiter is waiter:  # cancelled: the connection would bring this answer to the next question
                self._take()
                self.transport.abort()

    def fail(self, error: Exception) -> None:
        waiter = self._take()
        if waiter is not None:
            waiter.set_exception(error)
        self.transport.abort()

    def _take(self) -> asyncio.Future[Answer] | None:
        """Who waits for an answer, if anybody does; nobody then."""
        waiter, self._waiter = self._waiter, None
        self.pool.busy.discard(self)
        return None if waiter is None or waiter.done() else waiter

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by name

    def data_received(self, data: bytes) -> None:
        self._heard = True
        self._size += len(data)
        if self._size > LARGEST:
            self.fail(ValueError(f"the answer is longer than {LARGEST >> 20} MB"))
            return
        try:
            self.parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self.fail(ValueError(f"the answer is not HTTP/1.1: {error}"))

    def connection_lost(self, error: Exception | None) -> None:
        if self._headed and not self._framed and error is None:
            self.on_message_complete()  # its end was the end of the connection
        lost = Broken(f"the connection was lost: {error or 'closed by the server'}")
        lost.unheard = not self._heard
        self.fail(lost)

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(name) in (11, 14, 17):
            name = name.lower()
            if name == b"retry-after":
                self._retry_after = value.decode("latin-1")
            elif name in ENDS:
                self._framed = True

    def on_headers_complete(self) -> None:
        self._headed = True

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)

    def on_message_complete(self) -> None:
        status = self.parser.get_status_code()
        answer = Answer(status, b"".join(self._parts), self._retry_after)
        self._clear()
        if status < 200:  # 100 Continue and its kind: the answer comes yet
            return
        waiter = self._take()
        if waiter is None or not self.parser.should_keep_alive():
            self.transport.close()
        else:
            self.pool.idle.append(self)
        if waiter is not None:
            waiter.set_result(answer)


@functools.cache
def _context() -> ssl.SSLContext:
    """Reading the system's certificates takes 20 ms: once a process, and its forks."""
    return ssl.create_default_context()
