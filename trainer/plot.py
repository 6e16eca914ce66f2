"""The picture of a run: losses, pass rates, schedules and speed over its steps, and what the run is, in one PNG.

Guarantees: drawn from the run's own files alone and replaced atomically; what a run does not have leaves no hole. Its
colours are told apart without red and green. However long the run, each curve has some 1,200 points at most: a band
from the lowest to the highest value of each stretch. Cost: 0.5 s to import matplotlib, 0.4 s a picture, and 0.4 s of
reading for 100,000 steps. No torch is imported.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from foundation.splits import SPLIT_NAMES
from foundation.store import LocalStore
from trainer import plot_text as text
from trainer.judgings import Lowest, best_loss
from trainer.metrics import RECENT, History, RoundPoint, RunInfo, read_rounds, read_run_info, time_left
from trainer.plot_rounds import ABOVE, BEST, FAINT, GREY, LOOKS, ROW, STYLE, TRAIN, legend, pass_rates
from trainer.schedules import learning_rate, weight_decay

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.gridspec import SubplotSpec
    from numpy.typing import NDArray

    from foundation.tables import TrainSettings

    Floats = NDArray[np.float64]

PICTURE = "loss.png"
WIDTH, HEIGHT = 11.0, 8.0  # inches, of 120 points each
STRETCHES = 600  # of a long curve, each drawn as its lowest and its highest value


def draw(folder: Path, history: History | None = None) -> Path:
    """Draw `loss.png` of the run in `folder`; returns its path. Raises `Failure` if the run has no `run.json`.

    `history`: the run's own, where the caller keeps one, so that only what is new is read.
    """
    import matplotlib

    info, rounds = read_run_info(folder), read_rounds(folder)
    history = history or History(folder)
    history.refresh()
    with matplotlib.rc_context(STYLE):
        picture = io.BytesIO()
        compose(info, history, rounds, best_loss(history, folder)).savefig(
            picture, format="png", metadata={"Software": None}
        )
    LocalStore(folder).put(PICTURE, picture.getvalue())
    return folder / PICTURE


def compose(info: RunInfo, history: History, rounds: list[RoundPoint], best: Lowest | None) -> Figure:
    """The picture, before it is drawn. `best`: the step with the lowest loss."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=120)
    figure.text(0.02, _down(0.31), f"run {info.run}", fontsize=15, weight="bold", va="center")
    for inches, line in zip((0.585, 0.775), text.described(info), strict=True):
        figure.text(0.02, _down(inches), line, color=GREY, va="center")
    for number, (label, value) in enumerate(_figures(info, history)):
        figure.text(0.02 + 0.14 * number, _down(1.115), value, fontsize=12, weight="bold", va="center")
        figure.text(0.02 + 0.14 * number, _down(1.305), label, color=GREY, fontsize=8, va="center")
    columns = figure.add_gridspec(
        1, 2, width_ratios=(3.1, 1), wspace=0.2, left=0.06, right=0.975, top=_down(1.87), bottom=_down(HEIGHT - 0.49)
    )
    left = columns[0].subgridspec(2 if rounds else 1, 1, height_ratios=(2, 1) if rounds else (1,), hspace=0.42)
    losses = figure.add_subplot(left[0])
    _losses(losses, info, history, best)
    lowest = losses
    if rounds:
        lowest = figure.add_subplot(left[1], sharex=losses)
        losses.tick_params(labelbottom=False)
        pass_rates(lowest, rounds)
    lowest.set_xlabel(_steps_label(info), labelpad=2)
    _right(figure, columns[1], info, history)
    return figure


def _down(inches: float) -> float:
    """So far from the top, as a share of the picture's height."""
    return 1 - inches / HEIGHT


def _right(figure: Figure, place: SubplotSpec, info: RunInfo, history: History) -> None:
    """The small panels."""
    steps, gaps = gap(history)
    count = 5 if len(steps) else 4
    grid = place.subgridspec(count, 1, hspace=0.8 if count == 5 else 0.75)
    panels = [figure.add_subplot(grid[row]) for row in range(count)]
    for panel in panels:
        panel.tick_params(labelsize=7.5)
    if len(steps):
        _gap(panels.pop(0), steps, gaps)
    _schedules(panels[0], panels[1], info, history)
    _speed(panels[2], "gradient norm", "grad_norm", history, _recipe(info))
    _speed(panels[3], "tokens a second", "tokens_per_second", history, None)


