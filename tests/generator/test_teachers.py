"""From settings to a teacher: what is chosen, what is refused, and what a server sees."""

from __future__ import annotations

import asyncio
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from foundation.errors import Failure, Unavailable, UsageError
from foundation.processes import gpu_memory_used
from foundation.prompt_type import PromptType, output_schema
from foundation.records import ChatReply, ChatRequest, Sampling, Snippet, messages_of
from foundation.workspace import Workspace
from generator.render import Source
from generator.teachers.base import Teacher, TeacherRequest
from generator.teachers.make import (
    CHOSEN,
    CHOSEN_PROFILE,
    settled_backend,
    settled_profile,
    teacher_from_settings,
)
from tests.support.fault_server import fault_server, reply


def _workspace(folder: Path, teacher: str) -> Workspace:
    workspace = Workspace.init(folder / "w")
    (workspace.root / "factory.toml").write_text(f"[teacher]\n{teacher}\n")
    return workspace


def _request(prompt_type: PromptType) -> TeacherRequest:
    text = "Georgy Zhukov commanded the front."
    snippet = Snippet(id="s", article_id="a", title="T", source="s", index=0, sentences=(text,), text=text)
    chat = ChatRequest(
        id="1",
        messages=messages_of([("user", text)]),
        schema_=output_schema(prompt_type.fields),
        sampling=Sampling(),
        seed=1,
    )
    return TeacherRequest(chat, prompt_type, Source(snippet), 0)


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
    with teacher_from_settings(_workspace(tmp_path, "")) as ready:
        assert ready.teacher.name.startswith("rules:")
        assert (ready.device, ready.look().state) == (None, "well")
    assert "not a language model" in capsys.readouterr().err


def test_auto_stays_with_what_it_chose_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that is gone after an upgrade must not change the teacher in the middle of a run."""
    gpu: list[int] | None = [2**30]
    monkeypatch.setattr("generator.teachers.make.gpu_memory_used", lambda: gpu)  # there is no GPU here to take away
    workspace = _workspace(tmp_path, "")
    assert settled_backend(workspace) == "vllm"
    gpu = None
    with teacher_from_settings(workspace, settle=False):
        assert not workspace.store.exists(CHOSEN), "a look put something"
    for _ in range(2):
        with teacher_from_settings(workspace):
            assert workspace.store.get(CHOSEN) == b'{"backend": "rules"}'
    gpu = [2**30]
    with pytest.raises(Failure, match=r"chose rules .* finds a GPU") as caught, teacher_from_settings(workspace):
        pytest.fail("another teacher")
    assert "driver" not in caught.value.mend
    gpu = None
    workspace.store.put(CHOSEN, b'{"backend": "vllm"}')
    for settle in (True, False):
        with (
            pytest.raises(Failure, match=r"chose vllm .* no GPU") as caught,
            teacher_from_settings(workspace, settle=settle),
        ):
            pytest.fail("another teacher")
        assert "mend the driver" in caught.value.mend
        assert "teacher.backend to vllm or rules" in caught.value.mend
    with teacher_from_settings(_anew(workspace, 'backend = "rules"')) as ready:  # by name: the file is not asked
        assert ready.teacher.name.startswith("rules:")
    assert workspace.store.get(CHOSEN) == b'{"backend": "vllm"}'
    workspace.store.put(CHOSEN, b"{}")
    with pytest.raises(Failure, match="cannot be read"):
        settled_backend(workspace)


def test_the_profile_of_a_card_stays_with_its_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two cards in one fleet, or a larger one bought half-way, must not mix two models' records in silence."""
    card = 24 * 2**30
    monkeypatch.setattr("foundation.profiles.gpu_memory_total", lambda: card)  # cards that are not here
    workspace = _workspace(tmp_path, 'backend = "vllm"')
    assert settled_profile(workspace).name == "24gb"
    workspace.store.put(CHOSEN_PROFILE, b'{"profile": "24gb"}')
    assert settled_profile(workspace).name == "24gb"
    card = 80 * 2**30
    with pytest.raises(Failure, match=r"chose 24gb \(Qwen/Qwen3-8B-FP8\) .* would choose 80gb") as caught:
        settled_profile(workspace)
    assert 'teacher.profile to "24gb" or "80gb"' in caught.value.mend
    for named in ('profile = "80gb"', 'model = "m"'):  # by name: the file is not asked
        assert settled_profile(_anew(workspace, f'backend = "vllm"\n{named}')).name == "80gb"
    workspace.store.put(CHOSEN_PROFILE, b"{}")
    with pytest.raises(Failure, match="cannot be read"):
        settled_profile(_anew(workspace, 'backend = "vllm"'))


def _anew(workspace: Workspace, teacher: str) -> Workspace:
    (workspace.root / "factory.toml").write_text(f"[teacher]\n{teacher}\n")
    return Workspace(workspace.root)


def test_openai_asks_the_server_and_keeps_provenance(tmp_path: Path, prompt_type: PromptType) -> None:
    async def ask(requests: list[TeacherRequest]) -> list[ChatReply]:
        return [answer async for answer in teacher.complete(requests)]

    with fault_server(lambda *_: reply('{"question": "Who?"}')) as server:
        settings = f'backend = "openai"\nbase_url = "{server.url}/"\nmodel = "m"\nrevision = "r1"\napi_key = "k"'
        with teacher_from_settings(_workspace(tmp_path, settings)) as ready:
            teacher = ready.teacher
            assert teacher.name == "openai:m@r1"
            (answer,) = asyncio.run(ask([_request(prompt_type)]))
            (again,) = asyncio.run(ask([_request(prompt_type)]))  # nothing is tied to the first event loop
    assert (answer.id, answer.text) == (again.id, again.text) == ("1", '{"question": "Who?"}')
    assert server.calls[0]["response_format"]["json_schema"]["schema"]["required"] == ["question"]


