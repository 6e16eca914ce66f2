"""The optimizer and its schedule.

Guarantees: weight decay on matrices only; the learning rate of a step is a function of the step's number alone, set
before the step is taken. Cost: AdamW, fused; 8 bytes a parameter.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from foundation.tables import TrainSettings


def learning_rate(step: int, total: int, settings: TrainSettings) -> float:
    """Rate of step `step` (0 to `total` - 1): a straight warmup to the peak, then a cosine down to its smallest share.

    The peak is reached at the last warmup step; the smallest rate is that of the last step.
    """
    peak = settings.learning_rate
    warmup = math.ceil(settings.warmup * total)
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup + 1) / (total - warmup)
    floor = settings.min_learning_rate
    return peak * (floor + (1 - floor) * (1 + math.cos(math.pi * done)) / 2)


def build_optimizer(model: torch.nn.Module, settings: TrainSettings) -> torch.optim.AdamW:
    """AdamW over all parameters of `model`, in two groups: matrices, which decay, and the rest."""
    parameters = list(model.parameters())
    return torch.optim.AdamW(
        [
            {"params": [one for one in parameters if one.dim() >= 2], "weight_decay": settings.weight_decay},
            {"params": [one for one in parameters if one.dim() < 2], "weight_decay": 0.0},
        ],
        lr=settings.learning_rate,
        betas=(0.9, 0.95),
        fused=True,
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
