"""The client keeps its promise against servers that fail in every way we know."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from foundation.chat_client import ChatClient
from foundation.errors import Failure, Unavailable
from foundation.records import ChatReply, ChatRequest, Sampling, messages_of
from tests.support.fault_server import FaultServer, fault_server, reply

SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}


def _requests(count: int) -> list[ChatRequest]:
    sampling = Sampling(temperature=0.5, max_tokens=32)
    return [
        ChatRequest(
            id=str(n), messages=messages_of([("user", f"question {n}")]), schema_=SCHEMA, sampling=sampling, seed=n
        )
        for n in range(count)
    ]


def _ask(client: ChatClient, count: int) -> list[ChatReply]:
    async def collect() -> list[ChatReply]:
        return [answer async for answer in client.complete(_requests(count))]

    return asyncio.run(collect())


def _echo(_: FaultServer, body: dict[str, Any]) -> Any:
    return reply(body["messages"][0]["content"])


def test_one_reply_each_with_schema_seed_and_key() -> None:
    with fault_server(_echo) as server:
        answers = _ask(ChatClient(server.url, "m", api_key="secret", concurrency=8), 50)
    assert {(answer.id, answer.text) for answer in answers} == {(str(n), f"question {n}") for n in range(50)}
    assert len(server.calls) == 50
    assert set(server.keys) == {"Bearer secret"}
    assert {call["seed"] for call in server.calls} == set(range(50))
    assert server.calls[0]["response_format"]["json_schema"]["schema"] == SCHEMA
    assert answers[0].usage.completion_tokens == 5


@pytest.mark.parametrize("fault", [(429, {"error": "slow down"}), (503, "busy"), "reset", (200, "not json {")])
def test_a_passing_fault_is_retried(fault: Any) -> None:
    def behaviour(server: FaultServer, body: dict[str, Any]) -> Any:
        return fault if len(server.calls) == 1 else _echo(server, body)

    with fault_server(behaviour) as server:
        answers = _ask(ChatClient(server.url, "m"), 1)
    assert [answer.finish for answer in answers] == ["stop"]
    assert len(server.calls) == 2


def test_one_bad_request_does_not_fail_the_rest() -> None:
    def behaviour(server: FaultServer, body: dict[str, Any]) -> Any:
        return (400, {"error": "too long"}) if body["seed"] == 3 else _echo(server, body)

    with fault_server(behaviour) as server:
        answers = {answer.id: answer for answer in _ask(ChatClient(server.url, "m"), 6)}
    assert answers["3"].finish == "error"
    assert "HTTP 400" in answers["3"].detail
    assert [answers[str(n)].finish for n in (0, 1, 2, 4, 5)] == ["stop"] * 5
    assert len(server.calls) == 6, "a 400 is never retried"


def test_a_stalled_server_times_out_into_an_error_reply() -> None:
    with fault_server(lambda *_: 5.0) as server:
        (answer,) = _ask(ChatClient(server.url, "m", timeout=0.2, attempts=2), 1)
    assert answer.finish == "error"
    assert "Timeout" in answer.detail


def test_a_cut_answer_says_length() -> None:
    with fault_server(lambda *_: reply('{"a": "cut', "length")) as server:
        (answer,) = _ask(ChatClient(server.url, "m"), 1)
    assert answer.finish == "length"


def test_half_a_character_is_one_that_a_file_can_hold() -> None:
    # as a server sends it whose answer was cut inside an emoji; a whole pair is the character it stands for
    with fault_server(lambda *_: reply("cut \ud83d, whole \ud83d\ude00")) as server:
        (answer,) = _ask(ChatClient(server.url, "m"), 1)
    assert (answer.finish, answer.text) == ("stop", "cut \ufffd, whole \U0001f600")
    assert answer.model_dump_json()


def test_nobody_there_is_unavailable_without_the_key() -> None:
    with pytest.raises(Unavailable, match="cannot be reached") as caught:
        _ask(ChatClient("http://127.0.0.1:9/v1", "m", api_key="sk-secret", attempts=1, table="judge"), 3)
    assert "sk-secret" not in str(caught.value)
    assert "judge.base_url" in caught.value.mend


@pytest.mark.parametrize("fault", [(503, "busy sk-secret"), "reset"])
def test_a_server_that_serves_nobody_is_unavailable(fault: Any) -> None:
    with fault_server(lambda *_: fault) as server, pytest.raises(Unavailable) as caught:
        _ask(ChatClient(server.url, "m", api_key="k-secret", attempts=2), 5)
    assert "k-secret" not in str(caught.value).replace("sk-secret", "")


@pytest.mark.parametrize("fault", [(503, "busy"), "reset"])
def test_a_request_that_alone_is_refused_fails_alone(fault: Any) -> None:
    """However it is refused, others are served meanwhile: so it is the request."""

    def behaviour(server: FaultServer, body: dict[str, Any]) -> Any:
        # one after another: the bad one's last attempt comes after others were answered
        return fault if body["seed"] == 3 else _slow_echo(server, body)

    async def _slow_echo(server: FaultServer, body: dict[str, Any]) -> Any:
        await asyncio.sleep(0.3)
        return _echo(server, body)

    with fault_server(behaviour) as server:
        answers = {answer.id: answer for answer in _ask(ChatClient(server.url, "m", concurrency=2, attempts=3), 40)}
    assert answers["3"].finish == "error"
    assert sum(answer.finish == "stop" for answer in answers.values()) == 39


def test_a_server_that_goes_away_in_the_middle_spoils_no_request() -> None:
    """What was served stays; the rest is nobody's fault, and no reply says that it failed."""

    def behaviour(server: FaultServer, body: dict[str, Any]) -> Any:
        return "reset" if len(server.calls) > 10 else _echo(server, body)

    served: list[ChatReply] = []

    async def collect(client: ChatClient) -> None:
        async for answer in client.complete(_requests(30)):
            served.append(answer)

    with fault_server(behaviour) as server, pytest.raises(Unavailable):
        asyncio.run(collect(ChatClient(server.url, "m", concurrency=4)))
    assert [answer.finish for answer in served] == ["stop"] * 10


def test_a_refused_key_is_a_failure_without_the_key() -> None:
    with fault_server(lambda *_: (401, {"error": "bad key"})) as server, pytest.raises(Failure) as caught:
        _ask(ChatClient(server.url, "m", api_key="sk-secret"), 2)
    assert "sk-secret" not in str(caught.value)
    assert "FACTORY_TEACHER__API_KEY" in caught.value.mend
