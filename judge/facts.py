"""Text to words and facts, in one normal form: what the rules grader compares.

Guarantees: deterministic; case, accents, punctuation, articles, the writing of numbers ("3.8 million", "twenty-five",
"44th", "II") and of months and dates do not matter. Cost: about 40 µs for a sentence. Misses: synonyms, spelling
mistakes, who did what to whom: it sees words, not meaning.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from judge import words

Kind = Literal["year", "number", "month", "name", "word", "function"]

_LETTERS = str.maketrans(
    {"ß": "ss", "ø": "o", "Ø": "O", "æ": "ae", "Æ": "Ae", "œ": "oe", "ł": "l", "Ł": "L", "đ": "d", "’": "'", "‘": "'"}
    | dict.fromkeys("‐‑‒–—−", "-")
)
_ISO_DATE = re.compile(r"\b(\d{4})-(\d{2})-(\d{2})\b")
_SHORT_RANGE = re.compile(r"\b(\d\d)(\d\d)\s?[-/]\s?(\d\d)\b(?![-/\d])")
_INITIALS = re.compile(r"\b(?:[A-Z]\.){2,}")
_TOKEN = re.compile(
    r"(?P<number>\d+(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?)(?P<suffix>st|nd|rd|th|s)?(?![^\W\d_])"
    r"|[^\W_]+(?:'[^\W\d_]+)*"
)
_CLAUSE_END = re.compile(r"[.,;:!?()\n]|\bbut\b")
_SENTENCE_END = re.compile(r"[.!?:\n]\W*$")


@dataclass(frozen=True, slots=True)
class Token:
    """One word. `form` is what is compared; `first` says that it opens a sentence; `denied` that a negator governs it."""

    form: str
    raw: str
    start: int
    kind: Kind
    capital: bool = False
    first: bool = False
    denied: bool = False


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that can be right or wrong: a year, a number, a month, or a name of one or more words."""

    kind: Kind
    forms: tuple[str, ...]
    shown: str
    denied: bool = False


def plain(text: str) -> str:
    """Without accents and typographic variants; case and punctuation stay."""
    decomposed = unicodedata.normalize("NFKD", text.translate(_LETTERS))
    return "".join(char for char in decomposed if not unicodedata.combining(char))


def stem(form: str) -> str:
    """A word without its commonest endings, so that "attacked" meets "attacks"."""
    if form in words.PEOPLE_OF:
        return words.PEOPLE_OF[form]
    for ending, least in (("ing", 6), ("ied", 5), ("ies", 5), ("ed", 5), ("es", 5), ("s", 4)):
        if form.endswith(ending) and len(form) >= least and not form.endswith("ss"):
            return form[: -len(ending)] + ("y" if ending in ("ied", "ies") else "")
    return form


def same(left: str, right: str, *, name: bool = False) -> bool:
    """Whether two forms are one word. Names are compared more strictly: "Stalin" is not "Stalingrad"."""
    if left == right:
        return True
    if left[:1].isdigit() or right[:1].isdigit():
        return False
    left, right = stem(left), stem(right)
    if left == right:
        return True
    short, long = sorted((left, right), key=len)
    shared = next((n for n, pair in enumerate(zip(short, long, strict=False)) if pair[0] != pair[1]), len(short))
    if name:
        return shared == len(short) >= 5 and len(long) - shared <= 2
    return shared >= 5 and len(long) - shared <= 3


def tokenize(text: str) -> list[Token]:
    """The words of `text` in normal form, function words included."""
    text = _INITIALS.sub(lambda found: found.group().replace(".", ""), plain(text))
    text = _ISO_DATE.sub(_spell_date, text)
    text = _SHORT_RANGE.sub(r"\1\2 - \1\3", text)
    tokens: list[Token] = []
    for match in _TOKEN.finditer(text):
        before = text[: match.start()]
        first = not before.strip(" \t\"'*_#>-(") or bool(_SENTENCE_END.search(before[-12:]))
        tokens.append(_token(match, first))
    return _deny(_months(_numbers(tokens, text)), text)


def _spell_date(found: re.Match[str]) -> str:
    year, month, day = found.groups()
    return f"{int(day)} {words.MONTHS[int(month) - 1].title()} {year}" if 1 <= int(month) <= 12 else found.group()


