"""A run of the judge: files whole or absent, unscored never counted, what servers do told apart, bad input named."""

from __future__ import annotations

import itertools
import json
import signal
from pathlib import Path
from typing import Any

import pytest

from foundation.errors import UsageError
from foundation.workspace import Workspace
from judge.cache import FILE
from judge.canaries import Judged
from judge.files import Files, read_answers
from judge.rules import RulesGrader
from judge.run import judge, shuffle
from tests.judge.cases import CASES, make_answer
from tests.judge.runs import (
    JUDGE,
    Scripted,
    await_calls,
    await_kept,
    case_answers,
    dated_answers,
    judge_settings,
    running_judge,
    verdicts_of,
    write,
)
from tests.support.commands import run, run_json
from tests.support.fault_server import FaultServer, fault_server, reply


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / "factory.toml").touch()
    write(tmp_path / "answers.jsonl", case_answers())
    return tmp_path


def test_verdicts_stand_in_the_order_of_the_answers_and_the_summary_adds_up(workspace: Path) -> None:
    (workspace / "deep").mkdir()
    out = workspace / "deep" / "v.jsonl"
    summary = judge(workspace / "answers.jsonl", out, RulesGrader(), Workspace(workspace))
    verdicts = verdicts_of(out)
    assert [verdict.item_id for verdict in verdicts] == [f"i{number}" for number in range(len(CASES))]
    assert [verdict.verdict for verdict in verdicts] == [case.verdict for case in CASES]
    assert summary == json.loads(Files(out).summary.read_text())
    counts = summary["counts"]
    assert counts == {name: sum(case.verdict == name for case in CASES) for name in ("PASS", "FAIL", "UNSCORED")}
    assert counts["UNSCORED"] > 0
    assert summary["reasons"]["UNSCORED"] == {"reference": counts["UNSCORED"]}
    assert summary["scored"] == counts["PASS"] + counts["FAIL"]
    assert summary["pass_rate"] == pytest.approx(counts["PASS"] / summary["scored"], abs=1e-6)
    assert summary["low"] < summary["pass_rate"] < summary["high"]
    splits = summary["by_split"]
    assert sum(part["counts"]["PASS"] for part in splits.values()) == counts["PASS"]
    # families and articles are of the measure: the held-out phrasings
    assert summary["measure"] == "phrasing"
    for group in ("by_family", "by_article"):
        passed = sum(part["counts"]["PASS"] for part in summary[group].values())
        assert passed == splits["phrasing"]["counts"]["PASS"]
    assert summary["by_article"]["a3"]["title"] == "Winter War"
    assert len(summary["by_article"]) == 7
    ended = [answer.stopped == "end" for answer in case_answers()]
    assert summary["stop_rate"] == pytest.approx(sum(ended) / len(CASES), abs=1e-6)
    assert summary["by_split"]["unseen"]["stop_rate"] == 1.0  # the odd rows; every fourth was cut off
    assert summary["by_split"]["phrasing"]["stop_rate"] == pytest.approx(sum(ended[::2]) / len(ended[::2]), abs=1e-6)
    names = ["v.jsonl", "v.jsonl.canaries.jsonl", "v.jsonl.shuffled.jsonl", "v.jsonl.summary.json"]
    assert sorted(path.name for path in out.parent.iterdir()) == names


def test_the_shuffled_baseline_is_low_and_stands_beside(workspace: Path) -> None:
    path, out, place = workspace / "answers.jsonl", workspace / "v.jsonl", Workspace(workspace)
    summary = judge(path, out, RulesGrader(), place)
    assert summary["baseline"]["pass_rate"] < 0.12
    assert summary["clearly_above_baseline"]
    assert summary["above_baseline"]["low"] > 0
    assert len(verdicts_of(Files(out).shuffled)) == len(CASES)
    assert judge(path, out, RulesGrader(), place, baseline=False)["baseline"] is None
    assert not Files(out).shuffled.exists()


def test_a_shuffled_answer_comes_from_the_same_split() -> None:
    answers = case_answers()
    split_of = {answer.text: answer.item.split for answer in answers}
    for own, mixed in zip(answers, shuffle(answers), strict=True):
        assert own.item == mixed.item
        texts = [answer.text for answer in answers]
        if texts.count(mixed.text) == 1:
            assert split_of[mixed.text] == own.item.split


