"""What judgings say together: the best step, the distance of trained from held-out phrasing, what they cost."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.written_run import fill
from trainer.judgings import Lowest, apart, best_loss, by_round, cost, kept_steps
from trainer.metrics import METRICS, History, Metric, RoundPoint, best_judged


def wilson(passed: int, of: int) -> dict[str, float]:
    """Pass rate and its interval, as the judge's summary has them."""
    z, share = 1.959964, passed / of
    centre, spread = share + z * z / (2 * of), z * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    ends = ((centre - spread) / (1 + z * z / of), (centre + spread) / (1 + z * z / of))
    return {"pass_rate": share, "low": ends[0], "high": ends[1]}


def point(number: int, split: str = "phrasing", **more: Any) -> RoundPoint:
    return RoundPoint.model_validate({"round": number, "step": 10 * number, "split": split} | more)


def test_the_distance_of_two_rates_has_newcombes_interval() -> None:
    # the example of his paper: 56 of 70 and 48 of 80
    found = apart([point(1, "train", **wilson(56, 70)), point(1, **wilson(48, 80))])
    assert found == pytest.approx((0.2, 0.0524, 0.3339), abs=1e-4)


def test_it_is_of_the_newest_round_that_has_both_and_is_believed() -> None:
    points = [
        point(1, "train", pass_rate=0.3),
        point(1, pass_rate=0.2),
        point(2, "train", pass_rate=0.7),
        point(2, pass_rate=0.5),
        point(3, "train", pass_rate=0.9),
        point(3, pass_rate=0.1, problems=("5 % are unscored",)),
        point(4, pass_rate=0.6),
        point(4, "unseen", pass_rate=0.0),
    ]
    assert apart(points) == pytest.approx((0.2, 0.2, 0.2))
    assert apart(points[4:]) is None
    assert apart([]) is None


def test_of_a_split_that_was_judged_twice_the_later_counts() -> None:
    points = [point(2, pass_rate=0.1), point(1, pass_rate=0.3), point(2, pass_rate=0.2)]
    assert [(number, one["phrasing"].pass_rate) for number, one in by_round(points).items()] == [(1, 0.3), (2, 0.2)]


def test_a_rounds_time_counts_once_and_that_of_a_failed_one_too() -> None:
    spent = {"seconds": {"train": 60, "answer": 10.5, "judge": 9.5}, "gpu_seconds": {"train": 58}}
    points = [point(1, split, **spent) for split in ("phrasing", "unseen", "train")]
    points.append(point(2, error="it died", seconds={"train": 40}))
    found = cost(points)
    assert found.seconds == {"train": 100, "answer": 10.5, "judge": 9.5}
    assert found.gpu_seconds == {"train": 58}
    assert found.judging == pytest.approx(20 / 120)
    assert cost([]).judging is None
    assert cost([point(1, seconds={"train": 0.0})]).judging is None


def test_times_of_old_lines_that_differ_by_split_count_as_the_longest() -> None:
    points = [
        point(1, seconds={"train": 60, "answer": 5, "judge": 1}),
        point(1, "unseen", seconds={"train": 60, "answer": 7}),
    ]
    assert cost(points).seconds == {"train": 60, "answer": 7, "judge": 1}


def test_the_best_judged_is_the_latest_of_equals_and_none_where_nothing_is_right() -> None:
    points = [point(1, pass_rate=0.3), point(3, pass_rate=0.3), point(2, pass_rate=0.3), point(4, pass_rate=0.2)]
    assert best_judged(points) == points[1]
    none = [point(number, pass_rate=0.0, low=0.0, high=0.1) for number in (1, 2)]
    assert best_judged(none) is None, "the one trained least is not the best"
    assert best_judged([*none, points[-1]]) == points[-1]


def measured(folder: Path, losses: dict[int, float]) -> History:
    """A run's figures, with those losses on held-out phrasing."""
    fill(folder, 0)
    lines = (
        Metric(step=step, epoch=0, tokens=0, supervised=0, phrasing=loss).model_dump_json()
        for step, loss in losses.items()
    )
    (folder / METRICS).write_text("\n".join(lines) + "\n")
    history = History(folder)
    history.refresh()
    return history


def test_the_best_by_loss_is_a_checkpoint_that_is_kept_the_later_of_equals(tmp_path: Path) -> None:
    history = measured(tmp_path, {0: 0.1, 100: 3.0, 200: 0.5, 300: 0.7, 400: 0.7, 1_000_000: 0.9})
    assert best_loss(history, tmp_path) == Lowest(200, 0.5, False)
    for name in ("step-000300", "step-000400", "step-1000000", "step-000150", "step-", ".tmp-1"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    assert kept_steps(tmp_path) == {150, 300, 400, 1_000_000}
    assert best_loss(history, tmp_path) == Lowest(400, 0.7, True)


def test_before_the_first_step_nothing_is_the_best(tmp_path: Path) -> None:
    assert best_loss(measured(tmp_path, {0: 0.1}), tmp_path) is None
