"""What the makers of questions work with: one item's reading, its unit's names, and choices that are repeatable.

Guarantees: the same unit, item and round give the same choices; another round takes the next candidate and other
words. A wrong option is of the right one's kind, stands in another sentence, and comes from the same article first.
Cost: a few µs a choice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeVar

from foundation.ids import seed_of
from foundation.prompt_type import ASK
from foundation.records import Snippet
from generator.gates.fields import clash
from generator.teachers.rules import words
from generator.teachers.rules.lexicon import DEMONYM, Lexicon
from generator.teachers.rules.reading import Clause, Kind, Mention, Reader, Reading, Sentence

T = TypeVar("T")

NEAR_YEARS = 20  # a date further off than this is no plausible wrong answer

_EVENT = re.compile(
    r"\b(?:Battle|Siege|War|Campaign|campaign|Operation|Raid|Conference|Uprising|landings|invasion|attack|fall|Revolution)\b"
)
_IN_EVENT = (
    "In {t}, ",
    "In the context of {t}, ",
    "In connection with {t}, ",
    "In the story of {t}, ",
    "In the history of {t}, ",
)
_ON_SUBJECT = (
    "In the history of {t}, ",
    "In connection with {t}, ",
    "On the subject of {t}, ",
    "With regard to {t}, ",
    "In the story of {t}, ",
)


class Declined(Exception):
    """This item's snippet lacks what the prompt type needs; the text says what."""


class Library:
    """The snippets of one unit, read once, and the names in them by kind."""

    def __init__(self, snippets: Sequence[Snippet]) -> None:
        self.lexicon = Lexicon(snippets)
        reader = Reader(self.lexicon)
        self.readings = {snippet.id: reader.read(snippet) for snippet in snippets}
        self._names: dict[tuple[str, str], dict[str, Mention]] = {}
        for reading in self.readings.values():
            for sentence in reading.sentences:
                for mention in sentence.mentions:
                    for article in (reading.snippet.article_id, ""):
                        self._names.setdefault((article, shape(mention)), {}).setdefault(mention.name, mention)

    def names(self, article: str, mention: Mention) -> list[Mention]:
        """Mentions of the kind and shape of `mention`, each name once; of every article if `article` is empty."""
        return list(self._names.get((article, shape(mention)), {}).values())


def shape(mention: Mention) -> str:
    """What another option must share: the kind, and for a date how exact it is, for a number how it is written."""
    if mention.kind in ("date", "number"):
        return f"{mention.kind} " + re.sub(r"\d+", "9", re.sub("|".join(words.MONTHS), "M", mention.text))
    return f"{mention.kind} {mention.the}"


