"""One holder per device: the factory's teacher, a training run and a judge's engine never share a GPU.

Guarantees: kernel locks alone (`flock`), so a process that dies, however it dies, holds and wants nothing; an asker is
served before the holder can take the device again; whoever gets a device first ends what a killed holder left running on
it. Forks and children do not keep the lock. Cost: under 1 ms to take a free device and to look who wants it. It knows the
processes of one user on one machine alone: what another user runs on a GPU shows in its memory only.

In a folder that only this user can enter, /tmp/qpt-UID, each device NAME has two files: who holds it has NAME.lock locked,
and who waits for it NAME.wanted; each names its owner inside, which counts only while it is locked. The folder is the same
for a login, a service and cron: one that comes and goes with a login (`/run/user/UID`) would let two hold one device.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from foundation.console import say
from foundation.errors import Failure
from foundation.ids import stable_id
from foundation.processes import end_marked, visible_gpus

STAGE = (
    "QPT_STAGE_OF"  # in the environment of every process of an orchestrated run's stages: their parent holds for them
)
MARK = "QPT_DEVICE_OF"  # in the environment of every process that a holder starts on its device
FOLDER = "QPT_DEVICES"  # in the environment of tests alone: another folder for the locks
PATIENCE = 20.0  # seconds a leftover gets to end well: a training stage may be writing its checkpoint
BRIEFLY = 0.3  # seconds a lock may be busy because somebody looks at it

_open_files: set[int] = set()


def _close_in_child() -> None:
    """A fork must not keep its parent's locks."""
    for descriptor in _open_files:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _open_files.clear()


os.register_at_fork(after_in_child=_close_in_child)


@dataclass(frozen=True)
class DeviceHold:
    """A device that is ours. `environment` goes to every process started on it, so that none can outlive us unseen."""

    name: str
    environment: dict[str, str]
    _lock: int | None

    def wanted(self) -> str:
        """Who asks for the device; empty if nobody does. Under 0.1 ms, to be called every few seconds."""
        if self._lock not in _open_files:  # not ours: a stage's parent has it, or this is a fork
            return ""
        with contextlib.suppress(OSError):
            os.utime(self._lock)  # whatever clears old files away must take this one for new
        return device_wanted_by(self.name)


def device_name() -> str:
    """`gpu-N` of the first GPU that this process may use, `cpu` where there is none."""
    gpus = visible_gpus()
    return f"gpu-{gpus[0]}" if gpus else "cpu"


def device_holder(name: str = "") -> str:
    """Who holds the device (default: the first one), as `PURPOSE, pid N`; empty if it is free."""
    return _owner(_folder() / f"{name or device_name()}.lock")


def device_wanted_by(name: str = "") -> str:
    """Who waits for the device (default: the first one), as `PURPOSE, pid N`; empty if nobody does."""
    return _owner(_folder() / f"{name or device_name()}.wanted")


@contextlib.contextmanager
def hold_device(purpose: str, *, ask: bool = False, name: str = "") -> Iterator[DeviceHold]:
    """Hold the device (default: the first one) until the context ends. `purpose` is what others are told.

    With `ask` its holder is asked for it and waited for, as long as it takes, and one line says so; without, a device that
    is held or asked for is a `Failure` that names by whom. In a stage of an orchestrated run nothing is taken: its
    parent holds the device.
    """
    name = name or device_name()
    if os.environ.get(STAGE):
        yield DeviceHold(name, {}, None)
        return
    folder = _folder()
    lock = (_ask if ask else _take)(folder, name, f"{purpose}, pid {os.getpid()}")
    try:
        mark = stable_id("device", str(folder), name)
        with _kept(folder):
            end_marked(MARK, mark, f"what a killed process left on {_told(name)}", PATIENCE)
            yield DeviceHold(name, {MARK: mark}, lock)
    finally:
        _close(lock)


