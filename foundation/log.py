"""The event log: what commands that run for long did, one JSON object a line, in `logs/factory-DATE.jsonl`.

Guarantees: each event is one line, appended whole, so several processes share a file; what a full disk or a power loss
tore stays alone, the next event begins a line of its own; a new file every day (UTC), so none grows for ever and old ones
can be deleted; a full disk loses events, never the work. The same event can be said to the person too.
Cost: about 25 µs an event; `last_events` reads the end of the newest file alone. Secrets are the caller's to leave out:
only named fields are written.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import orjson

from foundation.console import say

Level = Literal["info", "warning", "error"]
PREFIX = "factory-"
TAIL = 64 * 1024  # bytes `last_events` reads


class EventLog:
    """`folder` is the workspace's `logs/`; `command` is in every event, with the pid."""

    def __init__(self, folder: Path, command: str) -> None:
        self.folder, self.command = folder, command

    def event(self, name: str, *, level: Level = "info", tell: str = "", **fields: Any) -> None:
        """Append the event `name` with its fields; `tell` is a line for the person, and is kept too."""
        if tell:
            say(tell)
            fields = {"message": tell, **fields}
        now = datetime.now(UTC)
        row = {"time": now.isoformat(timespec="milliseconds"), "level": level, "event": name}
        line = _encode(row | {"command": self.command, "pid": os.getpid(), **fields})
        with contextlib.suppress(OSError):  # the log is not worth the work
            _append(self.folder / f"{PREFIX}{now:%Y-%m-%d}.jsonl", line)


def read_events(folder: Path) -> Iterator[dict[str, Any]]:
    """Every event of every day, oldest first; torn lines are passed over."""
    for path in sorted(folder.glob(f"{PREFIX}*.jsonl")):
        yield from _events(path.read_bytes())


def last_events(folder: Path) -> list[dict[str, Any]]:
    """The last events of the newest day that has any, oldest first: those that lie in the file's last 64 KB."""
    with contextlib.suppress(OSError, ValueError), open(max(folder.glob(f"{PREFIX}*.jsonl")), "rb") as file:
        start = max(0, file.seek(0, os.SEEK_END) - TAIL)
        file.seek(start)
        return list(_events(file.read()))  # a line cut in two by `start` is no JSON, and is passed over
    return []


def _events(data: bytes) -> Iterator[dict[str, Any]]:
    for line in data.splitlines():
        with contextlib.suppress(orjson.JSONDecodeError):
            row = orjson.loads(line)
            if isinstance(row, dict) and row.keys() >= {"time", "level", "event"}:
                yield row


def _append(path: Path, line: bytes) -> None:
    path.parent.mkdir(exist_ok=True)  # someone may have tidied up
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        torn = _torn(descriptor)
        if torn:  # or another process is in the midst of its line: that takes microseconds
            time.sleep(0.001)
            torn = _torn(descriptor)
        os.write(descriptor, b"\n" + line if torn else line)
    finally:
        os.close(descriptor)


def _torn(descriptor: int) -> bool:
    """Whether the file ends within a line."""
    size = os.fstat(descriptor).st_size
    return size > 0 and os.pread(descriptor, 1, size - 1) not in (b"\n", b"")


def _encode(row: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(row, default=str) + b"\n"
    except TypeError:  # a number over 64 bits, a path that is no UTF-8: said as well as can be
        text = json.dumps(row, default=str, ensure_ascii=False)
        return text.encode("utf-8", "replace") + b"\n"