def _figures(info: RunInfo, history: History) -> list[tuple[str, str]]:
    """(what, how much) of the row of figures."""
    step = history.last("step") or 0
    left = time_left(history.recent("seconds", RECENT), info.steps - step)
    return [
        (f"of {info.steps:,} steps", f"{step:,.0f}"),
        ("epochs", f"{history.last('epoch') or 0:.2f}"),
        ("tokens, padding apart", text.count(history.last("tokens") or 0)),
        ("tokens a second", text.count(history.last("tokens_per_second"))),
        ("MFU", text.share(history.last("mfu"))),
        ("memory, at most", text.size(history.last("memory"))),
        ("time left", "done" if left == 0 else text.duration(left)),
    ]


def _recipe(info: RunInfo) -> TrainSettings | None:
    """The settings the run trains by, if it says so and they can be read."""
    from foundation.tables import TrainSettings

    try:
        return TrainSettings.model_validate(info.recipe) if info.recipe else None
    except ValidationError:  # of another version
        return None


def _steps_label(info: RunInfo) -> str:
    recipe = _recipe(info)
    return "step" if recipe is None else f"step (an epoch has {info.steps / recipe.epochs:,.0f})"


# -- losses ----------------------------------------------------------------------------------------------------------


def _losses(axes: Axes, info: RunInfo, history: History, best: Lowest | None) -> None:
    last = history.last("step") or 0.0
    seen = []  # what the limits go by: the very start apart, which is far above all that follows
    steps, losses = history.curve("loss")
    if len(steps):
        smooth = _smooth(losses)
        axes.plot(*_thin(steps, losses), color=TRAIN, alpha=0.3, linewidth=0.8)
        axes.plot(*_thin(steps, smooth), color=TRAIN, linewidth=1.8, label=f"train {smooth[-1]:.3f}")
        seen += smooth[steps > last / 50 if last >= 50 else steps > 0].tolist()
    else:
        axes.text(0.5, 0.5, "no step is finished yet", color=GREY, ha="center", transform=axes.transAxes)
    for split in ("phrasing", "unseen"):
        at, values = history.curve(split)
        if len(at):
            colour, marker, _ = LOOKS[split]
            dots = marker if len(at) <= 40 else ""
            label = f"{SPLIT_NAMES[split]} {values[-1]:.3f}"
            axes.plot(*_thin(at, values), color=colour, linewidth=1.5, marker=dots, markersize=4, label=label)
            seen += values[at > last / 50 if last >= 50 else at >= 0].tolist()
    legend(axes, axes.get_lines(), row=1)
    if best is not None:
        legend(axes, axes.plot([best.step], [best.loss], **BEST, label=text.lowest(best)), row=0)
    _epochs(axes, info, last)
    axes.set_title("loss, nats per answer token", pad=ABOVE + ROW)
    axes.set_xlim(-0.016 * max(1.0, last), 1.016 * max(1.0, last))
    axes.set_ylim(*_limits(seen))
    axes.grid(axis="y")
    axes.locator_params(axis="x", integer=True)
    axes.xaxis.set_major_formatter("{x:,.0f}")


def _limits(seen: list[float]) -> tuple[float, float]:
    """From 0 on, unless that wastes half the room."""
    if not seen:
        return 0.0, 1.0
    low, high = min(seen), max(seen)
    bottom = low - 0.15 * (high - low) if high / 2 < low < high else 0.0
    return bottom, high + 0.06 * (high - bottom) or 1.0


def _epochs(axes: Axes, info: RunInfo, last: float) -> None:
    """A faint line where each epoch ends, while they are few enough to be told apart."""
    recipe = _recipe(info)
    if recipe is None or last * recipe.epochs > 20 * info.steps:
        return
    each = info.steps / recipe.epochs
    for number in range(1, int(last / each) + 1):
        axes.axvline(number * each, color=FAINT, linewidth=1, zorder=0)


def _smooth(values: Floats) -> Floats:
    """The mean of a hundredth of the run around each point; at its ends of that part of it which is there."""
    import numpy as np

    reach, places = len(values) // 200, np.arange(len(values))
    sums = np.concatenate(([0.0], np.cumsum(values)))
    first, behind = np.maximum(places - reach, 0), np.minimum(places + reach + 1, len(values))
    return (sums[behind] - sums[first]) / (behind - first)


def _thin(steps: Floats, values: Floats) -> tuple[Floats, Floats]:
    """The curve itself if it is short, else the lowest and the highest value of each of its stretches."""
    import numpy as np

    if len(values) <= 2 * STRETCHES:
        return steps, values
    starts = np.linspace(0, len(values), STRETCHES, endpoint=False).astype(np.int64)
    ends = np.stack((np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)), axis=1)
    ends[-1, 1] = values[-1]  # a curve ends where it ends
    return np.append(np.repeat(steps[starts], 2)[:-1], steps[-1]), ends.ravel()


