"""The two passes of a shuffle: lines are spread over files by where they will stand, then each file is put in order.

Guarantees: a line's place is a number in [0, 1), drawn from the seed, its shard's name and its number in that shard, and
nothing else: the same shards and seed give the same bytes with any number of processes and any memory. Files are numbered
by place, so all of them in a row are one order of all lines. A file that would not fit is spread again.
Memory of one process: `Part.most`, with the longest line; on disk the lines lie twice for a moment.
Cost: some 4 µs of a core for a record of 464 bytes, of one of 1,500 less a byte: 1.2 to check it, 0.3 for its shard's checksum,
1.0 of the system's for three copies; `benchmarks/shuffle.py` measures the whole.
"""

from __future__ import annotations

import os
import random
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from struct import Struct
from typing import TYPE_CHECKING, Any, BinaryIO

from foundation.ids import keyed_fraction, seed_of
from foundation.reader import ManifestEntry, ReadReport, ShardLines
from trainer.paths import SPLITS

if TYPE_CHECKING:
    from collections.abc import Set

    from foundation.reader import Lines
    from foundation.rows import Row
    from foundation.store import Store

NAMED = 20  # records left out that are named; the rest are counted
CHUNK = Struct("<QQ")  # of a chunk in a spread file: records, bytes of their lines; then a float64 each, then the lines
ROOM = 4 << 20  # bytes of lines that are collected before they are written, or
CHUNK_BYTES = 96 << 10  # so many for each file
AGAIN = 64  # files that one too long is spread over
CELLS = 1 << 40  # no finer than that: lines of one place would go on for ever
SLICE = 2_000  # lines written at a time


def file_name(index: int) -> str:
    """Name of a split's file."""
    return f"{index:04d}.jsonl"


