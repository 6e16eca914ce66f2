"""Text to words and facts, in one normal form: what an answer is compared by.

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

from foundation import words

Kind = Literal["year", "month", "day", "number", "name", "word", "function"]
FIGURES = frozenset({"year", "month", "day", "number"})

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
_CLAUSE_END = re.compile(r"[.,;:!?()\n]")
_SENTENCE_END = re.compile(r"[.!?:\n]\W*$")


@dataclass(frozen=True, slots=True)
class Token:
    """One word. `form` is what is compared; `first` says that it opens a sentence; `denied` that a negator governs it."""

    form: str
    raw: str
    start: int
    end: int
    kind: Kind
    capital: bool = False
    first: bool = False
    denied: bool = False


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that can be right or wrong: a year, a month, a day of a month, another number, a name of one or more words, or a plain word."""

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


@dataclass(frozen=True, slots=True)
class Read:
    """A text that has been read: its words in normal form, function words included, and where they stand."""

    text: str
    tokens: tuple[Token, ...]

    def gap(self, at: int) -> str:
        """What stands between word `at` and the one before it."""
        before = self.tokens[at - 1]
        return self.text[before.end : self.tokens[at].start]


def read(text: str) -> Read:
    """Read `text`; any string will do, an empty one too."""
    text = _INITIALS.sub(lambda found: found.group().replace(".", ""), plain(text))
    text = _ISO_DATE.sub(_spell_date, text)
    text = _SHORT_RANGE.sub(r"\1\2 - \1\3", text)
    tokens: list[Token] = []
    for match in _TOKEN.finditer(text):
        first = not tokens or bool(_SENTENCE_END.search(text[tokens[-1].end : match.start()]))
        tokens.append(_token(match, first))
    for change in (_numbers, _months, _deny):
        tokens = change(Read(text, tuple(tokens)))
    return Read(text, tuple(tokens))


def _spell_date(found: re.Match[str]) -> str:
    year, month, day = found.groups()
    return f"{int(day)} {words.MONTHS[int(month) - 1].title()} {year}" if 1 <= int(month) <= 12 else found.group()


def _token(match: re.Match[str], first: bool) -> Token:
    raw, start, end = match.group(), match.start(), match.end()
    if match["number"]:
        digits = match["number"].replace(",", "")
        form = digits if "." in digits else str(int(digits))
        plural = match["suffix"] == "s"  # "the 1940s" is not 1940
        year = not plural and "," not in raw and len(digits) == 4 and "." not in digits and 1000 <= int(digits) <= 2100
        return Token(form + ("s" if plural else ""), raw, start, end, "year" if year else "number")
    form = raw.lower()
    if form.endswith("n't"):
        return Token("not", raw, start, end, "function", raw[0].isupper(), first)
    form = "american" if raw == "US" else form.removesuffix("'s").replace("'", "")
    kind: Kind = "function" if form in words.FUNCTION else "word"
    return Token(form, raw, start, end, kind, raw[0].isupper(), first)


def _value(token: Token) -> float | None:
    if token.kind == "number" and not token.form.endswith("s"):
        return float(token.form)
    for table in (words.UNITS, words.TENS, words.ORDINALS):
        if token.form in table:
            return table[token.form]
    return None


def _numbers(source: Read) -> list[Token]:
    """Join written-out numbers ("two hundred thousand", "3.8 million") to one token; Roman ones behind a name too."""
    made: list[Token] = []
    at = 0
    while at < len(source.tokens):
        token = source.tokens[at]
        stop, value = _run(source, at)
        if value is None:
            if token.raw in words.ROMAN and made and made[-1].capital:
                token = replace(token, form=str(words.ROMAN[token.raw]), kind="number", capital=False)
            made.append(token)
            at += 1
            continue
        lone = stop == at + 1
        if (lone and token.raw in ("one", "One", "first", "second")) or (lone and token.raw == "First" and token.first):
            # "one of them", "the first time", "a second attack": words, never facts
            made.append(replace(token, kind="function"))
        else:
            form = token.form if lone and token.kind == "number" else f"{value:.6f}".rstrip("0").rstrip(".")
            made.append(replace(token, form=form, kind="number", capital=False, end=source.tokens[stop - 1].end))
        at = stop
    return made


def _run(source: Read, at: int) -> tuple[int, float | None]:
    """Where the number that begins at `at` ends, and its value; None if there is no number."""
    tokens = source.tokens
    total, current = 0.0, _value(tokens[at])
    if current is None:
        return at, None
    last, at = tokens[at], at + 1
    while at < len(tokens) and source.gap(at).strip() in ("", "-"):
        token = tokens[at]
        if token.form == "and" and last.form in words.SCALES and at + 1 < len(tokens):
            if tokens[at + 1].form not in words.UNITS | words.TENS:
                break
            at, token = at + 1, tokens[at + 1]
        value = _value(token)
        if token.form in words.SCALES:
            factor = words.SCALES[token.form]
            total, current = (total, current * factor) if factor == 100 else (total + current * factor, 0.0)
        elif value is not None and token.kind != "number" and (last.form in words.TENS or last.form in words.SCALES):
            current += value
        else:
            break
        last, at = token, at + 1
    return at, total + current


