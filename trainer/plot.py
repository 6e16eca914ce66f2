"""The picture of a run: losses over steps, pass rate over rounds, and what the run was, in one PNG.

Guarantees: drawn from the run's own files alone, replaced atomically; a run without rounds has no second axis.
Cost: about 1 s, most of it importing matplotlib. No torch is imported.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundation.store import LocalStore
from trainer.metrics import Metric, RoundPoint, RunInfo, read_metrics, read_rounds, read_run_info

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PICTURE = "loss.png"
TRAIN, PHRASING, UNSEEN, PASS, SHUFFLED, INK, FAINT = (
    "#4C72B0", "#C44E52", "#8172B3", "#2E8B57", "#8C8C8C", "#222222", "#D9D9D9",
)  # fmt: skip


def draw(folder: Path) -> Path:
    """Draw `loss.png` of the run in `folder`; returns its path. Raises `Failure` if the run has no `run.json`."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    info, metrics, rounds = read_run_info(folder), read_metrics(folder), read_rounds(folder)
    with matplotlib.rc_context(
        {
            "font.size": 10,
            "text.color": INK,
            "axes.labelcolor": INK,
            "axes.edgecolor": FAINT,
            "xtick.color": INK,
            "ytick.color": INK,
        }
    ):
        figure = Figure(figsize=(10, 5.6), dpi=130, layout="constrained")
        axes = figure.add_subplot()
        _losses(axes, metrics)
        if rounds:
            _pass_rates(axes, rounds)
        handles = [handle for one in figure.axes for handle in one.get_legend_handles_labels()[0]]
        if handles:
            figure.legend(handles=handles, loc="outside lower center", ncols=min(3, len(handles)), frameon=False)
        figure.suptitle(_title(info, metrics), x=0.01, ha="left", fontsize=10.5, linespacing=1.5)
        picture = io.BytesIO()
        figure.savefig(picture, format="png", metadata={"Software": None})
    LocalStore(folder).put(PICTURE, picture.getvalue())
    return folder / PICTURE


def _title(info: RunInfo, metrics: list[Metric]) -> str:
    last = metrics[-1] if metrics else None
    seen = f"{last.tokens:,} tokens in {last.step:,} of {info.steps:,} steps ({last.epoch:.1f} epochs)" if last else ""
    held_out = [f"{name} {value:.3f}" for name in ("phrasing", "unseen") if (value := _last(metrics, name)) is not None]
    loss = _last(metrics, "loss")
    figures = [*([f"train {loss:.3f}"] if loss is not None else []), *held_out]
    return (
        f"run {info.run} · {info.git} · {info.preset}, {info.parameters:,} parameters · {seen}\n"
        f"{info.batch} contexts of {info.context:,} a step, {info.precision} on {info.device} · last loss: {', '.join(figures) or 'none yet'}"
    )


def _last(metrics: list[Metric], name: str) -> float | None:
    return next((value for metric in reversed(metrics) if (value := getattr(metric, name)) is not None), None)


def _losses(axes: Axes, metrics: list[Metric]) -> None:
    steps, losses = _curve(metrics, "loss")
    if steps:
        axes.plot(steps, losses, color=TRAIN, alpha=0.25, linewidth=0.8)
        axes.plot(steps, _smooth(losses), color=TRAIN, linewidth=1.8, label="train")
    for name, colour, label in (("phrasing", PHRASING, "held-out phrasings"), ("unseen", UNSEEN, "unseen articles")):
        steps, losses = _curve(metrics, name)
        if steps:
            axes.plot(steps, losses, color=colour, linewidth=1.8, marker="o", markersize=4, label=label)
    axes.set_xlabel("step")
    axes.set_ylabel("loss (nats per answer token)")
    axes.set_ylim(bottom=0)
    axes.margins(x=0.02)
    axes.grid(color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _curve(metrics: list[Metric], name: str) -> tuple[list[int], list[float]]:
    points = [(metric.step, value) for metric in metrics if (value := getattr(metric, name)) is not None]
    return [step for step, _ in points], [value for _, value in points]


def _smooth(values: list[float]) -> list[float]:
    """A moving average that forgets over a hundredth of the run, without the lag of one that starts at zero."""
    keep = 1 - 1 / max(1.0, len(values) / 100)
    smoothed, total, weight = [], 0.0, 0.0
    for value in values:
        total, weight = keep * total + (1 - keep) * value, keep * weight + (1 - keep)
        smoothed.append(total / weight)
    return smoothed


def _pass_rates(axes: Axes, rounds: list[RoundPoint]) -> None:
    scored = [
        (point.step, 100 * point.pass_rate, 100 * (point.pass_rate - point.low), 100 * (point.high - point.pass_rate))
        for point in rounds
        if point.split == "phrasing"
        and point.pass_rate is not None
        and point.low is not None
        and point.high is not None
    ]
    if not scored:
        return
    right: Any = axes.twinx()
    steps, rates, below, above = zip(*scored, strict=True)
    right.errorbar(
        steps, rates, yerr=(below, above), color=PASS, marker="D", markersize=6, capsize=5, linewidth=1.4,
        linestyle="--" if len(scored) > 1 else "none", label="judged right, held-out phrasings (95 %)",
    )  # fmt: skip
    shuffled = [
        (point.step, 100 * point.baseline)
        for point in rounds
        if point.split == "phrasing" and point.baseline is not None
    ]
    if shuffled:
        right.plot(
            *zip(*shuffled, strict=True), color=SHUFFLED, marker="_", markersize=14, markeredgewidth=2,
            linestyle=":", linewidth=1.2, label="judged right, answers shuffled",
        )  # fmt: skip
    for step, rate, _, _ in scored:
        right.annotate(
            f"{rate:.0f} %", (step, rate), (-9, 7), textcoords="offset points", ha="right", color=PASS, weight="bold"
        )
    right.set_ylim(0, 100)
    right.set_ylabel("pass rate (%)", color=PASS)
    right.tick_params(colors=PASS)
    right.spines[["top"]].set_visible(False)
