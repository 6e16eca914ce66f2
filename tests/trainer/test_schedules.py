"""Learning rate and weight decay against their closed forms, at every step, and where there is hardly a step."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundation.errors import UsageError
from foundation.tables import TrainSettings
from trainer.schedules import check_schedule, learning_rate, weight_decay

PEAK = 2.0


def rates(total: int, **settings: object) -> list[float]:
    """The rate of every step of a run with a peak of 2 and a floor of a tenth of it."""
    made = TrainSettings.model_validate({"learning_rate": PEAK, "min_learning_rate": 0.1, "warmup": 0.1} | settings)
    return [learning_rate(step, total, made) for step in range(total)]


def test_the_cosine_against_its_closed_form() -> None:
    found = rates(50)
    for step in range(5):
        assert found[step] == pytest.approx(PEAK * (step + 1) / 5)
    for step in range(4, 50):
        turn = math.pi * (step - 4) / 45
        assert found[step] == pytest.approx(0.2 + 1.8 * (1 + math.cos(turn)) / 2)
    assert found[4] == PEAK
    assert found[49] == pytest.approx(0.2)


def test_warmup_stable_decay_against_its_closed_form() -> None:
    found = rates(50, schedule="wsd", decay=0.2)
    for step in range(50):
        if step < 5:
            expected = PEAK * (step + 1) / 5
        elif step < 40:
            expected = PEAK
        else:
            expected = PEAK - 1.8 * (step - 39) / 10
        assert found[step] == pytest.approx(expected), step
    assert found[39] == PEAK
    assert found[49] == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ({"warmup": 0.0}, [2.0, 2.0 - 0.9, 0.2]),
        ({"warmup": 1.0}, [2 / 3, 4 / 3, 2.0]),
        ({"warmup": 0.0, "schedule": "wsd", "decay": 1.0}, [2.0, 1.1, 0.2]),
        ({"warmup": 0.0, "schedule": "wsd", "decay": 0.0}, [2.0, 2.0, 2.0]),
        ({"warmup": 1.0, "schedule": "wsd", "decay": 0.0}, [2 / 3, 4 / 3, 2.0]),
        ({"warmup": 0.0, "schedule": "wsd", "decay": 1 / 3}, [2.0, 2.0, 0.2]),
        ({"warmup": 0.5, "schedule": "wsd", "decay": 0.5}, [1.0, 2.0, 0.2]),  # two of warmup leave one for the decay
        ({"min_learning_rate": 0.0}, [2.0, 1.0, 0.0]),
        ({"min_learning_rate": 1.0}, [2.0, 2.0, 2.0]),
    ],
)
def test_the_ends_of_what_can_be_set(schedule: dict[str, object], expected: list[float]) -> None:
    assert rates(3, **schedule) == pytest.approx(expected)


@pytest.mark.parametrize("schedule", ["cosine", "wsd"])
@pytest.mark.parametrize("warmup", [0.0, 0.05, 0.8])
def test_a_run_of_one_step_takes_it_at_the_peak(schedule: str, warmup: float) -> None:
    assert rates(1, schedule=schedule, warmup=warmup) == [PEAK]


@pytest.mark.parametrize(("share", "steps"), [(0.07, 7), (0.29, 29), (0.55, 55), (0.071, 8)])
def test_a_share_is_rounded_up_to_whole_steps_and_not_beyond_for_the_sake_of_a_binary_fraction(
    share: float, steps: int
) -> None:
    assert rates(100, warmup=share).index(PEAK) == steps - 1
    held = rates(100, warmup=0.0, schedule="wsd", decay=share)
    assert sum(rate < PEAK for rate in held) == steps


@given(
    total=st.integers(1, 400),
    warmup=st.floats(0, 1),
    decay=st.floats(0, 1),
    floor=st.floats(0, 1),
    schedule=st.sampled_from(["cosine", "wsd"]),
)
def test_every_schedule_rises_to_its_peak_once_and_never_leaves_its_bounds(
    total: int, warmup: float, decay: float, floor: float, schedule: str
) -> None:
    found = rates(total, warmup=warmup, decay=decay, min_learning_rate=floor, schedule=schedule)
    top = found.index(max(found))
    assert found[top] == pytest.approx(PEAK)
    assert all(0 <= rate <= PEAK * (1 + 1e-12) for rate in found)
    assert all(one < other for one, other in pairwise(found[: top + 1]))
    assert all(one >= other - 1e-9 for one, other in pairwise(found[top:]))
    assert all(rate >= PEAK * floor - 1e-9 for rate in found[top:])


def test_more_than_the_whole_run_cannot_be_scheduled() -> None:
    with pytest.raises(UsageError, match=r"a warmup of 0\.5 and a decay of 0\.6 are more than the whole run"):
        check_schedule(TrainSettings(schedule="wsd", warmup=0.5, decay=0.6))
    check_schedule(TrainSettings(schedule="wsd", warmup=0.3, decay=0.7))
    check_schedule(TrainSettings(schedule="wsd", warmup=0.9, decay=0.1))
    check_schedule(TrainSettings(schedule="cosine", warmup=0.5, decay=0.6))  # its decay is what follows the warmup


def test_weight_decay_changes_where_its_epoch_begins() -> None:
    settings = TrainSettings(weight_decay=[(0.0, 0.1), (2.0, 0.05), (3.5, 0.0)])
    epochs = (0.0, 1.999, 2.0, 2.5, 3.499, 3.5, 40.0)
    assert [weight_decay(epoch, settings) for epoch in epochs] == [0.1, 0.1, 0.05, 0.05, 0.05, 0.0, 0.0]


def test_weight_decay_is_a_tenth_for_two_epochs_and_half_of_that_after_them_by_default() -> None:
    assert [weight_decay(epoch, TrainSettings()) for epoch in (0, 1.99, 2, 3.99)] == [0.1, 0.1, 0.05, 0.05]


def test_a_plain_number_is_the_weight_decay_throughout() -> None:
    settings = TrainSettings.model_validate({"weight_decay": 0.3})
    assert [weight_decay(epoch, settings) for epoch in (0.0, 7.0)] == [0.3, 0.3]
