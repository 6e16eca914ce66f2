"""A teacher server whose requests a test can see, hold back and refuse: so it knows when a unit is in hand, and whose.

It stands in for a language model only to fail on cue (`fault_server`); its one answer, a fixed question to
`qpt/tell-me-about`, is valid, so what is committed are real records of the passage.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import psutil

from tests.support.fault_server import FaultServer, fault_server, reply
from tests.support.faults import wait_for

TYPE = "qpt/tell-me-about"
QUESTION = "Can you tell me about the Osmark campaign, and about the {} papers that are kept of it?"
Mode = Literal["answer", "hold", "reset", "error", "refuse"]


@dataclass
class Asked:
    """`asked` are the snippets' numbers in the order of the requests. While `mode` is hold, none is answered."""

    mode: Mode = "answer"
    asked: list[int] = field(default_factory=list)
    held: int = 0
    port: int = 0
    on_request: Callable[[int], None] = lambda number: None
    refuse: Callable[[], None] = lambda: None
    """Close the port: nobody can connect any more, as when the server was killed."""
    accept: Callable[[], None] = lambda: None
    """Open it again."""

    async def behaviour(self, _: FaultServer, body: dict[str, Any]) -> Any:
        found = re.search(r"keeps (\d+) papers", body["messages"][-1]["content"])
        number = int(found.group(1)) - 2 if found else -1
        self.asked.append(number)
        self.on_request(number)
        self.held += 1
        try:
            while self.mode == "hold":
                await asyncio.sleep(0.01)
        finally:
            self.held -= 1
        if self.mode == "reset":
            return "reset"
        if self.mode == "refuse":
            return 400, "never"
        return (503, "not now") if self.mode == "error" else reply(_answer(number))

    def settings(self, *, workers: int = 2, timeout: float = 60, queue: str = "lease = 20\nheartbeat = 4\n") -> str:
        """A `factory.toml` that names this server."""
        return (
            f'[teacher]\nbackend = "openai"\nbase_url = "http://127.0.0.1:{self.port}/v1"\nmodel = "fault"\n'
            f"concurrency = 4\ntimeout = {timeout}\n[queue]\n{queue}[work]\nworkers = {workers}\n"
        )

    def clients(self) -> list[psutil.Process]:
        """The processes that have a connection to it open: work-horses."""
        pids = {
            connection.pid
            for connection in psutil.net_connections("tcp")
            if connection.raddr and connection.raddr.port == self.port and connection.status == psutil.CONN_ESTABLISHED
        }
        return [psutil.Process(pid) for pid in pids - {None} if psutil.pid_exists(pid)]

    def wait_until_held(self, count: int = 1) -> None:
        wait_for(lambda: self.held >= count, what=f"{count} requests in hand")

    def wait_until_asked(self, numbers: set[int], since: int) -> None:
        """Until one of these snippets is asked about after request `since`."""
        wait_for(lambda: numbers & set(self.asked[since:]), what="the unit's second run")


def _answer(number: int) -> str:
    """Another one for each snippet, or the gates would refuse it as asked before."""
    return json.dumps({"question": QUESTION.format(number + 2)})


@contextmanager
def asked_teacher(mode: Mode = "answer") -> Iterator[Asked]:
    """Serve until the context ends."""
    asked = Asked(mode)
    with fault_server(asked.behaviour) as server:
        asked.port, asked.refuse, asked.accept = server.port, server.refuse, server.accept
        try:
            yield asked
        finally:
            asked.mode = "answer"