@dataclass
class Task:
    """One item to be made."""

    library: Library
    reading: Reading
    prompt_type: str
    round: int
    rng: Random
    phase: str = ASK
    values: Mapping[str, Any] = field(default_factory=dict)
    """Fields of earlier phases, and `each`, the entry this call is about."""
    partner: Reading | None = None
    entity: str = ""

    def rotate(self, candidates: Iterable[T]) -> list[T]:
        """The candidates in an order of this snippet and type, begun one further in each round.

        Those of the sentences that the snippet before this one does not have come last: the next snippet has them first, and
        neighbours that overlap would else ask the same.
        """
        order = list(candidates)
        Random(seed_of(self.reading.snippet.id, self.prompt_type)).shuffle(order)
        own = {sentence.text for sentence in self.reading.sentences[: len(self.reading.sentences) // 2]}
        order.sort(key=lambda candidate: (found := _sentence_of(candidate)) is not None and found.text not in own)
        turn = self.round % len(order) if order else 0
        return order[turn:] + order[:turn]

    def pick(self, phrases: Sequence[T]) -> T:
        return self.rng.choice(phrases)

    def alternate(self, phrases: Sequence[T]) -> T:
        """One of the phrases, the next one in each round: where one fact is all there is, its question still changes."""
        start = Random(seed_of(self.reading.snippet.id, self.prompt_type, "phrase")).randrange(len(phrases))
        return phrases[(start + self.round) % len(phrases)]

    def sentences(self) -> list[Sentence]:
        """The sentences that stand alone."""
        return [sentence for sentence in self.reading.sentences if sentence.standalone]

    def names_topic(self, text: str) -> bool:
        """Whether a text names the article's subject: every longer word of its title stands in it."""
        heads = [word for word in re.findall(r"\w+", self.reading.topic.casefold()) if len(word) > 3]
        lowered = text.casefold()
        return all(head in lowered for head in heads or [self.reading.topic.casefold()])

    def is_topic(self, name: str) -> bool:
        """Whether a name is the subject's, or part of it."""
        return name.casefold() in self.reading.topic.casefold() or self.names_topic(name)

    def in_context(self, question: str) -> str:
        """The question, begun with its subject where it does not name it."""
        if self.names_topic(question):
            return question[0].upper() + question[1:]
        named = self._in_full(question)
        if named is not None:
            return named[0].upper() + named[1:]
        opening = self.pick(_IN_EVENT if _EVENT.search(self.reading.topic) else _ON_SUBJECT).format(
            t=self.reading.topic
        )
        return opening + question

    def _in_full(self, question: str) -> str | None:
        """A question that has the surname of the person the article is about, with the full name; None if it has not."""
        topic = self.reading.topic
        first, _, last = topic.rpartition(" ")
        if not first or self.library.lexicon.person(last, self.reading.snippet.article_id) != topic:
            return None
        found = re.search(rf"\b{re.escape(last)}(?=[ ,.?'’])(?! [A-Z])", question)
        before = question[: found.start()].split()[-1:] if found else []
        if (
            found is None
            or topic in question
            or (before and not before[0][0].islower() and not before[0].endswith(","))
        ):
            return None
        return question[: found.start()] + topic + question[found.end() :]

    def inside(self, text: str) -> str | None:
        """Text that begins a sentence, as it stands inside one; None where it is not clear whether its capital stays."""
        first, _, rest = text.partition(" ")
        lexicon = self.library.lexicon
        proper = lexicon.is_proper(first.removesuffix("'s"))
        if proper and not rest[:1].isupper() and first.lower() in lexicon.lower and not DEMONYM.match(first):
            proper = False  # "Airborne troops", beside an Airborne Division
        if proper is not True and rest[:1].isupper() and first.lower() not in words.OPENERS:
            named = lexicon.opens_with_name(text, self.reading.snippet.article_id)
            proper = True if proper is None or named else proper
        if proper is None:
            return None
        return text if proper else text[0].lower() + text[1:]

    def others(self, mention: Mention, sentence: str, count: int) -> list[str]:
        """`count` names that could stand in the place of `mention` and are wrong, those of the same article first.

        Raises `Declined` where the unit has too few.
        """
        chosen: list[str] = []
        for name in self._candidates(mention):
            if len(chosen) == count:
                break
            if name in sentence or (name in words.WIDE and mention.name not in words.WIDE):
                continue
            if mention.kind == "person" and name.rpartition(" ")[2] in sentence:
                continue
            if not any(clash(name, taken) for taken in (mention.name, mention.text, *chosen)):
                chosen.append(name)
        if len(chosen) < count:
            raise Declined(f"no {count} other options like {mention.name!r}")
        return chosen

    def _candidates(self, mention: Mention) -> Iterator[str]:
        """Names like `mention`, the most plausible first, in an order of this item."""
        near = [other.name for other in self.library.names(self.reading.snippet.article_id, mention)]
        self.rng.shuffle(near)
        if mention.kind == "thing":  # an army beside armies, a ship beside ships, as far as the name tells
            parts = set(mention.name.split()) - words.FUNCTION_WORDS
            length = len(mention.name.split())
            near.sort(key=lambda name: (not parts & set(name.split()), len(name.split()) != length))
        if mention.kind == "date":
            near = [name for name in near if _years_apart(name, mention.name) <= NEAR_YEARS]
        yield from near
        if mention.kind == "person":
            far = [other.name for other in self.library.names("", mention)]
            self.rng.shuffle(far)
            yield from far
        yield from self._made(mention)

    def _made(self, mention: Mention) -> list[str]:
        """Dates and numbers near the right one, for want of others."""
        if mention.kind == "date":
            year = re.search(r"\d{4}", mention.text)
            shifts = self.rng.sample((-4, -3, -2, -1, 1, 2, 3, 4), 8)
            return (
                [mention.text.replace(year.group(), str(int(year.group()) + shift)) for shift in shifts] if year else []
            )
        if mention.kind == "number":
            return [
                number
                for factor in self.rng.sample((0.4, 0.5, 0.75, 1.5, 2.0, 2.5, 3.0), 7)
                if (number := _scaled(mention.text, factor))
            ]
        return []


def _years_apart(one: str, other: str) -> int:
    years = [re.search(r"\d{4}", date) for date in (one, other)]
    return abs(int(years[0].group()) - int(years[1].group())) if years[0] and years[1] else 0


def _scaled(text: str, factor: float) -> str:
    """Another number with as many round digits: "1,200" times 1.5 is "1,800"."""
    value = int(text.replace(",", ""))
    digits = text.replace(",", "")
    step = 10 ** (len(digits) - len(digits.rstrip("0"))) if value else 1
    other = max(1, round(value * factor / step)) * step
    if other == value:
        other += step
    return f"{other:,}" if "," in text or (other >= 10_000 and "," in f"{value:,}") else str(other)


def _sentence_of(candidate: object) -> Sentence | None:
    """The sentence a candidate stands in, where it is known."""
    found = candidate[0] if isinstance(candidate, tuple) and candidate else getattr(candidate, "sentence", candidate)
    return found if isinstance(found, Sentence) else None


def of_kind(sentences: Iterable[Sentence], *kinds: Kind) -> list[tuple[Sentence, Mention]]:
    """Every mention of those kinds that stands once in its sentence."""
    return [
        (s, m)
        for s in sentences
        for m in s.of(*kinds)
        if s.text.count(m.text) == 1 and not s.text[m.end :].startswith("-")
    ]


def trailing(clause: Clause) -> str:
    """A lead as it stands at the end of its sentence."""
    return f" {clause.lead[0].lower()}{clause.lead[1:]}" if clause.lead else ""
