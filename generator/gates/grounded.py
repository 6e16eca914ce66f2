"""Gate: every number, date and capitalised name of an answer stands in its ground: the passage, its title, its article.

Guarantees: pure; a reject names what is not there (codes `number`, `date`, `name`). A number counts however it is written;
a date must stand in the ground as one date, and may be given less exactly ("July 1940" from "16 July 1940"). A date
that the ground writes without its year has the years named nearest before and after it, and those that the ground
gives to its month. A decade and a century are grounded by any year in them. What counts as a name, and which aliases
there are: names.py.
Not looked at: "one", "two", "first", "second" and "third" in words, which are plain words. From "three" and "fourth" on,
words count as figures: gold has no count that its article does not give.
Misses: a number or name of the ground in the wrong place. Figures worked out from others are refused, but for a number of
years between two years that the answer names.
Cost: 20 to 35 µs for an answer of 200 characters, some 120 µs for one that is refused. A `Grounds` costs about 15 ms for an
article of 20,000 characters, once.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, fields

from foundation.records import GateResult
from generator.gates import names
from generator.gates.names import WORD, fold
from generator.gates.numbers import ROMAN, Figure, read_figures

READ = 32  # articles kept read

_FIRST_YEAR, _LAST_YEAR = 1000, 2099
_SMALL_WORDS = 3  # ordinals in words up to here are plain words, and so are cardinals below
_LEADING = re.compile(r"\d[\d,]*(?:\.\d+)?")
_RUN_GAP = re.compile(r"[ \-]|,? (?:of|and|for|the|of the|in|in the|on) ")


@dataclass
class Grounds:
    """What a text holds, in the forms in which it is compared. Made by `of`; read only from then on."""

    words: set[str] = field(default_factory=set)
    raw: set[str] = field(default_factory=lambda: set(names.PASSED))
    peoples: set[str] = field(default_factory=set)
    countries: set[str] = field(default_factory=set)
    acronyms: set[str] = field(default_factory=set)
    initials: set[str] = field(default_factory=set)
    codes: set[str] = field(default_factory=set)
    numbers: set[float] = field(default_factory=set)
    ordinals: set[float] = field(default_factory=set)
    days: set[float] = field(default_factory=set)
    dates: set[tuple[int | None, int, int | None]] = field(default_factory=set)
    decades: set[float] = field(default_factory=set)
    centuries: set[float] = field(default_factory=set)
    most: float = 0.0

    @classmethod
    def of(cls, passage: str, title: str = "", article: Iterable[str] = (), partner: str = "") -> Grounds:
        """The ground of everything that is given. The texts of `article` are read as one, in their order, so that a year
        goes on to the sentences behind it; a passage that stands in them is not read twice."""
        whole = " ".join(dict.fromkeys(article))
        made = cls()
        for text in (title, "" if passage in whole else passage, partner):
            if text:
                made._add(names.plain_wars(text))
        return cls.joined((made, _read(whole))) if whole else made

    @classmethod
    def joined(cls, parts: Iterable[Grounds]) -> Grounds:
        """What stands in any of the parts."""
        made = cls()
        for part in parts:
            for one in fields(cls):
                if one.name != "most":
                    getattr(made, one.name).update(getattr(part, one.name))
            made.most = max(made.most, part.most)
        return made

    def _add(self, text: str) -> None:
        self._add_names(text)
        self._add_figures(read_figures(text))

    def _add_names(self, text: str) -> None:
        run: list[str] = []
        end, before = 0, ""
        for match in WORD.finditer(text):
            word, start = match.group(), match.start()
            gap, end = text[end:start], match.end()
            self.raw.add(word)
            form = fold(word)
            self.words.add(form)
            if not word[0].isupper():
                if word[0].isdigit() and before[:1].isupper() and gap == " ":
                    self.codes.add(_code(before + word))
                before = word
                if not (run and f" {word} " in " of and for the in on "):
                    run = []
                continue
            if "-" in form:
                self.words.update(form.split("-"))
                self.words.add(form.replace("-", ""))
            self._add_name(word, form)
            glued = not run or _RUN_GAP.fullmatch(gap) is not None or before.islower()
            run = [*run[-5:], form] if glued else [form]
            for first in range(len(run) - 1):
                self.initials.add("".join(part[0] for part in run[first:] if part))
            before = word

    def _add_name(self, word: str, form: str) -> None:
        if not word.isupper():
            self.countries |= names.country_bases(form)
            self.peoples |= names.people_bases(form)
        if any(map(str.isdigit, word)):
            self.codes |= {_code(word), _code(word).removesuffix("s")}
        bare = word.replace(".", "")
        if 2 <= len(bare) <= 6 and bare.isupper():
            self.acronyms.add(form)
            if bare in ROMAN:
                self.ordinals.add(ROMAN[bare])
                self.numbers.add(ROMAN[bare])

    def _add_figures(self, figures: list[Figure]) -> None:
        near_by = _years_near([_year_of(figure) for figure in figures])
        of_month: dict[int, set[int]] = {}
        for figure in figures:
            for _, month, year in figure.values if figure.kind == "date" else ():
                if year:
                    of_month.setdefault(month, set()).add(year)
        for at, figure in enumerate(figures):
            if figure.kind != "date":
                self._add_number(figure)
                continue
            for day, month, year in figure.values:
                near = {year} if year else of_month.get(month, set()) | near_by[at]
                for each in (None, *near):
                    self.dates |= {(day, month, each), (None, month, each)}
                    if each:
                        self._add_year(each)
                if day:
                    self.days.add(day)

    def _add_number(self, figure: Figure) -> None:
        for value in figure.values:
            if figure.kind == "number":
                self.numbers.add(value)
                leading = _LEADING.match(figure.shown)
                if leading and leading.end() < len(figure.shown):
                    self.numbers.add(float(leading[0].replace(",", "")))  # 670 of "670 million"
                if _year_of(figure):
                    self._add_year(int(value))
                else:
                    self.most = max(self.most, value)
            elif figure.kind == "ordinal":
                self.ordinals.add(value)
            elif figure.kind == "decade":
                self.decades.add(value)
                self.centuries.add(value // 100 + 1)
            elif figure.kind == "century":
                self.centuries.add(value)
                self.ordinals.add(value)
            else:
                self.most = max(self.most, value)

    def _add_year(self, year: int) -> None:
        self.numbers.add(float(year))
        self.decades.add(year // 10 * 10)
        self.centuries.add((year - 1) // 100 + 1)
        self.centuries.add(year // 100 + 1)

    def holds_figure(self, figure: Figure) -> bool:
        """Whether a figure stands here in any of its meanings."""
        values = figure.values
        if figure.kind == "date":
            return not self.dates.isdisjoint(values)
        if figure.kind == "number":
            return not self.numbers.isdisjoint(values)
        if figure.kind == "ordinal":
            return not self.ordinals.isdisjoint(values) or not self.days.isdisjoint(values)
        if figure.kind == "decade":
            return not self.decades.isdisjoint(values)
        if figure.kind == "century":
            return not self.centuries.isdisjoint(values)
        return self.most >= values[0]

    def holds_name(self, form: str) -> bool:
        """Whether a folded word stands here, or another form of it."""
        if form in self.words or any(other in self.words for other in names.variants(form)):
            return True
        peoples = names.people_bases(form)
        if not peoples.isdisjoint(self.countries) or not peoples.isdisjoint(self.peoples):
            return True
        return not self.peoples.isdisjoint(names.country_bases(form))


@functools.lru_cache(maxsize=READ)
def _read(article: str) -> Grounds:
    """What a whole article holds; kept, since every item with a partner asks for its article, and its partner's."""
    return Grounds.of(article)


