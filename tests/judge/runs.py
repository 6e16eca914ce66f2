"""What the tests of a judging share: answers in a workspace, graders that say what they are told to, a judge of its own process."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from foundation.errors import Failure
from foundation.ids import keyed_fraction
from foundation.records import Answer, Verdict
from judge.cache import FILE
from judge.outcome import Outcome
from judge.rules import RulesGrader
from judge.run import REPEATED
from tests.judge.cases import CASES, WINTER, make_answer, make_item
from tests.support.commands import REPOSITORY
from tests.support.fault_server import FaultServer

JUDGE = ("judge", "run", "--answers", "answers.jsonl", "--out", "v.jsonl")


def case_answers() -> list[Answer]:
    """One answer for each of the hand-made cases: of 7 articles, two splits and two families."""
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


def dated_answers(count: int, *, repeated: bool = False, **changes: str) -> list[Answer]:
    """Right answers to as many questions, none of them of the repeated tenth, or all of them.

    Each has a date of its own, or there would be but one canary of each kind.
    """
    found: list[Answer] = []
    number = 0
    while len(found) < count:
        id_ = f"d{number}"
        if (keyed_fraction("judge/votes", id_) < REPEATED) == repeated:
            place = len(found) + (100 if repeated else 0)
            date = f"{place % 28 + 1} November {1800 + place}"
            told = f"The war of the {place} kings began on {date}."
            fields = {"id": id_, "article_id": f"a{place % 7}", "snippet": f"{told} {WINTER}", **changes}
            item = make_item(f"When did the war of the {place} kings begin?", told, **fields)
            found.append(make_answer(item, f"On {date}, says student {place} of them."))
        number += 1
    return found


def write(path: Path, answers: Sequence[Answer]) -> None:
    path.write_text("".join(answer.model_dump_json() + "\n" for answer in answers))


def verdicts_of(path: Path) -> list[Verdict]:
    return [Verdict.model_validate_json(line) for line in path.read_text().splitlines()]


def is_students(answer: Answer) -> bool:
    """Whether a student wrote it: a canary, or a canary's text, is nobody's."""
    return "says student" in answer.text


class Counting(RulesGrader):
    """The rules, counted; `fails` makes it break after so many requests."""

    def __init__(self, fails: int = -1) -> None:
        self.graded, self.fails, self.starts = 0, fails, 0

    def ready(self) -> AbstractContextManager[None]:
        self.starts += 1
        return nullcontext()

    async def grade(self, requests: Sequence[tuple[Answer, int]]) -> AsyncIterator[tuple[int, Outcome]]:
        async for entry in super().grade(requests):
            if self.graded == self.fails:
                raise Failure("the engine is gone")
            self.graded += 1
            yield entry


class Scripted:
    """A stand-in that says what `say(answer, vote)` returns: PASS, FAIL, or a reason for UNSCORED. It keeps what it was asked."""

    name, about = "scripted", "a script"

    def __init__(
        self, say: Callable[[Answer, int], str], floors: Mapping[str, float] | None = None, identity: str = "1"
    ) -> None:
        self.say, self.floors, self.identity = say, floors or {}, identity
        self.asked: list[tuple[Answer, int]] = []

    def ready(self) -> AbstractContextManager[None]:
        return nullcontext()

    async def grade(self, requests: Sequence[tuple[Answer, int]]) -> AsyncIterator[tuple[int, Outcome]]:
        for at, (answer, vote) in enumerate(requests):
            self.asked.append((answer, vote))
            word = self.say(answer, vote)
            yield at, Outcome(word, "", "As told.") if word in ("PASS", "FAIL") else Outcome("UNSCORED", word, "No.")  # type: ignore[arg-type]


def honest(answer: Answer, _vote: int = 0) -> str:
    """The right word on `dated_answers` and on every canary that is made of them."""
    return "PASS" if is_students(answer) or answer.text == answer.item.reference else "FAIL"


def judge_settings(workspace: Path, server: FaultServer, *more: str) -> None:
    lines = ["[judge]", 'backend = "openai"', 'model = "m"', f'base_url = "{server.url}"', *more]
    (workspace / "factory.toml").write_text("\n".join(lines) + "\n")


@contextlib.contextmanager
def running_judge(workspace: Path, *more: str) -> Iterator[subprocess.Popen[str]]:
    """`judge run` as a process of its own, killed at the end if it still lives."""
    command = [sys.executable, "-m", "judge.cli", *JUDGE[1:], *more]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=workspace, env=environment, text=True, stdout=pipe, stderr=pipe) as process:
        try:
            yield process
        finally:
            process.kill()


def kept(workspace: Path) -> dict[str, str]:
    """The verdicts in the cache, as JSON, by fingerprint."""
    with contextlib.closing(sqlite3.connect(workspace / "train" / FILE)) as database:
        return dict(database.execute("select fingerprint, verdict from verdicts"))


def await_kept(workspace: Path, count: int, process: subprocess.Popen[str]) -> None:
    """Until so many verdicts are in the cache. Fails if the process ends before, or after 30 s."""
    until = time.monotonic() + 30
    while len(kept(workspace)) < count:
        assert time.monotonic() < until, f"{len(kept(workspace))} of {count} verdicts"
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def await_calls(server: FaultServer, count: int, process: subprocess.Popen[str]) -> None:
    """Until the server was asked so often. Fails if the process ends before, or after 30 s."""
    until = time.monotonic() + 30
    while len(server.calls) < count:
        assert time.monotonic() < until, f"{len(server.calls)} of {count} calls"
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
