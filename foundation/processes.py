"""Process groups: started in a session of their own, ended with all their children, and checked to be gone.

Guarantees: after `ProcessGroup.end()` no process of its session is alive, else it raises, naming the pids; a group
started with `die_with_parent` gets SIGTERM when its parent dies, however it dies (Linux). GPU memory counts as given
back only when NVML says so. Cost: ending waits for the processes themselves; polling every 50 ms.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from foundation.errors import Failure

PR_SET_PDEATHSIG = 1


def die_with_parent(signal_number: int = signal.SIGTERM) -> None:
    """Ask the kernel to send this process a signal when its parent dies. Does nothing where prctl is not (macOS)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal_number, 0, 0, 0)


def session_members(session: int) -> list[int]:
    """Pids alive (zombies left out) whose session is `session`; read from /proc, so grandchildren count too."""
    members = []
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = Path(f"/proc/{entry.name}/stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] not in "ZX":
                members.append(int(entry.name))
    return members


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
        """The last lines of the log, for an error message."""
        if self.log is None or not self.log.exists():
            return ""
        return "\n".join(self.log.read_text("utf-8", "replace").splitlines()[-lines:])

    def _gone(self, seconds: float) -> bool:
        until = time.monotonic() + seconds
        while True:
            self.process.poll()  # reap the leader, or it stays a zombie
            if not session_members(self.session):
                return True
            if time.monotonic() >= until:
                return False
            time.sleep(0.05)


@contextlib.contextmanager
def running(group: ProcessGroup, patience: float = 20.0) -> Iterator[ProcessGroup]:
    """End the group on the way out, whatever happens."""
    try:
        yield group
    finally:
        group.end(patience)


def gpu_memory_used() -> list[int] | None:
    """Bytes in use on each NVIDIA GPU, by NVML; None where there is none."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # no library or no driver: pynvml raises its own family, the import its own
        return None
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        return [int(pynvml.nvmlDeviceGetMemoryInfo(handle).used) for handle in handles] or None
    finally:
        pynvml.nvmlShutdown()


def await_gpu_memory(baseline: Sequence[int] | None, *, slack: int = 256 * 2**20, seconds: float = 30.0) -> None:
    """Wait until every GPU is back at `baseline` bytes (plus `slack`). Raises `Failure`; no GPU, no wait."""
    until = time.monotonic() + seconds
    while baseline is not None:
        used = gpu_memory_used()
        if used is None or all(now <= then + slack for now, then in zip(used, baseline, strict=False)):
            return
        if time.monotonic() >= until:
            held = ", ".join(f"GPU {index}: {now / 2**30:.1f} GiB" for index, now in enumerate(used))
            raise Failure(
                "GPU memory was not given back", where=held, mend="see `nvidia-smi` for the process that holds it"
            )
        time.sleep(0.2)
