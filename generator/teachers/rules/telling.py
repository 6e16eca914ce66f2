"""Telling a passage again: its dated events in the order of time, its sentences as points, and both in few words.

Guarantees: no name, number or date is lost or added; an event is dated only where its sentence puts the main verb at
that date, and two are set in order only where their dates say which was first. Declines by giving fewer of them.
Cost: about 20 µs a sentence.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from generator.teachers.rules import words
from generator.teachers.rules.passages import fill
from generator.teachers.rules.reading import Sentence
from generator.teachers.rules.sound import dangling
from generator.teachers.rules.task import Declined, Task

Span = tuple[int, int, int]

_YEAR = re.compile(r"\b(\d{4})\b")
_DAY = re.compile(r"\b(\d{1,2})(?:,? |$)")
_SEASON = {"spring": (3, 5), "summer": (6, 8), "autumn": (9, 11)}
_PART_OF_MONTH = {"early": (1, 10), "beginning": (1, 10), "mid": (11, 20), "middle": (11, 20), "late": (21, 31)}
_PART_OF_MONTH |= {"end": (21, 31), "start": (1, 10)}
_PART_OF_YEAR = {"early": (1, 4), "mid": (5, 8), "middle": (5, 8), "late": (9, 12), "end": (11, 12)}
_PART_OF_YEAR |= {"beginning": (1, 2), "start": (1, 2)}
# A date behind one of these may not be the main verb's: "planned to attack in June", "Hiryu, which sank on 5 June".
_NOT_MAIN = re.compile(
    r"\b(?:which|who|whose|whom|that|where|when|because|while|after|before|until|since|although|though|as|if|than|so|"
    r"planned?|expected|scheduled|intended|proposed|would|should|could|fixed|set for|due|has|have|is|are)\b|[;:(]|"
    r"\bto (?!(?:the|a|an|his|her|its|their|about|only|\d|[A-Z]))|\b(?:and|but|or) (?=[a-z]+ed\b|(?:was|were|then)\b)"
)
_TWO_CLAUSES = re.compile(r", (?:and|but|so|yet|nor) |; ")
_DATE_GOES_ON = re.compile(
    r"[-–]|,? (?:when|as|which|that|or|to|until|by|in|at)\b| and (?!(?:then |later |soon )?[a-z]+)"
)
_BROKEN = re.compile(
    r",,|, \.|, [a-z]+, |\b(?:in|on|at|by|of|the|and|from|to)\.$|\b(?:on|in|at) (?:the )?(?:same|next|following)\b|^(?:And|But|Or) "
)
_WHEN = re.compile(
    r"(?:^|(?<= ))(?:(?:[Ee]arly|[Ll]ate) )?(?:[Oo]n|[Ii]n|[Dd]uring|[Aa]t)(?: the)?(?: (?:early|late|mid|rainy|spring|summer|autumn|winter|night|morning|"
    r"evening|afternoon|beginning|end|start|middle|opening|closing|last|first|weeks|days|months|hours)(?: of)?)*"
    rf"(?: (?:{'|'.join(words.WEEKDAYS)}))? $"
)
_NOT_WHEN = re.compile(
    r"\b(?:since|until|before|after|by|to|for|till|than|of) (?:the \w+ (?:of )?)?$|\b(?:planned?|expected|scheduled|intended|"
    r"proposed|would|should|due|remember|mark|as early as)\b",
    re.IGNORECASE,
)
_LEADING = re.compile(
    r"(?:Meanwhile|However|Then|Soon|Instead|Eventually|Finally|Later|Also|In addition|Furthermore|But|And),? "
)
_KEPT_ARTICLE = re.compile(
    r"(?:few|little|day|week|month|year|hour|minute|second|piece|head|number|lot|dozen|hundred|thousand|million|billion|third|quarter|half)\b"
)
_ARTICLE = re.compile(r"(?:(?<= )|^|(?<=[(\"“]))(the|a|an|The|A|An) (?=\S)")
_HELPING = re.compile(
    r"(?P<who>, (?:which|who) )(?:was|were) (?=\w+(?:ed|en|ing|own|nown)\b)|(?<=[\w%)\"”]) (?:was|were)(?: being)? "
    r"(?=(?:\w+ly )?(?:not |also |soon |later |then |again |still |now |only |never )*\w+)"
)
_STAYS = re.compile(
    r"\b(?:[Hh]e|[Ss]he|[Tt]hey|[Ww]e|I|[Tt]here|[Ii]t|[Tt]his|[Tt]hat|[Tt]hese|[Tt]hose|[Ww]hich|[Ww]ho|[Ww]hat|[Hh]ow|[Ww]here|and|or|but|as|than)$"
)
_NEXT = re.compile(r"(?:(?:\w+ly|not|also|soon|later|then|again|still|now|only|never) )*(\w+)")
_PARTICIPLE = re.compile(
    r"[a-z]{2,}ing|in|at|on|under|near|only|still|taken|driven|broken|chosen|given|written|beaten|hidden|fallen|frozen|known|shown|drawn|"
    r"flown|thrown|torn|sunk|begun|born|seen|forgotten|sworn"
)
_BY = re.compile(r"[^,;:.]{0,40} (?:by|as) ")
_AT_DATE = re.compile(
    rf"(?:(?<=[^\W\d] )(?:on|in)|^(?:On|In)) (?=(?:(?:{'|'.join(words.WEEKDAYS)}) )?(?:\d{{1,2}} )?(?:{'|'.join(words.MONTHS)})\b)"
)


@dataclass(frozen=True, slots=True)
class Event:
    """One dated event. `date` as a list shows it, `text` without the date, `fronted` with the date in front."""

    date: str
    text: str
    fronted: str
    span: tuple[Span, Span]
    number: int
    sentence: Sentence


def span_of(when: str) -> tuple[Span, Span] | None:
    """First and last day that a time phrase may mean; None where it is not clear, as in "winter of 1941"."""
    year = _YEAR.search(when)
    if year is None or "winter" in when:
        return None
    number, rest = int(year.group()), when.replace(year.group(), " ")
    months = [index for index, name in enumerate(words.MONTHS, 1) if name in rest]
    part = next((word for word in re.findall(r"[a-z]+", rest) if word in _PART_OF_MONTH), "")
    if re.search(r"\b(?:weeks|days|months|opening|closing|last|first|morning|evening|night|afternoon|hours)\b", rest):
        part = part if months and _DAY.search(rest) is None else ""
        if not (months and _DAY.search(rest)):
            return None
    if len(months) > 1:
        return None
    if months:
        day = _DAY.search(rest)
        first, last = (int(day.group(1)),) * 2 if day else _PART_OF_MONTH.get(part, (1, 31))
        return (number, months[0], first), (number, months[0], last)
    season = next((span for name, span in _SEASON.items() if name in rest), None)
    first, last = season or _PART_OF_YEAR.get(part, (1, 12))
    return (number, first, 1), (number, last, 31)


def event_of(task: Task, sentence: Sentence, number: int) -> Event | None:
    """The event a sentence puts at one date, or None where it may not be the main verb's date."""
    text, found = sentence.text, _time_phrase(sentence)
    if found is None or (span := span_of(found[1])) is None:
        return None
    start, phrase = found
    before, after = text[:start], text[start + len(phrase) :]
    if before and (_NOT_MAIN.search(before) or _TWO_CLAUSES.search(before)):
        return None
    if (not before and not re.match(r",? \S", after)) or _DATE_GOES_ON.match(after):
        return None
    after = re.sub(r"^, (?=(?:\w+ ){0,3}(?:before|after)\b)", " ", after) if before else after
    body = before.rstrip() + after if before else after.lstrip(" ,")
    body = re.sub(r" ,|,(?=\.)", lambda match: match.group().strip(" ") if match.group() == " ," else "", body).strip()
    body = body[0].upper() + body[1:]
    if len(body) < 25 or _BROKEN.search(body):
        return None
    inside = task.inside(body) if before else after.lstrip(" ,")
    fronted = f"{phrase[0].upper()}{phrase[1:]}, {inside}" if inside else ""
    date = re.sub(r"^(?:on|in|during|at) (?:the )?", "", phrase, flags=re.IGNORECASE)
    return Event(date[0].upper() + date[1:], body, fronted, span, number, sentence)


