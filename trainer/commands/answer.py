"""`trainer answer` and `trainer chat`: a trained model put to use. Cost: torch is imported when a command runs (about 2 s)."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from foundation.console import emit_json, say, table
from trainer.commands.options import AS_JSON, CHECKPOINT, DEVICE, RUN, Device

if TYPE_CHECKING:
    from foundation.workspace import Workspace
    from trainer.answer import Student
    from trainer.generate import Choose


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command("answer")(answer_command)
    app.command("chat")(chat_command)


def answer_command(
    split: Literal["phrasing", "unseen"] = typer.Option("phrasing", help="Which held-out split asks."),
    limit: int | None = typer.Option(None, min=1, help="Questions, at most; default: judge.answers of factory.toml."),
    out: Path = typer.Option(..., help="File to write the answers to, as JSON lines."),
    max_tokens: int = typer.Option(256, min=1, help="Tokens in an answer, at most."),
    run: str = RUN,
    checkpoint: Path | None = CHECKPOINT,
    device: Device = DEVICE,
    as_json: bool = AS_JSON,
) -> None:
    """Answer held-out questions greedily, for `judge run`."""
    import time

    from foundation.workspace import Workspace
    from trainer.answer import answer_items, load_student, write_answers
    from trainer.evalset import eval_items
    from trainer.setup import choose_device

    workspace = Workspace.find()
    settings = workspace.settings
    with _gpu_for_answers(workspace, device):
        student = load_student(workspace, run, choose_device(device), checkpoint)
        items, counts = eval_items(workspace, split, limit or settings.judge.answers, settings.train.seed)
        if not items:
            say(f"the split {split} has no question to ask: {counts.figures()}")
        started = time.perf_counter()
        answers = answer_items(student, items, max_tokens)
        seconds = time.perf_counter() - started
    write_answers(out, answers)
    ended = sum(answer.stopped == "end" for answer in answers)
    result = {
        "checkpoint": student.name,
        "step": student.step,
        "split": split,
        "answers": len(answers),
        "stopped": ended,
        "stop_rate": round(ended / len(answers), 4) if answers else None,
        "tokens": sum(answer.tokens for answer in answers),
        "seconds": round(seconds, 2),
        "questions": counts.figures(),
        "file": str(out),
    }
    emit_json(result) if as_json else table(("answers", ""), result.items())


def _gpu_for_answers(workspace: Workspace, device: Device) -> AbstractContextManager[object]:
    """Hold the GPU that will be used; a CPU can be shared."""
    from foundation.devices import device_name, hold_device

    if device == "cpu" or device_name() == "cpu":
        return nullcontext()
    return hold_device(f"trainer answer in {workspace.root}", ask=True)


def chat_command(
    prompt: str | None = typer.Option(None, "-p", "--prompt", help="Ask this one question; without it, one a line."),
    greedy: bool = typer.Option(False, "--greedy", help="Always the likeliest token."),
    top_k: int = typer.Option(40, min=1, help="Draw among this many likeliest tokens."),
    temperature: float = typer.Option(0.75, min=0.01, help="Lower is surer."),
    seed: int = typer.Option(0, min=0, help="Seed of the draws."),
    max_tokens: int = typer.Option(256, min=1, help="Tokens in an answer, at most."),
    run: str = RUN,
    checkpoint: Path | None = CHECKPOINT,
    device: Device = DEVICE,
) -> None:
    """Ask the model. Every question is a conversation of its own: it has learned no other."""
    from foundation.workspace import Workspace
    from trainer.answer import load_student
    from trainer.generate import greedy as likeliest
    from trainer.generate import top_k_sampler
    from trainer.setup import choose_device

    student = load_student(Workspace.find(), run, choose_device(device), checkpoint)
    choose = likeliest if greedy else top_k_sampler(top_k, temperature, seed)
    if prompt is not None:
        _reply(student, prompt, max_tokens, choose)
        return
    say(f"{student.name}; an empty line or Ctrl-D ends")
    while True:
        if sys.stdin.isatty():
            print("> ", end="", file=sys.stderr, flush=True)
        question = sys.stdin.readline().strip()
        if not question:
            return
        _reply(student, question, max_tokens, choose)


def _reply(student: Student, question: str, max_tokens: int, choose: Choose) -> None:
    from trainer.answer import stream

    for piece in stream(student, question, limit=max_tokens, choose=choose):
        print(piece, end="", flush=True)
    print(flush=True)
