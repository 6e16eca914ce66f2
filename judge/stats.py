"""Rates with their uncertainty: Wilson's interval for one, Newcombe's for the difference of two, and who is paired with whom.

Guarantees: never outside [0, 1]; no data gives None, never 0. Cost: none. Misses: questions about one article are not
independent, so the true intervals are somewhat wider.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass

Z95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Rate:
    """`passed` of `scored`, with the 95 % Wilson interval. All three figures are None when nothing was scored."""

    passed: int
    scored: int
    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Difference:
    """Of two rates: the 95 % Newcombe interval, and the two-sided p value of the pooled two-proportion test."""

    value: float
    low: float
    high: float
    p: float


def rate(passed: int, scored: int, z: float = Z95) -> Rate:
    """Wilson's score interval of a pass rate."""
    if scored == 0:
        return Rate(0, 0, None, None, None)
    share, square = passed / scored, z * z
    middle = (share + square / (2 * scored)) / (1 + square / scored)
    reach = z / (1 + square / scored) * math.sqrt(share * (1 - share) / scored + square / (4 * scored * scored))
    low = 0.0 if passed == 0 else max(0.0, middle - reach)  # rounding must not leave the ends of the scale
    high = 1.0 if passed == scored else min(1.0, middle + reach)
    return Rate(passed, scored, round(share, 6), round(low, 6), round(high, 6))


def difference(one: Rate, other: Rate) -> Difference | None:
    """How much `one` lies above `other`; None if either has no data."""
    if one.value is None or other.value is None:
        return None
    assert one.low is not None and one.high is not None and other.low is not None and other.high is not None
    gap = one.value - other.value
    low = gap - math.hypot(one.value - one.low, other.high - other.value)
    high = gap + math.hypot(one.high - one.value, other.value - other.low)
    pooled = (one.passed + other.passed) / (one.scored + other.scored)
    error = math.sqrt(pooled * (1 - pooled) * (1 / one.scored + 1 / other.scored))
    p = math.erfc(abs(gap) / error / math.sqrt(2)) if error else 1.0
    return Difference(round(gap, 6), round(low, 6), round(high, 6), float(f"{p:.3g}"))


def clearly_above(one: Rate, other: Rate) -> bool:
    """Whether `one` lies above `other` by more than the width of either interval, and the intervals do not meet."""
    if one.value is None or other.value is None:
        return False
    assert one.low is not None and one.high is not None and other.low is not None and other.high is not None
    return one.low > other.high and one.value - other.value > max(one.high - one.low, other.high - other.low)


def shown(value: Rate) -> str:
    """`41.2 % (34.0–48.8)`, or a dash."""
    if value.value is None or value.low is None or value.high is None:
        return "–"
    return f"{100 * value.value:.1f} % ({100 * value.low:.1f}–{100 * value.high:.1f})"


def as_json(value: Rate) -> dict[str, float | int | None]:
    """The keys every summary uses."""
    figures = asdict(value)
    return {"passed": figures["passed"], "scored": figures["scored"], "pass_rate": figures["value"]} | {
        key: figures[key] for key in ("low", "high")
    }


def derangement(groups: Sequence[str], kinds: Sequence[str], seed: int) -> list[int] | None:
    """For each row another row, each taken once: of another group (article) and the same kind wherever that can be.

    None if there is only one row. Repeatable for one seed.
    """
    if len(groups) < 2:
        return None
    order = list(range(len(groups)))
    random.Random(seed).shuffle(order)
    by_kind: dict[str, list[int]] = defaultdict(list)
    for row in order:
        by_kind[kinds[row]].append(row)
    partner = [-1] * len(groups)
    left: list[int] = []
    for rows in by_kind.values():
        if not _rotate(rows, groups, partner):
            left += rows
    if left and not _rotate(left, groups, partner):
        partner = [-1] * len(groups)
        if not _rotate(order, groups, partner):  # one article has most of the rows: another row must do
            for row, other in zip(order, [*order[1:], order[0]], strict=True):
                partner[row] = other
    return partner


def _rotate(rows: Sequence[int], groups: Sequence[str], partner: list[int]) -> bool:
    """Sorted by group and moved on by the size of the largest one, no row meets its own group: if that is at most half."""
    members: dict[str, list[int]] = defaultdict(list)
    for row in rows:
        members[groups[row]].append(row)
    largest = max(len(group) for group in members.values())
    if 2 * largest > len(rows):
        return False
    flat = [row for group in members.values() for row in group]
    for at, row in enumerate(flat):
        partner[row] = flat[(at + largest) % len(flat)]
    return True
