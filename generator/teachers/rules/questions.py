"""Questions on one fact: who, when, one of two, one of four, true or false, fill in the blank.

Guarantees: every answer is a sentence of the snippet or its main clause; "who" takes the place of the subject, so no verb
changes its form; "when did" is used only where the verb's form is certain. What cannot be made raises `Declined`.
Cost: about 0.1 ms a question.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from generator.teachers.rules import words
from generator.teachers.rules.reading import Mention, Sentence, first_clause, main_part
from generator.teachers.rules.task import Declined, Task, of_kind, trailing

Fields = dict[str, str | list[str]]

_PRONOUN = re.compile(r"\b(?:he|she|it|they|his|her|their|its)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Asked:
    """A question without its question mark, what answers it, and the sentence that says so."""

    question: str
    right: Mention
    sentence: Sentence
    answer: str


def who(task: Task) -> Fields:
    for asked in _people(task):
        verb_phrase = asked.question
        form = task.pick(
            ("who {}", "who {}", "which person {}", "what is the name of the person who {}", "who was it that {}")
        )
        question = task.in_context(form.format(verb_phrase) + "?")
        name = asked.right.name
        short = ended(f"{_titled(task, asked.right)} {verb_phrase}")
        answer = task.pick(
            (
                asked.answer,
                short,
                ended(f"It was {_titled(task, asked.right)} who {verb_phrase}"),
                f"{name}. {asked.answer}",
            )
        )
        return {"question": question, "answer": answer}
    raise Declined("no sentence says what one named person did")


def when(task: Task) -> Fields:
    for asked in _dates(task):
        question = task.in_context(asked.question + "?")
        return {"question": question, "answer": task.pick((asked.sentence.text, asked.answer))}
    raise Declined("no sentence puts one event at one date")


def contrastive_person(task: Task) -> Fields:
    for asked in _people(task):
        try:
            (wrong,) = task.others(asked.right, asked.sentence.text, 1)
        except Declined:
            continue
        stem = task.in_context(
            task.pick(("who {}", "which of the two {}", "who was it that {}")).format(asked.question)
        )
        answer = task.pick(
            (asked.answer, asked.answer, ended(f"It was {_titled(task, asked.right)} who {asked.question}"))
        )
        return {"stem": stem, "right": asked.right.name, "wrong": wrong, "answer": answer}
    raise Declined("no sentence on one named person, with another person to tell apart")


def contrastive_date(task: Task) -> Fields:
    for asked in _dates(task, plain=True):
        try:
            (wrong,) = task.others(asked.right, asked.sentence.text, 1)
        except Declined:
            continue
        answer = task.pick((asked.sentence.text, asked.answer))
        return {"stem": task.in_context(asked.question), "right": asked.right.name, "wrong": wrong, "answer": answer}
    raise Declined("no sentence puts one event at one plain date")


def four_options(task: Task) -> Fields:
    ways = (_people(task), _dates(task, plain=True), _blanks(task, "place", "thing", "number"))
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


def cloze_entity(task: Task) -> Fields:
    candidates = [
        (sentence, mention)
        for sentence, mention in of_kind(task.sentences(), "person", "place", "thing")
        if len(sentence.text) <= 220 and len(sentence.mentions) > 1 and not task.is_topic(mention.text)
    ]
    for sentence, mention in task.rotate(candidates):
        text = _without(sentence, mention, "____")
        return {"sentence": _with_subject(task, text), "answer": mention.text}
    raise Declined("no sentence with a name to leave out")


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
        return {"statement": _stated(task, statement), "explanation": explanation}
    raise Declined("no sentence that stands alone and names anything")


def false_statement(task: Task) -> Fields:
    candidates = [
        (s, m) for s, m in of_kind(task.sentences(), "person", "date", "number", "place") if len(s.text) <= 220
    ]
    for sentence, mention in task.rotate(candidates):
        if mention.kind == "person" and _PRONOUN.search(sentence.text[: mention.start]):
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
        statement = _without(sentence, titled, f"{title} {wrong}".strip())
        word = {"person": "name", "date": "date", "number": "figure", "place": "place"}[mention.kind]
        right = mention.name if mention.kind == "person" else mention.text
        lead = task.pick(("", "", f"The right {word} is {right}. ", f"The {word} should be {right}, not {wrong}. "))
        return {"statement": _stated(task, statement), "correction": lead + sentence.text}
    raise Declined("no name, date or number that another could take the place of")


def _people(task: Task) -> list[Asked]:
    """What one named person did: the question is the verb phrase that follows "who"."""
    found = []
    for sentence in task.sentences():
        clause = sentence.clause
        if clause is None or clause.person is None or _PRONOUN.search(clause.lead):
            continue
        rest = first_clause(clause.rest)
        rest = clause.main if clause.lead or len(rest) > 150 else rest
        last = clause.person.name.rpartition(" ")[2]
        if (
            task.is_topic(clause.person.name)
            or len(rest) < 12
            or last in rest
            or last in clause.lead
            or re.search(r"\b(?:he|she) (?:was|had)\b", rest)
        ):
            continue
        phrase = f"{clause.verb} {rest}{trailing(clause)}"
        if not _single(phrase):
            continue
        found.append(Asked(phrase, clause.person, sentence, _without(sentence, clause.person, clause.person.name)))
    return task.rotate(found)


def _dates(task: Task, *, plain: bool = False) -> list[Asked]:
    """When one thing happened. `plain`: only where the answer is a date and nothing more."""
    found = []
    for sentence in task.sentences():
        if sentence.when and (sentence.when.plain or not plain):
            asked = _when_clause(task, sentence)
            if asked:
                found.append(asked)
    return task.rotate(found)


def _when_clause(task: Task, sentence: Sentence) -> Asked | None:
    clause, when_ = sentence.clause, sentence.when
    if clause is None or when_ is None:
        return None
    lead, body = "", main_part(clause.rest)
    if clause.lead != when_.text:
        if f" {when_.text}" not in f" {body}" or _PRONOUN.search(clause.lead):
            return None
        lead = f"{clause.lead[0].lower()}{clause.lead[1:]}, " if clause.lead else ""
        body = f" {body} ".replace(f" {when_.text} ", " ").replace(f" {when_.text},", ",")
        body = body.replace(" ,", ",").strip(" ,")
    subject = clause.subject if clause.person else task.inside(clause.subject)
    too_short = len(body) < 8 and clause.verb not in words.IRREGULAR
    if subject is None or too_short or len(body) > 150 or re.search(r"\d{4}", body):
        return None
    inverted = _inverted(clause.verb, subject, body)
    if inverted is None:
        return None
    asking = _asking(when_.date) if when_.plain and task.rng.random() < 0.5 else "when"
    date = next(mention for mention in sentence.mentions if mention.kind == "date")
    when_text = f"{when_.text[0].upper()}{when_.text[1:]}"
    return Asked(
        f"{lead}{asking} {inverted}", date, sentence, ended(f"{when_text}, {lead}{subject} {clause.verb} {body}")
    )


def _inverted(verb: str, subject: str, body: str) -> str | None:
    """A clause in the order of a question: "did Hitler issue Directive 16"; None where the verb's form is not certain."""
    if verb in ("was", "were"):
        return f"{verb} {subject} {body}".rstrip()
    if verb == "had" and not re.match(r"(?:an?|the|no|about|his|its|their|\d)\b", body):
        return None  # "had drawn up" is no simple past
    base = "have" if verb == "had" else words.base_form(verb)
    return f"did {subject} {base} {body}".rstrip() if base else None


