"""The client keeps its promise against servers that fail in every way we know."""

from __future__ import annotations

import asyncio
import email.utils
import itertools
import os
import re
import time
from typing import Any

import pytest

from foundation.chat_client import ChatClient, _seconds
from foundation.errors import Failure, Unavailable
from foundation.http_client import Answer
from foundation.records import ChatReply, ChatRequest, Sampling, messages_of
from foundation.throttle import Throttle
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


def _text(_: FaultServer, body: dict[str, Any]) -> Any:
    return reply('{"a": "b"}')


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((200, "<html>busy</html>"), "no JSON: <html>busy"),
        ((200, {"error": {"message": "out of credit"}}), "no chat completion: .*out of credit"),
        ((200, []), "no chat completion"),
        ((200, {"choices": [{"message": None}]}), "no chat completion"),
        ((200, {"choices": [{"message": {"content": ["parts"]}}]}), "no chat completion"),
    ],
)
def test_an_answer_that_is_none_is_an_error_that_shows_it(answer: Any, words: str) -> None:
    with fault_server(lambda *_: answer) as server:
        (said,) = _ask(ChatClient(server.url, "m", attempts=2), 1)
    assert said.finish == "error"
    assert re.search(words, said.detail)
    assert len(server.calls) == 2


def test_more_than_it_bears_at_once_is_refused_and_no_request_is_lost() -> None:
    """A server that sustains six at once, and says 429 to the seventh: the limit comes to it, whatever it began with."""

    async def behaviour(server: FaultServer, body: dict[str, Any]) -> Any:
        if server.waiting > 6:
            return 429, {"error": "slow down"}
        await asyncio.sleep(0.02)
        return _text(server, body)

    with fault_server(behaviour) as server:
        client = ChatClient(server.url, "m", concurrency=64, throttle=Throttle(64, brisk=0.0))
        answers = _ask(client, 600)
        assert [answer.finish for answer in answers] == ["stop"] * 600, "429 is nobody's fault"
        assert 4 <= client.throttle.limit <= 8
        refused = len(server.calls) - 600
        assert refused < 150


def test_a_queue_is_not_filled_for_nothing() -> None:
    """Eight are served at once, the rest stand in line: more in flight only adds latency."""
    slots = asyncio.Semaphore(8)

    async def behaviour(server: FaultServer, body: dict[str, Any]) -> Any:
        async with slots:
            await asyncio.sleep(0.03)
        return _text(server, body)

    with fault_server(behaviour) as server:
        client = ChatClient(server.url, "m", concurrency=256, throttle=Throttle(256, brisk=0.0))
        assert len(_ask(client, 800)) == 800
        assert 6 <= client.throttle.limit <= 32
        assert server.peak <= 40


def test_a_server_that_recovers_gets_as_many_as_before() -> None:
    bears = [4]

    async def behaviour(server: FaultServer, body: dict[str, Any]) -> Any:
        if server.waiting > bears[0]:
            return 503, "busy"
        await asyncio.sleep(0.02)
        return _text(server, body)

    with fault_server(behaviour) as server:
        client = ChatClient(server.url, "m", concurrency=32, attempts=12)
        _ask(client, 100)
        assert client.throttle.limit <= 8
        bears[0], server.peak = 1000, 0
        _ask(client, 500)
        assert client.throttle.limit == 32
        assert server.peak == 32


def test_an_instant_server_is_given_the_most_within_a_unit() -> None:
    with fault_server(_text) as server:
        client = ChatClient(server.url, "m", concurrency=64)
        assert client.throttle.limit < 64
        _ask(client, 256)
        assert client.throttle.limit == 64
        assert server.peak <= 64
        assert len(server.connections) <= 64, "connections are kept"


def test_never_more_in_flight_than_asked_for() -> None:
    with fault_server(lambda *_: 0.02) as server:
        _ask(ChatClient(server.url, "m", concurrency=3), 40)
    assert server.peak == 3
    assert len(server.connections) == 3


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_kept_by_every_request(form: str) -> None:
    told: list[float] = []

    def behaviour(server: FaultServer, body: dict[str, Any]) -> Any:
        if not told:
            told.append(time.time() + 2)
            said = "2" if form == "seconds" else email.utils.formatdate(told[0] + 1, usegmt=True)
            return 429, "later", {"Retry-After": said}
        told.append(time.time())
        return _text(server, body)

    with fault_server(behaviour) as server:
        answers = _ask(ChatClient(server.url, "m", concurrency=2), 8)
    assert [answer.finish for answer in answers] == ["stop"] * 8
    assert len(server.calls) == 9
    early = [at for at in told[1:] if at < told[0] - 0.01]
    assert len(early) <= 1, "only the one that was in flight already"


@pytest.mark.parametrize(
    ("said", "seconds"), [("", 0), ("7", 7), ("0.5", 0.5), ("-1", 0), ("inf", 0), ("nan", 0), ("soon", 0), ("Sun", 0)]
)
def test_what_retry_after_may_say(said: str, seconds: float) -> None:
    assert _seconds(Answer(429, b"", said)) == seconds


