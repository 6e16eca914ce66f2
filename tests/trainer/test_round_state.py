"""What follows from an orchestrated run's rounds: where they end, when it is enough, what they cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from foundation.errors import Failure, UsageError
from trainer.lanes import other_gpu
from trainer.metrics import RoundPoint, best_judged
from trainer.round_state import State, Took, Trained, failures, flat, points_of, read_state, round_ends, together


def point(number: int, rate: float | None, reach: float = 0.05, **more: Any) -> RoundPoint:
    ends = {} if rate is None else {"low": rate - reach, "high": rate + reach}
    return RoundPoint(round=number, step=100 * number, pass_rate=rate, **{**ends, **more})


def points(*rates: float | None) -> list[RoundPoint]:
    return [point(number, rate) for number, rate in enumerate(rates, 1)]


@pytest.mark.parametrize(
    ("steps", "rounds", "every", "ends"),
    [
        (8, 2, 0, (4, 8)),
        (10, 3, 0, (3, 7, 10)),
        (10, 1, 0, (10,)),
        (2, 5, 0, (1, 2)),  # no round without a step
        (1, 1, 0, (1,)),
        (1140, 2, 500, (500, 1000, 1140)),
        (1000, 2, 500, (500, 1000)),
        (300, 2, 1000, (300,)),
    ],
)
def test_rounds_end_where_they_are_to(steps: int, rounds: int, every: int, ends: tuple[int, ...]) -> None:
    assert round_ends(steps, rounds, every) == ends


def test_what_was_trained_before_cannot_be_judged_any_more() -> None:
    assert round_ends(8, 2, 2, done=5) == (6, 8)
    assert round_ends(8, 2, 2, done=6) == (6, 8)
    assert round_ends(8, 4, 0, done=8) == (8,)
    assert round_ends(8, 2, 0, done=9) == (8,)


def test_parts_of_a_stage_are_added_up() -> None:
    stopped, rest = Took(seconds=3.0, gpu_seconds=2.0), Took(seconds=1.5, gpu_seconds=1.0)
    assert together(stopped, rest) == Took(seconds=4.5, gpu_seconds=3.0)
    assert together(None, rest) == rest
    assert together(Took(seconds=3.0), Took(seconds=1.0)) == Took(seconds=4.0)


def test_enough_is_when_no_rate_leaves_the_interval_of_the_one_before_upwards() -> None:
    rising = points(0.10, 0.20, 0.30, 0.40)
    level = points(0.10, 0.30, 0.32, 0.28, 0.33)
    assert flat(rising, 2) == ""
    assert "round 2" in flat(level, 3)
    assert "25.0% to 35.0%" in flat(level, 3)
    assert flat(level, 4) == ""  # round 1 was far below
    assert flat(level, 5) == ""  # too few
    assert flat(level, 0) == ""  # not asked for
    # one rise among them is a rise; a fall is none
    assert flat(points(0.3, 0.31, 0.36, 0.30), 3) == ""
    assert flat(points(0.3, 0.1, 0.1), 2) != ""


def test_what_is_not_believed_neither_ends_training_nor_is_best() -> None:
    doubted = [
        *points(0.3, 0.31),
        point(3, 0.9, problems=("the score is refused",)),
        point(4, None, error="judge: gone"),
    ]
    assert flat(doubted, 2) == ""
    assert flat([*doubted, point(5, 0.30)], 2) != ""
    best = best_judged([*doubted, point(5, 0.8).model_copy(update={"split": "train"})])
    assert best is not None
    assert best.round == 2
    assert best_judged([point(1, None)]) is None
    equal = best_judged(points(0.3, 0.3))
    assert equal is not None
    assert equal.round == 2  # more training is the better of equals
    assert best_judged(points(0.0, 0.0)) is None  # the best of nothing


def test_failures_in_a_row_are_those_of_the_newest_rounds() -> None:
    assert failures([]) == 0
    assert failures(points(0.3, None, None)) == 2
    assert failures(points(None, None, 0.3)) == 0
    refused = point(2, None, problems=("below its floor",))
    seen = refused.model_copy(update={"split": "unseen"})
    assert failures([point(1, 0.2), refused, seen, point(3, None, error="judge: exit code 1")]) == 2


def figures(rate: float, unscored: int = 0) -> dict[str, Any]:
    return {
        "counts": {"PASS": 1, "FAIL": 2, "UNSCORED": unscored},
        "pass_rate": rate,
        "low": rate - 0.1,
        "high": rate + 0.1,
        "stop_rate": 0.5,
        "baseline": {"pass_rate": 0.01, "low": 0.0, "high": 0.03},
        "corrected": {"value": rate + 0.02, "low": rate - 0.1, "high": rate + 0.12},
    }


def test_a_summary_makes_a_point_for_each_split_it_has() -> None:
    unseen = {**figures(0.2), "baseline": None, "corrected": None}
    summary = {"by_split": {"unseen": unseen, "phrasing": figures(0.4, 3)}, "problems": ["doubtful"]}
    trained = Trained(step=40, checkpoint="step-000040", seconds=10.0, gpu_seconds=9.0)
    made = points_of(summary, 2, trained, Took(seconds=2.0, gpu_seconds=1.5), Took(seconds=3.0))
    assert [one.split for one in made] == ["phrasing", "unseen"]
    assert made[0].model_dump() == {
        "round": 2, "step": 40, "split": "phrasing", "pass_rate": 0.4, "low": pytest.approx(0.3), "high": 0.5,
        "corrected": pytest.approx(0.42), "corrected_low": pytest.approx(0.3), "corrected_high": pytest.approx(0.52), "baseline": 0.01,
        "baseline_low": 0.0, "baseline_high": 0.03, "unscored": 3, "stop_rate": 0.5, "error": "", "problems": ("doubtful",),
        "seconds": {"train": 10.0, "answer": 2.0, "judge": 3.0}, "gpu_seconds": {"train": 9.0, "answer": 1.5},
    }  # fmt: skip
    assert (made[1].baseline, made[1].corrected) == (None, None)


def test_a_state_that_cannot_be_read_is_no_new_run(tmp_path: Path) -> None:
    path = tmp_path / "orchestrate.json"
    assert read_state(path) is None
    state = State(run="main", rounds=2, judge_every=0, steps=8, ends=(4, 8))
    path.write_text(state.model_dump_json())
    assert read_state(path) == state
    path.write_text('{"v": 1, "run": "main"}')
    with pytest.raises(Failure, match="another version wrote it"):
        read_state(path)


def test_a_judge_on_a_gpu_of_its_own_gets_one_that_is_there() -> None:
    assert other_gpu("", [0, 1]) is None
    assert other_gpu("cpu", [0, 1]) is None
    assert other_gpu("cuda:1", [2, 5]) == 5  # CUDA_VISIBLE_DEVICES=2,5
    assert other_gpu("cuda:0", [3], training=False) == 3  # training is on the CPU
    with pytest.raises(UsageError, match="a slice of a GPU"):
        other_gpu("cuda:1", [0, 1], sliced=True)
    for named, gpus, why in (
        ("cuda:0", [0, 1], "the training's own"),
        ("cuda:2", [0, 1], "2 GPUs"),
        ("cuda:1", [0], "one GPU"),
        ("cuda:1", [], "no GPU"),
    ):
        with pytest.raises(UsageError, match=why):
            other_gpu(named, gpus)
