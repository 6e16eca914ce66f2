"""`trainer answer` and `trainer chat`: a trained model put to use. Cost: torch is imported when a command runs (about 2 s)."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from foundation.console import emit_json, plain, say, table
from foundation.errors import FactoryError
from foundation.splits import SPLIT_NAMES
from trainer.commands.options import AS_JSON, CHECKPOINT, DEVICE, RUN, Asked, Device, splits_of

if TYPE_CHECKING:
    from foundation.records import Answer, Role, Split
    from foundation.workspace import Workspace
    from trainer.answer import Student
    from trainer.evalset import EvalCounts
    from trainer.generate import Choose
QUIT, NEW = "/quit", "/new"


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command("answer")(answer_command)
    app.command("chat")(chat_command)


def answer_command(
    split: list[Asked] = typer.Option(
        [Asked.phrasing],
        metavar="SPLIT",
        help="Who asks: phrasing (held-out phrasings), unseen (unseen articles), train (trained phrasings) or all; may be "
        "given again: one behind the other in the file.",
    ),
    limit: int | None = typer.Option(
        None, min=1, help="Questions a split, at most; default: judge.answers of factory.toml."
    ),
    out: Path = typer.Option(..., help="File to write the answers to, as JSON lines."),
    max_tokens: int = typer.Option(256, min=1, help="Tokens in an answer, at most."),
    run: str = RUN,
    checkpoint: Path | None = CHECKPOINT,
    device: Device = DEVICE,
    as_json: bool = AS_JSON,
) -> None:
    """Answer questions greedily, for `judge run`."""
    check_out(out)

    import time

    from foundation.workspace import Workspace
    from trainer.answer import answer_items, load_student, write_answers
    from trainer.evalset import eval_sets
    from trainer.setup import choose_device

    workspace, splits = Workspace.find(), splits_of(split)
    settings = workspace.settings
    with gpu_held(workspace, device, "trainer answer"):
        student = load_student(workspace, run, choose_device(device), checkpoint)
        sets = eval_sets(workspace, splits, limit or settings.judge.answers, settings.train.seed)
        for name, (items, counts) in sets.items():
            if not items:
                say(f"the split {name} has no question to ask: {counts.figures()}")
        started = time.perf_counter()
        answers = answer_items(student, [item for items, _ in sets.values() for item in items], max_tokens)
        seconds = time.perf_counter() - started
    write_answers(out, answers)
    result = {
        "checkpoint": student.name,
        "step": student.step,
        "split": ",".join(splits),
        **_told(answers),
        "tokens": sum(answer.tokens for answer in answers),
        "seconds": round(seconds, 2),
        "file": str(out),
    }
    _report(result, answers, {name: counts for name, (_, counts) in sets.items()}, as_json)


def check_out(out: Path) -> None:
    """Whether a file can stand there: asked before minutes go into what shall stand in it. Raises `UsageError`."""
    from foundation.errors import UsageError

    if out.is_dir():
        raise UsageError("--out names a folder", where=str(out), mend="name a file in it")
    if not out.absolute().parent.is_dir():
        raise UsageError("the folder for --out does not exist", where=str(out), mend="make it, or mend --out")


def _report(
    result: dict[str, Any], answers: Sequence[Answer], questions: Mapping[Split, EvalCounts], as_json: bool
) -> None:
    """Say what was answered, over all and by split."""
    by_split = {
        name: _told([answer for answer in answers if answer.item.split == name]) | {"questions": counts.figures()}
        for name, counts in questions.items()
    }
    if as_json:
        total = Counter[str]()
        for counts in questions.values():
            total.update(counts.figures())
        emit_json(result | {"questions": dict(total), "by_split": by_split})
        return
    table(("answers", ""), result.items())
    print()
    reasons = list(next(iter(questions.values())).figures())
    table(
        ("split", "answers", "stopped", *(reason.replace("_", " ") for reason in reasons)),
        (
            (SPLIT_NAMES[name], told["answers"], told["stopped"], *(told["questions"][reason] for reason in reasons))
            for name, told in by_split.items()
        ),
    )


def _told(answers: Sequence[Answer]) -> dict[str, Any]:
    ended = sum(answer.stopped == "end" for answer in answers)
    return {
        "answers": len(answers),
        "stopped": ended,
        "stop_rate": round(ended / len(answers), 4) if answers else None,
    }


def gpu_held(workspace: Workspace, device: Device, who: str) -> AbstractContextManager[object]:
    """Hold the GPU that will be used; a CPU can be shared."""
    from foundation.devices import device_name, hold_device

    if device == "cpu" or device_name() == "cpu":
        return nullcontext()
    return hold_device(f"{who} in {workspace.root}", ask=True)


def chat_command(
    prompt: str | None = typer.Option(None, "-p", "--prompt", help="Ask this one question; without it, one a line."),
    history: bool = typer.Option(
        False, "--history", help="Questions go on from the answers before, for models trained on dialogues."
    ),
    greedy: bool = typer.Option(False, "--greedy", help="Always the likeliest token."),
    top_k: int = typer.Option(40, min=1, help="Draw among this many likeliest tokens."),
    temperature: float = typer.Option(0.75, min=0.01, help="Lower is surer."),
    seed: int = typer.Option(0, min=0, help="Seed of the draws."),
    max_tokens: int = typer.Option(256, min=1, help="Tokens in an answer, at most."),
    stats: bool = typer.Option(False, "--stats", help="Say after each answer how many tokens it had, and how fast."),
    run: str = RUN,
    checkpoint: Path | None = CHECKPOINT,
    device: Device = DEVICE,
) -> None:
    """Ask the model. Without --history every question is a conversation of its own. Ctrl-C stops an answer, /quit the chat."""
    from foundation.workspace import Workspace
    from trainer.answer import load_student
    from trainer.generate import greedy as likeliest
    from trainer.generate import top_k_sampler
    from trainer.setup import choose_device

    student = load_student(Workspace.find(), run, choose_device(device), checkpoint)
    choose = likeliest if greedy else top_k_sampler(top_k, temperature, seed)
    talk = _Chat(student, choose, max_tokens, history, stats)
    if prompt is not None:
        talk.reply(prompt)
        return
    say(f"{student.name}; {QUIT} or Ctrl-D ends{f', {NEW} forgets what was said' if history else ''}")
    while (question := _question()) is not None:
        talk.one(question)


class _Chat:
    """A conversation on standard output. `turns` are what was said, with `history`."""

    def __init__(self, student: Student, choose: Choose, max_tokens: int, history: bool, stats: bool) -> None:
        self.student, self.choose, self.max_tokens, self.history, self.stats = (
            student,
            choose,
            max_tokens,
            history,
            stats,
        )
        self.turns: list[tuple[Role, str]] = []
        # A terminal gets nothing that could move its cursor; what is piped on gets the bytes.
        self.shown = plain if sys.stdout.isatty() else str

    def one(self, line: str) -> None:
        """Answer a line, or do what it says. No line ends the chat: what cannot be answered is told."""
        if line == NEW:
            self.turns = []
        elif line:
            try:
                self.reply(line)
            except KeyboardInterrupt:
                print(flush=True)
                say("stopped")
            except FactoryError as error:
                say(f"error: {error}")

    def reply(self, question: str) -> None:
        """Write the answer as it comes."""
        from trainer.answer import Tally, fitting, stream

        tally, pieces = Tally(), []
        question = question.encode("utf-8", "replace").decode()  # bytes that are no UTF-8 come in as half characters
        turns = fitting(self.student, self.turns, question, self.max_tokens)
        answer = stream(self.student, question, limit=self.max_tokens, choose=self.choose, turns=turns, tally=tally)
        for piece in answer:
            print(self.shown(piece), end="", flush=True)
            pieces.append(piece)
        print(flush=True)
        if self.history:
            self.turns = [*turns, ("user", question), ("assistant", "".join(pieces))]
        if self.stats:
            rate = f", {tally.rate:,.0f} tokens/s" if tally.rate else ""
            say(
                f"{tally.prompt:,} tokens read, first of {tally.tokens:,} after {tally.first:.3f} s{rate}"
                f"{'' if tally.ended else '; cut, it had not ended'}"
            )


def _question() -> str | None:
    """The next line, edited with the keys of a shell where a person types; None at the end."""
    person = sys.stdin.isatty()
    try:
        if person and sys.stdout.isatty():
            import readline  # noqa: F401  gives `input` its keys and its memory

            line = input("> ")
        else:
            if person:
                print("> ", end="", file=sys.stderr, flush=True)
            line = sys.stdin.readline()
            if not line:
                return None
    except EOFError:
        say("")
        return None
    except KeyboardInterrupt:
        say(f"\n{QUIT} or Ctrl-D ends")
        return ""
    return None if line.strip() == QUIT else line.strip()
