"""The report's chart of pass rates over the rounds, as points and ticks in the units of its picture.

Guarantees: within its frame, whatever the rates; a judging that is not believed is on no line. Cost: none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from foundation.splits import SPLIT_NAMES, split_name
from generator.report.judgings import Round, best_judged

BASELINE = "phrasing"  # the split whose shuffled answers are drawn: three of them would hide the rates


@dataclass
class Point:
    """One split's rate in one round, in the picture's units; `low` and `high` end its interval."""

    x: float
    y: float
    low: float
    high: float
    label: str
    doubted: bool = False
    best: bool = False


@dataclass
class Line:
    """One line of the chart; `kind` is `rate` or `baseline`, `number` the split's. Points in doubt are beside it."""

    split: str
    kind: str
    number: int
    points: list[Point] = field(default_factory=list)

    @property
    def name(self) -> str:
        return split_name(self.split)

    @property
    def path(self) -> str:
        return " ".join(f"{point.x:.1f},{point.y:.1f}" for point in self.points if not point.doubted)


@dataclass
class Chart:
    """An SVG of `width` x `height`, drawn between the four margins."""

    width: int = 480
    height: int = 260
    left: int = 44
    right: int = 468
    top: int = 12
    bottom: int = 222
    lines: list[Line] = field(default_factory=list)
    y_ticks: list[tuple[float, str]] = field(default_factory=list)
    x_ticks: list[tuple[float, str]] = field(default_factory=list)

    @property
    def doubted(self) -> bool:
        return any(point.doubted for line in self.lines for point in line.points)


def chart(rounds: Sequence[Round]) -> Chart | None:
    """Pass rates with intervals over the rounds, that of shuffled answers beside them; None if nothing was scored."""
    if not any(one.pass_rate is not None for one in rounds):
        return None
    drawn = Chart()
    top = _top(rounds)
    numbers = sorted({one.round for one in rounds})
    splits = list(dict.fromkeys(one.split for one in rounds))
    width = (drawn.right - drawn.left) / len(numbers)
    best = best_judged(rounds)
    for index, split in enumerate(splits):
        number = list(SPLIT_NAMES).index(split) if split in SPLIT_NAMES else index
        rate, baseline = Line(split, "rate", number), Line(split, "baseline", number)
        for one in (one for one in rounds if one.split == split):
            # Splits stand a little apart, so that their intervals do not cover each other; the baseline beside its own.
            x = drawn.left + (numbers.index(one.round) + 0.5) * width
            x += (index - (len(splits) - 1) / 2) * min(28.0, width / 4)
            aside = min(7.0, width / 8)
            said = "" if one.believed else ", not believed"
            point = _point(drawn, x, top, (one.pass_rate, one.low, one.high), f"round {one.round}, {one.name}{said}")
            if point is not None:
                point.doubted, point.best = not one.believed, one is best
                rate.points.append(point)
            shares = (one.baseline, one.baseline_low, one.baseline_high)
            point = _point(drawn, x + aside, top, shares, f"round {one.round}, {one.name} (shuffled answers)")
            if point is not None and split == BASELINE:
                baseline.points.append(point)
        drawn.lines += [line for line in (baseline, rate) if line.points]
    _ticks(drawn, top, numbers)
    return drawn


def _top(rounds: Sequence[Round]) -> float:
    """The share at the chart's upper end."""
    shares = [
        share
        for one in rounds
        for share in (one.pass_rate, one.high, *((one.baseline, one.baseline_high) if one.split == BASELINE else ()))
        if share is not None
    ]
    return min(1.0, max(0.1, math.ceil(max(shares) * 10) / 10))


def _point(
    drawn: Chart, x: float, top: float, shares: tuple[float | None, float | None, float | None], label: str
) -> Point | None:
    share, low, high = shares
    if share is None:
        return None

    def y(one: float) -> float:
        return drawn.bottom - one / top * (drawn.bottom - drawn.top)

    return Point(
        x,
        y(share),
        y(share if low is None else low),
        y(share if high is None else high),
        f"{label}: {100 * share:.1f} %",
    )


def _ticks(drawn: Chart, top: float, numbers: Sequence[int]) -> None:
    tick = next(step for step in (0.02, 0.05, 0.1, 0.2) if top / step <= 6.01)
    for count in range(int(top / tick + 0.01) + 1):
        y = drawn.bottom - count * tick / top * (drawn.bottom - drawn.top)
        drawn.y_ticks.append((y, f"{100 * tick * count:.0f} %"))
    width, every = (drawn.right - drawn.left) / len(numbers), math.ceil(len(numbers) / 12)
    drawn.x_ticks = [
        (drawn.left + (index + 0.5) * width, str(number)) for index, number in enumerate(numbers) if index % every == 0
    ]
