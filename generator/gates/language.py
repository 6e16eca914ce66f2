"""Gate: lingua, told to choose between English and Chinese, is certain of English: its confidence is exactly 1.0.

Guarantees: one detector a process, and its single-call API only (the parallel one hangs after a fork).
Does not know: with these two languages, 1.0 is a test of script. French or gibberish in Latin letters scores 1.0, and so
does English with a few Chinese characters in it; the CJK gate in front is what stops those.
What a teacher wrote is always put to it. What ingest put to it already (`check_source`) is not asked again where the answer is
known: lingua decides by the letters of each word, and needs no model where all of them are Latin. That each character which
counts as such is Latin to lingua, or no letter, is asked of it when it is loaded; where it says otherwise, it is always asked.
Cost: 14 MB and 15 ms, once; 0.45 µs a character, so 20 to 40 µs a question; 1 µs a passage that is known.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import Any

from foundation.records import GateResult

# Latin letters up to the second extension (µ is Greek), digits and marks. None of them may be a letter of another script to lingua.
_LATIN = "\t\n\r -~\xa0-\xb4\xb6-\u024f\u2010-\u2027\u2030-\u205e\u20ac"
LATIN_ONLY = re.compile(f"[{_LATIN}]*")
_LETTER = re.compile("[A-Za-z]")


def has_letters(text: str) -> bool:
    """Whether the text has a language at all: a year or a number alone has none."""
    return any(map(str.isalpha, text))


class LanguageGate:
    """Holds the detector; made on first use, or by `warm()` before a fork."""

    @cached_property
    def _detector(self) -> Any:
        from lingua import Language, LanguageDetectorBuilder

        return LanguageDetectorBuilder.from_languages(Language.ENGLISH, Language.CHINESE).build()

    @cached_property
    def _english(self) -> Any:
        from lingua import Language

        return Language.ENGLISH

    @cached_property
    def _knows_latin(self) -> bool:
        """Whether this lingua takes all that `_LATIN` holds for English: each character within a word, and each letter alone."""
        every = [char for char in map(chr, range(0x2100)) if LATIN_ONLY.fullmatch(char)]
        return all(
            self._confidence(f"a{char}b {char} {char} {char}") == 1.0
            and (not char.isalpha() or self._confidence(char) == 1.0)
            for char in every
        )

    def warm(self) -> None:
        """Load the detector and its models now."""
        self.check_source("The detector is ready.")
        self.check("And its models are.")

    def check_source(self, text: str, field: str = "") -> GateResult:
        """The same for a text of the corpus: lingua is asked only where its answer is not known."""
        if LATIN_ONLY.fullmatch(text) and _LETTER.search(text) and self._knows_latin:
            return GateResult.accept()
        return self.check(text, field)

    def check(self, text: str, field: str = "") -> GateResult:
        """Reject `text` unless the confidence in English is exactly 1.0. Text without letters scores 0.0."""
        confidence = self._confidence(text)
        if confidence == 1.0:
            return GateResult.accept()
        return GateResult.reject("language", "confidence", f"English confidence {confidence:.4g}", field)

    def _confidence(self, text: str) -> float:
        return float(self._detector.compute_language_confidence(text, self._english))
