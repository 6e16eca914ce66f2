"""Intervals of shares: the published examples, the ends of the scale, nothing of nothing."""

from __future__ import annotations

import pytest

from foundation.intervals import newcombe, wilson


def test_wilsons_interval_is_the_published_one() -> None:
    """Newcombe 1998, Statistics in Medicine 17, 857-872, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29."""
    for some, of, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        share = wilson(some, of)
        assert share is not None
        assert (share.some, share.of, share.value) == (some, of, some / of)
        assert (share.low, share.high) == pytest.approx((low, high), abs=6e-5)


def test_it_stays_on_the_scale_and_nothing_has_none() -> None:
    for of in (1, 2, 7, 1000):
        none, every = wilson(0, of), wilson(of, of)
        assert none is not None and every is not None
        assert (none.low, every.high) == (0.0, 1.0)
        assert 0 < none.high < 1
        assert every.low == pytest.approx(1 - none.high)
    assert wilson(0, 0) is None


def test_newcombes_interval_is_the_published_one() -> None:
    """Newcombe 1998, Statistics in Medicine 17, 873-890, table II, method 10: 56/70 against 48/80, 9/10 against 3/10, 10/10 against 0/20."""
    for one, other, wanted in (
        ((56, 70), (48, 80), (0.2, 0.0524, 0.3339)),
        ((9, 10), (3, 10), (0.6, 0.1705, 0.8090)),
        ((10, 10), (0, 20), (1.0, 0.6791, 1.0)),
    ):
        left, right = wilson(*one), wilson(*other)
        assert left is not None and right is not None
        assert newcombe(left.ends, right.ends) == pytest.approx(wanted, abs=6e-5)
        assert newcombe(right.ends, left.ends) == pytest.approx((-wanted[0], -wanted[2], -wanted[1]), abs=6e-5)
