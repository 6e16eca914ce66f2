"""The server that the benchmarks ask: its replies pass every gate, it counts what it is asked, and it can be slow."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from benchmarks._server import Server
from foundation.chat_client import ChatClient
from foundation.ids import stable_id
from foundation.records import Snippet, SplitPolicy, Unit
from generator.catalogue import load_catalogue
from generator.gates import Gates
from generator.pipeline import Outcome, produce
from generator.render import Source
from generator.teachers.openai import OpenAITeacher


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


def ask(server: Server, name: str, snippets: list[Snippet], gates: Gates) -> list[Outcome]:
    """The outcomes of one unit of that prompt type, asked over HTTP."""
    prompt_type = load_catalogue()[name]
    teacher = OpenAITeacher(ChatClient(base_url=server.url, model="instant", concurrency=16), "openai:instant@unnamed")
    unit = Unit(id=stable_id("unit"), block="b", start=0, stop=1, prompt_type=name, fingerprint=prompt_type.fingerprint)

    async def loop() -> list[Outcome]:
        made = produce(
            teacher,
            prompt_type,
            [Source(snippet) for snippet in snippets],
            unit=unit,
            policy=SplitPolicy(key="k", unseen=0.05, phrasing=0.02),
            attempt="a",
            gates=gates,
        )
        return [outcome async for outcome in made]

    return asyncio.run(loop())


@pytest.mark.parametrize("name", ["qpt/formal", "wh/who"])
def test_every_reply_passes_the_gates_and_every_request_is_counted(
    server: Server, wwii_snippets: list[Snippet], warm_gates: Gates, name: str
) -> None:
    # given a server that counts from now on
    server.set()

    # when it is asked about the project's own corpus
    outcomes = ask(server, name, wwii_snippets[:64], warm_gates)

    # then all of it is accepted, with what it cost, and each request was counted once
    assert [outcome.rejects for outcome in outcomes if not outcome.records] == []
    assert len(outcomes) == 64 == server.stats()["requests"]
    assert all(record.usage.completion_tokens > 0 for outcome in outcomes for record in outcome.records)


def test_it_answers_as_late_as_it_is_told_to(server: Server, wwii_snippets: list[Snippet], warm_gates: Gates) -> None:
    server.set(delay_ms=300)
    begun = time.monotonic()

    outcomes = ask(server, "qpt/formal", wwii_snippets[:32], warm_gates)

    assert len(outcomes) == 32
    assert time.monotonic() - begun >= 0.6  # two waves of 16
    assert server.stats()["most_in_flight"] == 16
