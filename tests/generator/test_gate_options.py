"""Gates over the options of a question: what cannot be swapped cleanly, and what an answer must and must not name."""

from __future__ import annotations

from typing import Any

import pytest

from foundation.prompt_type import FieldSpec, Options, PromptType, Turn
from generator.gates.fields import CHECKS, check_named, check_options, kind_of, right_option

TWO = PromptType(
    id="contrastive/person",
    version=1,
    summary="",
    fields={
        "stem": FieldSpec(),
        "option_1": FieldSpec(),
        "option_2": FieldSpec(),
        "right": FieldSpec(type="choice", values=("1", "2")),
        "answer": FieldSpec(),
    },
    options=Options(fields=("option_1", "option_2"), right="right", order="both"),
    system="s",
    user="u",
    turns=(
        Turn(role="user", template="{{ stem | trim('?') }}, {{ first }} or {{ second }}?"),
        Turn(role="assistant", template="{% if answer %}{{ answer }}{% endif %}"),
    ),
)
EVENTS = PromptType(
    id="choice/order-of-events",
    version=1,
    summary="",
    fields={"question": FieldSpec(), "event_1": FieldSpec(), "event_2": FieldSpec(), "facts": FieldSpec(type="list")},
    options=Options(fields=("event_1", "event_2"), order="shuffled"),
    system="s",
    user="u",
    turns=(
        Turn(role="user", template="{{ question }} {% for option in options %}{{ option }}{% endfor %}"),
        Turn(role="assistant", template="{{ placed | join(', ') }} {% for fact in facts %}{{ fact }}{% endfor %}"),
    ),
)
PEOPLE = {
    "stem": "Who commanded Task Force 16 at Midway",
    "option_1": "Raymond Spruance",
    "option_2": "William Halsey",
    "right": "1",
    "answer": "Rear Admiral Raymond Spruance commanded it.",
}


def verdict(check: str, **changed: Any) -> str:
    """What one check says of `PEOPLE` with some fields changed: the code, or nothing."""
    result = CHECKS[check](TWO, {**PEOPLE, **changed})
    assert result.ok or result.gate == check
    return result.code


def options_verdict(**changed: Any) -> tuple[str, str]:
    result = check_options(TWO, {**PEOPLE, **changed})
    assert result.ok or result.gate == "options"
    return result.code, result.field


def test_good_options_pass_every_gate_whichever_is_right() -> None:
    for right, name in (("1", "Spruance"), ("2", "Halsey")):
        assert options_verdict(right=right) == ("", "")
        assert verdict("answer-names-right", right=right, answer=f"It was {name}.") == ""
        assert verdict("same-kind", right=right) == ""


def test_the_right_option_is_the_one_whose_number_is_given() -> None:
    assert [right_option(TWO, {**PEOPLE, "right": number}) for number in "12"] == ["option_1", "option_2"]
    assert right_option(EVENTS, {}) == ""


@pytest.mark.parametrize(
    ("one", "other", "code"),
    [
        ("The Hornet", "the hornet!", "same-option"),
        ("1,200", "twelve hundred", "same-option"),
        ("4 June 1942", "June 4, 1942", "same-option"),
        ("15 men", "fifteen men", "same-option"),
        ("Hornet", "the Hornet", "inside-another"),
        ("June 1942", "4 June 1942", "inside-another"),
        ("Midway", "the Battle of Midway", "inside-another"),
        ("Hornet", "Hornets", ""),
        ("15 men", "fifteen ships", ""),
        ("200", "1,200", "inside-another"),
        ("4 June 1942", "5 June 1942", ""),
    ],
)
def test_options_that_are_one_or_one_inside_the_other_are_refused(one: str, other: str, code: str) -> None:
    assert options_verdict(option_1=one, option_2=other) == (code, "option_2" if code else "")


@pytest.mark.parametrize(
    ("stem", "code"),
    [
        ("Which admiral, unlike William Halsey, commanded Task Force 16", "named-twice"),
        ("Did RAYMOND SPRUANCE command Task Force 16", "named-twice"),
        ("Did William command Task Force 16", ""),
    ],
)
def test_an_option_that_the_question_names_is_refused(stem: str, code: str) -> None:
    assert options_verdict(stem=stem) == (code, "stem" if code else "")


def test_a_number_is_not_named_by_the_day_of_a_date() -> None:
    numbers = {"option_1": "4", "option_2": "7"}

    assert options_verdict(stem="How many carriers met on 4 June 1942", **numbers) == ("", "")
    assert options_verdict(stem="How many of the 4 carriers were lost", **numbers) == ("named-twice", "stem")


@pytest.mark.parametrize(
    "answer",
    [
        "The first option is right: Spruance.",
        "Option A, Spruance, is right.",
        "Option 2 is wrong; it was Spruance.",
        "Of the two options, Spruance is right.",
        "It was the former, Spruance not the latter.",
        "Spruance; none of the above served there.",
    ],
)
def test_nobody_speaks_of_an_order_that_code_will_change(answer: str) -> None:
    assert options_verdict(answer=answer) == ("order-named", "answer")


@pytest.mark.parametrize(
    "answer",
    [
        "It was Spruance, the first to strike.",
        "Spruance had a better choice.",
        "Spruance took over from the former commander.",
        "Spruance left them no option but to flee.",
        "Spruance was the only answer a fleet could give.",
    ],
)
def test_words_that_only_look_like_an_order_pass(answer: str) -> None:
    assert options_verdict(answer=answer) == ("", "")


