"""The `cloze` family: a sentence with something left out."""

from __future__ import annotations

from collections.abc import Callable

from generator.teachers.rules.statements import Fields, with_subject, without
from generator.teachers.rules.task import Declined, Task, of_kind


def cloze_entity(task: Task) -> Fields:
    candidates = [
        (sentence, mention)
        for sentence, mention in of_kind(task.sentences(), "person", "place", "thing")
        if len(sentence.text) <= 220 and len(sentence.mentions) > 1 and not task.is_topic(mention.text)
    ]
    for sentence, mention in task.rotate(candidates):
        text = without(sentence, mention, "____")
        return {"sentence": with_subject(task, text), "answer": mention.text}
    raise Declined("no sentence with a name to leave out")


MAKERS: dict[str, Callable[[Task], Fields]] = {
    "cloze/entity": cloze_entity,
}
