"""The rules grader against hand-made cases: fair to other words, not lenient with other facts."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys

import pytest

from foundation.records import Answer
from judge.facts import facts_of, read, same
from judge.outcome import Outcome
from judge.precheck import looping, precheck
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
