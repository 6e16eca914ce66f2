"""The managed engine, for real: vLLM's CPU build serves a tiny random Qwen3 that the test makes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from foundation.chat_client import ChatClient
from foundation.devices import MARK, device_holder, hold_device
from foundation.engine import Engine, EngineConfig, engine, has_vllm
from foundation.engine_health import Look, read_metrics
from foundation.errors import Failure, Unavailable, UsageError
from foundation.processes import marked, session_members
from foundation.records import ChatReply, ChatRequest, Sampling, messages_of
from tests.support.tiny_qwen import TINY_ARGUMENTS, make_tiny_qwen3

needs_vllm = [
    pytest.mark.vllm,
    pytest.mark.xdist_group("vllm"),
    pytest.mark.skipif(not has_vllm(), reason="vLLM is not installed (make setup says why)"),
    pytest.mark.timeout(600),
]
REPOSITORY = Path(__file__).parents[2]
HUNG_AFTER = 3.0  # seconds; what is measured below is printed, and bounded only by the test's own time-out
SCHEMA = {
    "type": "object",
    "properties": {"question": {"type": "string", "maxLength": 40}},
    "required": ["question"],
    "additionalProperties": False,
}

# Starts an engine, and waits to be killed.
OWNER = """
import sys, time
from pathlib import Path
from foundation.engine import EngineConfig, engine
with engine(EngineConfig(sys.argv[1], "factory run", context=1024, arguments=sys.argv[3:]), Path(sys.argv[2])):
    print("ready", flush=True)
    time.sleep(600)
