"""The disk that the plan still needs, from what is committed of it.

Guarantees: it changes nothing but the index of counts. A prompt type of which nothing is committed yet is taken for the
mean of its family, else of all; where nothing at all is committed, nothing is foretold.
Cost: the ledger (see there) and one stat of every shard and file of rejects (about 3 µs each).
"""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import ValidationError

from foundation.corpus import Corpus
from foundation.reader import REJECTS, SHARDS
from queue_workers import snapshot
from queue_workers.identity import alive
from queue_workers.view import Counts, Kind, duration

if TYPE_CHECKING:
    from foundation.workspace import Workspace


SOON = 3 * 24 * 3600.0  # seconds


@dataclass(frozen=True, slots=True)
class Need:
    """One prompt type: items to do, and the bytes they will take; `per_item` is None where nobody can know yet."""

    items_left: float
    used: int
    per_item: float | None

    @property
    def bytes(self) -> float:
        return self.items_left * (self.per_item or 0.0)


@dataclass(frozen=True)
class Forecast:
    """All sizes in bytes of disk. `round`: another round of all planned prompt types over the corpus as it is now. `rate`
    is what is being made now, in items a second; `items` are committed."""

    kinds: dict[str, Need]
    free: int
    min_free: int
    units_left: int
    files_free: int | None
    snippets: int
    rate: float = 0.0
    items: int = 0

    @property
    def full_in(self) -> float | None:
        """Seconds until the disk is full (but for `min_free`) at the rate of now; None if nothing is being made."""
        growth = self.rate * self.used / self.items if self.items else 0.0
        return max(0.0, self.free - self.min_free) / growth if growth else None

    @property
    def used(self) -> int:
        return sum(need.used for need in self.kinds.values())

    @property
    def needed(self) -> int:
        return round(sum(need.bytes for need in self.kinds.values()))

    @property
    def round(self) -> int:
        return round(sum(self.snippets * (need.per_item or 0.0) for need in self.kinds.values()))

    @property
    def known(self) -> bool:
        return all(need.per_item is not None for need in self.kinds.values() if need.items_left)

    @property
    def files_needed(self) -> int:
        """A shard and a file of rejects a unit."""
        return 2 * self.units_left

    @property
    def warning(self) -> str:
        """Why it will not fit; empty if it will, or nobody knows."""
        short = self.needed + self.min_free - self.free
        if short > 0:
            return f"the plan needs {size(self.needed)} more, and {size(short)} of that is not free"
        if self.files_free is not None and self.files_needed > self.files_free:
            return f"the plan needs {self.files_needed:,} more files, and the disk has room for {self.files_free:,}"
        if self.full_in is not None and self.full_in < SOON:
            return f"at the rate of now the disk is full in {duration(self.full_in)}"
        return ""


def forecast(workspace: Workspace) -> Forecast:
    """What the plan still needs. Raises `Failure` if plan or shards cannot be read."""
    kinds, totals = Counts(workspace).get()
    used = {name: _used(workspace, name) for name in kinds}
    disk = os.statvfs(workspace.root)
    return Forecast(
        kinds={name: Need(kind.items_left, used[name], _per_item(name, kinds, used)) for name, kind in kinds.items()},
        free=shutil.disk_usage(workspace.root).free,
        min_free=workspace.settings.work.min_free * 1_000_000,
        units_left=sum(kind.left for kind in kinds.values()),
        files_free=disk.f_favail if disk.f_files else None,  # btrfs and its like count none
        snippets=sum(map(Corpus.count, Corpus(workspace.store).blocks())),
        rate=_rate(workspace),
        items=totals.items,
    )


def _rate(workspace: Workspace) -> float:
    """Items a second of what runs here. Not by `snapshot.read`, which clears away what is stale."""
    rate = 0.0
    for path in workspace.run.glob(f"{snapshot.PREFIX}*.json"):
        with contextlib.suppress(OSError, ValidationError):
            one = snapshot.Snapshot.model_validate_json(path.read_bytes())
            rate += one.items_per_second if alive(one.pid, one.began) else 0.0
    return rate


def size(count: float) -> str:
    """`1.2 GB`: decimal, as disks are sold and `work.min_free` is written."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:,.0f} {unit}" if unit == "B" or count >= 100 else f"{count:,.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"


def _used(workspace: Workspace, prompt_type: str) -> int:
    total = 0
    for kind in (SHARDS, REJECTS):
        for folder, _, names in os.walk(workspace.root / kind / prompt_type):
            for name in names:
                try:
                    total += os.stat(f"{folder}/{name}").st_blocks * 512
                except FileNotFoundError:  # a temporary that was put in place meanwhile
                    continue
    return total


def _per_item(name: str, kinds: dict[str, Kind], used: dict[str, int]) -> float | None:
    family = name.partition("/")[0]
    for like in ([name], [other for other in kinds if other.partition("/")[0] == family], list(kinds)):
        items = sum(kinds[other].done.items for other in like)
        if items:
            return sum(used[other] for other in like if kinds[other].done.items) / items
    return None
