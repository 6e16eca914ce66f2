"""A run's figures for TensorBoard, in `tensorboard/` of its folder, if train.tensorboard asks for them.

Guarantees: a resumed run's curves are those of an unbroken one: what stood behind its checkpoint is marked as withdrawn,
and TensorBoard leaves it out. Each step is on disk before the next begins; no thread is started, no torch imported.
Cost: one small write a step, and nothing where it is off. The package `tensorboard` is optional (extra: tensorboard).
"""

from __future__ import annotations

import io
import os
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from foundation.errors import UsageError

if TYPE_CHECKING:
    from trainer.metrics import Metric

FOLDER = "tensorboard"
TAGS = {
    "loss": "loss/train",
    "phrasing": "loss/held-out phrasings",
    "unseen": "loss/unseen articles",
    "learning_rate": "optimizer/learning rate",
    "weight_decay": "optimizer/weight decay",
    "grad_norm": "optimizer/gradient norm",
    "skipped": "optimizer/skipped steps",
    "tokens_per_second": "speed/tokens a second",
    "mfu": "speed/MFU",
    "seconds": "speed/seconds a step",
    "memory": "speed/memory (bytes)",
    "epoch": "progress/epoch",
    "tokens": "progress/tokens",
}
PROGRESS = {"epoch", "tokens"}  # a look at the held-out splits says them again: once a step is enough


class Writer(Protocol):
    """Takes the lines of `metrics.jsonl`, as they come."""

    def add(self, metric: Metric) -> None:
        """Write what `metric` has."""

    def close(self) -> None:
        """Nothing comes after this."""


class _Nothing:
    def add(self, metric: Metric) -> None:
        pass

    def close(self) -> None:
        pass


class _Events:
    def __init__(self, folder: Path, step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads a folder's files in the order of their names, which begin with the time.
        name = f"events.out.tfevents.{time.time_ns() // 1000:017d}.{socket.gethostname()}.{os.getpid()}"
        self._event: Any = Event
        self._writer = RecordWriter(io.FileIO(folder / name, "w"))
        self._write(file_version="brain.Event:2")
        self._write(step=step + 1 if step else 0, session_log=SessionLog(status=SessionLog.START))

    def add(self, metric: Metric) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [
            Summary.Value(tag=tag, simple_value=value)
            for name, tag in TAGS.items()
            if (value := getattr(metric, name)) is not None and (metric.loss is not None or name not in PROGRESS)
        ]
        self._write(step=metric.step, summary=Summary(value=values))

    def _write(self, **what: Any) -> None:
        self._writer.write(self._event(wall_time=time.time(), **what).SerializeToString())

    def close(self) -> None:
        self._writer.close()


def writer(folder: Path, enabled: bool, *, step: int = 0) -> Writer:
    """Where the run in `folder` puts its lines from now on. `step`: how many it has taken already.

    Raises `UsageError` if it is `enabled` and the package is missing.
    """
    if not enabled:
        return _Nothing()
    try:
        return _Events(folder / FOLDER, step)
    except ImportError as error:
        raise UsageError(
            "train.tensorboard is on, and the package tensorboard is missing",
            where="factory.toml",
            mend="pip install 'qpt-factory[tensorboard]', or set train.tensorboard = false",
        ) from error
