"""The Store protocol in memory: for tests and simulations, one process, nothing kept.

Guarantees: those of the protocol, among threads; names are refused and listed as `LocalStore` does. A fork has a copy of
its own from then on. Cost: O(depth) an operation, about 1 µs; `list` sorts its own folder and those below, no others.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Union

from foundation.store import split_name

_Folder = dict[str, Union[bytes, "_Folder"]]


class MemoryStore:
    """Folders as dictionaries of blobs and folders."""

    def __init__(self) -> None:
        self._root: _Folder = {}
        self._lock = threading.Lock()

    def put(self, name: str, data: bytes) -> None:
        """Put `data` under `name`, replacing what was there."""
        with self._lock:
            folder, leaf = self._place(name)
            folder[leaf] = bytes(data)

    def put_once(self, name: str, data: bytes) -> bool:
        """Put `data` under `name` if the name is free. False if it was taken: the blob that stands there stays."""
        with self._lock:
            folder, leaf = self._place(name)
            if leaf in folder:
                return False
            folder[leaf] = bytes(data)
            return True

    def get(self, name: str) -> bytes:
        """The blob's bytes. Raises FileNotFoundError."""
        found = self._find(split_name(name))
        if not isinstance(found, bytes):
            raise FileNotFoundError(2, "No such blob", name)
        return found

    def exists(self, name: str) -> bool:
        return isinstance(self._find(split_name(name)), bytes)

    def list(self, prefix: str = "") -> Iterator[str]:
        """Names that begin with the folder `prefix`, sorted within each folder."""
        start = self._find(split_name(prefix.rstrip("/"))) if prefix else self._root
        if isinstance(start, dict):
            yield from _walk(start, prefix.rstrip("/"))

    def delete(self, name: str) -> None:
        """Remove a blob; a missing one is no error (deletes repeat)."""
        *folders, leaf = split_name(name)
        with self._lock:
            folder = self._find(folders)
            if isinstance(folder, dict) and isinstance(folder.get(leaf), bytes):
                del folder[leaf]

    def stamp(self, folder: str) -> None:
        """Listing costs nothing here that a stamp could save."""

    def _place(self, name: str) -> tuple[_Folder, str]:
        """The folder a blob goes into, made if need be, and its name there."""
        *folders, leaf = split_name(name)
        folder = self._root
        for part in folders:
            below = folder.setdefault(part, {})
            if isinstance(below, bytes):
                raise NotADirectoryError(20, "A blob stands where a folder is needed", name)
            folder = below
        if isinstance(folder.get(leaf), dict):
            raise IsADirectoryError(21, "A folder of that name holds blobs", name)
        return folder, leaf

    def _find(self, parts: Sequence[str]) -> bytes | _Folder | None:
        found: bytes | _Folder | None = self._root
        for part in parts:
            if not isinstance(found, dict):
                return None
            found = found.get(part)
        return found


def _walk(folder: _Folder, prefix: str) -> Iterator[str]:
    for key in sorted(folder):
        name = f"{prefix}/{key}" if prefix else key
        below = folder.get(key)  # it may have been deleted since
        if isinstance(below, dict):
            yield from _walk(below, name)
        elif below is not None:
            yield name
