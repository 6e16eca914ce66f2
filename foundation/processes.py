"""Process groups: started in a session of their own, ended with all their children, and checked to be gone.

Guarantees: after `ProcessGroup.end()` no process of its session is alive, else it raises, naming the pids; a group
started with `die_with_parent` gets SIGTERM when its parent dies, however it dies (Linux); what outlives a killed parent
all the same is found by a mark in its environment, and ended. GPU memory counts as given back only when NVML says so: that
our processes have left the GPU where it names them, else that no more is in use than before.
Cost: ending waits for the processes themselves, polling every 50 ms; looking for a mark reads /proc, some 20 µs a process.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from foundation.console import say
from foundation.errors import Failure

T = TypeVar("T")
PR_SET_PDEATHSIG = 1
POLL = 0.05
TAIL = 64 * 2**10  # bytes of a log that are read for an error message


def die_with_parent(signal_number: int = signal.SIGTERM) -> None:
    """Ask the kernel to send this process a signal when its parent dies. Does nothing where prctl is not (macOS)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal_number, 0, 0, 0)


def session_members(session: int) -> list[int]:
    """Pids alive (zombies left out) whose session is `session`; read from /proc, so grandchildren count too."""
    return [pid for pid in _pids() if _session(pid) == session]


def _pids() -> list[int]:
    return [int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit()]


def _session(pid: int) -> int | None:
    """The session of a living process; None of a zombie, or when there is none."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        if fields[0] not in "ZX":
            return int(fields[3])
    return None


def marked(name: str, value: str) -> list[int]:
    """Pids of the living processes, but for this one, that were started with `name=value` in their environment."""
    wanted = f"{name}={value}".encode()
    found = []
    for pid in _pids():
        with contextlib.suppress(OSError):  # gone meanwhile, or somebody else's
            if pid != os.getpid() and wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                found.append(pid)
    return found


def end_marked(name: str, value: str, what: str, patience: float) -> None:
    """End the processes marked `name=value`, saying which: TERM, and KILL after `patience` seconds.

    Raises `Failure` if one cannot be ended.
    """
    seen = set(marked(name, value))
    if not seen:
        return
    say(f"ending {what}: pids {', '.join(map(str, sorted(seen)))}")

    def left() -> list[int]:
        # Who is dying has lost its environment before it has given back all it holds: it is known by its pid.
        seen.update(marked(name, value))
        return [pid for pid in sorted(seen) if _session(pid) is not None]

    for number, seconds in ((signal.SIGTERM, patience), (signal.SIGKILL, 10.0)):
        for pid in left():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        if _wait(lambda: not left(), seconds):
            return
    pids = ", ".join(map(str, left()))
    raise Failure(f"could not be ended: {what}", where=f"pids {pids}", mend="`kill -9 PID`")


def _wait(condition: Callable[[], bool], seconds: float) -> bool:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= until:
            return False
        time.sleep(POLL)
    return True


class ProcessGroup:
    """One command in a session of its own. Its output goes to `log`, or is inherited when `log` is None."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        name: str,
        log: Path | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        parent_death: bool = True,
    ) -> None:
        self.name, self.log = name, log
        self._log_start = log.stat().st_size if log and log.exists() else 0
        parent = os.getpid()

        def prepare() -> None:
            if parent_death:
                die_with_parent()
                if os.getppid() != parent:  # it died before we asked
                    os._exit(1)

        with contextlib.ExitStack() as stack:
            output = stack.enter_context(open(log, "ab")) if log else None
            try:
                self.process = subprocess.Popen(
                    list(argv),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT if output else None,
                    env={**os.environ, **(env or {})},
                    cwd=cwd,
                    start_new_session=True,
                    preexec_fn=prepare,
                )
            except FileNotFoundError as error:
                raise Failure(
                    f"{name} cannot be started: no such program", where=argv[0], mend="install it, or check PATH"
                ) from error
        self.session = self.process.pid

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def wait(self, timeout: float | None = None) -> int:
        """The leader's exit code. Raises subprocess.TimeoutExpired."""
        return self.process.wait(timeout)

    def signal(self, number: int) -> None:
        """Send a signal to the whole group; one that is gone is no error."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.session, number)

    def end(self, patience: float = 20.0) -> None:
        """TERM to the group, KILL after `patience` seconds, and wait until no member of the session is left."""
        self.signal(signal.SIGTERM)
        self._gone(patience)
        for pid in session_members(self.session):  # members that made a process group of their own as well
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not self._gone(10.0):
            left = ", ".join(map(str, session_members(self.session)))
            raise Failure(
                f"{self.name} could not be ended", where=f"pids {left}", mend="end them by hand: `kill -9 PID`"
            )

    def tail(self, lines: int = 15) -> str:
        """The last lines that it wrote into its log, for an error message; not those of earlier starts. Reads 64 KB at most."""
        if self.log is None or not self.log.exists():
            return ""
        with open(self.log, "rb") as file:
            file.seek(max(self._log_start, os.fstat(file.fileno()).st_size - TAIL))
            return "\n".join(file.read(TAIL).decode("utf-8", "replace").splitlines()[-lines:])

    def _gone(self, seconds: float) -> bool:
        def gone() -> bool:
            self.process.poll()  # reap the leader, or it stays a zombie
            return not session_members(self.session)

        return _wait(gone, seconds)


@contextlib.contextmanager
def running(group: ProcessGroup, patience: float = 20.0) -> Iterator[ProcessGroup]:
    """End the group on the way out, whatever happens."""
    try:
        yield group
    finally:
        group.end(patience)


class Occupant(NamedTuple):
    """A process at work on a GPU: NVML's number of the GPU, the pid, what it is called, and the bytes that it holds there."""

    gpu: int
    pid: int
    name: str
    bytes: int


