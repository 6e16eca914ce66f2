"""What fails before any grader, and what must not."""

from __future__ import annotations

import pytest

from foundation.looping import looping
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
    ("question", "reference", "text"),
    [
        ("What place did he take?", "He came first.", "Answer: First"),
        ("What place did he take?", "The 1st.", "Answer: first."),
        ("Right or wrong: was he president?", "Right. He was president.", "The answer is right."),
        ("Right or wrong: was he president?", "Wrong. He never was.", "The answer is right."),  # the grader's to fail
        ("Did they agree?", "Yes, of course.", "Answer: Of course."),
        ("Did they agree?", "Yes. They did.", "Answer: Certainly."),
        ("What is the second phase?", "The second phase is called analysis.", "Analysis."),
        ("What came last?\nA) analysis\nB) planning", "A) analysis", "Analysis"),
        ("Which step was it?", "The third step.", "Step 3."),
        ("Which step was it?", "Step 3.", "Thus: step 3"),
        ("Complete: He played for team ____", "He played for team A", "Complete: He played for team A"),
        ("Complete: He gave no ____", "answer", "Complete: He gave no answer"),
        ("Complete: ____ is Bond's friend", "Q", "Q is Bond's friend"),
        ("Who led it?\nA) Ryti\nB) Tanner", "A) Ryti", "Who led it?\nA) Ryti\nB) Tanner\nA"),
    ],
)
def test_an_opener_or_a_label_that_is_the_answer_is_left_to_the_grader(
    question: str, reference: str, text: str
) -> None:
    assert _reason(text, question, reference) == ""


def test_an_opener_stays_one_where_the_reference_only_shares_a_word_with_it() -> None:
    for text in ("Let me think step by step.", "Thinking process:\n\nStep 1:", "Answer:", "The answer is", "Okay, so"):
        assert _reason(text, reference="The answer is: they took 1 step, so they think it was the process.") == "opener"
    assert _reason("Answer: First") == "opener"
    assert _reason(f"{WHEN} Answer:", reference="No answer came.") == "echo"


POINTS = (
    "began in July 1943",
    "was won by the Red Army",
    "lasted until 23 August",
    "cost 54,000 men",
    "saw many tanks",
)


@pytest.mark.parametrize(
    "text",
    [
        "| Name | Born | Died | Post |\n| --- | --- | --- | --- |\n| Ryti | 1889 | 1956 | President |",
        "| Name | A | B | C | D | E |\n| - | - | - | - | - | - |\n| Ryti | yes | yes | yes | yes | yes |",
        "Ryti | 1889\n--- --- --- --- --- ---\nTanner | 1881",
        "\n".join(f"- The Battle of Kursk {point}." for point in POINTS),
        "\n".join(f"- The great Battle of Kursk {point}." for point in POINTS),
        " ".join(f"The Battle of Kursk in Russia {point}." for point in POINTS),
    ],
)
def test_tables_and_lists_are_no_loops(text: str) -> None:
    assert looping(text) == ""


@pytest.mark.parametrize(
    "text",
    [
        "it was the the the the the war",
        "- The war began.\n" * 4,
        "| Ryti | 1889 |\n" * 5,
        "The war was the war of the winter. " * 4,
        # the same five words, and on as before, with something in between each time
        " ".join(f"In {1930 + n} the front there became the battle of the whole front." for n in range(6)),
    ],
)
def test_what_goes_round_in_circles_is_a_loop(text: str) -> None:
    assert looping(text) != ""
    assert _reason(text) == "looping"
    assert _reason(text + " And so on.", reference=text) == ""  # what repeats itself in the reference may do so here


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
