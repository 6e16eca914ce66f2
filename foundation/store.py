"""Store: named blobs, each put whole or not at all, over a folder (S3 joins behind the same protocol).

Guarantees: `put_once` puts a name at most once among any number of racing writers, and a reader never sees part of a
blob: bytes go to a temporary name in the blob's own folder, are fsynced, then put in place by a hard link; then the
folder is fsynced. A file system that cannot do that is refused with a `Failure`, by `LocalStore.probe` before any work is
paid for. Cost: about 0.4 ms a put (two fsyncs). Names are relative POSIX paths; `..` is refused.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from foundation.errors import Failure, UsageError, from_os_error

TEMPORARY = ".tmp-"  # prefix of names that are not blobs yet; readers never list them
NOT_HERE = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP)  # how a file system says that it has no hard links
NO_SYNC = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)  # and no fsync
MEND = "put the workspace on a local Linux file system (ext4, xfs, btrfs), or on NFS"
SETTLED = 3.0  # seconds after which a folder's time is no longer that of the tick it changed in (FAT counts in twos)


def replace_file(path: Path, data: bytes) -> None:
    """Put a file of this machine in place whole, or not at all. Nothing is fsynced: for what may be lost, never torn."""
    temporary = path.with_suffix(".new")
    temporary.write_bytes(data)
    os.replace(temporary, path)


class Store(Protocol):
    """This is the whole surface. There is no rename and no append: S3 has neither."""

    def put(self, name: str, data: bytes) -> None: ...
    def put_once(self, name: str, data: bytes) -> bool: ...
    def get(self, name: str) -> bytes: ...
    def exists(self, name: str) -> bool: ...
    def list(self, prefix: str = "") -> Iterator[str]: ...
    def delete(self, name: str) -> None: ...
    def stamp(self, folder: str) -> str | None: ...


def split_name(name: str) -> list[str]:
    """The parts of a blob's name. Raises `UsageError` for a name that could lead out of a store, or that not every store takes."""
    parts = name.split("/")
    if "\0" in name or any(part in ("", ".", "..") for part in parts):
        raise UsageError(f"not a store name: {name!r}", mend="use relative names without '..' or empty parts")
    return parts


class LocalStore:
    """A folder as a store."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def _path(self, name: str) -> Path:
        return self.root.joinpath(*split_name(name))

    def probe(self, folder: str) -> None:
        """Put two throwaway names into `folder` as `put_once` would. Raises `Failure` if commits could not be made there."""
        path = self._path(folder)
        second = path / f"{TEMPORARY}{uuid.uuid4().hex}"
        try:
            first = self._write_temporary(path / "probe", b"probe")
            try:
                _link(first, second)
            finally:
                for name in (first, second):
                    name.unlink(missing_ok=True)
            _sync_folder(path)
        except OSError as error:
            error.filename = str(path)  # not the throwaway one
            raise from_os_error(error) from error

    def put(self, name: str, data: bytes) -> None:
        """Put `data` under `name`, replacing what was there, atomically."""
        path = self._path(name)
        temporary = self._write_temporary(path, data)
        try:
            os.replace(temporary, path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)

    def put_once(self, name: str, data: bytes) -> bool:
        """Put `data` under `name` if the name is free. False if it was taken: the blob that stands there stays."""
        path = self._path(name)
        if path.exists():
            return False
        temporary = self._write_temporary(path, data)
        try:
            _link(temporary, path)
        except FileExistsError:
            if os.stat(temporary).st_nlink < 2:
                return False
            # Else NFS lost the answer to our link and asked again: the name is taken by ourselves.
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(path.parent)
        return True

    def get(self, name: str) -> bytes:
        """The blob's bytes. Raises FileNotFoundError."""
        return self._path(name).read_bytes()

    def exists(self, name: str) -> bool:
        return self._path(name).is_file()

    def list(self, prefix: str = "") -> Iterator[str]:
        """Names that begin with the folder `prefix`, sorted within each folder. Temporaries are left out."""
        start = self._path(prefix.rstrip("/")) if prefix else self.root
        if start.is_dir():
            yield from _walk(os.fspath(start), prefix.rstrip("/"))

    def delete(self, name: str) -> None:
        """Remove a blob; a missing one is no error (deletes repeat)."""
        self._path(name).unlink(missing_ok=True)

    def stamp(self, folder: str) -> str | None:
        """Something that differs as soon as a name directly in `folder` came or went: equal stamps, equal names.

        None where that cannot be told: by a store without such a thing, or here while the last change is too young, since
        the next one could still carry the same time. A change below a folder within `folder` does not show.
        """
        try:
            found = os.stat(self._path(folder))
        except FileNotFoundError:
            return "none"
        if not found.st_mtime + SETTLED <= time.time():  # nor if it seems to lie ahead: the clock was set back
            return None
        return f"{found.st_ino}-{found.st_mtime_ns}-{found.st_size}"

    def _write_temporary(self, path: Path, data: bytes) -> Path:
        _make_folder(path.parent)
        temporary = path.parent / f"{TEMPORARY}{uuid.uuid4().hex}"
        try:
            with open(temporary, "xb") as file:
                file.write(data)
                file.flush()
                _sync(file.fileno(), path.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        return temporary


def _walk(folder: str, prefix: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        found = {entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}
    start = f"{prefix}/" if prefix else ""
    for name in sorted(found):
        if found[name]:
            yield from _walk(f"{folder}/{name}", start + name)
        elif not name.startswith(TEMPORARY):
            yield start + name


def _link(source: Path, target: Path) -> None:
    """A hard link. Raises FileExistsError; `Failure` where the file system has none."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno in NOT_HERE:
            raise Failure(
                "this file system has no hard links, which committing exactly once needs",
                where=str(target.parent),
                mend=MEND,
            ) from error
        raise


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it that are missing; each is synced into its own, or it could vanish with all it holds."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _sync(descriptor, folder)
    finally:
        os.close(descriptor)


def _sync(descriptor: int, folder: Path) -> None:
    """Bytes onto the disk. Raises `Failure` where the file system does not know how: a power loss would tear commits."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno in NO_SYNC:
            raise Failure(
                "this file system refuses fsync, so a commit would not outlast a power loss",
                where=str(folder),
                mend=MEND,
            ) from error
        raise
