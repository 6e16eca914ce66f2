"""The first pass of an export: which records say again what an earlier one says.

Guarantees: a pair of orderings is dropped only if both halves are duplicates, since half a pair would teach a place, not an
answer; what a marked record names is in the export. Both passes must read the same records in the same order.
Cost: that of `generator/near.py` (some 30 µs and 108 bytes a record), 17 bytes a record more, and 150 bytes for each record
that others repeat.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from foundation.records import Record

Mode = Literal["mark", "drop", "keep"]
_NONE = np.empty(0, np.int64)


@dataclass
class Marks:
    """Which records are duplicates, by their number in reading order. The second pass asks once a record, in that order."""

    mode: Mode
    count: int = 0
    first: np.ndarray[Any, np.dtype[np.int64]] = field(default_factory=lambda: _NONE)
    exact: np.ndarray[Any, np.dtype[np.bool_]] = field(default_factory=lambda: _NONE.astype(bool))
    dropped: np.ndarray[Any, np.dtype[np.bool_]] = field(default_factory=lambda: _NONE.astype(bool))
    crossing: int = 0
    """Duplicates whose first record is of another split."""
    _ids: dict[int, str] = field(default_factory=dict)
    _leads: frozenset[int] = frozenset()

    @property
    def exact_count(self) -> int:
        return int(self.exact.sum())

    @property
    def near_count(self) -> int:
        """Near ones that are not exact."""
        return int((self.first >= 0).sum()) - self.exact_count

    @property
    def dropped_count(self) -> int:
        return int(self.dropped.sum())

    @property
    def halves(self) -> int:
        """Duplicates that a drop keeps, since the other half of their pair is none."""
        return int((self.first >= 0).sum()) - self.dropped_count if self.mode == "drop" else 0

    def of(self, number: int, record: Record) -> tuple[str, str] | None:
        """`duplicate` and `near_duplicate_of` of the record with this number; None if it is to be left out."""
        if self.mode == "keep":
            return "", ""
        if self.mode == "drop":
            return None if self.dropped[number] else ("", "")
        if number in self._leads:
            self._ids[number] = record.id
        first = int(self.first[number])
        if first < 0:
            return "", ""
        return ("exact" if self.exact[number] else "near"), self._ids[first]


def find_marks(records: Iterable[Record], mode: Mode) -> Marks:
    """Read all records once and compare them; with `keep` they are only read."""
    if mode == "keep":
        return Marks(mode, sum(1 for _ in records))
    from generator.near import Signatures, text_of

    signatures = Signatures()
    pairs, splits = array("q"), bytearray()
    unit, firsts = "", dict[str, int]()
    for number, record in enumerate(records):
        signatures.add(text_of(record), record.pair_id)
        splits.append(ord(record.split[0]))
        if record.unit != unit:
            unit, firsts = record.unit, {}
        pairs.append(firsts.setdefault(record.pair_id, number) if record.pair_id else number)
    found = signatures.find()
    first = np.where(found.near >= 0, found.near, found.exact)
    repeated = first >= 0
    alone = ~repeated
    pair = np.frombuffer(pairs, np.int64) if pairs else _NONE
    split = np.frombuffer(bytes(splits), np.uint8)
    some_alone = np.zeros(len(first), bool)
    some_alone[pair[alone]] = True  # at the first record of each pair
    return Marks(
        mode,
        len(first),
        first,
        found.exact >= 0,
        repeated & ~some_alone[pair] if mode == "drop" else np.zeros(len(first), bool),
        crossing=int((split[first[repeated]] != split[repeated]).sum()),
        _leads=frozenset(np.unique(first[repeated]).tolist()) if mode == "mark" else frozenset(),
    )
