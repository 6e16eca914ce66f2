"""A trained model put to use: answers to held-out questions, written for the judge, and one conversation at a time.

Guarantees: the model is the one its checkpoint says, with the tokenizer it was trained with, or an error; answers are
greedy, so repeatable; the file of answers is whole or absent. Cost: about 10 s for 200 answers of 200 tokens with 4
million parameters on two cores.
"""

from __future__ import annotations

from collections.abc import Iterator
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
from trainer.generate import Choose, generate, greedy
from trainer.model import Model
from trainer.paths import TrainPaths
from trainer.setup import run_folder
from trainer.tokenizer import load_tokenizer, tokenizer_sha

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from foundation.workspace import Workspace

ROWS = 64  # questions answered side by side


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

    def prompt(self, question: str) -> list[int]:
        """Ids of a conversation in which it is the assistant's turn to answer `question`."""
        return encode_prompt(self.tokenizer, messages_of([("user", question)]))

    def text(self, tokens: list[int]) -> str:
        """The text of an answer's tokens, tags left out."""
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True)).strip()


def load_student(workspace: Workspace, run: str, device: torch.device, path: Path | None = None) -> Student:
    """The newest whole checkpoint of `run`, or the one in the folder `path`.

    Raises `UsageError` if there is none or the workspace's tokenizer is not the one it was trained with, `Failure` if
    the one named is damaged.
    """
    if path is None:
        found = checkpoint.latest(run_folder(workspace, run) / "checkpoints")
        if found is None:
            raise UsageError(
                f"run {run} has no checkpoint", where=str(workspace.root), mend="train it with `trainer run`"
            )
        path, state = found
    elif not path.is_dir():
        raise UsageError("there is no such checkpoint", where=str(path), mend="name a folder step-NNNNNN of a run")
    else:
        state = checkpoint.read_state(path)
    tokenizer = TrainPaths.of(workspace).tokenizer
    if tokenizer_sha(tokenizer) != state.tokenizer:
        raise UsageError(
            "the tokenizer is not the one this checkpoint was trained with",
            where=f"{tokenizer}, {path}",
            mend="put that tokenizer back, or train anew with `trainer run --fresh`",
        )
    model = Model(state.model)
    checkpoint.load_weights(path, model)
    return Student(f"{state.run}/{path.name}", state.step, model.to(device).eval(), load_tokenizer(tokenizer))


def answer_items(student: Student, items: list[EvalItem], limit: int) -> list[Answer]:
    """Greedy answers of at most `limit` tokens, in the order of `items`. A question too long for the model gets none."""
    prompts = [student.prompt(item.question) for item in items]
    written: list[list[int]] = [[] for _ in items]
    by_length = sorted(range(len(items)), key=lambda number: len(prompts[number]))
    with progress("answered", len(items)) as bar:
        for start in range(0, len(items), ROWS):
            numbers = by_length[start : start + ROWS]
            chosen = [prompts[number] for number in numbers]
            for row, token in generate(student.model, chosen, limit=limit, stop=student.stop):
                written[numbers[row]].append(token)
            bar.advance(len(numbers))
    return [_answer(student, item, tokens) for item, tokens in zip(items, written, strict=True)]


def _answer(student: Student, item: EvalItem, tokens: list[int]) -> Answer:
    stopped: Literal["end", "length"] = "end" if tokens[-1:] == [student.stop] else "length"
    return Answer(item=item, text=student.text(tokens), stopped=stopped, tokens=len(tokens), checkpoint=student.name)


def write_answers(path: Path, answers: list[Answer]) -> None:
    """JSON lines, put in place at once."""
    data = b"".join(answer.model_dump_json().encode() + b"\n" for answer in answers)
    LocalStore(path.parent).put(path.name, data)


def stream(student: Student, question: str, *, limit: int, choose: Choose = greedy) -> Iterator[str]:
    """Pieces of the answer's text as they come. Ends at `<|im_end|>`; raises `Failure` if there is no room for an answer.

    An answer that is cut at `limit` tokens, or where the model's positions end, simply ends.
    """
    from tokenizers.decoders import DecodeStream

    prompt = student.prompt(question)
    if len(prompt) >= student.model.config.context:
        raise Failure(
            f"the question has {len(prompt)} tokens, the model {student.model.config.context} positions",
            mend="shorten it",
        )
    decoder = DecodeStream(skip_special_tokens=True)
    for _, token in generate(student.model, [prompt], limit=limit, stop=student.stop, choose=choose):
        if piece := decoder.step(student.tokenizer, token):
            yield piece
