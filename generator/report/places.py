"""Where in its snippet a record's facts come from: first, middle or last third.

Guarantees: pure. A sentence scores by the words it shares with what the teacher wrote, each counted for less the more of the
snippet's sentences have it (1 over their number); words of over half of the sentences and of three letters and fewer do not
count. A record is shared out, by score, among the sentences with at least half of the best one's; a sentence that lies in two
thirds is shared out by length. So a record from everywhere, like most rewritings, counts a third for each.
Misses: paraphrase: a sentence retold in other words. Cost: about 60 µs a record, and one pass over the corpus' blocks (10 µs a
snippet) until the sampled ones are found.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from generator.near import words_of

if TYPE_CHECKING:
    from foundation.corpus import Corpus

SHORTEST = 4  # letters
NAMES = ("first", "middle", "last")


def sentences_of(corpus: Corpus, wanted: set[str]) -> dict[str, tuple[str, ...]]:
    """The sentences of some snippets, as far as the corpus still has them."""
    found: dict[str, tuple[str, ...]] = {}
    for block in corpus.blocks():
        if len(found) == len(wanted):
            break
        found |= {one.id: one.sentences for one in corpus.snippets(block) if one.id in wanted}
    return found


def places(sentences: dict[str, tuple[str, ...]], sample: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Shares of the thirds over sampled (snippet id, text); `unclear` is of the records that share no telling word."""
    sums, placed, unclear = [0.0, 0.0, 0.0], 0, 0
    for snippet, text in sample:
        if snippet not in sentences:
            continue
        shares = place(sentences[snippet], text)
        if shares is None:
            unclear += 1
            continue
        placed += 1
        sums = [one + other for one, other in zip(sums, shares, strict=True)]
    if not placed + unclear:
        return {}
    thirds = {name: total / placed if placed else None for name, total in zip(NAMES, sums, strict=True)}
    return {"records": placed + unclear, **thirds, "unclear": unclear / (placed + unclear)}


def place(sentences: Sequence[str], text: str) -> tuple[float, float, float] | None:
    """How much of a text comes from each third of its snippet, in all 1; None if no sentence can be told."""
    having = [set(words_of(sentence)) for sentence in sentences]
    counts = Counter(word for one in having for word in one)
    written = {
        word
        for word in set(words_of(text)) & counts.keys()
        if (len(word) >= SHORTEST or word.isdigit()) and (counts[word] <= len(sentences) / 2 or len(sentences) < 3)
    }
    scores = [sum(1 / counts[word] for word in one & written) for one in having]
    best = max(scores, default=0.0)
    if not best:
        return None
    kept = [score if score >= best / 2 else 0.0 for score in scores]
    thirds = [0.0, 0.0, 0.0]
    for at, score in enumerate(kept):
        low, high = at / len(kept), (at + 1) / len(kept)
        for third in range(3):
            inside = min(high, (third + 1) / 3) - max(low, third / 3)
            thirds[third] += score / sum(kept) * max(inside, 0.0) / (high - low)
    return thirds[0], thirds[1], thirds[2]
