"""TensorBoard's files, read back by TensorBoard's own reader."""

from __future__ import annotations

import builtins
import sys
from pathlib import Path
from typing import Any

import pytest

from foundation.errors import UsageError
from trainer.metrics import Metric
from trainer.tensorboard import FOLDER, writer


def metric(step: int, **more: Any) -> Metric:
    return Metric(step=step, epoch=step / 10, tokens=1000 * step, supervised=400 * step, **more)


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Every curve as TensorBoard shows it."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / FOLDER))
    events.Reload()
    return {tag: [(it.step, it.value) for it in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_what_a_line_has_is_written_and_what_it_lacks_is_not(tmp_path: Path) -> None:
    board = writer(tmp_path, True)
    board.add(metric(0, phrasing=8.0))
    board.add(metric(1, loss=2.5, learning_rate=1e-3, memory=3 << 30))
    board.add(metric(1, phrasing=7.0))
    board.close()
    found = curves(tmp_path)
    assert found["loss/train"] == [(1, 2.5)]
    assert found["loss/held-out phrasings"] == [(0, 8.0), (1, 7.0)]
    assert found["optimizer/learning rate"] == [(1, pytest.approx(1e-3))]
    assert found["speed/memory (bytes)"] == [(1, float(3 << 30))]
    assert found["progress/tokens"] == [(1, 1000.0)]
    assert "speed/MFU" not in found
    assert "loss/unseen articles" not in found


def test_a_resumed_run_has_each_step_once(tmp_path: Path) -> None:
    # given a run of six steps that was killed, its newest checkpoint at step 4
    first = writer(tmp_path, True)
    for step in range(1, 7):
        first.add(metric(step, loss=float(step)))
    # when it goes on from there (`first` was never closed)
    second = writer(tmp_path, True, step=4)
    for step in range(5, 9):
        second.add(metric(step, loss=10.0 * step))
    second.close()
    # then the steps behind the checkpoint are those of the second process
    steps = [*((float(step)) for step in range(1, 5)), *(10.0 * step for step in range(5, 9))]
    assert curves(tmp_path)["loss/train"] == list(zip(range(1, 9), steps, strict=True))


def test_a_run_that_begins_anew_leaves_nothing_of_the_old_one(tmp_path: Path) -> None:
    for value in (1.0, 2.0):
        board = writer(tmp_path, True)
        board.add(metric(0, unseen=value))
        board.add(metric(1, loss=value))
        board.close()
    assert curves(tmp_path)["loss/train"] == [(1, 2.0)]
    assert curves(tmp_path)["loss/unseen articles"] == [(0, 2.0)]


def test_a_line_is_on_disk_at_once_and_a_torn_one_is_passed_over(tmp_path: Path) -> None:
    board = writer(tmp_path, True)
    board.add(metric(1, loss=1.0))
    assert curves(tmp_path)["loss/train"] == [(1, 1.0)]
    board.add(metric(2, loss=2.0))
    (file,) = (tmp_path / FOLDER).iterdir()
    with open(file, "r+b") as events:
        events.truncate(file.stat().st_size - 5)
    assert curves(tmp_path)["loss/train"] == [(1, 1.0)]
    more = writer(tmp_path, True, step=1)
    more.add(metric(2, loss=3.0))
    assert curves(tmp_path)["loss/train"] == [(1, 1.0), (2, 3.0)]


def test_switched_off_it_needs_no_package_and_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_the_package(monkeypatch)
    board = writer(tmp_path, False)
    board.add(metric(1, loss=1.0))
    board.close()
    assert not list(tmp_path.iterdir())


def test_without_the_package_the_mend_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_the_package(monkeypatch)
    with pytest.raises(UsageError, match=r"tensorboard is missing") as error:
        writer(tmp_path, True)
    assert "pip install 'qpt-factory[tensorboard]'" in error.value.mend
    assert not list(tmp_path.iterdir())


def without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on importing tensorboard fails, as where it is not installed."""
    real = builtins.__import__

    def missing(name: str, *more: Any, **others: Any) -> Any:
        if name.partition(".")[0] == "tensorboard":
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real(name, *more, **others)

    monkeypatch.setattr(builtins, "__import__", missing)
    for name in [name for name in sys.modules if name.partition(".")[0] == "tensorboard"]:
        monkeypatch.delitem(sys.modules, name)
