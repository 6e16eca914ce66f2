"""The `rewrite` family: the passage told in another way.

Guarantees: what is told is the passage's own, in its own words or fewer; bullet points leave out a sentence only where it
leans on another, and a telegram none at all. A new style (plain, academic, for a child) takes a language model.
Cost: 0.2 to 0.6 ms an item.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from generator.teachers.rules import words
from generator.teachers.rules.passages.names import joined, keys_of
from generator.teachers.rules.passages.names import subject as subject_of
from generator.teachers.rules.reading import Sentence
from generator.teachers.rules.sound import has_verb
from generator.teachers.rules.statements import Fields
from generator.teachers.rules.task import Declined, Task
from generator.teachers.rules.telling import blurs, event_of, is_passive, point, stamp_of, terse

BULLETS = (
    "Turn the following on {t} into bullet points:",
    "Put these lines about {t} into a short list of points:",
    "I need this on {t} as bullet points for a slide:",
    "Please break the following down into points. It is about {t}:",
    "Make a bulleted list of what follows on {t}:",
    "Here is something on {t}. Give me the points one by one:",
    "Rewrite this as bullet points, one fact in each. The subject is {t}:",
    "What are the points made here about {t}? List them:",
)
TELEGRAM = (
    "Cut the following on {t} down to a telegram:",
    "Cable this about {t}, with STOP between the phrases:",
    "Send the following on {t} as a telegram:",
    "Put this news of {t} into the words of a telegram:",
    "Every word costs money. Make a telegram of this on {t}:",
    "Rewrite what follows on {t} in the style of a telegram:",
    "Here is a report on {t}. Wire it in as few words as you can:",
    "How would this about {t} have read as a telegram?",
)
IN_ORDER = (
    "Retell what follows about {t} in the order of time:",
    "Put the following on {t} into the order in which it happened:",
    "Here is a note on {t}. Tell it again, the earliest first:",
    "Tell this about {t} again as it happened, step by step:",
    "Rewrite the following on {t} in chronological order:",
    "I want this on {t} in the order of its dates:",
    "Arrange what is said here about {t} by date:",
    "Please go through the following on {t} from the earliest date to the latest:",
)
LECTURE = (
    "I missed the lecture on {t}. Can I have notes on {k}?",
    "Write lecture notes on {t}, above all on {k}.",
    "Please give me notes for a lecture on {k} in the history of {t}.",
    "Could you write up the lecture on {t} for me, with {k}?",
    "I need lecture notes that cover {k} in connection with {t}.",
    "What would my notes say after a lecture on {t}, with {k}?",
)
HEADINGS = ("{t}: {k}", "{t}, with {k}", "Notes on {t}: {k}", "{k} in the history of {t}")
SPLIT = re.compile(
    r", (?=(?:but|so) )|, and (?=(?:he|she|it|they|the|a|an|his|her|its|their|[A-Z][\w-]+) )|; |(?<=[a-z]{3})\. (?=[A-Z][a-z]+ )"
)
PRESENT = re.compile(r"\b(?:is|are|has|have)\b")
LINES = 14  # the most phrases of a telegram that its prompt type allows
LINE = 160


def bullet_points(task: Task) -> Fields:
    """One point for each sentence that can stand alone, in full or in note form."""
    found = [_listed(sentence.text) if has_verb(sentence) else "" for sentence in task.reading.sentences]
    if len(found) < 4 or not all(found):
        raise Declined("a sentence that cannot be a point")
    if task.rotate((True, False))[0]:
        found = [terse(text) for text in found]
    if max(map(len, found)) > 240:
        raise Declined("a sentence too long for a point")
    return {"request": asked(task, BULLETS), "points": found}


def _listed(text: str) -> str:
    """A sentence as one point of a list of them all: what it leans on stands in the points before it; empty if it is none."""
    text = re.sub(r"^(?:Meanwhile|However|Then|Instead|Also|In addition|Furthermore|Moreover|But|And),? ", "", text)
    pointed = re.match(r"(?:He|She|It|They|This|These|Those|Such)\b", text)
    fits = 15 <= len(text) <= 240 and text.endswith(".") and not re.search(r"[\[\]{}|=<>\n]|[a-z]{3}[.!?] [A-Z]", text)
    return f"{text[0].upper()}{text[1:]}" if fits and not pointed else ""


def telegram(task: Task) -> Fields:
    """The whole passage, each sentence in as few words as grammar lets go of."""
    lines: list[str] = []
    for sentence in task.reading.sentences:
        if not sentence.text.endswith(".") or not has_verb(sentence) or re.search(r"[\[\]{}|=<>\n]", sentence.text):
            raise Declined("a sentence that is no plain prose")
        whole = terse(sentence.text)
        lines += [whole] if len(whole) <= 90 else [terse(part) for part in SPLIT.split(whole) if part]
    if not 3 <= len(lines) <= LINES or max(map(len, lines)) > LINE or min(map(len, lines)) < 8:
        raise Declined("sentences too long for a telegram")
    return {"request": asked(task, TELEGRAM), "lines": lines}


def chronological(task: Task) -> Fields:
    """The passage with each date in front of its sentence, and sentences moved to where their dates put them."""
    sentences = task.reading.sentences
    stamps = [stamp_of(task, sentence, number) for number, sentence in enumerate(sentences)]
    dated = [stamp for stamp in stamps if stamp]
    if len(dated) < 3 or sum(bool(PRESENT.search(sentence.text)) for sentence in sentences) > 1:
        raise Declined("fewer than three sentences with dates")
    groups: list[list[int]] = []  # each begins with a sentence that has a date; those without stay behind it
    opening: list[int] = []
    for number, stamp in enumerate(stamps):
        if stamp:
            groups.append([number])
        else:
            (groups[-1] if groups else opening).append(number)
    ordered = sorted(groups, key=lambda group: (stamps[group[0]], group[0]))
    if ordered != groups:
        moved = [group for group in groups if not _follows(group, groups, ordered)]
        blurred = any(blurs(one, other) for one in dated for other in dated)
        leans = any(point(sentences[group[0]]) is None for group in moved)
        if leans or blurred or _between(moved, groups, sentences) or (opening and ordered[0] is not groups[0]):
            raise Declined("sentences that cannot be moved")
    told = []
    for number in [*opening, *(number for group in ordered for number in group)]:
        event = event_of(task, sentences[number], number)
        told.append(event.fronted if event and event.fronted else sentences[number].text)
    if sum(text not in task.reading.snippet.text for text in told) + (ordered != groups) < 2:
        raise Declined("it is told in the order of time already")
    return {"request": asked(task, IN_ORDER), "text": " ".join(told)}


def _between(moved: list[list[int]], groups: list[list[int]], sentences: Sequence[Sentence]) -> bool:
    """Whether a sentence without a date stands where a group was taken from: it may belong to what followed it."""
    for group in moved:
        at = groups.index(group)
        before = groups[at - 1][1:] if at else []
        if any(not _pinned(sentences[groups[at - 1][0]], sentences[number]) for number in before):
            return True
    return any(
        " had " in sentences[number].text and not _pinned(sentences[group[0]], sentences[number])
        for group in groups
        for number in group[1:]
    )


def _pinned(dated: Sentence, sentence: Sentence) -> bool:
    """Whether a sentence plainly goes on from the dated one before it: by a pronoun, or a name they share."""
    shared = any(mention.name.rpartition(" ")[2] in dated.text for mention in sentence.mentions)
    return shared or bool(words.PRONOUN_START.match(sentence.text))


def _follows(group: list[int], groups: list[list[int]], ordered: list[list[int]]) -> bool:
    """Whether a group stands behind the same one as before."""
    here, there = ordered.index(group), groups.index(group)
    return (ordered[here - 1] if here else None) == (groups[there - 1] if there else None)


def lecture_notes(task: Task) -> dict[str, Any]:
    """Notes by the one each is about; the fullest sentence is left for the end."""
    notes: dict[str, list[str]] = {}
    told: list[tuple[str, Sentence]] = []
    whole = [sentence for sentence in task.sentences() if sentence.mentions and len(sentence.text) <= 240]
    if len(whole) < 4:
        raise Declined("fewer than four sentences that stand alone")
    remember = task.rotate(sorted(whole, key=lambda sentence: -len(sentence.mentions))[:3])[0]
    for sentence in whole:
        clause = sentence.clause
        if sentence is remember or clause is None or clause.lead or len(clause.subject.split()) > 6:
            continue
        subject = clause.person.name if clause.person else re.sub(r"^(?:The|A|An) (?=[a-z])", "", clause.subject)
        if re.search(r"\b(?:soon|later|then|also|now|still|first|finally|eventually|already)$", subject):
            continue
        said = clause.verb in ("was", "were") and not is_passive(clause.rest) and not clause.rest.startswith("to ")
        told.append((subject[0].upper() + subject[1:], sentence))
        detail = terse(clause.rest if said else f"{clause.verb} {clause.rest}")
        detail = detail if detail.split()[0] in text_names(task) else detail[0].lower() + detail[1:]
        notes.setdefault(subject[0].upper() + subject[1:], []).append(detail)
    entries = [{"topic": topic, "detail": "; ".join(details)} for topic, details in notes.items()]
    if len(entries) < 3 or any(len(entry["detail"]) > 320 or len(entry["topic"]) < 3 for entry in entries):
        raise Declined("fewer than three subjects with something to note")
    shown = {entry["topic"] for entry in entries[:6]}
    used = tuple(sentence for topic, sentence in told if topic in shown)
    narrow = replace(task, reading=replace(task.reading, sentences=(*used, remember)))
    keys = joined(keys_of(narrow))  # of what the notes tell, and the same in the request and above the notes
    heading = task.pick(HEADINGS).format(t=subject_of(task), k=keys)
    heading = heading if len(heading) <= 120 else subject_of(task)
    return {
        "request": task.pick(LECTURE).format(t=subject_of(task), k=keys),
        "heading": heading[0].upper() + heading[1:],
        "notes": entries[:6],
        "remember": remember.text,
    }


def text_names(task: Task) -> set[str]:
    """The first words of the passage's names."""
    return {mention.text.split()[0] for sentence in task.reading.sentences for mention in sentence.mentions}


def asked(task: Task, phrases: tuple[str, ...]) -> str:
    """The instruction in front of a passage that is shown."""
    return task.pick(phrases).format(t=subject_of(task))


MAKERS: dict[str, Callable[[Task], Fields]] = {
    "rewrite/bullet-points": bullet_points,
    "rewrite/chronological": chronological,
    "rewrite/lecture-notes": lecture_notes,
    "rewrite/telegram": telegram,
}
