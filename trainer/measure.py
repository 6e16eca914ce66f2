"""What one answer is worth without a judge, and what many are: matches, facts, repetition, length, memorised spans.

Guarantees: pure and deterministic; what cannot be measured (no fact to state, nothing to repeat) is None and is counted
nowhere, never 0: so is the memorised run of an answer too short to have one. Shares have Wilson's interval. Cost: about
1 ms an answer, nearly all of it reading its texts for facts.
Misses: these are words compared with words. A right answer in other words has no exact match, and a wrong one can hold
every fact of the reference: whether an answer is right is the judge's to say.
"""

from __future__ import annotations

import re
import string
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from math import ceil
from statistics import fmean, median
from typing import Any

from foundation.facts import FIGURES, Fact, core, facts_of, holds, known_names, read, same, same_kind
from foundation.facts import Read as ReadText
from foundation.intervals import Share, newcombe, wilson
from foundation.looping import looping
from foundation.records import Contract, EvalItem, Split
from trainer.memorised import LEAST

GRAM = 4  # seq-rep-4

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)

Figures = dict[str, Any]


def normalised(text: str) -> str:
    """`text` without case, ASCII punctuation, articles and spare white space (SQuAD's way: Rajpurkar et al. 2016)."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(text: str, reference: str) -> bool:
    """Whether both are the same text once normalised. Two that normalise to nothing match only if they are equal."""
    form = normalised(reference)
    return normalised(text) == form if form else text.strip() == reference.strip()


def fact_containment(item: EvalItem, text: str) -> tuple[list[str], list[str]]:
    """The facts that the reference states and the question does not give away: those in the answer, and those missing.

    Dates, other figures and names (`foundation.facts`), each as a person would write it. Both empty: none to state.
    """
    question, reference = read(item.question), read(item.reference)
    known = known_names(read(f"{item.title}.\n{item.snippet}"), question, reference)
    wanted = [fact for fact in facts_of(reference, known) if not _given(question, fact)]
    answer = read(text).tokens
    found = {fact for fact in wanted if holds(answer, fact)}
    return [fact.shown for fact in wanted if fact in found], [fact.shown for fact in wanted if fact not in found]


def _given(question: ReadText, fact: Fact) -> bool:
    """Whether the question has the fact, stated or denied: "Was it 1942 or 1943?" gives both years away."""
    if fact.kind in FIGURES:
        return any(token.form == fact.forms[0] and same_kind(token, fact) for token in question.tokens)
    return all(any(same(form, token.form, name=True) for token in question.tokens) for form in core(fact))


def repetition(tokens: Sequence[int], gram: int = GRAM) -> float | None:
    """seq-rep-n: the share of an answer's n-grams that stood in it before (Welleck et al. 2019, arXiv:1908.04319).

    None for one of fewer than n tokens.
    """
    grams = [tuple(tokens[at : at + gram]) for at in range(len(tokens) - gram + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else None


class Span(Contract):
    """An answer's longest run of tokens that stands word for word in the training data.

    `tokens` 0: none that is long enough. `start` is its first token within the answer, `record` the number of a packed
    training record that has it.
    """

    tokens: int = 0
    start: int = 0
    record: int = -1
    text: str = ""


class Measured(Contract):
    """One answer with all its figures: a line of `trainer eval --out`. `tokens` are the answer's, without `<|im_end|>`.

    `found` and `missing` are the reference's facts that the question does not give away.
    """

    v: int = 1
    item_id: str
    record_id: str
    split: Split
    prompt_type: str
    family: str
    article_id: str
    question: str
    reference: str
    text: str
    ended: bool
    tokens: int
    reference_tokens: int
    exact: bool
    found: tuple[str, ...]
    missing: tuple[str, ...]
    repetition: float | None
    loops: bool
    span: Span

    @property
    def contained(self) -> float | None:
        """The share of the facts that stand in the answer; None without any to state."""
        of = len(self.found) + len(self.missing)
        return len(self.found) / of if of else None

    @property
    def covered(self) -> float | None:
        """The share of the answer that its memorised span is; None of one under `LEAST` tokens, which can have none."""
        return self.span.tokens / self.tokens if self.tokens >= LEAST else None


def measure(
    item: EvalItem, text: str, tokens: Sequence[int], ended: bool, reference_tokens: int, span: Span
) -> Measured:
    """All figures of one answer; `tokens` without the one that ends it."""
    found, missing = fact_containment(item, text)
    return Measured(
        item_id=item.id,
        record_id=item.record_id,
        split=item.split,
        prompt_type=item.prompt_type,
        family=item.family,
        article_id=item.article_id,
        question=item.question,
        reference=item.reference,
        text=text,
        ended=ended,
        tokens=len(tokens),
        reference_tokens=reference_tokens,
        exact=exact_match(text, item.reference),
        found=tuple(found),
        missing=tuple(missing),
        repetition=repetition(tokens),
        loops=bool(looping(text)),
        span=span,
    )


SHARES: dict[str, Callable[[Measured], bool | None]] = {
    "exact": lambda row: row.exact,
    "all_facts": lambda row: None if row.contained is None else not row.missing,
    "ended": lambda row: row.ended,
    "loops": lambda row: row.loops,
    "all_memorised": lambda row: None if row.covered is None else row.covered == 1,
    "parroted": lambda row: (
        None if row.contained is None or row.covered is None else row.covered == 1 and not row.found
    ),
}
"""What a share is taken of: None is not counted. `all_memorised`: the whole answer is one run of training tokens; `parroted`:
it is, and has none of the facts that were asked for."""

MEANS: dict[str, Callable[[Measured], float | None]] = {
    "facts": lambda row: row.contained,
    "repetition": lambda row: row.repetition,
    "covered": lambda row: row.covered,
    "tokens": lambda row: float(row.tokens),
    "reference_tokens": lambda row: float(row.reference_tokens),
}
"""What a mean is taken of; `covered`: the share of the answer that its longest memorised run is."""


def figures(rows: Sequence[Measured]) -> Figures:
    """Of many answers: shares as {"some", "of", "value", "low", "high"}, means as {"mean", "of"}, nothing measured as None.

    `length`: the median of answer tokens by reference tokens; `memorised`: median and 90th percentile (nearest rank) of the
    longest memorised runs, in tokens, of the answers long enough to have one.
    """
    told: Figures = {"answers": len(rows)}
    for name, is_so in SHARES.items():
        seen = [value for row in rows if (value := is_so(row)) is not None]
        share = wilson(sum(seen), len(seen))
        told[name] = _rounded(asdict(share)) if share else None
    for name, value_of in MEANS.items():
        values = [number for row in rows if (number := value_of(row)) is not None]
        told[name] = _rounded({"mean": fmean(values), "of": len(values)}) if values else None
    lengths = [row.tokens / row.reference_tokens for row in rows if row.reference_tokens]
    told["length"] = round(median(lengths), 6) if lengths else None
    spans = sorted(row.span.tokens for row in rows if row.covered is not None)
    told["memorised"] = {"median": median(spans), "p90": spans[ceil(0.9 * len(spans)) - 1]} if spans else None
    return told


def by_family(rows: Iterable[Measured]) -> dict[str, Figures]:
    """The figures of each prompt family, by name."""
    families: dict[str, list[Measured]] = defaultdict(list)
    for row in rows:
        families[row.family].append(row)
    return {family: figures(families[family]) for family in sorted(families)}


def gap(one: Figures, other: Figures) -> Figures:
    """`one` minus `other`, figure by figure, as {"value"}, shares with Newcombe's "low" and "high"; None where either is missing."""
    told: Figures = {}
    for name in (*SHARES, *MEANS, "length", "memorised"):
        left, right = one.get(name), other.get(name)
        if left is None or right is None:
            told[name] = None
        elif name in SHARES:
            told[name] = _rounded(
                dict(zip(("value", "low", "high"), newcombe(Share(**left).ends, Share(**right).ends), strict=True))
            )
        else:
            told[name] = _rounded({"value": _middle(left) - _middle(right)})
    return told


def _middle(figure: Any) -> float:
    """The one number of a mean, of a median, or of two percentiles."""
    if isinstance(figure, dict):
        return float(figure["mean"] if "mean" in figure else figure["median"])
    return float(figure)


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {name: round(value, 6) if isinstance(value, float) else value for name, value in values.items()}