def test_a_server_that_turns_all_away_for_long_is_unavailable() -> None:
    """As when the account is used up: no request is to blame."""
    with fault_server(lambda *_: (429, "insufficient_quota")) as server, pytest.raises(Unavailable, match="quota"):
        _ask(ChatClient(server.url, "m", timeout=1.0), 4)


def test_a_server_that_ignores_the_schema_is_told_of_once(capsys: pytest.CaptureFixture[str]) -> None:
    with fault_server(lambda *_: reply("Sure! Who led \x1b[31mthem?")) as server:
        client = ChatClient(server.url, "m")
        for _ in range(2):
            assert {answer.finish for answer in _ask(client, 20)} == {"stop"}
    said = capsys.readouterr().err
    assert said.count("does not obey response_format") == 1
    assert "structured output" in said and server.url in said
    assert "\x1b" not in said


def test_one_that_obeys_now_and_then_or_is_cut_is_not_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    texts = itertools.cycle([reply("cut", "length"), reply("no"), reply('{"a": 1}')])
    with fault_server(lambda *_: next(texts)) as server:
        _ask(ChatClient(server.url, "m"), 20)
    assert capsys.readouterr().err == ""


def test_cached_prompt_tokens_are_added_up_where_they_are_told() -> None:
    def behaviour(server: FaultServer, body: dict[str, Any]) -> Any:
        status, document = reply('{"a": "b"}')
        if body["seed"] % 2:
            document["usage"]["prompt_tokens_details"] = {"cached_tokens": 8}
        elif body["seed"] % 4:
            document["usage"]["prompt_tokens_details"] = None
        return status, document

    with fault_server(behaviour) as server:
        client = ChatClient(server.url, "m")
        _ask(client, 20)
    assert client.throttle.cache == (100, 80)


def test_what_a_child_learns_its_parent_knows() -> None:
    with fault_server(_text) as server:
        client = ChatClient(server.url, "m", concurrency=32)
        child = os.fork()
        if not child:
            try:
                os._exit(len(_ask(client, 200)) != 200)
            finally:
                os._exit(2)
        assert os.waitpid(child, 0)[1] == 0
        assert client.throttle.limit == 32


def test_being_turned_away_does_not_use_up_the_tries_for_faults() -> None:
    said = [(429, "slow down")] * 4 + [(500, "a fault")]

    def behaviour(server: FaultServer, body: dict[str, Any]) -> Any:
        return said[len(server.calls) - 1] if len(server.calls) <= len(said) else _echo(server, body)

    with fault_server(behaviour) as server:
        (answer,) = _ask(ChatClient(server.url, "m", concurrency=1), 1)
    assert answer.text == "question 0"


@pytest.mark.parametrize("text", ["[" * 2000 + "]" * 2000, "[" * 100_000])
def test_an_answer_nested_without_end_fails_nobody_else(text: str) -> None:
    def behaviour(server: FaultServer, body: dict[str, Any]) -> Any:
        return reply(text) if body["seed"] == 0 else _echo(server, body)

    with fault_server(behaviour) as server:
        answers = _ask(ChatClient(server.url, "m", concurrency=1), 3)
    assert [answer.finish for answer in answers] == ["stop"] * 3


@pytest.mark.parametrize(
    "usage",
    [
        "x",
        {"completion_tokens": "x"},
        {"prompt_tokens": 1.5, "completion_tokens": -3},
        {"prompt_tokens": 10**400},
        {"prompt_tokens": 20, "prompt_tokens_details": {"cached_tokens": -7}},
        {"prompt_tokens": 20, "prompt_tokens_details": {"cached_tokens": 10**400}},
    ],
)
def test_nonsense_about_tokens_does_not_cost_the_answer(usage: Any) -> None:
    def behaviour(_: FaultServer, __: dict[str, Any]) -> Any:
        return 200, {"choices": [{"message": {"content": "good"}, "finish_reason": "stop"}], "usage": usage}

    with fault_server(behaviour) as server:
        client = ChatClient(server.url, "m")
        (answer,) = _ask(client, 1)
        assert len(server.calls) == 1
    assert answer.text == "good"
    assert client.throttle.cache[1] == 0
    assert 0 <= answer.usage.prompt_tokens <= 20 and answer.usage.completion_tokens == 0


def test_a_server_that_turns_everyone_away_is_not_said_to_be_gone_and_no_password_is_told() -> None:
    with fault_server(lambda *_: (503, "busy")) as server:
        url = server.url.replace("http://", "http://me:secret@")
        with pytest.raises(Unavailable) as caught:
            _ask(ChatClient(url, "m", attempts=2), 1)
    assert "turns requests away: HTTP 503" in str(caught.value) and "quota" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_the_longer_retry_after_holds() -> None:
    throttle = Throttle(4)
    throttle.refused(throttle.changes, 30.0)
    throttle.refused(throttle.changes, 0.5)
    assert throttle.wait > 20
