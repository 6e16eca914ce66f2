"""What an orchestrated run has behind it, and what follows from that: where rounds end, when it is enough, what is best.

Guarantees: pure; with the files of its rounds the state is all that is needed to go on. Cost: none; no torch is imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from foundation.errors import Failure
from foundation.records import Contract, Split
from trainer.metrics import RoundPoint

# What is asked after each round: the first is the measure, the others stand beside it.
JUDGED: tuple[Split, ...] = ("phrasing", "unseen", "train")
STATE = "orchestrate.json"


class Took(Contract):
    """Wall time of a stage, and how long of it the GPU was held; None where there is none."""

    seconds: float
    gpu_seconds: float | None = None


def together(one: Took | None, other: Took) -> Took:
    """What two parts of a stage took."""
    if one is None:
        return other
    gpu = None if other.gpu_seconds is None else round((one.gpu_seconds or 0.0) + other.gpu_seconds, 1)
    return Took(seconds=round(one.seconds + other.seconds, 2), gpu_seconds=gpu)


class Trained(Took):
    """A round's training, done. `checkpoint` names the run's checkpoint that its answers come from."""

    step: int
    checkpoint: str


class State(Contract):
    """What is done. `ends` are the steps at which the rounds end; `trained` and `answered` grow stage by stage.

    `points` are the lines of rounds.jsonl. `unasked`: no split has a question. `ended`: why training ended early.
    `stopped`: what stages took that were stopped, by ROUND/STAGE.
    """

    v: Literal[2] = 2
    run: str
    rounds: int
    judge_every: int
    steps: int
    ends: tuple[int, ...]
    trained: dict[int, Trained] = Field(default_factory=dict)
    answered: dict[int, Took] = Field(default_factory=dict)
    unasked: bool = False
    points: tuple[RoundPoint, ...] = ()
    ended: str = ""
    stopped: dict[str, Took] = Field(default_factory=dict)

    def of(self, number: int) -> list[RoundPoint]:
        """The points of a round."""
        return [point for point in self.points if point.round == number]


def read_state(path: Path) -> State | None:
    """None if there is none. Raises `Failure` if it cannot be read."""
    try:
        return State.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise Failure(
            "the run's state cannot be read: it is damaged, or another version wrote it",
            where=str(path),
            mend="begin it anew with --fresh, or name another run with --run",
        ) from error


def round_ends(steps: int, rounds: int, judge_every: int, done: int = 0) -> tuple[int, ...]:
    """The steps at which rounds end, the last one at `steps`: `rounds` equal ones, or one every `judge_every` steps.

    `done`: how far the run was trained before. What lies behind it cannot be judged any more.
    """
    if judge_every:
        ends = [*range(judge_every, steps, judge_every), steps]
    else:
        ends = sorted({max(1, round(steps * number / rounds)) for number in range(1, rounds + 1)})
    return tuple(end for end in ends if end >= done) or (ends[-1],)


def flat(points: Sequence[RoundPoint], rounds: int) -> str:
    """Why that is enough: none of the newest `rounds` pass rates lies above the interval of the one before them.

    Empty if one does, if there are too few, or if `rounds` is 0. Judgings that are not believed are passed over.
    """
    known = sorted((one for one in points if one.split == "phrasing" and one.believed), key=lambda one: one.round)
    if not rounds or len(known) <= rounds:
        return ""
    before, newest = known[-rounds - 1], known[-rounds:]
    best = max(one.pass_rate or 0.0 for one in newest)
    if before.high is None or best > before.high:
        return ""
    return (
        f"for {rounds} rounds no pass rate was above the interval of round {before.round} "
        f"({before.low or 0:.1%} to {before.high:.1%}); the best of them was {best:.1%}"
    )


def failures(points: Sequence[RoundPoint]) -> int:
    """How many of the newest judgings in a row gave no pass rate that can be believed."""
    count = 0
    for number in sorted({point.round for point in points}, reverse=True):
        if any(point.believed for point in points if point.round == number):
            break
        count += 1
    return count


def points_of(
    summary: dict[str, Any], number: int, trained: Trained, answered: Took, judged: Took
) -> tuple[RoundPoint, ...]:
    """The points that a judging's summary makes for a round, a split each."""
    stages = {"train": trained, "answer": answered, "judge": judged}
    shared: dict[str, Any] = {
        "round": number,
        "step": trained.step,
        "seconds": {name: took.seconds for name, took in stages.items()},
        "gpu_seconds": {name: took.gpu_seconds for name, took in stages.items() if took.gpu_seconds is not None},
        "problems": tuple(summary["problems"]),
    }
    points = []
    for split in JUDGED:
        if split not in summary["by_split"]:
            continue
        found = summary["by_split"][split]
        baseline, corrected = found.get("baseline") or {}, found.get("corrected") or {}
        figures = {
            **{name: found[name] for name in ("pass_rate", "low", "high", "stop_rate")},
            "baseline": baseline.get("pass_rate"),
            "baseline_low": baseline.get("low"),
            "baseline_high": baseline.get("high"),
            "corrected": corrected.get("value"),
            "corrected_low": corrected.get("low"),
            "corrected_high": corrected.get("high"),
            "unscored": found["counts"]["UNSCORED"],
        }
        points.append(RoundPoint(split=split, **shared, **figures))
    return tuple(points)
