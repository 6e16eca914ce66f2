"""The `structure` family: facts of a passage in an order a reader can use."""

from __future__ import annotations

from collections.abc import Callable

from generator.teachers.rules.passages import fill
from generator.teachers.rules.statements import Fields
from generator.teachers.rules.task import Declined, Task

SUBJECTS = (
    "{t}, above all {k}",
    "{t}, with {k}",
    "{k} in the history of {t}",
    "{t} and the part of {k}",
    "{t}, in particular {k}",
)


def key_facts(task: Task) -> Fields:
    """Three to six sentences that stand alone, in their order, each with a name, a date or a number."""
    facts = [sentence.text for sentence in task.sentences() if sentence.mentions]
    if len(facts) < 3:
        raise Declined("fewer than three sentences that stand alone")
    count = min(len(facts), task.rng.randint(3, 6))
    chosen = set(task.rotate(facts)[:count])
    return {
        "subject": fill(task, task.pick(SUBJECTS), opens=False),
        "facts": [fact for fact in facts if fact in chosen],
    }


MAKERS: dict[str, Callable[[Task], Fields]] = {"structure/key-facts": key_facts}
