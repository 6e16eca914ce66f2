"""The cache of verdicts: nothing is paid for twice, nothing made is lost, and what cannot be used is refused, not mended."""

from __future__ import annotations

import contextlib
import random
import signal
import sqlite3
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from foundation.errors import Failure
from foundation.records import Verdict
from foundation.workspace import Workspace
from judge.cache import FILE, known, open_cache
from judge.files import Files
from judge.rules import RulesGrader
from judge.run import judge
from tests.judge.runs import (
    JUDGE,
    Counting,
    Scripted,
    await_calls,
    await_kept,
    dated_answers,
    honest,
    is_students,
    judge_settings,
    kept,
    running_judge,
    verdicts_of,
    write,
)
from tests.support.commands import run, run_json
from tests.support.disk import small_disk
from tests.support.fault_server import FaultServer, fault_server, reply


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / "factory.toml").write_text("[judge]\ncanaries = 8\n")
    write(tmp_path / "answers.jsonl", dated_answers(8) + dated_answers(4, repeated=True))
    return tmp_path


def _judge(workspace: Path, grader: Any, out: str = "v.jsonl", **options: bool) -> dict[str, Any]:
    return judge(workspace / "answers.jsonl", workspace / out, grader, Workspace(workspace), **options)


def _verdict(number: int, explanation: str = "So.") -> Verdict:
    name = f"{number:024x}"
    return Verdict(item_id=f"i{number}", verdict="PASS", explanation=explanation, grader="g", fingerprint=name)


def test_a_second_run_asks_for_nothing_and_says_the_same(workspace: Path) -> None:
    first = _judge(workspace, Counting())
    again = Counting()
    second = _judge(workspace, again)
    assert (again.graded, again.starts, second["graded"], second["reused"]) == (0, 0, 0, first["graded"])
    dropped = {"seconds": 0, "graded": 0, "reused": 0}
    assert {**second, **dropped} == {**first, **dropped}
    before = Files(workspace / "v.jsonl").canaries.read_bytes()
    other = Counting()
    _judge(workspace, other, "another.jsonl")
    assert other.graded == 0
    assert Files(workspace / "another.jsonl").canaries.read_bytes() == before


def test_a_new_checkpoint_pays_for_its_own_answers_alone(workspace: Path) -> None:
    """The next round's canaries, and the answers that are the same, cost nothing."""
    answers = dated_answers(8)
    write(workspace / "answers.jsonl", answers)
    _judge(workspace, Scripted(honest))
    answers = [answer.model_copy(update={"checkpoint": "step-20"}) for answer in answers]
    answers[3] = answers[3].model_copy(update={"text": "It began in 1939, says student 3 of them."})
    siblings = answers[4].item.model_copy(update={"siblings": ("Late in 1939.",)})  # no grader is shown them
    answers[4] = answers[4].model_copy(update={"item": siblings})
    write(workspace / "answers.jsonl", answers)
    asked = Scripted(honest)
    _judge(workspace, asked, baseline=False)
    assert [answer.text for answer, _ in asked.asked if is_students(answer)] == [answers[3].text]
    assert all(answer.checkpoint == "canary" for answer, _ in asked.asked if not is_students(answer))
    again = Scripted(honest)
    _judge(workspace, again, baseline=False)
    assert again.asked == []


def test_another_grader_or_another_identity_does_not_take_over_verdicts(workspace: Path) -> None:
    _judge(workspace, RulesGrader())
    first = Scripted(lambda answer, vote: "parse")
    summary = _judge(workspace, first)
    assert {verdict.grader for verdict in verdicts_of(workspace / "v.jsonl")} == {"scripted"}
    assert summary["counts"]["UNSCORED"] == 12
    other = Scripted(honest, identity="2")
    assert _judge(workspace, other)["counts"]["PASS"] == 12
    assert len(other.asked) == len(first.asked)


