"""What a run's judgings say together: the best step, how far trained and held-out phrasing are apart, what they cost.

Guarantees: a judging that is not believed counts for nothing but its cost; a round's time counts once, however many splits
it judged. Cost: nothing to speak of. No torch is imported. Misses: lines of before the splits of a round were judged in one
go have times of their own for each split; of those the longest counts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from foundation.intervals import newcombe
from foundation.records import Split

if TYPE_CHECKING:
    from trainer.metrics import History, RoundPoint

STATE = "orchestrate.json"  # of a run that is trained and judged in turn


@dataclass(frozen=True)
class Cost:
    """Seconds by stage (`train`, `answer`, `judge`): of the clock, and of those how long its processes held the GPU."""

    seconds: dict[str, float]
    gpu_seconds: dict[str, float]

    @property
    def judging(self) -> float | None:
        """Share of the stages' time that went into answering and judging; None where no time is known."""
        total = sum(self.seconds.values())
        return 1 - self.seconds.get("train", 0.0) / total if total else None

    def document(self) -> dict[str, Any]:
        return {"seconds": self.seconds, "gpu_seconds": self.gpu_seconds, "judging_share": self.judging}


def cost(points: Iterable[RoundPoint]) -> Cost:
    """What those judgings and the training between them took. Its figures stand in every split's point: once a round."""
    rounds: dict[int, list[RoundPoint]] = {}
    for point in points:
        rounds.setdefault(point.round, []).append(point)
    found = list(rounds.values())
    return Cost(
        _summed(_longest(point.seconds for point in one) for one in found),
        _summed(_longest(point.gpu_seconds for point in one) for one in found),
    )


def by_round(points: Iterable[RoundPoint]) -> dict[int, dict[Split, RoundPoint]]:
    """The splits of each round, rounds in order; of a split that was judged twice the later judging."""
    rounds: dict[int, dict[Split, RoundPoint]] = {}
    for point in points:
        rounds.setdefault(point.round, {})[point.split] = point
    return dict(sorted(rounds.items()))


class Lowest(NamedTuple):
    """The lowest loss on held-out phrasing, nats a token. `kept`: the run has the checkpoint of that step."""

    step: int
    loss: float
    kept: bool

    def document(self) -> dict[str, Any]:
        return {"step": self.step, "phrasing": self.loss, "checkpoint": self.kept}


def best_loss(history: History, folder: Path) -> Lowest | None:
    """Of the checkpoints that the run in `folder` keeps the one with the lowest loss, which is what `best` stands for.

    Of equals the later. Where no checkpoint was measured, or none is there, the lowest loss of any step behind the first.
    """
    steps, losses = history.curve("phrasing")
    found = [(loss, -int(step)) for step, loss in zip(steps.tolist(), losses.tolist(), strict=True) if step > 0]
    kept = kept_steps(folder)
    among = [one for one in found if -one[1] in kept]
    loss, step = min(among or found, default=(0.0, 0))
    return Lowest(-step, loss, bool(among)) if found else None


def kept_steps(folder: Path) -> set[int]:
    """The steps whose checkpoints the run in `folder` has."""
    found = (re.fullmatch(r"step-([0-9]+)", path.name) for path in (folder / "checkpoints").glob("step-*"))
    return {int(match[1]) for match in found if match}


def apart(points: Iterable[RoundPoint]) -> tuple[float, float, float] | None:
    """By how much trained phrasing is above held-out phrasing in the newest round where both are judged and believed.

    Shares of 1: the difference of the pass rates and its interval, from theirs (Newcombe 1998, method 10).
    """
    for one in reversed(by_round(points).values()):
        train, held_out = one.get("train"), one.get("phrasing")
        if train is None or held_out is None or not (train.believed and held_out.believed):
            continue
        return newcombe(_rate(train), _rate(held_out))
    return None


def ended_early(folder: Path) -> str:
    """Why the run in `folder` ended before its last step, as its orchestrator wrote it down; "" if it did not."""
    try:
        state = json.loads((folder / STATE).read_bytes())
    except (OSError, ValueError):
        return ""
    return str(state.get("ended") or "") if isinstance(state, dict) else ""


def _rate(point: RoundPoint) -> tuple[float, float, float]:
    """Pass rate and interval; where there is none, of no width."""
    rate = point.pass_rate or 0.0
    return rate, rate if point.low is None else point.low, rate if point.high is None else point.high


def _longest(found: Iterable[Mapping[str, float]]) -> dict[str, float]:
    longest: dict[str, float] = {}
    for one in found:
        longest |= {stage: max(seconds, longest.get(stage, 0.0)) for stage, seconds in one.items()}
    return longest


def _summed(found: Iterable[Mapping[str, float]]) -> dict[str, float]:
    summed: dict[str, float] = {}
    for one in found:
        for stage, seconds in one.items():
            summed[stage] = round(summed.get(stage, 0.0) + seconds, 3)
    return summed