def test_canaries_are_judged_in_every_run_and_stand_beside(workspace: Path) -> None:
    out = workspace / "v.jsonl"
    summary = judge(workspace / "answers.jsonl", out, RulesGrader(), Workspace(workspace))
    lines = Files(out).canaries.read_text().splitlines()
    judged = [Judged.model_validate_json(line) for line in lines]
    classes = summary["canaries"]["classes"]
    for kind, found in classes.items():
        rows = [row for row in judged if row.kind == kind]
        right = sum(row.verdict.verdict == row.expected for row in rows)
        assert (found["n"], found["right"]) == (len(rows), right)
        assert all(row.verdict.item_id == row.answer.item.id for row in rows)
    assert {"reference", "other-row", "colon", "injection"} <= set(classes)
    assert max(found["n"] for found in classes.values()) == 24  # judge.canaries
    assert summary["canaries"]["tpr"]["scored"] >= 24


def test_all_that_is_judged_comes_to_the_grader_at_once_by_question(workspace: Path) -> None:
    """One stream keeps an engine's batch full; those on one question stand together, since they share most of the prompt."""
    write(workspace / "answers.jsonl", dated_answers(6) + dated_answers(2, repeated=True))
    grader = Scripted(lambda answer, vote: "PASS")
    summary = judge(workspace / "answers.jsonl", workspace / "v.jsonl", grader, Workspace(workspace))
    items = [answer.item.id for answer, _ in grader.asked]
    assert len(items) == summary["graded"]
    assert [vote for _, vote in grader.asked].count(2) == 2
    assert sum(answer.checkpoint == "canary" for answer, _ in grader.asked) > 8
    changes = sum(one != other for one, other in itertools.pairwise(items))
    assert changes == len(set(items)) - 1 == 7


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_judge_keeps_what_it_has(workspace: Path, number: int) -> None:
    def slow(server: FaultServer, _: dict[str, Any]) -> Any:
        return reply("VERDICT: PASS") if len(server.calls) <= 5 else 60.0

    with fault_server(slow) as server:
        judge_settings(workspace, server, "concurrency = 2")
        with running_judge(workspace) as process:
            await_calls(server, 7, process)
            await_kept(workspace, 5, process)
            process.send_signal(number)
            out, err = process.communicate(timeout=15)
        assert process.returncode == 130
        assert "Traceback" not in err
        assert out == ""
        assert not list(workspace.glob("v.jsonl*"))
        planned = run_json(*JUDGE, "--dry-run", cwd=workspace)
    assert sum(part["kept"] for part in planned["parts"].values()) >= 5


def test_a_reply_that_is_cut_off_is_asked_for_once_more_with_more_room(workspace: Path) -> None:
    def behaviour(_: FaultServer, body: dict[str, Any]) -> Any:
        return reply("Right.\nVERDICT: PASS") if body["max_tokens"] > 100 else reply("Let me think about", "length")

    write(workspace / "answers.jsonl", dated_answers(4))
    with fault_server(behaviour) as server:
        judge_settings(workspace, server, "max_tokens = 100")
        summary = run_json(*JUDGE, "--no-baseline", cwd=workspace)
    assert summary["counts"] == {"PASS": 4, "FAIL": 0, "UNSCORED": 0}
    room = [call["max_tokens"] for call in server.calls]
    assert room.count(100) == room.count(200) == summary["graded"]


def test_what_the_server_does_to_a_reply_is_unscored_and_said(workspace: Path) -> None:
    faults = [reply("<think>", "length"), reply("Hm."), (400, {"error": "too long"}), reply("", "content_filter")]

    def behaviour(_: FaultServer, body: dict[str, Any]) -> Any:
        asked = body["messages"][-1]["content"]
        return next(
            (fault for row, fault in enumerate(faults) if f"says student {row}" in asked), reply("VERDICT: FAIL")
        )

    write(workspace / "answers.jsonl", dated_answers(4))
    with fault_server(behaviour) as server:
        judge_settings(workspace, server, "max_tokens = 64")
        done = run(*JUDGE, "--no-baseline", cwd=workspace)
    assert "no answer could be scored, so there is no pass rate" in done.stderr
    verdicts = verdicts_of(workspace / "v.jsonl")
    assert [verdict.reason for verdict in verdicts] == ["length", "parse", "engine", "refusal"]
    assert "too long" in verdicts[2].explanation
    summary = json.loads((workspace / "v.jsonl.summary.json").read_text())
    assert (summary["pass_rate"], summary["counts"]["UNSCORED"], summary["valid"]) == (None, 4, False)


