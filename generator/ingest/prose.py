"""Text repair and sentences: what goes into a snippet, and what is dropped before it, with the reason.

Guarantees: mojibake is mended while quotes, full-width characters and entities stay as they are; a kept sentence has no
CJK character, no hole, no markup, 3 words or more, at most 1,000 characters, and an end, and is not surely in another
language than English. Everything dropped is counted.
Cost: about 1 s a MB of text, most of it ftfy; the sentence model is 8 ms to load and needs no download.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from generator.gates.cjk import CJK
from generator.gates.english import EnglishGate
from generator.ingest.page import GONE, HOLE

MIN_WORDS = 3
MAX_CHARACTERS = 1000
NOT_ENGLISH = "not English"
_ABBREVIATIONS = ["lt", "cmdr", "pfc", "flt", "sqn", "wg", "regt", "bn", "messrs", "hdt"]  # nupunkt's model lacks them

# U+3000, the full-width space, is no space here: it must stay visible to the CJK check.
_SPACES = re.compile(r"[ \t\n\r\f\v\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f]+")
_INVISIBLE = re.compile(r"[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")
_BLANK_LINE = re.compile(r"\n[ \t\u00a0]*\n\s*")
_ASIDE = re.compile(rf"\s+\(([^()]*{HOLE}[^()]*)\)")
_GONE_BEFORE_POINT = re.compile(rf"\s*{GONE}[\s{GONE}]*(?=[.,;:!?)\]])")
_GONE = re.compile(rf"{GONE}+")
_CITATION = re.compile(
    r"""(?:(?<=[.,;:!?)\]"'”’\s])|^)(?:\[\d{1,3}\])+"""
)  # [12] behind a point: a web page's footnote

_HOLE = re.compile(
    rf"""{HOLE}
    |\(\s*[,;:.)] | [,;(]\s*\) | \[\s*\]                # ( )   (, 1942)   (born 1901, )
    |\s[,;:.!?)](?=\s|$) | [,;]\s*[,;.] | ^[^\w\s"'“‘«(\[$£€¡¿–—-]   # named , plural   x,, y   ; and
    |\b(?:the|an)[.,;:)] | \b(?:and|named|called)[.;)]      # the name itself is missing
    |""|“\s*”|«\s*»""",
    re.VERBOSE,
)
_DEBRIS = re.compile(
    r"[{}|\ufffd] | \[\[ | \]\] | == | </?[a-z]\w*[^<>]*> | https?:// | \bwww\. | \bIS[BS]N\b | \bdoi: | \b\d+px\b | ^[*•#:;] "
    r"| \d°\s?\d+[′'] | &(?:nbsp|[nm]dash);"
    r"| ^(?:see\ also|main\ article|further\ information)\b",
    re.VERBOSE | re.IGNORECASE,
)
_END = re.compile(r"""[.!?…]["'”’»)\]]*$""")


@dataclass(frozen=True, slots=True)
class Prose:
    """A page's kept sentences by paragraph, what was dropped by reason, and whether its encoding was mended."""

    paragraphs: tuple[tuple[str, ...], ...]
    dropped: Counter[str]
    repaired: bool

    @property
    def sentences(self) -> tuple[str, ...]:
        return tuple(sentence for paragraph in self.paragraphs for sentence in paragraph)

    @property
    def foreign(self) -> bool:
        """Is most of it in another language than English? A text of short sentences shows it only as a whole."""
        if self.dropped[NOT_ENGLISH] > len(self.sentences):
            return True
        return not _english().check_whole(self.text).ok

    @property
    def text(self) -> str:
        """The article as it is kept: sentences joined by spaces, paragraphs parted by blank lines."""
        return "\n\n".join(" ".join(paragraph) for paragraph in self.paragraphs)


def repair(text: str) -> str:
    """Mend mojibake and broken line ends, nothing else: quotes, widths, entities and normal forms survive."""
    import ftfy

    kept = ftfy.TextFixerConfig(
        uncurl_quotes=False, fix_character_width=False, unescape_html=False, normalization=None, explain=False
    )
    return ftfy.fix_text(text, kept)


def tidy(text: str) -> str:
    """Single spaces, no invisible characters, no aside that lost its content, no trace of footnotes."""
    while (shorter := _ASIDE.sub(_aside, text)) != text:
        text = shorter
    text = _CITATION.sub("", _GONE.sub("", _GONE_BEFORE_POINT.sub("", text)))
    return _SPACES.sub(" ", _INVISIBLE.sub("", text)).strip(" ")


def _aside(found: re.Match[str]) -> str:
    """What is left of "( HOLE; born 1 April 1947)": the parts that are whole."""
    whole = [part.strip() for part in found.group(1).split(";") if HOLE not in part and part.strip(f" ,{GONE}")]
    return f" ({'; '.join(whole)})" if whole else ""


def clean(text: str) -> Prose:
    """Repair `text`, split it paragraph by paragraph, and keep the sentences that can be asked about."""
    ended = text.replace("\r\n", "\n")
    mended = repair(ended)
    split = _splitter()
    paragraphs, dropped = [], Counter[str]()
    for block in _BLANK_LINE.split(mended):
        sentences = [sentence for found in split(tidy(block)) if (sentence := found.strip(" "))]
        if len(sentences) == 1 and sentences[0].count(" ") < 4 and not fault(sentences[0]):
            dropped["fragment"] += 1  # a label or a list item, not a paragraph
            continue
        reasons = [fault(sentence) for sentence in sentences]
        dropped.update(reason for reason in reasons if reason)
        kept = tuple(sentence for sentence, reason in zip(sentences, reasons, strict=True) if not reason)
        if kept:
            paragraphs.append(kept)
    return Prose(tuple(paragraphs), dropped, mended != ended)


def fault(sentence: str) -> str:
    """Why this sentence cannot be kept: `cjk`, `hole`, `markup`, `short`, `long`, `fragment` or `not English`; empty if it can."""
    if not sentence.isascii() and CJK.search(sentence):
        return "cjk"
    if len(sentence) > MAX_CHARACTERS:
        return "long"
    if _HOLE.search(sentence) or sentence.count("(") != sentence.count(")"):
        return "hole"
    if _DEBRIS.search(sentence):
        return "markup"
    if not _END.search(sentence) or _starts_low(sentence):
        return "fragment"
    if sum(any(c.isalnum() for c in word) for word in sentence.split()) < MIN_WORDS:
        return "short"
    return "" if _english().check(sentence).ok else NOT_ENGLISH


def _starts_low(sentence: str) -> bool:
    """Does it begin in the middle of another? (iPod, pH and the like begin low too: their second letter is a capital.)"""
    word = sentence.lstrip("\"'“‘«([¡¿–—- ")
    return word[:1].islower() and not any(c.isupper() for c in word[1:3])


@functools.cache
def _english() -> EnglishGate:
    return EnglishGate()


@functools.cache
def _splitter() -> Callable[[str], Iterable[str]]:
    from nupunkt.models import load_default_model

    tokenizer = load_default_model()
    tokenizer.add_abbreviations(_ABBREVIATIONS)
    return tokenizer.tokenize  # type: ignore[no-any-return]
