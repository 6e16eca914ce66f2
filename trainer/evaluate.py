"""`trainer eval`'s work: a checkpoint's losses by split, its answers, and their figures.

Guarantees: the loss is the trainer's own: of the same contexts in the same order, laid out and computed in the same way
(tested: perplexity is its exponential to 1e-5); answers are those of `trainer answer`, so greedy and repeatable. Every
figure stands with the number that it was taken of. Cost: one pass over `contexts` contexts a split, then the answers
(`trainer.answer`), then one pass over the training tokens (`trainer.memorised`).
Misses: a system message that a record had is not part of its question here.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from foundation.console import progress
from foundation.errors import Failure, UsageError
from foundation.records import Split
from foundation.tables import MixSettings
from trainer.answer import Student, answer_tokens, fast, find_checkpoint, load_student
from trainer.attention import choose_backend
from trainer.autobatch import CPU_TOKENS
from trainer.epochs import Epochs
from trainer.evalset import eval_sets
from trainer.measure import Figures, Measured, Span, by_family, figures, gap, measure
from trainer.memorised import LEAST, longest_runs
from trainer.pack import PackedData
from trainer.paths import TrainPaths
from trainer.setup import choose_precision

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from foundation.records import EvalItem
    from foundation.workspace import Workspace
    from trainer.evalset import Chosen

LONGEST = 5  # memorised spans that are shown


@dataclass(frozen=True)
class Loss:
    """Nats per supervised token of a split, over `contexts` of its `of_contexts`, which hold `tokens` supervised tokens."""

    loss: float
    perplexity: float
    tokens: int
    contexts: int
    of_contexts: int


@dataclass(frozen=True)
class Evaluation:
    """What was found: every answer with its figures, and the summary."""

    rows: list[Measured]
    summary: dict[str, Any]


def evaluate(
    workspace: Workspace,
    run: str,
    device: torch.device,
    *,
    splits: Sequence[Split],
    limit: int,
    max_tokens: int,
    contexts: int,
    named: Path | None = None,
) -> Evaluation:
    """Measure the checkpoint that `find_checkpoint` finds on each of `splits`: `limit` questions and `contexts` contexts at most.

    Raises `UsageError` if there is none, if it was trained with another tokenizer, or if the packs are not for it.
    """
    settings = workspace.settings.train
    path, state = find_checkpoint(workspace, run, named)
    packs = _packs(workspace, state.tokenizer, state.model.context, {*splits, "train"})
    student = load_student(workspace, run, device, path, exact=True)
    seconds: dict[str, float] = {}
    with _timed(seconds, "questions"):
        sets = eval_sets(workspace, splits, limit, settings.seed)
    with _timed(seconds, "loss"):
        losses = {
            split: loss
            for split in splits
            if (loss := split_loss(student, packs[split], f"loss, {split}", contexts, settings.seed)) is not None
        }
    fast(student.model, device)
    items = [item for some, _ in sets.values() for item in some]
    with _timed(seconds, "answers"):
        written = answer_tokens(student, [item.question for item in items], max_tokens)
    with _timed(seconds, "spans"):
        spans = _spans(student, written, packs["train"])
    with _timed(seconds, "figures"):
        rows = _measured(student, items, written, spans)
    summary = {
        "v": 1,
        "checkpoint": student.name,
        "run": state.run,
        "step": student.step,
        "steps": state.steps,
        "parameters": student.model.num_parameters,
        "device": device.type,
        "limit": limit,
        "max_tokens": max_tokens,
        **_summary(rows, losses, sets),
        "memorised": {"least": LEAST, **_longest(rows)},
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
    }
    return Evaluation(rows, summary)


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - started


def _packs(workspace: Workspace, tokenizer: str, context: int, splits: set[Split]) -> dict[Split, PackedData]:
    paths, packs = TrainPaths.of(workspace), dict[Split, PackedData]()
    for split in splits:
        packs[split] = data = PackedData.open(paths.pack(split), tokenizer_sha=tokenizer)
        if data.meta.context > context:
            raise UsageError(
                f"the packs have contexts of {data.meta.context:,} tokens, this checkpoint has {context:,} positions",
                where=str(paths.pack(split)),
                mend=f"set train.context = {context} and run `trainer pack` again",
            )
    return packs


def split_loss(student: Student, data: PackedData, label: str, contexts: int, seed: int) -> Loss | None:
    """The loss over the first `contexts` contexts of a split, in their seeded order; raw text is not among them.

    With as many contexts as the trainer takes it is the loss that it writes down. None of an empty split. Raises `Failure`
    if it is no number.
    """
    if data.meta.records == data.meta.raw_documents:
        return None
    everything = Epochs(data, MixSettings(), seed=seed, epochs=1)
    chosen = everything.take(0, contexts)
    total, tokens, at_once = 0.0, 0, max(1, CPU_TOKENS // data.meta.context)
    with progress(label, len(chosen)) as bar:
        for start in range(0, len(chosen), at_once):
            some = chosen[start : start + at_once]
            loss, count = _batch_loss(student, data, some)
            total, tokens = total + loss, tokens + count
            bar.advance(len(some))
    if not tokens:
        return None
    if not math.isfinite(total):
        raise Failure(
            f"the loss of {student.name} is {total}: its weights are no numbers any more",
            mend="name an earlier checkpoint with --checkpoint",
        )
    return Loss(total / tokens, math.exp(min(700.0, total / tokens)), tokens, len(chosen), everything.contexts)


def _batch_loss(student: Student, data: PackedData, contexts: Sequence[NDArray[np.int32]]) -> tuple[float, int]:
    device = student.model.embedding.weight.device
    batch = data.batch(contexts).to(device)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=choose_precision(device) == "bfloat16")
    with torch.no_grad(), autocast:
        return student.model.loss(batch, choose_backend(device)).item(), batch.n_supervised


def _spans(student: Student, written: list[list[int]], data: PackedData) -> list[Span]:
    answers = [_content(student, tokens) for tokens in written]
    spans = []
    for tokens, run in zip(answers, longest_runs(answers, data), strict=True):
        text = student.text(tokens[run.start : run.start + run.tokens])
        spans.append(Span(tokens=run.tokens, start=run.start, record=run.record, text=text))
    return spans


def _content(student: Student, tokens: list[int]) -> list[int]:
    """An answer's tokens without the one that ended it."""
    return tokens[:-1] if tokens[-1:] == [student.stop] else tokens


