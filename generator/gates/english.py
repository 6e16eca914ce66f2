"""Gate: text that is surely not English, though it is written in Latin letters; and other scripts beyond a quoted name.

Guarantees: deterministic; one detector a process, and its single-call API only, so it works after a fork. A text of
fewer than `MIN_WORDS` words is judged by its script alone. A text longer than `LONG` words is judged in pieces, so that a
foreign half is seen; there only what is beyond doubt is refused, and a foreign quotation of a dozen words passes.
How: the share of English function words settles nearly every text. What is left goes, without its capitalised names, to
a detector of 30 languages; the fewer function words, the surer of English it must be. So French, pinyin and gibberish
are refused, while a list of names, a telegram and the key words of a search pass.
Misses: a few foreign words in an English text, and most short texts. Refuses some lists of chemicals, and some searches for
names that are all in lower case.
Cost: 6 µs a question and 35 µs a passage of 1,000 characters, on average; most of it is the 1 text in 25 that is in
doubt, at 3.5 µs a character. The detector takes 40 MB and 0.3 s to load, once.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from foundation.records import GateResult
from generator.gates.common_words import COMMON

MIN_WORDS = 8
LONG = 60  # words; above it a text is judged in pieces
PIECE = 30
PLAIN = 0.25  # so many function words among all are English, whatever the others are

# Function words that French, German, Spanish, Italian, Dutch, Latin and pinyin do not share, and others that they do:
# Dutch text has up to a fifth of the latter by chance, English text hardly ever so few of both.
FUNCTION_WORDS = frozenset(
    """a about after again against all also although an and another any are as at be because been before being between
    both but by can cannot could did do does during each either even every few first for from had has have he her here
    him his how however i if in into is it its later many may me might more most much must my neither never no nor not
    now of off on once one only or other our out over own same shall she should since so some still such than that the
    their them then there these they this those through to too two under until up upon us very was we were what when
    where which while who whom whose why will with within without would you your""".split()
)
# (up to this share of function words, refuse a confidence in English below this)
DOUBT = ((0.05, 0.3), (0.15, 0.01), (0.22, 0.0001))
PIECE_DOUBT = ((0.15, 0.001),)

MAX_SHORT = 0.15  # of the words of a search have three letters or fewer

MAX_FOREIGN_WORDS = 5  # of another script in a row
NAME_LETTERS = 30  # of another script: one quoted name, which may be up to NAME_SHARE of a short text
NAME_SHARE = 0.5
MAX_FOREIGN_SHARE = 0.25  # of the letters of a text with more than that

# Those that text is likely to be in, and for pinyin and gibberish a wide choice of what they may look like.
_LANGUAGES = """ENGLISH ALBANIAN BASQUE BOKMAL CATALAN CROATIAN CZECH DANISH DUTCH ESTONIAN FINNISH FRENCH GERMAN HUNGARIAN
    INDONESIAN IRISH ITALIAN LATIN POLISH PORTUGUESE ROMANIAN SHONA SPANISH SWAHILI SWEDISH TAGALOG TSONGA TURKISH VIETNAMESE
    WELSH"""
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_LISTED = re.compile(r"[,;:.()/&\n–—-]+| and ")
_MAX_NAME = 4  # words of one name in a list of names
_SCRIPT = (  # letters that are not Latin; the CJK gate has had its own before
    "\u0370-\u1cff\u1f00-\u1fff\u2c00-\u2c5f\u2c80-\u2dff\ua4d0-\ua71f\ua800-\uab2f\uab70-\uabff\ufb13-\ufdff\ufe70-\ufefc"
    "\U00010000-\U0001d0ff\U0001d400-\U0001d7ff\U0001e000-\U0001efff"
)
_OTHER = re.compile(rf"[{_SCRIPT}]")
_OTHER_WORDS = re.compile(rf"[{_SCRIPT}]+(?:[^\w{_SCRIPT}]+[{_SCRIPT}]+)*")


class EnglishGate:
    """Holds the detector; made when a text is first in doubt, or by `warm()` before a fork."""

    @cached_property
    def _detector(self) -> Any:
        from lingua import Language, LanguageDetectorBuilder

        languages = (getattr(Language, name) for name in _LANGUAGES.split())
        return LanguageDetectorBuilder.from_languages(*languages).with_low_accuracy_mode().build()

    def warm(self) -> None:
        """Load the detector and its models now."""
        self._confidence("the detector is ready")

    def check(self, text: str, field: str = "") -> GateResult:
        """Reject `text` if it is surely in another language, or has more of another script than a quoted name."""
        if not text.isascii() and (reason := _script_fault(text)):
            return GateResult.reject("english", "other-script", reason, field)
        words = text.lower().split()
        if len(words) < MIN_WORDS:
            return GateResult.accept()
        if len(words) <= LONG:
            reason = self._fault(text, words, DOUBT)
        else:
            pieces = (slice(start, start + PIECE) for start in range(0, len(words) - PIECE // 2, PIECE))
            doubtful = [piece for piece in pieces if _share(words[piece]) < PLAIN]
            whole = text.split() if doubtful else words
            faults = (self._fault(" ".join(whole[piece]), words[piece], PIECE_DOUBT) for piece in doubtful)
            reason = next(filter(None, faults), "")
        return GateResult.reject("english", "other-language", reason, field) if reason else GateResult.accept()

    def check_whole(self, text: str, field: str = "") -> GateResult:
        """Judge a text of any length as one: reject it only if most of it is in another language. For articles."""
        words = text.lower().split()
        reason = self._fault(text, words, PIECE_DOUBT) if len(words) >= MIN_WORDS else ""
        return GateResult.reject("english", "other-language", reason, field) if reason else GateResult.accept()

    def _fault(self, text: str, words: Sequence[str], doubt: tuple[tuple[float, float], ...]) -> str:
        """Why `text` is not English; empty if it may be."""
        if _share(words) >= PLAIN:
            return ""  # nearly always: without its punctuation taken off, a text only seems to have fewer
        exact = _WORD.findall(text)
        if len(exact) < MIN_WORDS:
            return ""  # numbers
        share = _share([word.lower() for word in exact])
        floor = next((floor for limit, floor in doubt if share < limit), 0.0)
        if not floor:
            return ""
        if _key_words(text, exact):
            return ""
        telling = _telling(text, exact)
        if not telling:
            return ""
        confidence = self._confidence(telling)
        if confidence >= floor:
            return ""
        return f"reads as {self._guess(telling)}: {share:.0%} English function words, confidence {confidence:.2g}"

    def _confidence(self, text: str) -> float:
        from lingua import Language

        return float(self._detector.compute_language_confidence(text, Language.ENGLISH))

    def _guess(self, text: str) -> str:
        """The likeliest language, as a word for people: gibberish gets one too."""
        language = self._detector.compute_language_confidence_values(text)[0].language
        return str(language.name).title()


def _share(words: Sequence[str]) -> float:
    return sum(map(FUNCTION_WORDS.__contains__, words)) / len(words)


def _key_words(text: str, words: Sequence[str]) -> bool:
    """Whether it may be a search or a telegram: names without their capitals look foreign.

    It has common English words, and hardly any of the short ones that no language but telegraphese can do without.
    """
    if not ((text.islower() or text.isupper()) and text.isascii()):
        return False
    if sum(len(word) <= 3 for word in words) > MAX_SHORT * len(words):
        return False
    return sum(word in COMMON or word.removesuffix("s") in COMMON for word in map(str.lower, words)) >= 2


def _telling(text: str, words: Sequence[str]) -> str:
    """What the language shows in: the words in lower case, since names are foreign in any language.

    All of the text if it has hardly any; nothing if what it has is a list of names.
    """
    low = [word for word in words if word[0].islower()]
    if len(low) >= 4 and len(low) * 5 >= len(words):
        return " ".join(low)
    if any(word[1:].islower() for word in words) and all(
        len(part.split()) <= _MAX_NAME for part in _LISTED.split(text)
    ):
        return ""
    return text.lower()


def _script_fault(text: str) -> str:
    """Why there is too much of another script; empty if there is not."""
    foreign = len(_OTHER.findall(text))
    if not foreign:
        return ""
    letters = sum(map(str.isalpha, text))
    if foreign > (NAME_SHARE if foreign <= NAME_LETTERS else MAX_FOREIGN_SHARE) * letters:
        return f"{foreign} of {letters} letters are of another script"
    longest = max(len(run.split()) for run in _OTHER_WORDS.findall(text))
    return f"{longest} words of another script in a row" if longest > MAX_FOREIGN_WORDS else ""
