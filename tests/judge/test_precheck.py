"""What fails before any grader, and what must not."""

from __future__ import annotations

import pytest

from foundation.records import Answer
from judge.canary_texts import OPENERS
from judge.precheck import opens_only, precheck
from tests.judge.cases import BEGAN, CASES, WHEN, make_answer, make_item

QUESTION = "Fill in the blank: ____ didn't win at Tolvajärvi."


def _reason(text: str, question: str = WHEN, reference: str = BEGAN) -> str:
    outcome = precheck(make_answer(make_item(question, reference), text))
    return outcome.reason if outcome else ""


@pytest.mark.parametrize(
    "text",
    [
        *OPENERS,
        "Let me think about this carefully.",
        "<think>\n\n</think>",
        "<think>Okay, so",
        "Okay, let me think.",
        "Sure, let me answer that.",
        "Hmm...",
        "**Answer:**",
        "Great question! Let's break it down:",
        "The answer is",
        "I need to think about this step by step.",
        "Let’s think step by step",
        "Certainly! Here's the answer to your question:",
        "Thinking process:\n\nStep 1:",
        "<|im_start|>assistant\n",
        "Well, to answer this question,",
    ],
)
def test_an_opener_and_no_more_fails(text: str) -> None:
    assert _reason(text) == "opener"


@pytest.mark.parametrize(
    "text",
    [
        "Sure! Here is the answer: 30 November 1939.",
        "<think>the war began in November</think> 30 November 1939",
        "Let me think step by step. It began on 30 November 1939.",
        "Answer: B",
        "The answer is 1939.",
        "Reasoning: the raid was on 30 November 1939.",
        "Step 1: 30 November 1939",
        "Certainly.",
        "Of course!",
        "Sure.",
        "Okay",
        "Yes",
        "First",
        "Right.",
        "Thinkers met there.",
        "Analysis of the code was Rejewski's work.",
        "A",
    ],
)
def test_what_may_be_an_answer_is_left_to_the_grader(text: str) -> None:
    assert _reason(text) == ""


@pytest.mark.parametrize(
    "text",
    [
        QUESTION,
        QUESTION.upper(),
        QUESTION.rstrip("."),
        f"Q: {QUESTION}",
        f"Question: {QUESTION}\nAnswer:",
        f"{QUESTION}\n\nA:",
        f"**{QUESTION}**\n\n**Answer:** ...",
        f"{QUESTION} {QUESTION}",
        QUESTION.replace("____", "_______").replace("'", "’"),
    ],
)
def test_the_question_is_no_answer(text: str) -> None:
    assert _reason(text, QUESTION, "Paavo Talvela") == "echo"


def test_the_question_with_an_answer_behind_it_is_no_echo() -> None:
    assert _reason(f"Question: {WHEN}\nAnswer: 1939") == ""
    assert _reason(f"{WHEN} On 30 November 1939.") == ""
    assert _reason("When did it begin? In the winter.") == ""


def test_the_reference_never_fails_whatever_it_looks_like() -> None:
    odd = ("Thought process:", "the the the the the the", "When did the Winter War begin?", "Reasoning", "Let me think")
    assert [_reason(text, reference=text) for text in odd] == [""] * len(odd)
    usable = [case for case in CASES if any(char.isalnum() for char in case.reference)]
    assert all(
        precheck(make_answer(make_item(case.question, case.reference), case.reference)) is None for case in usable
    )


def test_no_right_answer_of_the_cases_is_failed_here() -> None:
    right = [case for case in CASES if case.verdict == "PASS"]
    assert len(right) > 35
    assert all(precheck(make_answer(make_item(case.question, case.reference), case.answer)) is None for case in right)
    assert not any(opens_only(case.reference) for case in CASES)


def test_the_checks_are_the_same_for_a_long_answer_and_quick_on_hostile_ones() -> None:
    hostile = ("well, " * 4000, "<" * 9000, "Answer: " * 3000, "_" * 9000 + "a", "ok so " * 3000 + "1939")
    for text in hostile:
        answer = make_answer(make_item(WHEN, BEGAN), text)
        assert isinstance(answer, Answer)
        precheck(answer)
