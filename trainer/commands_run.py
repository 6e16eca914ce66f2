"""The model half of the `trainer` command: `params`, `run`, `answer`, `chat`.

Guarantees: results on standard output, everything else on standard error; an interrupted `run` ends well. `run`, and
`answer` on a GPU, ask whoever holds their device for it and hold it until they end. Cost: torch is
imported when a command runs (about 2 s), never for `--help`.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from foundation.console import emit_json, say, table

if TYPE_CHECKING:
    from foundation.workspace import Workspace
    from trainer.answer import Student
    from trainer.generate import Choose

AS_JSON = typer.Option(False, "--json", help="Print one JSON document.")
RUN = typer.Option("main", "--run", help="Name of the run: a folder in train/runs/.")
DEVICE = typer.Option("auto", "--device", help="auto, cpu or cuda.")
CHECKPOINT = typer.Option(None, "--checkpoint", help="Folder of a checkpoint; default: the run's newest.")
Device = Literal["auto", "cpu", "cuda"]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command("params")(params_command)
    app.command("run")(run_command)
    app.command("answer")(answer_command)
    app.command("chat")(chat_command)


def params_command(
    name: str = typer.Argument("", metavar="[PRESET]", help="One preset; default: all of them."),
    as_json: bool = AS_JSON,
) -> None:
    """Print how many parameters a preset has."""
    from trainer.presets import PRESETS, preset

    if as_json:
        rows = [{"preset": one, "parameters": preset(one).parameters} for one in ([name] if name else PRESETS)]
        emit_json(rows[0] if name else rows)
        return
    shapes = [(one, preset(one)) for one in ([name] if name else PRESETS)]
    table(
        ("preset", "parameters", "vocabulary", "layers", "width", "heads", "ffn"),
        [
            (
                one,
                it.parameters,
                it.config.vocabulary,
                it.config.layers,
                it.config.width,
                it.config.heads,
                it.config.ffn,
            )
            for one, it in shapes
        ],
    )
    if any(it.any_vocabulary for _, it in shapes):
        say("demo takes the size of the tokenizer as its vocabulary")


def run_command(
    run: str = RUN,
    until_step: int | None = typer.Option(
        None, min=1, help="Stop here, with a checkpoint; the schedule stays that of the whole run."
    ),
    fresh: bool = typer.Option(False, "--fresh", help="Forget this run's checkpoints and figures, and begin anew."),
    orchestrated: bool = typer.Option(
        False, "--orchestrate", help="Train, answer and judge in turn: train.rounds rounds, a process group a stage."
    ),
    device: Device = DEVICE,
    as_json: bool = AS_JSON,
) -> None:
    """Train, going on from the run's newest checkpoint if it has one; settings are in factory.toml, [train]."""
    from dataclasses import asdict

    from foundation.workspace import Workspace

    workspace = Workspace.find()
    if orchestrated:
        _orchestrate(workspace, run, until_step, fresh, device, as_json)
        return
    from foundation.devices import hold_device

    _check(workspace, run)
    with hold_device(f"trainer run in {workspace.root}", ask=True, name="cpu" if device == "cpu" else ""):
        from trainer.loop import train
        from trainer.setup import choose_device

        summary = train(workspace, run, choose_device(device), until=until_step, fresh=fresh)
    emit_json(asdict(summary)) if as_json else table(("run", ""), asdict(summary).items())


def _check(workspace: Workspace, run: str) -> None:
    """Nobody is asked for a device in vain: what stops a run is found before, as far as torch is not needed for it."""
    from trainer.pack import PackedData
    from trainer.paths import TrainPaths, run_folder
    from trainer.presets import model_config
    from trainer.tokenizer import tokenizer_sha

    run_folder(workspace, run)
    paths = TrainPaths.of(workspace)
    data = PackedData.open(paths.pack("train"), tokenizer_sha=tokenizer_sha(paths.tokenizer))
    model_config(workspace.settings.train.preset, data.meta.vocabulary, data.meta.context)
    with workspace.lock(f"train-{run}", wait=False):
        pass  # nobody else trains this run


def _orchestrate(
    workspace: Workspace, run: str, until_step: int | None, fresh: bool, device: Device, as_json: bool
) -> None:
    from foundation.errors import UsageError
    from trainer.orchestrate import orchestrate

    if until_step is not None:
        raise UsageError(
            "--until-step and --orchestrate exclude each other",
            where="the command line",
            mend="leave --until-step out: the rounds (train.rounds) cut the run",
        )
    summary = orchestrate(workspace, run=run, rounds=workspace.settings.train.rounds, device=device, fresh=fresh)
    if as_json:
        emit_json(summary)
        return
    keys = ("round", "split", "step", "pass_rate", "low", "high", "baseline", "unscored", "stop_rate", "error")
    table(keys, [[result[key] for key in keys] for result in summary["results"]], title=f"run {run}")


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
