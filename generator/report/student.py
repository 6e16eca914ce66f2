"""What the student is: packs, training runs and judged answers, as data; what its judgings say is in `judgings`.

Guarantees: reads plain files below `train/` and knows nothing of how they were made; a run that is still going on, or
was cut off, shows as far as it got. Cost: reads metrics and the answers of one round whole (some MB).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median
from typing import Any

from pydantic import ValidationError

from foundation.records import Answer, Verdict
from generator.report.judgings import Round, number, read_rounds
from generator.report.pick import Pick, json_rows, read_or_empty

EXAMPLES = 10
PNG = b"\x89PNG\r\n\x1a\n"


@dataclass
class Packs:
    """One packed split. `efficiency`: share of context positions that hold a record's token."""

    split: str
    context: int
    contexts: int
    records: int
    tokens: int
    supervised: int
    too_long: int
    vocabulary: int

    @property
    def efficiency(self) -> float | None:
        return self.tokens / (self.contexts * self.context) if self.contexts else None

    @property
    def records_per_context(self) -> float | None:
        return self.records / self.contexts if self.contexts else None

    @property
    def supervised_share(self) -> float | None:
        return self.supervised / self.tokens if self.tokens else None


@dataclass
class Run:
    """One training run; `plot` is its loss plot as PNG, `tokens` are those seen so far, padding not counted.

    `losses`, in nats per supervised token: `train` is the mean of the last 10 steps, the others the last measured.
    `best_loss`: the step with the lowest on held-out phrasing, and that; of those whose checkpoints are there, if any of them
    was measured. `ended`: why it ended before its last step; ""
    if it did not. `judged`: the judge's own page on it, if there is one.
    """

    name: str
    changed: float
    preset: str = ""
    parameters: int | None = None
    planned_steps: int | None = None
    step: int = 0
    tokens: int | None = None
    tokens_per_second: float | None = None
    losses: dict[str, float] = field(default_factory=dict)
    best_loss: tuple[int, float] | None = None
    rounds: list[Round] = field(default_factory=list)
    plot: bytes = b""
    ended: str = ""
    judged: Path | None = None


@dataclass
class Judged:
    answer: Answer
    verdict: Verdict


@dataclass
class Student:
    """`runs`: the newest first. `judged` are examples of `judged_round` of the newest run that has any; `root` is where
    the workspace is."""

    root: Path

    packs: list[Packs] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    judged: list[Judged] = field(default_factory=list)
    judged_run: str = ""
    judged_round: str = ""

    @property
    def scored(self) -> Run | None:
        """The newest run with pass rates."""
        return next((run for run in self.runs if run.rounds), None)


def collect_student(train: Path) -> Student:
    """Read what stands below `train`."""
    student = Student(train.parent, packs=list(_packs(train / "packs")))
    folders = [path for path in (train / "runs").glob("*") if path.is_dir() and not path.name.startswith(".")]
    student.runs = sorted((_run(folder) for folder in folders), key=lambda run: (-run.changed, run.name))
    for run in student.runs:
        for folder in _numbered(train / "runs" / run.name / "rounds"):
            student.judged = _judged(folder)
            if student.judged:
                student.judged_run, student.judged_round = run.name, folder.name
                return student
    return student


def _object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(read_or_empty(path) or b"{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _packs(folder: Path) -> Iterator[Packs]:
    order = {"train": 0, "phrasing": 1, "unseen": 2}
    for path in sorted(folder.glob("*/meta.json"), key=lambda path: (order.get(path.parent.name, 9), path.parent.name)):
        meta = _object(path)
        if meta:
            yield Packs(
                split=path.parent.name,
                context=number(meta, "context") or 0,
                contexts=number(meta, "packs") or 0,
                records=number(meta, "records") or 0,
                tokens=number(meta, "tokens") or 0,
                supervised=number(meta, "supervised") or 0,
                too_long=number(meta, "too_long") or 0,
                vocabulary=number(meta, "vocabulary") or 0,
            )


def _run(folder: Path) -> Run:
    """A run from its `run.json` and `metrics.jsonl`; speed is the median over its steps, so compiling does not count."""
    info = _object(folder / "run.json")
    metrics = folder / "metrics.jsonl"
    run = Run(
        name=folder.name,
        changed=(metrics if metrics.exists() else folder).stat().st_mtime,
        preset=str(info.get("preset", "")),
        parameters=number(info, "parameters"),
        planned_steps=number(info, "steps"),
        rounds=read_rounds(folder / "rounds.jsonl"),
        ended=str(_object(folder / "orchestrate.json").get("ended") or ""),
        judged=page if (page := folder / "judged.html").is_file() else None,
    )
    losses: list[float] = []
    measured: list[tuple[float, int]] = []
    speeds: list[float] = []
    for row in json_rows(read_or_empty(metrics)):
        run.step = int(number(row, "step") or run.step)
        run.tokens = number(row, "tokens") or run.tokens
        losses += [loss for loss in [number(row, "loss")] if loss is not None]
        speeds += [speed for speed in [number(row, "tokens_per_second")] if speed is not None]
        run.losses |= {split: loss for split in ("phrasing", "unseen") if (loss := number(row, split)) is not None}
        if run.step and (held_out := number(row, "phrasing")) is not None:
            measured.append((held_out, -run.step))
    if losses:
        run.losses["train"] = fmean(losses[-10:])
    if measured:
        loss, step = min([one for one in measured if (folder / f"checkpoints/step-{-one[1]:06d}").is_dir()] or measured)
        run.best_loss = -step, loss
    run.tokens_per_second = median(speeds) if speeds else None
    if run.planned_steps is None or run.step >= run.planned_steps:
        run.ended = ""
    plot = read_or_empty(folder / "loss.png")
    run.plot = plot if plot.startswith(PNG) else b""
    return run


def _numbered(folder: Path) -> list[Path]:
    """Folders named by a number, the highest first."""
    found = [path for path in folder.glob("*") if path.name.isdecimal() and path.is_dir()]
    return sorted(found, key=lambda path: -int(path.name))


def _judged(folder: Path) -> list[Judged]:
    """Examples of one round: answers joined with their verdicts, those to held-out questions before any others."""
    picks: dict[bool, Pick[Judged]] = {trained: Pick(EXAMPLES) for trained in (False, True)}
    for answers, judged in _files(folder):
        verdicts: dict[str, Verdict] = {}
        for line in read_or_empty(judged).splitlines():
            try:
                verdict = Verdict.model_validate_json(line)
            except ValidationError:
                continue
            verdicts[verdict.item_id] = verdict
        for line in read_or_empty(answers).splitlines() if verdicts else []:
            try:
                answer = Answer.model_validate_json(line)
            except ValidationError:
                continue
            if answer.item.id in verdicts:
                one = Judged(answer, verdicts[answer.item.id])
                kind = f"{answer.item.split} {answer.item.prompt_type}"
                picks[answer.item.split == "train"].offer(kind, answer.item.id, one)
    held_out, trained = ([judged for _, judged in picks[one].chosen()] for one in (False, True))
    return (held_out + trained)[:EXAMPLES]


def _files(folder: Path) -> list[tuple[Path, Path]]:
    """Files of answers with those of their verdicts: one pair of all splits; before, a pair of each split."""
    older = [
        (one, one.with_name(one.name.replace("answers-", "verdicts-", 1))) for one in folder.glob("answers-*.jsonl")
    ]
    return [(folder / "answers.jsonl", folder / "verdicts.jsonl"), *sorted(older)]
