"""lm-evaluation-harness on an export, by the documented command, and the script that makes its tasks from a workspace.

The harness computes with `transformers` from the exported folder and its chat template; what it finds is computed again here
from the checkpoint with the project's own model and ChatML.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from foundation.corpus import Corpus, jsonl
from foundation.records import EvalItem, Record, Split
from foundation.workspace import Workspace
from tests.trainer.saved_run import QWEN3, saved_run
from trainer.answer import Student, load_student
from trainer.attention import attend
from trainer.export.run import Wanted, export
from trainer.generate import generate
from trainer.layout import Layout
from trainer.shuffle import shuffle

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPT = REPOSITORY / "examples/lm-eval/make_task.py"
HAS_HARNESS = all(importlib.util.find_spec(name) for name in ("lm_eval", "accelerate"))
QUESTIONS = ("Who won at Stalingrad?", "When was the battle,\nand where?", "été 北京 🙂?", "Why did the Red Army win?")
OPTIONS = ("A) The Red Army", "B) February 1943", "C) Stalingrad, twenty-one divisions", "D) été")
TOKENS = 64  # as factory_exact.yaml says


def make_task() -> Any:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("make_task", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def likelihood(student: Student, question: str, continuation: str) -> float:
    """Log-likelihood of `continuation` as the answer, and of the line feed before it, which the harness counts to it."""
    prompt = student.prompt(question)
    feed = student.tokenizer.encode("\n", add_special_tokens=False).ids
    assert prompt[-len(feed) :] == feed
    tokens = prompt + student.tokenizer.encode(continuation, add_special_tokens=False).ids
    layout = Layout.of([len(tokens)], len(tokens))
    with torch.no_grad():
        hidden = student.model.hidden(
            torch.tensor(tokens), torch.arange(len(tokens)), lambda _, q, k, v: attend(q, k, v, layout, "mask")
        )
        shares = student.model.logits(hidden).double().log_softmax(-1)
    first = len(prompt) - len(feed)
    return sum(float(shares[at - 1, tokens[at]]) for at in range(first, len(tokens)))


def written(student: Student, question: str) -> str:
    """The greedy answer, as it was written."""
    tokens = [
        token for _, token in generate(student.model, [student.prompt(question)], limit=TOKENS, stop=student.stop)
    ]
    return str(student.tokenizer.decode(tokens, skip_special_tokens=True))


def harness(model: Path, tasks: Path, out: Path) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    """The documented command. Returns the results and each task's samples, in the order of its rows."""
    argv = [
        sys.executable,
        "-m",
        "lm_eval",
        "run",
        "--model",
        "hf",
        "--model_args",
        f"pretrained={model},dtype=float32",
    ]
    argv += ["--tasks", "factory_choice,factory_exact", "--include_path", str(tasks), "--apply_chat_template"]
    argv += ["--device", "cpu", "--batch_size", "4", "--output_path", str(out), "--log_samples"]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(out / "cache")}
    done = subprocess.run(argv, capture_output=True, text=True, timeout=280, env={**os.environ, **offline}, cwd=out)
    assert done.returncode == 0, done.stderr[-4000:]
    (results,) = out.glob("*/results_*.json")
    samples = {}
    for task in ("factory_choice", "factory_exact"):
        (file,) = out.glob(f"*/samples_{task}_*.jsonl")
        rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
        samples[task] = sorted(rows, key=lambda row: row["doc_id"])
    return json.loads(results.read_text("utf-8"))["results"], samples


