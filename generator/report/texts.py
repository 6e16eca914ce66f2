"""What is kept of the records' texts in one pass: lengths of all, and of each type a sample to look into.

Guarantees: memory is bounded by type: counts by length, and at most 1,000 questions and 200 texts. The sample are the
records with the lowest ids; an id is a hash, so it is drawn evenly, and the same records are drawn in whatever order,
and by however many processes, they are read. Cost: about 6 µs a record, most of it for counting words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from foundation.records import Record

QUESTIONS = 1000  # of a type, whose variety is measured
PLACED = 200  # records of a type that are looked up in their snippets
MARKS = {"min": 0.0, "p5": 0.05, "median": 0.5, "p95": 0.95, "max": 1.0}
LENGTHS = ("question_characters", "question_words", "answer_characters", "answer_words")
T = TypeVar("T")


class Sample(Generic[T]):
    """The `count` things with the lowest ids. A thing is kept only if `wants` says so of its id."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._kept: list[tuple[str, T]] = []
        self._bound = ""

    def wants(self, identity: str) -> bool:
        return not self._bound or identity < self._bound

    def add(self, identity: str, thing: T) -> None:
        self._kept.append((identity, thing))
        if len(self._kept) >= 2 * self.count:
            self._cut()

    def merge(self, other: Sample[T]) -> None:
        self._kept += other._kept
        self._cut()

    def things(self) -> list[T]:
        """In the order of their ids."""
        self._cut()
        return [thing for _, thing in self._kept]

    def _cut(self) -> None:
        self._kept.sort(key=lambda entry: entry[0])
        del self._kept[self.count :]
        if len(self._kept) == self.count:
            self._bound = self._kept[-1][0]


@dataclass
class Texts:
    """One prompt type's. `placed` holds snippet ids and what the teacher wrote."""

    lengths: dict[str, Counter[int]] = field(default_factory=lambda: {name: Counter() for name in LENGTHS})
    questions: Sample[str] = field(default_factory=lambda: Sample(QUESTIONS))
    placed: Sample[tuple[str, str]] = field(default_factory=lambda: Sample(PLACED))

    def see(self, record: Record, written: str) -> None:
        """Take note of a record; `written` is what the teacher wrote of it."""
        by_words = self.lengths
        for at, turn in enumerate(record.messages):
            text = turn.content
            if turn.role == "user":
                by_words["question_characters"][len(text)] += 1
                by_words["question_words"][len(text.split())] += 1
            elif at in record.supervised:
                by_words["answer_characters"][len(text)] += 1
                by_words["answer_words"][len(text.split())] += 1
        if self.questions.wants(record.id):
            self.questions.add(record.id, question_of(record))
        if self.placed.wants(record.id):
            self.placed.add(record.id, (record.snippet_id, written))

    def merge(self, other: Texts) -> None:
        for name, counts in other.lengths.items():
            self.lengths[name].update(counts)
        self.questions.merge(other.questions)
        self.placed.merge(other.placed)


def question_of(record: Record) -> str:
    """What opens a record: the user's first turn; in family `rewrite` without the passage, which follows its first paragraph."""
    first = next((turn.content for turn in record.messages if turn.role == "user"), "")
    return first.partition("\n\n")[0] if record.family == "rewrite" else first


def spread(counts: Counter[int]) -> dict[str, int]:
    """Lowest, 5 %, middle, 95 % and highest of what was counted: values that occurred, never between two."""
    return dict(zip(MARKS, _at(counts, list(MARKS.values())), strict=True)) if counts else {}


def _at(counts: Counter[int], shares: Sequence[float]) -> list[int]:
    """For each share, in rising order, the lowest value that so much of all do not pass."""
    found: list[int] = []
    total, passed = counts.total(), 0
    for value in sorted(counts):
        passed += counts[value]
        while len(found) < len(shares) and passed >= max(shares[len(found)] * total, 1):
            found.append(value)
    return found
