"""The one reader of shards: it serves trainer, statistics and export, and applies the tombstones.

Guarantees: committed records only, in a fixed order (shard name, then line); whatever a tombstone names is left out
and counted; a broken line is named, counted and passed over, but one that a newer version wrote stops the reading; so
does a shard that is not what the manifest says. Two doors, one rule: `read` gives records, `ShardLines` gives lines as they
stand in the file, each with a `Row`; msgspec takes none that pydantic would refuse, and what it refuses pydantic judges.
Cost: one sequential read; `read` 10 µs a record and a shard in memory, `ShardLines` 1.0 µs and `PIECE` bytes ten times over.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from operator import attrgetter
from typing import TYPE_CHECKING, Literal

from pydantic import ValidationError

from foundation.console import progress
from foundation.errors import Failure
from foundation.ids import stable_id
from foundation.parse import parse, refuse_other_version
from foundation.records import Contract, Record, Reject
from foundation.rows import REFUSED, Row, decode, row_of
from foundation.store import LocalStore

if TYPE_CHECKING:
    from foundation.store import Store

PIECE = 1 << 20  # bytes of a shard that `ShardLines` reads at a time
PATIENCE = 2.0  # seconds that checksums are made without a word
SHARDS = "shards"
REJECTS = "rejects"
TOMBSTONES = "tombstones"
NAMED = 20  # broken lines that are named; the rest are counted
EDITED = (
    "no longer in its article"  # reason of a tombstone that an edit of the article made, and another edit may take back
)
Kind = Literal["article", "snippet", "prompt_type", "fingerprint", "unit"]


class Tombstone(Contract):
    """Withdraws every record of one article, snippet, prompt type (or one fingerprint of it) or unit."""

    v: Literal[1] = 1
    kind: Kind
    value: str
    reason: str = ""

    @property
    def name(self) -> str:
        return f"{TOMBSTONES}/{self.kind}-{stable_id(self.value)}.json"


class ManifestEntry(Contract):
    """One shard as it was when the manifest was pinned."""

    name: str
    sha256: str
    size: int


class Manifest(Contract):
    """What one training epoch reads: shards with checksums, and the tombstones that held then."""

    v: Literal[1] = 1
    shards: tuple[ManifestEntry, ...]
    tombstones: tuple[Tombstone, ...]

    @property
    def fingerprint(self) -> str:
        return stable_id(self.model_dump_json())


@dataclass
class ReadReport:
    """What a pass left out, and why. `broken` holds the first 20 as `shard:line: reason`."""

    read: int = 0
    withdrawn: int = 0
    broken_lines: int = 0
    broken: list[str] = field(default_factory=list)
    splits: Counter[str] = field(default_factory=Counter)

    def merge(self, other: ReadReport) -> None:
        """Add what was left out of the shards that follow."""
        self.read += other.read
        self.withdrawn += other.withdrawn
        self.broken_lines += other.broken_lines
        self.broken = [*self.broken, *other.broken][:NAMED]
        self.splits.update(other.splits)


def tombstones(store: Store) -> tuple[Tombstone, ...]:
    return tuple(parse(Tombstone, store.get(name), name) for name in store.list(TOMBSTONES))


def identities(stones: Iterable[Tombstone]) -> set[tuple[str, str]]:
    """What some tombstones name, as `is_withdrawn` takes it: (kind, value)."""
    return {(stone.kind, stone.value) for stone in stones}


def listed(store: Store) -> list[tuple[str, int]]:
    """Name and bytes of every committed shard, in reading order."""
    return [(name, _size(store, name)) for name in store.list(SHARDS)]


def pin(store: Store) -> Manifest:
    """The manifest of what is committed now. Reads every shard once for its checksum; if that takes long, it shows how far."""
    sizes, entries = listed(store), []
    quiet_until = time.monotonic() + PATIENCE
    with contextlib.ExitStack() as stack:
        bar = None
        for name, _ in sizes:
            with _opened(store, name) as file:
                digest = hashlib.file_digest(file, "sha256")
                entries.append(ManifestEntry(name=name, sha256=digest.hexdigest(), size=file.tell()))
            if bar is None and time.monotonic() > quiet_until:
                bar = stack.enter_context(progress("checksums of shards", len(sizes)))
                bar.advance(len(entries) - 1)
            if bar is not None:
                bar.advance()
    return Manifest(shards=tuple(entries), tombstones=tombstones(store))


def read(
    store: Store,
    manifest: Manifest | None = None,
    report: ReadReport | None = None,
    *,
    names: Sequence[str] | None = None,
) -> Iterator[Record]:
    """Every record that stands, of the manifest's shards or of all committed ones; or of those in `names` alone.

    Raises `Failure` if a shard went away, or has not the size that the manifest says.
    """
    report = report if report is not None else ReadReport()
    dead = manifest.tombstones if manifest else tombstones(store)
    withdrawn = identities(dead)
    sizes = {entry.name: entry.size for entry in manifest.shards} if manifest else {}
    if names is None:
        names = list(sizes) if manifest else list(store.list(SHARDS))
    for name in names:
        try:
            data = store.get(name)
        except FileNotFoundError as error:
            raise _changed("went away", name) from error
        if sizes.get(name, len(data)) != len(data):
            raise _changed("was changed", name)
        for number, line in enumerate(data.splitlines(), 1):
            record = _record(line, f"{name}:{number}", report)
            if record is None:
                continue
            if withdrawn and is_withdrawn(record, withdrawn):
                report.withdrawn += 1
                continue
            report.read += 1
            report.splits[record.split] += 1
            yield record


def _record(line: bytes, where: str, report: ReadReport) -> Record | None:
    """The record in a line; None if it is broken, which is then noted. Raises `Failure` if a newer version wrote it."""
    try:
        return Record.model_validate_json(line)
    except ValidationError as error:
        with contextlib.suppress(RecursionError):  # a thousand brackets are of no version
            refuse_other_version(Record, line, where, error)
        report.broken_lines += 1
        if len(report.broken) < NAMED:
            report.broken.append(f"{where}: {str(error).splitlines()[0]}")
        return None


@dataclass
class Lines:
    """A piece of a shard: its lines from number `first` on, without their ends, and what each says; None: left out."""

    first: int
    lines: list[bytes]
    rows: list[Row | None]


class ShardLines:
    """One shard, line by line as bytes. After `pieces` is used up, `entry` says what was read, for a manifest."""

    def __init__(self, store: Store, name: str, size: int) -> None:
        self.store, self.name, self.size = store, name, size
        self._sum, self._read = hashlib.sha256(), 0

    @property
    def entry(self) -> ManifestEntry:
        return ManifestEntry(name=self.name, sha256=self._sum.hexdigest(), size=self._read)

    def pieces(self, withdrawn: Set[tuple[str, str]], report: ReadReport) -> Iterator[Lines]:
        """The lines in order, `PIECE` bytes at a time. Raises `Failure` if the shard went away or its size is another."""
        values = {value for _, value in withdrawn}
        first = 1
        for data in self._whole_lines():
            found = self._decoded(data, first, report)
            if withdrawn:
                self._withdraw(found, withdrawn, values, report)
            standing = list(filter(None, found.rows)) if None in found.rows else found.rows
            report.read += len(standing)
            report.splits.update(map(attrgetter("split"), standing))
            first += len(found.lines)
            yield found
        if self._read != self.size:
            raise _changed("was changed", self.name)

    def _whole_lines(self) -> Iterator[bytes]:
        """The shard in pieces that end where a line ends."""
        rest: list[bytes] = []
        try:
            with _opened(self.store, self.name) as file:
                while data := file.read(PIECE):
                    self._sum.update(data)
                    self._read += len(data)
                    end = data.rfind(b"\n") + 1
                    if end:
                        yield b"".join([*rest, data[:end]])
                        rest.clear()
                    if end < len(data):
                        rest.append(data[end:])
        except FileNotFoundError as error:
            raise _changed("went away", self.name) from error
        if rest:
            yield b"".join(rest)

    def _decoded(self, data: bytes, first: int, report: ReadReport) -> Lines:
        lines = data.splitlines()
        rows: list[Row | None]
        with contextlib.suppress(*REFUSED):
            rows = list(map(decode, lines))
            return Lines(first, lines, rows)
        rows = []
        for number, line in enumerate(lines, first):
            try:
                rows.append(decode(line))
            except REFUSED:
                record = _record(line, f"{self.name}:{number}", report)
                rows.append(row_of(record) if record is not None else None)
        return Lines(first, lines, rows)

    @staticmethod
    def _withdraw(found: Lines, withdrawn: Set[tuple[str, str]], values: Set[str], report: ReadReport) -> None:
        for index, row in enumerate(found.rows):
            if row is None or values.isdisjoint(_IDENTITIES(row)) or not is_withdrawn(row, withdrawn):
                continue
            found.rows[index] = None
            report.withdrawn += 1


_IDENTITIES = attrgetter(
    "article_id", "snippet_id", "prompt_type", "fingerprint", "unit", "partner_article_id", "partner_id"
)


def _opened(store: Store, name: str) -> io.FileIO | io.BytesIO:
    """A blob to be read in pieces. Raises FileNotFoundError."""
    if isinstance(store, LocalStore):
        return open(store.root / name, "rb", buffering=0)
    return io.BytesIO(store.get(name))


def _size(store: Store, name: str) -> int:
    return os.stat(store.root / name).st_size if isinstance(store, LocalStore) else len(store.get(name))


def _changed(what: str, name: str) -> Failure:
    return Failure(
        f"a shard {what} after its name was taken down: the reading was given up",
        where=name,
        mend="see who edits or moves shards (the factory never does), then give the same command again",
    )


def committed_rejects(store: Store, shard: str, attempts: Set[str], listed: Callable[[], Sequence[str]]) -> list[bytes]:
    """Lines of the rejects that complement `shard`: those of the attempt that its records name.

    `attempts` are the ones named by the records. A shard without a record names none; then every item was rejected, and
    of the unit's files of rejects, which `listed` gives, the one of the most items has them all.
    """
    stem = shard.replace(SHARDS, REJECTS, 1).removesuffix(".jsonl")
    names = [f"{stem}.{attempt}.jsonl" for attempt in attempts] if attempts else listed()
    found = []
    for name in names:
        with contextlib.suppress(FileNotFoundError):  # nothing of that attempt was rejected
            found.append(store.get(name).splitlines())
    return found[most_items(found)] if found else []


def attempts_of(shard: bytes) -> set[str]:
    """The attempt that a shard's records name (it is one); none if the shard is empty."""
    for line in shard.splitlines():
        try:
            return {str(json.loads(line)["attempt"])}
        except (ValueError, LookupError, TypeError):  # a broken line: the next one says it too
            continue
    return set()


def most_items(files: Sequence[Sequence[bytes]]) -> int:
    """Which of several files of rejects, given by their lines, tells of the most items; of several such the longest, the first.

    Not the longest of all: an item that was asked about in parts has many rejects, and may have records besides.
    """
    if len(files) < 2:
        return 0
    counts = [(len(set(map(_item_of, lines)) - {""}), len(lines)) for lines in files]
    return counts.index(max(counts))


def _item_of(line: bytes) -> str:
    """The item a line tells of; empty if the line is broken."""
    try:
        return str(json.loads(line)["item"])
    except (ValueError, LookupError, TypeError):
        return ""


def is_withdrawn(record: Record | Reject | Row, withdrawn: Set[tuple[str, str]]) -> bool:
    """Whether a tombstone, as (kind, value), names what this was made of."""
    identities = (
        ("article", record.article_id),
        ("snippet", record.snippet_id),
        ("prompt_type", record.prompt_type),
        ("fingerprint", record.fingerprint),
        ("unit", record.unit),
        ("article", record.partner_article_id),
        ("snippet", record.partner_id),
    )
    return any(identity in withdrawn for identity in identities)
