"""`trainer eval`: the trainer's own losses, every answer with its figures, files that are whole, bad input in one message."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from foundation.console import new_app
from foundation.errors import Failure, UsageError
from foundation.workspace import FILE, Workspace
from tests.support.commands import run, run_json
from tests.trainer.small_run import CPU, pack_again, packed_workspace, train_run
from trainer.answer import answer_items, load_student
from trainer.attention import choose_backend
from trainer.commands import eval as eval_command
from trainer.commands import tokenizer as another
from trainer.evalset import eval_items
from trainer.evaluate import Evaluation, evaluate, split_loss
from trainer.loop import Summary
from trainer.measure import Measured
from trainer.pack import PackedData, pack
from trainer.paths import SPLITS, TrainPaths
from trainer.plan import plan
from trainer.setup import choose_precision
from trainer.shuffle import shuffled_records
from trainer.tokenizer import record_texts, save_tokenizer, train_tokenizer

LIMIT = 12


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Summary]:
    """One year all but by heart, another one unseen."""
    folder = tmp_path_factory.mktemp("evaluated")
    workspace = packed_workspace(folder, 2, epochs=6.0, evaluate_every=1000, learning_rate=3e-3)
    return workspace, train_run(workspace, "main")


@pytest.fixture(scope="module")
def evaluation(trained: tuple[Workspace, Summary]) -> Evaluation:
    return measured(trained[0])


def measured(workspace: Workspace, **how: Any) -> Evaluation:
    values: dict[str, Any] = {"splits": SPLITS, "limit": LIMIT, "max_tokens": 60, "contexts": 128}
    return evaluate(workspace, "main", CPU, **values | how)


def test_perplexity_is_the_exponential_of_the_trainers_own_loss(
    trained: tuple[Workspace, Summary], evaluation: Evaluation
) -> None:
    _, summary = trained
    splits = evaluation.summary["splits"]
    assert summary.phrasing and summary.unseen
    for name, loss in (("phrasing", summary.phrasing), ("unseen", summary.unseen)):
        told = splits[name]["loss"]
        assert told["loss"] == pytest.approx(loss, rel=1e-5)
        assert told["perplexity"] == pytest.approx(math.exp(loss), rel=1e-5)
        assert told["contexts"] == told["of_contexts"]
    assert splits["train"]["loss"]["loss"] < 0.5 * splits["unseen"]["loss"]["loss"]


def test_the_loss_of_a_sample_is_that_of_its_contexts_one_by_one(trained: tuple[Workspace, Summary]) -> None:
    workspace, _ = trained
    student, planned = load_student(workspace, "main", CPU, exact=True), plan(workspace, "main")
    total, tokens = 0.0, 0
    for numbers in planned.epochs.take(0, 3):
        batch = planned.data.batch([numbers])
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=choose_precision(CPU) == "bfloat16"):
            total += student.model.loss(batch, choose_backend(CPU)).item()
        tokens += batch.n_supervised
    told = split_loss(student, planned.data, "loss", 3, planned.settings.seed)
    assert told is not None
    assert (told.tokens, told.contexts) == (tokens, 3)
    assert told.of_contexts > 3
    assert told.loss == pytest.approx(total / tokens, rel=1e-5)


def test_every_answer_has_its_figures(trained: tuple[Workspace, Summary], evaluation: Evaluation) -> None:
    workspace, _ = trained
    student, rows = load_student(workspace, "main", CPU), iter(evaluation.rows)
    for split in SPLITS:
        items, counts = eval_items(workspace, split, LIMIT, workspace.settings.train.seed)
        for answer, row in zip(answer_items(student, items, 60), rows, strict=False):
            assert (row.item_id, row.split, row.text) == (answer.item.id, split, answer.text)
            assert row.ended == (answer.stopped == "end")
            assert row.tokens == answer.tokens - row.ended
            assert row.reference_tokens == len(student.prompt(answer.item.reference)) - len(student.prompt(""))
            if answer.text == answer.item.reference:
                assert row.exact and not row.missing
        told = evaluation.summary["splits"][split]
        assert told["questions"] == counts.figures()
        assert told["answers"] == len(items) == sum(family["answers"] for family in told["by_family"].values())
    assert next(rows, None) is None


def test_memorised_spans_stand_in_the_record_they_name(
    trained: tuple[Workspace, Summary], evaluation: Evaluation
) -> None:
    workspace, _ = trained
    data, student = PackedData.open(TrainPaths.of(workspace).pack("train")), load_student(workspace, "main", CPU)
    spans = [row.span for row in evaluation.rows if row.span.tokens]
    assert len(spans) > 5
    for span in spans:
        text = student.tokenizer.decode(data.record(span.record)[0].tolist())
        assert span.text in text
    told = evaluation.summary["memorised"]
    assert [row["span"] for row in told["longest"]] == sorted((span.tokens for span in spans), reverse=True)[:5]
    assert all(row["family"] != "qpt" or row["split"] != "train" for row in told["longest_elsewhere"])


def test_the_gap_is_trained_minus_held_out(evaluation: Evaluation) -> None:
    splits, gap = evaluation.summary["splits"], evaluation.summary["gap"]
    train, phrasing = splits["train"], splits["phrasing"]
    assert gap["loss"]["value"] == pytest.approx(train["loss"]["loss"] - phrasing["loss"]["loss"], abs=1e-5)
    assert gap["exact"]["value"] == pytest.approx(train["exact"]["value"] - phrasing["exact"]["value"], abs=1e-5)
    assert gap["exact"]["low"] < gap["exact"]["value"] < gap["exact"]["high"]
    assert gap["facts"]["value"] == pytest.approx(train["facts"]["mean"] - phrasing["facts"]["mean"], abs=1e-5)


def test_the_command_writes_answers_and_summaries(
    trained: tuple[Workspace, Summary], evaluation: Evaluation, tmp_path: Path
) -> None:
    workspace, summary = trained
    out = tmp_path / "answers.jsonl"
    asked = ("--limit", str(LIMIT), "--max-tokens", "60", "--out", str(out))
    told = run_json("trainer", "eval", *asked, cwd=workspace.root)
    rows = [Measured.model_validate_json(line) for line in out.read_text().splitlines()]
    assert rows == evaluation.rows
    kept = workspace.train / f"runs/main/eval-step-{summary.step:06d}.json"
    assert [str(out), str(out.with_name("answers.jsonl.summary.json")), str(kept)] == told.pop("files")
    for file in (out.with_name("answers.jsonl.summary.json"), kept):
        assert json.loads(file.read_text()) == told
    assert (told["checkpoint"], told["step"]) == (f"main/step-{summary.step:06d}", summary.step)
    same = {key: value for key, value in told.items() if key != "seconds"}
    assert same == {key: value for key, value in json.loads(json.dumps(evaluation.summary)).items() if key != "seconds"}


@pytest.mark.parametrize("command", ["eval", "answer"])
def test_an_out_that_cannot_be_is_refused_before_anything_is_loaded(command: str, tmp_path: Path) -> None:
    (tmp_path / FILE).touch()
    for out, what in (
        (".", "names a folder"),
        ("none/a.jsonl", "does not exist"),
        (f"{FILE}/a.jsonl", "does not exist"),
    ):
        code = (
            f"import sys; sys.argv = ['trainer', '{command}', '--out', '{out}']\nfrom trainer.cli import main\n"
            "try: main()\nfinally: print('torch' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout) == (2, "False\n"), done.stderr
        assert what in done.stderr and f"where: {out}" in done.stderr and "mend:" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


@pytest.mark.slow
def test_the_runs_own_summary_is_kept_if_out_fails(
    copied: Workspace, evaluation: Evaluation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = tmp_path / "taken"
    gone.write_text("in the way since the measuring began")
    with pytest.raises(OSError):
        eval_command._write(copied, evaluation, gone / "answers.jsonl")
    kept = copied.train / f"runs/main/eval-step-{evaluation.summary['step']:06d}.json"
    assert json.loads(kept.read_text())["splits"] == json.loads(json.dumps(evaluation.summary["splits"]))
    assert f"kept all the same: {kept}" in capsys.readouterr().err


@pytest.mark.slow
def test_ctrl_c_says_that_nothing_is_kept(copied: Workspace) -> None:
    for kept in copied.train.glob("runs/main/eval-*"):  # of another test
        kept.unlink()
    before = sorted(copied.train.glob("runs/main/*"))
    command = [sys.executable, "-m", "trainer.cli", "eval", "--limit", "200", "--out", str(copied.root / "out.jsonl")]
    code = f"import signal, os; signal.signal(signal.SIGINT, signal.default_int_handler); os.execv({sys.executable!r}, {command!r})"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=copied.root, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stderr is not None
        seen = ""
        while "answered" not in seen and (line := process.stderr.readline()):
            seen += line
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
    assert process.returncode == 130, seen + said
    assert "stopped before the end: nothing of this is kept" in said
    assert sorted(copied.train.glob("runs/main/*")) == before
    assert not (copied.root / "out.jsonl").exists()


def test_a_person_reads_what_it_found(trained: tuple[Workspace, Summary]) -> None:
    workspace, summary = trained
    done = run("trainer", "eval", "--limit", "4", "--split", "unseen", "--split", "train", cwd=workspace.root)
    for text in (
        "trained phrasing",
        "unseen article",
        "perplexity",
        "exact match",
        "Of qpt on trained phrasings this is",
    ):
        assert text in done.stdout
    assert "held-out phrasing" not in done.stdout
    assert "minus" not in done.stdout, "a gap needs both"
    assert f"main/step-{summary.step:06d}" in done.stdout


@pytest.fixture
def copied(trained: tuple[Workspace, Summary], tmp_path: Path) -> Workspace:
    """The trained workspace, to be spoilt."""
    return Workspace(shutil.copytree(trained[0].root, tmp_path / "copy", symlinks=True))


def test_empty_splits_have_no_figures(copied: Workspace) -> None:
    for shard in copied.root.glob("shards/**/*.jsonl"):
        lines = shard.read_text().splitlines(keepends=True)
        shard.write_text("".join(line for line in lines if json.loads(line)["split"] == "train"))
    pack_again(copied)
    told = measured(copied, limit=2).summary
    for split in ("phrasing", "unseen"):
        assert (told["splits"][split]["loss"], told["splits"][split]["answers"]) == (None, 0)
        assert (told["splits"][split]["exact"], told["splits"][split]["by_family"]) == (None, {})
    assert told["splits"]["train"]["answers"] == 2
    assert {name for name, value in told["gap"].items() if value} == set()
    none = measured(copied, splits=["unseen"])
    assert (none.rows, none.summary["gap"], none.summary["memorised"]["longest"]) == ([], None, [])
    done = run("trainer", "eval", "--split", "unseen", "--out", "none.jsonl", cwd=copied.root)
    assert "the split unseen has no question to ask" in done.stderr
    assert (copied.root / "none.jsonl").read_bytes() == b""


def test_packs_that_are_not_for_this_checkpoint_are_refused(copied: Workspace) -> None:
    paths = TrainPaths.of(copied)
    ours = paths.tokenizer.read_bytes()
    texts = record_texts(shuffled_records(paths, "train"))
    save_tokenizer(train_tokenizer(texts, 400), paths.tokenizer)
    pack(copied)
    with pytest.raises(UsageError, match="the packs were made with another tokenizer"):
        measured(copied)
    paths.tokenizer.write_bytes(ours)
    settings = (copied.root / FILE).read_text()
    (copied.root / FILE).write_text(settings.replace("context = 128", "context = 256"))
    pack(Workspace(copied.root))
    with pytest.raises(UsageError, match="contexts of 256 tokens, this checkpoint has 128 positions"):
        measured(copied)
    paths.packs.unlink()
    with pytest.raises(UsageError, match="there are no packs here"):
        measured(copied)


def test_a_checkpoint_without_its_tokenizer_is_refused(copied: Workspace) -> None:
    (copied.train / "runs/main/tokenizer.json").unlink()
    TrainPaths.of(copied).tokenizer.write_text("{}")
    with pytest.raises(UsageError, match="tokenizer is not the one"):
        measured(copied)


def test_a_checkpoint_of_no_numbers_is_refused(copied: Workspace) -> None:
    student = load_student(copied, "main", CPU, exact=True)
    with torch.no_grad():
        student.model.embedding.weight.fill_(math.nan)
    data = PackedData.open(TrainPaths.of(copied).pack("unseen"))
    with pytest.raises(Failure, match="no numbers"):
        split_loss(student, data, "loss", 1, 1)


def test_a_run_without_a_checkpoint_and_no_questions_at_all_are_refused(trained: tuple[Workspace, Summary]) -> None:
    workspace, _ = trained
    with pytest.raises(UsageError, match="run none has no checkpoint"):
        evaluate(workspace, "none", CPU, splits=SPLITS, limit=1, max_tokens=1, contexts=1)
    app = new_app("")
    for module in (another, eval_command):  # a second command: typer gives an app of one no name to call it by
        module.register(app)
    for option in ("--limit", "--contexts", "--max-tokens"):
        told = CliRunner().invoke(app, ["eval", option, "0"])
        assert told.exit_code == 2
        assert f"'{option}'" in told.output
    assert not (workspace.train / "runs/none").exists()
