"""A trained model put to use: answers to held-out questions, written for the judge, and one conversation at a time.

Guarantees: the model is the one its checkpoint says, with the tokenizer it was trained with (the run's own copy, so that a
new one in the workspace orphans no run), or an error; answers are greedy, so repeatable; the file of answers is whole or
absent. Cost: about 10 s for 200 answers of 200 tokens with 4 million parameters on two cores.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from foundation.console import progress
from foundation.errors import Failure, UsageError
from foundation.records import Answer, EvalItem, messages_of
from foundation.store import LocalStore
from trainer import checkpoint
from trainer.chatml import IM_END, encode_prompt, special_id
from trainer.checkpoint import TrainState
from trainer.generate import Choose, generate, greedy
from trainer.metrics import ROUNDS, best_judged, read_rounds
from trainer.model import Model
from trainer.paths import TrainPaths, run_folder
from trainer.setup import choose_precision
from trainer.tokenizer import load_tokenizer, tokenizer_sha

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from foundation.records import Role
    from foundation.workspace import Workspace

ROWS = 64  # questions answered side by side
BEST, BEST_JUDGED = "best", "best-judged"  # what stands for the best checkpoint where a folder may be named

Turns = Sequence[tuple["Role", str]]


@dataclass
class Tally:
    """How one answer went: tokens read and written, seconds to the first token and to the last one, and whether it ended
    of itself."""

    prompt: int = 0
    tokens: int = 0
    first: float = 0.0
    seconds: float = 0.0
    ended: bool = False

    @property
    def rate(self) -> float | None:
        """Tokens a second from the first one on; None for less than two."""
        return (self.tokens - 1) / (self.seconds - self.first) if self.tokens > 1 else None


@dataclass(frozen=True)
class Student:
    """A model ready to answer. `name` is RUN/step-NNNNNN."""

    name: str
    step: int
    model: Model
    tokenizer: Tokenizer

    @property
    def stop(self) -> int:
        return special_id(self.tokenizer, IM_END)

    def prompt(self, question: str, turns: Turns = ()) -> list[int]:
        """Ids of a conversation in which it is the assistant's turn to answer `question`, after the `turns` before it."""
        return encode_prompt(self.tokenizer, messages_of([*turns, ("user", question)]))

    def text(self, tokens: list[int]) -> str:
        """The text of an answer's tokens, tags left out."""
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True)).strip()


def find_checkpoint(workspace: Workspace, run: str, named: Path | None = None) -> tuple[Path, TrainState]:
    """The newest whole checkpoint of `run`, or the one in the folder `named`.

    `best`: the one with the lowest loss on `phrasing`; `best-judged`: the one with the highest pass rate on it that is
    believed. Raises `UsageError` if there is none, `Failure` if the one meant is damaged.
    """
    if named is not None and str(named) == BEST_JUDGED:
        return _best_judged(run_folder(workspace, run), run)
    if named is not None and str(named) != BEST:
        if not named.is_dir():
            raise UsageError(
                "there is no such checkpoint",
                where=str(named),
                mend=f"name a folder step-NNNNNN of a run, `{BEST}` or `{BEST_JUDGED}`",
            )
        return named, checkpoint.read_state(named)
    folder = run_folder(workspace, run) / "checkpoints"
    found = checkpoint.best(folder) if named else checkpoint.latest(folder)
    if found:
        return found
    if named and checkpoint.latest(folder):
        raise UsageError(
            f"none of the checkpoints of run {run} was measured on `phrasing`, so none is the best",
            where=str(folder),
            mend="leave --checkpoint out for the newest, or name one's folder",
        )
    raise UsageError(f"run {run} has no checkpoint", where=str(workspace.root), mend="train it with `trainer run`")


def _best_judged(folder: Path, run: str) -> tuple[Path, TrainState]:
    points = read_rounds(folder)
    best = best_judged(points)
    if best is None:
        mine = [point for point in points if point.split == "phrasing"]
        why = f"no checkpoint of run {run} was judged on held-out phrasings"
        if any(point.believed for point in mine):
            why = f"no judging of run {run} found an answer to a held-out phrasing right, so no checkpoint is the best judged"
        elif any(point.pass_rate is not None or point.problems for point in mine):
            why = f"no judging of run {run} on held-out phrasings is to be believed, so none of its checkpoints is the best judged"
        raise UsageError(
            why,
            where=str(folder / ROUNDS),
            mend="judge it with `trainer run --orchestrate`, or take `best`, the one with the lowest loss",
        )
    path = folder / "checkpoints" / checkpoint.folder_name(best.step)
    if not path.is_dir():
        raise UsageError(
            f"the checkpoint that was judged best, of step {best.step:,}, is gone: made room for newer ones",
            where=str(path),
            mend="name another one with --checkpoint; raise train.keep to keep more of them",
        )
    return path, checkpoint.read_state(path)


