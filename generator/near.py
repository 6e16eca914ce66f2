"""Exact and near duplicates over a whole run: what the teacher wrote, as a sketch of 108 bytes a record.

Guarantees: pure and deterministic: the same texts in the same order give the same groups in any process, on any machine
(words are hashed by BLAKE2, the MinHash of `rensa` is seeded). Two texts are exact duplicates if their words are the same
whatever their case, accents and punctuation; near ones if the Jaccard similarity of their sets of three consecutive words
is estimated at 0.8 or more. Whatever is called near a record resembles that very record, not merely a neighbour of it.
Both orderings of a pair are never duplicates of each other.
How sure: 16 bands of 6 of 96 hashes find candidates, then all 96 decide, by 8 bits of each. Two texts of similarity 0.95 and
above are always found, of 0.9 99.9 % of the time, of 0.85 93 %, of 0.8 55 %, of 0.75 15 %, of 0.7 2 %, of 0.6 and below never (the
estimate's standard error is 0.04; the bands alone would let 99 % pass at 0.8, and 87 % at 0.7).
One word changed alters three shingles: it is near in texts of 29 words and more, and another fact in a short question.
Cost: some 25 µs a record and 5 s for `find` over a million; 108 bytes a record, and 40 more while `find` runs.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from foundation.records import Record

THRESHOLD = 0.8
SHINGLE = 3  # words
BANDS, ROWS = 16, 6
HASHES = BANDS * ROWS
SEED = 20250501
BATCH = 2048  # texts that are sketched together
GROW = 1 << 16  # rows the arrays grow by
BLOCK = 1 << 15  # pairs that are compared together
PASSES = 4  # the second finds the rest, as a rule; the third finds none
VOCABULARY = 200_000  # words whose hashes are remembered

_WORD = re.compile(r"[^\W_]+")
_OTHER = re.compile(r"[^\x00-\x7f]+")
_PLAIN = bytes(code if chr(code).isalnum() else 32 for code in range(128)) + bytes([32] * 128)
_MIX = tuple(np.uint64(odd) for odd in (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9))

U8 = np.ndarray[Any, np.dtype[np.uint8]]
U32 = np.ndarray[Any, np.dtype[np.uint32]]
U64 = np.ndarray[Any, np.dtype[np.uint64]]
I64 = np.ndarray[Any, np.dtype[np.int64]]


def text_of(record: Record) -> str:
    """What the teacher wrote of a record: the user's turns, and those of the assistant that are trained on.

    Not the passage where it stands there word for word: in family `qpt` it is the answer, in `rewrite` it follows the
    first paragraph of the user's turn.
    """
    turns = record.messages
    if record.family == "qpt":
        parts = [turn.content for turn in turns if turn.role == "user"]
    elif record.family == "rewrite":
        parts = [turn.content.partition("\n\n")[0] if turn.role == "user" else turn.content for turn in turns]
    else:
        trained = set(record.supervised)
        parts = [turn.content for at, turn in enumerate(turns) if turn.role == "user" or at in trained]
    return "\n".join(parts)


def words_of(text: str) -> list[bytes]:
    """A text's words without case, accents and punctuation; of a text that has none, what stands there."""
    plain = text if text.isascii() else _OTHER.sub(_plain, unicodedata.normalize("NFKD", text)).casefold()
    if plain.isascii():
        words = plain.lower().encode().translate(_PLAIN).split()
    else:
        words = [word.encode("utf-8", "surrogatepass") for word in _WORD.findall(plain)]
    return words or [text.strip().encode("utf-8", "surrogatepass")]


def _plain(found: re.Match[str]) -> str:
    """What is not ASCII without accents, and a space for what is in no word."""
    return "".join(char if char.isalnum() else " " for char in found.group() if not unicodedata.combining(char))


class Block(NamedTuple):
    """Sketches of some records, in reading order: what is compared exactly, the group, and the MinHash."""

    exact: U64
    group: U32
    sketch: U8


