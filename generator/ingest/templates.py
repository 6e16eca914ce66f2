"""What a MediaWiki template shows inside a sentence, for the few dozen that matter; every other one leaves a hole.

Guarantees: never guesses. A template not known here gives `HOLE`, which later costs its sentence; one that shows only
a footnote, a tag for editors or an icon gives `GONE`, which costs nothing. Cost: a dictionary look-up a template.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Callable

from generator.ingest.page import GONE, HOLE

# Footnotes, tags for editors, hatnotes, icons: nothing of the sentence is lost with them.
_SILENT = re.compile(
    r"""(?:v?cite\b|citation|sfn|harv|refn?$|rp$|r$|efn|note|nb$|\#tag:ref|clarify|clarification|when$|who$|whom$|which$|where$|why$|by\ whom
    |vague|dubious|disputed|fact$|cn$|dn$|better\ source|failed\ verification|unreliable|original\ research|or$|weasel|peacock
    |relevance|qualify|specify|according\ to|contradict|update|dead\ link|wayback|webarchive|anchor$|clear|pp-|pp$|use\ |bots$
    |main(?:$|\ article|\ list)|see(?:$|\ also|also)|further|about$|for$|other(?:\ |uses)|redirect|distinguish|hatnote|italic\ title
    |displaytitle|short\ description|good\ article|featured\ article|flag\ ?icon|flagdeco|defaultsort|toc|-$|expand\ |refimprove
    |unreferenced|portal|commons|infobox|verify|self-published|sic$)
    |.*(?:\ needed|\ inline|-inline|-fn|\ icon|\ note|\?)$""",
    re.VERBOSE,
)

_FIXED = {
    "'s": "'s", "'": "'", "' \"": "' \"", "ndash": "–", "endash": "–", "snd": " – ", "spnd": " – ", "spaced ndash": " – ", "mdash": "—",
    "mdashb": "—", "emdash": "—", "em dash": "—", "nbsp": " ", "thinsp": " ", "thin space": " ", "space": " ", "spaces": " ",
    "nobreak": "", "shy": "", "zwsp": "", "wbr": "", "okina": "ʻ", "'-": "'",
}  # fmt: skip

# Which positional parameter is what the reader sees.
_SHOWN = {
    "nowrap": 1, "nobr": 1, "nowraplinks": 1, "small": 1, "smaller": 1, "midsize": 1, "big": 1, "larger": 1, "resize": 1, "sc": 1,
    "smallcaps": 1, "abbr": 1, "tooltip": 1, "vanchor": 1, "visible anchor": 1, "flag": 1, "flagcountry": 1, "flagu": 1, "ill": 1,
    "interlanguage link": 1, "not a typo": 1, "typo": 1, "sic": 1, "proper name": 1, "as written": 1, "linktext": 1, "nihongo": 1, "avoid wrap": 1,
    "script": 2, "lang": 2, "transl": -1, "transliteration": -1, "title": 1, "noitalic": 1, "nat": 1, "strong": 1, "em": 1,
}  # fmt: skip

_SHIPS = frozenset(
    [
        "uss",
        "hms",
        "hmas",
        "hmcs",
        "hmnzs",
        "hmis",
        "hnoms",
        "hnlms",
        "hdms",
        "rms",
        "ss",
        "mv",
        "ms",
        "usat",
        "uscgc",
        "ussr",
        "orp",
        "jds",
    ]
)
_BETWEEN = {"to": " to ", "-": "–", "–": "–", "and": " and ", "or": " or ", "by": " by ", "x": " × ", "×": " × "}
_UNITS = {
    "C": "°C", "F": "°F", "sqmi": "sq mi", "sqft": "sq ft", "km2": "km²", "m2": "m²", "km3": "km³", "m3": "m³", "mi2": "sq mi", "ft2": "sq ft",
    "acre": "acres", "mph": "mph", "lb": "lb", "kg": "kg", "t": "t", "km": "km", "mi": "mi", "m": "m", "ft": "ft", "in": "in", "cm": "cm",
    "mm": "mm", "yd": "yd", "ha": "ha", "g": "g", "oz": "oz", "kn": "knots", "nmi": "nmi", "L": "L", "km/h": "km/h", "hp": "hp", "kW": "kW",
}  # fmt: skip


def shown(name: str, positional: list[str], named: dict[str, str]) -> str:
    """What `{{name|…}}` shows. `positional` and `named` are already plain text."""
    key = " ".join(name.replace("_", " ").split()).lower()
    if key in _FIXED:
        return _FIXED[key]
    if key in _SHOWN and positional:
        place = _SHOWN[key]
        return positional[place - 1 if place > 0 else -1].strip() or HOLE if len(positional) >= place else HOLE
    if key in _SHIPS and positional:
        return f"{key.upper()} {positional[0].strip()}"
    if key in _SPECIAL:
        return _SPECIAL[key]([value.strip() for value in positional], named) or HOLE
    return GONE if _SILENT.match(key) else HOLE


def _convert(values: list[str], named: dict[str, str]) -> str:
    """`{{convert|5|to|10|km|mi}}` as "5 to 10 km": the unit the writer wrote."""
    shown_, rest = "", list(values)
    while len(rest) >= 3 and rest[1] in _BETWEEN:
        shown_, rest = shown_ + rest[0] + _BETWEEN[rest[1]], rest[2:]
    if len(rest) < 2 or rest[1] not in _UNITS or not rest[0][:1].isdigit():
        return HOLE
    return f"{shown_}{rest[0]} {_UNITS[rest[1]]}"


def _as_of(values: list[str], named: dict[str, str]) -> str:
    parts = [
        calendar.month_name[int(v)] if i == 1 and v.isdigit() and 1 <= int(v) <= 12 else v
        for i, v in enumerate(values[:3])
    ]
    return f"{'as' if 'lc' in named else 'As'} of {' '.join(reversed(parts))}" if parts else HOLE


def _fraction(values: list[str], named: dict[str, str]) -> str:
    if not all(value.isdigit() for value in values):
        return HOLE
    return {1: "1/{0}", 2: "{0}/{1}", 3: "{0} {1}/{2}"}.get(len(values), HOLE).format(*values)


def _ship(values: list[str], named: dict[str, str]) -> str:
    return " ".join(value for value in values[:2] if value) if len(values) >= 2 else HOLE


_SPECIAL: dict[str, Callable[[list[str], dict[str, str]], str]] = {
    "convert": _convert,
    "cvt": _convert,
    "as of": _as_of,
    "frac": _fraction,
    "fraction": _fraction,
    "ship": _ship,
    "sclass": lambda values, named: f"{values[0]}-class {values[1]}" if len(values) >= 2 else HOLE,
    "circa": lambda values, named: f"c. {values[0]}" if values else HOLE,
    "c.": lambda values, named: f"c. {values[0]}" if values else HOLE,
    "val": lambda values, named: values[0] if len(values) == 1 and not named else HOLE,
}