def test_openai_without_a_url_is_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="base_url"), teacher_from_settings(_workspace(tmp_path, 'backend = "openai"')):
        pytest.fail("no URL was accepted")


def test_openai_without_a_model_is_wrong_use(tmp_path: Path) -> None:
    """An empty model is the profile's for a managed server; nobody's profile says what another server has."""
    settings = 'backend = "openai"\nbase_url = "http://127.0.0.1:9/v1"'
    with (
        pytest.raises(UsageError, match=r"teacher\.model is empty") as caught,
        teacher_from_settings(_workspace(tmp_path, settings)),
    ):
        pytest.fail("no model was accepted")
    assert "/v1/models" in caught.value.mend


def test_a_server_that_is_not_there_fails_before_any_work(tmp_path: Path) -> None:
    settings = 'backend = "openai"\nmodel = "m"\nbase_url = "http://127.0.0.1:9/v1"\napi_key = "k-secret"'
    with (
        pytest.raises(Unavailable, match="cannot be reached") as caught,
        teacher_from_settings(_workspace(tmp_path, settings)),
    ):
        pytest.fail("nobody answered")
    assert "k-secret" not in str(caught.value)


def test_a_server_that_goes_away_is_seen_and_seen_to_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("generator.teachers.make.REACH_EVERY", 0.0)
    with fault_server(lambda *_: reply("{}")) as server:
        settings = f'backend = "openai"\nbase_url = "{server.url}"\nmodel = "m"'
        with teacher_from_settings(_workspace(tmp_path, settings)) as ready:
            assert ready.look().state == "well"
    gone = ready.look()
    assert gone.state == "dead"
    assert "cannot be reached" in gone.detail
    with ThreadingHTTPServer(("127.0.0.1", server.port), BaseHTTPRequestHandler) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        assert ready.look().state == "well", "any answer means that it is there"
        other.shutdown()


@pytest.mark.parametrize(
    ("names", "told", "status"),
    [
        (("a", "b"), "it names 'a', 'b'", 404),
        (tuple("abcdefgh"), "it names 'a', 'b', 'c', 'd', 'e' and 3 more", 400),
    ],
)
def test_a_server_that_names_other_models_fails_before_any_work(
    tmp_path: Path, names: tuple[str, ...], told: str, status: int
) -> None:
    with fault_server(lambda *_: (status, "no such model"), *names) as server:
        settings = f'backend = "openai"\nbase_url = "{server.url}"\nmodel = "mine"'
        with (
            pytest.raises(Failure, match="has no model 'mine'") as caught,
            teacher_from_settings(_workspace(tmp_path, settings)),
        ):
            pytest.fail("a model that is not there")
    assert caught.value.what.endswith(told)
    assert 'model = "a"' in caught.value.mend
    assert len(server.calls) == 1, "one token was asked for, to be sure"


def test_a_server_that_answers_for_a_name_it_does_not_list_is_believed_and_told_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with fault_server(lambda *_: reply("{}"), "models/mine") as server:
        settings = f'backend = "openai"\nbase_url = "{server.url}"\nmodel = "mine"'
        with teacher_from_settings(_workspace(tmp_path, settings)) as ready:
            assert ready.look().state == "well"
    assert "answers for the model 'mine', though it names 'models/mine'" in capsys.readouterr().err


@pytest.mark.parametrize("names", [(), ("other", "mine"), ("mine:latest",), ("openai/*",)])
def test_a_server_that_may_have_the_model_is_let_through(tmp_path: Path, names: tuple[str, ...]) -> None:
    with fault_server(lambda *_: reply("{}"), *names) as server:
        settings = f'backend = "openai"\nbase_url = "{server.url}"\nmodel = "mine"'
        with teacher_from_settings(_workspace(tmp_path, settings)) as ready:
            assert ready.look().state == "well"


def test_a_server_without_a_list_of_models_is_let_through(tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as bare:
        threading.Thread(target=bare.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{bare.server_port}/v1"
        settings = f'backend = "openai"\nbase_url = "{url}"\nmodel = "m"'
        with teacher_from_settings(_workspace(tmp_path, settings)) as ready:
            assert ready.look().state == "well"
        bare.shutdown()


def test_what_the_client_learns_is_seen_in_a_look(tmp_path: Path, prompt_type: PromptType) -> None:
    def behaviour(*_: object) -> tuple[int, dict[str, Any]]:
        status, document = reply('{"question": "Who?"}')
        document["usage"]["prompt_tokens_details"] = {"cached_tokens": 7}
        return status, document

    async def ask(teacher: Teacher) -> int:
        return len([answer async for answer in teacher.complete([_request(prompt_type)] * 100)])

    with fault_server(behaviour) as server:
        settings = f'backend = "openai"\nbase_url = "{server.url}"\nmodel = "m"\nconcurrency = 40'
        with teacher_from_settings(_workspace(tmp_path, settings)) as ready:
            assert (ready.look().limit, ready.look().queries) == (16, 0)
            assert asyncio.run(ask(ready.teacher)) == 100
            look = ready.look()
    assert (look.limit, look.queries, look.hits) == (40, 1000, 700)
