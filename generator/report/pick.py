"""What the report's parts share: lines of JSON as far as they can be read, and a fair choice of examples.

Guarantees: a torn last line (someone is still writing) is passed over; the choice depends on the seed and the ids alone,
never on the order they come in. Cost: one hash an offer, about 2 µs; memory: `count` things of each kind.
"""

from __future__ import annotations

import bisect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

from foundation.ids import keyed_fraction

SEED = "report"
T = TypeVar("T")


def json_rows(data: bytes) -> Iterator[dict[str, Any]]:
    """The objects among the lines of `data`; a line that is not one is passed over."""
    for line in data.splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            yield row


def read_or_empty(path: Path) -> bytes:
    """A file's bytes; none where there is no file."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


class Pick(Generic[T]):
    """At most `count` of the things offered, spread evenly over their kinds."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._kept: dict[str, list[tuple[float, str, T]]] = {}

    def offer(self, kind: str, identity: str, thing: T) -> None:
        """Consider `thing`; of one kind those with the lowest hashes of `identity` stay."""
        kept = self._kept.setdefault(kind, [])
        rank = keyed_fraction(SEED, identity)
        if len(kept) < self.count or rank < kept[-1][0]:
            bisect.insort(kept, (rank, identity, thing), key=lambda entry: entry[:2])
            del kept[self.count :]

    def chosen(self) -> list[tuple[str, T]]:
        """(kind, thing): first the best of every kind, then the second best, until there are enough; kinds in order."""
        turns = [
            (turn, rank, kind, thing) for kind, kept in self._kept.items() for turn, (rank, _, thing) in enumerate(kept)
        ]
        turns.sort(key=lambda entry: entry[:3])
        chosen = turns[: self.count]
        chosen.sort(key=lambda entry: (entry[2], entry[0]))
        return [(kind, thing) for _, _, kind, thing in chosen]
