"""What texts hold, in the forms in which an answer is compared with them: words, names, figures.

Guarantees: pure; a text is read as a whole, in its order: a date that it writes without its year has the years named nearest
before and after it, and those that the text gives to its month. What several texts hold is what stands in any of them.
Cost: an article of 20,000 characters takes 0.9 ms for its words, 3 ms for its figures and 4 ms for its names; each only when
an answer asks: for a capital, a figure, a name that is not written in the article just so. The last `READ` texts stay read:
about 0.1 MB for such an article, up to 0.6 MB with figures and names.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterable
from typing import Any

from generator.gates import names
from generator.gates.names import WORD, fold
from generator.gates.numbers import ROMAN, Figure, read_figures

READ = 32  # texts kept read

_FIRST_YEAR, _LAST_YEAR = 1000, 2099
_LEADING = re.compile(r"\d[\d,]*(?:\.\d+)?")
_SPLIT = re.compile(f"({WORD.pattern})")  # gap, word, gap, word … gap
_GLUE = frozenset((" ", "-"))  # what may stand between the words of one name
_LINKS = frozenset("of and for the in on".split())  # small words that may
_RUN = 6  # words of a name that its initials are taken from


class _Names:
    """The names of one text, under every form that is looked for."""

    def __init__(self, text: str, raw: Collection[str]) -> None:
        forms = {word: fold(word) for word in raw}
        self.words = set(forms.values())
        self.peoples: set[str] = set()
        self.countries: set[str] = set()
        self.acronyms: set[str] = set()
        self.codes: set[str] = set()
        self.roman: set[float] = set()
        capital = {word: form for word, form in forms.items() if word[0].isupper()}
        for word, form in capital.items():
            self._add(word, form)
        parts = _SPLIT.split(text)
        self.initials = _initials(parts, capital)
        for at in range(3, len(parts), 2):
            if parts[at][0].isdigit() and parts[at - 2][0].isupper() and parts[at - 1] == " ":
                self.codes.add(designation(parts[at - 2] + parts[at]))

    def _add(self, word: str, form: str) -> None:
        if "-" in form:
            self.words.update(form.split("-"))
            self.words.add(form.replace("-", ""))
        if not word.isupper():
            self.countries |= names.country_bases(form)
            self.peoples |= names.people_bases(form)
        if any(map(str.isdigit, word)):
            self.codes |= {designation(word), designation(word).removesuffix("s")}
        bare = word.replace(".", "")
        if 2 <= len(bare) <= 6 and bare.isupper():
            self.acronyms.add(form)
            if bare in ROMAN:
                self.roman.add(ROMAN[bare])


def _initials(parts: list[str], capital: dict[str, str]) -> set[str]:
    """The first letters of every run of capitalised words, from each of its last `_RUN` on, as an acronym would have them."""
    found: set[str] = set()
    run: list[str] = []
    last = -1
    for at in range(1, len(parts), 2):
        form = capital.get(parts[at])
        if form is None:
            continue
        if at == last + 2:
            glued = parts[at - 1] in _GLUE
        else:
            glued = bool(run) and all(word in _LINKS for word in parts[last + 2 : at : 2])
        run = [*run[1 - _RUN :], form[:1]] if glued else [form[:1]]
        last = at
        for first in range(len(run) - 1):
            found.add("".join(run[first:]))
    return found


class _Figures:
    """The figures of one text, by value."""

    def __init__(self, text: str) -> None:
        self.numbers: set[float] = set()
        self.ordinals: set[float] = set()
        self.days: set[float] = set()
        self.dates: set[tuple[int | None, int, int | None]] = set()
        self.decades: set[float] = set()
        self.centuries: set[float] = set()
        self.most = 0.0
        figures = read_figures(text)
        near_by = _years_near([year_of(figure) for figure in figures])
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
                if year_of(figure):
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

    def holds(self, kind: str, values: tuple[Any, ...]) -> bool:
        if kind == "date":
            return not self.dates.isdisjoint(values)
        if kind == "number":
            return not self.numbers.isdisjoint(values)
        if kind == "ordinal":
            return not self.ordinals.isdisjoint(values) or not self.days.isdisjoint(values)
        if kind == "decade":
            return not self.decades.isdisjoint(values)
        if kind == "century":
            return not self.centuries.isdisjoint(values)
        return bool(self.most >= values[0])


class _Text:
    """One text. Its words, names and figures are read when first asked for: many a prompt type never asks."""

    def __init__(self, text: str) -> None:
        self._written = text

    @functools.cached_property
    def _text(self) -> str:
        return names.plain_wars(self._written)

    @functools.cached_property
    def raw(self) -> frozenset[str]:
        """Its words as they are written."""
        return frozenset(WORD.findall(self._text))

    @functools.cached_property
    def names(self) -> _Names:
        return _Names(self._text, self.raw)

    @functools.cached_property
    def figures(self) -> _Figures:
        return _Figures(self._text)

    def holds_figure(self, figure: Figure) -> bool:
        if self.figures.holds(figure.kind, figure.values):
            return True
        # Roman numerals are written like names, and count as both kinds of number.
        return figure.kind in ("number", "ordinal") and not self.names.roman.isdisjoint(figure.values)


_read = functools.lru_cache(maxsize=READ)(_Text)
"""Kept, since every item of an article asks for it, and with a partner for its partner's."""
_read_short = functools.lru_cache(maxsize=1024)(_Text)


