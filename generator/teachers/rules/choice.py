"""The `choice` family: one right option among others, pairs to be matched, events to be put in order.

Guarantees: exactly one option is right, as far as the snippet's article tells; options stand in an order of the teacher's
own, drawn for each item, and `right` says which one it is. What is not certain is declined: there are no best titles here.
Cost: 0.2 to 0.7 ms an item.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from generator.gates.fields import clash
from generator.teachers.rules.dated import Event, events, in_order
from generator.teachers.rules.passages.names import subject
from generator.teachers.rules.reading import main_part
from generator.teachers.rules.sound import in_context, sound
from generator.teachers.rules.statements import Asked, Fields, blanks, dates, people
from generator.teachers.rules.task import Declined, Task
from generator.teachers.rules.wrong import exchangeable, rivals, titled_here

ORDER = (
    "In which order did these events in the history of {t} happen, from the earliest to the latest?",
    "Put these events from the history of {t} in order of time, the earliest first.",
    "Which of these events in the history of {t} came first, and in which order did the others follow?",
    "Arrange these four events in the history of {t} from the earliest to the latest.",
    "What is the right order in time of these events in the history of {t}?",
)
PAIR_PEOPLE = (
    "Match each person in the history of {t} with what he or she did.",
    "Who did what in the history of {t}? Match each name with a deed.",
    "Connect these people from the history of {t} with what each of them did.",
)
PAIR_DATES = (
    "Match each event in the history of {t} with its date.",
    "When did these things happen in the history of {t}? Match each event with its date.",
    "Connect these events in the history of {t} with their dates.",
)
ODD_YEAR = (
    "By the time at which it happened, which of these events in the history of {t} is the odd one out?",
    "Three of these events in the history of {t} happened in the same {w}. Which is the odd one out?",
    "Going by the {w} in which each happened, which of these events in the history of {t} is the odd one out?",
)
ODD_RANK = (
    "By rank or title, which of these people in the history of {t} is the odd one out?",
    "Three of these people in the history of {t} bore the same kind of title. Who is the odd one out?",
    "Going by their titles, who is the odd one out among these people in the history of {t}?",
)
_COMMON = re.compile(
    r"(?:received|was awarded|earned|won) the [A-Z][\w ]+$|had already |was (?:killed|wounded|captured)$"
)  # of whom not?
OFFICERS = (
    "Admiral",
    "General",
    "Colonel",
    "Major",
    "Captain",
    "Commander",
    "Lieutenant",
    "Brigadier",
    "Marshal",
    "Commodore",
)
STATE = (
    "President",
    "Premier",
    "Chancellor",
    "Minister",
    "King",
    "Queen",
    "Emperor",
    "Senator",
    "Ambassador",
    "Governor",
    "Secretary",
)


def options(count: int) -> Callable[[Task], Fields]:
    """A maker of questions with `count` options, one of them right."""

    def make(task: Task) -> Fields:
        ways = (people(task), dates(task, plain=True), blanks(task, "place", "thing", "number"))
        turn = (task.rng.randrange(3) + task.round) % 3
        for asked in (*ways[turn][:3], *ways[(turn + 1) % 3][:3], *ways[(turn + 2) % 3][:3]):
            is_person = asked.right.kind == "person"
            if not sound(task, asked):
                continue
            if not is_person and asked.right.kind != "date" and not _clear(asked):
                continue
            opening = task.pick(("who", _which(asked, count))) + " " if is_person else ""
            question = in_context(task, f"{opening}{asked.question}?")
            try:
                wrong = rivals(task, asked.right, f"{asked.sentence.text} {question}", count - 1)
            except Declined:
                continue
            right, explanation = _right(asked), asked.answer if len(asked.answer) > 30 else asked.sentence.text
            if right not in explanation or any(clash(right, option) for option in wrong) or right in question:
                continue
            return {"question": question, **_ordered(task, right, wrong), "explanation": explanation}
        raise Declined(f"no fact with {count - 1} other options of its kind")

    return make


def _clear(asked: Asked) -> bool:
    """Whether a name or number can be left out: it stands once, and is no part of a larger number ("80 million")."""
    after = asked.sentence.text[asked.right.end :]
    return exchangeable(asked.sentence, asked.right) and not re.match(r" (?:hundred|thousand|[bmtr]+illion)", after)


def _which(asked: Asked, count: int) -> str:
    return "which of these two people" if count == 2 else "which of these people"


def _right(asked: Asked) -> str:
    return asked.right.name if asked.right.kind == "person" else asked.right.text


def _ordered(task: Task, right: str, wrong: Sequence[str]) -> dict[str, str]:
    """The options in an order of this item, and the number of the right one."""
    listed = [right, *wrong]
    task.rng.shuffle(listed)
    numbered = {f"option_{number}": option for number, option in enumerate(listed, 1)}
    return numbered | {"right": str(listed.index(right) + 1)}


def order_of_events(task: Task) -> Fields:
    """Four events with dates that follow one another."""
    found = _apart(task.rotate(events(task, 140)))
    chosen = in_order(found, 4)
    if len(chosen) < 4:
        raise Declined("fewer than four dated events whose order is certain")
    told = " ".join(dict.fromkeys(event.sentence.text for event in chosen))
    if len(told) > 600 or len({event.sentence.text for event in chosen}) < 4 or task.rng.random() < 0.4:
        told = " ".join(event.told for event in chosen)
    question = task.pick(ORDER).format(t=subject(task))
    return {
        "question": question,
        **{f"event_{number}": event.text for number, event in enumerate(chosen, 1)},
        "reason": told,
    }


def match_pairs(task: Task) -> Fields:
    """Three people and their deeds, or three events and their dates."""
    ways: list[Callable[[Task], Iterator[tuple[str, list[tuple[str, str]]]]]] = [_people_pairs, _date_pairs]
    if (task.rng.randrange(2) + task.round) % 2:
        ways.reverse()
    for way in ways:
        for question, pairs in way(task):
            fields: Fields = {"question": question.format(t=subject(task))}
            for number, (item, match) in enumerate(pairs, 1):
                fields |= {f"item_{number}": item, f"match_{number}": match}
            return fields
    raise Declined("no three people with a deed each, and no three events on three dates")


def _people_pairs(task: Task) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    chosen: list[Asked] = []
    for asked in filter(lambda one: sound(task, one), people(task)):
        last = asked.right.name.rpartition(" ")[2]
        deed = asked.question if len(asked.question) <= 110 else main_part(asked.question)
        asked = replace(asked, question=deed)
        known = [one.right.name.rpartition(" ")[2] for one in chosen]
        if not 12 <= len(asked.question) <= 120 or _COMMON.match(asked.question):
            continue
        if last in known or any(name in asked.question for name in known):
            continue
        if any(last in one.question or clash(one.question, asked.question) for one in chosen):
            continue
        if len(chosen) < 3 and not any(_alike(asked.question, one.question) for one in chosen):
            chosen.append(asked)
    if len(chosen) == 3:
        yield task.pick(PAIR_PEOPLE), [(titled_here(task, one.right), one.question) for one in chosen]


def _alike(one: str, other: str) -> bool:
    """Whether two deeds share too many words for each to belong to one person only."""
    first, second = (set(re.findall(r"\b[a-z]{4,}\b", text)) for text in (one, other))
    return len(first & second) >= 2


def _date_pairs(task: Task) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    found = _apart(task.rotate(events(task, 80)))
    shapes = Counter(_form(event.date) for event in found)
    for form, count in shapes.most_common():
        alike = [event for event in found if _form(event.date) == form]
        chosen = in_order(alike, 3)
        if count >= 3 and len(chosen) == 3:
            task.rng.shuffle(chosen)
            yield task.pick(PAIR_DATES), [(event.text, event.date) for event in chosen]


def _form(date: str) -> str:
    """How a date is written: "9 a 9" for a day, "a 9" for a month, "9" for a year."""
    return re.sub(r"[A-Za-z]+", "a", re.sub(r"\d+", "9", date))


def odd_one_out(task: Task) -> Fields:
    """Three events of one year and one of another, or three people with one kind of title and one with another."""
    ways = [_odd_event, _odd_person]
    if (task.rng.randrange(2) + task.round) % 2:
        ways.reverse()
    for way in ways:
        found = way(task)
        if found:
            return found
    raise Declined("no three events of one year beside one of another, and no three titles of a kind beside another")


def _odd_event(task: Task) -> Fields | None:
    found = [event for event in _apart(task.rotate(events(task, 80))) if event.year]
    for word, key in (("year", _year), ("month", _month)):
        groups: dict[str, list[Event]] = {}
        for event in found:
            if key(event):
                groups.setdefault(key(event), []).append(event)
        shared = next((name for name in groups if len(groups[name]) >= 3 and len(groups) > 1), None)
        if shared is None:
            continue
        odd = next(event for name, several in groups.items() if name != shared for event in several)
        same = groups[shared][:3]
        return {
            "shared": f"The others all happened in {shared}.",
            **_ordered(task, odd.text, [event.text for event in same]),
            "different": odd.told,
            "question": task.pick(ODD_YEAR).format(t=subject(task), w=word),
        }
    return None


def _year(event: Event) -> str:
    return event.year


def _month(event: Event) -> str:
    found = re.search(r"[A-Z][a-z]+", event.date)
    return f"{found.group()} {event.year}" if found else ""


def _odd_person(task: Task) -> Fields | None:
    """Three generals and an admiral, or three officers and a statesman: by the titles that the passage gives them."""
    found: dict[str, tuple[str, str]] = {}  # name -> title, its last word
    for sentence in task.reading.sentences:
        for mention in sentence.of("person"):
            rank = mention.title.rpartition(" ")[2]
            if rank in (*OFFICERS, *STATE) and " " in mention.name:
                found.setdefault(mention.name, (mention.title, rank))
    for title_of, plural in ((_own_rank, ""), (_office, "officers")):
        groups: dict[str, list[str]] = {}
        for name, (_, rank) in found.items():
            groups.setdefault(title_of(rank), []).append(name)
        groups.pop("", None)
        shared = next((rank for rank in groups if len(groups[rank]) >= 3 and rank != "state"), None)
        if shared is None or len(groups) < 2:
            continue
        odd = task.rotate([name for rank in groups if rank != shared for name in groups[rank]])[0]
        same = task.rotate(groups[shared])[:3]
        if any(clash(odd, name) for name in same):
            continue
        title = found[odd][0].lower() if found[odd][1] in OFFICERS else found[odd][0]
        be = (
            f"was {'an' if title[0] in 'aeiouAEIOU' else 'a'} {title}"
            if title[0].islower()
            else f"bore the title of {title}"
        )
        return {
            "shared": f"The others were {plural or f'{shared.lower()}s'}.",
            **_ordered(task, odd, same),
            "different": f"{odd} {be}.",
            "question": task.pick(ODD_RANK).format(t=subject(task)),
        }
    return None


def _own_rank(rank: str) -> str:
    """A rank that tells an officer from one of another rank; there are marshals and commanders of several kinds."""
    return rank if rank in ("Admiral", "General", "Colonel", "Major", "Captain") else ""


def _office(rank: str) -> str:
    return "officer" if rank in OFFICERS else "state"


def _apart(found: Sequence[Event]) -> list[Event]:
    """Events none of which says the same as, or stands inside, one before it."""
    kept: list[Event] = []
    for event in found:
        if not any(clash(event.text, other.text) for other in kept):
            kept.append(event)
    return kept


MAKERS: dict[str, Callable[[Task], Fields]] = {
    "choice/two-options": options(2),
    "choice/four-options": options(4),
    "choice/odd-one-out": odd_one_out,
    "choice/match-pairs": match_pairs,
    "choice/order-of-events": order_of_events,
}
