"""A server that misbehaves on purpose, over real HTTP on loopback.

It stands in for an OpenAI-compatible server only where a real one cannot be made to fail in a given way: refuse, stall,
reset, answer nonsense. What it answers otherwise is an echo, and is never taken for a teacher's work.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from aiohttp import web

Behaviour = Callable[["FaultServer", dict[str, Any]], Any]


@dataclass
class FaultServer:
    """`behaviour(server, body)` returns (status, JSON document), maybe with headers as a third, or "reset", or seconds to
    stall before an echo; or it is a coroutine function that does."""

    behaviour: Behaviour
    calls: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    models: tuple[str, ...] = ()
    """What it says that it has; nothing if none."""
    waiting: int = 0
    peak: int = 0
    """Requests that are in hand, and were at most at once."""
    connections: set[object] = field(default_factory=set)
    port: int = 0
    refuse: Callable[[], None] = lambda: None
    """Close the port, as if the server had died; connections that are open stay so."""
    accept: Callable[[], None] = lambda: None
    """Open the same port again."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"


def reply(text: str, finish: str = "stop") -> tuple[int, dict[str, Any]]:
    """A well-formed answer with that text."""
    usage = {"prompt_tokens": 10, "completion_tokens": 5}
    return 200, {"choices": [{"message": {"content": text}, "finish_reason": finish}], "usage": usage}


@contextmanager
def fault_server(behaviour: Behaviour, *models: str) -> Iterator[FaultServer]:
    """Serve until the context ends. `models` are what it names."""
    server = FaultServer(behaviour, models=models)
    loop = asyncio.new_event_loop()
    ready = threading.Event()

    async def chat(request: web.Request) -> web.StreamResponse:
        server.waiting += 1
        server.peak = max(server.peak, server.waiting)
        server.connections.add(request.transport)
        try:
            return await answer(request)
        finally:
            server.waiting -= 1

    async def answer(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        server.calls.append(body)
        server.keys.append(request.headers.get("Authorization", ""))
        outcome = behaviour(server, body)
        if inspect.isawaitable(outcome):
            outcome = await outcome
        if outcome == "reset":
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if isinstance(outcome, (int, float)):
            await asyncio.sleep(outcome)
            outcome = reply("late")
        status, document, *headers = outcome
        text = document if isinstance(document, str) else json.dumps(document)
        return web.Response(
            status=status, text=text, content_type="application/json", headers=headers[0] if headers else None
        )

    async def models_of(_: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": name} for name in server.models]})

    async def start() -> web.AppRunner:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", chat)
        app.router.add_get("/v1/models", models_of)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await listen(runner)
        server.refuse, server.accept = partial(from_outside, close, runner), partial(from_outside, listen, runner)
        ready.set()
        return runner

    async def listen(runner: web.AppRunner) -> None:
        await web.TCPSite(runner, "127.0.0.1", server.port, reuse_address=True).start()
        server.port = runner.addresses[0][1]

    async def close(runner: web.AppRunner) -> None:
        for site in list(runner.sites):
            await site.stop()

    def from_outside(what: Callable[[web.AppRunner], Coroutine[Any, Any, None]], runner: web.AppRunner) -> None:
        asyncio.run_coroutine_threadsafe(what(runner), loop).result(10)

    def serve() -> None:
        asyncio.set_event_loop(loop)
        runner = loop.run_until_complete(start())
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        for task in asyncio.all_tasks(loop):  # handlers of connections that clients left open
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
