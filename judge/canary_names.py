"""Wrong names: the name that a question asks for, replaced by another of the data that is of the same kind.

Guarantees: the name is the only new one of its kind; the other one stands nowhere in the passage, the question or the
reference. Cost: one pass over the data, about 0.3 ms an item. Misses: names that are neither people's nor places', and all
whose kind cannot be told.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Literal

from foundation import words
from foundation.ids import keyed_fraction
from foundation.records import EvalItem
from judge import choices
from judge.canary_sentences import STANCE, asking, words_of

PERSON_TITLES = frozenset(
    "general marshal colonel major captain admiral lieutenant commander sergeant private sir lord president minister premier "
    "chancellor king queen emperor prince duke doctor dr professor secretary brigadier corporal commodore reichsmarschall".split()
)
LOWERED = words.FUNCTION | frozenset(
    "about more some early late several roughly nearly almost over approximately".split()
)
_PLAIN = words.FUNCTION | words.GENERIC
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_WHO = re.compile(r"who\b|whom\b|(?:what|which) (?:person|man|woman|name|of these people|is the name)\b", re.IGNORECASE)
_WHERE = re.compile(r"where\b|(?:what|which) (?:city|town|village|country|port|place|river|island)\b", re.IGNORECASE)
_IN = frozenset("in at near from into entered reached".split())
Sort = Literal["person", "place"]


def telling(text: str) -> set[str]:
    """The words of `text` that could be an answer by themselves: capitalised inside a sentence or not, and figures."""
    return {
        word.lower()
        for word in _WORD.findall(text)
        if (word[0].isupper() or word[0].isdigit()) and word.lower() not in _PLAIN
    }


def lowered(text: str) -> set[str]:
    """The words of `text` that stand in lower case somewhere in it: no names."""
    return {word for word in _WORD.findall(text) if word.islower()}


def runs(text: str) -> Iterator[tuple[str, str, str]]:
    """(word before, titles, name) of each name in `text`: capitalised words in a row, with "von" and its like inside."""
    found = list(_WORD.finditer(text))
    at = 0
    while at < len(found):
        start = at
        while at < len(found) and _capital(found[at].group()) and (at == start or _beside(text, found, at)):
            at += 1
            particles = at
            while (
                particles < len(found)
                and found[particles].group() in words.PARTICLES
                and _beside(text, found, particles)
            ):
                particles += 1
            if (
                particles > at
                and particles < len(found)
                and _capital(found[particles].group())
                and _beside(text, found, particles)
            ):
                at = particles
        if at == start:
            at += 1
            continue
        parts = [found[index].group() for index in range(start, at)]
        before = found[start - 1].group().lower() if start else ""
        while parts and parts[0].lower() in words.FUNCTION:
            before = parts.pop(0).lower()
        titles: list[str] = []
        while parts and parts[0].lower() in words.GENERIC | PERSON_TITLES:
            titles.append(parts.pop(0).lower())
        if parts:
            yield before, " ".join(titles), re.sub(r"['’]s$", "", " ".join(parts))


def _capital(word: str) -> bool:
    return word[0].isupper()


def _beside(text: str, found: list[re.Match[str]], at: int) -> bool:
    previous = found[at - 1].group()
    return text[found[at - 1].end() : found[at].start()] == " " and not re.search(r"['’]s$", previous)


class Names:
    """People and places of the data, as far as their titles and the words before them tell."""

    def __init__(self, items: Sequence[EvalItem]) -> None:
        people: Counter[str] = Counter()
        places: Counter[str] = Counter()
        for text in sorted({text for item in items for text in (item.snippet, item.reference)}):
            for before, titles, name in runs(text):
                last = titles.split()[-1:]
                if last and last[0] in PERSON_TITLES and _like_a_person(name):
                    people[name] += 1
                elif not titles and before in _IN and name.isalpha() and name.lower() not in words.PEOPLE_OF:
                    places[name] += 1
        surnames = {name.split()[-1] for name in people}
        self.people = sorted(people)
        self.places = sorted(
            name
            for name, times in places.items()
            if times >= 2 and name not in surnames and name.lower() not in words.MONTH_OF
        )

    def changed(self, item: EvalItem) -> str:
        """The reference with the asked-for name replaced everywhere, by its last word too; "" if it is not plain which."""
        stance = STANCE.match(item.reference)
        blank = "__" in item.question and len(words_of(item.reference)) <= 4
        if (stance and stance[1] in ("True", "Yes")) or choices.texts_of(item.question)[0]:
            return ""
        if blank or stance or _WHO.match(asking(item.question)):
            made = self._put(item, self.people)
            if made or not (blank or stance):
                return made
        return self._put(item, self.places) if blank or stance or _WHERE.match(asking(item.question)) else ""

    def _put(self, item: EvalItem, known: list[str]) -> str:
        given = telling(item.question)
        names = {name for _, _, name in runs(item.reference) if name in known and not telling(name) & given}
        if len(names) != 1:
            return ""
        old = names.pop()
        around = telling(f"{item.snippet} {item.question} {item.reference} {item.title}")
        free = [name for name in known if not telling(name) & around]
        if not free:
            return ""
        new = free[int(keyed_fraction("canary-name", item.id) * len(free))]
        text = re.sub(rf"(?<!\w){re.escape(old)}(?!\w)", new, item.reference)
        return re.sub(rf"(?<!\w){re.escape(old.split()[-1])}(?!\w)", new.split()[-1], text)


def _like_a_person(name: str) -> bool:
    parts = name.split()
    return 2 <= len(parts) <= 5 and not any(
        part.lower() in words.GENERIC or part[0].isdigit() or part in words.ROMAN for part in parts
    )
