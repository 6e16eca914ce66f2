"""Memorised spans: the longest verbatim run of training tokens in each of a student's answers.

Guarantees: exact, in that no run is claimed that is not there and none is longer; a run lies within one record and one
answer; of several as long, that of the earliest record is told. No hash decides: hashes only say where to look.
Cost: 20 ns of a core a training token, and 2 to 5 us more for each that begins `least` tokens of some answer, however often
they stand there and in however many answers: 3 minutes for a billion tokens of which 6 in 100 do, and most of an hour where
most do, as with many records of a few articles (benchmarks/memorised.py). Memory: 110 MB for 600 answers, whatever is trained on.
Misses: runs under `least` tokens, which a language has anyway. Tokens are compared, not letters: an answer that was made text
and then tokens again may lose a token at a run's edges, and one that says the same in other words has no run at all.

How: the answers' suffixes are sorted. A training position is looked at if its first `least` tokens may begin one of them (a
rolling hash, looked up in a table); then it goes down the sorted suffixes, a few tokens packed into one number at a time, to
the suffix it agrees with longest. Every other suffix agrees with it as far as with that one, so that one is all there is to
keep; at the end a sweep over the sorted suffixes carries each run to its neighbours (matching statistics: Chang and Lawler 1994;
longest common prefixes of sorted suffixes: Manber and Myers 1993).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from trainer.pack import PackedData

Int64s = NDArray[np.int64]
Bools = NDArray[np.bool_]
LEAST = 8
CHUNK = 1 << 17  # training tokens that are hashed at a time: they stay in the cache
HELD = 1 << 18  # positions that are looked at together, at least where there are so many
TABLE = 22  # bits of a hash that the table knows: 4 MB
WORD = 64  # bits into which a block of tokens is packed


@dataclass(frozen=True)
class Run:
    """`tokens` tokens of an answer, from its token `start` on, stand in training record `record`; 0, 0 and -1: there is no run."""

    tokens: int
    start: int
    record: int


def longest_runs(answers: Sequence[Sequence[int]], data: PackedData, least: int = LEAST) -> list[Run]:
    """The longest run of each answer (token ids, special tokens left out) among the records of `data`.

    Of several as long, that of the earliest record, then the earliest in the answer. Raises `ValueError` if `least` is below 1
    or an id is negative.
    """
    if least < 1:
        raise ValueError(f"runs of at least {least} tokens are asked for")
    if not any(len(answer) >= least for answer in answers):
        return [Run(0, 0, -1)] * len(answers)
    index = _Answers(answers, data.meta.vocabulary)
    points = _Points(len(index.suffixes))
    for at in _candidates(index.tokens, index.ends, data.tokens, least):
        rank, length = index.agreeing(at, data)
        long = length >= least
        points.add(rank[long], length[long], at[long])
    return _told(index, points, data.records, len(answers), least)


class _Answers:
    """The answers' suffixes, sorted, and the tables by which a training position finds the one it agrees with longest.

    Tokens are numbered from 1 in their order, 0 is no token; `per` of them make a block, one number whose order is theirs.
    `suffixes[rank]` is where a suffix begins in `tokens`, all answers end to end; `shared[rank]` how many tokens it has in
    common with the one before it.
    """

    def __init__(self, answers: Sequence[Sequence[int]], vocabulary: int) -> None:
        lengths = np.asarray([len(answer) for answer in answers], dtype=np.int64)
        self.tokens: Int64s = np.concatenate([np.asarray(answer, dtype=np.int64) for answer in answers])
        if self.tokens.min() < 0:
            raise ValueError(f"there is no token {self.tokens.min()}")
        self.answer: Int64s = np.repeat(np.arange(len(answers)), lengths)
        self.first: Int64s = np.cumsum(lengths) - lengths
        self.ends: Int64s = np.repeat(np.cumsum(lengths), lengths)
        known, codes = np.unique(self.tokens, return_inverse=True)
        self._number = np.zeros(
            max(vocabulary, int(known[-1]) + 1) + 1, dtype=np.uint64
        )  # the last: of any other token
        self._number[known] = np.arange(1, len(known) + 1, dtype=np.uint64)
        self.bits = len(known).bit_length()
        self.per = min(8, WORD // self.bits)
        blocks, _ = self._packed(self.tokens, np.arange(len(codes)), self.ends)
        self.blocks, rank = np.unique(blocks, return_inverse=True)
        self._sort(rank.astype(np.int64), int(lengths.max()))
        self._tables(rank.astype(np.int64))

    def _packed(self, tokens: NDArray[Any], at: Int64s, ends: Int64s) -> tuple[NDArray[np.uint64], Int64s]:
        """The block that begins at each of `at`, and how many tokens of it the answers know; `ends`: where its text ends."""
        made = np.zeros(len(at), dtype=np.uint64)
        known, still = np.zeros(len(at), dtype=np.int64), np.ones(len(at), dtype=np.bool_)
        for step in range(self.per):
            code = np.take(self._number, np.take(tokens, at + step, mode="clip"), mode="clip")
            code[at + step >= ends] = 0
            still &= code > 0
            known += still
            made = (made << np.uint64(self.bits)) | code
        return made, known

    def _sort(self, rank: Int64s, longest: int) -> None:
        """Sort the suffixes by doubling: who is sorted by so many tokens is, by the rank of what follows, by twice as many."""
        length, levels = self.per, [(self.per, rank)]
        here = np.arange(len(rank))
        while length < longest:
            after = np.where(here + length < self.ends, np.take(rank, here + length, mode="clip") + 1, 0)
            length, rank = 2 * length, np.unique((rank << 32) | after, return_inverse=True)[1].astype(np.int64)
            levels.append((length, rank))
        self.suffixes: Int64s = np.argsort(rank, kind="stable")
        one, other = self.suffixes[:-1], self.suffixes[1:]
        shared = np.zeros(len(one), dtype=np.int64)
        room = np.minimum(self.ends[one] - one, self.ends[other] - other)
        for length, rank in reversed(levels):
            same = np.take(rank, one + shared, mode="clip") == np.take(rank, other + shared, mode="clip")
            shared += np.where(same & (shared < room), length, 0)
        blocks = [np.take(self.blocks[levels[0][1]], at + shared, mode="clip") for at in (one, other)]
        shared += self._equal(*blocks)
        self.shared: Int64s = np.concatenate(([0], np.minimum(shared, room)))

    def _tables(self, rank: Int64s) -> None:
        """One table a depth: the blocks that follow each node (suffixes alike so far, named by the first one's rank)."""
        self.tables: list[tuple[Int64s, Int64s]] = []
        alive = np.arange(len(rank))
        node = np.zeros(len(rank), dtype=np.int64)
        while len(alive):
            at = self.suffixes[alive] + len(self.tables) * self.per
            entry = (node << 32) | rank[at]
            new = np.concatenate(([True], entry[1:] != entry[:-1]))
            self.tables.append((entry[new], alive[new]))
            more = at + self.per < self.ends[at]
            node, alive = alive[new][np.cumsum(new) - 1][more], alive[more]

    def _equal(self, one: NDArray[np.uint64], other: NDArray[np.uint64]) -> Int64s:
        """How many tokens two blocks have in common from the left."""
        apart = one ^ other
        shifts = range(0, self.bits * self.per, self.bits)
        return sum((apart >> np.uint64(shift) == 0 for shift in shifts), start=np.zeros(len(one), dtype=np.int64))

    def agreeing(self, at: Int64s, data: PackedData) -> tuple[Int64s, Int64s]:
        """The rank of a suffix that agrees longest with the training tokens at each of `at`, and for how many tokens."""
        ends = data.records[np.searchsorted(data.records, at, side="right")]
        rank, length = np.zeros(len(at), dtype=np.int64), np.zeros(len(at), dtype=np.int64)
        alive = np.arange(len(at))
        for entries, nodes in self.tables:
            block, known = self._packed(data.tokens, at[alive] + length[alive], ends[alive])
            place = np.searchsorted(self.blocks, block)
            sought = (rank[alive] << 32) | place
            right = np.searchsorted(entries, sought)
            equal, child = np.full(len(alive), -1, dtype=np.int64), rank[alive]
            for beside in (right, right - 1):  # who agrees longest stands beside where it would stand
                entry = np.take(entries, beside, mode="clip")
                agreed = np.minimum(self._equal(block, self.blocks[entry & 0xFFFFFFFF]), known)
                better = (entry >> 32 == rank[alive]) & (agreed > equal)
                equal = np.where(better, agreed, equal)
                child = np.where(better, np.take(nodes, beside, mode="clip"), child)
            rank[alive] = child
            length[alive] += np.maximum(equal, 0)
            alive = alive[equal == self.per]
            if not len(alive):
                break
        return rank, length


class _Points:
    """Where training agrees with a suffix longer than it did before: rank of the suffix, tokens, training position."""

    def __init__(self, suffixes: int) -> None:
        self.best = np.zeros(suffixes, dtype=np.int64)
        self._kept: list[tuple[Int64s, Int64s, Int64s]] = []

    def add(self, rank: Int64s, length: Int64s, at: Int64s) -> None:
        """Take in what was found at positions behind all those before; `at` ascends."""
        new = length > self.best[rank]
        rank, length, at = rank[new], length[new], at[new]
        if not len(rank):
            return
        order = np.argsort(rank, kind="stable")
        rank, length, at = rank[order], length[order], at[order]
        highest = np.maximum.accumulate((rank << 32) | length)  # of the same rank, up to here
        rising = np.concatenate(([True], highest[1:] > highest[:-1]))
        self._kept.append((rank[rising], length[rising], at[rising]))
        np.maximum.at(self.best, rank, length)

    def all(self) -> tuple[Int64s, Int64s, Int64s]:
        if not self._kept:
            return (np.zeros(0, dtype=np.int64),) * 3
        rank, length, at = (np.concatenate(part) for part in zip(*self._kept, strict=True))
        return rank, length, at


def _candidates(answers: Int64s, ends: Int64s, tokens: NDArray[Any], least: int) -> Iterator[Int64s]:
    """Positions, ascending, of the training tokens at which `least` tokens of an answer may begin: all such, and a few more."""
    table = np.zeros(1 << TABLE, dtype=np.bool_)
    whole = np.arange(len(answers)) + least <= ends
    table[_hashes(answers.astype(np.uint32), least)[whole[: len(answers) - least + 1]]] = True
    held: list[Int64s] = []
    count = 0
    for start in range(0, len(tokens) - least + 1, CHUNK):
        hashed = _hashes(tokens[start : start + CHUNK + least - 1].astype(np.uint32), least)
        found = np.flatnonzero(table[hashed])
        held.append(found + start)
        count += len(found)
        if count >= HELD:
            yield np.concatenate(held)
            held, count = [], 0
    if count:
        yield np.concatenate(held)


def _hashes(tokens: NDArray[np.uint32], least: int) -> NDArray[np.uint32]:
    """The hash of every `least` tokens: their polynomial, made by doubling, of which the highest bits are kept."""
    factor, made, length = 2_654_435_761, tokens * np.uint32(0x9E3779B1), 1
    mixed = made
    for bit in bin(least)[3:]:
        made = made[:-length] * np.uint32(pow(factor, length, 1 << 32)) + made[length:]
        length *= 2
        if bit == "1":
            made = made[:-1] * np.uint32(factor) + mixed[length:]
            length += 1
    return made >> np.uint32(32 - TABLE)


def _told(index: _Answers, points: _Points, records: Int64s, answers: int, least: int) -> list[Run]:
    """Carry what was found to all suffixes, and choose each answer's longest run."""
    longest = _carried(points.best, index.shared)
    whose = index.answer[index.suffixes]
    most = np.zeros(answers, dtype=np.int64)
    np.maximum.at(most, whose, longest)
    told = [Run(0, 0, -1)] * answers
    rank, length, at = points.all()
    for tokens in np.unique(most[most >= least]).tolist():
        alike = np.cumsum(index.shared < tokens)  # suffixes with the same first tokens have the same number
        earliest = np.full(int(alike[-1]) + 1, np.iinfo(np.int64).max)
        enough = length >= tokens
        np.minimum.at(earliest, alike[rank[enough]], at[enough])
        those = np.flatnonzero((longest == tokens) & (most[whose] == tokens))
        record = np.searchsorted(records, earliest[alike[those]], side="right") - 1
        start = index.suffixes[those] - index.first[whose[those]]
        for here in np.lexsort((start, record))[::-1].tolist():  # the last one written is the earliest
            told[int(whose[those[here]])] = Run(tokens, int(start[here]), int(record[here]))
    return told


def _carried(best: Int64s, shared: Int64s) -> Int64s:
    """How many tokens of each suffix stand in training: what was found for it, or for another as far as the two agree."""
    found, common = best.tolist(), [*shared.tolist(), 0]
    for order, step in ((range(1, len(found)), 0), (range(len(found) - 2, -1, -1), 1)):
        for rank in order:
            neighbour = found[rank + 1] if step else found[rank - 1]
            found[rank] = max(found[rank], min(neighbour, common[rank + step]))
    return np.asarray(found, dtype=np.int64)