# -- the small panels -----------------------------------------------------------------------------------------------


def gap(history: History) -> tuple[Floats, Floats]:
    """The train-validation gap: loss on held-out phrasing less the smoothed train loss, at the steps where both are known."""
    import numpy as np

    (steps, losses), (at, values) = history.curve("loss"), history.curve("phrasing")
    both = (at >= steps[0]) & (at <= steps[-1]) if len(steps) else np.zeros(len(at), dtype=bool)
    if not both.any():
        return np.empty(0), np.empty(0)
    return at[both], values[both] - np.interp(at[both], steps, _smooth(losses))


def _gap(axes: Axes, steps: Floats, gaps: Floats) -> None:
    colour = LOOKS["phrasing"][0]
    axes.axhline(0, color="#BDBDBD", linewidth=1)
    axes.plot(*_thin(steps, gaps), color=colour, linewidth=1.5)
    axes.fill_between(*_thin(steps, gaps), color=colour, alpha=0.15, linewidth=0)
    axes.plot(steps[-1:], gaps[-1:], color=colour, marker="o", markersize=4.5, clip_on=False)
    axes.set_title(f"train–validation gap {gaps[-1]:+.3f}".replace("-", "−"))
    settled = gaps[steps > steps[-1] / 50]
    low, high = min(0.0, *settled), max(0.0, *settled)
    room = 0.1 * (high - low) or 0.5
    axes.set_ylim(low - (room if low < 0 else 0), high + room)
    axes.locator_params(axis="y", nbins=3)
    _ends(axes, max(1.0, steps[-1]))


def _schedules(rates: Axes, decays: Axes, info: RunInfo, history: History) -> None:
    """Learning rate and weight decay through the whole run: what is done in colour, what is to come in grey."""
    recipe = _recipe(info)
    numbers = sorted({round(number * (info.steps - 1) / 400) for number in range(401)}) if info.steps else []
    for axes, name, label in ((rates, "learning_rate", "learning rate"), (decays, "weight_decay", "weight decay")):
        style: Any = "steps-post" if name == "weight_decay" else "default"
        steps, values = _thin(*history.curve(name))
        now = history.last(name)
        top = max(values, default=0.0)
        if recipe is not None:
            planned = [
                learning_rate(number, info.steps, recipe)
                if axes is rates
                else weight_decay(recipe.epochs * number / info.steps, recipe)
                for number in numbers
            ]
            axes.plot([number + 1 for number in numbers], planned, color="#BDBDBD", linewidth=1.2, drawstyle=style)
            top = max(top, *planned)
        axes.plot(steps, values, color=TRAIN, linewidth=1.5, drawstyle=style)
        if now is not None:
            axes.plot(steps[-1:], [now], color=TRAIN, marker="o", markersize=4.5, clip_on=False)
        axes.set_title(f"{label} {text.rate(now)}")
        axes.set_ylim(0, 1.1 * top or 1.0)
        axes.set_yticks((0, top) if top else (0,), ("0", f"{top:.2g}") if top else ("0",))
        _ends(axes, max(1.0, info.steps if recipe else history.last("step") or 0))


def _speed(axes: Axes, label: str, name: str, history: History, recipe: TrainSettings | None) -> None:
    """A figure of every step, with its newest value; `recipe`: the norm it is clipped at is drawn too."""
    import numpy as np

    steps, values = history.curve(name)
    newest = history.last(name)
    shown: Any = "–" if newest is None else (text.count(newest) if newest >= 100 else f"{newest:.3g}")
    axes.set_title(f"{label} {shown}")
    top = float(np.quantile(values, 0.99)) if len(values) else 0.0
    if recipe is not None and top:
        top = max(top, recipe.clip) if recipe.clip < 3 * top else top
        axes.axhline(recipe.clip, color="#BDBDBD", linewidth=1, linestyle="--")
    axes.plot(*_thin(steps, values), color=TRAIN, alpha=0.3, linewidth=0.8)
    axes.plot(*_thin(steps, _smooth(values)), color=TRAIN, linewidth=1.2)
    axes.set_ylim(0, 1.15 * top or 1.0)
    axes.locator_params(axis="y", nbins=3)
    axes.yaxis.set_major_formatter("{x:,.0f}" if top >= 10 else "{x:g}")
    if not top:
        axes.set_yticks(())
    _ends(axes, max(1.0, history.last("step") or 0))


def _ends(axes: Axes, end: float) -> None:
    """Steps from 0 to `end`, with those two named; the right one kept within the picture."""
    axes.set_xlim(0, end)
    axes.set_xticks((0, end), ("0", text.count(end)))
    axes.get_xticklabels()[-1].set_horizontalalignment("right")
