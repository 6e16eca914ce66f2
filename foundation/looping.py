"""Whether a text goes round in circles, as small models do: one meaning of it for the judge and for `trainer eval`.

Guarantees: rhetoric is none ("never, never, never"). Cost: about 0.1 ms for 100 words, nothing for a text seen lately.
Misses: a loop whose turns differ by a word each, unless it comes back to the same five words five times.
"""

from __future__ import annotations

import functools

# A block of 1 to 12 words said this often in a row is a loop: rhetoric repeats itself three times, not four.
REPEATS = 4
LONGEST_BLOCK = 12
# One word five times over is a loop; four times can be emphasis.
WORD_REPEATS = 5
# Answers that come back to the same five words this often loop too, with something in between.
PHRASE, PHRASE_REPEATS = 5, 5


@functools.lru_cache(maxsize=4096)  # every answer is looked at again under another question, as the baseline
def looping(text: str) -> str:
    """The words that `text` repeats without end; empty if it does not."""
    words = text.casefold().split()
    for size in range(1, min(LONGEST_BLOCK, len(words) // REPEATS) + 1):
        needed = (WORD_REPEATS if size == 1 else REPEATS) - 1
        run = 0  # how many words in a row equal the word `size` places before them
        for at in range(size, len(words)):
            run = run + 1 if words[at] == words[at - size] else 0
            if run >= needed * size:
                return " ".join(words[at - size + 1 : at + 1])
    seen: dict[tuple[str, ...], int] = {}
    for at in range(len(words) - PHRASE + 1):
        phrase = tuple(words[at : at + PHRASE])
        seen[phrase] = seen.get(phrase, 0) + 1
        if seen[phrase] >= PHRASE_REPEATS:
            return " ".join(phrase)
    return ""