"""


def _config(model: Path) -> EngineConfig:
    return EngineConfig(model=str(model), purpose="a test", context=4096, arguments=TINY_ARGUMENTS)


def _requests(count: int, max_tokens: int, schema: dict[str, object] | None = None) -> list[ChatRequest]:
    return [
        ChatRequest(
            id=str(number),
            messages=messages_of([("user", f"Ask something about the number {number}.")]),
            schema_=schema,
            sampling=Sampling(temperature=1.0, max_tokens=max_tokens),
            seed=number,
        )
        for number in range(count)
    ]


async def _ask(client: ChatClient, requests: list[ChatRequest]) -> list[ChatReply]:
    return [reply async for reply in client.complete(requests)]


def _client(server: Engine, **more: object) -> ChatClient:
    return ChatClient(server.base_url, server.model, server.api_key, **more)  # type: ignore[arg-type]


def _look_until(server: Engine, state: Callable[[Look], bool]) -> tuple[Look, float]:
    """Look again and again until `state`; how long that took, and the longest that one look did."""
    began = longest = time.monotonic()
    longest = 0.0
    while True:
        before = time.monotonic()
        look = server.look(HUNG_AFTER)
        longest = max(longest, time.monotonic() - before)
        if state(look):
            print(f"\n{look.state} ({look.detail}) after {time.monotonic() - began:.1f} s; a look took {longest:.3f} s")
            return look, time.monotonic() - began
        assert time.monotonic() - began < 120, look
        time.sleep(0.05)


@contextlib.contextmanager
def _in_flight(server: Engine, *, until_unavailable: bool = False) -> Iterator[list[object]]:
    """Long requests under way, asked again `until_unavailable` however slow this machine is; what came of them, after the context."""
    outcome: list[object] = []

    def work() -> None:
        try:
            while until_unavailable or not outcome:
                endless = _client(server, extra=(("ignore_eos", True),))
                outcome.extend(asyncio.run(_ask(endless, _requests(16, 3500))))
        except Failure as error:
            outcome.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    yield outcome
    thread.join(300)
    assert not thread.is_alive()


def _core(server: Engine) -> int:
    """The process that does the work, a child of the server."""
    (core,) = [pid for pid in session_members(server.group.session) if _is_core(pid)]
    return core


def _is_core(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return b"EngineCore" in Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/comm").read_bytes()
    return False


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_qwen3(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="class")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with engine(_config(model), tmp_path_factory.mktemp("engine") / "vllm.log") as server:
        yield server
    assert session_members(server.group.session) == []
    assert device_holder() == ""


class TestOneServer:
    """All with one engine; the last test kills it."""

    pytestmark = needs_vllm

    def test_serves_structured_output_behind_a_key(self, server: Engine) -> None:
        assert server.base_url.startswith("http://127.0.0.1:")
        assert server.api_key not in Path(f"/proc/{server.group.session}/cmdline").read_text()
        assert server.api_key not in repr(server)
        replies = asyncio.run(_ask(_client(server), _requests(16, 200, SCHEMA)))
        # strict=False: grammar-bound gibberish holds raw control characters, which the gates must refuse.
        finished = [reply for reply in replies if reply.finish == "stop"]
        assert finished, [reply.detail for reply in replies]
        assert all(set(json.loads(reply.text, strict=False)) == {"question"} for reply in finished)
        assert all(reply.usage.completion_tokens > 0 for reply in replies)
        wrong = ChatClient(server.base_url, server.model, "wrong key")
        with pytest.raises(Failure, match="refuses"):
            asyncio.run(_ask(wrong, _requests(1, 8)))

    def test_it_holds_its_device(self, server: Engine) -> None:
        assert device_holder() == f"a test, pid {os.getpid()}"
        with pytest.raises(Failure, match="held by a test"), hold_device("another"):
            pytest.fail("two on one device")
        assert set(session_members(server.group.session)) <= set(marked(MARK, server.device.environment[MARK]))

    def test_its_figures_move_with_the_requests(self, server: Engine) -> None:
        before = server.look(HUNG_AFTER)
        replies = asyncio.run(_ask(_client(server), _requests(16, 64)))
        after, _ = _look_until(server, lambda look: look.tokens > before.tokens and not look.running)
        assert after.tokens - before.tokens == sum(reply.usage.completion_tokens for reply in replies)
        assert after.queries > before.queries
        assert server.group.log is not None
        assert "POST /v1" not in server.group.log.read_text(), "its log gets a line a request"
        assert 0 <= after.hits <= after.queries
        assert (after.state, after.waiting) == ("well", 0)

    def test_an_engine_that_stands_still_is_hung_busy_or_idle(self, server: Engine) -> None:
        core = _core(server)
        with _in_flight(server) as outcome:
            _look_until(server, lambda look: look.running > 0)
            os.kill(core, signal.SIGSTOP)
            try:
                look, seconds = _look_until(server, lambda look: look.state == "hung")
            finally:
                os.kill(core, signal.SIGCONT)
            assert "in flight" in look.detail
            assert look.running > 0
            assert seconds >= HUNG_AFTER * 0.9
            _look_until(server, lambda look: look.state == "well" and not look.running)
        assert [reply.finish for reply in outcome if isinstance(reply, ChatReply)].count("error") == 0
        assert len(outcome) == 16
        os.kill(core, signal.SIGSTOP)
        try:
            look, _ = _look_until(server, lambda look: look.state == "hung")
        finally:
            os.kill(core, signal.SIGCONT)
        assert "nor when it was asked for one" in look.detail
        _look_until(server, lambda look: look.state == "well")

    def test_a_server_that_does_not_answer_is_hung(self, server: Engine) -> None:
        os.kill(server.group.session, signal.SIGSTOP)
        try:
            look, seconds = _look_until(server, lambda look: look.state == "hung")
        finally:
            os.kill(server.group.session, signal.SIGCONT)
        assert "no answer" in look.detail
        assert seconds >= HUNG_AFTER * 0.9
        _look_until(server, lambda look: look.state == "well")

    def test_an_idle_engine_stays_well(self, server: Engine) -> None:
        began = time.monotonic()
        while time.monotonic() - began < 3 * HUNG_AFTER:
            assert server.look(HUNG_AFTER).state == "well"
            time.sleep(0.5)

    def test_killed_with_requests_in_flight_it_is_dead_and_no_request_failed(self, server: Engine) -> None:
        """Not even when its inner process goes first, so that the server still answers, with errors."""
        with _in_flight(server, until_unavailable=True) as outcome:
            _look_until(server, lambda look: look.running > 0)
            os.kill(_core(server), signal.SIGKILL)
            look, _ = _look_until(server, lambda look: look.state == "dead")
        assert "the vLLM server ended" in look.detail
        assert isinstance(outcome[-1], Unavailable), outcome
        assert server.look(HUNG_AFTER).state == "dead"


@pytest.fixture
def owner(model: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that starts an engine, as `factory run` does."""
    argv = [sys.executable, "-c", OWNER, str(model), str(tmp_path / "vllm.log"), *TINY_ARGUMENTS]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)
    yield process
    process.kill()
    process.communicate()


def _session(owner: subprocess.Popen[str]) -> int:
    """The pid, and so the session, of the server that it started."""
    began = time.monotonic()
    while not (children := psutil.Process(owner.pid).children()):
        assert time.monotonic() - began < 120, "it starts no server"
        time.sleep(0.05)
    return int(children[0].pid)


