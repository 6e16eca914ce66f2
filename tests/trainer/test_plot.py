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
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from foundation.errors import Failure
from foundation.tables import TrainSettings
from tests.trainer.written_run import fill, judged, run_info
from trainer.judgings import best_loss
from trainer.metrics import METRICS, ROUNDS, History, Metric, RoundPoint, RunInfo, read_rounds, read_run_info
from trainer.plot import STRETCHES, STYLE, _limits, _smooth, _thin, compose, draw, gap
from trainer.plot_rounds import DOUBTED, LOOKS


def figure_of(folder: Path) -> Figure:
    """The picture, drawn."""
    history = History(folder)
    history.refresh()
    with matplotlib.rc_context(STYLE):
        figure = compose(read_run_info(folder), history, read_rounds(folder), best_loss(history, folder))
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
    assert size(picture) == (1320, 960)
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
        "muon, wsd", "bfloat16 on cpu, compiled", "attention segments", "of 200 steps", "train 0.13", "held-out phrasing 0.067",
        "unseen article 5.000", "held-out phrasing 61 % (55–67 %)", "answers shuffled 12 %", "best at step 60",
        "lowest loss on held-out phrasing 0.067 at step 60", "train–validation gap −0.067",
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


def rounds(count: int, each: int, **more: Any) -> list[RoundPoint]:
    """So many rounds of three splits, `each` steps apart, the splits ten points from each other."""
    values: dict[str, Any] = {"baseline": 0.1, "corrected": 0.55, "corrected_low": 0.45, "corrected_high": 0.65}
    return [
        RoundPoint.model_validate(
            {
                "round": number,
                "step": each * number,
                "split": split,
                "pass_rate": rate,
                "low": rate - 0.05,
                "high": rate + 0.05,
            }
            | values
            | more
        )
        for number in range(1, count + 1)
        for split, rate in (("train", 0.6), ("phrasing", 0.5), ("unseen", 0.4))
    ]


