"""What a run says of itself: `run.json` (what it is), `metrics.jsonl` (a line a step), `rounds.jsonl` (a line a judging).

Guarantees: a resumed run's lines are those of an unbroken one, timing apart: lines behind the checkpoint it goes on from
are dropped first. A line torn by a crash is passed over. Cost: one small write a step. No torch is imported.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TypeVar

from pydantic import Field, ValidationError

from foundation.errors import Failure
from foundation.records import Contract, Split
from foundation.store import LocalStore

METRICS, RUN, ROUNDS = "metrics.jsonl", "run.json", "rounds.jsonl"

Row = TypeVar("Row", bound=Contract)


class RunInfo(Contract):
    """What a run is. `git` is the revision of the code, "no git" where it is under none; `epoch_tokens` are useful ones."""

    v: int = 1
    run: str
    git: str
    preset: str
    parameters: int
    vocabulary: int
    context: int
    batch: int
    steps: int
    epoch_tokens: int
    device: str
    precision: str
    attention: str
    physical_batch: int = 1
    optimizer: str = "adamw"
    schedule: str = "cosine"
    compiled: bool = False


class Metric(Contract):
    """One step, counted from 1. Step 0 carries only the losses on the held-out splits before any training.

    `tokens` and `supervised` are sums since the run began, padding not counted; `tokens_per_second` is of this step
    alone, as are `seconds` and `mfu` (share of the device's dense bf16 peak; None where that is not known); `memory` is
    the peak in bytes since the process began (of the GPU, or resident on a CPU); `loss`, `phrasing` and `unseen` are nats
    per supervised token; `skipped` counts the steps so far whose update the guard left out.
    """

    step: int
    epoch: float
    tokens: int
    supervised: int
    loss: float | None = None
    learning_rate: float | None = None
    weight_decay: float | None = None
    grad_norm: float | None = None
    tokens_per_second: float | None = None
    mfu: float | None = None
    memory: int | None = None
    seconds: float | None = None
    skipped: int | None = None
    phrasing: float | None = None
    unseen: float | None = None


class RoundPoint(Contract):
    """The judge's word on a held-out split after a round. Shares of 1; `baseline` is of shuffled answers.

    All figures are None where nothing was scored; `error` says why a round could not be judged. `seconds` is wall time
    by stage: `train` (the round's), `answer`, `judge`.
    """

    round: int
    step: int
    split: Split = "phrasing"
    pass_rate: float | None = None
    low: float | None = None
    high: float | None = None
    baseline: float | None = None
    baseline_low: float | None = None
    baseline_high: float | None = None
    unscored: int | None = None
    stop_rate: float | None = None
    seconds: dict[str, float] = Field(default_factory=dict)
    error: str = ""


def write_run_info(folder: Path, info: RunInfo) -> None:
    LocalStore(folder).put(RUN, info.model_dump_json(indent=1).encode() + b"\n")


def read_run_info(folder: Path) -> RunInfo:
    """Raises `Failure` if there is none, or it is damaged."""
    try:
        return RunInfo.model_validate_json((folder / RUN).read_bytes())
    except (FileNotFoundError, ValidationError) as error:
        raise Failure("this run has no readable run.json", where=str(folder / RUN), mend="run `trainer run`") from error


def read_metrics(folder: Path) -> list[Metric]:
    """The lines of a run, in order; empty if it has none."""
    return _read(folder / METRICS, Metric)


def read_rounds(folder: Path) -> list[RoundPoint]:
    """The judgings of a run, in order; empty if there was none."""
    return _read(folder / ROUNDS, RoundPoint)


def rewind_metrics(folder: Path, step: int) -> None:
    """Drop the lines behind `step`; at 0, all of them."""
    kept = [metric for metric in read_metrics(folder) if metric.step <= step] if step else []
    LocalStore(folder).put(METRICS, b"".join(_line(metric) for metric in kept))


def append_metric(folder: Path, metric: Metric) -> None:
    with open(folder / METRICS, "ab", buffering=0) as file:
        file.write(_line(metric))


def _line(metric: Metric) -> bytes:
    return json.dumps(metric.model_dump(exclude_none=True)).encode() + b"\n"


def _read(path: Path, kind: type[Row]) -> list[Row]:
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    rows = []
    for line in lines:
        with contextlib.suppress(ValidationError):  # the last line of a process that was killed as it wrote
            rows.append(kind.model_validate_json(line))
    return rows
