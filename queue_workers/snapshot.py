"""What a running `factory run` or `factory work` says of itself: `run/state-PID.json`, for every other command to read.

Guarantees: a reader sees one whole snapshot or none; one of a process that is gone, or whose pid went to another process,
is never taken for news. Cost: a small file written every two seconds; nothing is fsynced, since it dies with its writer.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from foundation.records import Contract
from foundation.store import replace_file
from queue_workers.identity import alive, began

if TYPE_CHECKING:
    from foundation.workspace import Workspace

State = Literal["starting", "working", "idle", "paused", "waiting", "draining"]
PREFIX = "state-"


class GpuUse(Contract):
    """One GPU now. `used` and `total` in bytes, `busy` a share, `watts` its draw; None where it does not tell."""

    name: str
    used: int
    total: int
    busy: float | None = None
    watts: float | None = None


class TeacherUse(Contract):
    """The teacher now. `running` and `waiting` are requests in its server, `limit` how many a worker may have in flight (0: not
    known); `hits` of `queries` prompt tokens were in the prefix cache, of all servers that this command had."""

    name: str = ""
    state: Literal["none", "starting", "well", "dead", "hung"] = "none"
    running: int = 0
    waiting: int = 0
    queries: int = 0
    hits: int = 0
    limit: int = 0
    restarts: int = 0

    @property
    def hit_ratio(self) -> float | None:
        """The share of prompt tokens that the prefix cache had; None where no server told."""
        return self.hits / self.queries if self.queries else None


class Snapshot(Contract):
    """`began` is the kernel's word on when the process did, `since` the clock's (seconds since 1970). Rates are over the
    last minutes; counts are of this process. `reason` says why it waits; `hours` at work, `kwh` and
    `money` are what the workspace used so far."""

    v: Literal[1] = 1
    pid: int
    began: str
    command: Literal["run", "work"]
    since: float
    written: float
    state: State
    reason: str = ""
    workers: int = 0
    units: int = 0
    items: int = 0
    accepted: int = 0
    records: int = 0
    tokens: int = 0
    records_per_second: float = 0.0
    tokens_per_second: float = 0.0
    items_per_second: float = 0.0
    worker_deaths: int = 0
    redis_restarts: int = 0
    handovers: int = 0
    round: int | None = None
    teacher: TeacherUse = TeacherUse()
    gpus: tuple[GpuUse, ...] = ()
    hours: float = 0.0
    kwh: float = 0.0
    money: float = 0.0


def write(workspace: Workspace, snapshot: Snapshot) -> None:
    """Put this process's snapshot in place; a disk without room is no error."""
    path = workspace.run / f"{PREFIX}{snapshot.pid}.json"
    with contextlib.suppress(OSError):
        replace_file(path, snapshot.model_dump_json().encode())


def remove(workspace: Workspace) -> None:
    """Take this process's snapshot away, as it ends."""
    for suffix in (".json", ".new"):
        (workspace.run / f"{PREFIX}{os.getpid()}{suffix}").unlink(missing_ok=True)


def read(workspace: Workspace) -> list[Snapshot]:
    """Snapshots of the processes that run here now, the longest-running first. Those of dead ones are removed."""
    found = []
    for path in sorted(workspace.run.glob(f"{PREFIX}*.json")):
        with contextlib.suppress(OSError, ValidationError):
            snapshot = Snapshot.model_validate_json(path.read_bytes())
            if alive(snapshot.pid, snapshot.began):
                found.append(snapshot)
            else:
                _drop(path)
    return sorted(found, key=lambda snapshot: snapshot.since)


def mine() -> dict[str, Any]:
    """What identifies this process in its snapshot."""
    return {"pid": os.getpid(), "began": began(os.getpid())}


def _drop(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