@dataclass
class Found:
    """As long as what was added. `exact[i]`: the first record of the same words; `near[i]`: the first of its group.

    -1 for a record that is the first or only one. What is exact is near as well: with `near[i] < 0` kept, no two are alike.
    """

    exact: I64
    near: I64


class _Hashes(dict[bytes, int]):
    """64 bits for a word, remembered."""

    def __missing__(self, word: bytes) -> int:
        found = int.from_bytes(hashlib.blake2b(word, digest_size=8).digest(), "little")
        if len(self) >= VOCABULARY:
            self.clear()
        self[word] = found
        return found


_hashes = _Hashes()


def sketch(texts: Sequence[str], groups: Sequence[str]) -> Block:
    """The sketches of some texts. Pure; may be made by another process than the one that compares."""
    from rensa import RMinHash

    words = [words_of(text) for text in texts]
    exact = [hashlib.blake2b(b" ".join(one), digest_size=8).digest() for one in words]
    group = [hashlib.blake2b(one.encode(), digest_size=4).digest() if one else bytes(4) for one in groups]
    for one in words:
        while len(one) < SHINGLE:
            one.append(b"")
    lengths = np.fromiter(map(len, words), np.int64, len(words))
    flat = np.fromiter((_hashes[word] for one in words for word in one), np.uint64, int(lengths.sum()))
    shingles, offsets = _shingles(flat, lengths)
    rows = RMinHash.digest_matrix_from_flat_token_hashes(shingles, offsets, HASHES, SEED).to_rows()
    digests = np.array(rows, dtype=np.uint32).reshape(len(words), HASHES)
    return Block(
        np.frombuffer(b"".join(exact), "<u8"),
        np.frombuffer(b"".join(group), "<u4"),
        ((digests * np.uint32(0x9E3779B1)) >> np.uint32(24)).astype(np.uint8),  # 8 bits of each
    )


def _shingles(flat: U64, lengths: I64) -> tuple[U64, U64]:
    """The hashes of every three consecutive words of each text, and where each text's begin (and the last ends)."""
    count = len(flat) - SHINGLE + 1
    mixed = sum((flat[at : at + count] * _MIX[at] for at in range(SHINGLE)), np.zeros(max(count, 0), np.uint64))
    mixed ^= mixed >> np.uint64(31)
    inside = np.ones(len(flat), bool)  # a shingle that would reach into the next text is none
    ends = np.cumsum(lengths)
    for back in range(1, SHINGLE):
        inside[ends - back] = False
    offsets = np.concatenate([[0], np.cumsum(lengths - SHINGLE + 1)])
    return mixed[inside[:count]], offsets.astype(np.uint64)


