"""What the judge said of a run, round by round: pass rates of each split, whether to believe them, and what that cost.

Guarantees: plain files alone; lines of before there were three splits, corrected rates and problems read, too. A round's
time counts once, however many splits it judged. Cost: none. Misses: where lines of before give each split a time of its
own, the longest counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from foundation.splits import SPLIT_NAMES, split_name
from generator.report.pick import json_rows, read_or_empty

FIGURES = (
    "pass_rate", "low", "high", "baseline", "baseline_low", "baseline_high", "corrected", "corrected_low", "corrected_high",
    "unscored", "stop_rate",
)  # fmt: skip


@dataclass
class Round:
    """One split's pass rate after one round, with its interval, that corrected for the judge's errors, and that of
    shuffled answers. Shares of 1.

    `seconds` is wall time of the round by stage, `gpu_seconds` how long its processes held the GPU; both are the round's,
    so all its splits say the same. `problems`: why it is not to be believed; `error`: why it could not be judged.
    """

    round: int
    step: int
    split: str
    pass_rate: float | None = None
    low: float | None = None
    high: float | None = None
    baseline: float | None = None
    baseline_low: float | None = None
    baseline_high: float | None = None
    corrected: float | None = None
    corrected_low: float | None = None
    corrected_high: float | None = None
    unscored: int | None = None
    stop_rate: float | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    gpu_seconds: dict[str, float] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    error: str = ""

    @property
    def name(self) -> str:
        return split_name(self.split)

    @property
    def believed(self) -> bool:
        """Whether there is a pass rate, and nothing speaks against it."""
        return self.pass_rate is not None and not self.problems and not self.error


@dataclass
class Cost:
    """Seconds by stage, of the clock and on the GPU: of one round, or of all (`round` None)."""

    round: int | None
    seconds: dict[str, float]
    gpu_seconds: dict[str, float]

    @property
    def total(self) -> float:
        return sum(self.seconds.values())

    @property
    def gpu_total(self) -> float:
        return sum(self.gpu_seconds.values())

    @property
    def judging(self) -> float | None:
        """Share of the time that went into answering and judging; None where no time is known."""
        return 1 - self.seconds.get("train", 0.0) / self.total if self.total else None


def read_rounds(path: Path) -> list[Round]:
    """A round that was judged twice counts as it was judged last; a line that names no split is of held-out phrasings."""
    rounds: dict[tuple[int, str], Round] = {}
    for row in json_rows(read_or_empty(path)):
        found, split = number(row, "round"), str(row.get("split") or "phrasing")
        if found is None:
            continue
        problems = row.get("problems")
        rounds[int(found), split] = Round(
            round=int(found),
            step=int(number(row, "step") or 0),
            split=split,
            seconds=_numbers(row.get("seconds")),
            gpu_seconds=_numbers(row.get("gpu_seconds")),
            problems=[str(one) for one in problems] if isinstance(problems, list) else [],
            error=str(row.get("error") or ""),
            **{name: number(row, name) for name in FIGURES},
        )
    order = list(SPLIT_NAMES)
    return [
        rounds[key]
        for key in sorted(rounds, key=lambda it: (it[0], order.index(it[1]) if it[1] in order else len(order), it[1]))
    ]


def best_judged(rounds: Iterable[Round]) -> Round | None:
    """The judging with the highest pass rate on held-out phrasing that is believed, the latest of equals; none at 0 %."""
    found = [one for one in rounds if one.split == "phrasing" and one.believed and one.pass_rate]
    return max(found, key=lambda one: (one.pass_rate or 0.0, one.step), default=None)


def costs(rounds: Iterable[Round]) -> list[Cost]:
    """What each round took, and all of them together last; empty if nothing says."""
    by_number: dict[int, list[Round]] = {}
    for one in rounds:
        by_number.setdefault(one.round, []).append(one)
    found = [
        Cost(count, _joined((one.seconds for one in some), max), _joined((one.gpu_seconds for one in some), max))
        for count, some in sorted(by_number.items())
    ]
    if not any(one.seconds for one in found):
        return []
    return [
        *found,
        Cost(None, _joined((one.seconds for one in found), _sum), _joined((one.gpu_seconds for one in found), _sum)),
    ]


def stages_of(found: Iterable[Cost]) -> list[str]:
    """Every stage that took time, in the order they come in a round."""
    order = ("train", "answer", "judge")
    names = list(dict.fromkeys(stage for one in found for stage in one.seconds))
    return sorted(names, key=lambda name: order.index(name) if name in order else len(order))


def number(row: Mapping[str, Any], name: str) -> Any:
    """The number `row` has under `name`; None if it has none, or one that is not finite."""
    value = row.get(name)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return value if is_number else None


def _numbers(values: object) -> dict[str, float]:
    values = values if isinstance(values, dict) else {}
    return {str(name): found for name in values if (found := number(values, name)) is not None}


def _sum(one: float, other: float) -> float:
    return one + other


def _joined(found: Iterable[Mapping[str, float]], join: Callable[[float, float], float]) -> dict[str, float]:
    joined: dict[str, float] = {}
    for one in found:
        for stage, seconds in one.items():
            joined[stage] = join(joined[stage], seconds) if stage in joined else seconds
    return joined