@dataclass(frozen=True)
class Part:
    """What every process of a shuffle is told. `most`: bytes it may hold in all."""

    store: Store
    shards: Sequence[tuple[str, int]]
    tasks: Sequence[range]
    withdrawn: Set[tuple[str, str]]
    folder: Path
    files: int
    seed: int
    share: float
    share_key: str
    most: int

    @property
    def room(self) -> int:
        """Bytes of lines that are collected before they are written to their files: in Python they take a fifth more."""
        return min(self.most // 3, max(ROOM, self.files * CHUNK_BYTES))

    @property
    def fits(self) -> int:
        """Bytes of a file that is put in order in memory: it is there as one piece, as lines, and as places for a moment."""
        return self.most // 2


@dataclass
class Gathered:
    """What came of some shards. `unanswered_records`: the first few, as `shard: record: why`."""

    entries: list[ManifestEntry] = field(default_factory=list)
    report: ReadReport = field(default_factory=ReadReport)
    left_out: Counter[str] = field(default_factory=Counter)
    unanswered: int = 0
    unanswered_records: list[str] = field(default_factory=list)
    not_shared: int = 0

    @property
    def records(self) -> dict[str, int]:
        """How many stand, by split."""
        return {split: self.report.splits[split] - self.left_out[split] for split in SPLITS}

    def merge(self, other: Gathered) -> None:
        """Add what came of the shards that follow."""
        self.entries += other.entries
        self.report.merge(other.report)
        self.left_out.update(other.left_out)
        self.unanswered += other.unanswered
        self.unanswered_records = [*self.unanswered_records, *other.unanswered_records][:NAMED]
        self.not_shared += other.not_shared


class Spread:
    """First pass, one process: lines of its shards go to files of its own, `FOLDER/.spread-NUMBER/SPLIT-FILE`."""

    def __init__(self, part: Part, number: int) -> None:
        self.part = part
        self.cells = _Cells(part.folder / f".spread-{number}", SPLITS, part.files)

    def do(self, task: int) -> Gathered:
        part, found = self.part, Gathered()
        for at in part.tasks[task]:
            name, size = part.shards[at]
            shard = ShardLines(part.store, name, size)
            place = random.Random(seed_of("shuffle", part.seed, name)).random
            for piece in shard.pieces(part.withdrawn, found.report):
                self._add(piece, [place() for _ in piece.lines], name, found)
                if self.cells.held >= part.room:
                    self.cells.flush()
            found.entries.append(shard.entry)
        return found

    def finish(self) -> None:
        self.cells.flush()

    def _add(self, piece: Lines, places: list[float], name: str, found: Gathered) -> None:
        files, slots, thin, second = self.part.files, self.cells.slots, self.part.share < 1, [1]
        for row, place, line in zip(piece.rows, places, piece.lines, strict=True):
            if row is None:
                continue
            split, messages = row.split, row.messages
            usual = (
                row.supervised == second and len(messages) == 2 and (text := messages[1].content) and not text.isspace()
            )
            if not usual and (problem := no_answer(row)):
                found.left_out[split] += 1
                found.unanswered += 1
                if len(found.unanswered_records) < NAMED:
                    found.unanswered_records.append(f"{name}: record {row.id}: {problem}")
                continue
            if thin and split == "train" and not self._shared(row):
                found.left_out[split] += 1
                found.not_shared += 1
                continue
            slots[split][int(place * files)] += (place, line)
        self.cells.held += sum(map(len, piece.lines))

    def _shared(self, row: Row) -> bool:
        return keyed_fraction(self.part.share_key, "share", row.pair_id or row.id) < self.part.share


def no_answer(row: Row) -> str:
    """Why this record has nothing to train on; empty if it has."""
    messages = row.messages
    for index in row.supervised:
        if not 0 <= index < len(messages):
            return f"there is no message {index} to supervise"
        content = messages[index].content
        if not content or content.isspace():
            return f"the supervised message {index} is empty"
    return "" if row.supervised else "no message is supervised"


class _Cells:
    """Lines with their places on the way to one of `cells` files a group, appended in large pieces: no file is held open."""

    def __init__(self, folder: Path, groups: Sequence[str], cells: int) -> None:
        folder.mkdir()
        self.folder, self.held = folder, 0
        self.slots: dict[str, list[list[Any]]] = {}  # place, line, place, line, ...
        for group in groups:
            slots: list[list[Any]] = [[] for _ in range(cells)]
            self.slots[group] = [*slots, slots[-1]]  # a place times `cells` may be rounded up to `cells`

    def path(self, group: str, cell: int) -> Path:
        return self.folder / f"{group}-{cell:04d}"

    def flush(self) -> None:
        for group, slots in self.slots.items():
            for cell, slot in enumerate(slots):
                if slot:
                    places, lines = array("d", slot[::2]), b"\n".join(slot[1::2])
                    head = CHUNK.pack(len(places), len(lines) + 1)
                    slot.clear()
                    _append(self.path(group, cell), (head, places.tobytes(), lines, b"\n"))
        self.held = 0


def _append(path: Path, parts: Sequence[bytes]) -> None:
    """Write at the end of a file. An error of the system names it."""
    try:
        with open(path, "ab") as file:
            file.writelines(parts)
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def _chunks(path: Path) -> Iterator[tuple[array[float], list[bytes]]]:
    """Places and lines of each chunk of a spread file, which is gone after the last one."""
    with open(path, "rb") as file:
        while head := file.read(CHUNK.size):
            count, size = CHUNK.unpack(head)
            places = array("d")
            places.frombytes(file.read(8 * count))
            lines = file.read(size).split(b"\n")
            lines.pop()  # what is behind the last end of a line: nothing
            yield places, lines
    path.unlink()


class Order:
    """Second pass: each task is one file of one split, put in order and written if anything stands in it; gives its bytes."""

    def __init__(self, part: Part, number: int) -> None:
        self.part, self.number, self.deeper = part, number, 0

    def do(self, task: int) -> int:
        split, index = SPLITS[task // self.part.files], task % self.part.files
        sources = sorted(self.part.folder.glob(f".spread-*/{split}-{index:04d}"))
        if not sources:
            return 0  # and no file
        target = self.part.folder / split / file_name(index)
        try:
            with open(target, "wb") as out:
                self._order(sources, out, self.part.files, index)
                out.flush()
                _begin_writing(out.fileno())
                return out.tell()
        except OSError as error:
            error.filename = error.filename or str(target)
            raise

    def finish(self) -> None:
        """Nothing is left to do."""

    def _order(self, sources: Sequence[Path], out: BinaryIO, cells: int, cell: int) -> None:
        """Write what stands in the `cell`th of `cells` equal parts of [0, 1)."""
        if sum(source.stat().st_size for source in sources) <= self.part.fits or cells > CELLS:
            _in_memory(sources, out)
            return
        self.deeper += 1
        finer = _Cells(self.part.folder / f".again-{self.number}-{self.deeper}", ("again",), AGAIN)
        slots = finer.slots["again"]
        for source in sources:
            for places, lines in _chunks(source):
                for place, line in zip(places, lines, strict=True):
                    # Of a power of two no rounding comes in: whoever stands before another in `cells` does so in `finer` too.
                    slots[min(max(int(place * (cells * AGAIN)) - cell * AGAIN, 0), AGAIN)] += (place, line)
                finer.held += sum(map(len, lines))
                if finer.held >= self.part.room:
                    finer.flush()
        finer.flush()
        for at in range(AGAIN):
            if (path := finer.path("again", at)).exists():
                self._order([path], out, cells * AGAIN, cell * AGAIN + at)
        finer.folder.rmdir()


def _begin_writing(descriptor: int) -> None:
    """Ask the kernel to write what it holds of a file, without waiting: whoever syncs it later finds little left to do."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def _in_memory(sources: Sequence[Path], out: BinaryIO) -> None:
    all_places, all_lines = array("d"), list[bytes]()
    for source in sources:
        for places, lines in _chunks(source):
            all_places += places
            all_lines += lines
    by_place = dict(zip(all_places, all_lines, strict=True))
    if len(by_place) == len(all_lines):
        ordered: Iterator[bytes] = map(by_place.__getitem__, sorted(by_place))
    else:  # two lines drew one place: then their bytes decide, not which came first
        ordered = (line for _, line in sorted(zip(all_places, all_lines, strict=True)))
    while lines := list(islice(ordered, SLICE)):
        lines.append(b"")
        out.write(b"\n".join(lines))
