"""What needs no grader: an answer that says nothing fails by rule, and a question without a reference cannot be scored.

Guarantees: the same for every grader, before any model is asked. Cost: about 20 µs for an answer of 100 words.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from judge.outcome import Outcome

if TYPE_CHECKING:
    from foundation.records import Answer

# A block of 1 to 12 words said this often in a row is a loop: rhetoric repeats itself three times, not four.
REPEATS = 4
LONGEST_BLOCK = 12
# One word five times over is a loop; four times can be emphasis.
WORD_REPEATS = 5
# Answers that come back to the same five words this often loop too, with something in between.
PHRASE, PHRASE_REPEATS = 5, 5


def precheck(answer: Answer) -> Outcome | None:
    """The outcome that needs no grader, or None."""
    if not any(char.isalnum() for char in answer.item.reference):
        return Outcome("UNSCORED", "reference", "The reference answer is empty: there is nothing to compare with.")
    text = answer.text.strip()
    if not text:
        return Outcome("FAIL", "empty", "The answer is empty.")
    if not any(char.isalnum() for char in text):
        return Outcome("FAIL", "punctuation", "The answer holds no letter and no digit.")
    if _spoken(text) == _spoken(answer.item.question):
        return Outcome("FAIL", "echo", "The answer is the question.")
    loop = looping(text)
    if loop:
        return Outcome("FAIL", "looping", f"The answer repeats itself: {loop!r}.")
    return None


def _spoken(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


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
