"""A look at a run from outside: what its files and locks say of it now, and how a terminal shows that.

Guarantees: nothing is written and no lock is taken, so looking never disturbs a run, nor one that is about to start.
Whether it runs is asked of this machine's processes: one that holds the run's lock has its file open. Of metrics.jsonl
only what is new is read. Cost: 3 ms a look, 0.5 s for the first at 100,000 steps. No torch is imported.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from foundation.splits import SPLIT_NAMES
from trainer import plot_text as text
from trainer.judgings import Lowest, apart, best_loss, cost, ended_early
from trainer.metrics import (
    METRICS,
    RECENT,
    RUN,
    History,
    RoundPoint,
    RunInfo,
    best_judged,
    read_rounds,
    read_run_info,
    time_left,
)
from trainer.paths import run_folder
from trainer.watch_rounds import best_lines, rounds_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from foundation.workspace import Workspace

State = Literal["training", "answering or judging", "stopped", "done"]
LOCKS: dict[str, State] = {"train": "training", "orchestrate": "answering or judging"}
FIGURES = ("learning_rate", "weight_decay", "grad_norm", "tokens_per_second", "mfu", "memory", "skipped")
BLOCKS = " ▁▂▃▄▅▆▇█"
QUIET = 180.0  # seconds without a line, besides ten steps' time, after which a training run is said to be silent


@dataclass(frozen=True)
class Look:
    """A run at one moment. Shares are of 1, times in seconds, memory in bytes; None where nothing says.

    `loss` is the mean over the newest hundredth of the lines, ten at least. `since` is how long ago the last line
    came, `running` how long its process, `pid`, has lived. `best_loss` is the lowest loss on held-out phrasing; `ended` says why the run ended before its last step, "" if it did not.
    """

    run: str
    state: State
    pid: int | None
    step: int
    steps: int
    epoch: float
    tokens: int
    loss: float | None
    phrasing: float | None
    unseen: float | None
    figures: dict[str, float | None]
    seconds_left: float | None
    since: float | None
    running: float | None
    checkpoint: str
    losses: list[float]
    rounds: list[RoundPoint]
    best_loss: Lowest | None
    ended: str
    info: RunInfo

    @property
    def silent(self) -> bool:
        """Whether it trains, and has said nothing for much longer than its steps take."""
        quiet = min((it for it in (self.since, self.running) if it is not None), default=0.0)
        a_step = (self.seconds_left or 0.0) / max(1, self.steps - self.step)
        return self.state == "training" and quiet > QUIET + 10 * a_step

    def document(self) -> dict[str, Any]:
        """For `--json`: everything but the curve, the figures beside the rest; of the rounds what they say together, too."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        del values["losses"], values["figures"], values["best_loss"]
        rounds = [{**point.model_dump(), "believed": point.believed} for point in self.rounds]
        judged, found = best_judged(self.rounds), apart(self.rounds)
        return {
            **values,
            **self.figures,
            "silent": self.silent,
            "rounds": rounds,
            "best_by_loss": self.best_loss and self.best_loss.document(),
            "best_by_pass_rate": judged and {"step": judged.step, "round": judged.round, "pass_rate": judged.pass_rate},
            "trained_less_held_out": found and dict(zip(("value", "low", "high"), found, strict=True)),
            "stages": cost(self.rounds).document(),
            "info": self.info.model_dump(),
        }