STAGES: dict[str, tuple[int, dict[str, Any], list[RoundPoint]]] = {
    "nothing yet": (0, {}, []),
    "one step": (1, {}, []),
    "three steps": (3, {"steps": 1000}, []),
    "one round": (60, {}, rounds(1, 60)),
    "two rounds": (60, {"steps": 60}, rounds(2, 30)),
    "all right": (60, {"steps": 60}, rounds(3, 20, pass_rate=1.0, low=0.98, high=1.0, baseline=1.0)),
    "twelve rounds, of which some are not believed": (
        120, {"steps": 120}, [*rounds(9, 10), *rounds(12, 10, problems=("5 % are unscored",))[27:]]
    ),
    "forty rounds": (200, {}, rounds(40, 5)),
    "refused": (30, {}, rounds(1, 30, pass_rate=None, low=None, high=None, problems=("$below$ its floor: " + "x y " * 200,))),
    "a round that failed": (30, {}, [RoundPoint(round=1, step=30, error="the judge could not be reached")]),
    "long names": (
        400,
        {"run": "r" * 64, "git": "0123456789abcdef changed", "parameters": 7_503_876_096, "preset": "ladder-7b",
         "steps": 1_234_567, "batch": 1200, "vocabulary": 262_144, "context": 131_072, "physical_batch": 100},
        [*rounds(1, 1_234_567, pass_rate=1.0, low=0.99, high=1.0, corrected=1.0, corrected_low=0.99, corrected_high=1.0, baseline=1.0),
         *rounds(100, 1, problems=("no",))[-3:], *(RoundPoint(round=number, step=5, error="no") for number in range(200, 299))],
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


def panel(figure: Figure, title: str) -> Axes:
    (found,) = (axes for axes in figure.axes if axes.get_title(loc="left").startswith(title))
    return found


def drawn(axes: Axes) -> dict[tuple[str, str, str], list[tuple[float, float]]]:
    """Every line with points, by (colour, marker, edge): where they are."""
    return {
        (str(line.get_color()), str(line.get_marker()), str(line.get_markeredgecolor())): [
            (float(x), float(y)) for x, y in np.asarray(line.get_xydata()).tolist()
        ]
        for line in axes.lines
        if len(np.asarray(line.get_xydata()))
    }


def test_every_split_has_its_line_and_what_is_not_believed_is_hollow_and_beside_it(tmp_path: Path) -> None:
    # given three rounds, the second one with too much unscored
    fill(tmp_path, 60, run_info(steps=60))
    points = rounds(3, 20)
    points[3:6] = [
        point.model_copy(update={"problems": ("5 % are unscored",), "pass_rate": 0.9}) for point in points[3:6]
    ]
    judged(tmp_path, *points)
    # when it is drawn
    figure = figure_of(tmp_path)
    lines = drawn(panel(figure, "judged right"))
    # then the lines go from the first to the third round, and the second one's points are hollow
    for split, rate in (("train", 60), ("phrasing", 50), ("unseen", 40)):
        colour, marker, _ = LOOKS[split]  # type: ignore[index]
        assert lines[colour, marker, colour] == [(20, pytest.approx(rate)), (60, pytest.approx(rate))], split
        (hollow,) = (at for (_, shape, edge), at in lines.items() if shape == marker and edge == DOUBTED)
        assert hollow == [(40, pytest.approx(90))], split
    # and it is said, and is not the best
    shown = [it.get_text() for it in texts(figure)]
    for part in (
        "not believed: 1", "best at step 60", "trained phrasing 60 % (55–65 %)", "held-out phrasing 50 % (45–55 %)",
        "unseen article 40 % (35–45 %)", "corrected 55 % (45–65 %)", "trained less held-out: 10 points (3 to 17)",
    ):  # fmt: skip
        assert part in shown, part
    assert [at for (_, marker, _), at in lines.items() if marker == "*"] == [[(60, pytest.approx(50))]]


def test_a_newest_round_that_is_not_believed_has_no_figure_in_the_legend(tmp_path: Path) -> None:
    fill(tmp_path, 60)
    judged(tmp_path, *rounds(1, 30), *rounds(2, 30, problems=("no",), pass_rate=0.97)[3:])
    shown = [it.get_text() for it in texts(figure_of(tmp_path))]
    assert "held-out phrasing not believed" in shown
    assert not [text for text in shown if "97" in text]


def test_a_run_whose_every_judging_is_refused_says_why(tmp_path: Path) -> None:
    fill(tmp_path, 30)
    judged(
        tmp_path, *rounds(1, 30, pass_rate=None, low=None, high=None, problems=("below the floor of wrong $numbers$",))
    )
    shown = [it.get_text() for it in texts(figure_of(tmp_path))]
    assert "no judging has a pass rate: below the floor of wrong $numbers$" in shown
    assert not [text for text in shown if text.startswith("best at")]


def test_the_best_by_loss_is_the_lowest_after_the_start_the_later_of_equals(tmp_path: Path) -> None:
    fill(tmp_path, 60)
    measured = {0: 0.01, 10: 0.9, 20: 0.5, 30: 0.5, 40: 0.8}
    rows = [row for row in (tmp_path / METRICS).read_text().splitlines() if '"phrasing"' not in row]
    rows += [
        Metric(step=at, epoch=0, tokens=0, supervised=0, phrasing=loss).model_dump_json()
        for at, loss in measured.items()
    ]
    (tmp_path / METRICS).write_text("\n".join(rows) + "\n")
    figure = figure_of(tmp_path)
    assert "lowest loss on held-out phrasing 0.500 at step 30" in [it.get_text() for it in texts(figure)]
    lines = drawn(panel(figure, "loss"))
    assert [at for (_, marker, _), at in lines.items() if marker == "*"] == [[(30, 0.5)]]
    # and of the checkpoints that the run keeps, where any of them was measured
    for name in ("step-000015", "step-000040", "step-000010", "step-x", ".step-000020"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    figure = figure_of(tmp_path)
    assert "best checkpoint by loss 0.800 at step 40" in [it.get_text() for it in texts(figure)]


def test_the_gap_is_the_held_out_loss_less_the_smoothed_train_loss(tmp_path: Path) -> None:
    # given a train loss of 2, and held-out ones of 4/step
    fill(tmp_path, 60, losses=lambda _: 2.0)
    history = History(tmp_path)
    history.refresh()
    steps, gaps = gap(history)
    # then the gap is known wherever both were measured: not before the first step
    assert steps.tolist() == [10, 20, 30, 40, 50, 60]
    assert gaps.tolist() == pytest.approx([4 / step - 2 for step in steps])
    assert panel(figure_of(tmp_path), "train–validation gap").get_title(loc="left") == "train–validation gap −1.933"


def test_a_run_that_was_never_measured_has_no_panel_for_the_gap(tmp_path: Path) -> None:
    fill(tmp_path, 5)
    titles = [axes.get_title(loc="left") for axes in figure_of(tmp_path).axes]
    assert len(titles) == 5 and not [title for title in titles if "gap" in title]


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