def _time_phrase(sentence: Sentence) -> tuple[int, str] | None:
    """Where a sentence's one time phrase stands ("on the night of 4 June 1942"), and the phrase."""
    dates, text = sentence.of("date"), sentence.text
    if len(dates) != 1 or not _YEAR.search(dates[0].text) or point(sentence) != text:
        return None
    before = _WHEN.search(text[: dates[0].start])
    if before and before.group().endswith("the "):  # "in the April 2004 election"
        return None
    return (before.start(), text[before.start() : dates[0].end]) if before else None


def events(task: Task) -> list[Event]:
    """The passage's dated events, the earliest first; those whose place in time is not sure are left out."""
    found = [
        event
        for number, sentence in enumerate(task.reading.sentences)
        if (event := event_of(task, sentence, number)) and not dangling(task, sentence, event.text)
    ]
    sure = [event for event in found if not any(blurs(event.span, other.span) for other in found)]
    return sorted(sure, key=lambda event: (event.span, event.number))


def simple_past(event: Event) -> str | None:
    """An event's text as one of a list: with "landed" for "had landed", and nothing said of an "it" beside it."""
    clause = event.sentence.clause
    if re.search(r"\b(?:it|them)\b", event.text):
        return None
    if clause is None or clause.verb != "had" or words.DETERMINED.match(clause.rest):
        return event.text
    text = re.sub(r"\bhad (?:already |just |also )?(?=[a-z]+ed\b)", "", event.text, count=1)
    return text if text != event.text else None


