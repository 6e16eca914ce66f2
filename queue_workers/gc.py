"""`factory gc`: removes what nobody needs any more, and forecasts the disk that the plan still needs.

Guarantees: never a shard, a block, a plan file, a prompt type, a tombstone, or the rejects that a committed shard stands
beside; nothing that somebody may be writing: while anyone works here, what belongs to no committed unit stays. Each
removal stands for itself, so a kill in the middle leaves less to remove. With `dry_run` nothing changes.
Cost: lists shards and rejects once (2 µs a file), and reads the first line of each shard that has rejects (30 µs).

What is removed, by kind: `temporaries` of puts that were killed; `superseded` rejects, of attempts at a unit that
another attempt committed; `abandoned` rejects of units that no shard stands for; `run` files of dead processes; `logs`
older than 30 days; `caches` that a killed ingest left; `replies` of a teacher that were kept for units which are committed
by now, or which nobody came back to for 30 days. The index of counts is a cache too, but a costly one: it stays.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import orjson

from foundation.errors import Failure
from foundation.log import PREFIX as LOG
from foundation.reader import REJECTS, SHARDS, most_items
from foundation.store import TEMPORARY
from generator.teachers.kept import REPLIES
from queue_workers import presence, snapshot
from queue_workers.identity import began

if TYPE_CHECKING:
    from foundation.workspace import Workspace

Kind = Literal["temporaries", "superseded", "abandoned", "run", "logs", "caches", "replies"]
PUT = 3600.0  # seconds; a put takes milliseconds
COMMIT = 60.0  # seconds; from an attempt's rejects to its shard, or to their removal, it takes milliseconds
ELSEWHERE = 24 * 3600.0  # seconds after which no other machine still commits what it wrote rejects for
KEPT = timedelta(days=30)  # of event logs, and of replies
_PROCESS = (snapshot.PREFIX, presence.PREFIX)


@dataclass(slots=True)
class Swept:
    """Files of one kind, and their bytes."""

    files: int = 0
    bytes: int = 0


@dataclass
class Sweep:
    """What was removed by kind, or would be. `busy`: somebody works here, so some had to stay."""

    dry_run: bool
    kinds: dict[Kind, Swept] = field(default_factory=dict)
    busy: bool = False

    @property
    def total(self) -> Swept:
        return Swept(sum(one.files for one in self.kinds.values()), sum(one.bytes for one in self.kinds.values()))

    def remove(self, kind: Kind, path: Path, *, age: float = 0.0) -> None:
        """Remove a file if it is `age` seconds old; one that is gone already is no error."""
        with contextlib.suppress(FileNotFoundError):
            found = path.lstat()
            if time.time() - found.st_mtime < age:
                return
            if not self.dry_run:
                path.unlink()
            row = self.kinds.setdefault(kind, Swept())
            row.files += 1
            row.bytes += found.st_blocks * 512


def collect(workspace: Workspace, *, dry_run: bool) -> Sweep:
    """Remove what nobody needs. Raises OSError where it is not allowed to."""
    sweep = Sweep(dry_run)
    with presence.unattended(workspace) as age:
        sweep.busy = age is None
        for folder in (SHARDS, REJECTS):
            for path in _files(workspace.root / folder):
                if path.name.startswith(TEMPORARY) and age is not None:
                    sweep.remove("temporaries", path, age=age)
        _rejects(workspace, sweep, age)
    for folder in ("corpus", "partners", "plan", "prompt_types", "tombstones"):
        for path in _files(workspace.root / folder):
            if path.name.startswith(TEMPORARY):
                sweep.remove("temporaries", path, age=PUT)
    for path in workspace.root.glob(f"{TEMPORARY}*"):
        sweep.remove("temporaries", path, age=PUT)
    _run(workspace, sweep)
    _logs(workspace, sweep)
    _caches(workspace, sweep)
    _replies(workspace, sweep)
    return sweep


def _rejects(workspace: Workspace, sweep: Sweep, age: float | None) -> None:
    """`age` as of `presence.unattended`."""
    for folder, _, names in os.walk(workspace.root / REJECTS):
        by_unit: dict[str, list[Path]] = {}
        for name in sorted(names):
            if not name.startswith(TEMPORARY):
                by_unit.setdefault(name.partition(".")[0], []).append(Path(folder, name))
        # The shards are listed after the rejects: a unit that is being committed has one by now.
        shards = workspace.root / SHARDS / Path(folder).relative_to(workspace.root / REJECTS)
        committed = {name.partition(".")[0] for name in _names(shards)} if by_unit else set()
        for unit, paths in by_unit.items():
            if unit in committed:
                for path in _lost(shards / f"{unit}.jsonl", paths):
                    sweep.remove("superseded", path, age=0.0 if age == 0.0 else COMMIT)
            elif age is not None:
                for path in paths:
                    sweep.remove("abandoned", path, age=ELSEWHERE if age else 0.0)


def _lost(shard: Path, paths: list[Path]) -> list[Path]:
    """The rejects that `reader.committed_rejects` would not read beside this shard."""
    try:
        with open(shard, "rb") as file:
            line = file.readline()
        if not line:  # every item was rejected: of several attempts the file of the most items counts
            kept = paths[most_items([path.read_bytes().splitlines() for path in paths])] if len(paths) > 1 else paths[0]
        else:
            kept = Path(f"{shard.stem}.{orjson.loads(line)['attempt']}.jsonl")
    except (OSError, ValueError, TypeError, KeyError):  # not to be understood: not to be judged
        return []
    return [path for path in paths if path.name != kept.name]


def _run(workspace: Workspace, sweep: Sweep) -> None:
    """What dead processes left in run/. Locks stay: removing one would part those who wait for it from those who hold it."""
    for prefix in _PROCESS:
        for path in workspace.run.glob(f"{prefix}*"):
            digits = path.name.removeprefix(prefix).partition(".")[0]
            if digits.isdigit() and not _is_of(int(digits), path):
                sweep.remove("run", path)


def _is_of(pid: int, path: Path) -> bool:
    """Whether that process is the one which wrote the file: a pid may have gone to another since."""
    beginning = began(pid)
    if not beginning:
        return False
    with contextlib.suppress(OSError, ValueError, AttributeError):
        text = path.read_bytes()
        written = orjson.loads(text).get("began") if path.suffix == ".json" else text.decode()
        return path.suffix == ".new" or written == beginning
    return True


def _logs(workspace: Workspace, sweep: Sweep) -> None:
    today = datetime.now(UTC).date()
    for path in workspace.logs.glob(f"{LOG}*.jsonl"):
        with contextlib.suppress(ValueError):
            if today - date.fromisoformat(path.stem.removeprefix(LOG)) > KEPT:
                sweep.remove("logs", path)


def _caches(workspace: Workspace, sweep: Sweep) -> None:
    from generator.ingest.batch import FOLDER

    try:
        with workspace.lock("ingest", wait=False):
            for folder in workspace.cache.glob(f"{FOLDER}*"):
                for path in _files(folder):
                    sweep.remove("caches", path)
                if not sweep.dry_run:
                    shutil.rmtree(folder, ignore_errors=True)
    except Failure:  # an ingest runs: what is there is its own
        return


def _replies(workspace: Workspace, sweep: Sweep) -> None:
    """What is kept of the teacher's words for a unit that was committed elsewhere, failed for good or was cancelled."""
    folders = list((workspace.cache / REPLIES).glob("*"))
    committed = {path.stem for path in _files(workspace.root / SHARDS)} if folders else set()
    for folder in folders:
        for path in _files(folder):
            sweep.remove("replies", path, age=COMMIT if folder.name in committed else KEPT.total_seconds())
        if not sweep.dry_run:
            with contextlib.suppress(OSError):  # it still holds something, or somebody was faster
                folder.rmdir()


def _files(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        yield from (Path(parent, name) for name in names)


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []
