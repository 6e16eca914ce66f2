"""The managed vLLM engine: its OpenAI-compatible server as a process group on loopback, for teacher and judge alike.

Guarantees: it holds its device from before it starts until its memory is given back; it listens on 127.0.0.1 alone, on a
free port, behind a key made for this start; when the context ends, the server and all its children are gone and GPU memory
is back at its baseline. Killed, this process takes the server along; what outlives that is ended by whoever gets the device
next. Its log is of this start alone; that of the one before is kept (`vllm.1.log`). A start that fails says why, with the line
of the server's log that names the cause: `UsageError` where it can never succeed, `Failure` where it may pass, such as
memory that another process holds; then the mend names the smaller profile. Cost: the engine's own start (25-50 s for a tiny model on a CPU); a look at its health 5 ms.
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
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.devices import DeviceHold, hold_device
from foundation.engine_health import Health, Look
from foundation.errors import FactoryError, Failure, UsageError
from foundation.processes import (
    ProcessGroup,
    await_gpu_memory,
    gpu_memory_used,
    gpu_processes,
    running,
    session_members,
)

if TYPE_CHECKING:
    from foundation.profiles import Profile

PATIENCE = 15.0  # seconds the server gets to end well: with the drain before it, less than a service gets to stop


@dataclass(frozen=True)
class EngineConfig:
    """`purpose` is what others are told who holds the device. `context` is in tokens; `arguments` go to the server as they
    are; `table` of the settings and the `profile` they are of, if any, are what errors name."""

    model: str
    purpose: str
    revision: str = ""
    context: int = 4096
    start_timeout: float = 900.0
    arguments: Sequence[str] = ()
    table: str = "teacher"
    profile: Profile | None = None


@dataclass(frozen=True)
class Engine:
    """A server that is ready: where to call it, with what key, and the device it runs on."""

    base_url: str
    model: str
    api_key: str = field(repr=False)
    group: ProcessGroup
    device: DeviceHold
    _health: Health = field(repr=False)

    def look(self, hung_after: float) -> Look:
        """How it is. Call it every few seconds; 5 ms as a rule, 4 s at most. See `engine_health` for `hung_after`."""
        if not self.group.alive:
            code = self.group.wait()
            how = f"killed by signal {-code}" if code < 0 else f"exit code {code}: {_reason(self.group.tail(200))}"
            return Look("dead", f"the vLLM server ended ({how}); its log is {self.group.log}")
        return self._health.look(hung_after)


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
    with hold_device(config.purpose) as device:
        _set_aside(log)
        baseline, ours = gpu_memory_used(), set[int]()
        port, key = _free_port(), secrets.token_urlsafe(24)
        group = ProcessGroup(
            _command(config, port, on_cpu=baseline is None),
            name="the vLLM server",
            log=log,
            # The key travels in the environment, not on the command line, where any user could read it.
            env={"VLLM_API_KEY": key, "VLLM_NO_USAGE_STATS": "1", **_cpu_environment(baseline), **device.environment},
        )
        try:
            with running(group, PATIENCE):
                _await_ready(group, port, config, on_gpu=baseline is not None)
                ours = gpu_processes(session_members(group.session))
                url = f"http://127.0.0.1:{port}"
                yield Engine(f"{url}/v1", config.model, key, group, device, Health(url, config.model, key))
        finally:
            await_gpu_memory(baseline, ours)  # before the device is let go


def _set_aside(log: Path) -> None:
    """Keep the log of the start before, and no older one."""
    with contextlib.suppress(FileNotFoundError):
        log.replace(log.with_name(f"{log.stem}.1{log.suffix}"))


def _command(config: EngineConfig, port: int, *, on_cpu: bool) -> list[str]:
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", config.model]
    command += ["--served-model-name", config.model, "--host", "127.0.0.1", "--port", str(port)]
    # Without the flag the log gets a line a request: gigabytes a month.
    command += ["--max-model-len", str(config.context), "--disable-uvicorn-access-log"]
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


def _await_ready(group: ProcessGroup, port: int, config: EngineConfig, *, on_gpu: bool) -> None:
    until = time.monotonic() + config.start_timeout
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # loopback never goes through a proxy
    while time.monotonic() < until:
        if not group.alive:
            raise _start_error(group, config, on_gpu=on_gpu)
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


# What a log says of a start that fails however often it is tried, and what to mend then.
NEVER = {
    r"repository not found|not a local folder|can't load the configuration|repo id must be"
    r"|invalid repository id or local directory|invalid repository id": (
        "mend {table}.model: a name on the hub, or a folder with the weights"
    ),
    r"LocalEntryNotFoundError|cannot find the requested files in the (local|disk) cache|offline mode is enabled": (
        "the model is not on this machine, and the hub is out of reach: download it first, or name its folder in {table}.model"
    ),
    r"cannot find any model weights": "the folder of {table}.model holds no weights (*.safetensors): copy or download them",
    r"SafetensorError|not a valid JSON file|JSONDecodeError": (
        "a file of {table}.model is damaged, as by a download that broke off: copy or download it again"
    ),
    r"can't load tokenizer|couldn't instantiate the backend tokenizer": (
        "the folder of {table}.model holds no tokenizer (tokenizer.json, tokenizer_config.json): copy it beside the weights"
    ),
    r"greater than the derived max_model_len": "lower {table}.context: the model has fewer positions",
    r"model architectures? .*not supported": "take another model for {table}.model: this vLLM cannot run it",
    r"error: (unrecognized arguments|argument )": "mend {table}.args: `vllm serve --help` lists them",
    r"arctic inference is required": (
        "pip install arctic-inference==0.1.1, or take another method for --speculative-config in {table}.args"
    ),
}
# And of one that wants memory: another process may hold it now.
MEMORY = (
    r"out of memory|no available memory|free memory on device|kv cache is (needed|larger)|larger than the available kv"
    r"|available memory on node|cannot allocate memory|DefaultCPUAllocator|MemoryError|'EngineCore\w*': -9"
)
# What the server says of its engine, whose own error stands above it.
HEARSAY = re.compile(
    r"engine core initialization failed|engine process failed to start|see root cause above", re.IGNORECASE
)


def _start_error(group: ProcessGroup, config: EngineConfig, *, on_gpu: bool) -> FactoryError:
    log, code = group.tail(400), group.wait()
    memory = code == -9 or re.search(MEMORY, log, re.IGNORECASE)
    reason = _reason(log, MEMORY if memory else "")
    what, where = f"the vLLM server ended while it started: {reason}", str(group.log)
    for pattern, mend in NEVER.items():
        if re.search(pattern, log, re.IGNORECASE):
            return UsageError(what, where=where, mend=mend.format(table=config.table))
    if not memory:
        return Failure(what, where=where, mend="read that log")
    if reason == UNKNOWN:
        reason = "killed, as the kernel does with a process when the machine's memory is used up"
    return Failure(
        f"the vLLM server ran out of memory while it started: {reason}", where=where, mend=_less(config, on_gpu)
    )


def _less(config: EngineConfig, on_gpu: bool) -> str:
    """What takes less memory."""
    if not on_gpu:
        return f"a smaller model or context for [{config.table}], or a smaller VLLM_CPU_KVCACHE_SPACE (GiB)"
    from foundation.profiles import smaller

    less = smaller(config.profile) if config.profile else None
    named = f'{config.table}.profile = "{less.name}" ({less.model}), ' if less else ""
    return (
        f"end what else holds memory (`nvidia-smi`); else {named}a smaller model or context, or a lower "
        f"--gpu-memory-utilization in {config.table}.args"
    )


UNKNOWN = "no reason given"


def _reason(log: str, like: str = "") -> str:
    """The last line that names an error, of those that say something `like` that if there are any; the log has the rest."""
    # the second form is pydantic's, the third the command line's
    errors: list[str] = re.findall(r"(?:\b\w+(?:Error|Exception): |Value error, |error: ).+", log)
    known = [error for error in errors if not HEARSAY.search(error)] or errors
    fitting = [error for error in known if like and re.search(like, error, re.IGNORECASE)]
    return (fitting or known or [UNKNOWN])[-1].strip()[:300]