class Grounds:
    """What some texts hold together. Made by `of`."""

    def __init__(self, texts: Iterable[_Text] = ()) -> None:
        self._texts = tuple(dict.fromkeys(texts))

    @classmethod
    def of(cls, passage: str, title: str = "", article: Iterable[str] = (), partner: str = "") -> Grounds:
        """The ground of everything that is given. The texts of `article` are read as one, in their order, so that a year
        goes on to the sentences behind it; a passage that stands in them is not read twice."""
        whole = " ".join(dict.fromkeys(article))
        short = [_read_short(text) for text in (title, partner) if text]
        long = [_read(text) for text in (whole, "" if passage in whole else passage) if text]
        return cls((*short, *long))

    @classmethod
    def joined(cls, parts: Iterable[Grounds]) -> Grounds:
        """What stands in any of the parts."""
        return cls(text for part in parts for text in part._texts)

    def has_word(self, word: str) -> bool:
        """Whether a word is written here just so, or needs no ground."""
        return word in names.PASSED or any(word in text.raw for text in self._texts)

    def holds_figure(self, figure: Figure) -> bool:
        """Whether a figure stands here in any of its meanings."""
        return any(text.holds_figure(figure) for text in self._texts)

    def holds_name(self, form: str) -> bool:
        """Whether a folded word stands here, or another form of it."""
        if self.has_form(form) or any(map(self.has_form, names.variants(form))):
            return True
        peoples, countries = names.people_bases(form), names.country_bases(form)
        return any(
            not peoples.isdisjoint(text.names.countries)
            or not peoples.isdisjoint(text.names.peoples)
            or not text.names.peoples.isdisjoint(countries)
            for text in self._texts
        )

    def has_form(self, form: str) -> bool:
        """Whether a folded word stands here in this one form."""
        return any(form in text.names.words for text in self._texts)

    def has_code(self, *codes: str) -> bool:
        """Whether one of some designations stands here, however it is parted."""
        return any(not text.names.codes.isdisjoint(codes) for text in self._texts)

    def has_acronym(self, form: str) -> bool:
        """Whether a folded word stands here as an acronym."""
        return any(form in text.names.acronyms for text in self._texts)

    @property
    def has_acronyms(self) -> bool:
        return any(text.names.acronyms for text in self._texts)

    def spells(self, form: str) -> bool:
        """Whether the letters of an acronym are the initials of a name here."""
        return any(form in text.names.initials for text in self._texts)

    def has_ordinal(self, value: float) -> bool:
        """Whether an ordinal, or a Roman numeral, has this value."""
        return any(value in text.names.roman or value in text.figures.ordinals for text in self._texts)


def designation(word: str) -> str:
    """A designation without what may part it."""
    return fold(word).replace("-", "").replace(" ", "")


def year_of(figure: Figure) -> int | None:
    """The year a figure names, if it does."""
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
