"""Who works in this workspace now, on this host; and what killed workers left half-written.

Guarantees: a record of a process that died, or whose pid went to another process, is never signalled; temporary files
are swept only when nobody who could be writing them is left. Cost: one walk over shards and rejects when a
`factory work` begins or ends alone (about 1 µs a file).

Who is at work holds a shared lock on `run/work.users`; forked workers inherit it, so it outlives a killed parent until
its last child is gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from foundation.errors import Failure
from foundation.reader import SHARDS
from foundation.store import TEMPORARY
from queue_workers import snapshot
from queue_workers.identity import alive, began
from queue_workers.ledger import REJECTS

if TYPE_CHECKING:
    from foundation.workspace import Workspace

PREFIX = "work-"  # run/work-PID holds when that process began


@contextlib.contextmanager
def at_work(workspace: Workspace) -> Iterator[None]:
    """Be known as at work here until the context ends."""
    record = workspace.run / f"{PREFIX}{os.getpid()}"
    with open(workspace.run / "work.users", "ab") as users:
        _sweep_if_alone(workspace, users)
        fcntl.flock(users, fcntl.LOCK_SH)
        record.write_text(began(os.getpid()), "utf-8")
        try:
            yield
        finally:
            record.unlink(missing_ok=True)
            _sweep_if_alone(workspace, users)


@contextlib.contextmanager
def unattended(workspace: Workspace) -> Iterator[float | None]:
    """None if somebody is at work on this host; else nobody can begin until the context ends.

    The number is the age in seconds from which on a file is not being written by another machine either.
    """
    with open(workspace.run / "work.users", "ab") as users:
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield written_by_now(workspace)


def written_by_now(workspace: Workspace) -> float:
    """Seconds after which a file in shards or rejects is not being written by another machine."""
    queue = workspace.settings.queue
    # With a Redis of its own the workspace is this host's alone; else another machine may be writing right now.
    return 2.0 * queue.lease if queue.url.get_secret_value() else 0.0


def workers(workspace: Workspace) -> dict[int, str]:
    """Pids of the `factory work` that run here, and when each began. Records of dead ones are removed."""
    found = {}
    for record in workspace.run.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError, ValueError):
            pid, beginning = int(record.name.removeprefix(PREFIX)), record.read_text("utf-8")
            if alive(pid, beginning):
                found[pid] = beginning
            else:
                record.unlink(missing_ok=True)
    return found


def drain(found: dict[int, str], seconds: float) -> list[int]:
    """Ask these to finish what they have in hand and end; those that have not after `seconds`."""
    for pid, beginning in found.items():
        with contextlib.suppress(ProcessLookupError):
            if alive(pid, beginning):
                os.kill(pid, signal.SIGTERM)
    until = time.monotonic() + seconds
    while left := [pid for pid, beginning in found.items() if alive(pid, beginning)]:
        if time.monotonic() > until:
            break
        time.sleep(0.05)
    return left


def _sweep_if_alone(workspace: Workspace, users: IO[bytes]) -> None:
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    age = written_by_now(workspace)
    for folder in (SHARDS, REJECTS):
        for parent, _, names in os.walk(workspace.root / folder):
            for name in names:
                if name.startswith(TEMPORARY):
                    _remove(Path(parent, name), age)


def _remove(path: Path, age: float) -> None:
    with contextlib.suppress(FileNotFoundError):
        if time.time() - path.stat().st_mtime >= age:
            path.unlink()


@contextlib.contextmanager
def alone(workspace: Workspace) -> Iterator[None]:
    """One `factory run` a workspace. Raises `Failure` that names the other one."""
    lock = workspace.lock("run", wait=False)
    try:
        lock.__enter__()
    except Failure as error:
        from queue_workers.view import moment

        other = next((one for one in snapshot.read(workspace) if one.command == "run"), None)
        who = f"pid {other.pid}, since {moment(other.since)}" if other else error.what.removeprefix("run is held by ")
        raise Failure(
            f"another `factory run` is at work in this workspace: {who}",
            where=str(workspace.root),
            mend="`factory stop` ends it, `factory status` shows it; `factory work` joins it with more workers",
        ) from None
    try:
        yield
    finally:
        lock.__exit__(None, None, None)