class TestOwners:
    """Engines whose owner is killed."""

    pytestmark = needs_vllm

    @pytest.mark.slow
    def test_killed_it_takes_its_engine_along(self, owner: subprocess.Popen[str]) -> None:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "ready\n"
        session = _session(owner)
        assert device_holder() == f"factory run, pid {owner.pid}"
        owner.kill()
        began = time.monotonic()
        while session_members(session):
            assert time.monotonic() - began < 120, "it outlived its owner"
            time.sleep(0.05)
        print(f"\ngone {time.monotonic() - began:.2f} s after its owner was killed")

    @pytest.mark.slow
    def test_what_is_left_when_the_server_is_killed_too_is_ended_by_the_next_one(
        self, owner: subprocess.Popen[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        session = _session(owner)
        began = time.monotonic()
        while not any(pid != session and _is_core(pid) for pid in session_members(session)):
            assert time.monotonic() - began < 120, "the server starts no engine"
            time.sleep(0.05)
        os.kill(session, signal.SIGKILL)
        owner.kill()
        owner.wait(30)
        left = session_members(session)
        assert left, "nothing was left, so this shows nothing"
        began = time.monotonic()
        with hold_device("trainer run", ask=True):
            assert session_members(session) == []
        said = capsys.readouterr().err
        assert any(str(pid) in said for pid in left)  # the server itself may still have been dying when we looked
        print(f"\nwhat was left was ended in {time.monotonic() - began:.2f} s")


@pytest.mark.vllm
@pytest.mark.xdist_group("vllm")
@pytest.mark.skipif(not has_vllm(), reason="vLLM is not installed (make setup says why)")
@pytest.mark.timeout(600)
def test_a_folder_without_a_model_is_wrong_use(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with (
        pytest.raises(UsageError, match=r"ended while it started: .*(?i:error)") as caught,
        engine(_config(tmp_path / "empty"), tmp_path / "vllm.log"),
    ):
        pytest.fail("started without a model")
    assert 'File "' not in str(caught.value)
    assert "teacher.model" in caught.value.mend
    assert device_holder() == ""


@pytest.mark.skipif(not has_vllm(), reason="vLLM is not installed (make setup says why)")
def test_a_folder_that_is_not_there_starts_no_server(tmp_path: Path) -> None:
    with (
        pytest.raises(UsageError, match="no such model folder"),
        engine(_config(tmp_path / "nothing"), tmp_path / "vllm.log"),
    ):
        pytest.fail("started without a model")
    assert not (tmp_path / "vllm.log").exists()


@pytest.mark.skipif(not has_vllm(), reason="vLLM is not installed (make setup says why)")
def test_a_device_that_is_held_starts_no_server(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with (
        hold_device("factory run"),
        pytest.raises(Failure, match=f"held by factory run, pid {os.getpid()}"),
        engine(_config(tmp_path / "model"), tmp_path / "vllm.log"),
    ):
        pytest.fail("started on a device that is held")
    assert not (tmp_path / "vllm.log").exists()


@pytest.mark.slow
@pytest.mark.vllm
@pytest.mark.xdist_group("vllm")
@pytest.mark.skipif(not has_vllm(), reason="vLLM is not installed (make setup says why)")
@pytest.mark.timeout(600)
def test_a_real_engine_without_memory_says_so_and_leaves_nothing(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "100000")  # GiB
    with (
        pytest.raises(Failure, match=r"ran out of memory while it started: .*[Aa]vailable memory") as caught,
        engine(_config(model), tmp_path / "vllm.log"),
    ):
        pytest.fail("started with more memory than there is")
    assert "VLLM_CPU_KVCACHE_SPACE" in caught.value.mend
    assert "Traceback" not in str(caught.value)
    assert device_holder() == ""


def test_metrics_are_summed_over_labels() -> None:
    text = (
        "# HELP vllm:num_requests_running Number\n# TYPE vllm:num_requests_running gauge\n"
        'vllm:num_requests_running{engine="0",model_name="a}b"} 3.0\nvllm:num_requests_running{engine="1"} 2.0\n'
        'vllm:prompt_tokens_total{engine="0"} 1.5e+06\npython_gc_objects_collected_total{generation="0"} 9.0\n'
    )
    assert read_metrics(text) == {"num_requests_running": 5.0, "prompt_tokens_total": 1.5e6}