def _token(match: re.Match[str], first: bool) -> Token:
    raw = match.group()
    if match["number"]:
        digits = match["number"].replace(",", "")
        form = digits if "." in digits else str(int(digits))
        plural = match["suffix"] == "s"  # "the 1940s" is not 1940
        year = not plural and len(digits) == 4 and "," not in raw and 1000 <= int(float(digits)) <= 2100
        return Token(form + ("s" if plural else ""), raw, match.start(), "year" if year else "number")
    form = raw.lower()
    if form.endswith("n't"):
        return Token("not", raw, match.start(), "function", raw[0].isupper(), first)
    form = form.removesuffix("'s").replace("'", "")
    if raw == "US":
        form = "american"
    kind: Kind = "function" if form in words.FUNCTION and raw != "US" else "word"
    return Token(form, raw, match.start(), kind, raw[0].isupper(), first)


def _value(token: Token) -> float | None:
    if token.kind == "number" and not token.form.endswith("s"):
        return float(token.form)
    for table in (words.UNITS, words.TENS, words.ORDINALS):
        if token.form in table:
            return table[token.form]
    return None


def _numbers(tokens: Sequence[Token], text: str) -> list[Token]:
    """Join written-out numbers ("two hundred thousand", "3.8 million") to one token; Roman ones behind a name too."""
    made: list[Token] = []
    at = 0
    while at < len(tokens):
        token = tokens[at]
        end, value = _run(tokens, at, text)
        if value is None:
            if token.raw in words.ROMAN and made and made[-1].capital:
                token = replace(token, form=str(words.ROMAN[token.raw]), kind="number")
            made.append(token)
            at += 1
            continue
        lone = end == at + 1
        # "one of them", "the first time", "a second attack": counted as words, never as facts
        loose = lone and token.raw in ("one", "One", "first", "First", "second")
        form = token.form if lone and token.kind == "number" else f"{value:.6f}".rstrip("0").rstrip(".")
        made.append(replace(token, form=form, kind="function" if loose else "number", capital=False))
        at = end
    return made


def _run(tokens: Sequence[Token], at: int, text: str) -> tuple[int, float | None]:
    """Where the number that begins at `at` ends, and its value; None if there is no number."""
    total, current, scale = 0.0, _value(tokens[at]), ""
    if current is None:
        return at, None
    last, at = tokens[at], at + 1
    while at < len(tokens):
        token = tokens[at]
        gap = text[last.start + len(last.raw) : token.start]
        if gap.strip() not in ("", "-"):
            break
        if token.form in words.SCALES:
            factor, scale = words.SCALES[token.form], token.form
            if factor == 100:
                current *= 100
            else:
                total, current = total + current * factor, 0.0
        elif last.form in words.TENS and (token.form in words.UNITS or token.form in words.ORDINALS):
            current += _value(token) or 0.0
        elif last.form in words.SCALES and token.kind != "number" and (value := _value(token)) is not None:
            current += value
        elif scale and token.form == "and" and at + 1 < len(tokens) and tokens[at + 1].form in words.UNITS | words.TENS:
            at += 1
            current += _value(tokens[at]) or 0.0
        else:
            break
        last, at = tokens[at], at + 1
    return at, total + current


def _months(tokens: Sequence[Token]) -> list[Token]:
    """Months by name or short name. "may" and "march" are words too, so they must look like a date."""
    made = list(tokens)
    for at, token in enumerate(tokens):
        month = words.MONTH_OF.get(token.form)
        if month is None or token.kind == "number":
            continue
        beside = [other for other in (*tokens[max(0, at - 1) : at], *tokens[at + 1 : at + 2])]
        dated = any(other.kind in ("year", "number") for other in beside)
        if dated or (token.capital and not token.first and len(token.form) > 3) or token.form not in _ALSO_WORDS:
            made[at] = replace(token, form=month, kind="month", capital=False)
    return made


_ALSO_WORDS = frozenset({"may", "march", "august", "mar", "jan", "sept", "dec", "sep", "apr", "jun", "oct"})


def _deny(tokens: Sequence[Token], text: str) -> list[Token]:
    """Mark what a negator governs: the words behind it, up to the third that is no function word, in its clause."""
    made = list(tokens)
    for at, token in enumerate(tokens):
        if not _negates(tokens, at):
            continue
        reach = 0
        for next_ in range(at + 1, len(tokens)):
            between = text[tokens[next_ - 1].start + len(tokens[next_ - 1].raw) : tokens[next_].start]
            if reach == 2 or _CLAUSE_END.search(between) or tokens[next_].form == "but":
                break
            if tokens[next_].kind != "function":
                made[next_] = replace(made[next_], denied=True)
                reach += tokens[next_].kind == "word" and not tokens[next_].capital
        del token
    return made


