"""The picture: everything it must show is in it, whatever the run has to show."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from foundation.errors import Failure
from trainer.metrics import (
    ROUNDS,
    Metric,
    RoundPoint,
    RunInfo,
    append_metric,
    read_metrics,
    read_rounds,
    write_run_info,
)
from trainer.plot import _smooth, _title, draw

INFO = RunInfo(
    run="first",
    git="abc1234",
    preset="demo",
    parameters=4_262_144,
    vocabulary=4096,
    context=512,
    batch=4,
    steps=200,
    epoch_tokens=200_000,
    device="cpu",
    precision="bfloat16",
    attention="segments",
)


def fill(folder: Path, steps: int) -> None:
    write_run_info(folder, INFO)
    append_metric(folder, Metric(step=0, epoch=0, tokens=0, supervised=0, phrasing=8.0, unseen=8.0))
    for step in range(1, steps + 1):
        held_out = {"phrasing": 4.0 / step, "unseen": 5.0} if step % 10 == 0 else {}
        append_metric(
            folder,
            Metric(step=step, epoch=step / 50, tokens=2000 * step, supervised=900 * step, loss=8 / step, **held_out),
        )


def size(picture: Path) -> tuple[int, int]:
    data = picture.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", data[16:24])  # type: ignore[return-value]


def test_the_picture_is_made_whole_and_again(tmp_path: Path) -> None:
    fill(tmp_path, 60)
    picture = draw(tmp_path)
    assert picture == tmp_path / "loss.png"
    assert size(picture)[0] >= 1000
    first = picture.read_bytes()
    points = [
        RoundPoint(round=1, step=30, pass_rate=0.6, low=0.5, high=0.7, baseline=0.1),
        RoundPoint(round=2, step=60, pass_rate=0.7, low=0.6, high=0.8, baseline=0.1),
        RoundPoint(round=2, step=60, error="the judge could not be reached"),
    ]
    (tmp_path / ROUNDS).write_text("".join(point.model_dump_json() + "\n" for point in points))
    draw(tmp_path)
    assert picture.read_bytes() != first
    assert [point.round for point in read_rounds(tmp_path)] == [1, 2, 2]
    assert not list(tmp_path.glob(".tmp-*"))


@pytest.mark.parametrize("steps", [0, 1])
def test_a_run_that_has_hardly_begun_has_one_too(tmp_path: Path, steps: int) -> None:
    fill(tmp_path, steps)
    assert size(draw(tmp_path))[0] >= 1000


def test_run_revision_parameters_tokens_and_losses_are_in_it(tmp_path: Path) -> None:
    fill(tmp_path, 60)
    title = _title(INFO, read_metrics(tmp_path))
    for part in ("first", "abc1234", "demo", "4,262,144", "120,000 tokens", "60 of 200 steps", "1.2 epochs"):
        assert part in title
    assert "train 0.133, phrasing 0.067, unseen 5.000" in title


def test_without_a_run_there_is_no_picture(tmp_path: Path) -> None:
    with pytest.raises(Failure, match=r"no readable run\.json"):
        draw(tmp_path)


def test_smoothing_starts_at_the_first_value_and_follows() -> None:
    assert _smooth([3.0]) == [3.0]
    smoothed = _smooth([5.0] * 400 + [1.0] * 400)
    assert smoothed[0] == pytest.approx(5.0)
    assert smoothed[399] == pytest.approx(5.0)
    assert smoothed[-1] == pytest.approx(1.0, abs=1e-3)
    assert 1.0 < smoothed[402] < 5.0