class Watcher:
    """Looks at one run again and again."""

    def __init__(self, workspace: Workspace, run: str) -> None:
        self.run, self.folder = run, run_folder(workspace, run)
        self._locks = {kind: workspace.root / "run" / f"{kind}-{run}.lock" for kind in LOCKS}
        self._history = History(self.folder)

    def look(self) -> Look | None:
        """The run now; None if there is none yet. Raises `Failure` if its `run.json` is damaged."""
        if not (self.folder / RUN).exists():
            return None
        info, history = read_run_info(self.folder), self._history
        history.refresh()
        step = int(history.last("step") or 0)
        holders = ((LOCKS[kind], found) for kind, path in self._locks.items() if (found := holder(path)))
        state, (pid, running) = next(holders, (None, (None, None)))
        early = ended_early(self.folder)
        ended: State = "done" if step >= info.steps or early else "stopped"
        return Look(
            run=self.run,
            state=state or ended,
            pid=pid,
            step=step,
            steps=info.steps,
            epoch=history.last("epoch") or 0.0,
            tokens=int(history.last("tokens") or 0),
            loss=_mean(history.recent("loss", max(10, len(history) // 100))),
            phrasing=history.last("phrasing"),
            unseen=history.last("unseen"),
            figures={name: history.last(name) for name in FIGURES},
            seconds_left=time_left(history.recent("seconds", RECENT), info.steps - step),
            since=_age(self.folder / METRICS),
            running=running,
            checkpoint=newest_checkpoint(self.folder / "checkpoints"),
            losses=history.curve("loss")[1].tolist(),
            rounds=read_rounds(self.folder),
            best_loss=best_loss(history, self.folder),
            ended=early if step < info.steps else "",
            info=info,
        )


def holder(lock: Path) -> tuple[int, float] | None:
    """The living process on this machine that holds `lock`, and the seconds it has lived; None if there is none.

    The lock itself is not touched: to try it is to take it, and a run that begins just then would be refused.
    """
    import psutil

    try:
        found = re.fullmatch(r"pid ([0-9]+)", lock.read_text("utf-8").strip())
        if not found:
            return None
        process = psutil.Process(int(found[1]))
        alive = process.pid, round(max(0.0, time.time() - process.create_time()), 1)
        try:
            return alive if any(Path(it.path) == lock.resolve() for it in process.open_files()) else None
        except psutil.AccessDenied:  # another user's: that it lives is all that can be seen
            return alive
    except (OSError, psutil.NoSuchProcess):
        return None


def newest_checkpoint(folder: Path) -> str:
    """Name of the newest one, or ""."""
    found = [
        (int(match[1]), match[0]) for it in folder.glob("step-*") if (match := re.fullmatch(r"step-([0-9]+)", it.name))
    ]
    return max(found, default=(0, ""))[1]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _age(path: Path) -> float | None:
    try:
        return round(max(0.0, time.time() - path.stat().st_mtime), 1)
    except FileNotFoundError:
        return None


# -- how it is shown ------------------------------------------------------------------------------------------------


def line(look: Look) -> str:
    """The run in one line."""
    parts = [f"step {look.step:,} of {look.steps:,}", *_named(look)]
    if look.state != "training":
        parts.append(look.state)
    elif look.seconds_left is not None:
        parts.append(f"{text.duration(look.seconds_left)} left")
    if look.silent:
        parts.append(f"silent for {text.duration(look.since)}")
    return ", ".join(parts)


def _named(look: Look) -> list[str]:
    """Losses and figures there are, each with its name."""
    values, named = look.figures, []
    for name, loss in (
        ("loss", look.loss),
        (SPLIT_NAMES["phrasing"], look.phrasing),
        (SPLIT_NAMES["unseen"], look.unseen),
    ):
        named += [f"{name} {loss:.3f}"] if loss is not None else []
    for label, shown, name in (
        ("learning rate", text.rate, "learning_rate"),
        ("weight decay", text.rate, "weight_decay"),
        ("gradient norm", text.rate, "grad_norm"),
        ("tokens/s", text.count, "tokens_per_second"),
        ("MFU", text.share, "mfu"),
        ("memory", text.size, "memory"),
        ("skipped", text.count, "skipped"),
    ):
        named += [f"{label} {shown(values[name])}"] if values[name] is not None else []
    return named


def ending(look: Look) -> str:
    """What is said of a run that is done."""
    points = [point for point in look.rounds if point.split == "phrasing"]
    newest = points[-1] if points else None
    believed = next((point for point in reversed(points) if point.believed), None)
    judged = f", judged right {text.judged(believed)}" if believed else ""
    if newest is not None and newest is not believed:
        judged += f"{f' at step {believed.step:,}' if believed else ''}, the newest judging {text.judged(newest)}"
    loss = f", loss {look.loss:.3f}" if look.loss is not None else ""
    where = f"; last checkpoint {look.checkpoint}" if look.checkpoint else ""
    early = f"; it ended early: {look.ended}" if look.ended else ""
    return f"run {look.run} is done: {look.step:,} steps, {look.tokens:,} tokens{loss}{judged}{where}{early}"


def picture(look: Look, width: int, height: int) -> RenderableType:
    """The run, for a terminal of that size."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    figures = Table.grid(padding=(0, 3))
    cells = _cells(look)
    columns = max(1, min(4, (width + 3) // 27))
    for start in range(0, len(cells), columns):
        figures.add_row(*(Text.assemble((f"{name} ", "dim"), value) for name, value in cells[start : start + columns]))
    left = "" if look.seconds_left is None or look.state != "training" else f"  {text.duration(look.seconds_left)} left"
    length = max(10, min(50, width - 45))
    done = length * min(look.step, look.steps) // max(1, look.steps)
    bar = Text.assemble("━" * done, ("─" * (length - done), "dim"), f"  {look.step:,} of {look.steps:,} steps{left}")
    below = [*([f"ended early: {look.ended}"] if look.ended else []), *best_lines(look.rounds, look.best_loss, width)]
    rounds, taken = rounds_table(look.rounds, width, max(4, height // 6)) if look.rounds else (None, 0)
    room = height - 8 - -(-len(cells) // columns) - taken
    while below and room - len(below) < 5:  # the curve goes first
        below.pop()
    room -= len(below) + 1 if below else 0
    parts: list[RenderableType] = [
        Text.assemble((f"run {look.run}", "bold"), f"  {_state(look)}"),
        *(Text(one, style="dim", overflow="ellipsis", no_wrap=True) for one in text.described(look.info)),
        Text(),
        bar,
        Text(),
        figures,
    ]
    if look.losses and room >= 3:
        parts += [Text(), *(Text(row) for row in curve(look.losses, min(100, width), min(12, room)))]
    if rounds is not None:
        parts += [Text(), rounds]
    if below:
        parts += [Text(), *(Text(one, overflow="ellipsis", no_wrap=True) for one in below)]
    return Group(*parts)


def _state(look: Look) -> str:
    if look.pid is None:
        return look.state if look.state == "done" else "stopped: no process on this machine trains it"
    since = f", last line {text.duration(look.since)} ago" if look.since is not None else ""
    return f"{look.state} (pid {look.pid}{since}{': SILENT' if look.silent else ''})"


def _cells(look: Look) -> list[tuple[str, str]]:
    """(name, value) of every figure the picture has."""
    values = look.figures
    losses = {"loss": look.loss, SPLIT_NAMES["phrasing"]: look.phrasing, SPLIT_NAMES["unseen"]: look.unseen}
    return [
        *((name, text.NONE if value is None else f"{value:.3f}") for name, value in losses.items()),
        ("epoch", f"{look.epoch:.2f}"),
        ("tokens", text.count(look.tokens)),
        ("tokens/s", text.count(values["tokens_per_second"])),
        ("MFU", text.share(values["mfu"])),
        ("memory", text.size(values["memory"])),
        ("learning rate", text.rate(values["learning_rate"])),
        ("weight decay", text.rate(values["weight_decay"])),
        ("gradient norm", text.rate(values["grad_norm"])),
        ("checkpoint", look.checkpoint or text.NONE),
        *([("skipped steps", text.count(values["skipped"]))] if values["skipped"] else []),
    ]


def curve(values: Sequence[float], width: int, height: int) -> list[str]:
    """The values as filled columns of block characters, `height` rows of `width`, with the highest and the lowest named.

    Each column is the mean of its stretch. The first hundredth is left out of a long curve: it is far above all the rest.
    """
    shown = list(values[len(values) // 100 :]) if len(values) >= 200 else list(values)
    room = max(1, width - 9)
    count = min(room, len(shown))
    edges = [len(shown) * column // count for column in range(count + 1)]
    means = [sum(shown[first:end]) / (end - first) for first, end in pairwise(edges)]
    low, high = min(means), max(means)
    eighths = [1 + round((height * 8 - 1) * (mean - low) / (high - low)) if high > low else 4 for mean in means]
    columns = [eighth for eighth in eighths for _ in range(min(8, room // count))]
    rows = []
    for row in reversed(range(height)):
        label = f"{high:8.3f} " if row == height - 1 else f"{low:8.3f} " if row == 0 else " " * 9
        rows.append(label + "".join(BLOCKS[max(0, min(8, eighth - 8 * row))] for eighth in columns))
    return rows
