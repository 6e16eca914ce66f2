"""A run's folder as training leaves it, written without training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from foundation.tables import TrainSettings
from trainer.metrics import ROUNDS, Metric, RoundPoint, RunInfo, append_metric, write_run_info

RECIPE = TrainSettings(learning_rate=1e-3, batch=4, context=512, vocabulary=4096)


def run_info(**more: Any) -> RunInfo:
    """A run of 200 steps."""
    values: dict[str, Any] = {
        "run": "first", "git": "abc1234", "preset": "demo", "parameters": 4_262_144, "vocabulary": 4096, "context": 512,
        "batch": 4, "steps": 200, "epoch_tokens": 200_000, "device": "cpu", "precision": "bfloat16",
        "attention": "segments", "recipe": RECIPE.model_dump(mode="json"),
    }  # fmt: skip
    return RunInfo.model_validate(values | more)


def fill(
    folder: Path,
    steps: int,
    info: RunInfo | None = None,
    *,
    start: int = 0,
    losses: Callable[[int], float] = lambda step: 8 / step,
) -> None:
    """`run.json`, and the lines of steps `start` to `steps`; every tenth has the held-out losses behind it."""
    write_run_info(folder, info or run_info())
    for step in range(start, steps + 1):
        common = {"step": step, "epoch": step / 50, "tokens": 2000 * step, "supervised": 900 * step}
        if step:
            append_metric(
                folder,
                Metric(
                    **common,  # type: ignore[arg-type]
                    loss=losses(step), learning_rate=1e-3, weight_decay=0.1, grad_norm=0.5, tokens_per_second=51_200.4,
                    mfu=0.412, memory=3 << 30, seconds=2.25,
                ),
            )  # fmt: skip
        if step % 10 == 0:
            held_out = {"phrasing": 4.0 / step, "unseen": 5.0} if step else {"phrasing": 8.0, "unseen": 8.0}
            append_metric(folder, Metric(**common, **held_out))  # type: ignore[arg-type]


def judged(folder: Path, *points: RoundPoint) -> None:
    """`rounds.jsonl`."""
    (folder / ROUNDS).write_text("".join(point.model_dump_json() + "\n" for point in points))
