"""How varied a prompt type's questions are: distinct n-grams, their openings, and the skeleton that most share.

Guarantees: pure; a type's figures depend on the sampled questions alone. Texts are compared as `generator.near` does:
without case, accents and punctuation. Cost: about 15 µs a question, for at most 1,000 a type.

A skeleton is a question's first eight words with what is particular to it masked as "…": names (capitals inside the
question), numbers, and words that fewer than one question in twenty has. So "Who was Otto Carius?" and "Who was Mrs. Miniver?" are both
"who was …", and a frame shows through however its openings vary.
A type has collapsed if at least half of its questions share one skeleton, or one opening. Calibrated on the `rules` teacher,
which draws from three to a dozen frames a type: over its run on the wwii example (75 types with records) the commonest
skeleton has 3 to 40 % of a type's questions, the commonest opening 3 to 43 %, so nothing is warned of. It is a figure to look
at, not a verdict: a type whose summary asks for one form ("When did …?") is bound to have it.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from itertools import chain
from typing import Any

from generator.near import words_of

COLLAPSED = 0.5  # share of one skeleton or opening
FEWEST = 30  # questions of a type below which nothing is said of it
OPENING = 3  # words
CUT = 8  # words of a skeleton
RARE = 0.05  # share of a type's questions that have a word
FRAME = 2  # words a skeleton must have besides its gaps to be one: what is all different has none
GAP = "…"
_TOKEN = re.compile(r"""(^|[.!?:\n]["”’)]*\s*)?([^\W_]+(?:['’.-][^\W_]+)*)""")  # with what makes it begin a sentence
_ARTICLES = frozenset({"the", "a", "an"})
_JOINTS = frozenset({"of", "and"})


def variety(questions: Sequence[str]) -> dict[str, Any]:
    """Every figure on one type's questions. Entropies are in bits; `evenness` is of the most that so many questions could have."""
    if not questions:
        return {}
    words = [[word.decode("utf-8", "replace") for word in words_of(text)] for text in questions]
    openings = Counter(" ".join(one[:OPENING]) for one in words)
    frames = Counter(skeletons(questions))
    return {
        "questions": len(questions),
        **{f"distinct_{n}": _distinct(words, n) for n in (1, 2, 3)},
        "opening": _counted(openings),
        "skeleton": _counted(frames),
    }


def warning(id_: str, figures: dict[str, Any]) -> str:
    """One sentence if a type has collapsed; empty if not, or if too few questions were seen."""
    if figures.get("questions", 0) < FEWEST:
        return ""
    for name, told in (("skeleton", "have the skeleton"), ("opening", "begin with")):
        one = figures[name]
        if one["share"] >= COLLAPSED and len(one["commonest"].replace(GAP, "").split()) >= FRAME:
            return (
                f'{id_}: {one["share"]:.0%} of its questions {told} "{one["commonest"]}" ({one["different"]:,} different '
                f"{name}s among {figures['questions']:,} questions)"
            )
    return ""


def skeletons(questions: Sequence[str]) -> list[str]:
    """Each question's frame."""
    tokens = [_TOKEN.findall(text) for text in questions]
    having = Counter(chain.from_iterable({word.lower() for _, word in one} for one in tokens))
    fewest = max(3, math.ceil(RARE * len(questions)))
    return [_skeleton(one, having, fewest) for one in tokens]


def _skeleton(tokens: Sequence[tuple[str, str]], having: Counter[str], fewest: int) -> str:
    frame: list[str] = []
    for start, token in tokens:
        word = token.lower()
        name = not start and frame and token[0].isupper() and word.split("'")[0].split("’")[0] != "i"
        if not name and not any(char.isdigit() for char in token) and having[word] >= fewest:
            frame.append(word)
            if len(frame) > CUT + 2:  # a gap that follows may yet take in the last two
                break
            continue
        if frame and frame[-1] in _ARTICLES:
            frame.pop()
        if len(frame) > 1 and frame[-1] in _JOINTS and frame[-2] == GAP:
            frame.pop()  # "the Battle of the Bulge" is one gap
        if not frame or frame[-1] != GAP:
            frame.append(GAP)
    return " ".join(frame[:CUT])


def _distinct(words: Iterable[Sequence[str]], n: int) -> float | None:
    """Different n-grams of all there are; None if no question is that long."""
    grams = [tuple(one[at : at + n]) for one in words for at in range(len(one) - n + 1)]
    return len(set(grams)) / len(grams) if grams else None


def _counted(counts: Counter[str]) -> dict[str, Any]:
    (commonest, most), total = counts.most_common(1)[0], counts.total()
    bits = entropy(counts)
    return {
        "different": len(counts),
        "entropy": bits,
        "evenness": bits / math.log2(total) if total > 1 else None,
        "commonest": commonest,
        "share": most / total,
    }


def entropy(counts: Counter[Any] | Counter[Hashable]) -> float:
    """Of what was counted, in bits."""
    total = counts.total()
    return -sum(count / total * math.log2(count / total) for count in counts.values()) + 0.0