def ended(text: str) -> str:
    """A text with one full stop at its end."""
    return f"{text.rstrip().rstrip('.')}."


def _blanks(task: Task, *kinds: str) -> list[Asked]:
    """A sentence with a name or number left out, as a question."""
    found = []
    for sentence in task.sentences():
        for mention in sentence.mentions:
            if (
                mention.kind in kinds
                and sentence.text.count(mention.text) == 1
                and len(sentence.text) <= 170
                and len(sentence.mentions) > 1
            ):
                if task.is_topic(mention.name):
                    continue
                word = {"place": "place", "number": "number"}.get(mention.kind, "name")
                text = _without(sentence, mention, "____").rstrip(".")
                found.append(Asked(f"which {word} completes this sentence: {text}", mention, sentence, sentence.text))
    return task.rotate(found)


def _asking(date: str) -> str:
    if re.fullmatch(r"\d{4}", date):
        return "in which year"
    return "on which date" if date[0].isdigit() or "," in date else "in which month"


def _titled(task: Task, person: Mention) -> str:
    title = person.title or task.library.lexicon.title_of(person.name)
    return f"{title} {person.name}".strip()


def _without(sentence: Sentence, mention: Mention, instead: str) -> str:
    return sentence.text[: mention.start] + instead + sentence.text[mention.end :]


def _stated(task: Task, statement: str) -> str:
    """A statement with its subject in front, where it names little that tells what it is about."""
    inner = task.inside(statement)
    named = len(re.findall(r"(?<=[a-z,] )[A-Z]|\d{4}", statement))
    if inner is None or task.names_topic(statement) or named >= 3:
        return statement
    return task.in_context(inner)


def _with_subject(task: Task, text: str) -> str:
    """A sentence with a blank, with its subject in front where it does not name it."""
    inner = task.inside(text)
    if task.names_topic(text):
        return text
    return (
        task.in_context(inner) if inner and not text.startswith("____") else f"{text} (Subject: {task.reading.topic}.)"
    )


def _single(phrase: str) -> bool:
    """Whether a verb phrase reads as one: no broken bracket, no quotation, no comma before its last words."""
    return len(phrase) <= 200 and not re.search(r"[;:]|, \w+$", phrase)
