"""Rates with their uncertainty, agreement of two judges, a rate set right for its judge's errors, and who is paired with whom.

Guarantees: a rate and its interval stay within [0, 1]; no data gives None, never 0; the same input gives the same figures.
Cost: microseconds; `clustered` 60 ms for 1000 clusters of 20 rows, and numpy. Misses: questions about one article are not
independent, so of all these intervals only `clustered` is wide enough for rows that share an article.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from foundation.intervals import Z95, newcombe, wilson

LEAST_CLUSTERS = 5
BOOTSTRAP_DRAWS, BOOTSTRAP_AT_ONCE, BOOTSTRAP_SEED = 2000, 50, 1


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
    found = wilson(passed, scored, z)
    if found is None:
        return Rate(0, 0, None, None, None)
    return Rate(passed, scored, *(round(figure, 6) for figure in found.ends))


def difference(one: Rate, other: Rate) -> Difference | None:
    """How much `one` lies above `other`; None if either has no data."""
    if one.value is None or other.value is None:
        return None
    assert one.low is not None and one.high is not None and other.low is not None and other.high is not None
    gap, low, high = newcombe((one.value, one.low, one.high), (other.value, other.low, other.high))
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


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float


def _estimate(value: float, low: float, high: float, least: float = 0.0) -> Estimate:
    """Within [`least`, 1], and the figure within its interval: approximations may leave either."""
    value = min(1.0, max(least, value))
    low, high = max(least, min(low, value)), min(1.0, max(high, value))
    return Estimate(round(value, 6), round(low, 6), round(high, 6))


def cohen_kappa(pairs: Sequence[tuple[bool, bool]]) -> Estimate | None:
    """Agreement of two raters beyond chance, with its large-sample interval (Fleiss, Cohen & Everitt 1969), in [-1, 1].

    None without pairs, or where either always says the same one thing: it is no rater then, and the interval would have no
    width. Where they agree throughout, that interval has no width, whatever the number: its low end is then taken from Wilson's interval.
    """
    n = len(pairs)
    if not n:
        return None
    cell = {(i, j): sum(pair == (i, j) for pair in pairs) / n for i in (True, False) for j in (True, False)}
    ours = {i: cell[i, True] + cell[i, False] for i in (True, False)}
    theirs = {j: cell[True, j] + cell[False, j] for j in (True, False)}
    agree = cell[True, True] + cell[False, False]
    chance = sum(ours[i] * theirs[i] for i in (True, False))
    if 0 in ours.values() or 0 in theirs.values():
        return None
    kappa = (agree - chance) / (1 - chance)
    same = sum(cell[i, i] * (1 - (ours[i] + theirs[i]) * (1 - kappa)) ** 2 for i in (True, False))
    apart = (1 - kappa) ** 2 * sum(cell[i, not i] * (theirs[i] + ours[not i]) ** 2 for i in (True, False))
    variance = (same + apart - (kappa - chance * (1 - kappa)) ** 2) / (n * (1 - chance) ** 2)
    reach = Z95 * math.sqrt(max(0.0, variance))
    low = kappa - reach
    if all(one == other for one, other in pairs):
        least = rate(n, n).low
        assert least is not None
        low = (least - chance) / (1 - chance)
    return _estimate(kappa, low, kappa + reach, least=-1.0)


def corrected(observed: Rate, tpr: Rate, fpr: Rate) -> Estimate | None:
    """The pass rate a faultless judge would have found (Rogan & Gladen 1978).

    `tpr`: the share of right answers that this judge passes, `fpr` that of wrong ones. The interval carries the
    uncertainty of all three (Lang & Reiczigel 2014, Stat. in Medicine 33). None where one of them has no data, and where
    the judge hardly tells right from wrong (tpr <= fpr + 0.1): the correction would then blow up any error.
    """
    if observed.value is None or tpr.value is None or fpr.value is None or tpr.value <= fpr.value + 0.1:
        return None
    value = (observed.value - fpr.value) / (tpr.value - fpr.value)
    square = Z95 * Z95
    # Each rate is drawn towards the middle (Agresti & Coull), so that "20 of 20" does not count as certain.
    n, of_right, of_wrong = observed.scored + square, tpr.scored + 2, fpr.scored + 2
    share = (observed.passed + square / 2) / n
    right, wrong = (tpr.passed + 1) / of_right, (fpr.passed + 1) / of_wrong
    gap = right - wrong
    if gap <= 0:  # so few canaries that the middle is all there is to say
        return _estimate(value, 0.0, 1.0)
    middle = (share - wrong) / gap
    spread_right, spread_wrong = right * (1 - right) / of_right, wrong * (1 - wrong) / of_wrong
    shift = 2 * square * (middle * spread_right - (1 - middle) * spread_wrong)
    variance = share * (1 - share) / n + middle**2 * spread_right + (1 - middle) ** 2 * spread_wrong
    reach = Z95 * math.sqrt(variance) / gap
    return _estimate(value, middle + shift - reach, middle + shift + reach)


def clustered(passed: Sequence[bool], clusters: Sequence[str]) -> Estimate | None:
    """A pass rate with a bootstrap over whole clusters (articles): rows of one article stand or fall together.

    `clusters[i]` names the cluster of `passed[i]`. The percentile interval of 2000 seeded draws, its tails widened for
    few clusters (Hesterberg 2015, Am. Statistician 69), and never narrower than Wilson's, since a bootstrap of rows that
    all pass has no width. None under 5 clusters: they say nothing of how clusters differ.
    """
    import numpy as np

    groups: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for right, name in zip(passed, clusters, strict=True):
        groups[name][0] += right
        groups[name][1] += 1
    count = len(groups)
    if count < LEAST_CLUSTERS:
        return None
    # k: clusters, D: draws; 2: how many passed, how many there are
    table_k2 = np.array([groups[name] for name in sorted(groups)], dtype=np.float64)
    draw = np.random.default_rng(BOOTSTRAP_SEED)
    shares: list[float] = []
    for _ in range(BOOTSTRAP_DRAWS // BOOTSTRAP_AT_ONCE):  # in portions: 10,000 clusters would fill the memory else
        drawn_D2 = table_k2[draw.integers(count, size=(BOOTSTRAP_AT_ONCE, count))].sum(axis=1)
        shares += (drawn_D2[:, 0] / drawn_D2[:, 1]).tolist()
    tail = _normal_cdf(-math.sqrt(count / (count - 1)) * _student(count - 1))
    low, high = np.quantile(shares, [tail, 1 - tail])
    plain = rate(sum(passed), len(passed))
    assert plain.value is not None and plain.low is not None and plain.high is not None
    return _estimate(plain.value, min(float(low), plain.low), max(float(high), plain.high))


def mcnemar(b: int, c: int) -> float:
    """The exact two-sided p that two judges are equally strict; `b` and `c` count the answers only one of them passed."""
    n, less = b + c, min(b, c)
    return float(f"{min(1.0, 2 * sum(math.comb(n, k) for k in range(less + 1)) / 2**n):.3g}")


def _normal_cdf(z: float) -> float:
    return math.erfc(-z / math.sqrt(2)) / 2


def _student(freedom: int, z: float = Z95) -> float:
    """Student's quantile at the normal `z` (Abramowitz & Stegun 26.7.5): within 0.5 % from 4 degrees of freedom on."""
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3


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
