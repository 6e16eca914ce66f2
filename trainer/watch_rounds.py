"""The judgings of a run as a terminal shows them: a row a round, and under them what is best and what judging takes.

Guarantees: never wider than it is told: what matters least is left out first. A judging that is not believed shows no
pass rate, but the reason. Cost: none; no torch is imported.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from foundation.console import plain
from foundation.splits import SPLIT_NAMES
from trainer import plot_text as text
from trainer.judgings import apart, by_round, cost
from trainer.metrics import RoundPoint, best_judged

if TYPE_CHECKING:
    from rich.console import RenderableType

    from foundation.records import Split
    from trainer.judgings import Lowest

    Round = Mapping[Split, RoundPoint]

STAGES = ("train", "answer", "judge")
GAP = 2  # characters between two columns
# What goes first where the terminal is too narrow for all.
LEAST = (("unscored",), ("shuffled",), STAGES, ("corrected",), ("unseen article",), ("judging",), ("trained phrasing",))


def rounds_table(points: Sequence[RoundPoint], width: int, most: int) -> tuple[RenderableType, int]:
    """The newest rounds, `most` of them, and how many lines that takes with the empty one above it.

    Below the rounds stands why the newest that is in doubt is.
    """
    from rich.console import Group
    from rich.text import Text

    from foundation.console import grid

    rounds = list(by_round(points).items())[-most:]
    columns = _columns(rounds)
    for names in LEAST:
        if sum(max(map(len, (head, *cells))) + GAP for head, cells in columns.items()) - GAP <= width:
            break
        columns = {name: cells for name, cells in columns.items() if name not in names}
    table = grid(tuple(columns), list(zip(*columns.values(), strict=True)))
    reason = _reason(rounds, width)
    if not reason:
        return table, len(rounds) + 2
    return Group(table, Text(reason, overflow="ellipsis", no_wrap=True)), len(rounds) + 3


def best_lines(points: Sequence[RoundPoint], loss: Lowest | None, width: int) -> list[str]:
    """The best step by loss and by pass rate, the distance of trained from held-out phrasing, and what judging takes."""
    said = []
    if loss is not None:
        said.append(text.lowest(loss))
    best = best_judged(points)
    if best is not None:
        said.append(f"best by pass rate {text.judged(best)} at step {best.step:,}")
    if (found := apart(points)) is not None:
        said.append(f"trained less held-out {text.points_apart(found)}")
    spent = cost(points)
    if spent.judging is not None:
        took = ", ".join(f"{stage} {text.duration(seconds)}" for stage, seconds in spent.seconds.items())
        gpu = f"; on the GPU {text.duration(sum(spent.gpu_seconds.values()))}" if spent.gpu_seconds else ""
        said.append(f"{took}{gpu}: {100 * spent.judging:.0f} % for answering and judging")
    lines: list[str] = []
    for one in said:
        if lines and len(lines[-1]) + len(one) + 3 <= width:
            lines[-1] += f" · {one}"
        else:
            lines.append(one)
    return lines


def _columns(rounds: Sequence[tuple[int, Round]]) -> dict[str, list[str]]:
    """Heading to cells; those that no round has anything for are left out."""
    columns: dict[str, list[str]] = {
        "round": [str(number) for number, _ in rounds],
        "step": [f"{max(point.step for point in one.values()):,}" for _, one in rounds],
    }
    for split, name in SPLIT_NAMES.items():
        columns[name] = [text.judged(one[split]) if split in one else "" for _, one in rounds]
        if split == "phrasing":
            columns["corrected"] = [_corrected(one) for _, one in rounds]
            columns["shuffled"] = [_shuffled(one) for _, one in rounds]
    columns["unscored"] = [_unscored(one) for _, one in rounds]
    spent = [cost(one.values()) for _, one in rounds]
    for stage in STAGES:
        columns[stage] = [text.duration(one.seconds[stage]) if stage in one.seconds else "" for one in spent]
    columns["judging"] = ["" if one.judging is None else f"{100 * one.judging:.0f} %" for one in spent]
    return {name: cells for name, cells in columns.items() if any(cells)}


def _corrected(one: Round) -> str:
    point = one.get("phrasing")
    if point is None or not point.believed or point.corrected is None:
        return ""
    return text.within(point.corrected, point.corrected_low, point.corrected_high)


def _shuffled(one: Round) -> str:
    point = one.get("phrasing")
    return "" if point is None or point.baseline is None else f"{100 * point.baseline:.0f} %"


def _unscored(one: Round) -> str:
    found = [point.unscored for point in one.values() if point.unscored is not None]
    return str(sum(found)) if found else ""


def _reason(rounds: Sequence[tuple[int, Round]], width: int) -> str:
    """Why the newest judging in doubt is not believed, in one line; "" if none is in doubt."""
    for number, one in reversed(rounds):
        for split in SPLIT_NAMES:
            if split in one and (why := text.doubt(one[split])):
                said = f"round {number}, {SPLIT_NAMES[split]} {text.judged(one[split])}: {plain(why)}"
                return textwrap.shorten(said, max(20, width), placeholder=" …")
    return ""
