"""Whether a text goes round in circles, as small models do: one meaning of it for the judge and for `trainer eval`.

Guarantees: rhetoric is none ("never, never, never"), nor are tables, rules of dashes and lists whose points open alike.
Cost: about 0.2 ms for 100 words, nothing for a text seen lately. Misses: a loop whose turns differ by a word each, unless
it comes back to the same five words five times and mostly goes on alike or without a pause; a loop inside one row of a table.
"""

from __future__ import annotations

import functools
from collections import Counter

# A block of 1 to 12 words said this often in a row is a loop: rhetoric repeats itself three times, not four.
REPEATS = 4
LONGEST_BLOCK = 12
# One word five times over is a loop; four times can be emphasis.
WORD_REPEATS = 5
# Answers that come back to the same five words this often loop too, with something in between, if what follows them
# repeats as well, or they come back within a sentence: five facts may all begin "The Battle of Kursk was", but they do
# not go on alike, and each ends before the next.
PHRASE, PHRASE_REPEATS, FOLLOWING = 5, 5, 3


@functools.lru_cache(maxsize=4096)  # every answer is looked at again under another question, as the baseline
def looping(text: str) -> str:
    """The words that `text` repeats without end; empty if it does not."""
    spoken = _words(text)
    words = [word for word, _ in spoken]
    for size in range(1, min(LONGEST_BLOCK, len(words) // REPEATS) + 1):
        needed = (WORD_REPEATS if size == 1 else REPEATS) - 1
        run = 0  # how many words in a row equal the word `size` places before them
        for at in range(size, len(words)):
            run = run + 1 if words[at] == words[at - size] else 0
            if run >= needed * size:
                return " ".join(words[at - size + 1 : at + 1])
    return _phrase(words, [ends for _, ends in spoken])


def _words(text: str) -> list[tuple[str, bool]]:
    """The words that hold a letter or digit, each with whether a sentence, a part of one or a line ends with it.

    A row of a table is one word, as its cells may well be equal.
    """
    words: list[tuple[str, bool]] = []
    for line in text.casefold().splitlines():
        parts = [line.strip()] if line.lstrip().startswith("|") else line.split()
        said = [part for part in parts if any(char.isalnum() for char in part)]
        words += [(part, at == len(said) or not part[-1].isalnum()) for at, part in enumerate(said, 1)]
    return words


def _phrase(words: list[str], ends: list[bool]) -> str:
    """The first phrase that comes often, and three of four times either goes on as before or comes back without a pause."""
    counts = Counter(zip(*(words[start:] for start in range(PHRASE)), strict=False))
    if max(counts.values(), default=0) < PHRASE_REPEATS:
        return ""  # nearly always
    last: dict[tuple[str, ...], int] = {}
    seen: dict[tuple[str, ...], int] = {}
    alike: dict[tuple[str, ...], int] = {}
    longer: set[tuple[str, ...]] = set()
    for at in range(len(words) - PHRASE + 1):
        phrase, whole = tuple(words[at : at + PHRASE]), tuple(words[at : at + PHRASE + FOLLOWING])
        seen[phrase] = seen.get(phrase, 0) + 1
        # what breaks off at the end of the text has gone on as before
        again = whole in longer or len(whole) < PHRASE + FOLLOWING
        running = phrase in last and not any(ends[last[phrase] : at])
        alike[phrase] = alike.get(phrase, 0) + (again or running)
        last[phrase] = at
        longer.add(whole)
        if seen[phrase] >= PHRASE_REPEATS and 4 * alike[phrase] >= 3 * (seen[phrase] - 1):
            return " ".join(phrase)
    return ""
