"""The managed engine, for real: vLLM's CPU build serves a tiny random Qwen3 that the test makes."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from foundation.chat_client import ChatClient
from foundation.engine import EngineConfig, engine, has_vllm
from foundation.errors import Failure, UsageError
from foundation.processes import session_members
from foundation.records import ChatReply, ChatRequest, Sampling, messages_of
from tests.support.tiny_qwen import TINY_ARGUMENTS, make_tiny_qwen3

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.xdist_group("vllm"),
    pytest.mark.skipif(not has_vllm(), reason="vLLM is not installed (make setup says why)"),
    pytest.mark.timeout(600),
]

SCHEMA = {
    "type": "object",
    "properties": {"question": {"type": "string", "maxLength": 40}},
    "required": ["question"],
    "additionalProperties": False,
}


def test_serves_structured_output_and_leaves_nothing_behind(tmp_path: Path) -> None:
    model = make_tiny_qwen3(tmp_path / "model")
    requests = [
        ChatRequest(
            id=str(number),
            messages=messages_of([("user", f"Ask something about the number {number}.")]),
            schema_=SCHEMA,
            sampling=Sampling(temperature=1.0, max_tokens=200),
            seed=number,
        )
        for number in range(16)
    ]

    async def ask(client: ChatClient) -> list[ChatReply]:
        return [reply async for reply in client.complete(requests)]

    with engine(
        EngineConfig(model=str(model), context=1024, arguments=TINY_ARGUMENTS), tmp_path / "vllm.log"
    ) as server:
        assert server.base_url.startswith("http://127.0.0.1:")
        assert server.api_key not in Path(f"/proc/{server.group.session}/cmdline").read_text()
        assert len(session_members(server.group.session)) > 1, "the engine runs in a child of the server"
        replies = asyncio.run(ask(ChatClient(server.base_url, server.model, server.api_key)))
        with pytest.raises(Failure, match="refuses"):
            asyncio.run(ask(ChatClient(server.base_url, server.model, "wrong key")))
    assert session_members(server.group.session) == []
    # strict=False: grammar-bound gibberish holds raw control characters, which the gates must refuse.
    finished = [reply for reply in replies if reply.finish == "stop"]
    assert finished, [reply.detail for reply in replies]
    assert all(set(json.loads(reply.text, strict=False)) == {"question"} for reply in finished)
    assert all(reply.usage.completion_tokens > 0 for reply in replies)


def test_a_folder_without_a_model_is_one_clear_failure(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    config = EngineConfig(model=str(tmp_path / "empty"))
    with (
        pytest.raises(Failure, match=r"ended while it started: .*(?i:error)") as caught,
        engine(config, tmp_path / "vllm.log"),
    ):
        pytest.fail("started without a model")
    assert 'File "' not in str(caught.value)
    assert caught.value.mend


def test_a_folder_that_is_not_there_starts_no_server(tmp_path: Path) -> None:
    config = EngineConfig(model=str(tmp_path / "nothing"))
    with pytest.raises(UsageError, match="no such model folder"), engine(config, tmp_path / "vllm.log"):
        pytest.fail("started without a model")
    assert not (tmp_path / "vllm.log").exists()
