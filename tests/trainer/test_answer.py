"""A trained model answers: greedy for the judge, streaming for a person, and it stops by itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from foundation.errors import Failure, UsageError
from foundation.records import Answer
from foundation.workspace import Workspace
from tests.support.commands import run, run_json
from tests.trainer.small_run import CPU, packed_workspace
from trainer.answer import answer_items, load_student, stream, write_answers
from trainer.chatml import IM_END
from trainer.evalset import eval_items
from trainer.loop import train

KNOWN = "What does the calendar say of May 1940?"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Three years by heart: a minute's work at most."""
    workspace = packed_workspace(
        tmp_path_factory.mktemp("trained"), 3, batch=4, epochs=14.0, evaluate_every=1000, learning_rate=3e-3
    )
    train(workspace, "main", CPU)
    return workspace


def test_it_answers_the_held_out_questions_and_stops(trained: Workspace, tmp_path: Path) -> None:
    out = tmp_path / "answers/phrasing.jsonl"
    result = run_json("trainer", "answer", "--split", "phrasing", "--limit", "9", "--out", str(out), cwd=trained.root)
    answers = [Answer.model_validate_json(line) for line in out.read_text().splitlines()]
    assert len(answers) == result["answers"] == 9
    items, _ = eval_items(trained, "phrasing", 9, trained.settings.train.seed)
    assert [answer.item for answer in answers] == items
    ended = [answer for answer in answers if answer.stopped == "end"]
    assert len(ended) == result["stopped"] >= 8
    assert result["stop_rate"] == pytest.approx(len(ended) / 9, abs=1e-4)
    assert sum(answer.tokens for answer in answers) == result["tokens"]
    assert {answer.checkpoint for answer in answers} == {result["checkpoint"]}
    assert result["checkpoint"].startswith("main/step-")
    for answer in ended:
        assert IM_END not in answer.text
        assert answer.text
    right = sum(answer.text == answer.item.reference for answer in answers)
    assert right >= 1, [(answer.item.question, answer.text) for answer in answers]


def test_answers_are_repeatable_and_cut_where_asked(trained: Workspace) -> None:
    student = load_student(trained, "main", CPU)
    items, _ = eval_items(trained, "phrasing", 6, 1)
    first = answer_items(student, items, 200)
    assert first == answer_items(student, items, 200)
    assert first == [answer_items(student, [item], 200)[0] for item in items]
    short = answer_items(student, items, 3)
    assert {(answer.stopped, answer.tokens) for answer in short} == {("length", 3)}
    for cut, whole in zip(short, first, strict=True):
        assert whole.text.startswith(cut.text)


def test_a_question_too_long_gets_no_answer(trained: Workspace) -> None:
    student = load_student(trained, "main", CPU)
    items, _ = eval_items(trained, "phrasing", 2, 1)
    long = items[0].model_copy(update={"question": "Why? " * 500})
    answers = answer_items(student, [long, items[1]], 100)
    assert (answers[0].text, answers[0].stopped, answers[0].tokens) == ("", "length", 0)
    assert answers[1] == answer_items(student, [items[1]], 100)[0]
    with pytest.raises(Failure, match="the question has"):
        list(stream(student, long.question, limit=10))


def test_no_question_gives_an_empty_file(trained: Workspace, tmp_path: Path) -> None:
    write_answers(tmp_path / "none.jsonl", answer_items(load_student(trained, "main", CPU), [], 10))
    assert (tmp_path / "none.jsonl").read_bytes() == b""


def test_chat_answers_once_and_stops(trained: Workspace) -> None:
    done = run("trainer", "chat", "-p", KNOWN, "--greedy", cwd=trained.root)
    assert done.stdout.startswith("May 1940 began on a ")
    assert "It had 31 days" in done.stdout
    assert done.stdout.endswith("\n")
    assert IM_END not in done.stdout
    student = load_student(trained, "main", CPU)
    assert "".join(stream(student, KNOWN, limit=200)).strip() == done.stdout.strip()


def test_chat_draws_by_seed(trained: Workspace) -> None:
    outputs = [
        run("trainer", "chat", "-p", "On which day?", "--temperature", "5", "--seed", seed, cwd=trained.root).stdout
        for seed in ("1", "1", "2")
    ]
    assert outputs[0] == outputs[1] != outputs[2]


def test_the_checkpoint_named_is_the_one_that_answers(trained: Workspace) -> None:
    train(trained, "short", CPU, until=1)
    path = trained.train / "runs/short/checkpoints/step-000001"
    assert load_student(trained, "main", CPU, path).name == "short/step-000001"
    (path / "model.safetensors").write_bytes(b"")
    with pytest.raises(Failure, match="not what was written"):
        load_student(trained, "main", CPU, path)
    with pytest.raises(UsageError, match="run short has no checkpoint"):
        load_student(trained, "short", CPU)


def test_what_is_missing_is_named(trained: Workspace, tmp_path: Path) -> None:
    out = ("--out", str(tmp_path / "answers.jsonl"))
    assert "no checkpoint" in run("trainer", "answer", "--run", "nowhere", *out, cwd=trained.root, code=2).stderr
    named = run("trainer", "chat", "-p", "x", "--checkpoint", str(tmp_path / "none"), cwd=trained.root, code=2).stderr
    assert "no such checkpoint" in named
    tokenizer = trained.train / "tokenizer.json"
    before = tokenizer.read_text()
    try:
        tokenizer.write_text(json.dumps(json.loads(before)))
        assert "tokenizer is not the one" in run("trainer", "chat", "-p", "x", cwd=trained.root, code=2).stderr
    finally:
        tokenizer.write_text(before)
    assert not (tmp_path / "answers.jsonl").exists()
