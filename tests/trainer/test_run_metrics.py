"""metrics.jsonl: written, read back, rewound; torn lines; the columns that follow it; the time that is left."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from foundation.errors import Failure
from tests.trainer.written_run import fill, judged, run_info
from trainer.metrics import (
    METRICS,
    RUN,
    History,
    Metric,
    RoundPoint,
    append_metric,
    eta,
    read_metrics,
    read_rounds,
    read_run_info,
    rewind_metrics,
    time_left,
)


def metric(step: int, **more: Any) -> Metric:
    return Metric(step=step, epoch=step / 10, tokens=1000 * step, supervised=400 * step, **more)


def history(folder: Path) -> History:
    found = History(folder)
    found.refresh()
    return found


def test_what_is_written_is_read_to_the_last_digit(tmp_path: Path) -> None:
    lines = [
        metric(0, phrasing=8.125, unseen=1 / 3),
        metric(1, loss=math.pi, learning_rate=1e-300, weight_decay=0.0, grad_norm=1e9, memory=1 << 40, skipped=2),
        metric(2, loss=0.1 + 0.2, tokens_per_second=51_234.5, mfu=0.41, seconds=2.5),
    ]
    for line in lines:
        append_metric(tmp_path, line)
    assert read_metrics(tmp_path) == lines
    columns = history(tmp_path)
    assert len(columns) == 3
    for name in Metric.model_fields:
        steps, values = columns.curve(name)
        expected = [(it.step, getattr(it, name)) for it in lines if getattr(it, name) is not None]
        assert list(zip(steps, values, strict=True)) == expected, name
        assert columns.last(name) == (expected[-1][1] if expected else None)


def test_a_loss_that_is_no_number_leaves_a_line_that_every_reader_can_read(tmp_path: Path) -> None:
    for step, loss in enumerate((1.0, math.nan, math.inf, 2.0), start=1):
        append_metric(tmp_path, metric(step, loss=loss, grad_norm=-math.inf, skipped=step - 1))
    assert [it.loss for it in read_metrics(tmp_path)] == [1.0, None, None, 2.0]
    assert [list(it) for it in history(tmp_path).curve("loss")] == [[1, 4], [1, 2]]
    assert history(tmp_path).recent("skipped", 3) == [1, 2, 3]
    before = (tmp_path / METRICS).read_bytes()
    rewind_metrics(tmp_path, 3)
    assert (tmp_path / METRICS).read_bytes() == b"".join(before.splitlines(keepends=True)[:3])


def test_a_run_without_lines_has_none(tmp_path: Path) -> None:
    assert read_metrics(tmp_path) == read_rounds(tmp_path) == []
    columns = history(tmp_path)
    assert (len(columns), columns.last("loss"), columns.recent("loss", 5)) == (0, None, [])
    assert [len(it) for it in columns.curve("loss")] == [0, 0]


@pytest.mark.parametrize("torn", range(1, 60, 7))
def test_a_line_torn_by_a_crash_is_passed_over_and_dropped_when_the_run_goes_on(tmp_path: Path, torn: int) -> None:
    for step in range(1, 5):
        append_metric(tmp_path, metric(step, loss=1 / step))
    whole = (tmp_path / METRICS).read_bytes()
    (tmp_path / METRICS).write_bytes(whole[:-torn])
    assert [it.step for it in read_metrics(tmp_path)][:3] == [1, 2, 3]
    rewind_metrics(tmp_path, 3)
    append_metric(tmp_path, metric(4, loss=1 / 4))
    assert (tmp_path / METRICS).read_bytes() == whole


@pytest.mark.parametrize(
    "line", ["", "null", "[1]", "7", '{"loss": 1}', '{"step": "2"}', '{"step": true}', "\x00\x00", '{"step": 2']
)
def test_what_is_no_line_of_ours_is_passed_over(tmp_path: Path, line: str) -> None:
    append_metric(tmp_path, metric(1, loss=1.0))
    with open(tmp_path / METRICS, "a") as file:
        file.write(line + "\n")
    append_metric(tmp_path, metric(2, loss=2.0))
    assert [it.step for it in read_metrics(tmp_path)] == [1, 2]
    assert list(history(tmp_path).columns["step"]) == [1, 2]
    rewind_metrics(tmp_path, 2)
    assert len((tmp_path / METRICS).read_bytes().splitlines()) == 2


def test_a_figure_that_is_no_number_costs_its_line_alone(tmp_path: Path) -> None:
    append_metric(tmp_path, metric(1, loss=1.0))
    with open(tmp_path / METRICS, "a") as file:
        file.write(json.dumps(metric(2).model_dump() | {"loss": "low"}) + "\n")
    append_metric(tmp_path, metric(3, loss=3.0))
    assert list(history(tmp_path).columns["loss"]) == [1, 3]


def test_rewinding_keeps_every_line_up_to_the_step_to_the_byte(tmp_path: Path) -> None:
    # given the two lines of step 2: its training, and the look at the held-out splits behind it
    for line in (metric(1, loss=3.0), metric(2, loss=2.0), metric(2, unseen=5.0), metric(3, loss=1.0)):
        append_metric(tmp_path, line)
    lines = (tmp_path / METRICS).read_bytes().splitlines(keepends=True)
    rewind_metrics(tmp_path, 2)
    assert (tmp_path / METRICS).read_bytes() == b"".join(lines[:3])
    rewind_metrics(tmp_path, 0)
    assert (tmp_path / METRICS).read_bytes() == b""


def test_the_columns_follow_a_growing_file_line_by_line(tmp_path: Path) -> None:
    columns = History(tmp_path)
    assert not columns.refresh()
    append_metric(tmp_path, metric(1, loss=1.0))
    assert columns.refresh() and not columns.refresh()
    with open(tmp_path / METRICS, "a", buffering=1) as file:
        file.write('{"step": 2, "lo')
        file.flush()
        columns.refresh()
        assert list(columns.columns["step"]) == [1]  # the line is still being written
        file.write('ss": 4.0}\n')
    append_metric(tmp_path, metric(3, loss=3.0))
    assert columns.refresh()
    assert [list(it) for it in columns.curve("loss")] == [[1, 2, 3], [1, 4, 3]]
    assert math.isnan(columns.columns["tokens"][1])


def test_the_columns_begin_anew_when_the_file_was_rewound_or_is_gone(tmp_path: Path) -> None:
    for step in range(1, 11):
        append_metric(tmp_path, metric(step, loss=float(step)))
    columns = history(tmp_path)
    rewind_metrics(tmp_path, 6)
    for step in range(7, 14):
        append_metric(tmp_path, metric(step, loss=-float(step)))  # longer than it was before
    assert columns.refresh()
    assert list(columns.columns["loss"]) == [1, 2, 3, 4, 5, 6, *(-float(step) for step in range(7, 14))]
    (tmp_path / METRICS).unlink()
    assert columns.refresh() and len(columns) == 0 and not columns.refresh()


def test_recent_values_are_those_of_the_newest_lines(tmp_path: Path) -> None:
    fill(tmp_path, 20)  # a line a step, and one behind every tenth
    assert history(tmp_path).recent("loss", 4) == [8 / 18, 8 / 19, 8 / 20]


def test_the_time_left_is_told_from_the_recent_steps() -> None:
    slow_start = [metric(1, seconds=40.0), *(metric(step, seconds=2.0) for step in range(2, 8)), metric(7, unseen=1.0)]
    assert eta(slow_start, 100) == 93 * 2.0
    faster = [metric(step, seconds=9.0) for step in range(1, 200)] + [
        metric(step, seconds=1.0) for step in range(200, 300)
    ]
    assert eta(faster, 1000) == 701 * 1.0
    assert eta(slow_start, 7) == 0.0
    assert eta([], 10) is None
    assert eta([metric(0, unseen=1.0)], 10) is None
    assert time_left([1.0, 3.0], 5) == 10.0


def test_a_run_says_what_it_is_and_what_it_trains_by(tmp_path: Path) -> None:
    fill(tmp_path, 0)
    info = read_run_info(tmp_path)
    assert info == run_info()
    assert info.recipe["weight_decay"] == [[0.0, 0.1], [2.0, 0.05]]
    for damage in (b"", b"{}", b'{"run": 1'):
        (tmp_path / RUN).write_bytes(damage)
        with pytest.raises(Failure, match=r"no readable run\.json"):
            read_run_info(tmp_path)


def test_rounds_are_read_in_order_and_a_torn_one_is_passed_over(tmp_path: Path) -> None:
    points = [
        RoundPoint(round=1, step=30, pass_rate=0.6, low=0.5, high=0.7, baseline=0.1),
        RoundPoint(round=2, step=60, error="gone"),
    ]
    judged(tmp_path, *points)
    with open(tmp_path / "rounds.jsonl", "a") as file:
        file.write('{"round": 3, "st')
    assert read_rounds(tmp_path) == points
