"""Intervals against published figures, and pairings that never meet themselves."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from judge.stats import clearly_above, clustered, cohen_kappa, corrected, derangement, difference, mcnemar, rate, shown


@pytest.mark.parametrize(
    ("passed", "scored", "low", "high"),
    [  # R. G. Newcombe, Statistics in Medicine 17 (1998), table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_agrees_with_the_published_figures(passed: int, scored: int, low: float, high: float) -> None:
    found = rate(passed, scored)
    assert found.low == pytest.approx(low, abs=5e-5)
    assert found.high == pytest.approx(high, abs=5e-5)


def test_the_difference_agrees_with_the_published_figures() -> None:
    # R. G. Newcombe, Statistics in Medicine 17 (1998) 873-890, method 10: 56/70 - 48/80 and 9/10 - 3/10
    found = difference(rate(56, 70), rate(48, 80))
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)
    found = difference(rate(9, 10), rate(3, 10))
    assert found is not None
    assert (found.low, found.high) == pytest.approx((0.1705, 0.8090), abs=5e-5)
    assert difference(rate(5, 10), rate(5, 10)).p == 1.0  # type: ignore[union-attr]


def test_no_data_is_no_rate() -> None:
    none = rate(0, 0)
    assert (none.value, none.low, none.high) == (None, None, None)
    assert difference(none, rate(1, 2)) is None
    assert not clearly_above(rate(1, 2), none)
    assert shown(none) == "–"
    assert shown(rate(1, 2)) == "50.0 % (9.5–90.5)"


def test_clearly_above_means_by_more_than_the_width() -> None:
    assert clearly_above(rate(60, 100), rate(5, 100))
    assert not clearly_above(rate(20, 100), rate(10, 100))
    assert not clearly_above(rate(1, 1), rate(0, 1))


def test_the_pairing_prefers_another_article_and_the_same_kind() -> None:
    chance = random.Random(3)
    for size in (2, 3, 7, 40, 200):
        articles = [f"a{chance.randrange(6)}" for _ in range(size)]
        kinds = [f"k{chance.randrange(3)}" for _ in range(size)]
        partner = derangement(articles, kinds, seed=1)
        assert partner is not None
        assert sorted(partner) == list(range(size))  # each answer is used once
        assert all(row != other for row, other in enumerate(partner))
        assert partner == derangement(articles, kinds, seed=1)
    balanced = derangement([f"a{n % 4}" for n in range(48)], [f"k{n % 3}" for n in range(48)], seed=1)
    assert balanced is not None
    assert all(row % 4 != other % 4 and row % 3 == other % 3 for row, other in enumerate(balanced))


def test_the_pairing_of_awkward_rows() -> None:
    assert derangement(["a"], ["k"], seed=1) is None
    assert derangement(["a", "b"], ["k", "l"], seed=1) == [1, 0]  # no partner of the same kind
    one_article = derangement(["a"] * 5, ["k"] * 5, seed=1)
    assert one_article is not None
    assert all(row != other for row, other in enumerate(one_article))
    # a kind of which all rows are of one article goes to the others'
    mixed = derangement(["a", "a", "b", "c", "b", "c"], ["x", "x", "y", "y", "y", "y"], seed=1)
    assert mixed is not None
    assert sorted(mixed) == list(range(6))
    assert all(row != other for row, other in enumerate(mixed))


def _delta_error(cells: list[int]) -> float:
    """The standard error of kappa by the delta method with numerical slopes: no formula of the paper in it."""
    n = sum(cells)

    def kappa(p: list[float]) -> float:
        agree = p[0] + p[3]
        chance = (p[0] + p[1]) * (p[0] + p[2]) + (p[2] + p[3]) * (p[1] + p[3])
        return (agree - chance) / (1 - chance)

    at, step = [cell / n for cell in cells], 1e-6
    slopes = []
    for index in range(4):
        up = [value + step * (place == index) for place, value in enumerate(at)]
        down = [value - step * (place == index) for place, value in enumerate(at)]
        slopes.append((kappa(up) - kappa(down)) / (2 * step))
    mean = sum(slope * share for slope, share in zip(slopes, at, strict=True))
    return math.sqrt((sum(slope**2 * share for slope, share in zip(slopes, at, strict=True)) - mean**2) / n)


def _pairs(cells: list[int]) -> list[tuple[bool, bool]]:
    kinds = [(True, True), (True, False), (False, True), (False, False)]
    return [kind for kind, times in zip(kinds, cells, strict=True) for _ in range(times)]


@pytest.mark.parametrize("cells", [[20, 5, 10, 15], [22, 2, 4, 11], [45, 15, 25, 15], [3, 40, 30, 2], [90, 1, 2, 7]])
def test_kappa_and_its_interval(cells: list[int]) -> None:
    n = sum(cells)
    agree = (cells[0] + cells[3]) / n
    chance = ((cells[0] + cells[1]) * (cells[0] + cells[2]) + (cells[2] + cells[3]) * (cells[1] + cells[3])) / n**2
    found = cohen_kappa(_pairs(cells))
    assert found is not None
    assert found.value == pytest.approx((agree - chance) / (1 - chance), abs=1e-6)
    reach = 1.959964 * _delta_error(cells)
    assert found.low == pytest.approx(max(-1.0, found.value - reach), abs=2e-6)
    assert found.high == pytest.approx(min(1.0, found.value + reach), abs=2e-6)


def test_kappa_agrees_with_another_library() -> None:
    # statsmodels 0.14, cohens_kappa of [[20, 5], [10, 15]] and [[22, 2], [4, 11]]
    for cells, value, low, high in (
        ([20, 5, 10, 15], 0.4, 0.151092, 0.648908),
        ([22, 2, 4, 11], 0.666667, 0.423952, 0.909381),
    ):
        found = cohen_kappa(_pairs(cells))
        assert found is not None
        assert (found.value, found.low, found.high) == pytest.approx((value, low, high), abs=2e-6)


def test_kappa_where_there_is_little_to_say() -> None:
    assert cohen_kappa([]) is None
    assert cohen_kappa([(True, True)] * 9) is None  # both say one thing only: agreement by chance is certain
    perfect = cohen_kappa([(True, True), (False, False)] * 10)
    assert perfect is not None
    assert (perfect.value, perfect.high) == (1.0, 1.0)
    assert 0.6 < perfect.low < 0.75  # 20 of 20 is not certainty: Wilson's 0.839, less chance
    opposite = cohen_kappa([(True, False), (False, True)] * 10)
    assert opposite is not None
    assert opposite.value == opposite.low == -1.0


def test_the_corrected_rate_is_rogans_and_gladens() -> None:
    # 60 % observed by a judge that passes 90 % of the right and 10 % of the wrong answers: (0.6 - 0.1) / (0.9 - 0.1)
    found = corrected(rate(60, 100), rate(45, 50), rate(5, 50))
    assert found is not None
    assert found.value == pytest.approx(0.625)
    # a judge that nothing speaks against changes nothing, and adds its own uncertainty
    plain, sure = rate(60, 100), corrected(rate(60, 100), rate(20, 20), rate(0, 40))
    assert sure is not None and plain.low is not None and plain.high is not None
    assert sure.value == 0.6
    assert sure.high - sure.low > plain.high - plain.low
    # and ever less, the better it is known
    known = corrected(plain, rate(20_000, 20_000), rate(0, 20_000))
    assert known is not None
    assert known.high - known.low == pytest.approx(plain.high - plain.low, abs=0.005)


def test_no_correction_without_a_judge_that_tells_right_from_wrong() -> None:
    assert corrected(rate(0, 0), rate(9, 10), rate(1, 10)) is None
    assert corrected(rate(5, 10), rate(0, 0), rate(1, 10)) is None
    assert corrected(rate(5, 10), rate(9, 10), rate(0, 0)) is None
    assert corrected(rate(50, 100), rate(60, 100), rate(50, 100)) is None
    for passed in range(0, 11, 5):
        for right, wrong in ((1, 0), (2, 1), (2, 0), (40, 0), (40, 20)):
            found = corrected(rate(passed, 10), rate(right, max(2, right)), rate(wrong, 40))
            if found:
                assert 0 <= found.low <= found.value <= found.high <= 1


@pytest.mark.parametrize(
    ("truth", "tpr", "fpr", "rows", "canaries"),
    [(0.4, 0.9, 0.1, 200, 40), (0.05, 0.95, 0.05, 200, 40), (0.6, 0.7, 0.2, 400, 80), (0.9, 0.99, 0.02, 100, 20)],
)
def test_the_corrected_interval_covers_the_truth(
    truth: float, tpr: float, fpr: float, rows: int, canaries: int
) -> None:
    """Of 1000 judgings, drawn with all three uncertainties, the 95 % interval holds the true rate in 93 % at least."""
    chance = np.random.default_rng(11)
    held = plain_held = 0
    for _ in range(1000):
        right = rate(int(chance.binomial(canaries, tpr)), canaries)
        wrong = rate(int(chance.binomial(2 * canaries, fpr)), 2 * canaries)
        observed = rate(int(chance.binomial(rows, truth * tpr + (1 - truth) * fpr)), rows)
        found = corrected(observed, right, wrong)
        assert found is not None and observed.low is not None and observed.high is not None
        held += found.low <= truth <= found.high
        plain_held += observed.low <= truth <= observed.high
    assert held >= 930
    assert plain_held < held  # what the correction is for


def test_clusters_of_one_mind_widen_the_interval() -> None:
    names = [f"a{row // 10}" for row in range(200)]
    alike = [row // 10 % 2 == 0 for row in range(200)]  # 20 articles, each all right or all wrong
    found, plain = clustered(alike, names), rate(100, 200)
    assert found is not None and plain.low is not None and plain.high is not None
    wide = found.high - found.low
    assert wide > 2.5 * (plain.high - plain.low)
    # what matters are 20 articles, not 200 rows: Student's interval of 20 numbers that are 0 or 1
    assert wide == pytest.approx(2 * 2.093 * math.sqrt(0.25 / 19), abs=0.05)


def test_independent_rows_have_about_wilsons_interval() -> None:
    chance = random.Random(5)
    passed = [chance.random() < 0.4 for _ in range(400)]
    found, plain = clustered(passed, [f"a{row // 8}" for row in range(400)]), rate(sum(passed), 400)
    assert found is not None and plain.low is not None and plain.high is not None
    assert found.value == plain.value
    assert 1 <= (found.high - found.low) / (plain.high - plain.low) < 1.25
    assert clustered(passed, [f"a{row // 8}" for row in range(400)]) == found  # seeded


def test_clusters_too_few_or_all_alike() -> None:
    assert clustered([True] * 8, ["a", "b", "c", "d"] * 2) is None
    assert clustered([], []) is None
    found, plain = clustered([False] * 40, [str(row % 10) for row in range(40)]), rate(0, 40)
    assert found is not None
    assert (found.value, found.low, found.high) == (0.0, 0.0, plain.high)  # a bootstrap of it would have no width


def test_the_clustered_interval_covers_the_truth() -> None:
    """15 articles with pass rates of their own (Beta 2, 2; mean 0.5), 12 rows each: Wilson holds the mean far less often."""
    chance = np.random.default_rng(3)
    held = plain_held = 0
    for _ in range(200):
        shares = chance.beta(2, 2, size=15)
        passed = [bool(chance.random() < share) for share in shares for _ in range(12)]
        found, plain = clustered(passed, [f"a{row // 12}" for row in range(180)]), rate(sum(passed), 180)
        assert found is not None and plain.low is not None and plain.high is not None
        held += found.low <= 0.5 <= found.high
        plain_held += plain.low <= 0.5 <= plain.high
    assert held >= 0.92 * 200
    assert plain_held < 0.85 * 200


@pytest.mark.parametrize(
    ("b", "c", "p"),
    # 2 · Σ C(n, k) / 2^n up to the smaller one: 2 · 79 / 4096, 2 · 1 / 32, 1 of nothing, 1 of equal ones
    [(10, 2, 0.0386), (2, 10, 0.0386), (5, 0, 0.0625), (0, 0, 1.0), (7, 7, 1.0), (121, 59, 4.4e-06)],
)
def test_mcnemar_is_the_binomial_test_of_the_disagreements(b: int, c: int, p: float) -> None:
    assert mcnemar(b, c) == pytest.approx(p, rel=0.02)