def test_what_the_engine_failed_to_say_is_asked_for_again_and_the_rest_is_not(workspace: Path) -> None:
    first = Scripted(lambda answer, vote: "engine" if "student 2" in answer.text else "parse")
    _judge(workspace, first, baseline=False)
    failed = sum("student 2" in answer.text for answer, _ in first.asked)
    assert len(kept(workspace)) == len(first.asked) - failed
    again = Scripted(honest)
    summary = _judge(workspace, again, baseline=False)
    assert summary["graded"] == len(again.asked) == failed > 0
    assert all("student 2" in answer.text for answer, _ in again.asked)


def test_a_rules_verdict_is_not_kept_so_that_a_mended_rule_counts_at_once(workspace: Path) -> None:
    answers = dated_answers(3)
    write(workspace / "answers.jsonl", [answer.model_copy(update={"text": "..."}) for answer in answers])
    _judge(workspace, Scripted(honest))
    assert not any("punctuation" in verdict for verdict in kept(workspace).values())
    assert {verdict.reason for verdict in verdicts_of(workspace / "v.jsonl")} == {"punctuation"}


def test_a_judge_that_breaks_keeps_what_it_has_and_the_next_one_goes_on(workspace: Path) -> None:
    with pytest.raises(Failure, match="engine is gone"):
        _judge(workspace, Counting(fails=20))
    assert not list(workspace.glob("v.jsonl*"))
    assert len(kept(workspace)) == 20
    rest = Counting()
    summary = _judge(workspace, rest)
    assert summary["reused"] == 20
    (workspace / "train" / FILE).unlink()  # forgotten
    whole = _judge(workspace, RulesGrader(), "w.jsonl")
    assert rest.graded == whole["graded"] - 20
    for one, other in (("v.jsonl", "w.jsonl"), ("v.jsonl.canaries.jsonl", "w.jsonl.canaries.jsonl")):
        assert (workspace / one).read_bytes() == (workspace / other).read_bytes()


def test_a_killed_judge_resumes(workspace: Path) -> None:
    """SIGKILL in the middle of a run over HTTP; the second run asks only for what was not answered yet."""
    stall = [30.0]

    def slow(server: FaultServer, _: dict[str, Any]) -> Any:
        return reply("Fine.\nVERDICT: PASS") if len(server.calls) <= 40 else stall[0] or reply("VERDICT: FAIL")

    with fault_server(slow) as server:
        judge_settings(workspace, server, "concurrency = 4", "canaries = 8")
        with running_judge(workspace) as process:
            await_calls(server, 44, process)
            await_kept(workspace, 40, process)  # four stall
            process.send_signal(signal.SIGKILL)
            process.wait(10)
        assert not (workspace / "v.jsonl").exists()
        stall[0], before = 0.0, len(server.calls)
        before_kill = len(kept(workspace))
        summary = run_json(*JUDGE, cwd=workspace)
    assert before_kill == 40
    assert len(server.calls) - before == summary["graded"]
    assert summary["reused"] == before_kill
    assert len(verdicts_of(workspace / "v.jsonl")) == 12


def test_killed_between_any_two_files_the_summary_never_speaks_of_others(workspace: Path) -> None:
    """What a kill inside the last step leaves has no summary, and is put right by the next run."""
    _judge(workspace, RulesGrader())
    files = Files(workspace / "v.jsonl")
    files.summary.unlink()
    files.canaries.write_bytes(files.canaries.read_bytes()[:100])
    again = Counting()
    _judge(workspace, again)
    assert again.graded == 0
    assert len(files.canaries.read_text().splitlines()) > 8
    assert files.summary.exists()


def test_many_judges_write_at_once_and_lose_nothing(tmp_path: Path) -> None:
    """They all open a cache that is not there yet, too."""
    barrier, errors = threading.Barrier(6), list[BaseException]()

    def work(number: int) -> None:
        try:
            barrier.wait()
            with open_cache(tmp_path / "train") as cache:
                for row in range(60):
                    cache.put(_verdict(1000 * (number % 3) + row))  # each is made twice
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    names = [_verdict(1000 * number + row).fingerprint for number in range(3) for row in range(60)]
    random.Random(0).shuffle(names)
    assert set(known(tmp_path / "train", [*names, "0" * 24])) == {*names, "0" * 24}
    assert len(kept(tmp_path)) == 180


