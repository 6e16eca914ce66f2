"""The `choice` family: one right option among others."""

from __future__ import annotations

from collections.abc import Callable

from generator.teachers.rules.statements import Fields, blanks, dates, people
from generator.teachers.rules.task import Declined, Task


def four_options(task: Task) -> Fields:
    ways = (people(task), dates(task, plain=True), blanks(task, "place", "thing", "number"))
    turn = (task.rng.randrange(3) + task.round) % 3
    for asked in (*ways[turn][:3], *ways[(turn + 1) % 3][:3], *ways[(turn + 2) % 3][:3]):
        try:
            wrong = task.others(asked.right, asked.sentence.text, 3)
        except Declined:
            continue
        is_person = asked.right.kind == "person"
        question = f"{task.pick(('who', 'which of these people'))} {asked.question}" if is_person else asked.question
        return {
            "question": task.in_context(question + "?"),
            "right": asked.right.name,
            **{f"wrong_{number}": name for number, name in enumerate(wrong, 1)},
            "explanation": asked.answer if len(asked.answer) > 30 else asked.sentence.text,
        }
    raise Declined("no fact with three other options of its kind")


MAKERS: dict[str, Callable[[Task], Fields]] = {
    "choice/four-options": four_options,
}