def test_events_have_no_right_one_but_must_be_apart_and_unnumbered() -> None:
    good = {"question": "What came first?", "event_1": "Paris fell", "event_2": "Rome fell", "facts": ["It was so."]}

    assert check_options(EVENTS, good).ok and CHECKS["answer-names-right"](EVENTS, good).ok
    assert check_options(EVENTS, {**good, "event_2": "paris fell"}).code == "same-option"
    assert check_options(EVENTS, {**good, "question": "Rome fell when?"}).code == "named-twice"
    assert check_options(EVENTS, {**good, "facts": ["Yes.", "Option B was first."]}).code == "order-named"


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ("Spruance commanded it.", ""),
        ("Spruance's ships were there.", ""),
        ("It was commanded by an admiral.", "answer-without-right"),
        ("Halsey commanded it.", "answer-names-wrong"),
        ("Spruance had replaced Halsey.", "both-right"),
    ],
)
def test_the_answer_names_the_right_person_and_no_other(answer: str, code: str) -> None:
    assert verdict("answer-names-right", answer=answer) == code


@pytest.mark.parametrize(
    ("right", "wrong", "answer", "code"),
    [
        # what two options share tells nothing
        ("Admiral Raymond Spruance", "Admiral William Halsey", "The admiral led it.", "answer-without-right"),
        ("Battle of Midway", "Battle of the Coral Sea", "Midway was fought far out at sea.", ""),
        ("Battle of Midway", "Battle of the Coral Sea", "The battle was fought at sea.", "answer-without-right"),
        # dates by value, and as exactly as it takes to tell them apart
        ("4 June 1942", "7 June 1942", "It began on June 4th.", ""),
        ("4 June 1942", "7 June 1942", "It began in June 1942.", "answer-without-right"),
        ("4 June 1942", "7 May 1942", "It began in June 1942.", ""),
        ("4 June 1942", "7 May 1942", "It began in May 1942.", "answer-names-wrong"),
        ("1942", "1943", "It began on 4 June 1942.", ""),
        ("1942", "1943", "It began in 1942 and ended in 1943.", "both-right"),
        # numbers by value, and not by the day of a date
        ("15 aircraft", "12 aircraft", "Fifteen of them were lost on 12 June.", ""),
        ("15 aircraft", "12 aircraft", "A dozen were lost.", "answer-names-wrong"),
        ("15 aircraft", "12 aircraft", "Few were lost.", "answer-without-right"),
        # plain words
        ("a shortage of fuel", "bad weather", "They stopped because the fuel ran out.", ""),
        ("a shortage of fuel", "bad weather", "They stopped because they were tired.", "answer-without-right"),
    ],
)
def test_what_tells_the_options_apart_decides(right: str, wrong: str, answer: str, code: str) -> None:
    assert verdict("answer-names-right", option_1=right, option_2=wrong, answer=answer) == code
    assert verdict("answer-names-right", option_1=wrong, option_2=right, right="2", answer=answer) == code


@pytest.mark.parametrize(
    ("option", "kind"),
    [
        ("4 June 1942", "date"),
        ("June 1942", "date"),
        ("the 1940s", "date"),
        ("1942", "year or number"),
        ("in the spring of 1942", "year or number"),
        ("1,542", "number"),
        ("about 20 kilometres", "number"),
        ("three days", "number"),
        ("two American carriers", "number"),
        ("Norway", "other"),
        ("8th Army", "other"),
        ("303 Squadron", "other"),
        ("Task Force 16", "other"),
        ("the raid of 4 June", "other"),
    ],
)
def test_the_kind_of_an_option(option: str, kind: str) -> None:
    assert kind_of(option) == kind


@pytest.mark.parametrize(
    ("one", "other", "code"),
    [
        ("4 June 1942", "in 1943", ""),
        ("1942", "1,542", ""),
        ("15 aircraft", "three", ""),
        ("Midway", "303 Squadron", ""),
        ("4 June 1942", "15 aircraft", "kind"),
        ("4 June 1942", "Midway", "kind"),
        ("Midway", "fifteen", "kind"),
    ],
)
def test_dates_stand_beside_dates_and_numbers_beside_numbers(one: str, other: str, code: str) -> None:
    assert verdict("same-kind", option_1=one, option_2=other) == code


def test_the_checks_a_type_names_are_made_and_no_other() -> None:
    wrong = {**PEOPLE, "option_2": "4 June 1942", "answer": "It was the admiral."}

    def code(*checks: str) -> str:
        return check_named(TWO.model_copy(update={"checks": checks}), wrong).code

    assert code() == ""
    assert code("wrong-on-purpose", "ungrounded") == ""
    assert code("same-kind", "answer-names-right") == "kind"
    assert code("answer-names-right", "same-kind") == "answer-without-right"
    assert set(CHECKS) == {"blank", "answer-names-right", "same-kind", "wrong-on-purpose", "ungrounded"}


@pytest.mark.parametrize(
    ("sentence", "code"),
    [
        ("It began on ____.", ""),
        ("It began on __.", "form"),
        ("It began on _____.", "form"),
        ("It began.", "count"),
        ("____ began on ____.", "count"),
    ],
)
def test_one_blank_of_four_underscores(sentence: str, code: str) -> None:
    assert CHECKS["blank"](TWO, {"sentence": sentence, "answer": "4 June", "facts": ["none"]}).code == code


def test_a_blank_in_a_list_counts_too() -> None:
    fields = {"sentence": "It began on ____.", "facts": ["a ____ here"]}

    assert CHECKS["blank"](TWO, fields).code == "count"
