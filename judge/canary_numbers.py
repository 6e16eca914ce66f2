"""Wrong figures: the year, day or number that a question asks for, replaced by another one that could be true.

Guarantees: the figure is asked for, is the only new one of its kind, and what takes its place stands in neither question
nor reference. Cost: about 50 µs an item. Misses: numbers written as words.
"""

from __future__ import annotations

import re

from foundation.ids import keyed_fraction
from foundation.records import EvalItem
from judge import choices
from judge.canary_sentences import MONTH, STANCE, asking

_YEAR = re.compile(r"(?<![\w-])(?<!\d[.,])(1[0-9]{3}|20[0-9]{2})(?![\w-]|[.,]\d)")
_DAY = re.compile(rf"(?<![\w-])([0-9]{{1,2}})(?= {MONTH}\b)|(?<=[a-z] )([0-9]{{1,2}})(?=, (?:1\d|20)\d\d)")
_NUMBER = re.compile(r"(?<![\w.,-])((?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?)(?![\w-]|[.,]\d)")
# "More than 10,000" is true of more than 40,000: such a figure may only be changed to the other side.
_AT_LEAST = re.compile(
    r"\b(?:more than|over|at least|exceed\w*|above|or more|no fewer than|no less than)\b", re.IGNORECASE
)
_AT_MOST = re.compile(
    r"\b(?:fewer than|less than|under|at most|up to|below|no more than|or (?:less|fewer))\b", re.IGNORECASE
)
# Of what happened before 1944 a later year is as true, only vaguer. "Not before" turns it round: then there is no telling.
_EARLIER = re.compile(r"\b(?:before|by|until|till|up to|prior to|earlier than)\b[^.;]{0,30}$", re.IGNORECASE)
_LATER = re.compile(r"\b(?:after|since|from|following|later than)\b[^.;]{0,30}$", re.IGNORECASE)
_NOT_BEFORE = re.compile(
    r"\b(?:not?|never|n't)\b[^.;]{0,30} (?:before|after|later|earlier)\b[^.;]{0,30}$", re.IGNORECASE
)
_FIGURE = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")
_WHEN = re.compile(r"when|(?:what|which) (?:date|day|year|month)\b", re.IGNORECASE)
_DAYS = re.compile(r"when|(?:what|which) (?:date|day)\b", re.IGNORECASE)
_HOW_MANY = re.compile(
    r"how (?:many|much|long|far|old|large|big|tall|deep|high|wide)\b|(?:what|which) (?:number|figure|share|percentage)\b",
    re.IGNORECASE,
)


def changed(item: EvalItem) -> str:
    """The reference with its asked-for figure replaced everywhere; "" where it is not plain which one that is."""
    stance = STANCE.match(item.reference)
    if stance and stance[1] in ("True", "Yes"):
        return ""
    question, reference = item.question, item.reference
    if choices.texts_of(question)[0]:
        return ""  # the options have the figures that were asked for: any other is beside the point
    years = _new(_YEAR, question, reference)
    days = _new(_DAY, question, reference)
    plain = [n for n in _new(_NUMBER, question, reference) if n not in years and n not in days]
    if stance and len(years) + len(days) + len(plain) != 1:
        return ""  # of several corrections one may be beside the point
    asks = asking(question)
    if (stance or _WHEN.match(asks)) and len(years) == 1:
        return _put(reference, years[0], _other_year(item, int(years[0])))
    if (stance or _DAYS.match(asks)) and len(days) == 1:
        return _put(reference, days[0], _other_day(item, int(days[0])))
    if (stance or _HOW_MANY.match(asks)) and len(plain) == 1:
        return _put(reference, plain[0], _other_number(item, plain[0]))
    return ""


def _new(pattern: re.Pattern[str], question: str, reference: str) -> list[str]:
    given = set(_FIGURE.findall(question))
    told = [next(group for group in found.groups() if group) for found in pattern.finditer(reference)]
    return sorted({figure for figure in told if figure not in given})


def _put(text: str, old: str, new: str) -> str:
    return re.sub(rf"(?<![\w.,-]){re.escape(old)}(?![\w-]|,\d|\.\d)", new, text) if new else ""


def _taken(item: EvalItem) -> set[str]:
    return set(_FIGURE.findall(f"{item.question} {item.reference}"))


def _pick(item: EvalItem, options: list[str]) -> str:
    free = [option for option in options if option not in _taken(item)]
    return free[int(keyed_fraction("canary-number", item.id) * len(free))] if free else ""


def _steps(item: EvalItem, figure: int) -> tuple[bool, bool]:
    """Whether an earlier figure, and a later one, would be wrong where `figure` stands."""
    before = re.split(rf"(?<![\w.,-]){figure}(?!\w)", item.reference)[:-1]
    limits = [(bool(_EARLIER.search(part)), bool(_LATER.search(part))) for part in before]
    if any(_NOT_BEFORE.search(part) for part in before):
        return False, False
    return not any(later for _, later in limits), not any(earlier for earlier, _ in limits)


def _other_year(item: EvalItem, year: int) -> str:
    down, up = _steps(item, year)
    return _pick(item, [str(year + step) for step in (-7, -5, -4, -3, 3, 4, 5, 7) if (down if step < 0 else up)])


def _other_day(item: EvalItem, day: int) -> str:
    down, up = _steps(item, day)
    return _pick(item, [str(other) for other in range(1, 29) if abs(other - day) > 3 and (down if other < day else up)])


def _other_number(item: EvalItem, figure: str) -> str:
    """Twice to four times as much, or as much less, as round as it was: no "about" covers that, and no "more than"."""
    value = float(figure.replace(",", ""))
    told = f"{item.question} {item.reference}"
    factors = [] if _AT_MOST.search(told) else [2, 2.4, 3, 3.6]
    factors += [] if _AT_LEAST.search(told) else [0.3, 0.4]
    places = len(figure.partition(".")[2])
    if places:
        parts = [f"{value * factor:,.{places}f}" for factor in sorted(factors)]
        return _pick(item, [part for part in parts if part.strip("0.")])
    value = int(value)
    zeros = len(str(value)) - len(str(value).rstrip("0"))
    made = {round(value * factor / 10**zeros) * 10**zeros for factor in factors} - {0}
    if value <= 4:
        made = {value + step for step in (3, 4, 5)} if 3.6 in factors else set()
    bare = value >= 1000 and "," not in figure
    return _pick(item, [str(other) if bare else f"{other:,}" for other in sorted(made)])
