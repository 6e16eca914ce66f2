"""Typing slips: letters swapped, left out, doubled, or struck beside the right key.

Guarantees: only lower-case words of four letters or more in a phrase's own words are touched, never a place to be filled, so no name,
date or number is; the first letter stays; what comes out is no word that the phrases or the unit's text use.
Cost: about 20 µs a phrase.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from random import Random

_WORD = re.compile(r"(?<![\w'{])[a-z]{4,}(?![\w'}])")
_BESIDE = dict(
    pair.split(":")
    for pair in "a:s b:v c:x d:f e:r f:g g:h h:j i:o k:l l:k m:n n:m o:p p:o r:t s:d t:y u:i v:b w:e x:c y:u z:x j:k q:w".split()
)


def mistyped(phrase: str, rng: Random, *known: Collection[str]) -> str:
    """A phrase with one to three of its words mistyped; fewer if it has not enough words for it."""
    found = list(_WORD.finditer(phrase))
    count = min(len(found), rng.choice((1, 1, 2, 2, 3)))
    for match in sorted(rng.sample(found, count), key=lambda match: -match.start()):
        phrase = phrase[: match.start()] + _slip(match.group(), rng, known) + phrase[match.end() :]
    return phrase


def _slip(word: str, rng: Random, known: Sequence[Collection[str]]) -> str:
    """One slip in one word. Some slip always gives no known word: "whhich"."""
    for _ in range(8):
        at = rng.randrange(1, len(word) - 1)
        kind = rng.choice(("swap", "swap", "drop", "double", "beside"))
        slipped = {
            "swap": word[:at] + word[at + 1] + word[at] + word[at + 2 :],
            "drop": word[:at] + word[at + 1 :],
            "double": word[: at + 1] + word[at:],
            "beside": word[:at] + _BESIDE[word[at]] + word[at + 1 :],
        }[kind]
        if slipped != word and not any(slipped in found for found in known):
            return slipped
    return word[:2] + word[1:]
