"""The part of a run's picture that shows its judgings, and the colours and legends that all of it shares.

Guarantees: a judging that is not believed is hollow and grey, is on no line and is said; what has no figure is said in
words. Cost: 0.1 s a picture. Misses: of more than 20 rounds the intervals are a band, drawn straight between rounds.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from foundation.records import Split
from foundation.splits import SPLIT_NAMES
from trainer import plot_text as text
from trainer.judgings import apart
from trainer.metrics import RoundPoint, best_judged

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.transforms import Transform

# Blue, vermilion and bluish green of Okabe and Ito, for readers with any colour vision.
TRAIN, PHRASING, UNSEEN, INK, GREY, FAINT = "#0072B2", "#D55E00", "#009E73", "#222222", "#767676", "#E2E2E2"
LOOKS: dict[Split, tuple[str, str, float]] = {  # colour, marker, and how far beside its step it stands, in points
    "train": (TRAIN, "^", -4.0),
    "phrasing": (PHRASING, "o", 0.0),
    "unseen": (UNSEEN, "s", 4.0),
}
STYLE: dict[Any, Any] = {
    "font.size": 9, "text.color": INK, "axes.labelcolor": GREY, "axes.edgecolor": "#BDBDBD", "xtick.color": GREY,
    "ytick.color": GREY, "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
    "axes.titlelocation": "left", "axes.titlesize": 9, "axes.titlecolor": INK, "grid.color": FAINT, "grid.linewidth": 0.6,
}  # fmt: skip
BEST: dict[str, Any] = {
    "marker": "*", "markersize": 13, "color": INK, "markeredgecolor": "white", "markeredgewidth": 0.8, "linestyle": "",
    "zorder": 5, "clip_on": False,
}  # fmt: skip
DOUBTED = "#8C8C8C"
ROW, ABOVE = 16.0, 5.0  # points: height of a row above a panel, and how far above the panel the lowest one stands
BARS = 20  # rounds that have whiskers of their own


def legend(axes: Axes, handles: Iterable[Artist], *, row: int, size: float = 8.5) -> None:
    """A legend in a row above the panel, counted from 0 at the panel, at its right end."""
    from matplotlib.legend import Legend

    named = [(it, str(it.get_label())) for it in handles if not str(it.get_label()).startswith("_")]
    if not named:
        return
    artists, labels = zip(*named, strict=True)
    axes.add_artist(
        Legend(
            axes, artists, labels, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=len(named), frameon=False,
            bbox_transform=_moved(axes, axes.transAxes, 0, ABOVE - 1 + ROW * row), borderpad=0, borderaxespad=0, columnspacing=1.2,
            handlelength=1.4, handletextpad=0.5, fontsize=size,
        )
    )  # fmt: skip


def pass_rates(axes: Axes, rounds: Sequence[RoundPoint]) -> None:
    """The pass rates of every split over the steps, the best of them, and what of it is not to be believed."""
    axes.set_title("judged right (95 %)", pad=ABOVE + 2 * ROW)
    many = len({point.round for point in rounds}) > BARS
    splits = [_split(axes, [point for point in rounds if point.split == split], split, many) for split in SPLIT_NAMES]
    legend(axes, [it for it in splits if it is not None], row=1, size=8)
    legend(axes, _marks(axes, rounds), row=0, size=8)
    words = []
    if failed := len({point.round for point in rounds if point.error}):
        words.append(f"{failed} failed")
    if (found := apart(rounds)) is not None:
        words.append(f"trained less held-out: {text.points_apart(found)}")
    moved = _moved(axes, axes.transAxes, 0, ABOVE + 2 * ROW)
    axes.text(1, 1, " · ".join(words), transform=moved, color=GREY, fontsize=8, ha="right")
    if not any(point.pass_rate is not None for point in rounds):
        reason = next((text.doubt(point) for point in reversed(rounds) if text.doubt(point)), "")
        told = textwrap.fill(f"no judging has a pass rate{': ' if reason else ''}{textwrap.shorten(reason, 200)}", 100)
        axes.text(
            0.5,
            0.5,
            told,
            transform=axes.transAxes,
            color=GREY,
            ha="center",
            va="center",
            parse_math=False,
            backgroundcolor="white",
        )
    axes.set_ylim(-4, 104)
    axes.set_yticks((0, 50, 100), ("0 %", "50 %", "100 %"))
    axes.grid(axis="y")


def _split(axes: Axes, points: Sequence[RoundPoint], split: Split, many: bool) -> Artist | None:
    """One split's line, whiskers and hollow points; what stands for it in the legend, None if it was never judged."""
    if not points:
        return None
    colour, marker, aside = LOOKS[split]
    place = axes.transData if many else _moved(axes, axes.transData, aside, 0)
    believed = [point for point in points if point.believed]
    steps, rates, low, high = _columns(believed)
    if many:
        axes.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.plot(steps, rates, color=colour, linewidth=1.2)
    elif believed:
        reach = [
            [rate - end for rate, end in zip(rates, low, strict=True)],
            [end - rate for rate, end in zip(rates, high, strict=True)],
        ]
        axes.errorbar(
            steps, rates, yerr=reach, color=colour, marker=marker, markersize=5, capsize=3, linewidth=1.2, transform=place
        )  # fmt: skip
    steps, rates, _, _ = _columns([point for point in points if point.pass_rate is not None and not point.believed])
    axes.plot(
        steps, rates, marker=marker, markersize=5, markerfacecolor="none", markeredgecolor=DOUBTED, linestyle="",
        transform=place,
    )  # fmt: skip
    label = f"{SPLIT_NAMES[split]} {text.judged(points[-1])}"
    return axes.plot([], [], color=colour, marker="" if many else marker, markersize=5, linewidth=1.2, label=label)[0]


