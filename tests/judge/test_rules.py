"""The rules grader against hand-made cases: fair to other words, not lenient with other facts."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys

import pytest

from foundation.facts import facts_of, read, same
from foundation.looping import looping
from foundation.records import Answer
from judge.outcome import Outcome
from judge.precheck import precheck
from judge.rules import RulesGrader, grade
from tests.judge.cases import CASES, WINTER, Case, make_answer, make_item


def _judge(answer: Answer) -> Outcome:
    return precheck(answer) or grade(answer.item, answer.text)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_the_verdict_a_careful_person_would_give(case: Case) -> None:
    outcome = _judge(make_answer(make_item(case.question, case.reference), case.answer))
    assert outcome.verdict == case.verdict, outcome
    if case.reason:
        assert outcome.reason == case.reason, outcome
    assert outcome.explanation


def test_the_reference_itself_passes_and_another_ones_answer_does_not() -> None:
    """Every right case's reference, given as the answer, passes; given to another article's question it fails."""
    usable = [case for case in CASES if case.verdict != "UNSCORED"]
    assert all(grade(make_item(c.question, c.reference), c.reference).verdict == "PASS" for c in usable)
    foreign = (
        "The United States Navy sank four Japanese carriers at Midway on 4 June 1942 under Raymond Spruance.",
        "Field Marshal Bernard Montgomery attacked at El Alamein on 23 October 1942.",
        "True. Operation Torch landed 107,000 soldiers in Morocco.",
        "A) Chester Nimitz. Nimitz commanded the Pacific Fleet.",
        "Chester Nimitz",
        "4 June 1942",
    )
    passed = [
        (case.name, text)
        for case in usable
        for text in foreign
        if grade(make_item(case.question, case.reference), text).verdict == "PASS"
    ]
    assert passed == []


def test_a_changed_number_fails_wherever_it_stands() -> None:
    """Canary: one year of a sentence put three years later."""
    sentences = [sentence.strip() + "." for sentence in WINTER.split(". ") if "19" in sentence]
    assert len(sentences) >= 3
    for sentence in sentences:
        years = [word for word in sentence.replace(".", "").split() if word.isdigit() and len(word) == 4]
        changed = sentence
        for year in years:
            changed = changed.replace(year, str(int(year) + 3))
        item = make_item("What happened in the Winter War?", sentence)
        assert grade(item, sentence).verdict == "PASS"
        assert grade(item, changed).verdict == "FAIL", changed


def test_numbers_dates_and_names_have_one_form() -> None:
    def forms(text: str) -> set[tuple[str, ...]]:
        return {(fact.kind, *fact.forms) for fact in facts_of(read(text), frozenset())}

    assert forms("It was 3.8 million.") == forms("It was 3,800,000.") == {("number", "3800000")}
    assert forms("in 1939–45") == forms("in 1939 and 1945")
    assert forms("He fought in World War II.") == forms("He fought in the Second World War.")
    assert forms("two hundred and five men") == {("number", "205")}
    assert forms("It may march in one way.") == set()
    assert forms("In May 1941, the U.S. Navy") == {("month", "may"), ("year", "1941"), ("name", "american", "navy")}
    assert not same("stalin", "stalingrad", name=True)
    assert same("german", "germany", name=True)
    assert same("attacked", "attacks")


def test_any_text_gets_an_outcome() -> None:
    """Random characters of many scripts, in every place: an outcome each time, never an error."""
    chance = random.Random(7)
    alphabet = (
        "abc ABC 19 0,.;:!?'\"-–()\n\tÄß漢字かな한\u200b\ud7ff½²ⅣÅ _*<|im_end|> or not no True May II A) 1939-13-45"
    )
    for _ in range(300):
        question, reference, text = ("".join(chance.choices(alphabet, k=chance.randrange(60))) for _ in range(3))
        assert _judge(make_answer(make_item(question, reference), text)).verdict in ("PASS", "FAIL", "UNSCORED")


def test_loops_are_found_and_rhetoric_is_not() -> None:
    assert looping("the war the war the war the war")
    assert looping("of of of of of")
    assert looping("He said it began in 1939 and. " * 4)
    assert looping(" ".join(f"they came to the town {n}" for n in range(5)))
    assert not looping("The Lewisite, the gas, and the mask: never, never, never again.")
    assert not looping(WINTER)
    assert not looping("")


def test_the_grader_says_what_it_is_and_gives_one_outcome_each() -> None:
    grader = RulesGrader()
    answers = [make_answer(make_item(case.question, case.reference), case.answer) for case in CASES[:5]]

    async def run() -> list[int]:
        with grader.ready():
            return [index async for index, _ in grader.grade([(answer, 0) for answer in answers])]

    assert asyncio.run(run()) == [0, 1, 2, 3, 4]
    assert "not a language model" in grader.about
    assert len(grader.identity) == 24


def test_the_rules_judge_imports_nothing_heavy() -> None:
    script = "import sys, judge.run, judge.rules\nprint([n for n in ('torch', 'transformers', 'vllm', 'aiohttp', 'trainer', 'generator') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
