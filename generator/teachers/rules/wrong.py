"""Values that are wrong on purpose: another person, thing, place, date or number in the place of the right one.

Guarantees: a wrong value is of the right one's kind, stands nowhere in the sentence, and nothing in the same article says
of it what the sentence says of the right one, as far as shared words tell. Where kinds cannot be told for sure (a town
beside a country that holds it) there is none. Cost: about 0.1 ms a value, most of it reading the article's sentences.
"""

from __future__ import annotations

import functools
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from generator.gates.fields import clash
from generator.teachers.rules import words
from generator.teachers.rules.lexicon import DEMONYM
from generator.teachers.rules.reading import Mention, Sentence
from generator.teachers.rules.task import Declined, Library, Task

_SHIP = re.compile(r"\b(carrier|cruiser|battleship|destroyer|submarine|liner|tanker|frigate|gunboat)s? (?:the )?$")
_POINT = re.compile(r"\b(?:[Aa]t|[Nn]ear|[Oo]utside|city of|town of|village of|port of) $")
_HEADS = frozenset(
    """River Sea Ocean Island Islands Lake Harbor Harbour Bay Gulf Strait Straits Channel Valley Peninsula Desert Pass Ridge Field
    Airfield Point Beach Cape Mountains Canal Park Street""".split()
)
_UNITS = frozenset(
    """Army Armies Navy Fleet Corps Group Division Brigade Regiment Battalion Squadron Front Wing Command Battery Flotilla Company
    Operation Convoy Line Treaty Pact Conference Act Party Ministry Committee University College Institute""".split()
)
_MORE = re.compile(r"\b(?:over|more than|at least|exceeding|minimum of|above) (?:[$£] ?)?$", re.IGNORECASE)
_LESS = re.compile(
    r"\b(?:under|at most|up to|fewer than|less than|below|maximum of|within) (?:[$£] ?)?$", re.IGNORECASE
)
_WHERE = re.compile(
    r"\b(?:[Ii]n|[Aa]t|[Nn]ear|[Oo]utside|[Tt]o|into|[Ff]rom|towards?|[Aa]round|[Tt]hrough|[Aa]cross|off|reached|left) (?:the )?$"
)
_ROLE_BEFORE = re.compile(r"\b(?:[Tt]he|[Aa]n?|[Hh]is|[Hh]er|[Ii]ts|[Tt]heir) (?:[\w-]+ ){1,3}$")
_PART_OF = re.compile(
    r" (?:of|out of|in|from|and|or|to|per) (?:the |its |their |his |every |a )?(?:[a-z]+ ){0,2}\d|[-–/%]| per cent| percent"
)
_NO_NUMBER = re.compile(
    r"\d (?:of|to|and|or) (?:\w+ )?$|\b(?:[Nn]o|[Tt]ype|[Mm]ark|age|aged|between|every|each|by|per|c|[A-Z]\w+)\.? $|[^\s$£]$|[x×] $"
)
_NO_COUNT = re.compile(
    r" (?:a\.?m|p\.?m|o'clock|BC|AD|degrees|hours? on|January|February|March|April|May|June|July|August)\b"
)


@dataclass(frozen=True, slots=True)
class Swap:
    """A sentence's value and what it was exchanged for; `false` is the sentence with `wrong` in it."""

    kind: str
    sentence: Sentence
    right: str
    wrong: str
    false: str