def test_a_verdict_comes_back_as_it_was(tmp_path: Path) -> None:
    verdict = _verdict(7, "Ünïcode “quotes”, \x00 and\nlines \u2028; <|im_end|> '); drop table verdicts; --")
    with open_cache(tmp_path) as cache:
        cache.put(verdict)
        assert cache.find([verdict.fingerprint]) == {verdict.fingerprint: verdict}
    assert known(tmp_path, [verdict.fingerprint, "f" * 24]) == {verdict.fingerprint: verdict}


def test_looking_makes_no_cache(tmp_path: Path) -> None:
    assert known(tmp_path / "train", ["0" * 24]) == {}
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_looks_where_nothing_can_be_written(tmp_path: Path) -> None:
    with small_disk(tmp_path, 4) as disk:
        (disk / "factory.toml").touch()
        write(disk / "answers.jsonl", dated_answers(8))
        graded = _judge(disk, RulesGrader())["graded"]
        remount = ["mount", "-o", "remount,ro", str(disk)]
        if subprocess.run(remount, capture_output=True).returncode:
            pytest.skip("a tmpfs cannot be made read-only here")
        planned = run_json(*JUDGE, "--dry-run", cwd=disk)
        assert planned["ask"] == 0
        assert sum(part["kept"] for part in planned["parts"].values()) == graded > 8
        assert "read-only" in run(*JUDGE, cwd=disk, code=1).stderr


@pytest.mark.parametrize("how", ["text", "torn", "other program", "later version", "odd row"])
def test_a_file_that_is_no_cache_is_refused_and_left_as_it_is(workspace: Path, how: str) -> None:
    path = workspace / "train" / FILE
    path.parent.mkdir()
    if how == "text":
        path.write_bytes(b"my own notes\n" * 1000)
    elif how == "other program":
        with contextlib.closing(sqlite3.connect(path)) as database:
            database.execute("create table notes (line text)")
    else:
        _judge(workspace, RulesGrader())
        if how == "torn":
            data = path.read_bytes()
            path.write_bytes(data[:100] + b"\xff" * 8000 + data[8100:])
        else:
            change = "pragma user_version = 9" if how == "later version" else "update verdicts set verdict = '{}'"
            with contextlib.closing(sqlite3.connect(path)) as database, database:
                database.execute(change)
    before = path.read_bytes()
    with pytest.raises(Failure, match="the cache of verdicts cannot be used") as caught:
        _judge(workspace, RulesGrader())
    assert (caught.value.where, "move that file away" in caught.value.mend) == (str(path), True)
    assert path.read_bytes() == before
    assert not (workspace / "v.jsonl.lock").exists()
    for left in path.parent.iterdir():  # as the message says
        left.unlink()
    assert _judge(workspace, RulesGrader())["counts"]["PASS"] == 12


def test_a_full_disk_loses_no_verdict(workspace: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path, 1) as disk:
        (workspace / "train").symlink_to(disk)
        answers = [
            answer.model_copy(update={"text": f"{answer.text} {number}"})
            for number in range(100)
            for answer in dated_answers(8)
        ]
        write(workspace / "answers.jsonl", answers)

        class Wordy(Scripted):
            async def grade(self, requests: Any) -> Any:
                async for at, outcome in super().grade(requests):
                    self.graded = at
                    yield at, type(outcome)(outcome.verdict, outcome.reason, "so it is " * 200)

        first = Wordy(honest)
        with pytest.raises(Failure, match="the disk is full; the verdicts made so far are kept") as caught:
            _judge(workspace, first)
        assert "free some space" in str(caught.value)
        assert len(kept(workspace)) >= first.graded - 1 > 50
    assert not list(workspace.glob("v.jsonl*"))