def gpu_memory_used(visible: str | None = None) -> list[int] | None:
    """Bytes in use on each NVIDIA GPU that this process may use, by NVML; None where there is none.

    `visible`, here and below: which GPUs to look at, a `CUDA_VISIBLE_DEVICES` in place of the environment's.
    """
    return list(_memory(visible).values()) or None


def visible_gpus(visible: str | None = None) -> list[int]:
    """NVML's numbers of the GPUs that this process may use (`CUDA_VISIBLE_DEVICES`), the first one first."""
    return list(_memory(visible))


def gpu_processes(among: Collection[int], visible: str | None = None) -> set[int]:
    """Which of these pids NVML names as at work on the GPUs that this process may use.

    Empty where NVML cannot tell: no GPU, a slice of one (MIG), or pids that are another namespace's, as in a container.
    """
    return {process.pid for process in gpu_occupants(visible)}.intersection(among)


def gpu_occupants(visible: str | None = None) -> list[Occupant]:
    """The processes at work on the GPUs that this process may use, whosever they are; by GPU, who holds most first.

    Empty where NVML cannot tell (as in `gpu_processes`). A desktop's own are not among them: those that compute are. Bytes
    are 0 where NVML names the process alone. In a container a pid may be of another namespace, and the name then another
    process': they are there to tell a person, not to act on.
    """
    found = _each_gpu(_processes, visible)
    return [
        Occupant(gpu, pid, name, held)
        for gpu, processes in found.items()
        for pid, name, held in sorted(processes, key=lambda process: (-process[2], process[0]))
    ]


def _memory(visible: str | None) -> dict[int, int]:
    return _each_gpu(lambda nvml, handle: int(nvml.nvmlDeviceGetMemoryInfo(handle).used), visible)


def _processes(nvml: Any, handle: Any) -> list[tuple[int, str, int]]:
    """Pid, name and bytes of each process that computes on one GPU."""
    try:
        found = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
    except nvml.NVMLError:  # not supported, or not permitted
        return []
    return [(int(process.pid), _name(nvml, int(process.pid)), int(process.usedGpuMemory or 0)) for process in found]


def _name(nvml: Any, pid: int) -> str:
    """What a process calls itself: its first argument, which says more than the 15 characters that the kernel keeps."""
    with contextlib.suppress(OSError):
        argument = Path(f"/proc/{pid}/cmdline").read_bytes().partition(b"\0")[0].decode("utf-8", "replace").strip()
        if argument:
            return argument
    with contextlib.suppress(nvml.NVMLError):
        return str(nvml.nvmlSystemGetProcessName(pid)) or "unknown"
    return "unknown"


def _each_gpu(ask: Callable[[Any, Any], T], visible: str | None) -> dict[int, T]:
    """The answer of each GPU that this process may use, by its number; nothing where there is none."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # no library or no driver: pynvml raises its own family, the import its own
        return {}
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        setting = os.environ.get("CUDA_VISIBLE_DEVICES") if visible is None else visible
        chosen = choose_gpus(setting, [str(pynvml.nvmlDeviceGetUUID(handle)) for handle in handles])
        return {index: ask(pynvml, handles[index]) for index in chosen}
    finally:
        pynvml.nvmlShutdown()


def choose_gpus(setting: str | None, uuids: Sequence[str]) -> list[int]:
    """What `CUDA_VISIBLE_DEVICES` chooses among GPUs with these UUIDs: numbers or UUIDs, up to the first that is neither.

    Numbers are taken as NVML's, which are CUDA's where the GPUs are alike or `CUDA_DEVICE_ORDER` is `PCI_BUS_ID`. A slice
    of a GPU (MIG) is not told from the others: then all count.
    """
    if setting is None or "MIG-" in setting:
        return list(range(len(uuids)))
    chosen: list[int] = []
    for entry in map(str.strip, setting.split(",")):
        found = [
            index
            for index, uuid in enumerate(uuids)
            if entry == str(index) or (entry.startswith("GPU-") and uuid.startswith(entry))
        ]
        if len(found) != 1:
            break
        chosen += found
    return chosen


def await_gpu_memory(
    baseline: Sequence[int] | None,
    ours: Collection[int] = (),
    *,
    slack: int = 256 * 2**20,
    seconds: float = 30.0,
    visible: str | None = None,
) -> None:
    """Wait until the processes `ours`, as `gpu_processes` named them, have left the GPUs; raises `Failure`.

    Where none was named: until every GPU is back at `baseline` bytes (plus `slack`), which over weeks another program may
    have outgrown. No GPU, no wait.
    """
    until = time.monotonic() + seconds
    while baseline is not None:
        used = _memory(visible)
        left = gpu_processes(ours, visible)
        if not used or (ours and not left):
            return
        if not ours and all(now <= then + slack for now, then in zip(used.values(), baseline, strict=False)):
            return
        if time.monotonic() >= until:
            raise Failure(
                "GPU memory was not given back",
                where=_held(used, [one for one in gpu_occupants(visible) if not ours or one.pid in left]),
                mend="see `nvidia-smi` for the process that holds it",
            )
        time.sleep(0.2)


def _held(used: Mapping[int, int], by: Sequence[Occupant]) -> str:
    """For a message: the memory in use on each GPU, and who is at work there."""
    told = ", ".join(f"GPU {gpu}: {size / 2**30:.1f} GiB" for gpu, size in used.items())
    names = {one.pid: one.name for one in by}
    return told + "".join(f", pid {pid} ({name})" for pid, name in sorted(names.items()))
