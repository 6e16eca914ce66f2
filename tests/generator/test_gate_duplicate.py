"""The duplicate gate: the second time that a unit says the same, and no more than that."""

from __future__ import annotations

import pytest

from generator.gates.duplicate import Duplicates

FIRST = "When did the Battle of Midway begin?"


def test_the_first_of_two_is_accepted_and_the_second_is_not() -> None:
    seen = Duplicates()

    results = [seen.check(text, "question") for text in (FIRST, "Who led it?", FIRST, FIRST)]

    assert [result.ok for result in results] == [True, True, False, False]
    assert (results[2].gate, results[2].code, results[2].field) == ("duplicate", "exact", "question")


@pytest.mark.parametrize(
    "again",
    [
        "when did the battle of midway begin",
        "  When did the Battle of Midway\nbegin ?!",
        "“When did the Battle of Midway begin?”",
        "When did the Bàttle of Midwäy begin?",
        "When did the battle-of-Midway begin?",
    ],
)
def test_case_accents_and_punctuation_make_no_new_question(again: str) -> None:
    seen = Duplicates()
    seen.check(FIRST)

    assert not seen.check(again).ok


@pytest.mark.parametrize(
    "other",
    [
        "When did the Battle of Midway end?",
        "When did the Battle of Midway begin, and why?",
        "Did the Battle of Midway begin when?",
        "When did the Battle of Mid way begin?",
        "",
        "?",
    ],
)
def test_other_words_are_another_question(other: str) -> None:
    seen = Duplicates()
    seen.check(FIRST)

    assert seen.check(other).ok


def test_texts_without_words_are_compared_as_they_stand() -> None:
    seen = Duplicates()

    assert [seen.check(text).ok for text in ("?", "!", "?", "____", "____", "")] == [
        True,
        True,
        False,
        True,
        False,
        True,
    ]


def test_units_do_not_know_of_one_another() -> None:
    one, other = Duplicates(), Duplicates()

    assert one.check(FIRST).ok and other.check(FIRST).ok


def test_half_a_character_is_compared_too() -> None:
    seen = Duplicates()

    assert [seen.check("\ud800 a").ok, seen.check("\ud800 a").ok] == [True, False]
