"""From settings to a teacher: what is chosen, what is refused, and what a server sees."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from foundation.errors import Failure, UsageError
from foundation.processes import gpu_memory_used
from foundation.prompt_type import PromptType
from foundation.records import ChatReply, ChatRequest, Sampling, Snippet, messages_of
from foundation.workspace import Workspace
from generator.teachers.base import TeacherRequest
from generator.teachers.make import teacher_from_settings
from tests.support.fault_server import fault_server, reply


def _workspace(folder: Path, teacher: str) -> Workspace:
    workspace = Workspace.init(folder / "w")
    (workspace.root / "factory.toml").write_text(f"[teacher]\n{teacher}\n")
    return workspace


def _request(prompt_type: PromptType) -> TeacherRequest:
    text = "Georgy Zhukov commanded the front."
    snippet = Snippet(id="s", article_id="a", title="T", source="s", index=0, sentences=(text,), text=text)
    chat = ChatRequest(
        id="1", messages=messages_of([("user", text)]), schema_=prompt_type.output_schema, sampling=Sampling(), seed=1
    )
    return TeacherRequest(chat, prompt_type, snippet, 0)


@pytest.fixture
def prompt_type() -> PromptType:
    return PromptType(
        id="wh/who",
        version=1,
        summary="",
        fields={"question": {}},  # type: ignore[dict-item]
        system="s",
        user="{{ passage }}",
        turns=({"role": "user", "template": "q"}, {"role": "assistant", "template": "a"}),  # type: ignore[arg-type]
    )


@pytest.mark.skipif(gpu_memory_used() is not None, reason="a GPU is here, so auto means vllm")
def test_auto_without_a_gpu_is_rules_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with teacher_from_settings(_workspace(tmp_path, "")) as teacher:
        assert teacher.name.startswith("rules:")
    assert "not a language model" in capsys.readouterr().err


def test_openai_asks_the_server_and_keeps_provenance(tmp_path: Path, prompt_type: PromptType) -> None:
    async def ask(requests: list[TeacherRequest]) -> list[ChatReply]:
        return [answer async for answer in teacher.complete(requests)]

    with fault_server(lambda *_: reply('{"question": "Who?"}')) as server:
        settings = f'backend = "openai"\nbase_url = "{server.url}/"\nmodel = "m"\nrevision = "r1"\napi_key = "k"'
        with teacher_from_settings(_workspace(tmp_path, settings)) as teacher:
            assert teacher.name == "openai:m@r1"
            (answer,) = asyncio.run(ask([_request(prompt_type)]))
            (again,) = asyncio.run(ask([_request(prompt_type)]))  # nothing is tied to the first event loop
    assert (answer.id, answer.text) == (again.id, again.text) == ("1", '{"question": "Who?"}')
    assert server.calls[0]["response_format"]["json_schema"]["schema"]["required"] == ["question"]


def test_openai_without_a_url_is_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="base_url"), teacher_from_settings(_workspace(tmp_path, 'backend = "openai"')):
        pytest.fail("no URL was accepted")


def test_a_server_that_is_not_there_fails_before_any_work(tmp_path: Path) -> None:
    settings = 'backend = "openai"\nbase_url = "http://127.0.0.1:9/v1"'
    with pytest.raises(Failure, match="cannot be reached"), teacher_from_settings(_workspace(tmp_path, settings)):
        pytest.fail("nobody answered")
