"""The small HTTP client against servers that frame, close and break in every way HTTP/1.1 knows: bytes on real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import uvloop

from foundation import http_client
from foundation.http_client import Answer, Broken, NoConnection, Pool

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


async def read_question(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next((int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if b"content-length" in line), 0)
    return head, await reader.readexactly(length)


@contextlib.asynccontextmanager
async def serving(serve: Serve, **more: object) -> AsyncIterator[int]:
    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await serve(reader, writer)
        writer.close()

    server = await asyncio.start_server(one, "127.0.0.1", 0, **more)  # type: ignore[arg-type]
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def saying(*pieces: bytes, close: bool = False) -> Serve:
    """The same answer to every question, piece by piece."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_question(reader)
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.001)
            if close:
                return

    return serve


def ask(serve: Serve, times: int = 2, timeout: float = 5.0, loop: str = "asyncio") -> list[Answer]:
    """The answers to some questions, one after another."""

    async def main() -> list[Answer]:
        async with serving(serve) as port, Pool(f"http://127.0.0.1:{port}/v1", {}, timeout) as pool:
            return [await pool.ask("/x", b"{}") for _ in range(times)]

    return (uvloop.run if loop == "uvloop" else asyncio.run)(main())


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize(
    ("pieces", "close"),
    [
        ((OK,), False),
        ((OK[:20], OK[20:-1], OK[-1:]), False),
        ((CHUNKED, b"1\r\nh\r\n", b"1;a=b\r\ni\r\n0\r\nTrailer: x\r\n\r\n"), False),
        ((b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", b"h", b"i"), True),
        ((b"HTTP/1.0 200 OK\r\n\r\n", b"hi"), True),
        ((b"HTTP/1.1 100 Continue\r\n\r\n", OK), False),
        ((OK.replace(b"200 OK", b"200"),), False),
    ],
    ids=["length", "in pieces", "chunks", "until it closes", "HTTP/1.0", "100 Continue first", "no phrase"],
)
def test_an_answer_is_whole_however_it_is_framed(pieces: tuple[bytes, ...], close: bool, loop: str) -> None:
    assert [(one.status, one.body) for one in ask(saying(*pieces, close=close), 3, loop=loop)] == [(200, b"hi")] * 3


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_what_is_cut_is_broken_and_never_an_answer(loop: str) -> None:
    for pieces in ((OK[:-1],), (CHUNKED, b"1\r\nh\r\n"), (OK[:25],), ()):
        with pytest.raises(Broken):
            ask(saying(*pieces, close=True), loop=loop)


def test_what_is_not_http_says_so() -> None:
    with pytest.raises(ValueError, match=r"not HTTP/1\.1"):
        ask(saying(b"SSH-2.0-OpenSSH_9.9\r\n"))


def test_an_answer_without_end_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "LARGEST", 1000)
    with pytest.raises(ValueError, match="longer than"):
        ask(saying(CHUNKED, *[b"ff\r\n" + b"x" * 255 + b"\r\n"] * 5))


def test_silence_ends_in_time_and_its_late_answer_reaches_nobody() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            _, body = await read_question(reader)
            await asyncio.sleep(0.6 if body == b"slow" else 0)
            writer.write(OK.replace(b"hi", body[:2]))

    async def main() -> None:
        async with serving(serve) as port, Pool(f"http://127.0.0.1:{port}", {}, 0.3) as pool:
            assert (await pool.ask("/", b"aa")).body == b"aa"
            with pytest.raises(TimeoutError, match=r"no answer in 0\.3 s"):
                await pool.ask("/", b"slow")
            task = asyncio.create_task(pool.ask("/", b"slow"))
            await asyncio.sleep(0.05)
            task.cancel()
            assert [(await pool.ask("/", b"bb")).body for _ in range(3)] == [b"bb"] * 3
            await asyncio.sleep(0.7)
            assert (await pool.ask("/", b"cc")).body == b"cc"
            assert not pool.busy and len(pool.idle) == 1

    asyncio.run(main())


def test_many_at_once_each_get_their_own_answer_and_connections_are_kept() -> None:
    opened = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened.append(1)
        while True:
            _, body = await read_question(reader)
            await asyncio.sleep(0.001)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    async def main() -> None:
        async with serving(serve) as port, Pool(f"http://127.0.0.1:{port}", {}, 5) as pool:

            async def some(who: int) -> None:
                for n in range(30):
                    assert (await pool.ask("/", f"{who} {n}".encode())).body == f"{who} {n}".encode()

            await asyncio.gather(*map(some, range(20)))

    uvloop.run(main())
    assert len(opened) == 20


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_kept_connection_that_was_closed_is_replaced_unseen(loop: str) -> None:
    """As when a server restarts, or lets go of what is idle: also in the moment in which it is asked."""
    opened = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened.append(1)
        await read_question(reader)
        writer.write(OK)
        await reader.readexactly(1)  # the next question is begun: it goes away

    assert [one.body for one in ask(serve, 4, loop=loop)] == [b"hi"] * 4
    assert len(opened) == 4


def test_nobody_there_and_no_such_host() -> None:
    async def main(url: str) -> None:
        async with Pool(url, {}, 5) as pool:
            await pool.ask("/")

    for url in ("http://127.0.0.1:9", "http://no-such-host.invalid", f"http://{'a' * 80}.invalid"):
        with pytest.raises(NoConnection, match="cannot connect to"):
            asyncio.run(main(url))


def test_the_question_as_it_goes_out() -> None:
    heads = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            heads.append(b"".join(await read_question(reader)).decode())
            writer.write(b"HTTP/1.1 429 Slow\r\nretry-after: 7\r\nContent-Length: 0\r\n\r\n")

    async def main() -> None:
        async with serving(serve) as port:
            url = f"http://me:p%40ss@127.0.0.1:{port}/v1/"
            async with Pool(url, {"X-Key": "secret\r\nEvil: 1\n"}, 5) as pool:
                assert await pool.ask("/models") == (429, b"", "7")
                assert await pool.ask("/chat", b"{}") == (429, b"", "7")

    asyncio.run(main())
    get, post = heads
    assert get.startswith("GET /v1/models HTTP/1.1\r\n")
    assert post.startswith("POST /v1/chat HTTP/1.1\r\nContent-Type: application/json\r\n")
    assert post.endswith("\r\nContent-Length: 2\r\n\r\n{}")
    for head in heads:
        assert "\r\nHost: 127.0.0.1:" in head and "\r\nX-Key: secret Evil: 1\r\n" in head
        assert "\r\nAuthorization: Basic bWU6cEBzcw==\r\n" in head, "me:p@ss"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate with")
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_tls_is_spoken_and_the_server_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loop: str) -> None:
    pem = tmp_path / "server.pem"
    name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *name]
    subprocess.run([*command, "-keyout", str(pem), "-out", str(tmp_path / "cert.pem")], check=True, capture_output=True)
    pem.write_text(pem.read_text() + (tmp_path / "cert.pem").read_text())
    theirs, ours = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    theirs.load_cert_chain(pem)

    async def main() -> bytes:
        async with (
            serving(saying(OK), ssl=theirs) as port,
            Pool(f"https://localhost:{port}", {}, 5) as pool,
        ):
            await pool.ask("/")
            return (await pool.ask("/")).body

    run = uvloop.run if loop == "uvloop" else asyncio.run
    monkeypatch.setattr(http_client, "_context", lambda: ours)
    with pytest.raises(NoConnection, match="certificate"):
        run(main())
    ours.load_verify_locations(tmp_path / "cert.pem")
    assert run(main()) == b"hi"
