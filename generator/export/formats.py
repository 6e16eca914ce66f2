"""The files of an export: rows go in one after another, files of a bounded size come out, by split.

Guarantees: the same rows give the same bytes; a file is fsynced and its SHA-256 taken as it is written, so nothing is read
again; a file ends after `ROWS` rows or some `BYTES`, whichever comes first. Memory: one row group a split (8 MB of text).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, Protocol

import orjson

from foundation.errors import Failure
from generator.export.columns import arrow_schema
from generator.export.place import sync

if TYPE_CHECKING:
    import pyarrow as pa

    from foundation.records import Split

Format = Literal["jsonl", "parquet", "hf"]
SUFFIX = {"jsonl": "jsonl", "parquet": "parquet", "hf": "parquet"}
FOLDER = {"jsonl": "", "parquet": "", "hf": "data/"}
SHRINKS = {"jsonl": 1.05, "parquet": 0.3, "hf": 0.3}  # bytes written for a byte of shard, at most
ROWS = 200_000
BYTES = 500 * 2**20
GROUP_ROWS = 20_000
GROUP_BYTES = 8 * 2**20


@dataclass
class Written:
    """One file, by its name within the export."""

    name: str
    size: int
    sha256: str
    rows: int = 0


class Sink(Protocol):
    """An open file that takes rows."""

    def add(self, row: dict[str, Any]) -> None: ...
    def size(self) -> int: ...
    def close(self) -> Written: ...
    def abandon(self) -> None: ...


class HashedFile:
    """A new file that knows its SHA-256; `close` makes it last. What Arrow asks of a file object, and no more."""

    def __init__(self, path: Path, name: str) -> None:
        self.name = name
        self._file: BinaryIO = open(path, "xb")  # noqa: SIM115  closed by `close` or `abandon`
        self._digest = hashlib.sha256()
        self._size = 0
        self._abandoned = False

    def write(self, data: Any) -> int:
        if self._abandoned:
            return len(data)
        with memoryview(data) as view:
            count = view.nbytes
            self._digest.update(view)
            self._file.write(view)
        self._size += count
        return count

    def tell(self) -> int:
        return self._size

    def flush(self) -> None:
        self._file.flush()

    @property
    def closed(self) -> bool:
        return self._file.closed

    def close(self) -> None:
        if not self._file.closed:
            self._file.flush()
            sync(self._file.fileno())
            self._file.close()

    def abandon(self) -> None:
        """Close it, whatever became of it; what Arrow still wants to write at its own end goes nowhere."""
        self._abandoned = True
        with contextlib.suppress(OSError):
            self._file.close()

    @property
    def written(self) -> Written:
        return Written(self.name, self._size, self._digest.hexdigest())


class JsonLines:
    """One JSON object a line, keys in the order of the columns, UTF-8."""

    def __init__(self, path: Path, name: str) -> None:
        self._file = HashedFile(path, name)

    def add(self, row: dict[str, Any]) -> None:
        self._file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))

    def size(self) -> int:
        return self._file.tell()

    def close(self) -> Written:
        self._file.close()
        return self._file.written

    def abandon(self) -> None:
        self._file.abandon()


class Parquet:
    """Row groups of some 8 MB of text, zstd."""

    def __init__(self, path: Path, name: str) -> None:
        import pyarrow.parquet as pq

        self._schema = arrow_schema()
        self._file = HashedFile(path, name)
        self._writer = pq.ParquetWriter(self._file, self._schema, compression="zstd", write_statistics=True)
        self._rows: list[dict[str, Any]] = []
        self._bytes = 0

    def add(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        self._bytes += 500 + sum(len(message["content"]) for message in row["messages"])
        if len(self._rows) >= GROUP_ROWS or self._bytes >= GROUP_BYTES:
            self._write_group()

    def _write_group(self) -> None:
        import pyarrow as pa

        if self._rows:
            table: pa.Table = pa.Table.from_pylist(self._rows, schema=self._schema)
            self._writer.write_table(table, row_group_size=len(self._rows))
        self._rows, self._bytes = [], 0

    def size(self) -> int:
        return self._file.tell()

    def close(self) -> Written:
        self._write_group()
        self._writer.close()
        self._file.close()
        return self._file.written

    def abandon(self) -> None:
        self._rows = []
        self._file.abandon()
        with contextlib.suppress(Exception):
            self._writer.close()


class Nothing:
    """A dry run's file."""

    def __init__(self, path: Path, name: str) -> None:
        self.name = name

    def add(self, row: dict[str, Any]) -> None:
        pass

    def size(self) -> int:
        return 0

    def close(self) -> Written:
        return Written(self.name, 0, "")

    def abandon(self) -> None:
        pass


SINKS: dict[str, Callable[[Path, str], Sink]] = {"jsonl": JsonLines, "parquet": Parquet, "hf": Parquet}


@dataclass
class SplitFiles:
    """The files of one split: `train-00000-of-00003.parquet`, numbered once it is known how many there are."""

    root: Path
    split: Split
    format: Format
    make: Callable[[Path, str], Sink]
    rows: int = 0
    _open: Sink | None = None
    _in_file: int = 0
    _done: list[Written] = field(default_factory=list)

    def add(self, row: dict[str, Any]) -> None:
        if self._open is None:
            name = self._temporary(len(self._done))
            self._open, self._in_file = self.make(self.root / name, name), 0
        self._open.add(row)
        self.rows += 1
        self._in_file += 1
        if self._in_file >= ROWS or self._open.size() >= BYTES:
            self._end_file()

    def close(self) -> list[Written]:
        """End the last file and give all of them their names. A split without a row has no file."""
        if self._open is not None:
            self._end_file()
        of, named = len(self._done), []
        for number, one in enumerate(self._done):
            name = f"{FOLDER[self.format]}{self.split}-{number:05d}-of-{of:05d}.{SUFFIX[self.format]}"
            if (self.root / one.name).exists():  # a dry run's are not
                os.rename(self.root / one.name, self.root / name)
            named.append(Written(name, one.size, one.sha256, one.rows))
        return named

    def abandon(self) -> None:
        if self._open is not None:
            self._open.abandon()

    def _temporary(self, number: int) -> str:
        return f"{FOLDER[self.format]}{self.split}-{number:05d}.{SUFFIX[self.format]}"

    def _end_file(self) -> None:
        assert self._open is not None
        one, self._open = self._open.close(), None
        one.rows = self._in_file
        self._done.append(one)


def need_arrow() -> None:
    """Raises `Failure` where Parquet cannot be written."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise Failure(
            f"writing Parquet needs pyarrow, which is not installed here ({error})",
            mend="pip install 'qpt-factory[export]', or choose --format jsonl",
        ) from error
