"""A run of the judge: files whole or absent, nothing paid for twice, unscored never counted, bad input named."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from foundation.errors import Failure, UsageError
from foundation.records import Answer, Verdict
from judge.files import Files, read_answers
from judge.outcome import Outcome
from judge.rules import RulesGrader
from judge.run import judge, shuffle
from tests.judge.cases import CASES, make_answer, make_item
from tests.support.commands import REPOSITORY, run, run_json
from tests.support.fault_server import FaultServer, fault_server, reply


def _answers() -> list[Answer]:
    return [
        make_answer(
            make_item(
                case.question,
                case.reference,
                id=f"i{number}",
                article_id=f"a{number % 7}",
                family=("wh", "truth")[number % 2],
                split=("phrasing", "unseen")[number % 2],
            ),
            case.answer,
            "length" if number % 4 == 0 else "end",
        )
        for number, case in enumerate(CASES)
    ]


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / "factory.toml").touch()
    _write(tmp_path / "answers.jsonl", _answers())
    return tmp_path


def _write(path: Path, answers: Sequence[Answer]) -> None:
    path.write_text("".join(answer.model_dump_json() + "\n" for answer in answers))


def _verdicts(path: Path) -> list[Verdict]:
    return [Verdict.model_validate_json(line) for line in path.read_text().splitlines()]


class Counting(RulesGrader):
    """The rules, counted; `fails` makes it break after so many answers."""

    def __init__(self, fails: int = -1) -> None:
        self.graded, self.fails = 0, fails

    async def grade(self, answers: Sequence[Answer]) -> AsyncIterator[tuple[int, Outcome]]:
        async for entry in super().grade(answers):
            if self.graded == self.fails:
                raise Failure("the engine is gone")
            self.graded += 1
            yield entry


class Silent:
    """A grader that never says anything that can be read."""

    name, about, identity, floors = "silent", "a grader that cannot", "silent-1", MappingProxyType[str, float]({})

    def ready(self) -> AbstractContextManager[None]:
        return nullcontext()

    async def grade(self, answers: Sequence[Answer]) -> AsyncIterator[tuple[int, Outcome]]:
        for index, _ in enumerate(answers):
            yield index, Outcome("UNSCORED", "parse", "It wrote nothing.")


def test_verdicts_stand_in_the_order_of_the_answers_and_the_summary_adds_up(workspace: Path) -> None:
    out = workspace / "deep" / "v.jsonl"
    summary = judge(workspace / "answers.jsonl", out, RulesGrader())
    verdicts = _verdicts(out)
    assert [verdict.item_id for verdict in verdicts] == [f"i{number}" for number in range(len(CASES))]
    assert [verdict.verdict for verdict in verdicts] == [case.verdict for case in CASES]
    assert summary == json.loads(Files(out).summary.read_text())
    counts = summary["counts"]
    assert counts == {name: sum(case.verdict == name for case in CASES) for name in ("PASS", "FAIL", "UNSCORED")}
    assert counts["UNSCORED"] > 0
    assert summary["scored"] == counts["PASS"] + counts["FAIL"]
    assert summary["pass_rate"] == pytest.approx(counts["PASS"] / summary["scored"], abs=1e-6)
    assert summary["low"] < summary["pass_rate"] < summary["high"]
    assert summary["stop_rate"] == pytest.approx(sum(a.stopped == "end" for a in _answers()) / len(CASES), abs=1e-6)
    for group in ("by_family", "by_split"):
        assert sum(part["counts"]["PASS"] for part in summary[group].values()) == counts["PASS"]
    assert set(summary["by_split"]) == {"phrasing", "unseen"}
    assert sorted(path.name for path in out.parent.iterdir()) == [
        "v.jsonl",
        "v.jsonl.shuffled.jsonl",
        "v.jsonl.summary.json",
    ]


def test_the_shuffled_baseline_is_low_and_stands_beside(workspace: Path) -> None:
    out = workspace / "v.jsonl"
    summary = judge(workspace / "answers.jsonl", out, RulesGrader())
    baseline = summary["baseline"]
    assert baseline["pass_rate"] < 0.12
    assert summary["clearly_above_baseline"]
    assert summary["above_baseline"]["low"] > 0
    assert len(_verdicts(Files(out).shuffled)) == len(CASES)
    for own, mixed in zip(_answers(), shuffle(_answers()), strict=True):
        assert own.item == mixed.item
    assert judge(workspace / "answers.jsonl", out, RulesGrader(), baseline=False)["baseline"] is None
    assert not Files(out).shuffled.exists()


def test_a_second_run_grades_nothing_and_a_changed_answer_alone_is_graded_again(workspace: Path) -> None:
    path, out = workspace / "answers.jsonl", workspace / "v.jsonl"
    first = judge(path, out, RulesGrader())
    again = Counting()
    second = judge(path, out, again)
    assert (again.graded, second["graded"]) == (0, 0)
    assert {**second, "seconds": 0, "graded": 0, "reused": 0} == {**first, "seconds": 0, "graded": 0, "reused": 0}
    answers = _answers()
    answers[3] = answers[3].model_copy(update={"text": "It began on 30 November 1939, at dawn."})
    _write(path, answers)
    changed = Counting()
    judge(path, out, changed, baseline=False)
    assert changed.graded == 1


def test_another_grader_does_not_take_over_verdicts(workspace: Path) -> None:
    path, out = workspace / "answers.jsonl", workspace / "v.jsonl"
    judge(path, out, RulesGrader())
    summary = judge(path, out, Silent())
    assert {verdict.grader for verdict in _verdicts(out)} == {"silent"}
    # what a rule settles before any grader is asked still counts
    assert summary["counts"]["PASS"] == 0
    assert summary["reasons"]["UNSCORED"]["parse"] > 50


def test_all_unscored_is_no_pass_rate(workspace: Path) -> None:
    path = workspace / "some.jsonl"
    _write(path, [answer for answer in _answers() if len(answer.text) > 10 and "False" not in answer.text][:8])
    summary = judge(path, workspace / "v.jsonl", Silent())
    assert summary["counts"] == {"PASS": 0, "FAIL": 0, "UNSCORED": 8}
    assert (summary["pass_rate"], summary["low"], summary["high"]) == (None, None, None)
    assert summary["above_baseline"] is None
    assert not summary["clearly_above_baseline"]


def test_a_judge_that_breaks_leaves_a_partial_and_the_next_one_goes_on(workspace: Path) -> None:
    path, out = workspace / "answers.jsonl", workspace / "v.jsonl"
    with pytest.raises(Failure, match="engine is gone"):
        judge(path, out, Counting(fails=20))
    assert not out.exists()
    assert not Files(out).summary.exists()
    with open(Files(out).partial, "ab") as file:
        file.write(b'{"v":1,"item_id":"i5","verd')  # killed inside a line
    rest = Counting()
    summary = judge(path, out, rest)
    whole = judge(path, workspace / "w.jsonl", RulesGrader())
    assert 0 < rest.graded <= whole["graded"] - 20
    assert (workspace / "w.jsonl").read_bytes() == out.read_bytes()
    assert summary["counts"] == whole["counts"]
    assert not Files(out).partial.exists()


def test_a_killed_judge_resumes(workspace: Path) -> None:
    """SIGKILL in the middle of a run over HTTP; the second run asks only for what was not yet on disk."""
    waits = [0.0]

    def slow(server: FaultServer, _: dict[str, Any]) -> Any:
        return reply("Fine.\nVERDICT: PASS") if len(server.calls) <= 40 else waits[0] or reply("VERDICT: FAIL")

    waits[0] = 30.0
    with fault_server(slow) as server:
        _judge_settings(workspace, server, "concurrency = 4")
        command = [sys.executable, "-m", "judge.cli", "run", "--answers", "answers.jsonl", "--out", "v.jsonl"]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        with subprocess.Popen(command, cwd=workspace, env=environment, stderr=subprocess.DEVNULL) as process:
            partial = workspace / "v.jsonl.partial"
            until = time.monotonic() + 30
            while not (partial.exists() and len(partial.read_bytes().splitlines()) >= 32):
                assert time.monotonic() < until
                assert process.poll() is None
                time.sleep(0.05)
            process.send_signal(signal.SIGKILL)
        assert not (workspace / "v.jsonl").exists()
        waits[0] = 0.0
        kept = len(partial.read_bytes().splitlines())
        before = len(server.calls)
        summary = run_json("judge", "run", "--answers", "answers.jsonl", "--out", "v.jsonl", cwd=workspace)
    assert kept >= 32
    assert len(server.calls) - before == summary["graded"]
    assert summary["reused"] == kept
    assert len(_verdicts(workspace / "v.jsonl")) == len(CASES)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_judge_keeps_what_it_has(workspace: Path, number: int) -> None:
    def slow(server: FaultServer, _: dict[str, Any]) -> Any:
        return reply("VERDICT: PASS") if len(server.calls) <= 5 else 60.0

    with fault_server(slow) as server:
        _judge_settings(workspace, server, "concurrency = 2")
        command = [sys.executable, "-m", "judge.cli", "run", "--answers", "answers.jsonl", "--out", "v.jsonl"]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        with subprocess.Popen(
            command, cwd=workspace, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            until = time.monotonic() + 30
            while len(server.calls) < 7:
                assert time.monotonic() < until
                time.sleep(0.02)
            process.send_signal(number)
            out, err = process.communicate(timeout=15)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert out == ""
    assert len(_verdicts(workspace / "v.jsonl.partial")) >= 5


def _judge_settings(workspace: Path, server: FaultServer, *more: str) -> None:
    lines = ["[judge]", 'backend = "openai"', 'model = "m"', f'base_url = "{server.url}"', *more]
    (workspace / "factory.toml").write_text("\n".join(lines) + "\n")


def _few(workspace: Path, count: int) -> None:
    answers = [answer for answer, case in zip(_answers(), CASES, strict=True) if case.verdict == "PASS"]
    _write(workspace / "answers.jsonl", answers[:count])


def test_a_reply_that_is_cut_off_is_asked_for_once_more_with_more_room(workspace: Path) -> None:
    def behaviour(_: FaultServer, body: dict[str, Any]) -> Any:
        return reply("Right.\nVERDICT: PASS") if body["max_tokens"] > 100 else reply("Let me think about", "length")

    _few(workspace, 4)
    with fault_server(behaviour) as server:
        _judge_settings(workspace, server, "max_tokens = 100")
        summary = run_json(
            "judge", "run", "--answers", "answers.jsonl", "--out", "v.jsonl", "--no-baseline", cwd=workspace
        )
    assert summary["counts"] == {"PASS": 4, "FAIL": 0, "UNSCORED": 0}
    assert sorted(call["max_tokens"] for call in server.calls) == [100] * 4 + [200] * 4


def test_what_the_server_does_to_a_reply_is_unscored_and_said(workspace: Path) -> None:
    # one at a time; the reply that is cut off is asked for again behind all others
    texts = iter(
        [
            reply("<think>", "length"),
            reply("Hm."),
            (400, {"error": "too long"}),
            reply("", "content_filter"),
            reply("<think>", "length"),
        ]
    )
    _few(workspace, 4)
    with fault_server(lambda server, body: next(texts)) as server:
        _judge_settings(workspace, server, "concurrency = 1", "max_tokens = 64")
        done = run("judge", "run", "--answers", "answers.jsonl", "--out", "v.jsonl", "--no-baseline", cwd=workspace)
    assert "no answer could be scored, so there is no pass rate" in done.stderr
    verdicts = _verdicts(workspace / "v.jsonl")
    assert [verdict.reason for verdict in verdicts] == ["length", "parse", "engine", "refusal"]
    assert "too long" in verdicts[2].explanation
    summary = json.loads((workspace / "v.jsonl.summary.json").read_text())
    assert (summary["pass_rate"], summary["counts"]["UNSCORED"]) == (None, 4)


def test_engine_errors_are_asked_for_again_by_the_next_run(workspace: Path) -> None:
    _few(workspace, 3)
    command = ("judge", "run", "--answers", "answers.jsonl", "--out", "v.jsonl", "--no-baseline")
    with fault_server(lambda server, body: (400, {"error": "no"})) as server:
        _judge_settings(workspace, server)
        assert run_json(*command, cwd=workspace)["counts"]["UNSCORED"] == 3
    with fault_server(lambda server, body: reply("VERDICT: PASS")) as server:
        _judge_settings(workspace, server)
        assert run_json(*command, cwd=workspace)["counts"]["PASS"] == 3


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ["no such file of answers", "nothing.jsonl"]),
        ("", ["holds no answer"]),
        ("{}\n", ["answers.jsonl:1", "field item"]),
        ("GOOD\nGOOD\n{not json\n", ["answers.jsonl:3", "Invalid JSON"]),
        ("GOOD\nEXTRA\n", ["answers.jsonl:2", "field surprise"]),
        ("MISSING\n", ["answers.jsonl:1", "field item.reference"]),
        ("\udcff\n", ["answers.jsonl:1"]),
    ],
)
def test_bad_answers_are_refused_by_file_line_and_field(workspace: Path, content: str | None, words: list[str]) -> None:
    good = _answers()[0].model_dump()
    missing = json.loads(json.dumps(good))
    del missing["item"]["reference"]
    if content is not None:
        text = content.replace("GOOD", json.dumps(good)).replace("MISSING", json.dumps(missing))
        text = text.replace("EXTRA", json.dumps({**good, "surprise": 1}))
        (workspace / "answers.jsonl").write_bytes(text.encode("utf-8", "surrogateescape"))
    name = "nothing.jsonl" if content is None else "answers.jsonl"
    done = run("judge", "run", "--answers", name, "--out", "v.jsonl", cwd=workspace, code=2)
    for word in [*words, "mend:"]:
        assert word in done.stderr, done.stderr
    assert done.stdout == ""
    assert not list(workspace.glob("v.jsonl*"))


def test_blank_lines_are_no_answers(workspace: Path) -> None:
    path = workspace / "answers.jsonl"
    path.write_text("\n" + path.read_text() + "\n\n")
    assert len(read_answers(path)[0]) == len(CASES)


def test_wrong_use_is_refused(workspace: Path) -> None:
    path = workspace / "answers.jsonl"
    before = path.read_bytes()
    with pytest.raises(UsageError, match="names the file of answers"):
        judge(path, path, RulesGrader())
    assert path.read_bytes() == before
    done = run("judge", "run", "--answers", str(path), "--out", "v", "--backend", "openai", cwd=workspace, code=2)
    assert "judge.base_url is not a URL" in done.stderr
    done = run("judge", "run", "--answers", str(path), "--out", "v", "--backend", "llama", cwd=workspace, code=2)
    assert "rules" in done.stderr


def test_a_server_that_is_not_there_is_a_failure_and_resumable(workspace: Path) -> None:
    (workspace / "factory.toml").write_text('[judge]\nbackend = "openai"\nbase_url = "http://127.0.0.1:9/v1"\n')
    done = run("judge", "run", "--answers", "answers.jsonl", "--out", "v.jsonl", cwd=workspace, code=1)
    assert "cannot be reached" in done.stderr
    assert not (workspace / "v.jsonl").exists()
    summary = run_json(
        "judge", "run", "--answers", "answers.jsonl", "--out", "v.jsonl", "--backend", "rules", cwd=workspace
    )
    assert summary["scored"] > 0


def test_two_judges_on_one_file_are_refused(workspace: Path) -> None:
    with fault_server(lambda server, body: 20.0) as server:
        _judge_settings(workspace, server)
        command = [sys.executable, "-m", "judge.cli", "run", "--answers", "answers.jsonl", "--out", "v.jsonl"]
        with subprocess.Popen(
            command, cwd=workspace, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, stderr=subprocess.DEVNULL
        ) as process:
            until = time.monotonic() + 20
            while not server.calls:
                assert time.monotonic() < until
                time.sleep(0.05)
            done = run("judge", "run", "--answers", "answers.jsonl", "--out", "v.jsonl", cwd=workspace, code=1)
            process.kill()
    assert "another judge writes the same file" in done.stderr


def test_one_answer_has_no_shuffled_baseline(workspace: Path) -> None:
    _few(workspace, 1)
    summary = judge(workspace / "answers.jsonl", workspace / "v.jsonl", RulesGrader())
    assert summary["baseline"] is None
    assert summary["counts"]["PASS"] == 1
