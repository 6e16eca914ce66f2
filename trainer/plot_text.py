"""Figures of a run as people read them: the same in the picture and in the terminal.

Guarantees: never longer than 12 characters (a pass rate with its interval apart), so that they fit where they are put.
Cost: nothing; no torch, no matplotlib.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainer.judgings import Lowest
    from trainer.metrics import RoundPoint, RunInfo

NONE = "–"


def count(value: float | None) -> str:
    """`1,234,567`, and from ten million on `12.3 M`."""
    if value is None:
        return NONE
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e7, "M")):
        if value >= size:
            return f"{value / min(size, 1e6 if unit == 'M' else size):,.{1 if unit == 'M' else 2}f} {unit}"
    return f"{value:,.0f}"


def rate(value: float | None) -> str:
    """A learning rate or a weight decay, three digits of it."""
    return NONE if value is None else f"{value:.3g}"


def share(value: float | None) -> str:
    """Per cent, of a share of 1."""
    return NONE if value is None else f"{100 * value:.1f} %"


def size(value: float | None) -> str:
    """Bytes."""
    if value is None:
        return NONE
    return f"{value / (1 << 30):,.1f} GiB" if value >= 1 << 30 else f"{value / (1 << 20):,.0f} MiB"


def duration(seconds: float | None) -> str:
    """`45 s`, `12 min`, `3 h 05 min`, `2 d 4 h`."""
    if seconds is None:
        return NONE
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02} min"
    hours = round(seconds / 3600)
    return f"{hours // 24:,} d {hours % 24} h"


def judged(point: RoundPoint) -> str:
    """`61 % (55–67 %)`; `not believed` where something speaks against it, `failed` where there was no judging."""
    if point.error or point.problems:
        return "failed" if point.error else "not believed"
    if point.pass_rate is None:
        return NONE
    return within(point.pass_rate, point.low, point.high)


def within(rate: float, low: float | None, high: float | None) -> str:
    """`61 % (55–67 %)`, of shares of 1; without an interval where there is none."""
    shown = f"{100 * rate:.0f} %"
    return shown if low is None or high is None else f"{shown} ({100 * low:.0f}–{100 * high:.0f} %)"


def points_apart(found: tuple[float, float, float]) -> str:
    """`12 points (3 to 21)`: a difference of pass rates with its interval, shares of 1."""
    value, low, high = (round(100 * one) for one in found)
    return f"{value} points ({low} to {high})"


def lowest(best: Lowest) -> str:
    """`best checkpoint by loss 0.203 at step 1,140`; of a step without a checkpoint the loss alone."""
    what = "best checkpoint by loss" if best.kept else "lowest loss on held-out phrasing"
    return f"{what} {best.loss:.3f} at step {best.step:,}"


def doubt(point: RoundPoint) -> str:
    """Why that judging has no figure to believe, in a line; "" if it has one."""
    return " ".join((point.problems[0] if point.problems else point.error).split())


def described(info: RunInfo) -> tuple[str, str]:
    """Two lines: what the model is, and how it is trained."""
    at_once = f" ({info.physical_batch:,} at once)" if info.physical_batch != info.batch else ""
    model = (
        f"git {info.git}",
        f"preset {info.preset}",
        f"{info.parameters:,} parameters",
        f"vocabulary {info.vocabulary:,}",
        f"context {info.context:,}",
    )
    training = (
        f"{info.batch:,} contexts a step{at_once}",
        f"{info.optimizer}, {info.schedule}",
        f"{info.precision} on {info.device}{', compiled' if info.compiled else ''}",
        f"attention {info.attention}",
    )
    return " · ".join(model).replace("git no git", "no git"), " · ".join(training)
