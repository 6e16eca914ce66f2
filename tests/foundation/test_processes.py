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
    gpu_occupants,
    gpu_processes,
    running,
    session_members,
    visible_gpus,
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
    """What pynvml offers, for `gpus` GPUs: there is none here. `pids` are at work on the first; None: it cannot tell."""

    class NVMLError(Exception):
        pass

    def __init__(self) -> None:
        self.gpus, self.used, self.pids = 1, 2**30, [1]  # type: int, int, list[int] | None
        self.names: dict[int, str] = {}
        self.bytes: dict[int, int] = {}
        self.second: list[int] = []

    def nvmlInit(self) -> None: ...
    def nvmlShutdown(self) -> None: ...
    def nvmlDeviceGetCount(self) -> int:
        return self.gpus

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetUUID(self, handle: int) -> str:
        return f"GPU-{'abcd'[handle] * 4}"

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        return SimpleNamespace(used=self.used if handle == 0 else handle)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[Any]:
        if self.pids is None:
            raise self.NVMLError
        pids = self.pids if handle == 0 else self.second
        return [SimpleNamespace(pid=pid, usedGpuMemory=self.bytes.get(pid)) for pid in pids]

    def nvmlSystemGetProcessName(self, pid: int) -> str:
        if pid not in self.names:
            raise self.NVMLError
        return self.names[pid]


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
    assert caught.value.where == f"GPU 0: 3.0 GiB, pid {group.session} (unknown)"  # ended, and named by NVML still
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


GONE = 2**22 + 1  # above the kernel's highest pid: there is no such process


def test_occupants_are_named_with_what_they_hold_whosever_they_are(nvml: FakeNvml) -> None:
    nvml.gpus, nvml.second = 2, [GONE]
    nvml.pids, nvml.bytes = [os.getpid(), GONE, GONE + 1], {GONE: 2**20, GONE + 1: 2**30}
    nvml.names = {GONE: "/usr/bin/ollama"}
    mine = Path(f"/proc/{os.getpid()}/cmdline").read_text().split("\0")[0]
    first = [(0, GONE + 1, "unknown", 2**30), (0, GONE, "/usr/bin/ollama", 2**20), (0, os.getpid(), mine, 0)]
    assert gpu_occupants() == [*first, (1, GONE, "/usr/bin/ollama", 2**20)]
    assert gpu_occupants(visible="0") == first
    nvml.pids = None
    assert gpu_occupants() == []
    nvml.pids, nvml.used = [GONE], 3 * 2**30
    with pytest.raises(Failure, match="not given back") as caught:
        await_gpu_memory([2**30], seconds=0.0, visible="0")
    assert caught.value.where == f"GPU 0: 3.0 GiB, pid {GONE} (/usr/bin/ollama)"


def test_one_gpu_of_two_can_be_watched_whatever_the_environment_says(
    nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvml.gpus, nvml.pids, nvml.second = 2, [GONE], [GONE + 1]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert (gpu_memory_used(), visible_gpus(), gpu_processes([GONE, GONE + 1])) == ([2**30], [0], {GONE})
    assert (gpu_memory_used(visible="1"), visible_gpus("GPU-bbbb")) == ([1], [1])
    assert gpu_processes([GONE, GONE + 1], visible="1") == {GONE + 1}
    assert gpu_memory_used(visible="") is None  # an empty setting hides all
    nvml.used = 3 * 2**30  # on the GPU that is not looked at
    await_gpu_memory([1], seconds=0.0, visible="1")
    await_gpu_memory([1], [GONE], seconds=0.0, visible="1")
    with pytest.raises(Failure) as caught:
        await_gpu_memory([1], [GONE + 1], seconds=0.0, visible="1")
    assert caught.value.where == f"GPU 1: 0.0 GiB, pid {GONE + 1} (unknown)"


def test_where_there_is_no_nvml_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)  # an import of it fails
    assert (gpu_memory_used(visible="0"), visible_gpus("0"), gpu_occupants("0")) == (None, [], [])
    await_gpu_memory([1], [22], seconds=0.0)