def check_grounded(text: str, field: str, grounds: Grounds, also: str = "") -> GateResult:
    """Reject `text` at its first figure, or else its first name, that stands neither in `grounds` nor in `also`."""
    text = names.plain_wars(text)
    words = WORD.findall(text)
    raw = grounds.raw
    unknown = [word for word in words if word not in raw and not word.islower()]
    tokens = set(words)
    for word in words:
        if "-" in word:
            tokens.update(word.split("-"))
    figures = [
        figure
        for figure in read_figures(text, tokens, everything=False)
        if not _is_plain(figure) and not grounds.holds_figure(figure) and not _in_code(text, figure, grounds)
    ]
    missing = list(_missing_names(text, words, set(unknown), grounds)) if unknown else []
    if not figures and not missing:
        return GateResult.accept()
    if also:  # the dearest step, so only where something is missing
        more = Grounds.of(also)
        figures = [figure for figure in figures if not more.holds_figure(figure)]
        missing = [name for name in missing if not more.holds_name(fold(name))]
    for figure in figures:
        if _is_span(figure, text) or _is_marker(figure, text):
            continue
        code = "date" if figure.kind == "date" else "number"
        return GateResult.reject("grounded", code, f"{code} not in the source: {figure.shown}", field)
    for name in missing:
        return GateResult.reject("grounded", "name", f"name not in the source: {name}", field)
    return GateResult.accept()


def _missing_names(text: str, words: list[str], unknown: set[str], grounds: Grounds) -> Iterable[str]:
    """The names among the words that are not written in the ground just so."""
    if names.is_all_capitals(words):
        return
    loose = names.is_title_case(words)
    for match in WORD.finditer(text):
        word = match.group()
        if word not in unknown:
            continue
        if not word[0].isupper():
            word = next((part for part in word.split("-")[1:] if part[:1].isupper()), "")  # "anti-German"
            if not word:
                continue
        if names.is_passed(word) or not _is_missing(word, grounds):
            continue
        form = fold(word)
        acronym = word.replace(".", "").isupper() and len(form) > 1
        if (
            not acronym
            and (loose or names.opens(text, match.start()))
            and _opens_commonly(form, text[match.end() : match.end() + 24], grounds)
        ):
            continue
        if acronym and (form in grounds.initials or ROMAN.get(word) in grounds.ordinals):
            continue
        if _words_of_acronym(text, match.start(), match.end(), grounds):
            continue
        yield word


