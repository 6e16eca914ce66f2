"""Where the trainer keeps what it makes, and how a whole folder of it is replaced at once.

Guarantees: a folder made with `new_folder` is seen whole or not at all; whatever kills the writer, the former folder
stays. Its name is a link to a generation beside it, and the link is replaced in one step.
Cost: one fsync a file; two generations on disk while the new one is written.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.errors import UsageError

if TYPE_CHECKING:
    from foundation.records import Split
    from foundation.workspace import Workspace

SPLITS: tuple[Split, ...] = ("train", "phrasing", "unseen")
KEEP = "keep"  # a checkpoint with a file of this name in it is never removed to make room
JUDGED = b"for its judge\n"  # what the orchestrator writes into it; another `keep` is somebody's own


@dataclass(frozen=True)
class TrainPaths:
    """Every path below `train/` that more than one module names."""

    root: Path

    @classmethod
    def of(cls, workspace: Workspace) -> TrainPaths:
        return cls(workspace.train)

    @property
    def shuffled(self) -> Path:
        """What `trainer shuffle` makes, replaced as a whole: manifest, counts and the records of every split."""
        return self.root / "shuffled"

    @property
    def manifest(self) -> Path:
        """The shards and tombstones the shuffled records came from: a `foundation.reader.Manifest`."""
        return self.shuffled / "manifest.json"

    @property
    def shuffle_meta(self) -> Path:
        return self.shuffled / "meta.json"

    def records(self, split: Split) -> Path:
        """Folder of a split's records: `NNNN.jsonl`, to be read in the order of their names."""
        return self.shuffled / split

    @property
    def tokenizer(self) -> Path:
        return self.root / "tokenizer.json"

    @property
    def packs(self) -> Path:
        """What `trainer pack` makes, replaced as a whole: one folder a split."""
        return self.root / "packs"

    def pack(self, split: Split) -> Path:
        return self.packs / split


def run_folder(workspace: Workspace, run: str) -> Path:
    """Where a run lives. Raises `UsageError` for a name that is no plain name."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", run):
        raise UsageError(f"not a run's name: {run!r}", where="--run", mend="use letters, digits, '.', '_' and '-'")
    return workspace.train / "runs" / run


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """An empty folder that takes the place of `target` when the block ends well, and is removed when it does not.

    One writer at a time: the caller holds a lock. What a killed writer left behind is swept up by the next one.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _sweep(target)
    fresh = target.parent / f".{target.name}-{uuid.uuid4().hex[:12]}"
    fresh.mkdir()
    try:
        yield fresh
        _sync(fresh)
        link = fresh.with_name(f"{fresh.name}.link")
        link.symlink_to(fresh.name)
        if target.is_dir() and not target.is_symlink():  # a copy of a workspace may have turned the link into a folder
            target.rename(fresh.with_name(f"{fresh.name}.old"))
        os.replace(link, target)
        sync_path(target.parent)
    finally:
        _sweep(target)


def _sweep(target: Path) -> None:
    """Remove every generation of `target` but the one its link names.

    A folder that was moved aside, and whose place nothing took before the writer was killed, is put back first.
    """
    if not os.path.lexists(target):
        for aside in target.parent.glob(f".{target.name}-*.old"):
            aside.rename(target)
            break
    keep = os.readlink(target) if target.is_symlink() else ""
    for path in target.parent.glob(f".{target.name}-*"):
        if path.is_symlink():
            path.unlink(missing_ok=True)
        elif path.name != keep:
            shutil.rmtree(path, ignore_errors=True)


def _sync(folder: Path) -> None:
    for here, _, names in os.walk(folder):
        for name in names:
            sync_path(Path(here, name))
        sync_path(Path(here))


def sync_path(path: Path) -> None:
    """Make what a file or a folder holds outlast a power loss."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def keep_judged(checkpoint: Path, *, kept: bool = True) -> None:
    """Have a checkpoint kept for its judge, or no longer; a mark of somebody's own stays. One that is gone is no error."""
    mark = checkpoint / KEEP
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        if kept and not mark.exists():
            mark.write_bytes(JUDGED)
        elif not kept and mark.read_bytes() == JUDGED:
            mark.unlink()
