"""Filling contexts with records of known lengths: never over-full, nothing lost, longest first, nearly no room left."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.bestfit import _best_fit, pack_lengths


def contents(lengths: list[int], context: int, window: int = 100_000) -> list[list[int]]:
    """The lengths in each context, in the order the contexts were made."""
    order, packs = pack_lengths(lengths, context, window)
    assert packs[0] == 0
    assert packs[-1] == len(order) == len(lengths)
    return [[lengths[number] for number in order[start:stop]] for start, stop in itertools.pairwise(packs)]


def searched(lengths: list[int], context: int) -> list[int]:
    """What is free in each context of best-fit decreasing, by a search through all of them for every record."""
    free: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [left for left in free if left >= length]
        left = min(fitting) if fitting else context
        if fitting:
            free.remove(left)
        free.append(left - length)
    return free


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(1, 50), max_size=300), st.integers(1, 80))
def test_no_context_overflows_and_every_record_is_in_one(lengths: list[int], window: int) -> None:
    order, _ = pack_lengths(lengths, 50, window)
    assert sorted(order.tolist()) == list(range(len(lengths)))
    for context in contents(lengths, 50, window):
        assert 0 < sum(context) <= 50


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(1, 40), max_size=200), st.integers(40, 200))
def test_a_context_begins_with_the_longest_left_which_fits_none_before_it(lengths: list[int], context: int) -> None:
    made = contents(lengths, context)
    left = sorted(lengths, reverse=True)
    for number, held in enumerate(made):
        assert max(held) == left[0]
        assert all(context - sum(before) < max(held) for before in made[:number])
        for length in held:
            left.remove(length)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(1, 40), max_size=200), st.integers(40, 200))
def test_there_are_never_more_contexts_than_best_fit_decreasing_makes(lengths: list[int], context: int) -> None:
    assert len(contents(lengths, context)) <= len(searched(lengths, context))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(1, 40), max_size=200), st.integers(40, 200))
def test_its_best_fit_is_that_of_the_search(lengths: list[int], context: int) -> None:
    moves, opened = _best_fit(np.bincount(lengths, minlength=context + 1), context)
    room = [context] * opened
    longest_first = sorted(lengths, reverse=True)
    for place, first, many, each in moves:
        for number in range(many * each):
            room[first + number // each] -= longest_first[place + number]
    assert sorted(room) == sorted(searched(lengths, context))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 64), min_size=1, max_size=200))
def test_one_or_two_records_that_fill_a_context_exactly_are_taken(lengths: list[int]) -> None:
    """Give each record a partner that fills the rest of its context: then every context is full."""
    context = 200
    paired = [part for length in lengths for part in (length, context - length)]
    assert all(sum(held) == context for held in contents(paired, context))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 30), max_size=200), st.integers(1, 50))
def test_a_window_is_packed_by_itself(lengths: list[int], window: int) -> None:
    order, packs = pack_lengths(lengths, 30, window)
    apart = [(pack_lengths(lengths[start : start + window], 30), start) for start in range(0, len(lengths), window)]
    assert order.tolist() == [number + start for (numbers, _), start in apart for number in numbers.tolist()]
    assert np.diff(packs).tolist() == [size for (_, bounds), _ in apart for size in np.diff(bounds).tolist()]


@pytest.mark.parametrize("context", [512, 1024, 4096])
@pytest.mark.parametrize("spread", [0.3, 0.6])
def test_contexts_are_at_least_99_8_percent_full(context: int, spread: float) -> None:
    draw = random.Random(1)
    lengths = [min(context, max(12, int(draw.lognormvariate(5.1, spread)))) for _ in range(100_000)]
    _, packs = pack_lengths(lengths, context)
    assert sum(lengths) / ((len(packs) - 1) * context) >= 0.998


@pytest.mark.parametrize("lengths", [[0], [3, 11], [-1, 5]])
def test_a_length_that_fits_no_context_is_refused(lengths: list[int]) -> None:
    with pytest.raises(ValueError, match="1 to 10"):
        pack_lengths(lengths, 10)


def test_records_of_one_length_lie_in_the_order_they_came() -> None:
    order, _ = pack_lengths([5] * 7, 10)
    assert order.tolist() == list(range(7))
