"""The `structure` family: facts of a passage in an order a reader can use.

Guarantees: rows and entries are the passage's own sentences, or parts of them; a timeline's dates, and a table's, rise.
Glossaries, and causes with their effects, take a language model. Cost: 0.2 to 0.5 ms an item.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from generator.teachers.rules.passages import fill
from generator.teachers.rules.passages.names import subject
from generator.teachers.rules.sound import sound, whole
from generator.teachers.rules.statements import Asked, Fields, dates, people
from generator.teachers.rules.task import Declined, Task
from generator.teachers.rules.telling import Event, about, events, simple_past, terse

SUBJECTS = (
    "{t}, above all {k}",
    "{t}, with {k}",
    "{k} in the history of {t}",
    "{t} and the part of {k}",
    "{t}, in particular {k}",
)
SPANS = (
    "{t}, with {k}",
    "the part of {t} that concerns {k}",
    "what happened with {k} in the history of {t}",
    "{t}, as far as it concerns {k}",
)
TABLES = (
    "what happened when in {t}, with {k}",
    "what happened to or around {k} in the history of {t}",
    "events of {t} that concern {k}",
    "who did what and when in {t}, as regards {k}",
)
COLUMNS = (
    ("date", "who or what", "what happened"),
    ("when", "who or what", "event"),
    ("date", "subject", "deed or event"),
    ("time", "who or what", "what took place"),
)


def key_facts(task: Task) -> Fields:
    """Three to six sentences that stand alone, in their order, each with a name, a date or a number."""
    facts = [one.text for one in task.sentences() if one.mentions and whole(task, one)]
    if len(facts) < 3:
        raise Declined("fewer than three sentences that stand alone")
    count = min(len(facts), task.rng.randint(3, 6))
    chosen = set(task.rotate(facts)[:count])
    told = [sentence for sentence in task.sentences() if sentence.text in chosen]
    return {
        "subject": about(task, task.pick(SUBJECTS), told) or fill(task, "{t}", opens=False),
        "facts": [fact for fact in facts if fact in chosen],
    }


def timeline(task: Task) -> dict[str, Any]:
    """The dated events, in full sentences or in note form."""
    found = [(event, text) for event in events(task) if (text := simple_past(event)) and len(text) <= 240]
    if len(found) < 2:
        raise Declined("fewer than two events whose order in time is sure")
    found, brief = found[:8], task.rotate((True, False))[0]
    entries = [{"date": event.date, "event": terse(text) if brief else text} for event, text in found]
    return {"subject": _covered(task, SPANS, [event for event, _ in found]), "timeline": entries}


def _covered(task: Task, phrases: tuple[str, ...], found: list[Event]) -> str:
    """A subject that names what these events are about, or from when to when they go."""
    first, last = (next(date.text for date in event.sentence.of("date")) for event in (found[0], found[-1]))
    whole = f"{subject(task)} from {first} to {last}"
    alike = first != last and len(first.split()) == len(last.split())
    if alike and task.rng.random() < 0.4:
        return whole
    named = about(task, task.pick(phrases), [event.sentence for event in found])
    if named is not None:
        return named
    years = sorted({event.span[0][0] for event in found})
    return whole if alike else f"{subject(task)} {_years(years[0], years[-1])}"


def _years(first: int, last: int) -> str:
    return f"in {first}" if first == last else f"from {first} to {last}"


def table(task: Task) -> dict[str, Any]:
    """Dated events as when, who and what, and a question on each of two rows."""
    found = [(event, row) for event in events(task) if (row := _row(event))][:7]
    if len(found) < 2:
        raise Declined("fewer than two dated events with a subject and a verb")
    asked = task.rotate([one for event, _ in found for one in _questions(task, event)])
    if not asked:
        raise Declined("no row to ask about")
    first = asked[0]
    others = [one for one in asked if one[2] is not first[2]]
    if not others:
        raise Declined("fewer than two rows to ask about")
    other = next((one for one in others if one[0].split()[0] != first[0].split()[0]), others[0])
    return {
        "subject": _covered(task, TABLES, [event for event, _ in found]),
        "columns": list(task.pick(COLUMNS)),
        "rows": [row for _, row in found],
        "question_1": first[0],
        "answer_1": first[1],
        "question_2": other[0],
        "answer_2": other[1],
    }


def _row(event: Event) -> dict[str, str] | None:
    """Date, subject and what it did; None where the clause is not known, or a cell would not fit."""
    clause, text = event.sentence.clause, simple_past(event)
    if clause is None or text is None or not text.startswith(clause.subject):
        return None
    subject, deed = clause.subject, text[len(clause.subject) :].rstrip(".")
    if not deed.startswith(" ") or max(len(subject), len(deed)) > 110 or "|" in text:
        return None
    return {"first": event.date, "second": subject, "third": deed.strip()}


def _questions(task: Task, event: Event) -> list[tuple[str, str, Event]]:
    """When it happened, who did it, and what happened that day; the table before them says what they are about."""
    found = [
        (asked.question, asked.answer)
        for asked in dates(task)
        if asked.sentence is event.sentence and sound(task, asked)
    ]
    found += [
        (f"who {asked.question}", asked.answer)
        for asked in people(task)
        if asked.sentence is event.sentence and sound(task, asked)
    ]
    if _asks_for_all(task, event):
        phrase = _front(event)
        found.append((f"what happened {phrase[0].lower()}{phrase[1:]}", event.fronted))
    asked = [(f"{question[0].upper()}{question[1:]}?", answer, event) for question, answer in found]
    return [one for one in asked if len(one[0]) <= 220 and len(one[1]) <= 320]


def _front(event: Event) -> str:
    """The time phrase in front: "On 4 June 1942", "On August 9, 2007"."""
    found = re.match(r"[^,]*(?:, \d{4})?", event.fronted)
    return found.group() if found else ""


def _asks_for_all(task: Task, event: Event) -> bool:
    """Whether "what happened on that day" has this one answer as far as the passage goes."""
    date = event.sentence.of("date")[0].text
    return bool(event.fronted) and " had " not in event.fronted and task.reading.snippet.text.count(date) == 1


def faq(task: Task) -> dict[str, Any]:
    """Three to five questions on different sentences, each with its answer, in the passage's order."""
    order = {sentence.text: number for number, sentence in enumerate(task.reading.sentences)}
    asked: dict[str, tuple[str, str]] = {}
    for one in people(task):
        if re.search(r", [A-Z][a-z]+ [A-Z]", one.question) or not sound(task, one):
            continue  # "disappeared with U-47, Joachim Schepke died": two clauses
        asked.setdefault(
            one.sentence.text, (f"{task.pick(('who', 'who', 'which person'))} {one.question}", _said(task, one))
        )
    for one in dates(task):
        if not sound(task, one):
            continue
        if one.sentence.text not in asked or task.rng.random() < 0.4:
            asked[one.sentence.text] = (one.question, one.answer)
    for event in events(task):
        whole = any(question.startswith("what happened") for question, _ in asked.values())
        if not whole and event.sentence.text not in asked and _asks_for_all(task, event):
            when = _front(event)
            asked[event.sentence.text] = (f"what happened {when[0].lower()}{when[1:]}", event.fronted)
    if len(asked) < 3:
        raise Declined("fewer than three facts to ask about")
    chosen = sorted(task.rotate(sorted(asked, key=lambda text: order[text]))[:5], key=lambda text: order[text])
    entries = [
        {"question": f"{asked[text][0][0].upper()}{asked[text][0][1:]}?", "answer": asked[text][1]} for text in chosen
    ]
    if any(len(value) > 340 for entry in entries for value in entry.values()):
        raise Declined("a question or an answer that is too long")
    told = [sentence for sentence in task.reading.sentences if sentence.text in chosen]
    return {"subject": about(task, task.pick(SUBJECTS), told) or fill(task, "{t}", opens=False), "faq": entries}


def _said(task: Task, asked: Asked) -> str:
    return task.pick((asked.answer, f"{asked.right.name} {asked.question}."))


MAKERS: dict[str, Callable[[Task], Fields]] = {
    "structure/faq": faq,
    "structure/key-facts": key_facts,
    "structure/table": table,
    "structure/timeline": timeline,
}
