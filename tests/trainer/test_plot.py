"""The picture: everything it must show is in it, legible, whatever the run has to show."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from foundation.errors import Failure
from foundation.tables import TrainSettings
from tests.trainer.written_run import fill, judged, run_info
from trainer.metrics import METRICS, ROUNDS, History, RoundPoint, RunInfo, read_rounds, read_run_info
from trainer.plot import STRETCHES, STYLE, _limits, _smooth, _thin, compose, draw


def figure_of(folder: Path) -> Figure:
    """The picture, drawn."""
    history = History(folder)
    history.refresh()
    with matplotlib.rc_context(STYLE):
        figure = compose(read_run_info(folder), history, read_rounds(folder))
        FigureCanvasAgg(figure).draw()
    return figure


def texts(figure: Figure) -> list[Text]:
    """Every text a reader sees, in the order it is drawn: those that matplotlib keeps and does not draw are left out."""
    drawn: list[Text] = []
    draw_one = Text.draw

    def noted(self: Text, *arguments: Any, **more: Any) -> None:
        drawn.append(self)
        draw_one(self, *arguments, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Text, "draw", noted)
        FigureCanvasAgg(figure).draw()
    return [it for it in drawn if it.get_visible() and it.get_text().strip()]


def size(picture: Path) -> tuple[int, int]:
    data = picture.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", data[16:24])  # type: ignore[return-value]


def test_the_picture_is_made_whole_and_again(tmp_path: Path) -> None:
    fill(tmp_path, 60)
    picture = draw(tmp_path)
    assert picture == tmp_path / "loss.png"
    assert size(picture) == (1320, 816)
    first = picture.read_bytes()
    assert draw(tmp_path).read_bytes() == first
    judged(tmp_path, RoundPoint(round=1, step=30, pass_rate=0.6, low=0.5, high=0.7, baseline=0.1))
    draw(tmp_path)
    assert picture.read_bytes() != first
    assert not list(tmp_path.glob(".tmp-*"))


def test_everything_that_matters_is_in_it(tmp_path: Path) -> None:
    fill(tmp_path, 60, run_info(optimizer="muon", schedule="wsd", physical_batch=2, compiled=True))
    judged(tmp_path, RoundPoint(round=1, step=60, pass_rate=0.61, low=0.55, high=0.67, baseline=0.12))
    shown = [it.get_text() for it in texts(figure_of(tmp_path))]
    everything = "\n".join(shown)
    for part in (
        "run first", "git abc1234", "preset demo", "4,262,144 parameters", "context 512", "4 contexts a step (2 at once)",
        "muon, wsd", "bfloat16 on cpu, compiled", "attention segments", "of 200 steps", "train 0.13", "phrasings 0.067",
        "unseen articles 5.000", "phrasings 61 % (55–67 %)", "answers shuffled 12 %",
    ):  # fmt: skip
        assert part in everything, part
    for label, value in {
        "of 200 steps": "60", "epochs": "1.20", "tokens, padding apart": "120,000", "tokens a second": "51,200", "MFU": "41.2 %",
        "memory, at most": "3.0 GiB", "time left": "5 min",
    }.items():  # fmt: skip
        assert shown[shown.index(label) - 1] == value, label
    assert "learning rate 0.001" in shown
    assert "weight decay 0.1" in shown
    assert "gradient norm 0.5" in shown
    assert "tokens a second 51,200" in shown


STAGES: dict[str, tuple[int, dict[str, Any], list[RoundPoint]]] = {
    "nothing yet": (0, {}, []),
    "one step": (1, {}, []),
    "three steps": (3, {"steps": 1000}, []),
    "some rounds": (
        60,
        {"steps": 60},
        [
            RoundPoint(round=number, step=20 * number, split=split, pass_rate=1.0, low=0.98, high=1.0, baseline=1.0)
            for number in (1, 2, 3)
            for split in ("phrasing", "unseen")
        ],
    ),
    "a round that failed": (30, {}, [RoundPoint(round=1, step=30, error="the judge could not be reached")]),
    "long names": (
        400,
        {"run": "r" * 64, "git": "0123456789abcdef changed", "parameters": 7_503_876_096, "preset": "ladder-7b",
         "steps": 1_234_567, "batch": 1200, "vocabulary": 262_144, "context": 131_072, "physical_batch": 100},
        [RoundPoint(round=1, step=399, pass_rate=0.5, low=0.4, high=0.6)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("stage", STAGES)
def test_no_text_lies_on_another_or_leaves_the_picture(tmp_path: Path, stage: str) -> None:
    steps, info, rounds = STAGES[stage]
    fill(tmp_path, steps, run_info(**info))
    judged(tmp_path, *rounds)
    figure = figure_of(tmp_path)
    boxes = [(it.get_text(), it.get_window_extent()) for it in texts(figure)]
    width, height = figure.canvas.get_width_height()
    for text, box in boxes:
        assert 0 <= box.x0 < box.x1 <= width and 0 <= box.y0 < box.y1 <= height, text
    for (one, first), (other, second) in itertools.combinations(boxes, 2):
        assert not first.overlaps(second), (one, other)


def test_a_schedule_is_drawn_to_its_end_and_its_now_is_marked(tmp_path: Path) -> None:
    # given a run of 200 steps that has done 60
    settings = TrainSettings(learning_rate=1e-3, epochs=4, weight_decay=[(0.0, 0.1), (2.0, 0.05)])
    fill(tmp_path, 60, run_info(recipe=settings.model_dump(mode="json")))
    figure = figure_of(tmp_path)
    rates, decays = (axes for axes in figure.axes if axes.get_title(loc="left").startswith(("learning", "weight")))
    planned, held = (np.asarray(it.lines[0].get_xydata()) for it in (rates, decays))
    assert planned[0, 0] == 1 and planned[-1, 0] == 200
    assert max(planned[:, 1]) == pytest.approx(1e-3) and planned[-1, 1] == pytest.approx(1e-4)
    assert held[[99, 100]].tolist() == [[100, 0.1], [101, 0.05]]
    assert np.asarray(decays.lines[-1].get_xdata()).tolist() == [60]


def test_a_run_of_another_version_has_its_picture_without_the_schedules_to_come(tmp_path: Path) -> None:
    fill(tmp_path, 10, run_info(recipe={"learning_rate": 1e-3, "a setting that is gone": 1}))
    assert "learning rate 0.001" in [it.get_text() for it in texts(figure_of(tmp_path))]


def test_without_a_run_there_is_no_picture(tmp_path: Path) -> None:
    with pytest.raises(Failure, match=r"no readable run\.json"):
        draw(tmp_path)


def test_a_history_that_is_kept_is_drawn_from_what_is_new(tmp_path: Path) -> None:
    fill(tmp_path, 10)
    history = History(tmp_path)
    kept = draw(tmp_path, history).read_bytes()
    fill(tmp_path, 20, start=11)
    later = draw(tmp_path, history).read_bytes()
    assert later != kept
    assert later == draw(tmp_path).read_bytes()


def test_a_long_curve_is_drawn_from_few_points_that_keep_its_peaks(tmp_path: Path) -> None:
    values = np.random.default_rng(1).normal(size=100_000)
    values[54_321], values[77] = 50.0, -50.0
    steps, drawn = _thin(np.arange(1, 100_001, dtype=np.float64), values)
    assert len(steps) == len(drawn) == 2 * STRETCHES
    assert (drawn.max(), drawn.min()) == (50.0, -50.0)
    assert list(np.diff(steps) >= 0) == [True] * (2 * STRETCHES - 1)
    assert abs(steps[drawn.argmax()] - 54_322) <= 100_000 / STRETCHES
    assert (steps[-1], drawn[-1]) == (100_000, values[-1])


def test_a_short_curve_is_drawn_as_it_is() -> None:
    steps, values = _thin(np.array([1.0, 2.0]), np.array([5.0, 4.0]))
    assert (list(steps), list(values)) == ([1, 2], [5, 4])


def test_smoothing_is_the_mean_around_each_point() -> None:
    assert list(_smooth(np.array([3.0]))) == [3.0]
    smoothed = _smooth(np.array([5.0] * 400 + [1.0] * 400))
    assert list(smoothed[[0, 395, 404, 799]]) == pytest.approx([5, 5, 1, 1])
    assert smoothed[400] == pytest.approx((4 * 5 + 5 * 1) / 9)


@pytest.mark.parametrize(
    ("seen", "limits"),
    [([], (0, 1)), ([0.0], (0, 1)), ([4.0, 1.0], (0, 4.24)), ([4.0], (0, 4.24)), ([3.0, 2.0], (1.85, 3.069))],
)
def test_the_losses_fill_the_picture(seen: Sequence[float], limits: tuple[float, float]) -> None:
    assert _limits(list(seen)) == pytest.approx(limits)


def test_the_start_of_a_long_run_does_not_flatten_the_rest(tmp_path: Path) -> None:
    fill(tmp_path, 200, losses=lambda step: 100.0 if step < 3 else 2.5)
    (losses,) = (axes for axes in figure_of(tmp_path).axes if axes.get_title(loc="left").startswith("loss"))
    assert losses.get_ylim()[1] < 10


def test_a_torn_line_and_a_torn_round_are_passed_over(tmp_path: Path) -> None:
    fill(tmp_path, 20)
    with open(tmp_path / METRICS, "a") as file:
        file.write('{"step": 21, "los')
    judged(tmp_path, RoundPoint(round=1, step=20, pass_rate=0.5, low=0.4, high=0.6))
    with open(tmp_path / ROUNDS, "a") as file:
        file.write('{"round": 2')
    assert "20" in [it.get_text() for it in texts(figure_of(tmp_path))]


def test_run_info_of_before_can_be_read(tmp_path: Path) -> None:
    old = run_info().model_dump(exclude={"recipe", "optimizer", "schedule", "physical_batch", "compiled"})
    assert RunInfo.model_validate(old).recipe == {}
