"""Shares with 95 % intervals: Wilson's for one, Newcombe's for the difference of two.

Guarantees: never outside [0, 1] (a difference: [-1, 1]); of nothing there is None, never 0. Cost: none; the standard
library alone. Misses: rows that hang together (questions about one article) are taken for independent, so true intervals
are somewhat wider.
Source: Wilson 1927, JASA 22; Newcombe 1998, Statistics in Medicine 17, 873-890 (method 10).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

Z95 = 1.959963984540054

Ends = tuple[float, float, float]  # a figure, and both ends of its interval


@dataclass(frozen=True, slots=True)
class Share:
    """`some` of `of`; `low` and `high` are the ends of its interval."""

    some: int
    of: int
    value: float
    low: float
    high: float

    @property
    def ends(self) -> Ends:
        return self.value, self.low, self.high


def wilson(some: int, of: int, z: float = Z95) -> Share | None:
    """The share with Wilson's score interval; None of nothing."""
    if not of:
        return None
    value, square = some / of, z * z / of
    middle = (value + square / 2) / (1 + square)
    reach = z / (1 + square) * math.sqrt(value * (1 - value) / of + square / (4 * of))
    low = 0.0 if some == 0 else max(0.0, middle - reach)  # rounding must not leave the ends of the scale
    high = 1.0 if some == of else min(1.0, middle + reach)
    return Share(some, of, value, low, high)


def newcombe(one: Ends, other: Ends) -> Ends:
    """How far share `one` lies above `other`, with both ends of that difference's interval, for two samples apart."""
    (value, below, above), (less, under, over) = one, other
    gap = value - less
    low = gap - math.hypot(value - below, over - less)
    high = gap + math.hypot(above - value, less - under)
    return gap, max(-1.0, low), min(1.0, high)