def _months(source: Read) -> list[Token]:
    """Months by name or short name, and their days. "may" and "march" are words too, so they must look like a date."""
    made = list(source.tokens)
    for at, token in enumerate(source.tokens):
        month = words.MONTH_OF.get(token.form)
        if month is None or token.kind == "number":
            continue
        beside = [other for other in (at - 1, at + 1) if 0 <= other < len(made)]
        if at >= 2 and made[at - 1].form == "of":
            beside.append(at - 2)  # "the 30th of November"
        dated = any(made[other].kind in ("year", "number") for other in beside)
        if not (dated or (token.capital and not token.first) or token.form not in _ALSO_WORDS):
            continue
        made[at] = replace(token, form=month, kind="month", capital=False)
        for other in beside:
            if made[other].kind == "number" and made[other].form.isdigit() and 1 <= int(made[other].form) <= 31:
                made[other] = replace(made[other], kind="day")
    return made


_ALSO_WORDS = frozenset({"may", "march", "august", "mar", "jan", "sept", "dec", "sep", "apr", "jun", "oct"})


def _deny(source: Read) -> list[Token]:
    """Mark what a negator governs in its clause: the names and figures right behind it, and its first two plain words.

    "Not Ryti" and "not B) Ryti" deny Ryti; "did not attack Ryti in 1941" denies the attack, not Ryti, and not the year.
    """
    tokens = source.tokens
    made = list(tokens)
    for at, negator in enumerate(tokens):
        if not _negates(tokens, at):
            continue
        left, before = 2, negator
        for behind in range(at + 1, len(tokens)):
            token = tokens[behind]
            particle = token.form in words.PARTICLES and before.capital  # "not Wilhelm von Leeb" denies all of it
            plain_word = token.kind == "word" and not token.capital and not particle
            lettered = len(before.raw) == 1 and before.raw.isupper() and source.gap(behind).strip() in (")", ".", ":")
            if left == 0 or token.form == "but" or (_CLAUSE_END.search(source.gap(behind)) and not lettered):
                break
            if plain_word and before.capital and negator.form not in words.NEGATORS:
                break  # "rather than Talvela destroyed it": the verb is not denied
            if plain_word or (left == 2 and token.kind != "function"):
                made[behind] = replace(token, denied=True)
            left -= plain_word
            before = before if particle else token
    return made


def _negates(tokens: Sequence[Token], at: int) -> bool:
    form = tokens[at].form
    after = tokens[at + 1].form if at + 1 < len(tokens) else ""
    if form in words.NEGATORS:
        return after not in words.SOFT_NEGATION
    return (form, after) in (("rather", "than"), ("instead", "of"))


def name_runs(source: Read, known: frozenset[str]) -> Iterator[list[Token]]:
    """Runs of capitalised words that are names. A word that only opens a sentence must be in `known`, or go on."""
    run: list[Token] = []
    for at, token in enumerate(source.tokens):
        name = _is_name(source, at, known)
        joined = bool(run) and not source.gap(at).strip(" -") and not run[-1].raw.endswith("'s")
        follower = source.tokens[at + 1] if at + 1 < len(source.tokens) else None
        particle = token.form in words.PARTICLES and follower is not None and follower.capital
        if run and not (joined and (name or particle)):
            yield run
            run = []
        if name or (run and particle):
            run.append(token)
    if run:
        yield run


def _is_name(source: Read, at: int, known: frozenset[str]) -> bool:
    token = source.tokens[at]
    if not token.capital or token.kind != "word":
        return False
    if not token.first or token.form in known or (token.raw.isupper() and len(token.raw) > 1):
        return True
    if at + 1 == len(source.tokens) or source.gap(at + 1).strip(" -"):
        return False
    follower = source.tokens[at + 1]
    return follower.capital and not follower.first and follower.kind == "word"


def known_names(*texts: Read) -> frozenset[str]:
    """Forms that stand capitalised inside a sentence of `texts`, and never in lower case."""
    plain_words = [token for text in texts for token in text.tokens if token.kind == "word"]
    capital = {token.form for token in plain_words if token.capital and not token.first}
    return frozenset(capital - {token.form for token in plain_words if not token.capital})


def facts_of(source: Read, known: frozenset[str]) -> list[Fact]:
    """The facts of a text, each once, in its order; a name that is only a title or a kind of thing is none."""
    found: dict[Fact, int] = {}
    for token in source.tokens:
        if token.kind in FIGURES:
            found.setdefault(Fact(token.kind, (token.form,), token.form.title(), token.denied), token.start)
    for run in name_runs(source, known):
        forms = tuple(token.form for token in run if token.capital)
        if len(forms) > 1 or forms[0] not in words.GENERIC:
            shown = " ".join(token.raw for token in run).removesuffix("'s")
            found.setdefault(Fact("name", forms, shown, any(token.denied for token in run)), run[0].start)
    return sorted(found, key=lambda fact: found[fact])


def core(fact: Fact) -> tuple[str, ...]:
    """The forms that must be seen for a name to count: its last own word; all of them if it has only generic ones."""
    if fact.kind != "name":
        return fact.forms
    own = [form for form in fact.forms if form not in words.GENERIC]
    return (own[-1],) if own else fact.forms


def holds(tokens: Sequence[Token], fact: Fact) -> bool:
    """Whether `tokens` state the fact, denied or not as the fact itself is."""
    if fact.kind in FIGURES:
        return any(
            token.form == fact.forms[0] and token.denied == fact.denied and same_kind(token, fact) for token in tokens
        )
    return all(
        any(
            same(token.form, form, name=fact.kind == "name")
            and token.denied == fact.denied
            and not _other_bearer(tokens, at, fact)
            for at, token in enumerate(tokens)
        )
        for form in core(fact)
    )


def same_kind(token: Token, fact: Fact) -> bool:
    """Whether a word can be this figure: a month is no verb, and "the 1st Army" is not the first of a month."""
    if fact.kind == "month" or token.kind == "month":
        return token.kind == fact.kind
    return "day" not in (token.kind, fact.kind) or token.kind == fact.kind


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
