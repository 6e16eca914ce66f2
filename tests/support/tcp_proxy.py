"""A TCP proxy on loopback that a test can tell to reset, to swallow and to refuse: a network that fails, for real.

Bytes pass unchanged while it forwards. `reset` ends every connection with RST (SO_LINGER 0). `swallow` keeps them open
and passes nothing on, for ever: after `forward` only new ones work, as behind a router that forgot its table.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Literal

Mode = Literal["forward", "swallow", "refuse"]


class TcpProxy:
    """Between clients of `port` and the server at 127.0.0.1:`target`."""

    def __init__(self, target: int) -> None:
        self.target, self.port, self.mode, self.accepted = target, 0, "forward", 0
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._mute: set[asyncio.StreamWriter] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    def forward(self) -> None:
        """Let new connections through; one that was swallowed stays mute."""
        self._call(self._listen)
        self.mode = "forward"

    def swallow(self) -> None:
        """From now on nothing passes in either direction, and nobody is told."""
        self.mode = "swallow"
        self._mute |= self._writers

    def refuse(self) -> None:
        """Reset every connection and accept no new one."""
        self.mode = "refuse"
        self._call(self._close)
        self.reset()

    def reset(self) -> None:
        """End every connection with RST; new ones are treated as before."""
        self._call(self._reset)

    def _call(self, what: Callable[[], Awaitable[None]]) -> None:
        asyncio.run_coroutine_threadsafe(what(), self._loop).result(10)  # type: ignore[arg-type]

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, reuse_address=True)
            self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        if self._server:
            self._server.close()
            self._server = None

    async def _reset(self) -> None:
        for writer in list(self._writers):
            _rst(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        pair = {writer}
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
            pair.add(back)
            self._writers |= pair
            if self.mode == "swallow":
                self._mute |= pair
            await asyncio.gather(self._pump(reader, back), self._pump(there, writer))
        except OSError:
            pass
        finally:
            self._writers -= pair
            self._mute -= pair
            for one in pair:
                with contextlib.suppress(OSError):
                    one.close()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            if sink not in self._mute:
                sink.write(data)
                await sink.drain()
        if sink not in self._mute:
            sink.close()


def _rst(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@contextmanager
def tcp_proxy(target: int) -> Iterator[TcpProxy]:
    """Serve in a thread until the context ends."""
    proxy = TcpProxy(target)
    thread = threading.Thread(target=proxy._loop.run_forever, daemon=True)
    thread.start()
    proxy.forward()
    try:
        yield proxy
    finally:
        with contextlib.suppress(Exception):
            proxy.refuse()
        proxy._loop.call_soon_threadsafe(proxy._loop.stop)
        thread.join(10)