class _Kinds:
    """What one unit's sentences show of its things and places: which are of one kind."""

    def __init__(self, library: Library) -> None:
        self.points: set[str] = set()
        self.listed: defaultdict[str, list[set[str]]] = defaultdict(list)
        self.ships: dict[str, str] = {}
        self.said: defaultdict[str, dict[str, frozenset[str]]] = defaultdict(dict)  # article -> sentence -> its stems
        self.demonyms: set[str] = {word[:3] for word in library.lexicon.proper if DEMONYM.match(word)}
        for reading in library.readings.values():
            article = reading.snippet.article_id
            for sentence in reading.sentences:
                if sentence.text not in self.said[article]:
                    self.said[article][sentence.text] = _stems(sentence.text)
                    self._read(sentence, article)

    def _read(self, sentence: Sentence, article: str) -> None:
        run: list[Mention] = []
        for mention in sentence.mentions:
            before = sentence.text[: mention.start]
            if mention.kind == "place" and _POINT.search(before):
                self.points.add(mention.name)
            if mention.kind != "thing":
                continue
            ship = _SHIP.search(before)
            if ship and " " not in mention.name:
                self.ships[mention.name] = ship.group(1)
            joined = run and sentence.text[run[-1].end : mention.start] in (
                ", ",
                " and ",
                ", and ",
                ", the ",
                " and the ",
            )
            if not joined:
                run = []
            run.append(mention)
            if len(run) == 2:
                self.listed[article].append({run[0].name})
            if len(run) >= 2:
                self.listed[article][-1].add(mention.name)

    def of_place(self, name: str) -> str:
        """A word for the kind of a place; empty where it is not sure."""
        last = name.rpartition(" ")[2]
        if last in _HEADS:
            return last
        if name in self.points:
            return "point"
        return "country" if len(name) > 3 and name[:3] in self.demonyms else ""


_kinds: WeakKeyDictionary[Library, _Kinds] = WeakKeyDictionary()


def kinds_of(library: Library) -> _Kinds:
    """The kinds of a unit's names, found once."""
    found = _kinds.get(library)
    if found is None:
        found = _kinds[library] = _Kinds(library)
    return found


def rivals(task: Task, mention: Mention, text: str, count: int) -> list[str]:
    """`count` wrong names, dates or numbers for `mention` in `text`. Raises `Declined` where the unit has too few."""
    chosen: list[str] = []
    for name in _candidates(task, mention, text):
        if len(chosen) == count:
            break
        if name in text or any(clash(name, taken) for taken in (mention.name, mention.text, *chosen)):
            continue
        if mention.kind in ("person", "thing", "place") and _also_said(task, name, text):
            continue
        if mention.kind == "person" and set(words.TITLES).intersection(name.split()):
            continue  # "Confederate President Jefferson Davis"
        if mention.kind == "thing" and _many(name) != _many(mention.name):
            continue
        chosen.append(name)
    if len(chosen) < count:
        raise Declined(f"no {count} others of the same kind as {mention.name!r}")
    return chosen


def swapped(task: Task, sentence: Sentence, mention: Mention) -> Swap | None:
    """The sentence with another value in the place of `mention`; None where it cannot be sure to be false and to read well."""
    if not exchangeable(sentence, mention):
        return None
    try:
        (wrong,) = rivals(task, mention, sentence.text, 1)
    except Declined:
        return None
    start = _start(sentence.text, mention)
    right = sentence.text[start : mention.end]
    if mention.title:
        wrong = with_title(task, wrong)
    false = sentence.text[:start] + wrong + sentence.text[mention.end :]
    return Swap(mention.kind, sentence, right, wrong, false)


def with_title(task: Task, name: str) -> str:
    """A full name with its title: the one of this article where it has one, else the one the unit knows."""
    title = task.library.lexicon.title_of(name)
    return _as_titled(task, name, title) or f"{title} {name}".strip()


def titled_here(task: Task, person: Mention) -> str:
    """A person's full name, with a title only where this article gives it: in another one it may be a later rank."""
    title = person.title or task.library.lexicon.title_of(person.name)
    return _as_titled(task, person.name, title) or person.name


def _as_titled(task: Task, name: str, title: str) -> str:
    """The name behind its title as the article gives it, "Field" of "Field Marshal" not forgotten; empty if it does not."""
    if not title:
        return ""
    behind = re.compile(rf"(?:(\w+) )?{re.escape(title)} (?:{re.escape(name)}|{re.escape(name.rpartition(' ')[2])})\b")
    for sentence in kinds_of(task.library).said[task.reading.snippet.article_id]:
        found = behind.search(sentence) if title in sentence else None
        if found:
            longer = f"{found[1]} {title}"
            return f"{longer if longer in words.TITLES else title} {name}"
    return ""


def _start(text: str, mention: Mention) -> int:
    """Where a mention begins, with its whole title: "Field Marshal" may open a sentence and be read as "Marshal"."""
    start = mention.start - (len(mention.title) + 1 if mention.title else 0)
    before = text[:start].rstrip().rpartition(" ")[2]
    longer = mention.title and f"{before} {mention.title}" in words.TITLES
    return start - len(before) - 1 if longer else start