class Signatures:
    """Sketches of a run, in reading order: `add` each record's text, or `extend` by what other processes made."""

    def __init__(self) -> None:
        self.count = 0
        self._texts: list[str] = []
        self._groups: list[str] = []
        self._exact = np.empty(0, np.uint64)
        self._group = np.empty(0, np.uint32)
        self._sketch = np.empty((0, HASHES), np.uint8)

    def add(self, text: str, group: str = "") -> None:
        """The next record's text; `group` is its pair."""
        self._texts.append(text)
        self._groups.append(group)
        if len(self._texts) >= BATCH:
            self._flush()

    def extend(self, block: Block) -> None:
        """The next records, sketched elsewhere."""
        self._flush()
        self._take(block)

    def find(self) -> Found:
        """Compare all that was added."""
        self._flush()
        exact = self._find_exact()
        near = np.full(self.count, -1, np.int64)
        for _ in range(PASSES):  # one that does not resemble the leader of its neighbour may resemble another
            new = self._candidates(np.flatnonzero((exact < 0) & (near < 0)))
            if not (new >= 0).any():
                break
            near = _leaders(np.where(new >= 0, new, near), self._alike_one)
        again = np.flatnonzero(
            exact >= 0
        )  # what has the same words is near the same record, or to the first of the same words
        first = exact[again]
        leader = np.where(near[first] >= 0, near[first], first)
        near[again] = np.where(self._apart(leader, again), leader, first)
        return Found(exact, near)

    def _flush(self) -> None:
        if self._texts:
            block = sketch(self._texts, self._groups)
            self._texts, self._groups = [], []
            self._take(block)

    def _take(self, block: Block) -> None:
        end = self.count + len(block.exact)
        if end > len(self._exact):
            size = end + GROW  # grows in place (realloc): no second copy of a large array
            self._exact.resize(size, refcheck=False)
            self._group.resize(size, refcheck=False)
            self._sketch.resize((size, HASHES), refcheck=False)
        self._exact[self.count : end] = block.exact
        self._group[self.count : end] = block.group
        self._sketch[self.count : end] = block.sketch
        self.count = end

    def _apart(self, one: I64, other: I64) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Whether two records are not of one pair."""
        groups = self._group[one]
        return (groups == 0) | (groups != self._group[other])

    def _find_exact(self) -> I64:
        found = np.full(self.count, -1, np.int64)
        keys = self._exact[: self.count]
        order = np.argsort(keys, kind="stable")
        later, first, _ = _runs(keys[order])
        one, other = order[first], order[later]
        apart = self._apart(one, other)
        found[other[apart]] = one[apart]
        return found

    def _candidates(self, alone: I64) -> I64:
        """Of each record the first that resembles it, -1 if none does; `alone` are those to be compared."""
        found = np.full(self.count, -1, np.int64)
        for band in range(BANDS):
            packed = np.zeros((len(alone), 8), np.uint8)
            packed[:, :ROWS] = self._sketch[alone, band * ROWS : (band + 1) * ROWS]
            keys = packed.view(np.uint64).ravel()
            order = np.argsort(keys, kind="stable")
            later, first, before = _runs(keys[order])
            for at in range(0, len(later), BLOCK):
                part = slice(at, at + BLOCK)
                others = alone[order[later[part]]]
                self._keep_first(alone[order[first[part]]], others, found)
                self._keep_first(alone[order[before[part]]], others, found)
        return found

    def _keep_first(self, one: I64, other: I64, found: I64) -> None:
        """Note in `found` what `other` resembles, if `one` comes before what was found so far."""
        better = (found[other] < 0) | (found[other] > one)
        one, other = one[better], other[better]
        alike = self._alike(one, other)
        found[other[alike]] = one[alike]

    def _alike(self, one: I64, other: I64) -> np.ndarray[Any, np.dtype[np.bool_]]:
        same = np.count_nonzero(self._sketch[one] == self._sketch[other], axis=1)
        return (same >= SAME) & self._apart(one, other)

    def _alike_one(self, one: int, other: int) -> bool:
        return bool(self._alike(np.array([one]), np.array([other]))[0])


SAME = int(np.ceil(HASHES * (THRESHOLD + (1 - THRESHOLD) / 256)))  # 8 bits are the same by chance once in 256 times


def _runs(keys: U64) -> tuple[I64, I64, I64]:
    """Of sorted keys the places that repeat the one before; with each the first of its run, and the place before."""
    later = np.flatnonzero(keys[1:] == keys[:-1]) + 1
    starts = np.ones(len(keys), bool)
    starts[later] = False
    first = np.maximum.accumulate(np.where(starts, np.arange(len(keys)), 0))[later] if len(later) else later
    return later, first, later - 1


def _leaders(found: I64, alike: Any) -> I64:
    """From "the first that resembles it" to "the first of its group": what leads a group is in none itself."""
    inner = np.flatnonzero(found >= 0)
    for at in inner[found[found[inner]] >= 0].tolist():
        leader = int(found[found[at]])  # those before `at` are settled already
        if leader >= 0:
            found[at] = leader if alike(leader, at) else -1
    return found
