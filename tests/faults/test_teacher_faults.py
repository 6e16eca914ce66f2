"""The teacher killed, and hung: no unit pays for it, and the work goes on when it is back."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from foundation.engine import has_vllm
from foundation.workspace import Workspace
from tests.faults.conftest import Recovery
from tests.faults.test_kills import LOOPS, RUN, WORK
from tests.support.asked import TYPE, Asked, asked_teacher
from tests.support.fault_server import FaultServer, fault_server, reply
from tests.support.faults import (
    assert_all_is_there,
    committed,
    ended,
    factory,
    finish,
    json_lines,
    output,
    processes_of,
    queue_of,
    wait_for,
)
from tests.support.tiny_qwen import TINY_ARGUMENTS, make_tiny_qwen3


@LOOPS
def test_a_teacher_elsewhere_that_is_gone_for_a_while(
    make: Callable[..., Workspace], loop: tuple[str, ...], recovery: Recovery
) -> None:
    with asked_teacher("hold") as server:
        workspace = make(blocks=8, types=[TYPE], settings=server.settings())
        with factory(workspace, *loop) as process:
            server.wait_until_held(2)
            server.mode = "reset"
            server.refuse()
            time.sleep(8)  # its port refuses: longer than one call tries
            if loop == WORK:
                assert process.wait(100) in (0, 1)  # it may say so and end
            else:
                assert process.poll() is None, output(workspace).read_text()
            assert committed(workspace) == []
            with queue_of(workspace) as queue:
                assert queue.failures() == []
            server.accept()
            server.mode = "answer"
            with recovery(f"the teacher's server killed and started again ({loop[0]}, openai)"):
                if loop == WORK and process.poll() is not None:
                    finish(workspace, *WORK)
                wait_for(lambda: committed(workspace), what="the next commit")
            if loop == RUN:
                ended(process, workspace)
        assert_all_is_there(workspace)


@pytest.mark.parametrize(
    "fault", [pytest.param("hold", marks=pytest.mark.slow), "reset", "error"], ids=["mute", "resets", "HTTP 503"]
)
@pytest.mark.slow
def test_a_teacher_elsewhere_that_answers_nothing_for_a_while(
    make: Callable[..., Workspace], fault: str, recovery: Recovery
) -> None:
    with asked_teacher() as server:
        workspace = make(blocks=8, types=[TYPE], settings=server.settings(timeout=1))
        server.mode = fault  # type: ignore[assignment]
        with factory(workspace, *RUN) as process:
            wait_for(lambda: len(server.asked) >= 4 * 4 * 2 * 2, what="some tries")  # each request is tried four times
            assert process.poll() is None
            server.mode = "answer"
            with recovery(f"a teacher that {fault}s, and answers again (run, openai)"):
                wait_for(lambda: committed(workspace), what="the next commit")
            ended(process, workspace)
        assert_all_is_there(workspace)


CHINESE = reply(
    json.dumps({"question": "\u8bf7\u544a\u8bc9\u6211\u5965\u65af\u9a6c\u514b\u6218\u5f79\u7684\u60c5\u51b5"})
)
PLAIN = reply("Sure! The campaign was long, and many papers are kept of it.")


@pytest.mark.parametrize(
    ("answer", "gate", "warned"),
    [(PLAIN, "schema", True), (CHINESE, "cjk", False), (reply('{"question": "Can you te', "length"), "finish", False)],
    ids=["ignores the schema", "Chinese", "cut"],
)
def test_replies_that_are_no_good_are_counted_rejects(
    make: Callable[..., Workspace], answer: Any, gate: str, warned: bool
) -> None:
    with fault_server(lambda *_: answer, "fault") as server:
        workspace = make(blocks=8, types=[TYPE], settings=Asked(port=server.port).settings())
        finish(workspace, *WORK)
    assert_all_is_there(workspace)
    rejects = [line for path in workspace.root.glob("rejects/**/*.jsonl") for line in json_lines(path)]
    assert len(rejects) == 8 * 4
    assert {one["gate"] for one in rejects} == {gate}
    said = output(workspace).read_text()
    assert said.count("does not obey response_format") == warned, "once in a run, whatever the number of workers"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((200, "<html>gateway</html>"), "no JSON: <html>gateway"),
        ((200, {"ok": 1}), "no chat completion"),
        ((403, "no"), "403"),
    ],
    ids=["HTML", "other JSON", "HTTP 403"],
)
@pytest.mark.slow
def test_a_server_that_answers_no_completion_ends_the_work_with_one_message(
    make: Callable[..., Workspace], answer: Any, words: str
) -> None:
    good = [False]

    def behaviour(server: FaultServer, body: dict[str, Any]) -> Any:
        return asked.behaviour(server, body) if good[0] else answer

    asked = Asked()
    with fault_server(behaviour, "fault") as server:
        asked.port = server.port
        workspace = make(blocks=8, types=[TYPE], settings=asked.settings())
        finish(workspace, *WORK, code=1)
        assert words in output(workspace).read_text()
        assert committed(workspace) == []
        good[0] = True
        finish(workspace, *WORK)
    assert_all_is_there(workspace)


def test_the_wrong_model_is_told_before_any_unit_is_leased(make: Callable[..., Workspace]) -> None:
    with fault_server(lambda *_: (404, "no such model"), "Qwen/Qwen3-8B", "gpt-oss") as server:
        workspace = make(blocks=2, types=[TYPE], settings=Asked(port=server.port).settings())
        finish(workspace, *WORK, code=1)
    said = output(workspace).read_text()
    assert "has no model 'fault'; it names 'Qwen/Qwen3-8B', 'gpt-oss'" in said
    assert len(server.calls) == 1, "one token, to be sure"
    assert committed(workspace) == []


def test_a_server_that_bears_little_makes_no_rejects(make: Callable[..., Workspace]) -> None:
    """Two workers that may have four each in flight, and a server that says 429 to the fourth request of both together."""
    asked = Asked()

    async def behaviour(server: FaultServer, body: dict[str, Any]) -> Any:
        if server.waiting > 3:
            return 429, "slow down"
        await asyncio.sleep(0.005)
        return await asked.behaviour(server, body)

    with fault_server(behaviour, "fault") as server:
        asked.port = server.port
        workspace = make(blocks=20, types=[TYPE], settings=asked.settings())
        finish(workspace, *WORK)
    assert_all_is_there(workspace)
    assert not [path for path in workspace.root.glob("rejects/**/*.jsonl") if path.stat().st_size]


def engine_test(test: Callable[..., None]) -> Callable[..., None]:
    """Marks of a test that starts the engine."""
    for mark in (
        pytest.mark.vllm,
        pytest.mark.xdist_group("vllm"),
        pytest.mark.skipif(not has_vllm(), reason="vLLM is not installed (make setup says why)"),
        pytest.mark.timeout(900),
        pytest.mark.usefixtures("engine_alone"),
    ):
        test = mark(test)
    return test


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_qwen3(tmp_path_factory.mktemp("tiny") / "model")


def engine_workspace(make: Callable[..., Workspace], model: Path, hung_after: int) -> Workspace:
    arguments = ", ".join(f'"{argument}"' for argument in TINY_ARGUMENTS)
    return make(
        blocks=60,
        types=["qpt/tell-me-about", "cloze/entity"],
        settings=(
            f'[teacher]\nbackend = "vllm"\nmodel = "{model}"\ncontext = 2048\nargs = [{arguments}]\nconcurrency = 4\n'
            f"[queue]\nlease = 120\nheartbeat = 10\n[work]\nworkers = 2\nhung_after = {hung_after}\n"
        ),
    )


def servers(workspace: Workspace) -> list[psutil.Process]:
    """The processes of the engine: its API server, and the core that computes."""
    found = []
    for one in processes_of(workspace):
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended while we looked
            if any("vllm.entrypoints" in " ".join(each.cmdline()) for each in (one, *one.parents())):
                found.append(one)
    return found


def _stay_ended(workspace: Workspace, process: psutil.Popen) -> None:
    ended(process, workspace, seconds=400)
    assert_all_is_there(workspace)
    assert servers(workspace) == []


def _engine_again(workspace: Workspace, harm: Callable[[psutil.Process], None], victim: str) -> None:
    """Harm the engine (`victim`: one of its processes, or all), and wait until a new one has done a unit."""
    old = servers(workspace)
    head = next(one for one in old if "vllm.entrypoints" in " ".join(one.cmdline()))
    core = next(one for one in old if "EngineCore" in _title(one))
    for target in {"API server": [head], "EngineCore": [core]}.get(victim, old):
        harm(target)
    time.sleep(0.5)
    before = len(committed(workspace))
    wait_for(lambda: len(committed(workspace)) > before, 400, "a commit with a new engine")
    assert not {one.pid for one in old} & {one.pid for one in servers(workspace)}


@pytest.mark.slow
@engine_test
def test_the_managed_engine_killed_then_hung(make: Callable[..., Workspace], model: Path, recovery: Recovery) -> None:
    workspace = engine_workspace(make, model, 8)
    with factory(workspace, *RUN) as process:
        wait_for(lambda: len(committed(workspace)) > 1, 300, "the first commits")
        with recovery("vLLM's API server killed under run"):
            _engine_again(workspace, psutil.Process.kill, "API server")
        with recovery("vLLM hung under run (work.hung_after 8 s)"):
            _engine_again(workspace, psutil.Process.suspend, "all of it")
        _stay_ended(workspace, process)


@pytest.mark.slow
@engine_test
def test_the_core_of_the_managed_engine_killed(make: Callable[..., Workspace], model: Path, recovery: Recovery) -> None:
    workspace = engine_workspace(make, model, 60)
    with factory(workspace, *RUN) as process:
        wait_for(lambda: len(committed(workspace)) > 1, 300, "the first commits")
        with recovery("vLLM's EngineCore killed under run"):
            _engine_again(workspace, psutil.Process.kill, "EngineCore")
        _stay_ended(workspace, process)


def _title(process: psutil.Process) -> str:
    return f"{process.name()} {' '.join(process.cmdline())}"


@pytest.fixture
def engine_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the hub is asked for; the engine takes little memory."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