@pytest.mark.slow
@pytest.mark.skipif(not HAS_HARNESS, reason="lm-evaluation-harness is not installed (docs/evaluation.md says how)")
def test_the_harness_finds_in_an_export_what_the_checkpoint_says(workspace: Workspace, tmp_path: Path) -> None:
    saved_run(workspace, QWEN3.model_copy(update={"context": 256}))
    folder, _ = export(workspace, Wanted(run="main"))
    student = load_student(workspace, "main", torch.device("cpu"))
    asked = [[likelihood(student, question, option) for option in OPTIONS] for question in QUESTIONS]
    likeliest = [row.index(max(row)) for row in asked]
    right = [likeliest[0], likeliest[1], likeliest[2], (likeliest[3] + 1) % 4]  # the last one is answered wrong
    texts = [written(student, question) for question in QUESTIONS]
    script = make_task()
    script.write_task(
        tmp_path / "tasks",
        "choice",
        [{"id": q, "question": q, "choices": OPTIONS, "answer": a} for q, a in zip(QUESTIONS, right, strict=True)],
    )
    answers = [*texts[:2], "not this", "nor that"]
    script.write_task(
        tmp_path / "tasks",
        "exact",
        [{"id": q, "question": q, "answer": a} for q, a in zip(QUESTIONS, answers, strict=True)],
    )
    (tmp_path / "out").mkdir()

    results, samples = harness(folder, tmp_path / "tasks", tmp_path / "out")

    for row, ours in zip(samples["factory_choice"], asked, strict=True):
        theirs = [float(answer[0][0]) for answer in row["resps"]]
        assert theirs == pytest.approx(ours, abs=1e-3)
    assert [row["resps"][0][0] for row in samples["factory_exact"]] == texts
    assert results["factory_choice"]["acc,none"] == 0.75
    assert results["factory_exact"]["exact_match,none"] == 0.5


def item(question: str, reference: str) -> EvalItem:
    names = dict.fromkeys(("id", "record_id", "prompt_type", "family", "article_id", "title", "snippet"), "x")
    return EvalItem(**names, split="phrasing", question=question, reference=reference)


def test_a_row_of_options_knows_the_one_that_the_reference_begins_with() -> None:
    row = make_task().choice_row
    question = "Who?\nA) 9 July\nB) 9 July 1944\nC) Paul"
    made = row(item(question, "B) 9 July 1944. On 9 July 1944 it was."))
    assert (made["choices"], made["answer"]) == (["A) 9 July", "B) 9 July 1944", "C) Paul"], 1)
    assert made["question"] == question
    assert row(item(question, "C) Paul"))["answer"] == 2
    assert row(item(question, "Paul")) is None
    assert row(item(question, "C) Paula did.")) is None
    assert row(item("Who?\nA) Paul", "A) Paul.")) is None


def test_tasks_are_made_of_held_out_questions_alone(
    workspace: Workspace, record_of: Callable[..., Record], tmp_path: Path
) -> None:
    splits: tuple[Split, ...] = ("train", "phrasing", "phrasing", "unseen")
    for number, (snippet, split) in enumerate(zip(Corpus(workspace.store).all_snippets(), splits, strict=False)):
        options = f"Which month, {number}?\nA) May\nB) June"
        asked = {"choice/four-options": (options, "B) June. It was."), "cloze/entity": (f"____ is {number}.", "June")}
        for prompt_type, pair in asked.items():
            turns = [("user", pair[0]), ("assistant", pair[1])]
            record = record_of(snippet, turns, prompt_type=prompt_type, split=split)
            workspace.store.put(f"shards/{prompt_type}/{record.unit}{number}.jsonl", jsonl([record]))
    shuffle(workspace, 1)
    argv = [sys.executable, str(SCRIPT), "--workspace", str(workspace.root), "--out", str(tmp_path / "tasks")]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(argv, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["factory_choice"] == {"prompt_type": "choice/four-options", "rows": 2, "left_out": 0}
    rows = [json.loads(line) for line in (tmp_path / "tasks/choice.jsonl").read_text().splitlines()]
    assert {row["question"].partition("\n")[0] for row in rows} == {"Which month, 1?", "Which month, 2?"}
    assert all(row["answer"] == 1 for row in rows)
    exact = [json.loads(line) for line in (tmp_path / "tasks/exact.jsonl").read_text().splitlines()]
    assert sorted((row["question"], row["answer"]) for row in exact) == [("____ is 1.", "June"), ("____ is 2.", "June")]
    assert str(tmp_path / "tasks/choice.jsonl") in (tmp_path / "tasks/factory_choice.yaml").read_text()

    wrong = subprocess.run([*argv, "--choice", "no/such"], capture_output=True, text=True, env=environment)
    assert wrong.returncode == 2
    assert "no question of no/such" in wrong.stderr