def test_a_dry_run_counts_and_starts_nothing(workspace: Path) -> None:
    write(workspace / "answers.jsonl", dated_answers(6) + dated_answers(2, repeated=True))
    with fault_server(lambda server, body: reply("VERDICT: PASS")) as server:
        judge_settings(workspace, server)
        done = run(*JUDGE, "--dry-run", cwd=workspace)
        planned = run_json(*JUDGE, "--dry-run", cwd=workspace)
        assert not server.calls
        assert [path.name for path in workspace.iterdir() if path.name not in ("factory.toml", "answers.jsonl")] == []
        summary = run_json(*JUDGE, cwd=workspace)
        after = run_json(*JUDGE, "--dry-run", cwd=workspace)
    parts = planned["parts"]
    assert {name: part["rows"] for name, part in parts.items() if name != "canaries"} == {
        "answers": 8,
        "votes": 4,
        "baseline": 8,
    }
    assert parts["answers"] == {"rows": 8, "ruled": 0, "kept": 0, "ask": 8}
    assert parts["canaries"]["ruled"] >= 8  # a colon needs no grader
    assert planned["ask"] == summary["graded"] == len(server.calls)
    assert after["ask"] == 0
    assert after["parts"]["votes"] == {"rows": 4, "ruled": 0, "kept": 4, "ask": 0}
    assert "votes 2 and 3 of a tenth" in done.stdout
    assert "nothing has been started" in done.stderr


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ["no such file of answers", "nothing.jsonl"]),
        ("", ["holds no answer"]),
        ("{}\n", ["answers.jsonl:1", "field item"]),
        ("GOOD\nGOOD\n{not json\n", ["answers.jsonl:3", "Invalid JSON"]),
        ("GOOD\nEXTRA\n", ["answers.jsonl:2", "field surprise"]),
        ("MISSING\n", ["answers.jsonl:1", "field item.reference"]),
        ("GOOD\nOTHER\n", ["the item i0 stands here twice with two values of reference"]),
        ("\udcff\n", ["answers.jsonl:1"]),
    ],
)
def test_bad_answers_are_refused_by_file_line_and_field(workspace: Path, content: str | None, words: list[str]) -> None:
    good = case_answers()[0].model_dump()
    missing, other = json.loads(json.dumps(good)), json.loads(json.dumps(good))
    del missing["item"]["reference"]
    other["item"]["reference"] = "On 1 December 1939."
    if content is not None:
        for name, value in (
            ("GOOD", good),
            ("MISSING", missing),
            ("OTHER", other),
            ("EXTRA", {**good, "surprise": 1}),
        ):
            content = content.replace(name, json.dumps(value))
        (workspace / "answers.jsonl").write_bytes(content.encode("utf-8", "surrogateescape"))
    name = "nothing.jsonl" if content is None else "answers.jsonl"
    with pytest.raises(UsageError) as caught:
        judge(workspace / name, workspace / "v.jsonl", RulesGrader(), Workspace(workspace))
    for word in [*words, "mend:"]:
        assert word in str(caught.value)
    assert not list(workspace.glob("v.jsonl*"))
    assert not (workspace / "train").exists()


def test_blank_lines_are_no_answers_and_no_row_counts_twice(workspace: Path) -> None:
    path, out = workspace / "answers.jsonl", workspace / "v.jsonl"
    path.write_text("\n" + path.read_text() + "\n\n")
    assert len(read_answers(path)[0]) == len(CASES)
    answers = dated_answers(3, repeated=True)
    siblings = answers[0].item.model_copy(update={"siblings": ("It began late in 1939.",)})
    more = make_answer(siblings, "In 1939, says student 0 of them.")
    write(path, [*answers, *answers[1:]])
    with pytest.raises(UsageError, match="one answer stands here twice, as number 2 and 4"):
        read_answers(path)
    write(path, [*answers, more])
    summary = judge(path, out, Scripted(lambda answer, vote: "PASS"), Workspace(workspace), baseline=False)
    assert summary["counts"]["PASS"] == 4
    assert summary["flips"]["repeated"] == 4  # three questions, one of them with two answers
    assert len(verdicts_of(out)) == 4


