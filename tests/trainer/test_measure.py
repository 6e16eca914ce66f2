"""Measures of answers, against values worked out by hand."""

from __future__ import annotations

import pytest

from foundation.records import EvalItem, Split
from trainer.measure import (
    Measured,
    Span,
    by_family,
    exact_match,
    fact_containment,
    figures,
    gap,
    measure,
    normalised,
    repetition,
)

PASSAGE = "The Battle of Iwo Jima was fought in 1945. Holland Smith led the marines. About 7,000 of them died."


def item(question: str, reference: str, *, split: Split = "phrasing", family: str = "wh") -> EvalItem:
    return EvalItem(
        id=f"{question} {reference}",
        record_id="r",
        split=split,
        prompt_type=f"{family}/x",
        family=family,
        article_id="a",
        title="the Battle of Iwo Jima",
        snippet=PASSAGE,
        question=question,
        reference=reference,
    )


def row(text: str, tokens: list[int], span: int = 0, *, ended: bool = True, **how: str) -> Measured:
    """An answer to "Who led the marines?", whose reference has 4 tokens."""
    asked = item("Who led the marines?", "Holland Smith led them in 1945.", **how)  # type: ignore[arg-type]
    return measure(asked, text, tokens, ended, 4, Span(tokens=span))


def test_texts_are_the_same_as_squad_has_it() -> None:
    assert normalised(" The  U.S. Army, an army;\nA theme!") == "us army army theme"
    assert exact_match("the battle of Iwo Jima.", "Battle of Iwo-Jima") is False  # a hyphen joins what a space parts
    assert exact_match("the battle of Iwo Jima.", "Battle of IWO JIMA")
    assert not exact_match("", "Battle")
    assert not exact_match("7000", "7,000 men")
    assert exact_match("7000", "7,000")
    assert exact_match(" The ", "The") and not exact_match("", "The"), "two without a word of their own are not alike"


@pytest.mark.parametrize(
    ("question", "reference", "text", "found", "missing"),
    [
        ("Who led the marines?", "It was Holland Smith.", "Smith did.", ["Holland Smith"], []),
        ("Who led the marines?", "It was Holland Smith.", "Harry Schmidt did.", [], ["Holland Smith"]),
        ("When?", "In 1945 about 7,000 died.", "Some 7000 men died in 1944.", ["7000"], ["1945"]),
        ("Was it 1944 or 1945?", "In 1945.", "In 1945.", [], []),  # the question gives it away
        ("What did Smith do?", "Smith led the marines in 1945.", "He led them in 1945.", ["1945"], []),
        ("Did he lead them?", "He did so.", "He did.", [], []),  # nothing that could be checked
        ("When?", "In 1945.", "Not in 1945.", [], ["1945"]),
        ("When?", "In 1945.", "", [], ["1945"]),
    ],
)
def test_the_facts_that_the_question_does_not_give_away(
    question: str, reference: str, text: str, found: list[str], missing: list[str]
) -> None:
    assert fact_containment(item(question, reference), text) == (found, missing)


def test_repetition_is_the_share_of_four_grams_that_stood_there_before() -> None:
    assert repetition([1, 2, 3]) is None
    assert repetition([1, 2, 3, 4]) == 0
    assert repetition([1, 2, 3, 4, 1, 2, 3, 4]) == pytest.approx(1 - 4 / 5)  # 1234 2341 3412 4123 1234
    assert repetition([7] * 10) == pytest.approx(1 - 1 / 7)
    assert repetition([1, 2, 1, 2], gram=2) == pytest.approx(1 - 2 / 3)


def test_one_answers_figures() -> None:
    told = row("Holland Smith led them.", [1, 2, 3, 4, 5, 1, 2, 3, 4], span=9, ended=False)
    assert (told.exact, told.found, told.missing) == (False, ("Holland Smith",), ("1945",))
    assert (told.contained, told.covered) == (0.5, 1.0)
    assert (told.tokens, told.reference_tokens, told.ended, told.loops) == (9, 4, False, False)
    assert told.repetition == pytest.approx(1 / 6)
    assert row("the war the war the war the war", [1, 2] * 4, span=0, ended=True).loops
    assert Measured.model_validate_json(told.model_dump_json()) == told