def blurs(one: tuple[Span, Span], other: tuple[Span, Span]) -> bool:
    """Whether a date holds another, finer one: which was first is then not known."""
    (first, last), (start, stop) = one, other
    return one != other and first <= stop and start <= last and not (start <= first and last <= stop)


def about(task: Task, phrase: str, sentences: Sequence[Sentence]) -> str | None:
    """A phrase filled with what these sentences name; None where that is fewer than two names."""
    narrow = replace(task, reading=replace(task.reading, sentences=tuple(sentences)))
    try:
        return fill(narrow, phrase, opens=False)
    except Declined:
        return None


def stamp_of(task: Task, sentence: Sentence, number: int) -> tuple[Span, Span] | None:
    """When a sentence happened, by the first date that is not said of something else; None if it has none.

    Raises `Declined` for a date without its year.
    """
    event = event_of(task, sentence, number)
    if event is not None:
        return event.span
    for date in sentence.of("date"):
        before = sentence.text[: date.start]
        if _NOT_WHEN.search(before):
            continue
        part = re.search(
            r"\b(?:early|late|mid|end of|middle of|beginning of|summer of|spring of|autumn of|winter of) $", before
        )
        span = span_of((part.group() if part else "") + date.text)
        if span is None:
            raise Declined("a date that cannot be put in order")
        return span
    return None


def points(task: Task) -> list[str]:
    """The sentences that can stand in a list by themselves, in their order, without a connecting word in front."""
    return [text for sentence in task.reading.sentences if (text := point(sentence))]


def point(sentence: Sentence) -> str | None:
    """A sentence as a point of a list; None where it leans on its neighbours."""
    text = _LEADING.sub("", sentence.text, count=1) if _LEADING.match(sentence.text) else sentence.text
    text = text[0].upper() + text[1:]
    cut = len(sentence.text) - len(text)
    if not (25 <= len(text) <= 230 and text.endswith(".")) or text.count('"') % 2 or text.count("(") != text.count(")"):
        return None
    if (
        words.PRONOUN_START.match(text)
        or words.POINTS_AWAY.search(text)
        or re.search(r"[;\[\]{}|=<>\n]|[.!?] [A-Z]", text)
    ):
        return None
    for pronoun in re.finditer(r"\b(?:he|him|his|she|her|it|its|they|them|their)\b", text):
        if not any(mention.kind != "date" and mention.start - cut < pronoun.start() for mention in sentence.mentions):
            return None
    return text if sentence.mentions else None


def terse(text: str) -> str:
    """A sentence without articles and the verbs that only help, and without its full stop: as in a telegram."""
    text = text.rstrip(".")
    text = _AT_DATE.sub("", text)
    text = _ARTICLE.sub(lambda match: match.group() if _article_stays(text, match) else "", text)
    text = _HELPING.sub(lambda match: _without_help(text, match), text)
    text = re.sub(r" {2,}", " ", text).strip()
    return text[0].upper() + text[1:]


def _article_stays(text: str, match: re.Match[str]) -> bool:
    """Whether leaving out an article would change what is said: "a few", "20 tons a day", "The Hague"."""
    article, after, before = match.group(1), text[match.end() :], text[: match.start()].rstrip()
    if article.lower() != "the":
        return bool(_KEPT_ARTICLE.match(after))
    if article == "The":
        return match.start() > 0
    return article == "the" and bool(re.search(r"\b(?:more|less)$", before))


def _without_help(text: str, match: re.Match[str]) -> str:
    if match["who"]:
        return ", "
    found = _NEXT.match(text, match.end())
    if found is None or _STAYS.search(text[: match.start()]):
        return match.group()
    plain = _PARTICIPLE.fullmatch(found.group(1)) or (words.is_past(found.group(1)) and _BY.match(text, found.end()))
    return " " if plain else match.group()  # "Poland attacked" for "Poland was attacked" would be another fact


def is_passive(rest: str) -> bool:
    """Whether what follows "was" is a participle."""
    found = _NEXT.match(rest)
    return found is not None and (words.is_past(found.group(1)) or bool(_PARTICIPLE.fullmatch(found.group(1))))
