"""How the page writes figures, names and texts.

Guarantees: pure. No text leaves `clean` with a control character, half a surrogate pair or anything that turns the
writing round: each is shown by its name instead. Cost: about 1 µs for a short text.
"""

from __future__ import annotations

import math
import re
from datetime import datetime

LONGEST = 6000  # characters of one text that the page shows
CLASSES = {
    "reference": "the reference itself",
    "sibling": "another record's answer",
    "other-row": "another question's answer",
    "wrong-number": "a wrong number",
    "wrong-name": "a wrong name",
    "negation": "a negation",
    "colon": "a colon alone",
    "opener": "a reasoning opener alone",
    "injection": "an injected verdict",
}
_PICTURES = {code: chr(0x2400 + code) for code in range(32) if code not in (9, 10)} | {0x7F: "␡"}
# What has no picture: C1 controls, what turns the writing round, separators of lines, half surrogate pairs, no characters.
_NAMED = re.compile(
    "[\x80-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff\ud800-\udfff]"
)
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f]")


def clean(text: str) -> str:
    """`text` with all that is no plain character made visible. Line feeds and tabs stay."""
    if text.isascii() and text.isprintable():
        return text
    text = _CONTROL.sub(lambda found: _PICTURES[ord(found[0])], text.replace("\r\n", "\n"))
    return _NAMED.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", text)


def shown(text: str) -> str:
    """A long text cut, with a word on how much is left out."""
    rest = len(text) - LONGEST
    return f"{text[:LONGEST]} … [{rest:,} more character{'' if rest == 1 else 's'}]" if rest > 0 else text


def sentence(text: str) -> str:
    """A sentence with the capital that it begins with."""
    return text[:1].upper() + text[1:]


def count(value: float | None) -> str:
    """A whole number with thousands set apart; a dash for none."""
    return "–" if value is None else f"{value:,.0f}"


def many(value: int, noun: str) -> str:
    """A count with its noun: `1 answer`, `2,000 answers`."""
    return f"{value:,} {noun}{'' if value == 1 else 's'}"


def percent(value: float | None, digits: int = 1) -> str:
    """A share as a percentage; a dash for none. Never rounded to 0 or 100 when it is not."""
    if value is None or not math.isfinite(value):
        return "–"
    text, edge = f"{100 * value:.{digits}f}", 10**-digits
    if value > 0 and float(text) == 0:
        return f"<{edge:.{digits}f} %"
    if value < 1 and float(text) == 100:
        return f">{100 - edge:.{digits}f} %"
    return f"{text} %"


def interval(low: float | None, high: float | None) -> str:
    """An interval of shares: `20.0–31.0 %`."""
    return "–" if low is None or high is None else f"{100 * low:.1f}–{100 * high:.1f} %"


def points(value: float) -> str:
    """A difference of two shares: `+4.0`, `−2.5`."""
    text = f"{100 * value:+.1f}"
    return text.replace("-", "−") if float(text) else "0.0"


def chance(p: float) -> str:
    """A p value."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def short(value: float | None, digits: int = 2) -> str:
    """A measured number; a dash for none."""
    return "–" if value is None or not math.isfinite(value) else f"{value:,.{digits}f}"


def seconds(value: float) -> str:
    """A time span: `48 s`, `12 min`, `3.4 h`."""
    if value < 120:
        return f"{value:.0f} s" if value >= 10 else f"{value:.1f} s"
    return f"{value / 60:.0f} min" if value < 7200 else f"{value / 3600:.1f} h"


def moment(value: datetime) -> str:
    """A date and time, to the minute."""
    return value.strftime("%Y-%m-%d %H:%M UTC")


def spoken(kind: str) -> str:
    """A canary's class in words."""
    return CLASSES.get(kind, kind)
