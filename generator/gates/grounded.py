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
Cost: 20 to 35 µs for an answer of 200 characters, some 120 µs for one that is refused; reading its ground comes on top, once
an article (grounds.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from foundation.records import GateResult
from generator.gates import names
from generator.gates.grounds import Grounds, designation, year_of
from generator.gates.names import WORD, fold
from generator.gates.numbers import ROMAN, Figure, read_figures

_SMALL_WORDS = 3  # ordinals in words up to here are plain words, and so are cardinals below
_RUN_GAP = re.compile(r"[ \-]|,? (?:of|and|for|the|of the|in|in the|on) ")


def check_grounded(text: str, field: str, grounds: Grounds, also: str = "") -> GateResult:
    """Reject `text` at its first figure, or else its first name, that stands neither in `grounds` nor in `also`."""
    text = names.plain_wars(text)
    words = WORD.findall(text)
    unknown = {word for word in words if not word.islower() and not grounds.has_word(word)}
    tokens = set(words)
    for word in words:
        if "-" in word:
            tokens.update(word.split("-"))
    figures = [
        figure
        for figure in read_figures(text, tokens, everything=False)
        if not _is_plain(figure) and not grounds.holds_figure(figure) and not _in_code(text, figure, grounds)
    ]
    missing = list(_missing_names(text, words, unknown, grounds)) if unknown else []
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
        if acronym and (grounds.spells(form) or (word in ROMAN and grounds.has_ordinal(ROMAN[word]))):
            continue
        if _words_of_acronym(text, match.start(), match.end(), grounds):
            continue
        yield word


def _is_missing(word: str, grounds: Grounds) -> bool:
    form = fold(word)
    if grounds.holds_name(form):
        return False
    if any(map(str.isdigit, word)):
        if grounds.has_code(designation(word), designation(word).removesuffix("s")):
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
    return any(form.endswith(end) and grounds.has_form(form[: -len(end)]) for end in ("r", "er", "ry", "ship", "like"))


def _words_of_acronym(text: str, start: int, end: int, grounds: Grounds) -> bool:
    """Whether the word is one of those that an acronym of the ground stands for: "Royal Air Force" where it has "RAF"."""
    if not grounds.has_acronyms:
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
            if last - first >= 2 and grounds.has_acronym(letters[first:last]) and all(map(_RUN_GAP.fullmatch, gaps)):
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
    years = {year for other in read_figures(text) if (year := year_of(other))}
    return any(first + value in years for first in years for value in figure.values)


def _in_code(text: str, figure: Figure, grounds: Grounds) -> bool:
    """Whether a number belongs to a designation that the ground writes in one: "Me 109" for "Me-109"."""
    if figure.kind != "number" or not text[figure.start - 1 : figure.start].isspace():
        return False
    before = text[max(0, figure.start - 24) : figure.start].rsplit(None, 1)
    return bool(before) and before[-1][0].isupper() and grounds.has_code(designation(before[-1] + figure.shown))
