"""Two judgings on the same questions: which one is better, and how sure that is.

Guarantees: only questions that both scored are compared, each with itself, so a hard question is hard for both. Nothing
is compared where a score is refused. Cost: none. Misses: questions about one article are not independent, so the true
interval is somewhat wider.
Source: Newcombe's interval for paired data (`judge.agree.paired_difference`); McNemar's exact test for p.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from foundation.splits import SPLIT_NAMES
from judge import stats
from judge.agree import paired_difference
from judge.report.collect import Judging, Row
from judge.report.words import many

Key = tuple[str, str, str, int]


@dataclass(frozen=True)
class Change:
    """Of `n` questions: the two pass rates, and how much the second lies above the first (95 %). `gained`: wrong, then right.
    `split` is empty for all of them."""

    name: str
    split: str
    n: int
    one: float
    other: float
    gained: int
    lost: int
    value: float
    low: float
    high: float
    p: float


@dataclass
class Comparison:
    """The second judging against the first. `warning` says why there is none, or what to mind."""

    one: Judging
    other: Judging
    changes: list[Change] = field(default_factory=list)
    warning: str = ""


def keyed(rows: Sequence[Row]) -> list[tuple[Key, Row]]:
    """Each row with the name of its question: the same in every judging of it."""
    seen: Counter[tuple[str, str, str]] = Counter()
    found = []
    for row in rows:
        question = (row.answer.item.id, row.answer.item.question, row.answer.item.reference)
        found.append(((*question, seen[question]), row))
        seen[question] += 1
    return found


def compare(one: Judging, other: Judging) -> Comparison:
    """All shared questions, then those of each split."""
    refused = [judging.label for judging in (one, other) if judging.refused]
    if refused:
        return Comparison(
            one, other, warning=f"Not compared: the score of {' and of '.join(refused)} is refused, see below."
        )
    first, second = dict(keyed(one.rows)), dict(keyed(other.rows))
    pairs = [
        (row, second[key]) for key, row in first.items() if key in second and _scored(row) and _scored(second[key])
    ]
    if not pairs:
        return Comparison(one, other, warning="Not compared: no question was scored in both.")
    changes = [_change("all shared questions", "", pairs)]
    for split, name in SPLIT_NAMES.items():
        part = [pair for pair in pairs if pair[0].answer.item.split == split]
        if part and len(part) < len(pairs):
            changes.append(_change(name, split, part))
    return Comparison(one, other, changes, _warning(one, other, len(pairs)))


def _change(name: str, split: str, pairs: Sequence[tuple[Row, Row]]) -> Change:
    n = len(pairs)
    before, after = ([pair[at].verdict.verdict == "PASS" for pair in pairs] for at in (0, 1))
    cell = Counter(zip(before, after, strict=True))
    gained, lost = cell[False, True], cell[True, False]
    found = paired_difference(cell[True, True], gained, lost, cell[False, False])
    assert found is not None  # there are pairs
    return Change(
        name,
        split,
        n,
        sum(before) / n,
        sum(after) / n,
        gained,
        lost,
        found.value,
        found.low,
        found.high,
        stats.mcnemar(gained, lost),
    )


def _scored(row: Row) -> bool:
    return row.verdict.verdict != "UNSCORED"


def _warning(one: Judging, other: Judging, shared: int) -> str:
    said = []
    if one.summary.get("fingerprint") != other.summary.get("fingerprint"):
        said.append("The graders differ, so a difference may be theirs and not the students'.")
    most = max(len(one.rows), len(other.rows))
    if shared < most:
        were = "was" if shared == 1 else "were"
        said.append(f"{many(shared, 'question')} {were} scored in both, of {most:,}; the others are left out here.")
    return " ".join(said)