def _negates(tokens: Sequence[Token], at: int) -> bool:
    form = tokens[at].form
    after = tokens[at + 1].form if at + 1 < len(tokens) else ""
    if form in words.NEGATORS:
        return after not in words.SOFT_NEGATION
    return (form, after) in (("rather", "than"), ("instead", "of"))


def name_runs(tokens: Sequence[Token], text: str, known: frozenset[str]) -> Iterator[list[Token]]:
    """Runs of capitalised words that are names. A word that only opens a sentence must be in `known`, or go on."""
    run: list[Token] = []
    end = -1
    for at, token in enumerate(tokens):
        apart = text[end : token.start].strip(" -") if run else ""
        particle = bool(run) and not apart and token.form in words.PARTICLES
        if not (_is_name(tokens, at, known) or (particle and at + 1 < len(tokens) and tokens[at + 1].capital)) or apart:
            if run:
                yield run
            run = []
            if not _is_name(tokens, at, known):
                continue
        run.append(token)
        end = token.start + len(token.raw)
    if run:
        yield run


def _is_name(tokens: Sequence[Token], at: int, known: frozenset[str]) -> bool:
    token = tokens[at]
    if not token.capital or token.kind != "word":
        return False
    if not token.first or token.form in known or token.raw.isupper() and len(token.raw) > 1:
        return True
    follower = tokens[at + 1] if at + 1 < len(tokens) else None
    return follower is not None and follower.capital and not follower.first and follower.kind == "word"


def known_names(*texts: str) -> frozenset[str]:
    """Forms that stand capitalised inside a sentence of `texts`, and never in lower case."""
    capital: set[str] = set()
    lower: set[str] = set()
    for text in texts:
        for token in tokenize(text):
            if token.kind == "word":
                (capital if token.capital and not token.first else lower if not token.capital else set()).add(token.form)
    return frozenset(capital - lower)


def facts_of(text: str, known: frozenset[str]) -> list[Fact]:
    """The facts of `text`, each once, in its order; a name that is only a title or a kind of thing is none."""
    text = plain(text)
    tokens = tokenize(text)
    found: dict[tuple[Kind, tuple[str, ...], bool], tuple[int, Fact]] = {}
    for token in tokens:
        if token.kind in ("year", "number", "month"):
            fact = Fact(token.kind, (token.form,), token.form.title() if token.kind == "month" else token.raw, token.denied)
            found.setdefault((fact.kind, fact.forms, fact.denied), (token.start, fact))
    for run in name_runs(tokens, text, known):
        forms = tuple(token.form for token in run if token.form not in words.PARTICLES)
        if len(forms) == 1 and forms[0] in words.GENERIC:
            continue
        fact = Fact("name", forms, " ".join(token.raw for token in run), any(token.denied for token in run))
        found.setdefault((fact.kind, fact.forms, fact.denied), (run[0].start, fact))
    return [fact for _, fact in sorted(found.values(), key=lambda entry: entry[0])]


def core(fact: Fact) -> tuple[str, ...]:
    """The forms that must be seen for a name to count: its last own word; all of them if it has only generic ones."""
    if fact.kind != "name":
        return fact.forms
    own = [form for form in fact.forms if form not in words.GENERIC]
    return (own[-1],) if own else fact.forms


def holds(tokens: Sequence[Token], fact: Fact) -> bool:
    """Whether `tokens` state the fact, denied or not as the fact itself is."""
    if fact.kind != "name":
        return any(
            token.form == fact.forms[0] and token.denied == fact.denied and (token.kind == "month") == (fact.kind == "month")
            for token in tokens
        )
    return all(
        any(
            same(token.form, form, name=True) and token.denied == fact.denied and not _other_bearer(tokens, at, fact)
            for at, token in enumerate(tokens)
        )
        for form in core(fact)
    )


def _other_bearer(tokens: Sequence[Token], at: int, fact: Fact) -> bool:
    """Whether the word at `at` belongs to somebody else's name: "Eleanor Roosevelt" is not "Franklin Roosevelt"."""
    if len(fact.forms) < 2 or at == 0:
        return False
    before = tokens[at - 1]
    own = [form for form in fact.forms if form not in words.GENERIC]
    return (
        len(own) > 1
        and before.capital
        and not before.first
        and before.kind == "word"
        and before.form not in words.GENERIC
        and not any(same(before.form, form, name=True) for form in fact.forms)
    )


def content(tokens: Sequence[Token]) -> list[Token]:
    """The words that carry something, in order."""
    return [token for token in tokens if token.kind != "function"]
