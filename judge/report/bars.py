"""Rows of a table with their intervals drawn on one axis.

Guarantees: pure; positions are percentages of the axis' width, between 0 and 100; a missing figure draws nothing. Cost: none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

TICKS = {0.1: 2, 0.2: 4, 0.4: 4, 0.6: 3, 0.8: 4, 1.0: 4}  # where an axis may end, and the steps up to there


@dataclass(frozen=True)
class Bar:
    """A row. `link` narrows the answers below to it: (filter, value)."""

    name: str
    figures: Mapping[str, Any]
    link: tuple[str, str] = ("", "")
    notes: tuple[str, ...] = ()

    @property
    def counts(self) -> Mapping[str, int]:
        return self.figures.get("counts") or {}

    @property
    def rate(self) -> float | None:
        return self.figures.get("pass_rate")

    @property
    def baseline(self) -> Mapping[str, Any]:
        return self.figures.get("baseline") or {}

    @property
    def shuffled(self) -> float | None:
        """The rate of shuffled answers."""
        return self.baseline.get("pass_rate")

    @property
    def clustered(self) -> Mapping[str, float] | None:
        return self.figures.get("clustered")

    @property
    def corrected(self) -> Mapping[str, float] | None:
        return self.figures.get("corrected")


@dataclass(frozen=True)
class Axis:
    """From 0 to `top`."""

    top: float

    @property
    def labels(self) -> list[str]:
        steps = TICKS[self.top]
        return [f"{100 * self.top * step / steps:.0f}{' %' if step == steps else ''}" for step in range(steps + 1)]

    @property
    def grid(self) -> list[float]:
        steps = TICKS[self.top]
        return [round(100 * step / steps, 2) for step in range(steps + 1)]

    def at(self, share: float) -> str:
        """Where a share stands."""
        return f"{100 * min(max(share / self.top, 0.0), 1.0):.2f}".rstrip("0").rstrip(".")


def axis(rows: Sequence[Bar]) -> Axis:
    """The shortest axis that holds every figure of these rows."""
    ends: list[float] = []
    for row in rows:
        for figures in (row.figures, row.baseline, row.clustered or {}, row.corrected or {}):
            value = figures.get("high")
            if value is not None:
                ends.append(value)
    return Axis(next(top for top in TICKS if top >= min(max(ends, default=1.0), 1.0)))
