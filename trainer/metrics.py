"""What a run says of itself: `run.json` (what it is), `metrics.jsonl` (a line a step), `rounds.jsonl` (a line a judging).

Guarantees: a resumed run's lines are those of an unbroken one, timing apart: lines behind the checkpoint it goes on from
are dropped first. A line torn by a crash is passed over. Cost: one small write a step; 100,000 lines are read in 0.7 s
as objects, in 0.5 s as the columns of `History`, which then reads on alone what is new. No torch is imported.
"""

from __future__ import annotations

import contextlib
import errno
import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import Field, ValidationError

from foundation.errors import Failure
from foundation.records import Contract, Split
from foundation.store import LocalStore

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

METRICS, RUN, ROUNDS = "metrics.jsonl", "run.json", "rounds.jsonl"
RECENT = 100  # steps that the time left is told from

Row = TypeVar("Row", bound=Contract)


class RunInfo(Contract):
    """What a run is. `git` is the revision of the code, "no git" where it is under none; `epoch_tokens` are useful ones.

    `recipe` are the settings it trains by (the table `train`, the preset's figures filled in): what its schedules are.
    """

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
    recipe: dict[str, Any] = Field(default_factory=dict)


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

    All figures are None where nothing was scored; `error` says why a round could not be judged, `problems` why its judging
    is not to be believed. `corrected` is the pass rate corrected for the errors that the judge made on its canaries.
    `seconds` is wall time of the round's stages, `train`, `answer` and `judge`, the same for each of its splits;
    `gpu_seconds` is how long of it their processes held the GPU.
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
    corrected: float | None = None
    corrected_low: float | None = None
    corrected_high: float | None = None
    unscored: int | None = None
    stop_rate: float | None = None
    seconds: dict[str, float] = Field(default_factory=dict)
    gpu_seconds: dict[str, float] = Field(default_factory=dict)
    problems: tuple[str, ...] = ()
    error: str = ""

    @property
    def believed(self) -> bool:
        """Whether there is a pass rate, and nothing speaks against it."""
        return self.pass_rate is not None and not self.problems and not self.error


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


def best_judged(points: Iterable[RoundPoint]) -> RoundPoint | None:
    """The judging with the highest pass rate on held-out phrasings that is believed; the latest step of equals.

    None where no answer was found right: what is trained least is not the best of them.
    """
    found = [point for point in points if point.split == "phrasing" and point.believed and point.pass_rate]
    return max(found, key=lambda point: (point.pass_rate or 0.0, point.step), default=None)


def rewind_metrics(folder: Path, step: int) -> None:
    """Drop the lines behind `step`, and a torn one; at 0, all of them. The others stay as they are, to the byte."""
    kept = b""
    if step:
        kept = b"".join(line + b"\n" for line, row in _rows(_content(folder / METRICS)) if row["step"] <= step)
    LocalStore(folder).put(METRICS, kept)


def append_metric(folder: Path, metric: Metric) -> None:
    """Add a line. What is no finite number (the loss of a step that was left out) is written as null: JSON has no NaN."""
    line = metric.model_dump_json(exclude_none=True).encode() + b"\n"
    with open(folder / METRICS, "ab", buffering=0) as file:
        if file.write(line) < len(line):  # the disk filled up within it: no error yet, the next write would be one
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder / METRICS))


class History:
    """A run's metrics as columns: one array a figure, NaN where a line does not have it; for who looks again and again.

    `refresh` reads on from where it stopped, and from the start when the file was rewound. A line that is still being
    written waits for the next time.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / METRICS
        self._begin()

    def _begin(self) -> None:
        self.columns: dict[str, array[float]] = {name: array("d") for name in Metric.model_fields}
        self._read, self._file = 0, (0, 0)

    def __len__(self) -> int:
        return len(self.columns["step"])

    def refresh(self) -> bool:
        """Read what is new; false if nothing is."""
        try:
            with open(self._path, "rb") as file:
                status = os.fstat(file.fileno())
                if (status.st_dev, status.st_ino) != self._file or status.st_size < self._read:
                    self._begin()
                    self._file = status.st_dev, status.st_ino
                file.seek(self._read)
                content = file.read()
        except FileNotFoundError:
            changed = len(self) > 0
            self._begin()
            return changed
        content = content[: content.rfind(b"\n") + 1]
        self._read += len(content)
        for column, values in zip(self.columns.values(), _columns(row for _, row in _rows(content)), strict=False):
            column.frombytes(values.tobytes())
        return bool(content)

    def last(self, name: str) -> float | None:
        """The newest value of that figure, if any line has one."""
        return next((value for value in reversed(self.columns[name]) if value == value), None)

    def recent(self, name: str, count: int) -> list[float]:
        """Values of that figure in the newest `count` lines, those that lack it left out."""
        return [value for value in self.columns[name][-count:] if value == value]

    def curve(self, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Steps and values, for the lines that have that figure."""
        import numpy as np

        steps, values = (np.frombuffer(self.columns[one], dtype=np.float64).copy() for one in ("step", name))
        there = ~np.isnan(values)
        return steps[there], values[there]


def eta(metrics: Sequence[Metric], steps: int) -> float | None:
    """Seconds of training left until step `steps`, from the recent ones' `seconds`; None where no line tells.

    The median of the last 100 steps, so that one that compiled or evaluated does not count for all.
    """
    if not metrics:
        return None
    return time_left([it.seconds for it in metrics[-RECENT:] if it.seconds is not None], steps - metrics[-1].step)


def time_left(seconds: Sequence[float], left: float) -> float | None:
    """What `left` steps will take, by the median of `seconds`; None where there are none to go by."""
    if left <= 0:
        return 0.0
    return median(seconds) * left if seconds else None


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _rows(content: bytes) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Each line that says of which step it is, with what it says."""
    import orjson

    for line in content.splitlines():
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError:  # the last line of a process that was killed as it wrote
            continue
        if isinstance(row, dict) and type(row.get("step")) is int:
            yield line, row


def _columns(rows: Iterable[dict[str, Any]]) -> NDArray[np.float64]:
    """One row a figure, in the order of `Metric`'s; NaN where a line lacks it. A line with anything but numbers is left out."""
    import numpy as np

    table = [tuple(map(row.get, Metric.model_fields)) for row in rows]
    try:
        return np.array(table, dtype=np.float64).T
    except (TypeError, ValueError):
        numbers = (int, float, type(None))
        return np.array([row for row in table if all(isinstance(it, numbers) for it in row)], dtype=np.float64).T


def _read(path: Path, kind: type[Row]) -> list[Row]:
    rows = []
    for line in _content(path).splitlines():
        with contextlib.suppress(ValidationError):  # the last line of a process that was killed as it wrote
            rows.append(kind.model_validate_json(line))
    return rows
