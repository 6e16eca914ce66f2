"""Gate: no text with a single CJK character in it reaches a shard.

Guarantees: pure and deterministic; looks at the raw text and never edits it.
Covers: Han with every extension, radicals, strokes, kana, bopomofo, Hangul, Yi, Tangut
and Khitan, CJK punctuation, enclosed and compatibility forms, full-width and half-width forms.
Misses: romanised Chinese (pinyin), and so does the language gate behind this one.
Cost: `str.isascii()` settles most text; the rest is one regex pass. The ranges are whole blocks: a test holds them
against the names in `unicodedata`.
"""

from __future__ import annotations

import re

from foundation.records import GateResult

_BLOCKS = (
    ("\u1100", "\u11ff"),  # Hangul Jamo
    (
        "\u2e80",
        "\u9fff",
    ),  # radicals, strokes, CJK punctuation, kana, bopomofo, Hangul compatibility, Han and extension A
    ("\ua000", "\ua4cf"),  # Yi
    ("\ua960", "\ua97f"),  # Hangul Jamo extended A
    ("\uac00", "\ud7ff"),  # Hangul syllables, Jamo extended B
    ("\uf900", "\ufaff"),  # compatibility ideographs
    ("\ufe10", "\ufe1f"),  # vertical forms
    ("\ufe30", "\ufe6f"),  # compatibility forms, small forms
    ("\uff00", "\uffef"),  # half-width and full-width forms
    ("\U00016fe0", "\U00018dff"),  # ideographic symbols, Tangut, Khitan
    ("\U0001aff0", "\U0001b2ff"),  # kana supplements, Nushu
    ("\U0001d360", "\U0001d37f"),  # counting rods, ideographic tally marks
    ("\U0001f200", "\U0001f2ff"),  # enclosed ideographs
    ("\U00020000", "\U0003ffff"),  # Han extensions B and on
)
CJK = re.compile("[" + "".join(f"{first}-{last}" for first, last in _BLOCKS) + "]")


def check_cjk(text: str, field: str = "") -> GateResult:
    """Reject `text` at its first CJK character; the reason gives its code point and its position, counted from 0."""
    if text.isascii():
        return GateResult.accept()
    found = CJK.search(text)
    if found is None:
        return GateResult.accept()
    return GateResult.reject("cjk", "cjk", f"U+{ord(found.group()):04X} at character {found.start()}", field)