@contextlib.contextmanager
def _kept(folder: Path) -> Iterator[None]:
    """Keep what clears old files away (systemd-tmpfiles) out of the folder: it passes over one that is locked."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    _open_files.add(descriptor)
    try:
        with contextlib.suppress(BlockingIOError):  # it clears there just now
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield
    finally:
        _close(descriptor)


def _take(folder: Path, name: str, who: str) -> int:
    """The lock, if nobody has it and nobody waits for it."""
    wanted = _lock_now(folder / f"{name}.wanted", "", fcntl.LOCK_SH)  # shared: no asker can come in between
    if wanted is None:
        raise _busy(name, "asked for", device_wanted_by(name))
    try:
        lock = _lock_now(folder / f"{name}.lock", who)
    finally:
        _close(wanted)
    if lock is None:
        raise _busy(name, "held", device_holder(name))
    return lock


def _ask(folder: Path, name: str, who: str) -> int:
    """The lock, however long it takes. The lock on NAME.wanted is the line to stand in: its owner is next."""
    place = folder / f"{name}.wanted"
    first = _lock_now(place, who)
    if first is None:
        say(f"{_told(name)} is asked for by {device_wanted_by(name) or 'another process'} already: waiting in line")
    wanted = _wait_for_lock(place, who) if first is None else first
    try:
        lock = _lock_now(folder / f"{name}.lock", who)
        if lock is not None:
            return lock
        say(f"{_told(name)} is held by {device_holder(name) or 'another process'}: asked it to hand over, waiting")
        lock = _wait_for_lock(folder / f"{name}.lock", who)
        say(f"{_told(name)} is ours now")
        return lock
    finally:
        _close(wanted)


def _lock_now(path: Path, who: str, kind: int = fcntl.LOCK_EX) -> int | None:
    """An open file with its lock, `who` written into it; None if it stays busy."""
    until = time.monotonic() + BRIEFLY
    while time.monotonic() < until:
        with contextlib.suppress(BlockingIOError):
            descriptor = _lock(path, who, kind | fcntl.LOCK_NB)
            if descriptor is not None:
                return descriptor
        time.sleep(BRIEFLY / 10)
    return None


def _wait_for_lock(path: Path, who: str) -> int:
    """The same, however long it takes."""
    while True:
        descriptor = _lock(path, who, fcntl.LOCK_EX)
        if descriptor is not None:
            return descriptor


def _lock(path: Path, who: str, how: int) -> int | None:
    """None if the file was cleared away before we had its lock. Raises `BlockingIOError`."""
    descriptor = _open(path)
    try:
        fcntl.flock(descriptor, how)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                if how & fcntl.LOCK_EX:
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, who.encode(), 0)
                return descriptor
    except BaseException:  # Ctrl-C too
        _close(descriptor)
        raise
    _close(descriptor)
    return None


def _owner(path: Path) -> str:
    """What the one who has `path` locked wrote into it; empty if nobody has."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return ""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.pread(descriptor, 4096, 0).decode("utf-8", "replace") or "another process"
    finally:
        os.close(descriptor)
    return ""


def _open(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)  # closed on exec, as all of Python's are
    _open_files.add(descriptor)
    if os.fstat(descriptor).st_uid != os.getuid():
        _close(descriptor)
        raise _foreign(path)
    return descriptor


def _close(descriptor: int) -> None:
    if descriptor in _open_files:  # in a fork it is closed already, and its number may be another file's
        _open_files.discard(descriptor)
        os.close(descriptor)


def _folder() -> Path:
    """Where the locks are: one place that never moves, whatever TMPDIR or a login says."""
    folder = Path(os.environ.get(FOLDER) or f"/tmp/qpt-{os.getuid()}")
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise _foreign(folder)
    return folder


def _told(name: str) -> str:
    return f"GPU {name.removeprefix('gpu-')}" if name.startswith("gpu-") else f"the {name.upper()}"


def _busy(name: str, how: str, who: str) -> Failure:
    return Failure(
        f"{_told(name)} is {how} by {who or 'another process'}",
        where=str(_folder() / f"{name}.lock"),
        mend="wait until it ends, or end it: `factory stop` in its workspace, Ctrl-C where it runs, or `kill PID`",
    )


def _foreign(path: Path) -> Failure:
    return Failure(
        "the place for the locks on devices is not this user's alone",
        where=str(path),
        mend="remove it while nothing of the factory runs, as root if it is another user's",
    )
