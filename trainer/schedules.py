"""Learning rate and weight decay as functions of where the run is, and of nothing else.

Guarantees: pure, so a resumed run goes on at the rate it would have had. The rate named for a step is meant to be set
before that step is taken. Cost: nothing; no torch is imported.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from foundation.errors import UsageError

if TYPE_CHECKING:
    from foundation.tables import TrainSettings


def check_schedule(settings: TrainSettings) -> None:
    """Raises `UsageError` if warmup and decay together are more than the whole run."""
    if settings.schedule == "wsd" and settings.warmup + settings.decay > 1 + 1e-9:
        raise UsageError(
            f"a warmup of {settings.warmup:g} and a decay of {settings.decay:g} are more than the whole run together",
            where="train.warmup and train.decay in factory.toml",
            mend="make their sum 1 or less: they are shares of the steps",
        )


def learning_rate(step: int, total: int, settings: TrainSettings) -> float:
    """Rate of step `step` (0 to `total` - 1): a straight warmup to the peak, then down to its smallest share.

    cosine: half a cosine over all steps after the warmup. wsd: the peak is held, then a straight line over the last
    `decay` share of the steps. Shares are rounded up to whole steps. The peak is reached at the last step of the warmup
    (the first step of all, without one) and the smallest rate at the last step of the run. Where so few steps leave room
    for only one of these, the warmup has its steps first, then the peak, then the decay.
    """
    warmup = _steps(settings.warmup, total)
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    decay = total - max(1, warmup)
    if settings.schedule == "wsd":
        decay = min(decay, _steps(settings.decay, total))
    done = min(1.0, max(0, step + 1 - (total - decay)) / decay) if decay > 0 else 0.0
    left = 1 - done if settings.schedule == "wsd" else (1 + math.cos(math.pi * done)) / 2
    floor = settings.min_learning_rate
    return settings.learning_rate * (floor + (1 - floor) * left)


def weight_decay(epoch: float, settings: TrainSettings) -> float:
    """Decay of a step that begins after `epoch` epochs: that of the last entry at or before it."""
    return next(value for start, value in reversed(settings.weight_decay) if start <= epoch or start == 0)


def _steps(share: float, total: int) -> int:
    """That share of the steps, rounded up; 0.07 of 100 is 7, though their product in floating point is a little more."""
    return math.ceil(share * total - 1e-9)
