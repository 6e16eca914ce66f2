"""Contexts of one size, filled with records of known lengths: longest first, to the last token where that can be.

Guarantees: no context is over-full, every record is in exactly one; the same lengths give the same contexts, and never more
of them than best-fit decreasing makes. Each window of records is packed by itself, so memory is bounded by the window.
Cost: 0.15 s for a million records, and some 30 bytes each.

Best-fit decreasing leaves gaps that no record is short enough for: on the lengths of the wwii example's records 1.0 % of a
context of 512 tokens, 0.4 % of 1,024 and 0.1 % of 4,096. Exact fit fills a gap that one record or two can fill to the last
token, at once, which leaves 0.02 % of each (`benchmarks/pack.py`); but where short records are few it uses them up too soon.
So a window is packed both ways, and the one with fewer contexts is kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

WINDOW = 100_000  # records packed together: more would fill contexts no better and hold more in memory

Int32s = NDArray[np.int32]
Int64s = NDArray[np.int64]
Move = tuple[int, int, int, int]  # (place in the order of lengths, first context, contexts, records into each)
Made = tuple[list[Move], int]  # where every record goes, and how many contexts that makes


def pack_lengths(
    lengths: Sequence[int] | NDArray[np.integer], context: int, window: int = WINDOW
) -> tuple[Int32s, Int64s]:
    """Put records of these lengths (each 1 to `context`) into contexts.

    Returns `order` (n record numbers, context by context) and `packs` (p + 1 offsets into it). Each window of records is
    packed by itself. Raises `ValueError` for other lengths.
    """
    rest = np.asarray(lengths, dtype=np.int32)
    if len(rest) and not 1 <= int(rest.min()) <= int(rest.max()) <= context:
        raise ValueError(f"lengths are 1 to {context}, not {rest.min()} to {rest.max()}")
    order = np.empty(len(rest), dtype=np.int32)
    sizes = [np.zeros(1, dtype=np.int64)]
    for start in range(0, len(rest), window):
        members, counts = _pack_window(rest[start : start + window], context)
        order[start : start + window] = members
        order[start : start + window] += np.int32(start)
        sizes.append(counts)
    return order, np.cumsum(np.concatenate(sizes))


def _pack_window(lengths: Int32s, context: int) -> tuple[Int64s, Int64s]:
    """One window: its members context by context, and how many each context holds."""
    narrow = np.uint16 if context < 1 << 16 else np.uint32  # 16 bits are sorted in linear time
    longest_first = np.argsort((context - lengths).astype(narrow), kind="stable")
    count = np.bincount(lengths, minlength=context + 1)
    exact, best = _ExactFit(count, context).moves(), _best_fit(count, context)
    moves, opened = min(exact, best, key=lambda made: made[1])
    _, first, many, each = np.asarray(sorted(moves), dtype=np.int64).reshape(-1, 4).T
    placed = many * each
    move = np.repeat(np.arange(len(moves)), placed)
    within = np.arange(len(lengths)) - (np.cumsum(placed) - placed)[move]
    contexts = first[move] + within // each[move]
    numbered = contexts.astype(np.uint16) if opened < 1 << 16 else contexts
    return longest_first[np.argsort(numbered, kind="stable")], np.bincount(contexts, minlength=opened)


def _places(count: Int64s) -> dict[int, int]:
    """For each length, where its records begin when the longest are first."""
    shorter = np.cumsum(count)
    return {length: int(shorter[-1] - shorter[length]) for length in np.flatnonzero(count).tolist()}


def _best_fit(count: Int64s, context: int) -> Made:
    """Each record, longest first, into the fullest context it fits.

    A context that takes one of a length stays the fullest for the next of it; so it takes as many as it holds, and all
    contexts that wait with the same room, and follow each other, take theirs in one move.
    """
    moves: list[Move] = []
    waiting: list[list[tuple[int, int]]] = [[] for _ in range(context + 1)]  # by free room: (first context, how many)
    room = opened = 0  # bit r of `room` is set while a context with r free waits
    for length, place in sorted(_places(count).items(), reverse=True):
        left = int(count[length])
        while left:
            if fitting := room >> length:
                free = length + (fitting & -fitting).bit_length() - 1
                first, many = waiting[free].pop()
                if not waiting[free]:
                    room ^= 1 << free
            else:
                free, first, many = context, opened, -(-left // (context // length))
                opened += many
            each = free // length
            whole = min(many, left // each)
            some = left - whole * each if whole < many else 0
            for contexts, records in ((whole, each), (int(some > 0), some), (many - whole - (some > 0), 0)):
                if contexts and records:
                    moves.append((place, first, contexts, records))
                    place += contexts * records
                    left -= contexts * records
                if contexts and (rest := free - records * length):
                    waiting[rest].append((first, contexts))
                    room |= 1 << rest
                first += contexts
    return moves, opened


class _ExactFit:
    """The records of a window that are left, by length: `count[l]` of them, and bit l of `left` set while there are any.

    A context begins with the longest left and takes the longest that fits, until one record or two can fill it to the last
    token. Contexts with the same lengths in them are made in one move, as many as the records allow: each move uses up a
    length, so a window takes no more of them than it has different lengths.
    """

    def __init__(self, count: Int64s, context: int) -> None:
        self.context = context
        self.count = count.copy()
        self.place = _places(count)
        self.left = sum(1 << length for length in self.place)

    def moves(self) -> Made:
        """Where every record goes, and how many contexts that makes."""
        found: list[Move] = []
        opened = 0
        while self.left:
            chosen = self._fill()
            alike = 1 + min(int(self.count[length]) // each for length, each in chosen.items())
            for length, each in chosen.items():
                if alike > 1:
                    self._use(length, each * (alike - 1))
                found.append((self.place[length], opened, alike, each))
                self.place[length] += each * alike
            opened += alike
        return found, opened

    def _fill(self) -> dict[int, int]:
        """The lengths that go into the next context, and how many of each."""
        chosen: dict[int, int] = {}
        free, longest = self.context, self.left.bit_length() - 1

        def take(length: int, many: int = 1) -> None:
            nonlocal free
            chosen[length] = chosen.get(length, 0) + many
            free -= length * many
            self._use(length, many)

        while fitting := self.left & ((2 << free) - 1):
            if fitting >> free & 1:
                take(free)
            elif chosen and free <= 2 * longest and (pair := self._pair(free)):
                take(pair[0])
                take(pair[1])
            else:  # the longest that fits, and as many of it as leave room for two more records of any length
                length = fitting.bit_length() - 1
                take(length, max(1, min(int(self.count[length]), (free - 2 * longest) // length)))
        return chosen

    def _pair(self, free: int) -> tuple[int, int] | None:
        """Two lengths that fill `free` to the last token: the pair there is most of, if there is any."""
        longest, half = self.left.bit_length() - 1, free // 2
        low = max(1, free - longest)
        if low > half:
            return None
        pairs = np.minimum(self.count[low : half + 1], self.count[free - half : free - low + 1][::-1])
        if 2 * half == free:
            pairs[-1] = self.count[half] // 2
        best = int(pairs.argmax())
        return (low + best, free - low - best) if pairs[best] else None

    def _use(self, length: int, many: int) -> None:
        self.count[length] -= many
        if not self.count[length]:
            self.left ^= 1 << length
