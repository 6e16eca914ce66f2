"""What questions on one fact are made of: what somebody did, when it happened, a sentence with a name left out.

Guarantees: every answer is a sentence of the snippet or its main clause; "who" takes the place of the subject, so no verb
changes its form; "when did" is used only where the verb's form is certain. Cost: about 0.1 ms a question.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from generator.teachers.rules import words
from generator.teachers.rules.reading import Mention, Sentence, first_clause, main_part
from generator.teachers.rules.task import Task, trailing

Fields = dict[str, str | list[str]]

PRONOUN = re.compile(r"\b(?:he|she|it|they|his|her|their|its)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Asked:
    """A question without its question mark, what answers it, and the sentence that says so."""

    question: str
    right: Mention
    sentence: Sentence
    answer: str


def people(task: Task, *, topic: bool = False) -> list[Asked]:
    """What one named person did: the question is the verb phrase that follows "who".

    `topic`: also what the article's own subject did, where names or dates in it single the deed out; such a question
    must not be begun with its subject.
    """
    found = []
    for sentence in task.sentences():
        clause = sentence.clause
        if clause is None or PRONOUN.search(clause.lead):
            continue
        if clause.person is None:
            if agent := _agent(task, sentence):
                found.append(agent)
            continue
        rest = first_clause(clause.rest)
        second = re.search(r" and (?:an?|the|[A-Z])[^,]* (?:was|were|had) ", rest)
        rest = clause.main if clause.lead or len(rest) > 150 or second else rest
        last = clause.person.name.rpartition(" ")[2]
        if (
            (task.is_topic(clause.person.name) and not (topic and _singled_out(rest)))
            or len(rest) < 12
            or last in rest
            or last in clause.lead
            or re.search(r"\b(?:he|she) (?:was|had)\b", rest)
        ):
            continue
        phrase = f"{clause.verb} {rest}{trailing(clause)}"
        if not single(phrase):
            continue
        found.append(Asked(phrase, clause.person, sentence, without(sentence, clause.person, clause.person.name)))
    return task.rotate(found)


def _singled_out(deed: str) -> bool:
    """Whether a deed is somebody's alone, as far as names and dates in it tell."""
    return len(re.findall(r"(?<=[a-z,] )[A-Z][a-z]|\d{4}", deed)) >= 2 and not PRONOUN.search(deed)


_BY = re.compile(
    r" by (?P<agent>[^,;]+?)(?P<after> (?:in|on|at|after|before|during|from|near|with|as|for|to)\b[^,;]*)?$"
)


def _agent(task: Task, sentence: Sentence) -> Asked | None:
    """Who did what was done: "the ships were led by Nagumo" asks "who led the ships"; only where the verb keeps its form."""
    clause = sentence.clause
    if clause is None or clause.verb not in ("was", "were"):
        return None
    main = main_part(clause.rest)
    match = _BY.search(main)
    participle = main.split(" ", 1)[0]
    if match is None or not words.is_past(participle) or match.start() != len(participle):
        return None  # only "was designed by": nothing between the verb and its agent
    person = next(
        (m for m in sentence.mentions if m.kind == "person" and f"{m.title} {m.text}".strip() == match["agent"]), None
    )
    subject = task.inside(clause.subject)
    if (
        person is None
        or subject is None
        or task.is_topic(person.name)
        or person.name.rpartition(" ")[2] in clause.subject
    ):
        return None
    lead = f" {clause.lead[0].lower()}{clause.lead[1:]}" if clause.lead else ""
    phrase = f"{participle} {subject}{match['after'] or ''}{lead}"
    if len(phrase) < 15 or not single(phrase) or PRONOUN.search(phrase):
        return None
    return Asked(phrase, person, sentence, without(sentence, person, person.name))


def dates(task: Task, *, plain: bool = False) -> list[Asked]:
    """When one thing happened. `plain`: only where the answer is a date and nothing more."""
    found = []
    for sentence in task.sentences():
        if sentence.when and (sentence.when.plain or not plain):
            asked = when_clause(task, sentence)
            if asked:
                found.append(asked)
    return task.rotate(found)


