"""The graders that are language models: what they ask, what their identity is of, and what a bad server does to them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from foundation.errors import Failure, Unavailable, UsageError
from foundation.records import Answer, Verdict
from foundation.workspace import Workspace
from judge.llm import LlmGrader, OpenAIGrader, VllmGrader, make_grader
from judge.outcome import Outcome
from judge.prompt import FOLDER
from tests.judge.cases import BEGAN, WHEN, make_answer, make_item
from tests.support.commands import run, run_json
from tests.support.fault_server import FaultServer, fault_server, reply

RIGHT = reply("It agrees.\nVERDICT: PASS")


def _workspace(folder: Path, **values: Any) -> Workspace:
    lines = [f"{name} = {json.dumps(value)}" for name, value in {"backend": "openai", "model": "m", **values}.items()]
    (folder / "factory.toml").write_text("\n".join(["[judge]", *lines]) + "\n")
    return Workspace(folder)


def _openai(folder: Path, server: FaultServer, **values: Any) -> LlmGrader:
    grader = make_grader(_workspace(folder, base_url=server.url, **values))
    assert isinstance(grader, OpenAIGrader)
    return grader


def _answers(count: int) -> list[Answer]:
    return [make_answer(make_item(WHEN, BEGAN, id=f"i{number}"), f"It began in {number}.") for number in range(count)]


def _grade(grader: LlmGrader, requests: Sequence[tuple[Answer, int]]) -> dict[int, Outcome]:
    async def collect() -> dict[int, Outcome]:
        found: dict[int, Outcome] = {}
        async for at, outcome in grader.grade(requests):
            assert at not in found
            found[at] = outcome
        return found

    with grader.ready():
        return asyncio.run(collect())


def _write(folder: Path, answers: Sequence[Answer]) -> None:
    (folder / "answers.jsonl").write_text("".join(answer.model_dump_json() + "\n" for answer in answers))


# what it asks


def test_each_vote_draws_other_lots_on_the_same_question(tmp_path: Path) -> None:
    answer = _answers(1)[0]
    with fault_server(lambda server, body: RIGHT) as server:
        grader = _openai(tmp_path, server, concurrency=1)
        outcomes = _grade(grader, [(answer, 0), (answer, 1), (answer, 2), (answer, 0)])
    assert {outcome.verdict for outcome in outcomes.values()} == {"PASS"}
    seeds = [call["seed"] for call in server.calls]
    assert len(set(seeds)) == 3
    assert seeds[0] == seeds[3]
    assert len({json.dumps(call["messages"]) for call in server.calls}) == 1


def test_requests_are_made_as_they_are_sent(tmp_path: Path) -> None:
    """Given a hundred thousand, the first outcome comes when no more than what is in flight was made."""
    answer, made = _answers(1)[0], list[int]()

    class Many(Sequence[tuple[Answer, int]]):
        def __len__(self) -> int:
            return 100_000

        def __getitem__(self, at: Any) -> Any:
            made.append(at)
            return answer, at

    async def first(grader: LlmGrader) -> None:
        async with contextlib.aclosing(grader.grade(Many())) as outcomes:  # type: ignore[type-var]
            async for _ in outcomes:
                break

    number = itertools.count()
    with fault_server(lambda server, body: 20.0 if next(number) else RIGHT) as server:  # the others never come
        grader = _openai(tmp_path, server, concurrency=4)
        with grader.ready():
            asyncio.run(first(grader))
    assert len(made) <= 5


def test_a_cut_off_reply_is_asked_for_once_more_and_every_request_has_one_outcome(tmp_path: Path) -> None:
    def behaviour(_: FaultServer, body: dict[str, Any]) -> Any:
        text = body["messages"][1]["content"]
        if "in 3." in text or ("in 5." in text and body["max_tokens"] == 64):
            return reply("<think> Let me", "length")
        return RIGHT

    with fault_server(behaviour) as server:
        outcomes = _grade(_openai(tmp_path, server, max_tokens=64), [(answer, 0) for answer in _answers(9)])
    assert sorted(outcomes) == list(range(9))
    assert outcomes[3].reason == "length"
    assert all(outcome.verdict == "PASS" for at, outcome in outcomes.items() if at != 3)
    assert sorted(call["max_tokens"] for call in server.calls) == [64] * 9 + [128] * 2


def test_the_second_try_does_not_wait_behind_the_others(tmp_path: Path) -> None:
    def behaviour(_: FaultServer, body: dict[str, Any]) -> Any:
        return reply("Let me", "length") if body["max_tokens"] == 64 else RIGHT

    with fault_server(behaviour) as server:
        outcomes = _grade(_openai(tmp_path, server, max_tokens=64, concurrency=2), [(a, 0) for a in _answers(20)])
    assert {outcome.verdict for outcome in outcomes.values()} == {"PASS"}
    rooms = [call["max_tokens"] for call in server.calls]
    assert sorted(rooms) == [64] * 20 + [128] * 20
    assert all(abs(rooms[:n].count(64) - rooms[:n].count(128)) <= 2 for n in range(1, 41))
    assert server.peak <= 2


def test_the_second_try_asks_for_no_more_than_the_context_has(tmp_path: Path) -> None:
    """A server of 1,000 tokens, whose prompts take 300: twice 400 would be refused, 700 are not."""

    def behaviour(_: FaultServer, body: dict[str, Any]) -> Any:
        if body["max_tokens"] > 700:
            return 400, {"error": "This model's maximum context length is 1000 tokens."}
        status, found = RIGHT if body["max_tokens"] > 600 else reply("I think and think", "length")
        return status, {**found, "usage": {"prompt_tokens": 300, "completion_tokens": body["max_tokens"]}}

    with fault_server(behaviour) as server:
        outcomes = _grade(_openai(tmp_path, server, max_tokens=400, context=1000), [(a, 0) for a in _answers(3)])
    assert {outcome.verdict for outcome in outcomes.values()} == {"PASS"}
    assert sorted(call["max_tokens"] for call in server.calls) == [400] * 3 + [700] * 3


def test_a_second_try_that_asks_for_too_much_leaves_the_first_reply_s_outcome(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def behaviour(_: FaultServer, body: dict[str, Any]) -> Any:
        if body["max_tokens"] > 64:
            return 400, {"error": "This model's maximum context length is 1000 tokens."}
        return reply("I think and think", "length")

    with fault_server(behaviour) as server:
        outcomes = _grade(_openai(tmp_path, server, max_tokens=64), [(answer, 0) for answer in _answers(3)])
    assert len(server.calls) == 6
    assert {outcome.reason for outcome in outcomes.values()} == {"length"}
    for outcome in outcomes.values():
        assert "was cut off" in outcome.explanation
        assert "I think and think" in outcome.explanation
    assert "does not fit" not in capsys.readouterr().err


def test_thoughts_that_the_server_parted_are_the_explanation_and_no_verdict(tmp_path: Path) -> None:
    def behaviour(server: FaultServer, body: dict[str, Any]) -> Any:
        name = ("reasoning", "reasoning_content")[len(server.calls) % 2]
        parted = {"content": "VERDICT: FAIL", name: "It says 1941.\nVERDICT: PASS"}
        return 200, {"choices": [{"message": parted, "finish_reason": "stop"}]}

    with fault_server(behaviour) as server:
        outcomes = _grade(_openai(tmp_path, server), [(answer, 0) for answer in _answers(2)])
    assert {outcome.verdict for outcome in outcomes.values()} == {"FAIL"}
    assert all(outcome.explanation.startswith("It says 1941.") for outcome in outcomes.values())


# prompts of the user's own


def test_a_workspace_s_own_prompt_wins_and_changes_the_identity(tmp_path: Path) -> None:
    with fault_server(lambda server, body: RIGHT) as server:
        before = _openai(tmp_path, server)
        own = tmp_path / "prompts" / "judge" / "grade.md"
        own.parent.mkdir(parents=True)
        own.write_text((FOLDER / "grade.md").read_text().replace("You grade answers.", "You grade for historians."))
        after = _openai(tmp_path, server)
        _grade(after, [(_answers(1)[0], 0)])
    assert server.calls[0]["messages"][0]["content"].startswith("You grade for historians.")
    assert before.identity != after.identity
    assert after.prompts.passage.path == FOLDER / "passage.md"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"Grade this.", "lacks a section"),
        (b"# system\nGrade.\n\n# user\n{{ question }} {{ reference }} {{ mark }}\n", "does not show {{ answer }}"),
        (b"# system\nGrade.\n\n# user\n{{ student }}\n", "'student' is undefined"),
        (b"# system\nGrade.\n\n# user\n{{ answer }\n", "wrong"),
        (b"# system\nGrade.\xff\n\n# user\n{{ answer }}\n", "cannot be read"),
    ],
)
def test_a_prompt_that_cannot_be_used_is_refused_before_anything_is_asked(
    tmp_path: Path, text: bytes, words: str
) -> None:
    (tmp_path / "prompts" / "judge").mkdir(parents=True)
    (tmp_path / "prompts" / "judge" / "grade.md").write_bytes(text)
    with pytest.raises(UsageError) as caught:
        make_grader(_workspace(tmp_path, base_url="http://127.0.0.1:9/v1"))
    assert words in str(caught.value)
    assert str(tmp_path / "prompts" / "judge" / "grade.md") in str(caught.value)


# identity


def test_the_identity_is_of_all_that_can_change_its_word_and_of_nothing_else(tmp_path: Path) -> None:
    def of(**values: Any) -> str:
        return make_grader(_workspace(tmp_path, **{"base_url": "http://h/v1", **values})).identity

    changed = [
        of(),
        of(model="other"),
        of(revision="main2"),
        of(base_url="http://h2/v1"),
        of(max_tokens=2048),
        of(context=16384),
        of(backend="vllm"),
        of(backend="vllm", args=["--dtype", "float32"]),
    ]
    assert len(set(changed)) == len(changed)
    same = [of(concurrency=3), of(api_key="k"), of(start_timeout=9.0), of(base_url="http://u:p@h/v1/"), of(canaries=9)]
    assert set(same) == {changed[0]}


def test_the_files_of_a_local_model_are_in_its_identity(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"1" * 100)

    def identity() -> str:
        return make_grader(_workspace(tmp_path, backend="vllm", model=str(folder))).identity

    first = identity()
    (folder / "notes.pdf").write_bytes(b"")
    assert identity() == first
    os.utime(folder / "model.safetensors", (1, 1))  # trained on, and saved again
    second = identity()
    (folder / "tokenizer.json").write_text("{}")
    assert len({first, second, identity()}) == 3


@pytest.mark.parametrize(
    ("missing", "words"),
    [("config.json", "configuration"), ("model.safetensors", "weights"), ("tokenizer.json", "tokenizer")],
)
def test_a_model_s_folder_that_lacks_something_is_refused_before_an_engine_is_started(
    tmp_path: Path, missing: str, words: str
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for name in {"config.json", "model.safetensors", "tokenizer.json"} - {missing}:
        (folder / name).write_text("{}")
    grader = make_grader(_workspace(tmp_path, backend="vllm", model=str(folder)))
    with pytest.raises(UsageError, match=words) as caught, grader.ready():
        pass
    assert "judge.model" in str(caught.value)
    assert str(folder) in str(caught.value)


# bad servers


def test_a_server_that_is_away_says_so_at_once(tmp_path: Path) -> None:
    grader = make_grader(_workspace(tmp_path, base_url="http://127.0.0.1:9/v1"))
    with pytest.raises(Unavailable, match="cannot be reached"), grader.ready():
        pass


def test_a_server_that_refuses_the_key_is_told_with_the_setting(tmp_path: Path) -> None:
    with fault_server(lambda server, body: (401, {"error": "no such key"})) as server:
        grader = _openai(tmp_path, server, api_key="secret-1")
        with pytest.raises(Failure) as caught:
            _grade(grader, [(answer, 0) for answer in _answers(3)])
    assert "FACTORY_JUDGE__API_KEY" in str(caught.value)
    assert "secret-1" not in str(caught.value)


def test_a_model_that_the_server_does_not_have_is_named_with_those_it_has(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (
        fault_server(lambda server, body: (404, {"error": "no model m"}), "judge-a", "judge-b") as server,
        pytest.raises(Failure, match="no model m") as caught,
    ):
        _grade(_openai(tmp_path, server), [(answer, 0) for answer in _answers(3)])
    assert "mend model" in str(caught.value)
    assert "judge-a, judge-b" in capsys.readouterr().err


def test_a_prompt_that_does_not_fit_is_unscored_and_the_mend_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = {
        "error": {"message": "This model's maximum context length is 4096 tokens. However, your prompt contains 5000"}
    }
    with fault_server(lambda server, body: (400, said)) as server:
        outcomes = _grade(_openai(tmp_path, server), [(answer, 0) for answer in _answers(5)])
    assert {(outcome.verdict, outcome.reason) for outcome in outcomes.values()} == {("UNSCORED", "length")}
    assert "maximum context length" in outcomes[0].explanation
    err = capsys.readouterr().err
    assert err.count("does not fit the judge's context") == 1
    assert "judge.context" in err


def test_a_context_that_leaves_no_room_for_a_prompt_is_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="leaves none of it for the prompt"):
        make_grader(_workspace(tmp_path, backend="vllm", context=1024, max_tokens=1024))
    grader = make_grader(_workspace(tmp_path, backend="vllm", context=8192, max_tokens=1024))
    assert isinstance(grader, VllmGrader)


def test_a_server_that_dies_in_the_middle_ends_the_run_and_the_next_one_goes_on(tmp_path: Path) -> None:
    replies = [20]  # that it gives before it dies

    def behaviour(server: FaultServer, body: dict[str, Any]) -> Any:
        return RIGHT if len(server.calls) <= replies[0] else "reset"

    command = ("judge", "run", "--answers", "answers.jsonl", "--out", "v.jsonl", "--no-baseline")
    _write(tmp_path, _answers(40))
    with fault_server(behaviour) as server:
        _workspace(tmp_path, base_url=server.url, concurrency=4)
        # when it dies, then the command fails, and says that the server is away
        failed = run(*command, cwd=tmp_path, code=1)
        assert "the server cannot be reached" in failed.stderr
        assert "Traceback" not in failed.stderr
        assert not (tmp_path / "v.jsonl").exists()
        # and when it is back, then only the rest is asked for
        replies[0], asked = 1 << 30, len(server.calls)
        summary = run_json(*command, cwd=tmp_path)
        assert summary["reused"] == 20
        assert len(server.calls) - asked == summary["graded"]
    assert summary["counts"]["PASS"] == 40


def test_the_grader_reads_what_a_thinking_model_writes(tmp_path: Path) -> None:
    text = "<think>\nThe reference says 1939.\nVERDICT: PASS\n</think>\n\nThe year is wrong.\n\nVERDICT: FAIL"
    _write(tmp_path, _answers(2))
    with fault_server(lambda server, body: reply(text)) as server:
        _workspace(tmp_path, base_url=server.url)
        run_json("judge", "run", "--answers", "answers.jsonl", "--out", "v.jsonl", "--no-baseline", cwd=tmp_path)
    verdicts = [Verdict.model_validate_json(line) for line in (tmp_path / "v.jsonl").read_bytes().splitlines()]
    assert [(verdict.verdict, verdict.explanation) for verdict in verdicts] == [("FAIL", "The year is wrong.")] * 2
