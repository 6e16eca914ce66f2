"""What cannot be understood or answered by itself is declined."""

from __future__ import annotations

from random import Random

import pytest

from generator.teachers.rules.sound import dangling, has_verb, leans_on_subject, whole
from generator.teachers.rules.task import Library, Task
from tests.generator.test_rules_rewrite import snippet


def task_of(text: str) -> Task:
    made = snippet(text)
    library = Library([made])
    return Task(library, library.readings[made.id], "truth/true-statement", 0, Random(1))


@pytest.mark.parametrize(
    ("text", "hangs"),
    [
        ("The Americans gave up the bridge on 21 December 1944.", True),
        ("At Nijmegen, British tanks crossed the bridge on 20 September 1944.", False),
        ("Brigadier General Anthony McAuliffe led the division in 1944.", True),
        ("British tanks crossed the bridge of Nijmegen in 1944.", False),
    ],
)
def test_a_place_that_only_another_sentence_names_hangs_in_the_air(text: str, hangs: bool) -> None:
    task = task_of(text)

    assert dangling(task, task.reading.sentences[0]) is hangs


@pytest.mark.parametrize("text", ["68 ordered in 1975 from the Soviet Union.", "62 BMP-2 infantry fighting vehicles."])
def test_an_item_of_a_list_is_no_sentence(text: str) -> None:
    task = task_of(text)

    assert not has_verb(task.reading.sentences[0]) and not whole(task, task.reading.sentences[0])


def test_a_plan_is_told_by_the_subject_in_front_but_a_named_one_needs_none() -> None:
    assert leans_on_subject("Field Marshal Walter Model proposed the plan.")
    assert not leans_on_subject("Field Marshal Walter Model proposed the plan of Ardennes.")
