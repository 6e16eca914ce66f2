"""The one reader of shards: it serves trainer, statistics and export, and applies the tombstones.

Guarantees: committed records only, in a fixed order (shard name, then line); whatever a tombstone names is left out
and counted; a broken line is named, counted and passed over, but one that a newer version wrote stops the reading.
Cost: one sequential read; about 10 µs a record.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from pydantic import ValidationError

from foundation.ids import stable_id
from foundation.parse import parse, refuse_other_version
from foundation.records import Contract, Record, Reject

if TYPE_CHECKING:
    from foundation.store import Store

SHARDS = "shards"
REJECTS = "rejects"
TOMBSTONES = "tombstones"
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
        self.broken = [*self.broken, *other.broken][:20]
        self.splits.update(other.splits)


def tombstones(store: Store) -> tuple[Tombstone, ...]:
    return tuple(parse(Tombstone, store.get(name), name) for name in store.list(TOMBSTONES))


def identities(stones: Iterable[Tombstone]) -> set[tuple[str, str]]:
    """What some tombstones name, as `is_withdrawn` takes it: (kind, value)."""
    return {(stone.kind, stone.value) for stone in stones}


def pin(store: Store) -> Manifest:
    """The manifest of what is committed now. Reads every shard once for its checksum."""
    entries = []
    for name in store.list(SHARDS):
        data = store.get(name)
        entries.append(ManifestEntry(name=name, sha256=hashlib.sha256(data).hexdigest(), size=len(data)))
    return Manifest(shards=tuple(entries), tombstones=tombstones(store))


def read(
    store: Store,
    manifest: Manifest | None = None,
    report: ReadReport | None = None,
    *,
    names: Sequence[str] | None = None,
) -> Iterator[Record]:
    """Every record that stands, of the manifest's shards or of all committed ones; or of those in `names` alone."""
    report = report if report is not None else ReadReport()
    dead = manifest.tombstones if manifest else tombstones(store)
    withdrawn = identities(dead)
    if names is None:
        names = [entry.name for entry in manifest.shards] if manifest else list(store.list(SHARDS))
    for name in names:
        for number, line in enumerate(store.get(name).splitlines(), 1):
            try:
                record = Record.model_validate_json(line)
            except (ValidationError, json.JSONDecodeError) as error:
                if isinstance(error, ValidationError):
                    refuse_other_version(Record, line, f"{name}:{number}", error)
                report.broken_lines += 1
                if len(report.broken) < 20:
                    report.broken.append(f"{name}:{number}: {str(error).splitlines()[0]}")
                continue
            if withdrawn and is_withdrawn(record, withdrawn):
                report.withdrawn += 1
                continue
            report.read += 1
            report.splits[record.split] += 1
            yield record


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


def is_withdrawn(record: Record | Reject, withdrawn: Set[tuple[str, str]]) -> bool:
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
