"""A trained model answers: greedy for the judge, streaming for a person, and it stops by itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from foundation.errors import Failure, UsageError
from foundation.records import Answer
from foundation.workspace import Workspace
from tests.support.commands import run, run_json
from tests.trainer.saved_run import run_tokenizer, saved_run
from tests.trainer.small_run import CPU, packed_workspace, train_run
from trainer.answer import answer_items, load_student, stream, write_answers
from trainer.chatml import IM_END
from trainer.evalset import eval_items, eval_sets
from trainer.generate import top_k_sampler
from trainer.metrics import ROUNDS, RoundPoint
from trainer.paths import TrainPaths
from trainer.shuffle import shuffle

KNOWN = "What does the calendar say of May 1940?"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Three years by heart: a minute's work at most."""
    workspace = packed_workspace(
        tmp_path_factory.mktemp("trained"), 3, batch=4, epochs=14.0, evaluate_every=1000, learning_rate=3e-3
    )
    train_run(workspace, "main")
    return workspace


def test_it_answers_the_held_out_questions_and_stops(trained: Workspace, tmp_path: Path) -> None:
    out = tmp_path / "phrasing.jsonl"
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


def test_splits_stand_one_behind_the_other_in_one_file(trained: Workspace, tmp_path: Path) -> None:
    out, asked = tmp_path / "answers.jsonl", ["unseen", "train", "phrasing"]
    options = [option for split in [*asked, "unseen"] for option in ("--split", split)]
    result = run_json(
        "trainer", "answer", *options, "--limit", "4", "--max-tokens", "9", "--out", str(out), cwd=trained.root
    )
    answers = [Answer.model_validate_json(line) for line in out.read_text().splitlines()]
    sets = eval_sets(trained, ["unseen", "train", "phrasing"], 4, trained.settings.train.seed)
    assert [answer.item for answer in answers] == [item for items, _ in sets.values() for item in items]
    assert any(answer.item.siblings for answer in answers)
    assert list(result["by_split"]) == asked
    for name, told in result["by_split"].items():
        of_split = [answer for answer in answers if answer.item.split == name]
        ended = sum(answer.stopped == "end" for answer in of_split)
        assert (told["answers"], told["stopped"], told["stop_rate"]) == (4, ended, ended / 4)
        assert told["questions"] == sets[name][1].figures()
    assert result["answers"] == 12
    assert result["stopped"] == sum(told["stopped"] for told in result["by_split"].values())
    assert result["questions"]["chosen"] == 12


