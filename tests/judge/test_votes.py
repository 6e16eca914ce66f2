"""A random tenth is judged three times: which, with what, and what comes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from foundation.ids import keyed_fraction
from foundation.records import Answer
from foundation.workspace import Workspace
from judge.run import REPEATED, judge, make_plan
from judge.stats import rate
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
from tests.support.fault_server import fault_server, reply


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / "factory.toml").write_text("[judge]\ncanaries = 8\n")
    return tmp_path


def _judge(workspace: Path, grader: Any) -> dict[str, Any]:
    return judge(workspace / "answers.jsonl", workspace / "v.jsonl", grader, Workspace(workspace), baseline=False)


def test_a_tenth_is_judged_three_times_and_the_same_tenth_in_each_round(workspace: Path) -> None:
    path, place = workspace / "answers.jsonl", Workspace(workspace)
    items = [
        make_item(
            f"When did it begin ({number})?",
            f"It began in {1000 + number}.",
            id=f"item {number}",
            article_id=f"a{number % 7}",
        )
        for number in range(300)
    ]
    fresh = [make_answer(item, "In 1939.") for item in items]
    write(path, fresh)
    first = make_plan(path, workspace / "v.jsonl", Scripted(honest), place, baseline=False)
    assert 14 <= len(first.repeats) <= 48  # 30 of 300, within 3.5 deviations
    assert len(first.prints["votes"]) == 2 * len(first.repeats)
    # when another checkpoint answers the same questions in other words, in another order
    other = [make_answer(answer.item, answer.text + " Indeed.") for answer in reversed(fresh)]
    write(path, other)
    second = make_plan(path, workspace / "v.jsonl", Scripted(honest), place, baseline=False)
    # then the same questions are repeated
    chosen = [{plan.requests[name][0].item.id for name in plan.repeats} for plan in (first, second)]
    assert chosen[0] == chosen[1]


def test_each_vote_is_asked_for_and_the_first_one_counts(workspace: Path) -> None:
    write(workspace / "answers.jsonl", dated_answers(5) + dated_answers(10, repeated=True))

    def wavering(answer: Answer, vote: int) -> str:
        number = int(answer.text.split()[-3]) % 100 if is_students(answer) else -1
        says = {0: ("FAIL", "PASS", "PASS"), 1: ("PASS", "FAIL", "parse"), 2: ("parse", "PASS", "parse")}
        repeated = keyed_fraction("judge/votes", answer.item.id) < REPEATED
        return says[number][vote] if repeated and number in says else honest(answer)

    summary = _judge(workspace, Scripted(wavering))
    verdicts = verdicts_of(workspace / "v.jsonl")
    assert [verdict.votes for verdict in verdicts[:5]] == [()] * 5
    assert [verdict.votes for verdict in verdicts[5:9]] == [
        ("FAIL", "PASS", "PASS"),
        ("PASS", "FAIL", "UNSCORED"),
        ("UNSCORED", "PASS", "UNSCORED"),
        ("PASS", "PASS", "PASS"),
    ]
    assert all(verdict.votes[0] == verdict.verdict for verdict in verdicts[5:])
    assert summary["counts"] == {"PASS": 13, "FAIL": 1, "UNSCORED": 1}
    # one of the ten was scored but once: there is nothing to compare
    share = rate(2, 9)
    assert summary["flips"] == {
        "repeated": 9,
        "flipped": 2,
        "rate": share.value,
        "low": share.low,
        "high": share.high,
    }


def test_a_judge_that_never_wavers_has_no_flips_and_one_with_none_repeated_has_no_rate(workspace: Path) -> None:
    write(workspace / "answers.jsonl", dated_answers(12, repeated=True))
    flips = _judge(workspace, Scripted(honest))["flips"]
    assert (flips["repeated"], flips["flipped"], flips["rate"], flips["low"]) == (12, 0, 0.0, 0.0)
    assert 0.1 < flips["high"] < 0.3
    write(workspace / "answers.jsonl", dated_answers(12))
    none = {"repeated": 0, "flipped": 0, "rate": None, "low": None, "high": None}
    assert _judge(workspace, Scripted(honest))["flips"] == none


def test_what_a_rule_settles_is_not_judged_again(workspace: Path) -> None:
    answers = dated_answers(4, repeated=True)
    write(workspace / "answers.jsonl", [answers[0].model_copy(update={"text": ":"}), *answers[1:]])
    grader = Scripted(honest)
    summary = _judge(workspace, grader)
    assert summary["flips"]["repeated"] == 3
    assert verdicts_of(workspace / "v.jsonl")[0].votes == ()
    assert sum(vote > 0 for _, vote in grader.asked) == 6
    # canaries have one vote each
    assert all(is_students(answer) for answer, vote in grader.asked if vote)


def test_a_language_model_draws_again_for_each_vote_and_is_asked_once_for_each(workspace: Path) -> None:
    write(workspace / "answers.jsonl", dated_answers(1, repeated=True))
    with fault_server(lambda server, body: reply("VERDICT: PASS" if body["seed"] % 2 else "VERDICT: FAIL")) as server:
        judge_settings(workspace, server)
        summary = run_json(*JUDGE, "--no-baseline", cwd=workspace)
        asked = [call for call in server.calls if "says student" in call["messages"][-1]["content"]]
        seeds = {call["seed"] for call in asked}
        assert len(asked) == len(seeds) == 3
        assert len({call["messages"][-1]["content"] for call in asked}) == 1
        before = len(server.calls)
        again = run(*JUDGE, "--no-baseline", cwd=workspace)
        assert len(server.calls) == before
    votes = verdicts_of(workspace / "v.jsonl")[0].votes
    assert sorted(votes) == sorted("PASS" if seed % 2 else "FAIL" for seed in seeds)
    assert summary["flips"]["flipped"] == (len(set(votes)) > 1)
    assert "1 answers judged three times" in again.stderr
