"""Canaries where a rule might slip: what is in doubt is not made, and nothing right is held to be wrong."""

from __future__ import annotations

import re

import pytest

from judge import canary_numbers, canary_texts
from judge.canaries import make
from tests.judge.cases import make_answer, make_item


@pytest.mark.parametrize(
    ("reference", "sibling"),
    [
        ("The army crossed the river Svir before 1944.", "The army crossed the river Svir after 1944."),
        ("The army crossed the river Svir by 1944.", "The army crossed the river Svir in 1944."),
        ("The convoy sailed from Murmansk to Hull in 1942.", "The convoy sailed to Murmansk from Hull in 1942."),
        ("Poland was invaded by Germany in 1939.", "Poland invaded Germany in 1939."),
        ("Finnish troops attacked Soviet troops there.", "Finnish troops were attacked by Soviet troops there."),
        ("The war began in 1939 and ended in 1940.", "The war began in 1940 and ended in 1939."),
        ("He was born in 1889 and led the state.", "He was born and led the state in 1889."),
        ("The men who fell in 1940 had won the day.", "The men who fell had won the day in 1940."),
        ("Ryti or Tanner led the delegation then.", "Ryti and Tanner led the delegation then."),
        ("He died with his men in Turku.", "He died without his men in Turku."),
        ("In the town 1,940 men fought in 1941.", "In 1941 in the town fought 1,940 men."),
        ("Men fought near the lake in 1940.", "1940 men fought near the lake."),
        ("Ryti, said Tanner, had lost the war.", "Ryti said Tanner had lost the war."),
    ],
)
def test_small_words_and_their_order_make_a_sibling_say_something_else(reference: str, sibling: str) -> None:
    for one, other in ((reference, sibling), (sibling, reference)):
        item = make_item("What is known of it?", one)
        assert canary_texts.sibling(item.model_copy(update={"siblings": (other,)})) == ""


def test_a_wrong_decimal_is_another_number_and_never_the_reference_itself() -> None:
    rows = [
        make_answer(make_item(question, reference, id=f"n{n}", article_id=f"a{n}"), "x")
        for n, (question, reference) in enumerate(
            [
                ("How many men took part?", "About 3.8 million men took part."),
                ("How far away was it?", "It was 1.5 km away."),
                ("How much of it was lost?", "Some 10.5 percent of it was lost."),
                ("How far away was it?", "It was 0.1 km away."),
            ]
        )
    ]
    made = [canary for canary in make(rows, 24) if canary.kind == "wrong-number"]
    assert len(made) == 4
    for canary in made:
        wrong, right = (
            float(re.search(r"\d+\.\d+", text)[0])  # type: ignore[index]
            for text in (canary.answer.text, canary.answer.item.reference)
        )
        assert wrong <= right / 2 or wrong >= right * 2
    far = "It was 1.5 km away from 3 companies."  # the decimal is a figure too: two of them
    assert canary_numbers.changed(make_item("How far away was it?", far)) == ""


def test_no_wrong_canary_has_a_right_ones_words(monkeypatch: pytest.MonkeyPatch) -> None:
    # given rules that slip, and give back a right answer
    sibling = "On 3 March 1940, Talvela attacked Summa."
    item = make_item("When did he?", "Talvela attacked Summa on 3 March 1940.")
    answer = make_answer(item.model_copy(update={"siblings": (sibling,)}), "x")
    for slip in (item.reference, item.reference.upper(), sibling):
        monkeypatch.setattr(canary_texts, "negation", lambda _, slip=slip: slip)
        made = make([answer], 5)
        # then no canary is made of it
        assert "sibling" in {canary.kind for canary in made}
        assert "negation" not in {canary.kind for canary in made}


def test_a_wrong_date_behind_a_limit_is_no_vaguer_true_one() -> None:
    for n in range(40):
        for word, earlier in (("Before", True), ("By", True), ("Until", True), ("After", False), ("Since", False)):
            said = canary_numbers.changed(make_item("When was it?", f"{word} 1944.", id=f"row{n}"))
            assert (int(said.split()[1].rstrip(".")) < 1944) == earlier
            day = canary_numbers.changed(make_item("When in June 1944 was it?", f"{word} 14 June 1944.", id=f"row{n}"))
            assert (int(day.split()[1]) < 14) == earlier
    assert canary_numbers.changed(make_item("When was it?", "Not before 1944.")) == ""


def _strange(question: str, reference: str, other: str, snippet: str = "Nothing.") -> bool:
    item = make_item(question, reference, id="one", article_id="a1", snippet=snippet)
    row = make_item("What else?", other, id="other", article_id="a2", snippet="Nothing.")
    return canary_texts.Data([item, row]).other_row(item) != ""


@pytest.mark.parametrize(
    ("question", "reference", "other"),
    [
        ("How many guns were there?", "2 guns.", "Two."),
        ("How many guns were there?", "One gun.", "1."),
        ("How many days?", "About 12,000.", "Some 12 thousand men."),
        ("Who held the town?", "The Soviets.", "Soviet forces."),
        ("Who fought there?", "The British.", "Britain."),
        ("Which army?", "The 2nd Army.", "The Second Army."),
    ],
)
def test_no_other_rows_answer_that_says_the_same_in_another_form(question: str, reference: str, other: str) -> None:
    assert not _strange(question, reference, other)
    assert not _strange(question, other, reference)
    assert _strange(question, reference, "Juho Paasikivi.")


def test_no_other_rows_answer_that_the_passage_may_bear_out() -> None:
    asked = ("Name one town that was bombed.", "Turku.", "Helsinki.")
    assert not _strange(*asked, snippet="Turku and Helsinki were bombed.")
    assert _strange(*asked, snippet="Turku was bombed.")
    assert not _strange("Name one weapon.", "A tank.", "A mortar.", snippet="They had tanks and mortars.")
