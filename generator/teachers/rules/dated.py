"""Events of a snippet with their dates, in the order of time.

Guarantees: an event is a main clause that has exactly one date and leans on no other clause, without that date; two events are in order only if
the one's date ends before the other's begins, so "in 1942" stands in no order with "on 4 June 1942". A day without a year
is of the one year that all dates of the snippet share, or has no place in the order. Cost: about 50 µs a snippet.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from generator.teachers.rules import words
from generator.teachers.rules.reading import Mention, Sentence, first_clause, main_part
from generator.teachers.rules.sound import dangling
from generator.teachers.rules.statements import PRONOUN, ended
from generator.teachers.rules.task import Task

_MONTH = {name: number for number, name in enumerate(words.MONTHS, 1)}
_YEAR = re.compile(r"\b\d{4}\b")
_DAY = re.compile(r"\b\d{1,2}\b")
_PART = (
    r"early|late|mid|spring|summer|autumn|winter|night|morning|evening|afternoon|beginning|end|start|middle|hours|of"
)
_WHEN = re.compile(
    r"(?:^|(?<= ))(?P<time>(?:(?:[Ee]arly|[Ll]ate|[Ss]hortly before dawn|[Bb]efore dawn|[Aa]t dawn|[Aa]t noon|[Aa]t midnight) )?)"
    rf"(?:[Oo]n|[Ii]n|[Dd]uring)(?P<part>(?: the)?(?: (?:{_PART}))*(?: (?:{'|'.join(words.WEEKDAYS)}),?)?) $"
)
_SPLIT = re.compile(r", (?:and|but|while) (?=[A-Z]|the |an? )|; ")
# What makes a clause lean on another: the date may be the other's.
_LEANS = re.compile(
    r"\b(?:which|who|whom|whose|that|where|when|after|before|until|since|because|as|although|though|if|so|while|by then)\b"
)
_CUT = re.compile(
    r",? (?:which|who|whom|whose|where|when|after|before|until|since|because|as|although|though|while|so that)\b|, "
)
_TELLS = re.compile(
    r"\b(?:first|last|finally|final|already|previous|next|second|third|still|again|remaining|followed|follows|it|them|they|there)\b"
)
_BETWEEN = re.compile(r"(?:[-–]| (?:or|until)\b| (?:and|to) (?:\d|in |on |(?:" + "|".join(words.MONTHS) + r")\b))")
_BELONGS = re.compile(r"(?:to|at|in|with|near|by|of|from|against|along|under|over|for|on)\b")
_GOES_ON = re.compile(
    r"(?:that|how|what|whether|why|was|were|had|did|could|would|\w+ed|found|made|led|gave|took|brought)\b"
)
_NOT_FROM = re.compile(r"\b(?:and|or|until|since|than|from|to|but|between) $")
_LOOSE_END = re.compile(
    r"[ ,](?:among|of|in|to|for|with|by|at|on|from|and|or|the|an?|one|some|most|all|but|as|that|when|after|both|early|late)$"
)


@dataclass(frozen=True, slots=True)
class Event:
    """What happened, as a sentence without its date and full stop; `when` as it stands inside a sentence ("on 4 June 1942")."""

    begin: int
    end: int
    text: str
    date: str
    when: str
    plain: bool
    comma: bool
    sentence: Sentence

    @property
    def year(self) -> str:
        found = _YEAR.search(self.date)
        return found.group() if found else ""

    @property
    def told(self) -> str:
        """The event with its date at the end, as a full sentence."""
        return ended(f"{self.text}{',' if self.comma else ''} {self.when}")


def events(task: Task, longest: int) -> list[Event]:
    """The dated events of the snippet whose text is no longer than `longest`, in the order in which it tells them."""
    years = {year for one in task.reading.sentences for date in one.of("date") for year in _YEAR.findall(date.text)}
    year = years.pop() if len(years) == 1 else ""
    found = [event for sentence in task.sentences() for event in _events(sentence, year)]
    return [
        event for event in found if 15 <= len(event.text) <= longest and not dangling(task, event.sentence, event.text)
    ]


def in_order(candidates: Sequence[Event], count: int) -> list[Event]:
    """Up to `count` of the candidates that time puts in one certain order, in that order; the first ones, days before months."""
    chosen: list[Event] = []
    for event in sorted(candidates, key=lambda event: event.end - event.begin):  # days first: a month may hold several
        if len(chosen) < count and all(event.end < other.begin or other.end < event.begin for other in chosen):
            chosen.append(event)
    return sorted(chosen, key=lambda event: event.begin)


def span_of(date: str, year: str = "") -> tuple[int, int] | None:
    """The days a date covers, as numbers that grow with time: a day, a month or a year."""
    found = _YEAR.search(date)
    year = found.group() if found else year
    if not year:
        return None
    month = next((number for name, number in _MONTH.items() if name in date), 0)
    day = _DAY.search(date)
    first = int(year) * 400 + month * 32
    if not month:
        return first, first + 399
    return (first + int(day.group()),) * 2 if day else (first, first + 31)


def _events(sentence: Sentence, year: str) -> Iterator[Event]:
    """An event for each main clause that has exactly one date and a verb, and leans on no other clause."""
    start, whole = 0, sentence.text.rstrip(".")
    cuts = [match.span() for match in _SPLIT.finditer(whole)]
    for stop, following in (*cuts, (len(whole), len(whole))):
        dates = [date for date in sentence.of("date") if start <= date.start < stop]
        if len(dates) == 1:
            event = _event(sentence, whole[start:stop], dates[0], dates[0].start - start, year)
            if event:
                yield event
        start = following


def _event(sentence: Sentence, clause: str, date: Mention, at: int, year: str) -> Event | None:
    span = span_of(date.text, year)
    before, after = clause[:at], clause[at + len(date.text) :]
    phrase = _WHEN.search(before)
    if span is None or phrase is None or _BETWEEN.match(after) or _NOT_FROM.search(before[: phrase.start()]):
        return None
    ahead, behind = before[: phrase.start()].rstrip(), after.lstrip(" ,")
    comma = ahead.endswith(",")
    if ahead:  # what follows the date is part of the event, or something said about it
        ahead, kept = ahead.rstrip(" ,"), main_part(behind)
        if _GOES_ON.match(behind):
            return None
        whole = behind == kept or behind[len(kept) :].startswith((",", " and "))
        behind = kept
        belongs = (
            whole and not comma and not after.startswith(",") and _BELONGS.match(behind) and not _LEANS.search(behind)
        )
        text = f"{ahead} {behind}" if belongs else ahead
    else:
        text = _CUT.split(first_clause(behind))[0]
    if _LEANS.search(ahead) or not _has_verb(text):
        return None
    if not re.match(r"[A-Z]|the |an? ", text) or _LOOSE_END.search(text) or re.search(r"[;:()]|\d{4}\b(?! )", text):
        return None
    if _TELLS.search(text) or PRONOUN.match(text):
        return None
    when = phrase.group() + date.text
    plain = not (phrase["time"] or phrase["part"])
    text = text[0].upper() + text[1:]
    return Event(*span, text, date.text, when[0].lower() + when[1:], plain, comma, sentence)


def _has_verb(text: str) -> bool:
    """Whether a verb in the past tense stands in the text, not at its very start."""
    return any(words.is_past(word) or word in ("was", "were") for word in text.split()[1:])
