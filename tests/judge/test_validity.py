"""When a score is refused, when a run is invalid, and what stands beside a pass rate that is given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from foundation.ids import keyed_fraction
from foundation.records import Answer
from foundation.workspace import Workspace
from judge import stats
from judge.files import Files
from judge.run import judge
from judge.summary import MAX_UNSCORED
from tests.judge.cases import make_answer, make_item
from tests.judge.runs import (
    JUDGE,
    Scripted,
    dated_answers,
    honest,
    is_students,
    judge_settings,
    verdicts_of,
    write,
)
from tests.support.commands import run, run_json
from tests.support.fault_server import FaultServer, fault_server, reply

GIVEN = ("pass_rate", "low", "high")


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / "factory.toml").write_text("[judge]\ncanaries = 10\n")
    return tmp_path


def _judge(workspace: Path, grader: Any, answers: list[Answer], **options: bool) -> dict[str, Any]:
    write(workspace / "answers.jsonl", answers)
    return judge(workspace / "answers.jsonl", workspace / "v.jsonl", grader, Workspace(workspace), **options)


def _lenient(answer: Answer, _vote: int) -> str:
    """A judge that passes all that has a figure in it: the reference, and what is wrong too."""
    return "PASS" if any(char.isdigit() for char in answer.text) else "FAIL"


def test_below_a_floor_there_is_no_pass_rate_anywhere_and_counts_stay(workspace: Path) -> None:
    # given a judge that says it can tell a wrong number, and cannot
    grader = Scripted(_lenient, {"reference": 0.9, "wrong-number": 0.75})
    answers = dated_answers(6) + dated_answers(6, repeated=True, split="unseen", family="truth")
    # when it judges
    summary = _judge(workspace, grader, answers)
    # then its score is refused, in a sentence that names class, share and floor
    found = summary["canaries"]["classes"]["wrong-number"]
    assert (found["ok"], summary["canaries"]["classes"]["reference"]["ok"]) == (False, True)
    assert (summary["refused"], summary["valid"]) == (True, False)
    (problem,) = summary["problems"]
    share = f"got {found['right']} of {found['n']} right ({found['share']:.1%})"
    assert "“wrong-number”" in problem
    assert share in problem
    assert "75%" in problem
    # and nothing that could be taken for one is left, but what was counted is
    groups = [part for name in ("by_split", "by_family", "by_article") for part in summary[name].values()]
    for part in (summary, summary["baseline"], *groups, *(part["baseline"] for part in groups if "baseline" in part)):
        assert [part[name] for name in GIVEN] == [None, None, None]
    assert [part["corrected"] for part in (summary, *summary["by_split"].values())] == [None] * 3
    assert [part["clustered"] for part in (summary, *summary["by_split"].values())] == [None] * 3
    assert (summary["above_baseline"], summary["clearly_above_baseline"]) == (None, False)
    assert summary["counts"]["PASS"] == summary["passed"] == 12
    assert {part["counts"]["PASS"] for part in summary["by_split"].values()} == {6}
    # what is known of the judge itself stays
    assert summary["canaries"]["tpr"]["pass_rate"] == 1.0
    assert summary["flips"]["rate"] == 0.0
    assert json.loads(Files(workspace / "v.jsonl").summary.read_text()) == summary


def test_a_class_without_a_floor_refuses_nothing(workspace: Path) -> None:
    summary = _judge(workspace, Scripted(_lenient, {"reference": 0.9}), dated_answers(12))
    assert (summary["refused"], summary["valid"], summary["problems"]) == (False, True, [])
    assert summary["pass_rate"] == 1.0
    assert summary["canaries"]["fpr"]["pass_rate"] > 0.3


def test_too_many_unscored_make_the_run_invalid_and_leave_the_figures(workspace: Path) -> None:
    assert MAX_UNSCORED == 0.02
    answers = dated_answers(50)

    def grader(unscored: int) -> Scripted:
        lost = {answer.item.id for answer in answers[:unscored]}
        return Scripted(
            lambda answer, vote: "parse" if answer.item.id in lost and is_students(answer) else honest(answer),
            identity=str(unscored),
        )

    enough = _judge(workspace, grader(1), answers, baseline=False)
    assert (enough["valid"], enough["problems"], enough["scored"]) == (True, [], 49)
    many = _judge(workspace, grader(2), answers, baseline=False)
    assert (many["valid"], many["refused"], many["scored"], many["pass_rate"]) == (False, False, 48, 1.0)
    (problem,) = many["problems"]
    assert problem.startswith(
        "the run is invalid: 2 of 50 answers are unscored (4.0%, at most 2% may be): parse 2; `parse`"
    )
    assert "no verdict that could be read" in problem
    none = _judge(workspace, grader(50), answers, baseline=False)
    assert none["problems"][0].startswith("no answer could be scored, so there is no pass rate (parse 50; `parse`: ")
    assert len(none["problems"]) == 1
    assert (none["valid"], none["pass_rate"], none["corrected"], none["clustered"]) == (False, None, None, None)
    assert none["counts"] == {"PASS": 0, "FAIL": 0, "UNSCORED": 50}


def test_an_empty_reference_is_unscored_and_nobody_is_asked(workspace: Path) -> None:
    answers = dated_answers(4)
    empty = make_item("When did it end?", " -- ", id="empty", article_id="a1")
    grader = Scripted(honest)
    summary = _judge(workspace, grader, [*answers, make_answer(empty, "In 1940, says student 9 of them.")])
    last = verdicts_of(workspace / "v.jsonl")[-1]
    assert (last.verdict, last.reason) == ("UNSCORED", "reference")
    assert all(answer.item.id != "empty" for answer, _ in grader.asked)
    assert (summary["scored"], summary["pass_rate"], summary["valid"]) == (4, 1.0, False)
    # and the sentence says what that means and what to do
    (problem,) = summary["problems"]
    assert "reference 1; `reference`: the reference is empty" in problem
    assert "make the answers again with `trainer answer`, or leave those rows out" in problem


def test_canaries_that_the_engine_failed_on_make_the_run_invalid(workspace: Path) -> None:
    answers = dated_answers(12)
    grader = Scripted(lambda answer, vote: honest(answer) if is_students(answer) else "engine")
    summary = _judge(workspace, grader, answers, baseline=False)
    assert (summary["valid"], summary["refused"], summary["pass_rate"]) == (False, False, 1.0)
    (problem,) = summary["problems"]
    assert "the engine failed on" in problem
    assert "canaries" in problem
    # with floors, a class of which nothing was scored is not held to be judged rightly
    grader = Scripted(grader.say, {"reference": 0.9}, identity="2")
    summary = _judge(workspace, grader, answers, baseline=False)
    assert summary["refused"]
    assert any("“reference”" in problem and "could score none" in problem for problem in summary["problems"])


def test_each_split_must_bear_its_own_figures(workspace: Path) -> None:
    # given few unscored of all answers, but many of the held-out phrasings, which are the headline
    held = dated_answers(50)
    trained = [
        answer.model_copy(
            update={"item": answer.item.model_copy(update={"id": f"t{answer.item.id}", "split": "train"})}
        )
        for answer in dated_answers(150)
    ]
    lost = {answer.item.id for answer in held[:3]}

    def say(answer: Answer, vote: int) -> str:
        return "parse" if answer.item.id in lost and is_students(answer) else honest(answer)

    summary = _judge(workspace, Scripted(say), [*held, *trained], baseline=False)
    # then the run is invalid, and the sentence names the split as people know it
    assert summary["counts"]["UNSCORED"] == 3 <= MAX_UNSCORED * 200
    assert not summary["valid"]
    (problem,) = summary["problems"]
    assert "3 of 50 answers of held-out phrasing are unscored (6.0%" in problem


def test_a_judge_that_keeps_silent_on_canaries_does_not_escape_its_floor(workspace: Path) -> None:
    # given a judge that gets negations wrong, and gives a verdict on few of them
    def negated(answer: Answer) -> bool:
        return answer.text.startswith("It is not true")

    spoken: list[str] = []

    def mute(answer: Answer, vote: int) -> str:
        if not negated(answer):
            return honest(answer)
        spoken.append(answer.item.id)
        return "PASS" if len(set(spoken)) <= 3 else "parse"

    summary = _judge(workspace, Scripted(mute, {"negation": 0.75}), dated_answers(30), baseline=False)
    found = summary["canaries"]["classes"]["negation"]
    assert found["n"] - found["unscored"] == 3 < found["n"]
    assert (found["ok"], summary["refused"], summary["pass_rate"]) == (False, True, None)

    # and one that is right wherever it speaks is not put to the test by that
    def quiet(answer: Answer, vote: int) -> str:
        return "parse" if negated(answer) else honest(answer)

    summary = _judge(workspace, Scripted(quiet, {"reference": 0.9}, identity="2"), dated_answers(30), baseline=False)
    assert (summary["valid"], summary["refused"]) == (False, False)
    (problem,) = summary["problems"]
    assert f"{found['n']} of " in problem
    assert "canaries are unscored" in problem

    # and of one that is right, but on too few, it is said so
    def seldom(answer: Answer, vote: int) -> str:
        return "parse" if negated(answer) and answer.item.id not in spoken[:1] else honest(answer)

    summary = _judge(workspace, Scripted(seldom, {"negation": 0.75}, identity="3"), dated_answers(30), baseline=False)
    assert "the judge could score only 1, too few to tell" in summary["problems"][0]


def test_the_pass_rate_stands_corrected_and_with_its_articles_beside(workspace: Path) -> None:
    # given a judge that passes some of what is wrong, and answers of which one article's are all wrong
    answers = dated_answers(30)
    wrong = [answer.model_copy(update={"text": "In 1940, no."}) for answer in dated_answers(40)[30:]]
    rows = [*answers, *wrong]

    def careless(answer: Answer, vote: int) -> str:
        wrong = answer.checkpoint == "canary" and keyed_fraction("careless", answer.text) < 0.3
        return "PASS" if wrong else honest(answer)

    grader = Scripted(careless)
    summary = _judge(workspace, grader, rows, baseline=False)
    # then the corrected rate is that of the whole run's canaries, and each split has its own
    true, false = (summary["canaries"][name] for name in ("tpr", "fpr"))
    rates = [stats.rate(part["passed"], part["scored"]) for part in (summary, true, false)]
    expected = stats.corrected(*rates)
    assert expected is not None
    assert summary["corrected"] == {"value": expected.value, "low": expected.low, "high": expected.high}
    assert 0 < false["pass_rate"] < 0.9
    assert summary["corrected"]["value"] < summary["pass_rate"] == 0.75
    assert summary["by_split"]["phrasing"]["corrected"] == summary["corrected"]  # there is but one
    assert summary["clustered"]["low"] <= summary["low"]
    assert set(summary["clustered"]) == {"low", "high"}
    by_article = summary["by_article"]
    assert sum(part["scored"] for part in by_article.values()) == 40
    assert {part["title"] for part in by_article.values()} == {"Winter War"}


def test_under_five_articles_there_is_no_clustered_interval(workspace: Path) -> None:
    summary = _judge(workspace, Scripted(honest), dated_answers(12, article_id="one"), baseline=False)
    assert summary["pass_rate"] == 1.0
    assert summary["clustered"] is None


def test_the_command_says_the_problems_first_and_shows_no_rate_that_is_refused(workspace: Path) -> None:
    """A language model that passes everything: it falls through the floors that it declares itself."""
    write(workspace / "answers.jsonl", dated_answers(12))
    with fault_server(lambda server, body: reply("Fine.\nVERDICT: PASS")) as server:
        judge_settings(workspace, server, "canaries = 10")
        done = run(*JUDGE, cwd=workspace)
    said = [line for line in done.stderr.splitlines() if not line.startswith(("grader:", "judge:"))]
    assert said[0].startswith("the pass rate is refused: of the canaries “")
    assert "%" not in done.stdout.replace("(95 %)", "")
    assert "judged rightly, below the floor" in done.stderr
    assert "of shuffled answers" not in done.stderr


def test_a_server_that_fails_on_everything_is_said_and_asked_again(workspace: Path) -> None:
    write(workspace / "answers.jsonl", dated_answers(9))
    with fault_server(lambda server, body: (400, {"error": "\x1b[2Jno"})) as server:
        judge_settings(workspace, server, "canaries = 8")
        done = run(*JUDGE, cwd=workspace)
        summary = json.loads(Files(workspace / "v.jsonl").summary.read_text())
    assert "no answer could be scored, so there is no pass rate (engine 9; `engine`: " in done.stderr
    assert "\x1b" not in done.stderr  # what a server says does not reach the terminal as it is
    assert (summary["valid"], summary["counts"]["UNSCORED"]) == (False, 9)

    def right(_: FaultServer, body: dict[str, Any]) -> Any:
        asked = body["messages"][-1]["content"]
        return reply("VERDICT: PASS" if "says student" in asked else "VERDICT: FAIL")

    with fault_server(right) as server:
        judge_settings(workspace, server, "canaries = 8")
        again = run_json(*JUDGE, cwd=workspace)
    assert (again["counts"]["PASS"], again["reused"]) == (9, 0)
