"""Process groups end whole: children, grandchildren, and those that ignore TERM."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from foundation.errors import Failure
from foundation.processes import (
    TAIL,
    ProcessGroup,
    await_gpu_memory,
    gpu_memory_used,
    gpu_processes,
    running,
    session_members,
)

FAMILY = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"])
subprocess.Popen([sys.executable, "-c", "import os, time; os.setpgid(0, 0); time.sleep(60)"])
print("up", flush=True)
time.sleep(60)
"""


def _wait_for(condition, seconds: float = 15.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.02)


def test_end_leaves_no_member(tmp_path: Path) -> None:
    group = ProcessGroup([sys.executable, "-c", FAMILY], name="family", log=tmp_path / "log")
    _wait_for(lambda: len(session_members(group.session)) == 3 and "up" in group.tail())
    time.sleep(0.3)  # the child needs a moment to ignore TERM
    group.end(patience=0.5)
    assert session_members(group.session) == []
    assert not group.alive


def test_running_ends_the_group_when_the_body_fails(tmp_path: Path) -> None:
    group = ProcessGroup([sys.executable, "-c", "import time; time.sleep(60)"], name="sleeper", log=tmp_path / "log")
    with pytest.raises(RuntimeError), running(group):
        raise RuntimeError
    assert not group.alive


def test_a_killed_parent_takes_its_group_along(tmp_path: Path) -> None:
    script = (
        "import sys, time\nfrom foundation.processes import ProcessGroup\n"
        "group = ProcessGroup([sys.executable, '-c', 'import time; time.sleep(60)'], name='child')\n"
        "print(group.session, flush=True)\ntime.sleep(60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    assert parent.stdout is not None
    session = int(parent.stdout.readline())
    assert session_members(session)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait(10)
    _wait_for(lambda: not session_members(session))


def test_a_missing_program_is_a_failure() -> None:
    with pytest.raises(Failure, match="no such program"):
        ProcessGroup(["/no/such/program"], name="nothing")


def test_the_tail_is_of_this_start_and_reads_no_more_than_it_must(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("Repository Not Found\n")
    said = f"print('first'); print('x' * {2 * TAIL}); print('last', end='')"
    for _ in range(2):
        group = ProcessGroup([sys.executable, "-c", "print('noise'); print('end')"], name="server", log=log)
        group.wait(30)
        assert group.tail() == "noise\nend"
    loud = ProcessGroup([sys.executable, "-c", said], name="server", log=log)
    loud.wait(30)
    assert loud.tail(1) == "last"
    assert len(loud.tail(100)) == TAIL
    assert "first" not in loud.tail(100)


class FakeNvml:
    """What pynvml offers, for one GPU: there is none here. `pids` are at work on it; None: it cannot tell."""

    class NVMLError(Exception):
        pass

    def __init__(self) -> None:
        self.used, self.pids = 2**30, [1]  # type: int, list[int] | None

    def nvmlInit(self) -> None: ...
    def nvmlShutdown(self) -> None: ...
    def nvmlDeviceGetCount(self) -> int:
        return 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetUUID(self, handle: int) -> str:
        return "GPU-aaaa"

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        return SimpleNamespace(used=self.used)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[Any]:
        if self.pids is None:
            raise self.NVMLError
        return [SimpleNamespace(pid=pid, usedGpuMemory=None) for pid in self.pids]


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    fake = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return fake


def test_memory_is_back_when_our_processes_left_whatever_a_desktop_took_meanwhile(nvml: FakeNvml) -> None:
    baseline = gpu_memory_used()
    assert baseline == [2**30]
    with running(ProcessGroup([sys.executable, "-c", "import time; time.sleep(60)"], name="server")) as group:
        assert nvml.pids is not None
        nvml.pids.append(group.session)
        ours = gpu_processes(session_members(group.session))
        assert ours == {group.session}
    nvml.used = 3 * 2**30
    with pytest.raises(Failure, match="not given back") as caught:  # NVML names it still
        await_gpu_memory(baseline, ours, seconds=0.0)
    assert caught.value.where == f"GPU 0: 3.0 GiB, by pids {group.session}"
    nvml.pids.remove(group.session)
    await_gpu_memory(baseline, ours, seconds=0.0)


def test_where_no_process_is_named_memory_tells(nvml: FakeNvml) -> None:
    baseline, nvml.pids, nvml.used = gpu_memory_used(), None, 3 * 2**30
    assert gpu_processes([1, os.getpid()]) == set()
    with pytest.raises(Failure, match="not given back"):
        await_gpu_memory(baseline, seconds=0.0)
    nvml.used = 2**30 + 200 * 2**20
    await_gpu_memory(baseline, seconds=0.0)
    await_gpu_memory(None, seconds=0.0)