def _is_missing(word: str, grounds: Grounds) -> bool:
    form = fold(word)
    if grounds.holds_name(form):
        return False
    if any(map(str.isdigit, word)):
        if not grounds.codes.isdisjoint((_code(word), _code(word).removesuffix("s"))):
            return False
        prefix, _, number = word.rpartition("-")
        return not (number.isdigit() and len(number) == 4 and names.is_common(prefix.lower()))  # "Mid-1942"
    parts = form.split("-")
    return not (len(parts) > 1 and all(_is_part(part, grounds) for part in zip(word.split("-"), parts, strict=False)))


def _is_part(part: tuple[str, str], grounds: Grounds) -> bool:
    """Whether one part of a hyphened name is no name, or stands in the ground."""
    word, form = part
    return not word[:1].isupper() or names.is_passed(word) or names.is_common(form) or grounds.holds_name(form)


def _opens_commonly(form: str, after: str, grounds: Grounds) -> bool:
    """Whether a word that opens a sentence is a common one: by itself, or as a form of a word of the ground."""
    if names.opens_commonly(form, after):
        return True
    return any(form.endswith(end) and form[: -len(end)] in grounds.words for end in ("r", "er", "ry", "ship", "like"))


def _words_of_acronym(text: str, start: int, end: int, grounds: Grounds) -> bool:
    """Whether the word is one of those that an acronym of the ground stands for: "Royal Air Force" where it has "RAF"."""
    if not grounds.acronyms:
        return False
    around = [match for match in WORD.finditer(text, max(0, start - 60), min(len(text), end + 60))]
    capital = [match for match in around if match.group()[0].isupper()]
    at = next((number for number, match in enumerate(capital) if match.start() == start), None)
    if at is None:
        return False
    letters = "".join(fold(match.group())[:1] for match in capital)
    for first in range(max(0, at - 5), at + 1):
        for last in range(at + 1, min(len(letters), first + 6) + 1):
            gaps = (
                text[one.end() : other.start()]
                for one, other in zip(capital[first:], capital[first + 1 : last], strict=False)
            )
            if last - first >= 2 and letters[first:last] in grounds.acronyms and all(map(_RUN_GAP.fullmatch, gaps)):
                return True
    return False


def _is_plain(figure: Figure) -> bool:
    """Whether a number in words is as good as a plain word."""
    if not figure.word:
        return False
    if figure.kind == "number":
        return bool(figure.values[0] < _SMALL_WORDS)
    return figure.kind == "ordinal" and figure.values[0] <= _SMALL_WORDS


def _is_marker(figure: Figure, text: str) -> bool:
    """Whether a number only counts the entries of a list: "1. " or "2) " at the start of a line."""
    end = figure.start + len(figure.shown)
    before = text[max(0, figure.start - 8) : figure.start].rstrip(" \t")
    return len(figure.shown) <= 2 and text[end : end + 2] in (". ", ") ") and (not before or before[-1] == "\n")


def _is_span(figure: Figure, text: str) -> bool:
    """Whether a number of years is the difference of two years that the answer itself names."""
    end = figure.start + len(figure.shown)
    if figure.kind != "number" or not text[end : end + 5].lower().replace("-", " ").startswith(" year"):
        return False
    years = {year for other in read_figures(text) if (year := _year_of(other))}
    return any(first + value in years for first in years for value in figure.values)


def _in_code(text: str, figure: Figure, grounds: Grounds) -> bool:
    """Whether a number belongs to a designation that the ground writes in one: "Me 109" for "Me-109"."""
    if figure.kind != "number" or not grounds.codes or not text[figure.start - 1 : figure.start].isspace():
        return False
    before = text[max(0, figure.start - 24) : figure.start].rsplit(None, 1)
    return bool(before) and before[-1][0].isupper() and _code(before[-1] + figure.shown) in grounds.codes


def _code(word: str) -> str:
    return fold(word).replace("-", "").replace(" ", "")


def _year_of(figure: Figure) -> int | None:
    if figure.kind == "date":
        return next((year for _, _, year in figure.values if year), None)
    written_so = figure.kind == "number" and len(figure.shown) <= 4 and figure.shown.isdigit()  # not "1,200"
    return (
        next((int(value) for value in figure.values if _FIRST_YEAR <= value <= _LAST_YEAR), None)
        if written_so
        else None
    )


def _years_near(years: list[int | None]) -> list[set[int]]:
    """For each place in `years`, the years named last before it and first behind it."""
    near: list[set[int]] = [set() for _ in years]
    for places in (range(len(years)), range(len(years) - 1, -1, -1)):
        last: int | None = None
        for at in places:
            if last:
                near[at].add(last)
            last = years[at] or last
    return near
