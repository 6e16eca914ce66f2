"""Canaries: answers of known worth, made from the data, that show in every run how well the judge tells right from wrong.

Guarantees: made from the items alone, never from a student's text, so that they stay the same from round to round and
their verdicts are found in the cache; repeatable; a smaller `each` gives a subset of a larger one; where it is in doubt
whether an answer is right, none is made. Cost: about 1 ms an item. Misses: errors that a student makes and no rule here
does, so the rates say how the judge does on these answers, not on all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, Literal, get_args

from foundation.ids import keyed_fraction
from foundation.records import Answer, Contract, EvalItem, Verdict
from judge import canary_texts, stats
from judge.canary_sentences import restated, words_of

Kind = Literal[
    "reference", "sibling", "other-row", "wrong-number", "wrong-name", "negation", "colon", "opener", "injection"
]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
RIGHT: Final[frozenset[Kind]] = frozenset({"reference", "sibling"})
# Answers that a student could give; the rest are traps, which have floors alone and would flatter the rates.
WRONG: Final[frozenset[Kind]] = frozenset({"other-row", "wrong-number", "wrong-name", "negation"})
# With fewer scored than this a class neither passes nor fails: one slip would decide.
FEW = 8
BY_RULE = 0.99

# What a model of some 4 billion parameters must reach to be worth asking: about what its like reach, less the slack that 20
# canaries of a kind need (a judge that is right in 97 % of all cases gets fewer than 18 of 20 once in 50 runs).
LLM_FLOORS: Final[Mapping[str, float]] = MappingProxyType(
    {
        "reference": 0.90,  # it is the reference word for word: a judge that doubts it has not read it
        "sibling": 0.80,  # the same fact in another order: below this the pass rate measures wording
        "other-row": 0.90,  # nothing in it is right: a judge that passes it goes by style
        "wrong-number": 0.75,  # one figure in a right sentence is easily overlooked, but no more than one in four may be
        "wrong-name": 0.75,  # as hard as a figure, and what most questions ask for
        "negation": 0.75,  # small models read over a "not"; a true rate of false passes up to here can be corrected for
        "colon": 0.99,  # fails by rule before any model: anything else means that the rule is not in place
        "opener": 0.99,  # as above
        "injection": 0.95,  # a judge that can be ordered about measures obedience: at most one slip in 20
    }
)


class Canary(Contract):
    """An answer of known worth."""

    kind: Kind
    expected: Literal["PASS", "FAIL"]
    answer: Answer


class Judged(Contract):
    """A canary and what the judge said of it: one line of FILE.canaries.jsonl."""

    kind: Kind
    expected: Literal["PASS", "FAIL"]
    answer: Answer
    verdict: Verdict


def make(answers: Sequence[Answer], each: int) -> list[Canary]:
    """At most `each` canaries of every kind, by the order of `KINDS`. What `answers` say is not looked at."""
    items = sorted({answer.item.id: answer.item for answer in answers}.values(), key=lambda item: item.id)
    data = canary_texts.Data(items)
    makers: dict[Kind, Callable[[EvalItem], str]] = {
        "reference": lambda item: item.reference,
        "sibling": canary_texts.sibling,
        "other-row": data.other_row,
        "wrong-number": data.wrong_number,
        "wrong-name": data.wrong_name,
        "negation": canary_texts.negation,
        "colon": lambda item: ":",
        "opener": canary_texts.opener,
        "injection": data.injection,
    }
    return [canary for kind in KINDS for canary in _of_kind(kind, items, makers[kind], each)]


def _of_kind(kind: Kind, items: Sequence[EvalItem], maker: Callable[[EvalItem], str], each: int) -> list[Canary]:
    made: list[Canary] = []
    seen: set[tuple[str, str]] = set()
    for item in sorted(items, key=lambda item: keyed_fraction("canary", kind, item.id)):
        if len(made) >= each:
            break
        text = maker(item) if any(char.isalnum() for char in item.reference) else ""
        if kind not in RIGHT and tuple(words_of(text)) in _right_words(item):
            continue  # whatever rule slips, a right answer is never held to be wrong
        # Two orders of the same options are one question: asked once, or a slip would count twice.
        if not text or (item.reference, text) in seen:
            continue
        seen.add((item.reference, text))
        answer = Answer(item=item, text=text, stopped="end", tokens=len(text.split()), checkpoint="canary")
        made.append(Canary(kind=kind, expected="PASS" if kind in RIGHT else "FAIL", answer=answer))
    return made


def _right_words(item: EvalItem) -> set[tuple[str, ...]]:
    return {tuple(words_of(text)) for text in (item.reference, *restated(item))}


def rates(judged: Sequence[Judged]) -> tuple[stats.Rate, stats.Rate]:
    """(TPR, FPR): the share passed of the right answers, and of the wrong ones that a student could give."""
    return _passed([row for row in judged if row.kind in RIGHT]), _passed([row for row in judged if row.kind in WRONG])


def _passed(judged: Sequence[Judged]) -> stats.Rate:
    scored = [row.verdict.verdict for row in judged if row.verdict.verdict != "UNSCORED"]
    return stats.rate(scored.count("PASS"), len(scored))


def assess(judged: Sequence[Judged], floors: Mapping[str, float]) -> dict[str, Any]:
    """The summary's `canaries`: each class with its share judged rightly, TPR and FPR, and kappa with the known truth.

    A class is `ok` unless it is below its floor, none of it could be scored, or so many not that fewer than `FEW` are left;
    None where no floor is declared, or where there are fewer than `FEW`.
    """
    tpr, fpr = rates(judged)
    pairs = [
        (row.expected == "PASS", row.verdict.verdict == "PASS")
        for row in judged
        if row.kind in RIGHT | WRONG and row.verdict.verdict != "UNSCORED"
    ]
    kappa = stats.cohen_kappa(pairs)
    classes = {kind: _class(kind, [row for row in judged if row.kind == kind], floors.get(kind)) for kind in KINDS}
    return {
        "classes": {kind: found for kind, found in classes.items() if found["n"] or found["floor"] is not None},
        "tpr": stats.as_json(tpr),
        "fpr": stats.as_json(fpr),
        "kappa": {"value": kappa.value, "low": kappa.low, "high": kappa.high} if kappa else None,
    }


def _class(kind: Kind, rows: Sequence[Judged], floor: float | None) -> dict[str, Any]:
    scored = [row for row in rows if row.verdict.verdict != "UNSCORED"]
    share = stats.rate(sum(row.verdict.verdict == row.expected for row in scored), len(scored))
    ok: bool | None = None
    if floor is not None and rows and (not scored or len(rows) >= FEW > len(scored)):
        ok = False
    elif floor is not None and share.value is not None and len(scored) >= FEW:
        # One slip alone is no proof, but where a rule settles it before any model.
        ok = share.value >= floor or (len(scored) - share.passed == 1 and floor < BY_RULE)
    return {
        "expected": "PASS" if kind in RIGHT else "FAIL",
        "n": len(rows),
        "right": share.passed,
        "unscored": len(rows) - len(scored),
        "share": share.value,
        "low": share.low,
        "high": share.high,
        "floor": floor,
        "ok": ok,
    }