def exchangeable(sentence: Sentence, mention: Mention) -> bool:
    """Whether another value can stand here: the right one stands once, and nothing beside it describes it further."""
    text, after = sentence.text, sentence.text[mention.end :]
    before = text[: _start(text, mention)]
    if mention.kind in ("person", "thing", "place"):
        last = mention.text.rpartition(" ")[2]
        if text.count(last) != 1 or after.startswith("-") or re.search(r"\w-$", before):
            return False
    if mention.kind == "person":
        described = re.match(r", (?!and |but )| of (?:the )?[A-Z]| \(", after) or _ROLE_BEFORE.search(before)
        return not described and not (not mention.title and _noun(before))
    if mention.kind == "thing":
        return not re.match(r", (?!and |but )| \(|/", after) and not mention.name.isupper()
    if mention.kind == "place":  # where something was, not a government; and no place in a place
        inside = re.search(r"[A-Z][\w-]+ in (?:the )?$", before) or re.match(r",? in (?:the )?[A-Z]", after)
        beside = re.match(r", (?!and |but |where |when |while )| \(| and [A-Z]|['’/]", after)
        many = re.search(
            r"\b(?:has|have) (?:an?|its|their|many|several|some)\b|\brepresented in\b", before
        )  # an embassy
        return bool(_WHERE.search(before)) and not many and not inside and not beside and mention.name not in words.WIDE
    if mention.kind == "date":
        weekday = sentence.when and re.search(rf"\b(?:{'|'.join(words.WEEKDAYS)})\b", sentence.when.text)
        return sentence.when is not None and not weekday and not re.match(r" [A-Z]|/", after)
    counted = re.match(r" ([A-Z]?[a-z]+)", after)
    noun = counted.group(1) if counted else ""
    return (
        text.count(mention.text) == 1
        and len(mention.text) > 1
        and not re.fullmatch(r"1\d{3}|20\d\d", mention.text)  # more likely a year
        and bool(noun)
        and (noun.islower() or bool(DEMONYM.match(noun)))
        and noun not in words.FUNCTION_WORDS
        and not _PART_OF.match(after)
        and not _NO_COUNT.match(after)
        and not _NO_NUMBER.search(before)
    )


def _many(name: str) -> bool:
    """Whether a name looks like a plural."""
    return name.endswith("s") and not name.endswith(("ss", "us", "is", "ps"))


def _noun(before: str) -> bool:
    """Whether a noun stands directly in front, that tells what the name is: "the novel ...", "his mother ..."."""
    word = before.rstrip().rpartition(" ")[2]
    return word.isalpha() and word.islower() and not (word in words.FUNCTION_WORDS or words.is_past(word))


def _candidates(task: Task, mention: Mention, text: str) -> Iterator[str]:
    if mention.kind == "person":
        return _people(task, mention)
    if mention.kind == "place":
        return _places(task, mention)
    if mention.kind == "thing":
        return _things(task, mention)
    if mention.kind == "date":
        return _dates(task, mention)
    return _numbers(task, mention, text)


def _people(task: Task, mention: Mention) -> Iterator[str]:
    """Of the article, those of the same rank first; of other articles, those of the same rank only."""
    rank = _rank(mention.title or task.library.lexicon.title_of(mention.name))
    names = [other.name for other in task.library.names(task.reading.snippet.article_id, mention)]
    names = [name for name in names if " " in name or name.startswith(tuple(words.TITLES))] or names
    task.rng.shuffle(names)
    names.sort(key=lambda name: _rank(task.library.lexicon.title_of(name)) != rank)
    yield from names
    far = [other.name for other in task.library.names("", mention)] if rank else []
    task.rng.shuffle(far)
    yield from (name for name in far if _rank(task.library.lexicon.title_of(name)) == rank and name not in names)


def _rank(title: str) -> str:
    return title.rpartition(" ")[2]


def _places(task: Task, mention: Mention) -> Iterator[str]:
    kinds = kinds_of(task.library)
    kind = kinds.of_place(mention.name)
    names = [other.name for other in task.library.names(task.reading.snippet.article_id, mention)]
    task.rng.shuffle(names)
    for name in names:
        adjective = DEMONYM.match(name.rpartition(" ")[2])
        if kind and kinds.of_place(name) == kind and name not in words.WIDE and not adjective:
            yield name


