"""Sentences taken as their words: options swapped, and sentences of other records that restate a reference.

Guarantees: what is compared is the sequence of words and marks; the one date of a sentence without a second clause may
stand before or behind the rest, "it was X who" may lead it in, and articles do not count. Cost: about 0.2 ms an item.
Misses: paraphrase, the passive too: better no sibling than a doubtful one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from foundation import words
from foundation.records import EvalItem
from judge import choices

STANCE = re.compile(r"\s*(True|False|Yes|No)\b\s*(?:[.,;:!-]|$)")
MONTH = "(?:" + "|".join(name.title() for name in words.MONTHS) + ")"
DATE = re.compile(
    rf"\b(?:(?:in|on|by)\s+)?(?:the\s+)?(?:\d{{1,2}}\s+)?(?:{MONTH}\s+)?(?:1\d{{3}}|20\d{{2}})\b|\b(?:on\s+)?\d{{1,2}}\s+{MONTH}\b",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"(?<=[.!?])[\"”']?\s+(?=[\"“'-]?\s*[A-ZÀ-Þ0-9])|\n+")
_INITIAL = re.compile(r"(?:\b[A-Z]|\b(?:Lt|Col|Gen|Maj|Capt|Adm|Mr|Mrs|Dr|St|No|vs|Sgt))\.$")
_WORD = re.compile(r"[^\W_]+(?:['’.,-][^\W_]+)*")
_ASKS = re.compile(r"\b(?:who|whom|whose|which|what|when|where|why|how)\b", re.IGNORECASE)
_BLANK = re.compile(r"_{2,}|\[blank\]|…{2,}")
_OPTION = re.compile(r"\W*[A-F]\)\s")
_MARK = re.compile(r"^(?:[-*•\s]|\d+[.)]\s|A:\s)+")
# Articles, and what ties a sentence to the one before it. All other small words can turn a meaning round: "to Hull from
# Murmansk", "before 1944", "was attacked by".
_TIES = frozenset("a an the also too however therefore thus hence indeed moreover".split())
_CLEFT = re.compile(r"^It (?:was|is) ([^,;]+?) (?:who|that) ", re.IGNORECASE)
_PIECE = re.compile(rf"{_WORD.pattern}|[^\w\s]")
# Where there is a second clause, a date at the end may belong to that one, and a date in front to the other.
_CLAUSE = re.compile(
    r"\b(?:who|whom|whose|which|that|when|where|while|after|before|as|if|because|until|since|than|but|or|said|says"
    r"|and(?! [A-ZÀ-Þ])|to(?! (?:[A-ZÀ-Þ]|the |an? |its |his |their )))\b"
)
ASIDE = re.compile(r"^(?:Indeed,\s*|That is (?:right|so|true|correct)[:,]\s*)", re.IGNORECASE)


def sentences(text: str) -> list[str]:
    """The sentences of `text`, at least one (`text` itself)."""
    parts = [part.strip() for part in _SENTENCE.split(text.strip())]
    joined: list[str] = []
    for part in parts:
        if joined and _INITIAL.search(joined[-1]):
            joined[-1] += " " + part
        elif part:
            joined.append(part)
    return joined or [text]


def asking(question: str) -> str:
    """The question from its first question word on: what is asked for stands there, not behind a later "when"."""
    found = _ASKS.search(question)
    return question[found.start() :] if found else ""


def words_of(text: str) -> list[str]:
    return [word.lower().replace("’", "'") for word in _WORD.findall(text)]


def offers_labels(question: str) -> bool:
    return bool(choices.texts_of(question)[1])


def swapped(item: EvalItem, *, figures: bool) -> str:
    """The reference with the chosen option replaced by another one everywhere; `figures`: options with digits, or without.

    "" unless exactly one option stands in the reference, word for word.
    """
    texts, labels = choices.texts_of(item.question)
    inside = [text for text in texts if _whole(text).search(item.reference)]
    if len(inside) != 1 or len(set(texts)) != len(texts):
        return ""
    right = texts.index(inside[0])
    fit = [
        at for at, text in enumerate(texts) if at != right and _figured(text) == figures and _distinct(text, inside[0])
    ]
    if not fit or _figured(inside[0]) != figures or (not figures and not inside[0][:1].isupper()):
        return ""
    wrong = min(fit, key=lambda at: words_of(texts[at]))
    body = item.reference
    if labels:
        if choices.label_of(body) != labels[right]:
            return ""
        body = re.sub(rf"\b{labels[right]}(?=[).:])", labels[wrong], body, count=1)
    return _whole(inside[0]).sub(lambda _: texts[wrong], body)


def _whole(text: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(text)}(?!\w)")


def _figured(text: str) -> bool:
    return any(char.isdigit() for char in text)


def _distinct(one: str, other: str) -> bool:
    """Whether neither text holds the other: "Bock" would not be wrong for "Fedor von Bock"."""
    mine, theirs = set(words_of(one)), set(words_of(other))
    return bool(mine - theirs) and bool(theirs - mine)


def restated(item: EvalItem) -> set[str]:
    """Sentences of the siblings that say what the reference's one sentence says, or a blank filled in, told otherwise."""
    said = sentences(item.reference)
    if STANCE.match(item.reference) or len(said) > 1 + bool(_OPTION.match(item.reference)):
        return set()  # of several sentences one says only a part; "True." says nothing of its own
    whole = said[-1]
    wanted = {_key(whole)} if len(words_of(whole)) > 4 else set()
    filled = _filled(item)
    found: set[str] = set()
    for text in _sentences_of(item.siblings):
        key = _key(text)
        if (key in wanted and words_of(text) != words_of(whole)) or (filled and _ends_with(key, filled)):
            found.add(text)
    return found


