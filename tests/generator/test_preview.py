"""`factory preview`: every call beside its answer and its cost, and the whole at the end."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.commands import run, run_json
from tests.support.fault_server import fault_server, reply

ANSWER = '{"question": "What happened to those who fought in the winter war?"}'


def _server(url: str) -> dict[str, str]:
    named = {"BACKEND": "openai", "BASE_URL": url, "MODEL": "m"}
    return {f"FACTORY_TEACHER__{key}": value for key, value in named.items()}


@pytest.mark.parametrize(("text", "says"), [(ANSWER, "record"), ("not JSON", "rejected by schema")])
def test_what_came_back_stands_beside_what_was_asked_with_its_cost(wwii_workspace: Path, text: str, says: str) -> None:
    with fault_server(lambda *_: reply(text)) as server:
        arguments = ("factory", "preview", "--prompt-type", "qpt/formal", "-n", "1")
        done = run(*arguments, cwd=wwii_workspace, env=_server(server.url))
        (look,) = run_json(*arguments, cwd=wwii_workspace, env=_server(server.url))
    # the answer is there as it came, once, between the prompt and what became of it
    assert done.stdout.count(text) == 1
    order = [done.stdout.index(part) for part in ("--- prompt: user", "--- answer to ask: stop", text, f"--- {says}")]
    assert order == sorted(order)
    assert "10 tokens read, 5 written" in done.stdout
    # what is about to be asked is said, and so is what it came to; none of it in colours where there is no terminal
    assert "about to ask the teacher about 1 snippet x qpt/formal" in done.stderr
    assert "1 calls, 10 tokens read and 5 written" in done.stderr
    assert "\x1b[" not in done.stdout
    # and the same as JSON
    (call,) = look["calls"]
    assert (call["call"], call["finish"], call["text"]) == ("ask", "stop", text)
    assert (call["prompt_tokens"], call["completion_tokens"]) == (10, 5) and call["seconds"] > 0
    assert len(look["prompts"]) == 1


def test_what_a_server_says_cannot_steer_the_terminal(wwii_workspace: Path) -> None:
    said = "\x1b]0;owned\x07\x1b[2J\u202e\x9b31m"
    with fault_server(lambda *_: reply(said)) as server:
        done = run(
            "factory", "preview", "--prompt-type", "qpt/formal", "-n", "1", cwd=wwii_workspace, env=_server(server.url)
        )
    assert "owned" in done.stdout
    assert not {"\x1b", "\x07", "\u202e", "\x9b"} & set(done.stdout)


def test_each_call_of_a_chain_is_named(wwii_workspace: Path) -> None:
    rules = {"FACTORY_TEACHER__BACKEND": "rules"}
    looks = run_json(
        "factory", "preview", "--prompt-type", "contrastive/person", "-n", "3", cwd=wwii_workspace, env=rules
    )
    named = [[call["call"] for call in look["calls"]] for look in looks]
    assert all(calls[0] == "extract" and all(name.startswith("ask.") for name in calls[1:]) for calls in named)
    assert max(map(len, named)) > 2
    assert all(call["text"] or call["finish"] == "declined" for look in looks for call in look["calls"])
