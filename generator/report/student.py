"""What the student is: packs, training runs, pass rates by round and judged answers, as data.

Guarantees: reads plain files below `train/` and knows nothing of how they were made; a run that is still going on, or
was cut off, shows as far as it got. Cost: reads metrics and the answers of one round whole (some MB).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median
from typing import Any

from pydantic import ValidationError

from foundation.records import Answer, Verdict
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
class Round:
    """One split's pass rate after one round, with its interval and that of shuffled answers.

    `seconds` is wall time by stage; `error` says why the round could not be judged.
    """

    round: int
    step: int
    split: str
    pass_rate: float | None
    low: float | None
    high: float | None
    baseline: float | None
    baseline_low: float | None
    baseline_high: float | None
    unscored: int | None
    stop_rate: float | None
    seconds: dict[str, float]
    error: str = ""


@dataclass
class Run:
    """One training run; `plot` is its loss plot as PNG, `tokens` are those seen so far, padding not counted.

    `losses`, in nats per supervised token: `train` is the mean of the last 10 steps, the others the last measured.
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
    rounds: list[Round] = field(default_factory=list)
    plot: bytes = b""


@dataclass
class Judged:
    answer: Answer
    verdict: Verdict


@dataclass
class Student:
    """`runs`: the newest first. `judged` are examples of `judged_round` of the newest run that has any."""

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
    student = Student(packs=list(_packs(train / "packs")))
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


def _number(row: dict[str, Any], name: str) -> Any:
    """The number `row` has under `name`; None if it has none, or one that is not finite."""
    value = row.get(name)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return value if is_number else None


def _packs(folder: Path) -> Iterator[Packs]:
    order = {"train": 0, "phrasing": 1, "unseen": 2}
    for path in sorted(folder.glob("*/meta.json"), key=lambda path: (order.get(path.parent.name, 9), path.parent.name)):
        meta = _object(path)
        if meta:
            yield Packs(
                split=path.parent.name,
                context=_number(meta, "context") or 0,
                contexts=_number(meta, "packs") or 0,
                records=_number(meta, "records") or 0,
                tokens=_number(meta, "tokens") or 0,
                supervised=_number(meta, "supervised") or 0,
                too_long=_number(meta, "too_long") or 0,
                vocabulary=_number(meta, "vocabulary") or 0,
            )


def _run(folder: Path) -> Run:
    """A run from its `run.json` and `metrics.jsonl`; speed is the median over its steps, so compiling does not count."""
    info = _object(folder / "run.json")
    metrics = folder / "metrics.jsonl"
    run = Run(
        name=folder.name,
        changed=(metrics if metrics.exists() else folder).stat().st_mtime,
        preset=str(info.get("preset", "")),
        parameters=_number(info, "parameters"),
        planned_steps=_number(info, "steps"),
        rounds=_rounds(folder / "rounds.jsonl"),
    )
    losses: list[float] = []
    speeds: list[float] = []
    for row in json_rows(read_or_empty(metrics)):
        run.step = int(_number(row, "step") or run.step)
        run.tokens = _number(row, "tokens") or run.tokens
        losses += [loss for loss in [_number(row, "loss")] if loss is not None]
        speeds += [speed for speed in [_number(row, "tokens_per_second")] if speed is not None]
        run.losses |= {split: loss for split in ("phrasing", "unseen") if (loss := _number(row, split)) is not None}
    if losses:
        run.losses["train"] = fmean(losses[-10:])
    run.tokens_per_second = median(speeds) if speeds else None
    plot = read_or_empty(folder / "loss.png")
    run.plot = plot if plot.startswith(PNG) else b""
    return run


def _numbered(folder: Path) -> list[Path]:
    """Folders named by a number, the highest first."""
    found = [path for path in folder.glob("*") if path.name.isdecimal() and path.is_dir()]
    return sorted(found, key=lambda path: -int(path.name))


def _rounds(path: Path) -> list[Round]:
    """A round that was judged twice counts as it was judged last; a line that names no split is of held-out phrasings."""
    rounds: dict[tuple[int, str], Round] = {}
    for row in json_rows(read_or_empty(path)):
        number, split = _number(row, "round"), str(row.get("split") or "phrasing")
        if number is None:
            continue
        seconds = row.get("seconds")
        seconds = seconds if isinstance(seconds, dict) else {}
        rates = {name: _number(row, name) for name in ("pass_rate", "low", "high", "stop_rate", "unscored")}
        baseline = {name: _number(row, name) for name in ("baseline", "baseline_low", "baseline_high")}
        rounds[int(number), split] = Round(
            round=int(number),
            step=int(_number(row, "step") or 0),
            split=split,
            seconds={str(what): spent for what in seconds if (spent := _number(seconds, what)) is not None},
            error=str(row.get("error") or ""),
            **rates,
            **baseline,
        )
    return [rounds[key] for key in sorted(rounds)]


def _judged(folder: Path) -> list[Judged]:
    """Examples of one round: answers joined with their verdicts."""
    pick: Pick[Judged] = Pick(EXAMPLES)
    for path in sorted(folder.glob("answers-*.jsonl")):
        verdicts: dict[str, Verdict] = {}
        for line in read_or_empty(path.with_name(path.name.replace("answers-", "verdicts-", 1))).splitlines():
            try:
                verdict = Verdict.model_validate_json(line)
            except ValidationError:
                continue
            verdicts[verdict.item_id] = verdict
        for line in path.read_bytes().splitlines() if verdicts else []:
            try:
                answer = Answer.model_validate_json(line)
            except ValidationError:
                continue
            if answer.item.id in verdicts:
                pick.offer(answer.item.prompt_type, answer.item.id, Judged(answer, verdicts[answer.item.id]))
    return [judged for _, judged in pick.chosen()]