def _measured(
    student: Student, items: Sequence[EvalItem], written: list[list[int]], spans: Sequence[Span]
) -> list[Measured]:
    references = student.tokenizer.encode_batch([item.reference for item in items], add_special_tokens=False)
    rows = []
    with progress("measured", len(items)) as bar:
        for item, tokens, reference, span in zip(items, written, references, spans, strict=True):
            content = _content(student, tokens)
            ended, text = len(content) < len(tokens), student.text(tokens)
            rows.append(measure(item, text, content, ended, len(reference.ids), span))
            bar.advance()
    return rows


def _summary(rows: Sequence[Measured], losses: Mapping[Split, Loss], sets: Chosen) -> dict[str, Any]:
    splits: dict[Split, Figures] = {}
    for split, (_, counts) in sets.items():
        of_split = [row for row in rows if row.split == split]
        loss = losses.get(split)
        splits[split] = {
            "loss": _rounded(asdict(loss)) if loss else None,
            "questions": counts.figures(),
            **figures(of_split),
            "by_family": by_family(of_split),
        }
    return {"splits": splits, "gap": _gap(splits)}


def _gap(splits: Mapping[Split, Figures]) -> Figures | None:
    """Trained phrasings minus held-out ones; None unless both were measured."""
    if not {"train", "phrasing"} <= splits.keys():
        return None
    train, phrasing = splits["train"], splits["phrasing"]
    told = gap(train, phrasing)
    for name in ("loss", "perplexity"):
        both = train["loss"] and phrasing["loss"]
        told[name] = {"value": round(train["loss"][name] - phrasing["loss"][name], 6)} if both else None
    return told


def wanted(row: Measured) -> bool:
    """Whether a memorised span is what training was for: a passage given back to a trained question that asks for it."""
    return row.family == "qpt" and row.split == "train"


def _longest(rows: Sequence[Measured]) -> dict[str, list[dict[str, Any]]]:
    """The longest memorised spans: of all answers, and of those in which none was wanted."""
    ordered = sorted((row for row in rows if row.span.tokens), key=lambda row: -row.span.tokens)
    shown = {"longest": ordered, "longest_elsewhere": [row for row in ordered if not wanted(row)]}
    return {name: [_shown(row) for row in some[:LONGEST]] for name, some in shown.items()}


def _shown(row: Measured) -> dict[str, Any]:
    keys = {"item_id", "split", "family", "prompt_type", "question", "reference"}
    return {**row.model_dump(include=keys), "span": row.span.tokens, "of": row.tokens, "record": row.span.record} | {
        "text": row.span.text
    }


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {name: round(value, 7) if isinstance(value, float) else value for name, value in values.items()}
