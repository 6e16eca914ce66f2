"""Intervals against published figures, and pairings that never meet themselves."""

from __future__ import annotations

import random

import pytest

from judge.stats import clearly_above, derangement, difference, rate, shown


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