def _sentences_of(siblings: tuple[str, ...]) -> Iterator[str]:
    for answer in siblings:
        for sentence in sentences(answer):
            bare = ASIDE.sub("", _MARK.sub("", sentence)).strip()
            if len(bare.split()) > 4 and not bare.endswith("?"):
                yield bare[0].upper() + bare[1:]


Key = tuple[tuple[str, ...], tuple[str, ...]]


def _key(sentence: str) -> Key:
    """Its words and marks in their order without articles, and its date, if that may stand before or behind the rest."""
    sentence = _CLEFT.sub(r"\1 ", sentence.strip().rstrip(".!?"))
    dates = list(DATE.finditer(sentence))
    date: tuple[str, ...] = ()
    if len(dates) == 1 and not _CLAUSE.search(sentence):
        found = dates[0]
        before, behind = sentence[: found.start()].strip(), sentence[found.end() :].strip()
        if not before or not behind:
            date, sentence = _spoken(found.group()), before or behind.removeprefix(",")
    return _spoken(sentence), date


def _spoken(text: str) -> tuple[str, ...]:
    pieces = (piece.lower().replace("’", "'") for piece in _PIECE.findall(text))
    return tuple(piece for piece in pieces if piece not in _TIES)


def _filled(item: EvalItem) -> Key | None:
    """The key of a question with a blank, filled in; None if it has none."""
    if len(_BLANK.findall(item.question)) != 1 or len(words_of(item.reference)) > 4:
        return None
    at = _BLANK.search(item.question)
    assert at is not None
    sentence = next(part for part in re.split(r"(?<=[:?.])\s+(?!_)", item.question) if _BLANK.search(part))
    return _key(_BLANK.sub(lambda _: item.reference.rstrip("."), sentence))


def _ends_with(key: Key, filled: Key) -> bool:
    """Whether a sentence is the filled-in question, but for the words that lead the question in."""
    told, asked = key[0], filled[0]
    lead = asked[: -len(told)]
    content = [word for word in told if word not in words.FUNCTION and word[0].isalnum()]
    return len(content) >= 4 and asked[-len(told) :] == told and key[1] == filled[1] and not words.NEGATORS & {*lead}
