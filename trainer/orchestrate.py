"""`trainer run --orchestrate`: train → answer → judge, round after round, each a process group of its own, never two at once.

Guarantees: it holds its device over all stages, having asked whoever had it; the next stage starts when the last one's
processes are gone and GPU memory is back; a run that was stopped or killed in any stage goes on where it was, repeating no
stage whose output is whole; a judging that fails is recorded, and training goes on. Cost: each stage's own start (torch:
about 3 s); this process imports no torch and holds no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationError

from foundation.console import say
from foundation.devices import hold_device
from foundation.errors import Failure, UsageError
from foundation.ids import stable_id
from foundation.processes import gpu_memory_used
from foundation.records import Contract
from foundation.store import LocalStore
from trainer.interrupt import STOP
from trainer.metrics import ROUNDS, RoundPoint
from trainer.paths import run_folder
from trainer.plan import plan
from trainer.stages import Ended, Signals, Stopped, end_leftovers, run_stage

if TYPE_CHECKING:
    from foundation.workspace import Workspace

Judged = Literal["phrasing", "unseen"]
SPLITS: tuple[Judged, ...] = ("phrasing", "unseen")  # the first one is the measure, the second for comparison
STATE = "orchestrate.json"


class Trained(Contract):
    """A round's training, done. `checkpoint` names the run's checkpoint that its answers come from."""

    step: int
    checkpoint: str
    seconds: float


class State(Contract):
    """What an orchestrated run has behind it; with the files of its rounds, all that is needed to go on.

    `trained` and `answered` (seconds, by ROUND/SPLIT) grow stage by stage; `points` are the lines of rounds.jsonl.
    """

    v: Literal[1] = 1
    run: str
    rounds: int
    steps: int
    trained: dict[int, Trained] = Field(default_factory=dict)
    answered: dict[str, float] = Field(default_factory=dict)
    empty: tuple[Judged, ...] = ()
    points: tuple[RoundPoint, ...] = ()


def orchestrate(
    workspace: Workspace,
    *,
    run: str,
    rounds: int,
    limit: int | None = None,
    device: str = "auto",
    fresh: bool = False,
    passed_on: Sequence[str] = (),
) -> dict[str, Any]:
    """Take `run` through all its rounds, or from where it stands to its end, and return what came of it.

    `limit`: questions a split, at most (None: judge.answers of the settings); `passed_on`: more arguments for the training
    stage. SIGTERM, Ctrl-C and a file STOP in the run's folder end the stage at a clean point, whichever it is; the summary
    then says `"stopped": true`. Raises `UsageError` or `Failure` if training cannot go on.
    """
    line = _Line(workspace, run, limit, device, passed_on)
    with workspace.lock(f"orchestrate-{run}", wait=False):
        line.begin(rounds, fresh)
        stopped = False
        name = "cpu" if device == "cpu" else ""
        purpose = f"trainer run --orchestrate in {workspace.root}"
        with hold_device(purpose, ask=True, name=name) if line.unfinished else nullcontext() as hold:
            line.gpu = gpu_memory_used()
            line.held = hold.environment if hold else {}
            if fresh:
                line.keep()  # not before: who gives up waiting has forgotten nothing
            with line.signals.watched():
                try:
                    for number in range(1, rounds + 1):
                        line.round(number)
                except Stopped:
                    stopped = True
                    (line.folder / STOP).unlink(missing_ok=True)
                    say("stopped at a clean point; the same command goes on from here")
        return line.summary(stopped)


class _Line:
    """One run of the orchestrator: where things are, and what is done."""

    def __init__(
        self, workspace: Workspace, run: str, limit: int | None, device: str, passed_on: Sequence[str]
    ) -> None:
        self.workspace, self.run, self.limit, self.device = workspace, run, limit, device
        self.passed_on = passed_on
        self.folder = run_folder(workspace, run)
        self.mark = stable_id("orchestrate", str(workspace.root), run)
        self.signals = Signals(file=self.folder / STOP)
        self.gpu: list[int] | None = None
        self.held: dict[str, str] = {}
        self.fresh = False
        self.state = State(run=run, rounds=0, steps=0)

    # -- what is behind us ------------------------------------------------------------------------------------------

    def begin(self, rounds: int, fresh: bool) -> None:
        """Read the state, or make one. Raises `UsageError` if the run was begun with another number of rounds."""
        end_leftovers(self.mark)  # of an orchestrator that was killed: its stage may still be writing its checkpoint
        path = self.folder / STATE
        if (self.folder / STOP).exists():
            (self.folder / STOP).unlink()
            say(f"removed {self.folder / STOP}, left from before this run")
        self.fresh = fresh
        found = None if fresh else _read_state(path)
        if found is None:
            self.state = State(run=self.run, rounds=rounds, steps=plan(self.workspace, self.run).steps)
            return
        if found.rounds != rounds:
            raise UsageError(
                f"run {self.run} was begun with {found.rounds} rounds, and is to have {rounds} now",
                where=str(path),
                mend="set orchestrate.rounds back, name another run with --run, or begin this one anew with --fresh",
            )
        self.state = found

    def keep(self, **changes: Any) -> None:
        """Put the new state in place, and rounds.jsonl after it."""
        self.state = self.state.model_copy(update=changes)
        store = LocalStore(self.folder)
        store.put(STATE, self.state.model_dump_json(indent=1).encode() + b"\n")
        if "points" in changes:
            points = sorted(self.state.points, key=lambda point: (point.round, SPLITS.index(point.split)))
            store.put(ROUNDS, b"".join(point.model_dump_json().encode() + b"\n" for point in points))

    def point(self, number: int, split: Judged) -> RoundPoint | None:
        return next((one for one in self.state.points if (one.round, one.split) == (number, split)), None)

    # -- one round --------------------------------------------------------------------------------------------------

    def round(self, number: int) -> None:
        """Train to the round's step; answer and judge each held-out split that was not judged yet."""
        if number not in self.state.trained:
            self.train(number)
        for split in SPLITS:
            if self.due(number, split):
                self.measure(number, split)

    def due(self, number: int, split: Judged) -> bool:
        """Whether the split has questions, and those of this round were not judged yet."""
        point = self.point(number, split)
        return split not in self.state.empty and (point is None or bool(point.error))

    @property
    def unfinished(self) -> bool:
        """Whether a stage is left to run."""
        numbers = range(1, self.state.rounds + 1)
        return any(
            number not in self.state.trained or any(self.due(number, one) for one in SPLITS) for number in numbers
        )

    def train(self, number: int) -> None:
        until = max(1, round(self.state.steps * number / self.state.rounds))
        arguments = ["run", "--run", self.run, "--device", self.device, "--json", *self.passed_on]
        arguments += ["--fresh"] if self.fresh and number == 1 else []
        # The last round has no step to stop at: it ends where the trainer's own plan ends.
        arguments += ["--until-step", str(until)] if number < self.state.rounds else []
        ended = self.stage(number, "train", "trainer.cli", arguments)
        if ended.document.get("stopped") == "stop" and not ended.code:
            raise Stopped
        if ended.code or ended.document.get("stopped") in (None, "signal"):
            kind = UsageError if ended.code == 2 else Failure
            raise kind(
                f"round {number} could not be trained: {ended.complaint}",
                where=str(ended.log),
                mend="mend that, then run the same command again: it goes on from the last checkpoint",
            )
        result = ended.document
        done = Trained(step=result["step"], checkpoint=Path(result["checkpoint"]).name, seconds=ended.seconds)
        self.keep(trained={**self.state.trained, number: done}, steps=result["steps"])

    def measure(self, number: int, split: Judged) -> None:
        """Answer the split's questions and have the answers judged; a failure is recorded, not raised."""
        answers, verdicts = self.file(number, "answers", split), self.file(number, "verdicts", split)
        if not answers.exists():
            arguments = ["answer", "--run", self.run, "--split", split, "--out", str(answers), "--device", self.device]
            arguments += [
                "--checkpoint",
                str(self.folder / "checkpoints" / self.state.trained[number].checkpoint),
                "--json",
            ]
            arguments += ["--limit", str(self.limit)] if self.limit else []
            ended = self.stage(number, f"answer-{split}", "trainer.cli", arguments)
            if ended.code or not answers.exists():
                self.failed(number, split, "answer", ended)
                return
            self.keep(answered={**self.state.answered, f"{number}/{split}": ended.seconds})
        if not answers.stat().st_size:
            say(f"the split {split} has no question to ask, so it is not judged")
            self.keep(empty=(*self.state.empty, split))
            return
        arguments = ["run", "--answers", str(answers), "--out", str(verdicts), "--json"]
        ended = self.stage(number, f"judge-{split}", "judge.cli", arguments)
        if ended.code or "counts" not in ended.document:
            self.failed(number, split, "judge", ended)
            return
        self.judged(number, split, ended)

    def judged(self, number: int, split: Judged, ended: Ended) -> None:
        """Record a judging, and draw the picture anew."""
        found, baseline = ended.document, ended.document["baseline"] or {}
        point = RoundPoint(
            round=number,
            step=self.state.trained[number].step,
            split=split,
            pass_rate=found["pass_rate"],
            low=found["low"],
            high=found["high"],
            baseline=baseline.get("pass_rate"),
            baseline_low=baseline.get("low"),
            baseline_high=baseline.get("high"),
            unscored=found["counts"]["UNSCORED"],
            stop_rate=found["stop_rate"],
            seconds=self.seconds(number, split) | {"judge": ended.seconds},
        )
        self.record(point)
        say(f"round {number}, {split}: {_told(point)}")

    def failed(self, number: int, split: Judged, stage: str, ended: Ended) -> None:
        error = f"{stage}: {ended.complaint}"
        step, seconds = self.state.trained[number].step, self.seconds(number, split) | {stage: ended.seconds}
        self.record(RoundPoint(round=number, step=step, split=split, seconds=seconds, error=error))
        say(f"round {number}, {split} could not be judged ({error}); training goes on. Log: {ended.log}")

    def record(self, point: RoundPoint) -> None:
        others = [one for one in self.state.points if (one.round, one.split) != (point.round, point.split)]
        self.keep(points=(*others, point))
        self.draw()

    def seconds(self, number: int, split: Judged) -> dict[str, float]:
        """Wall time of the round's stages so far. Training is the round's, so both its splits show the same figure."""
        seconds = {"train": self.state.trained[number].seconds}
        answered = self.state.answered.get(f"{number}/{split}")
        return seconds if answered is None else seconds | {"answer": answered}

    def draw(self) -> None:
        from trainer.plot import draw

        try:
            draw(self.folder)
        except (Failure, OSError, ValueError) as error:  # a picture is not worth a run
            say(f"the plot could not be drawn: {error}")

    # -- stages -----------------------------------------------------------------------------------------------------

    def stage(self, number: int, stage: str, module: str, arguments: Sequence[str]) -> Ended:
        say(f"round {number} of {self.state.rounds}: {stage}")
        return run_stage(
            module,
            arguments,
            name=f"the stage {stage} of round {number}",
            mark=self.mark,
            folder=self.workspace.root,
            log=self.workspace.logs / f"{self.run}-{number}-{stage}.log",
            signals=self.signals,
            gpu=self.gpu,
            device=self.held,
        )

    def file(self, number: int, what: str, split: Judged) -> Path:
        return self.folder / "rounds" / str(number) / f"{what}-{split}.jsonl"

    def summary(self, stopped: bool) -> dict[str, Any]:
        trained = self.state.trained
        return {
            "run": self.run,
            "rounds": self.state.rounds,
            "rounds_trained": len(trained),
            "step": max((one.step for one in trained.values()), default=0),
            "steps": self.state.steps,
            "stopped": stopped,
            "results": [point.model_dump() for point in self.state.points],
            "folder": str(self.folder),
        }


def _told(point: RoundPoint) -> str:
    if point.pass_rate is None or point.low is None or point.high is None:
        return f"no answer could be scored ({point.unscored} unscored)"
    text = f"{point.pass_rate:.1%} judged right ({point.low:.1%} to {point.high:.1%})"
    return text if point.baseline is None else f"{text}; answers shuffled: {point.baseline:.1%}"


def _read_state(path: Path) -> State | None:
    try:
        return State.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise Failure(
            "the run's state cannot be read", where=str(path), mend="begin it anew with --fresh, or name another run"
        ) from error
