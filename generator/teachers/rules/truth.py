"""The `truth` family: statements that are true, or false in one point."""

from __future__ import annotations

from collections.abc import Callable

from generator.teachers.rules.reading import Mention, first_clause
from generator.teachers.rules.statements import PRONOUN, Fields, ended, stated, without
from generator.teachers.rules.task import Declined, Task, of_kind


def true_statement(task: Task) -> Fields:
    candidates = [sentence for sentence in task.sentences() if sentence.mentions and len(sentence.text) <= 240]
    for sentence in task.rotate(candidates):
        clause = sentence.clause
        statement = sentence.text
        short = first_clause(clause.rest) if clause and not clause.lead else ""
        if clause and 25 < len(short) < len(clause.rest) and task.rng.random() < 0.6:
            statement = ended(f"{clause.subject} {clause.verb} {short}")
        inner = task.inside(sentence.text)
        echoes = [f"That is right: {inner}", f"Indeed, {inner}"] if inner else []
        explanation = sentence.text if statement != sentence.text else task.pick((sentence.text, *echoes))
        return {"statement": stated(task, statement), "explanation": explanation}
    raise Declined("no sentence that stands alone and names anything")


def false_statement(task: Task) -> Fields:
    candidates = [
        (s, m) for s, m in of_kind(task.sentences(), "person", "date", "number", "place") if len(s.text) <= 220
    ]
    for sentence, mention in task.rotate(candidates):
        if mention.kind == "person" and PRONOUN.search(sentence.text[: mention.start]):
            continue
        try:
            (wrong,) = task.others(mention, sentence.text, 1)
        except Declined:
            continue
        title = task.library.lexicon.title_of(wrong) if mention.kind == "person" and mention.title else ""
        titled = (
            Mention(mention.kind, mention.text, mention.name, mention.start - len(mention.title) - 1, mention.end)
            if title
            else mention
        )
        statement = without(sentence, titled, f"{title} {wrong}".strip())
        word = {"person": "name", "date": "date", "number": "figure", "place": "place"}[mention.kind]
        right = mention.name if mention.kind == "person" else mention.text
        lead = task.pick(("", "", f"The right {word} is {right}. ", f"The {word} should be {right}, not {wrong}. "))
        return {"statement": stated(task, statement), "correction": lead + sentence.text}
    raise Declined("no name, date or number that another could take the place of")


MAKERS: dict[str, Callable[[Task], Fields]] = {
    "truth/true-statement": true_statement,
    "truth/false-with-correction": false_statement,
}
