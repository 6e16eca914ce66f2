"""Questions of the `wh` family: who and when."""

from __future__ import annotations

from collections.abc import Callable

from generator.teachers.rules.statements import Fields, dates, ended, people, titled
from generator.teachers.rules.task import Declined, Task


def who(task: Task) -> Fields:
    for asked in people(task):
        verb_phrase = asked.question
        form = task.pick(
            ("who {}", "who {}", "which person {}", "what is the name of the person who {}", "who was it that {}")
        )
        question = task.in_context(form.format(verb_phrase) + "?")
        name = asked.right.name
        short = ended(f"{titled(task, asked.right)} {verb_phrase}")
        answer = task.pick(
            (
                asked.answer,
                short,
                ended(f"It was {titled(task, asked.right)} who {verb_phrase}"),
                f"{name}. {asked.answer}",
            )
        )
        return {"question": question, "answer": answer}
    raise Declined("no sentence says what one named person did")


def when(task: Task) -> Fields:
    for asked in dates(task):
        question = task.in_context(asked.question + "?")
        return {"question": question, "answer": task.pick((asked.sentence.text, asked.answer))}
    raise Declined("no sentence puts one event at one date")


MAKERS: dict[str, Callable[[Task], Fields]] = {
    "wh/who": who,
    "wh/when": when,
}
