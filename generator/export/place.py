"""Where an export goes: a folder that is there whole or not at all.

Guarantees: what stands at the place already is refused and left as it is; the files are written into a hidden folder
beside it and appear by one rename, after an fsync of each. A kill leaves at most that hidden folder, which the next
export to the same place removes; one that another process is writing is refused.
Cost: one fsync a file.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from foundation.console import say
from foundation.errors import Failure, UsageError
from foundation.store import NO_SYNC

LOCK = ".lock"
LONGEST_NAME = 255  # bytes, on any file system of Linux
OWN = "cache corpus logs partners plan prompt_types prompts rejects run shards tombstones train".split()
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def check_free(out: Path) -> None:
    """Raises `UsageError` if something stands at `out`, or if it has no folder to stand in."""
    if os.path.lexists(out):
        raise UsageError(
            "there is something here already, and an export never writes over anything: it was left as it is",
            where=str(out),
            mend="name a folder that is not there yet, or move that one away",
        )
    parent = out.parent
    if len(os.fsencode(f".{out.name}.exporting")) > LONGEST_NAME:
        raise UsageError("this name is too long for a folder", where=out.name, mend="take a shorter one")
    if not parent.is_dir():
        raise UsageError("there is no such folder to make the export in", where=str(parent), mend=f"mkdir -p {parent}")


def check_outside(out: Path, workspace: Path) -> None:
    """Raises `UsageError` if `out` lies where the workspace keeps its own: rows in `shards/` would be taken for shards."""
    with contextlib.suppress(ValueError):
        parts = out.resolve().relative_to(workspace).parts
        if parts and parts[0] in OWN:
            raise UsageError(
                f"{parts[0]}/ is the workspace's own", where=str(out), mend="name a folder of its own, or one elsewhere"
            )


def check_room(out: Path, needed: int) -> None:
    """Raises `Failure` if `needed` bytes, as estimated, do not fit beside `out`."""
    free = shutil.disk_usage(out.parent).free
    if free < needed:
        raise Failure(
            f"not enough room: the export takes about {_mb(needed)} MB, and {_mb(free)} MB are free; nothing was written",
            where=str(out.parent),
            mend="free some space, name a folder on another disk, or export less (--prompt-type, --split)",
        )


def _mb(size: int) -> str:
    return f"{max(1, round(size / 2**20)):,}"


@contextlib.contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A hidden folder beside `out` to write into; it becomes `out` when the block ends well, and is removed if it does not."""
    check_free(out)
    temporary = out.parent / f".{out.name}.exporting"
    try:
        with _owned(temporary, out):
            try:
                yield temporary
                _settle(temporary, out)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise Failure(
            "the disk is full: the export was given up, and nothing of it is left",
            where=str(out.parent),
            mend="free some space, name a folder on another disk, or export less (--prompt-type, --split); then give "
            "the same command again",
        ) from error
    (out / LOCK).unlink(missing_ok=True)
    sync_folder(out)


@contextlib.contextmanager
def _owned(temporary: Path, out: Path) -> Iterator[None]:
    """Hold the hidden folder, empty, for this process alone."""
    try:
        temporary.mkdir()
        left = False
    except FileExistsError:
        left = True
        if temporary.is_symlink() or not temporary.is_dir() or ((found := os.listdir(temporary)) and LOCK not in found):
            raise UsageError(
                "the name an export is made under is taken by something that is no export",
                where=str(temporary),
                mend="move it away, or name another folder",
            ) from None
    with open(temporary / LOCK, "a+b") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Failure(
                "another export to this place is going on", where=str(out), mend="wait for it, or name another folder"
            ) from error
        check_free(out)  # again: the one that held the lock may just have ended well
        if left:
            for path in temporary.iterdir():
                if path.name != LOCK:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            say(f"removed what an export that was broken off had left: {temporary}")
        yield


def _settle(temporary: Path, out: Path) -> None:
    for folder in sorted({path.parent for path in temporary.rglob("*")}):
        sync_folder(folder)
    try:
        os.rename(temporary, out)  # over a folder with anything in it, or over a file, the system refuses it
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        check_free(out)
        raise
    sync_folder(out.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder last."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def sync(descriptor: int) -> None:
    """Make an open file or folder last, on any file system that can."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_SYNC:
            raise