def test_wrong_use_is_refused(workspace: Path) -> None:
    path, place = workspace / "answers.jsonl", Workspace(workspace)
    before = path.read_bytes()
    with pytest.raises(UsageError, match="names the file of answers"):
        judge(path, path, RulesGrader(), place)
    fellow = Files(workspace / "v.jsonl").canaries
    path.rename(fellow)  # the run would write over it
    with pytest.raises(UsageError, match="names the file of answers"):
        judge(fellow, workspace / "v.jsonl", RulesGrader(), place)
    fellow.rename(path)
    for name in (FILE, f"{FILE}-wal", f"{FILE}-shm"):  # it is open while the verdicts are put in place
        with pytest.raises(UsageError, match="names the cache of verdicts"):
            judge(path, workspace / "train" / name, RulesGrader(), place)
    (workspace / "train").mkdir()
    (workspace / "v.jsonl.summary.json").symlink_to(workspace / "train" / FILE)
    with pytest.raises(UsageError, match="names the cache of verdicts"):
        judge(path, workspace / "v.jsonl", RulesGrader(), place)
    with pytest.raises(UsageError, match="names a folder"):
        judge(path, workspace, RulesGrader(), place)
    assert path.read_bytes() == before
    done = run("judge", "run", "--answers", str(path), "--out", "v", "--backend", "openai", cwd=workspace, code=2)
    assert "judge.base_url is not a URL" in done.stderr
    done = run("judge", "run", "--answers", str(path), "--out", "v", "--backend", "llama", cwd=workspace, code=2)
    assert "rules" in done.stderr
    done = run("judge", "run", "--answers", str(path), "--out", "gone/v", cwd=workspace, code=2)
    assert "the folder for the verdicts does not exist" in done.stderr
    done = run("judge", "run", "--answers", "nothing.jsonl", "--out", "v", cwd=workspace, code=2)
    assert "there is no such file of answers" in done.stderr
    assert done.stdout == ""


def test_a_server_that_is_not_there_is_a_failure_and_resumable(workspace: Path) -> None:
    (workspace / "factory.toml").write_text('[judge]\nbackend = "openai"\nbase_url = "http://127.0.0.1:9/v1"\n')
    write(workspace / "answers.jsonl", dated_answers(4))
    done = run(*JUDGE, cwd=workspace, code=1)
    assert "cannot be reached" in done.stderr
    assert not list(workspace.glob("v.jsonl*"))
    assert run_json(*JUDGE, "--backend", "rules", cwd=workspace)["scored"] == 4


def test_two_judges_on_one_file_are_refused(workspace: Path) -> None:
    with fault_server(lambda server, body: 20.0) as server:
        judge_settings(workspace, server)
        with running_judge(workspace) as process:
            await_calls(server, 1, process)
            done = run(*JUDGE, cwd=workspace, code=1)
    assert f"another judge writes the same file (pid {process.pid})" in done.stderr
    # the lock that the killed one left is nobody's
    assert (workspace / "v.jsonl.lock").exists()
    assert run_json(*JUDGE, "--backend", "rules", cwd=workspace)["scored"] > 0
    assert not (workspace / "v.jsonl.lock").exists()


def test_the_table_names_splits_for_people_and_says_what_to_believe(workspace: Path) -> None:
    done = run(*JUDGE, "--backend", "rules", cwd=workspace)
    for words in (
        "held-out phrasing",
        "unseen article",
        "held-out phrasing, wh",
        "corrected (95 %)",
        "shuffled answers",
    ):
        assert words in done.stdout
    for words in ("answers of known worth (canaries)", "kappa", "judged three times", "articles"):
        assert words in done.stderr
    assert "{" not in done.stdout + done.stderr


def test_one_answer_has_no_shuffled_baseline(workspace: Path) -> None:
    write(workspace / "answers.jsonl", dated_answers(1))
    summary = judge(workspace / "answers.jsonl", workspace / "v.jsonl", RulesGrader(), Workspace(workspace))
    assert summary["baseline"] is None
    assert summary["counts"]["PASS"] == 1
    assert summary["clustered"] is None