def test_figures_of_many_answers() -> None:
    rows = [
        row("Holland Smith led them in 1945.", [1, 2, 3, 4]),
        row("holland smith led them in 1945", [1, 2, 3, 4, 5, 6, 7, 8], span=8),
        row("Holland Smith did.", [*range(1, 17)], span=12, ended=False),
        row("The K-25 plant in Oak Ridge.", [*range(20, 32)], span=12),
        row("", [], ended=False),
    ]
    told = figures(rows)
    assert told["answers"] == 5
    assert (told["exact"]["some"], told["exact"]["of"], told["exact"]["value"]) == (2, 5, 0.4)
    assert (told["exact"]["low"], told["exact"]["high"]) == pytest.approx((0.1176, 0.7693), abs=1e-4)
    assert told["facts"] == {"mean": (1 + 1 + 0.5 + 0 + 0) / 5, "of": 5}
    assert (told["all_facts"]["some"], told["ended"]["some"], told["loops"]["some"]) == (2, 3, 0)
    assert told["repetition"] == {"mean": 0.0, "of": 4}, "the empty one repeats nothing, nor does it not"
    assert (told["tokens"]["mean"], told["reference_tokens"]["mean"], told["length"]) == (8, 4, 2)
    assert told["memorised"] == {"median": 12, "p90": 12}
    assert told["covered"] == {"mean": pytest.approx((1 + 0.75 + 1) / 3, abs=1e-6), "of": 3}
    assert (told["all_memorised"]["some"], told["all_memorised"]["of"]) == (2, 3)
    assert told["parroted"]["some"] == 1, "word for word, and none of what was asked"


def test_what_was_not_measured_is_none_and_not_zero() -> None:
    told = figures([])
    assert told["answers"] == 0
    assert {value for key, value in told.items() if key != "answers"} == {None}
    only = figures([measure(item("Did he?", "He did so."), "Yes.", [1], True, 3, Span())])
    assert (only["facts"], only["all_facts"], only["parroted"]) == (None, None, None)
    assert {key: value for key, value in gap(only, told).items() if value} == {}


def test_an_answer_too_short_for_a_run_is_not_counted_as_one_without() -> None:
    long, short = row("a b c d e f g h", [*range(8)], span=8), row("1945", [1, 2, 3, 4, 5, 6, 7])
    assert (long.covered, short.covered) == (1.0, None)
    told = figures([long, short, short])
    assert told["memorised"] == {"median": 8, "p90": 8}
    assert told["covered"] == {"mean": 1.0, "of": 1}
    for name in ("all_memorised", "parroted"):
        assert (told[name]["some"], told[name]["of"]) == (1, 1), name
    only = figures([short])
    assert [only[name] for name in ("memorised", "covered", "all_memorised", "parroted")] == [None] * 4
    assert only["facts"] == {"mean": 0.5, "of": 1}, "its facts are"


def test_families_apart_and_the_gap_between_splits() -> None:
    trained = [row("Holland Smith led them in 1945.", [1, 2, 3, 4], split="train", family="qpt")] * 3
    trained += [row("No.", [1, 2], split="train")]
    held_out = [row("No.", [1, 2])] * 3 + [row("Holland Smith led them in 1945.", [*range(8)], span=8)]
    assert {family: told["answers"] for family, told in by_family(trained).items()} == {"qpt": 3, "wh": 1}
    told = gap(figures(trained), figures(held_out))
    ends = [told["exact"][key] for key in ("value", "low", "high")]
    assert ends == pytest.approx([0.5, -0.1355, 0.7891], abs=1e-4), "Wilson's (0.3006, 0.9544) and (0.0456, 0.6994)"
    assert told["facts"] == {"value": 0.5}
    assert told["tokens"] == {"value": 3.5 - 3.5}
    assert told["length"] == {"value": 0.5}, "medians of 1, 1, 1, 0.5 and of 0.5, 0.5, 0.5, 2"
    assert told["memorised"] is None
    assert told["covered"] is None, "no trained answer is long enough"