def _marks(axes: Axes, rounds: Sequence[RoundPoint]) -> list[Artist]:
    """What belongs to the held-out phrasings alone, and the best."""
    handles: list[Artist] = []
    held_out = [point for point in rounds if point.split == "phrasing" and point.believed]
    corrected = [point for point in held_out if point.corrected is not None]
    if corrected:
        label = f"corrected {text.within(*_corrected(corrected[-1]))}"
        values = [100 * _corrected(point)[0] for point in corrected]
        steps = [point.step for point in corrected]
        handles += axes.plot(
            steps,
            values,
            color=PHRASING,
            alpha=0.7,
            marker="d" if len(steps) <= BARS else "",
            markersize=4,
            linestyle="--",
            linewidth=1,
            label=label,
        )
    shuffled = [(point.step, 100 * point.baseline) for point in held_out if point.baseline is not None]
    if shuffled:
        at, shares = zip(*shuffled, strict=True)
        label = f"answers shuffled {shares[-1]:.0f} %"
        handles += axes.plot(at, shares, color=GREY, marker="_", markersize=9, linestyle=":", label=label)
    best = best_judged(rounds)
    if best is not None and best.pass_rate is not None:
        handles += axes.plot([best.step], [100 * best.pass_rate], **BEST, label=f"best at step {best.step:,}")
    if doubted := len({point.round for point in rounds if point.problems}):
        label = f"not believed: {doubted}"
        handles += axes.plot(
            [], [], marker="o", markersize=5, markerfacecolor="none", markeredgecolor=DOUBTED, linestyle="", label=label
        )
    return handles


def _corrected(point: RoundPoint) -> tuple[float, float | None, float | None]:
    return point.corrected or 0.0, point.corrected_low, point.corrected_high


def _columns(points: Sequence[RoundPoint]) -> tuple[list[int], list[float], list[float], list[float]]:
    """Steps, and in per cent the rates and the ends of their intervals; where there is none, it is of no width."""
    rates = [point.pass_rate or 0.0 for point in points]
    low = [rate if point.low is None else point.low for rate, point in zip(rates, points, strict=True)]
    high = [rate if point.high is None else point.high for rate, point in zip(rates, points, strict=True)]
    per_cent = [[100 * value for value in column] for column in (rates, low, high)]
    return [point.step for point in points], per_cent[0], per_cent[1], per_cent[2]


def _moved(axes: Axes, place: Transform, right: float, up: float) -> Transform:
    """That place, so many points aside."""
    from matplotlib.transforms import ScaledTranslation

    figure = axes.get_figure(root=True)
    assert figure is not None  # a panel of a picture
    return place + ScaledTranslation(right / 72, up / 72, figure.dpi_scale_trans)