def when_clause(task: Task, sentence: Sentence) -> Asked | None:
    clause, when_ = sentence.clause, sentence.when
    if clause is None or when_ is None:
        return None
    lead, body = "", main_part(clause.rest)
    if clause.lead != when_.text:
        inner, found, _ = f" {body}".partition(f" {when_.text}")
        if (
            not found
            or PRONOUN.search(clause.lead)
            or re.search(r"\b(?:that|which|who|whom|whose|whether|if)\b", inner)
        ):
            return None  # not there, or in a clause of its own: "reported that it would not attack in 1941"
        lead = f"{clause.lead[0].lower()}{clause.lead[1:]}, " if clause.lead else ""
        body = f" {body} ".replace(f" {when_.text} ", " ").replace(f" {when_.text},", ",")
        body = body.replace(" ,", ",").strip(" ,")
    subject = clause.subject if clause.person else task.inside(clause.subject)
    too_short = len(body) < 8 and clause.verb not in words.IRREGULAR
    if subject is None or too_short or len(body) > 150 or re.search(r"\d{4}", body):
        return None
    if re.search(
        r"\b(?:beginning|starting|ending|dating|lasting|continuing|followed|especially|particularly|again|and|or|of|the)$",
        body,
    ):
        return None  # what belonged to the date went with it
    turned = inverted(clause.verb, subject, body)
    if turned is None:
        return None
    opening = asking(when_.date) if when_.plain and task.rng.random() < 0.5 else "when"
    date = next(mention for mention in sentence.mentions if mention.kind == "date")
    when_text = f"{when_.text[0].upper()}{when_.text[1:]}"
    return Asked(
        f"{lead}{opening} {turned}", date, sentence, ended(f"{when_text}, {lead}{subject} {clause.verb} {body}")
    )


def inverted(verb: str, subject: str, body: str) -> str | None:
    """A clause in the order of a question: "did Hitler issue Directive 16"; None where the verb's form is not certain."""
    if verb in ("was", "were"):
        return f"{verb} {subject} {body}".rstrip()
    if verb == "had" and not words.DETERMINED.match(body):
        # "had drawn up" is no simple past: only where a participle follows is its question certain
        return f"had {subject} {body}".rstrip() if words.is_participle(body.split(" ", 1)[0]) else None
    base = "have" if verb == "had" else words.base_form(verb)
    return f"did {subject} {base} {body}".rstrip() if base else None


def ended(text: str) -> str:
    """A text with one full stop at its end."""
    return f"{text.rstrip().rstrip('.')}."


def blanks(task: Task, *kinds: str) -> list[Asked]:
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
                text = without(sentence, mention, "____").rstrip(".")
                found.append(Asked(f"which {word} completes this sentence: {text}", mention, sentence, sentence.text))
    return task.rotate(found)


def asking(date: str) -> str:
    if re.fullmatch(r"\d{4}", date):
        return "in which year"
    return "on which date" if date[0].isdigit() or "," in date else "in which month"


def titled(task: Task, person: Mention) -> str:
    title = person.title or task.library.lexicon.title_of(person.name, task.reading.snippet.article_id)
    return f"{title} {person.name}".strip()


def without(sentence: Sentence, mention: Mention, instead: str) -> str:
    return sentence.text[: mention.start] + instead + sentence.text[mention.end :]


def stated(task: Task, statement: str) -> str:
    """A statement with its subject in front, where it names little that tells what it is about."""
    inner = task.inside(statement)
    named = len(re.findall(r"(?<=[a-z,] )[A-Z]|\d{4}", statement))
    if inner is None or task.names_topic(statement) or named >= 3:
        return statement
    return task.in_context(inner)


def with_subject(task: Task, text: str) -> str:
    """A sentence with a blank, with its subject in front where it does not name it."""
    inner = task.inside(text)
    if task.names_topic(text):
        return text
    return (
        task.in_context(inner) if inner and not text.startswith("____") else f"{text} (Subject: {task.reading.topic}.)"
    )


def single(phrase: str) -> bool:
    """Whether a verb phrase reads as one: no broken bracket, no quotation, no comma before its last words."""
    return len(phrase) <= 200 and not re.search(r"[;:]|, \w+$", phrase)