def test_a_split_without_a_question_is_said_and_no_error(workspace: Workspace) -> None:
    for shard in workspace.root.glob("shards/**/*.jsonl"):
        lines = shard.read_text().splitlines(keepends=True)
        shard.write_text("".join(line for line in lines if json.loads(line)["split"] == "train"))
    shuffle(workspace, 1)
    saved_run(workspace)
    asked = ("--limit", "2", "--max-tokens", "3", "--out", "answers.jsonl")
    done = run("trainer", "answer", "--split", "all", *asked, cwd=workspace.root)
    assert "the split phrasing has no question to ask" in done.stderr
    assert "the split unseen has no question to ask" in done.stderr
    answers = [Answer.model_validate_json(line) for line in (workspace.root / "answers.jsonl").read_text().splitlines()]
    assert [answer.item.split for answer in answers] == ["train", "train"]
    (row,) = [line for line in done.stdout.splitlines() if line.startswith("trained phrasing")]
    assert row.split()[2] == "2"


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
    student = load_student(trained, "main", CPU)
    texts = ["".join(stream(student, "On which day?", limit=60, choose=top_k_sampler(40, 5.0, n))) for n in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_the_checkpoint_named_is_the_one_that_answers(trained: Workspace) -> None:
    train_run(trained, "short", until=1)
    path = trained.train / "runs/short/checkpoints/step-000001"
    assert load_student(trained, "main", CPU, path).name == "short/step-000001"
    (path / "model.safetensors").write_bytes(b"")
    with pytest.raises(Failure, match="not what was written"):
        load_student(trained, "main", CPU, path)
    with pytest.raises(Failure, match="none of the 1 checkpoints of this run is whole"):
        load_student(trained, "short", CPU)


def test_best_is_the_one_with_the_lowest_loss_on_phrasing(workspace: Workspace) -> None:
    for step, loss in ((5, 3.0), (10, 1.5), (15, 2.0), (20, None)):
        saved_run(workspace, step=step, phrasing=loss)
    assert load_student(workspace, "main", CPU).name == "main/step-000020"
    assert load_student(workspace, "main", CPU, Path("best")).name == "main/step-000010"
    saved_run(workspace, run="blind")
    with pytest.raises(UsageError, match="none of the checkpoints of run blind was measured on `phrasing`"):
        load_student(workspace, "blind", CPU, Path("best"))
    with pytest.raises(UsageError, match="run nowhere has no checkpoint"):
        load_student(workspace, "nowhere", CPU, Path("best"))


def judged(folder: Path, *points: RoundPoint) -> None:
    (folder / ROUNDS).write_text("".join(point.model_dump_json() + "\n" for point in points), "utf-8")


def test_best_judged_is_the_one_with_the_highest_pass_rate_that_is_believed(workspace: Workspace) -> None:
    for step in (5, 10, 15, 20):
        path, _ = saved_run(workspace, step=step, phrasing=float(step))
    folder = path.parent.parent
    judged(
        folder,
        RoundPoint(round=1, step=5, pass_rate=0.3),
        RoundPoint(round=2, step=10, pass_rate=0.5),
        RoundPoint(round=2, step=10, split="train", pass_rate=0.9),
        RoundPoint(round=3, step=15, pass_rate=0.5),
        RoundPoint(round=3, step=15, split="unseen", pass_rate=0.95),
        RoundPoint(round=4, step=20, pass_rate=0.8, problems=("the judge took all for right",)),
    )
    assert load_student(workspace, "main", CPU, Path("best-judged")).name == "main/step-000015"
    assert load_student(workspace, "main", CPU, Path("best")).name == "main/step-000005"
    shutil.rmtree(folder / "checkpoints/step-000015")
    with pytest.raises(UsageError, match="the checkpoint that was judged best, of step 15, is gone"):
        load_student(workspace, "main", CPU, Path("best-judged"))


def test_without_a_judging_none_is_best_judged(workspace: Workspace) -> None:
    path, _ = saved_run(workspace, step=5)
    with pytest.raises(UsageError, match="no checkpoint of run main was judged"):
        load_student(workspace, "main", CPU, Path("best-judged"))
    judged(path.parent.parent, RoundPoint(round=1, step=5, split="unseen", pass_rate=0.9))
    with pytest.raises(UsageError, match="no checkpoint of run main was judged"):
        load_student(workspace, "main", CPU, Path("best-judged"))
    judged(path.parent.parent, RoundPoint(round=1, step=5, pass_rate=0.9, problems=("invalid",)))
    with pytest.raises(UsageError, match="no judging of run main on held-out phrasings is to be believed"):
        load_student(workspace, "main", CPU, Path("best-judged"))


def test_a_new_tokenizer_orphans_no_run(workspace: Workspace, tmp_path: Path) -> None:
    path, _ = saved_run(workspace)
    ours, copy = TrainPaths.of(workspace).tokenizer, run_tokenizer(workspace)
    right = copy.read_bytes()
    ours.write_text("{}")  # of another run to come
    assert load_student(workspace, "main", CPU).tokenizer.get_vocab_size() > 300
    moved = (
        tmp_path / "elsewhere/step-000007"
    )  # a checkpoint copied out of its run finds the run's tokenizer all the same
    shutil.copytree(path, moved)
    assert load_student(workspace, "main", CPU, moved).name == "main/step-000007"
    copy.unlink()
    with pytest.raises(UsageError, match="tokenizer is not the one"):
        load_student(workspace, "main", CPU)
    ours.write_bytes(right)
    assert load_student(workspace, "main", CPU).name == "main/step-000007"


def test_what_is_missing_is_named(trained: Workspace, tmp_path: Path) -> None:
    out = ("--out", str(tmp_path / "answers.jsonl"))
    assert "no checkpoint" in run("trainer", "answer", "--run", "nowhere", *out, cwd=trained.root, code=2).stderr
    named = run("trainer", "chat", "-p", "x", "--checkpoint", str(tmp_path / "none"), cwd=trained.root, code=2).stderr
    assert "no such checkpoint" in named
    assert not (tmp_path / "answers.jsonl").exists()
