"""The `contrastive` family: two of a kind, one of them right."""

from __future__ import annotations

from collections.abc import Callable

from generator.teachers.rules.statements import Fields, dates, ended, people, titled
from generator.teachers.rules.task import Declined, Task


def contrastive_person(task: Task) -> Fields:
    for asked in people(task):
        try:
            (wrong,) = task.others(asked.right, asked.sentence.text, 1)
        except Declined:
            continue
        stem = task.in_context(
            task.pick(("who {}", "which of the two {}", "who was it that {}")).format(asked.question)
        )
        answer = task.pick(
            (asked.answer, asked.answer, ended(f"It was {titled(task, asked.right)} who {asked.question}"))
        )
        return {"stem": stem, "right": asked.right.name, "wrong": wrong, "answer": answer}
    raise Declined("no sentence on one named person, with another person to tell apart")


def contrastive_date(task: Task) -> Fields:
    for asked in dates(task, plain=True):
        try:
            (wrong,) = task.others(asked.right, asked.sentence.text, 1)
        except Declined:
            continue
        answer = task.pick((asked.sentence.text, asked.answer))
        return {"stem": task.in_context(asked.question), "right": asked.right.name, "wrong": wrong, "answer": answer}
    raise Declined("no sentence puts one event at one plain date")


MAKERS: dict[str, Callable[[Task], Fields]] = {
    "contrastive/person": contrastive_person,
    "contrastive/date": contrastive_date,
}