def tokenizer_of(workspace: Workspace, path: Path, state: TrainState) -> Path:
    """The file of the tokenizer that the checkpoint in the folder `path` was trained with: its run's own copy, as a rule.

    Raises `UsageError` if neither that nor the workspace's is it.
    """
    ours = TrainPaths.of(workspace).tokenizer
    homes = (path.resolve().parent.parent, run_folder(workspace, state.run))
    for file in (*(home / ours.name for home in homes), ours):
        if file.is_file() and tokenizer_sha(file) == state.tokenizer:
            return file
    raise UsageError(
        "the tokenizer is not the one this checkpoint was trained with",
        where=f"{homes[0] / ours.name}, {ours}",
        mend="put that tokenizer back, or train anew with `trainer run --fresh`",
    )


def load_student(
    workspace: Workspace, run: str, device: torch.device, path: Path | None = None, *, exact: bool = False
) -> Student:
    """The model of the checkpoint that `find_checkpoint` finds; in bfloat16 on a GPU that has it, else in float32.

    `exact`: in float32 everywhere, as it was trained; `fast` makes it what it would have been. Raises `UsageError` if there
    is none or its tokenizer is lost, `Failure` if the one named is damaged.
    """
    found, state = find_checkpoint(workspace, run, path)
    tokenizer = load_tokenizer(tokenizer_of(workspace, found, state))
    model = Model(state.model)
    checkpoint.load_weights(found, model)
    model = model.to(device).eval()
    return Student(f"{state.run}/{found.name}", state.step, model if exact else fast(model, device), tokenizer)


def fast(model: Model, device: torch.device) -> Model:
    """The model itself, its weights now in what answers are made with on `device`."""
    exact = device.type == "cpu" or choose_precision(device) == "float32"
    return model.to(torch.float32 if exact else torch.bfloat16)


def answer_items(student: Student, items: list[EvalItem], limit: int) -> list[Answer]:
    """Greedy answers of at most `limit` tokens, in the order of `items`. A question too long for the model gets none."""
    written = answer_tokens(student, [item.question for item in items], limit)
    return [_answer(student, item, tokens) for item, tokens in zip(items, written, strict=True)]


def answer_tokens(student: Student, questions: Sequence[str], limit: int) -> list[list[int]]:
    """The tokens of greedy answers, the one that ends an answer with them."""
    prompts = [student.prompt(question) for question in questions]
    written: list[list[int]] = [[] for _ in prompts]
    by_length = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
    with progress("answered", len(prompts)) as bar:
        for start in range(0, len(prompts), ROWS):
            numbers = by_length[start : start + ROWS]
            chosen = [prompts[number] for number in numbers]
            for row, token in generate(student.model, chosen, limit=limit, stop=student.stop):
                written[numbers[row]].append(token)
            bar.advance(len(numbers))
    return written


def _answer(student: Student, item: EvalItem, tokens: list[int]) -> Answer:
    stopped: Literal["end", "length"] = "end" if tokens[-1:] == [student.stop] else "length"
    return Answer(item=item, text=student.text(tokens), stopped=stopped, tokens=len(tokens), checkpoint=student.name)


def write_answers(path: Path, answers: list[Answer]) -> None:
    """JSON lines, put in place at once."""
    data = b"".join(answer.model_dump_json().encode() + b"\n" for answer in answers)
    LocalStore(path.parent).put(path.name, data)


def stream(
    student: Student,
    question: str,
    *,
    limit: int,
    choose: Choose = greedy,
    turns: Turns = (),
    tally: Tally | None = None,
) -> Iterator[str]:
    """Pieces of the answer's text as they come, no character torn. Ends at `<|im_end|>`.

    An answer that is cut at `limit` tokens, or where the model's positions end, simply ends. `turns` went before the
    question. Raises `Failure` if there is no room for an answer.
    """
    from tokenizers.decoders import DecodeStream

    prompt = student.prompt(question, turns)
    if len(prompt) >= student.model.config.context:
        raise Failure(
            f"the question has {len(prompt)} tokens, the model {student.model.config.context} positions",
            mend="shorten it",
        )
    tally = tally if tally is not None else Tally()
    tally.prompt, began = len(prompt), time.perf_counter()
    decoder = DecodeStream(skip_special_tokens=True)
    for _, token in generate(student.model, [prompt], limit=limit, stop=student.stop, choose=choose):
        now = time.perf_counter() - began
        tally.first, tally.seconds, tally.tokens = tally.first or now, now, tally.tokens + 1
        tally.ended = token == student.stop
        if piece := decoder.step(student.tokenizer, token):
            yield piece


def fitting(student: Student, turns: list[tuple[Role, str]], question: str, room: int) -> list[tuple[Role, str]]:
    """The newest of the turns, in pairs of question and answer, that leave `room` tokens for the next answer."""
    while turns and len(student.prompt(question, turns)) + room > student.model.config.context:
        turns = turns[2:]
    return turns