def _things(task: Task, mention: Mention) -> Iterator[str]:
    """Names with the same head ("2nd Army" for "6th Army"), ships of one class, and names that stand in one list."""
    kinds, article = kinds_of(task.library), task.reading.snippet.article_id
    head = mention.name.rpartition(" ")[2]
    tokens = mention.name.split(" ")
    group = tuple(token for token in tokens if token in _UNITS)
    near = [other.name for other in task.library.names(article, mention)]
    task.rng.shuffle(near)
    ship = kinds.ships.get(mention.name)
    listed: set[str] = set().union(*(names for names in kinds.listed[article] if mention.name in names))
    for name in near:
        others = name.split(" ")
        if group and group == tuple(token for token in others if token in _UNITS) and len(tokens) == len(others):
            if head in _UNITS or others[-1].isdigit():
                yield name
        elif (ship and kinds.ships.get(name) == ship) or (not group and name in listed and len(tokens) == len(others)):
            yield name


def _dates(task: Task, mention: Mention) -> Iterator[str]:
    """Dates of the same form: the article's own within 20 years, then some a few days or years off."""
    year = re.search(r"\d{4}", mention.text)
    yield from _article_dates(task, mention)
    if year is None:
        return
    day = re.search(r"\b\d{1,2}\b", mention.text)
    for shift in task.rng.sample((-9, -6, -5, -4, -3, -2, 2, 3, 4, 5, 6, 9), 12):
        if day and 1 <= int(day.group()) + shift <= 28:
            yield mention.text[: day.start()] + str(int(day.group()) + shift) + mention.text[day.end() :]
        elif not day and -5 < shift < 5:
            yield mention.text.replace(year.group(), str(int(year.group()) + shift))


def _article_dates(task: Task, mention: Mention) -> list[str]:
    names = [other.name for other in task.library.names(task.reading.snippet.article_id, mention)]
    task.rng.shuffle(names)
    return [name for name in names if abs(_year(name) - _year(mention.text)) <= 20]


def _year(date: str) -> int:
    found = re.search(r"\d{4}", date)
    return int(found.group()) if found else 0


def _numbers(task: Task, mention: Mention, text: str) -> Iterator[str]:
    """Numbers as round as the right one and near it; beyond it where the sentence gives a bound."""
    before = text[: mention.start]
    factors = [0.4, 0.5, 0.6, 0.75, 1.3, 1.5, 1.75, 2.0, 2.5]
    if _LESS.search(before):  # "fewer than 50" is no less true of 100, and "over 50" of 20
        factors = factors[:4]
    elif _MORE.search(before) or re.match(r" (?:\w+ )?or more\b", text[mention.end :]):
        factors = factors[4:]
    for factor in task.rng.sample(factors, len(factors)):
        number = scaled(mention.text, factor)
        if number:
            yield number


def scaled(text: str, factor: float) -> str:
    """Another number with as many round digits: "1,200" times 1.5 is "1,800"; empty where none is far enough off."""
    digits = text.replace(",", "")
    value = int(digits)
    exact = max(2, len(digits.rstrip("0")))
    step = 10 ** max(0, len(str(int(value * factor))) - exact)
    other = round(value * factor / step) * step
    if other <= 0 or abs(other - value) < max(2, value // 5):
        return ""
    return f"{other:,}" if "," in text or other >= 1000 > value else str(other)


def _also_said(task: Task, name: str, text: str) -> bool:
    """Whether the article says of `name` what `text` says: two content words shared by a sentence that names it."""
    said = kinds_of(task.library).said[task.reading.snippet.article_id]
    last, own = name.rpartition(" ")[2], _stems(text)
    return any(last in other and len(own & stems) >= 2 for other, stems in said.items())


@functools.lru_cache(maxsize=8192)
def _stems(text: str) -> frozenset[str]:
    """A sentence's content words in lower case, cut to five letters."""
    return frozenset(word[:5] for word in re.findall(r"\b[a-z]{4,}\b", text) if word not in words.FUNCTION_WORDS)
