"""The managed vLLM engine: its OpenAI-compatible server as a process group on loopback, for teacher and judge alike.

Guarantees: it listens on 127.0.0.1 alone, on a free port, behind a key made for this start; when the context ends,
the server and all its children are gone and GPU memory is back at its baseline. A start that fails says why, with
the end of the server's log. Cost: the engine's own start (25-50 s for a tiny model on a CPU).
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import secrets
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from foundation.errors import Failure, UsageError
from foundation.processes import ProcessGroup, await_gpu_memory, gpu_memory_used, running


@dataclass(frozen=True)
class EngineConfig:
    """`context` is in tokens; `arguments` go to the server as they are; `table` of the settings is what errors name."""

    model: str
    revision: str = ""
    context: int = 4096
    start_timeout: float = 900.0
    arguments: Sequence[str] = ()
    table: str = "teacher"


@dataclass(frozen=True)
class Engine:
    """A server that is ready: where to call it, and with what key."""

    base_url: str
    model: str
    api_key: str
    group: ProcessGroup


def has_vllm() -> bool:
    """Whether vLLM is installed; nothing of it is imported."""
    return importlib.util.find_spec("vllm") is not None


@contextlib.contextmanager
def engine(config: EngineConfig, log: Path) -> Iterator[Engine]:
    """Start the server, wait until it answers, and end it with all its children on the way out."""
    if not has_vllm():
        raise Failure(
            "vLLM is not installed",
            where=sys.executable,
            mend=f"pip install 'qpt-factory[vllm]', or set {config.table}.backend to rules or openai",
        )
    if config.model.startswith(("/", "./", "../", "~")) and not Path(config.model).expanduser().is_dir():
        raise UsageError("there is no such model folder", where=config.model, mend=f"mend {config.table}.model")
    log.parent.mkdir(parents=True, exist_ok=True)
    baseline = gpu_memory_used()
    port, key = _free_port(), secrets.token_urlsafe(24)
    group = ProcessGroup(
        _command(config, port, on_cpu=baseline is None),
        name="the vLLM server",
        log=log,
        # The key travels in the environment, not on the command line, where any user could read it.
        env={"VLLM_API_KEY": key, "VLLM_NO_USAGE_STATS": "1", **_cpu_environment(baseline)},
    )
    with running(group):
        _await_ready(group, port, config)
        yield Engine(f"http://127.0.0.1:{port}/v1", config.model, key, group)
    await_gpu_memory(baseline)


def _command(config: EngineConfig, port: int, *, on_cpu: bool) -> list[str]:
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", config.model]
    command += ["--served-model-name", config.model, "--host", "127.0.0.1", "--port", str(port)]
    command += ["--max-model-len", str(config.context)]
    if config.revision:
        command += ["--revision", config.revision]
    if on_cpu:
        # With chunks the CPU engine (0.32) dies of the first seeded request whose prompt does not fit one:
        # "CPU Generator does not use offset".
        command += ["--no-enable-chunked-prefill"]
    return [*command, *config.arguments]


def _cpu_environment(baseline: list[int] | None) -> dict[str, str]:
    if baseline is not None or "VLLM_CPU_KVCACHE_SPACE" in os.environ:
        return {}
    return {"VLLM_CPU_KVCACHE_SPACE": "1"}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await_ready(group: ProcessGroup, port: int, config: EngineConfig) -> None:
    until = time.monotonic() + config.start_timeout
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # loopback never goes through a proxy
    while time.monotonic() < until:
        if not group.alive:
            raise Failure(
                f"the vLLM server ended while it started: {_reason(group.tail(200))}",
                where=str(group.log),
                mend=_mend(group.tail(200), config.table),
            )
        with (
            contextlib.suppress(urllib.error.URLError, OSError),
            opener.open(f"http://127.0.0.1:{port}/health", timeout=2),
        ):
            return
        time.sleep(0.25)
    raise Failure(
        f"the vLLM server was not ready after {config.start_timeout:.0f} s",
        where=str(group.log),
        mend=f"raise {config.table}.start_timeout",
    )


def _mend(log: str, table: str) -> str:
    lowered = log.lower()
    if "out of memory" in lowered or "no available memory" in lowered:
        return f"take a smaller model or context, or lower --gpu-memory-utilization in {table}.args"
    if (
        "repository not found" in lowered
        or "not a local folder" in lowered
        or "can't load the configuration" in lowered
        or "repo id must be" in lowered
        or "invalid repository id or local directory" in lowered
    ):
        return f"mend {table}.model: a name on the hub, or a folder with the weights"
    return "read that log"


def _reason(log: str) -> str:
    """The last line that names an error; the log has the rest."""
    errors = re.findall(r"(?:\b\w+(?:Error|Exception): |Value error, ).+", log)  # the second form is pydantic's
    return errors[-1].strip()[:300] if errors else "no reason given"
