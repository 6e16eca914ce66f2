"""Guards: which steps are left out, when the weights go back, and that a resumed run decides as the unbroken one."""

from __future__ import annotations

import math
import random

from trainer.guards import ENOUGH, HISTORY, IN_A_ROW, Guard


def _steady(guard: Guard, steps: int, loss: float = 2.0) -> None:
    """Losses as a small run has them: noisy."""
    noise = random.Random(steps)
    for _ in range(steps):
        assert guard.judge(loss + noise.gauss(0, 0.15), 1.0 + noise.random()) == "take"


def test_a_loss_that_is_no_number_is_skipped_then_rolled_back_then_given_up() -> None:
    guard = Guard()
    decisions = [guard.judge(math.nan, 1.0) for _ in range(2 * IN_A_ROW)]
    assert decisions == ["skip", "skip", "roll back", "skip", "skip", "give up"]
    assert guard.skipped == 2 * IN_A_ROW


def test_an_infinite_gradient_counts_as_much() -> None:
    assert Guard().judge(2.0, math.inf) == "skip"


def test_a_good_step_between_begins_the_count_anew() -> None:
    guard = Guard()
    bad = (math.inf, 1.0)
    rows = [guard.judge(*bad), guard.judge(*bad), guard.judge(2.0, 1.0), guard.judge(*bad), guard.judge(*bad)]
    assert rows == ["skip", "skip", "take", "skip", "skip"]


def test_noise_and_a_falling_loss_are_no_spikes() -> None:
    guard = Guard()
    noise = random.Random(7)
    for step in range(3_000):
        loss = 9 * math.exp(-step / 300) + 0.1 + abs(noise.gauss(0, 0.3))
        assert guard.judge(loss, 0.5 + noise.random()) == "take", step


def test_a_spike_needs_a_loss_and_a_gradient_far_off() -> None:
    guard = Guard()
    _steady(guard, ENOUGH)
    assert guard.judge(9.0, 1.2) == "take", "a hard batch: its gradient is as long as any"
    assert guard.judge(2.0, 30.0) == "take", "clipping is there for that"
    assert guard.judge(9.0, 30.0) == "skip"


def test_no_spike_before_there_is_something_to_compare_with() -> None:
    guard = Guard()
    _steady(guard, ENOUGH - 1)
    assert guard.judge(90.0, 300.0) == "take"


def test_a_higher_loss_that_lasts_becomes_the_normal() -> None:
    guard = Guard()
    _steady(guard, HISTORY)
    assert [guard.judge(9.0, 30.0) for _ in range(IN_A_ROW + 1)] == ["skip", "skip", "roll back", "take"]


def test_told_that_the_data_change_it_forgets() -> None:
    guard = Guard()
    _steady(guard, HISTORY)
    guard.forget()
    assert guard.judge(9.0, 30.0) == "take"


def test_taken_up_again_it_decides_as_if_it_had_never_stopped() -> None:
    noise = random.Random(3)
    steps = [(9.0, 30.0) if noise.random() < 0.2 else (2 + noise.gauss(0, 0.1), 1.0) for _ in range(400)]
    steps[200:206] = [(math.nan, 1.0)] * 2 + [(2.0, 1.0)] + [(math.nan, math.nan)] * 3
    unbroken, cut = Guard(), Guard()
    for number, step in enumerate(steps):
        if number % 7 == 0:
            state, skipped = cut.state(), cut.skipped
            cut = Guard()
            cut.restore(state, skipped)
        assert unbroken.judge(*step) == cut.judge(*step), number
    assert unbroken.skipped == cut.skipped > 0
