"""`trainer run --orchestrate`: train → answer → judge, round after round, each a process group of its own.

Guarantees: it holds its device over all stages, having asked whoever had it; the next stage starts when the last one's
processes are gone and GPU memory is back; a run that was stopped or killed in any stage goes on where it was, repeating no
stage whose output is whole; a judging that fails is recorded, and training goes on; a checkpoint that waits for its judge,
or has the best pass rate, is not removed. With `judge_device` the judge runs beside the training, in a lane of its own.
Cost: each stage's own start (torch: about 3 s); this process imports no torch and holds no model.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundation.console import say
from foundation.errors import Failure, UsageError
from foundation.store import LocalStore
from foundation.tables import OrchestrateSettings
from trainer.interrupt import STOP
from trainer.judgings import cost
from trainer.lanes import Lanes
from trainer.metrics import ROUNDS, RoundPoint, best_judged
from trainer.paths import keep_judged, run_folder
from trainer.plan import plan
from trainer.round_state import (
    JUDGED,
    STATE,
    State,
    Took,
    Trained,
    failures,
    flat,
    points_of,
    read_state,
    round_ends,
)
from trainer.stages import Ended, Lane, Signals, Stopped, run_stage

if TYPE_CHECKING:
    from foundation.workspace import Workspace

PAGE = "judged.html"


class _Enough(Exception):
    """Training ends here, and all is well."""


def orchestrate(
    workspace: Workspace,
    *,
    run: str,
    settings: OrchestrateSettings,
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
    line = _Line(workspace, run, settings, limit, device, passed_on)
    with workspace.lock(f"orchestrate-{run}", wait=False):
        line.begin(fresh)
        stopped = False
        with ExitStack() as held:
            if line.unfinished:
                line.lanes.hold(held, device)
            if fresh:
                line.keep()  # not before: who gives up waiting has forgotten nothing
            with line.signals.watched():
                try:
                    with line.judging():
                        for number in range(1, len(line.state.ends) + 1):
                            line.round(number)
                except _Enough:
                    say(f"training ends here: {line.state.ended}")
                except Stopped:
                    stopped = True
                    (line.folder / STOP).unlink(missing_ok=True)
                    say("stopped at a clean point; the same command goes on from here")
        return line.summary(stopped)


class _Line:
    """One run of the orchestrator: where things are, and what is done."""

    def __init__(
        self,
        workspace: Workspace,
        run: str,
        settings: OrchestrateSettings,
        limit: int | None,
        device: str,
        passed_on: Sequence[str],
    ) -> None:
        self.workspace, self.run, self.settings = workspace, run, settings
        self.limit, self.device, self.passed_on = limit, device, passed_on
        self.folder = run_folder(workspace, run)
        self.signals = Signals(file=self.folder / STOP)
        self.lanes = Lanes(workspace, run, self.signals, settings.judge_device)
        self.fresh = False
        self.state = State(run=run, rounds=0, judge_every=0, steps=0, ends=())
        self.changing = threading.RLock()  # the judge beside the training records its word itself
        self.executor: ThreadPoolExecutor | None = None
        self.pending: list[Future[None]] = []

    # -- what is behind us ------------------------------------------------------------------------------------------

    def begin(self, fresh: bool) -> None:
        """Read the state, or make one. Raises `UsageError` if the run was begun with other rounds."""
        self.lanes.end_leftovers()
        path = self.folder / STATE
        if (self.folder / STOP).exists():
            (self.folder / STOP).unlink()
            say(f"removed {self.folder / STOP}, left from before this run")
        self.fresh = fresh
        found = None if fresh else read_state(path)
        rounds, every = self.settings.rounds, self.settings.judge_every
        if found is None:
            steps = plan(self.workspace, self.run).steps
            ends = round_ends(steps, rounds, every)
            self.state = State(run=self.run, rounds=rounds, judge_every=every, steps=steps, ends=ends)
            return
        if (found.judge_every, found.judge_every or found.rounds) != (every, every or rounds):
            then, now = (_cut(one, other) for one, other in ((found.rounds, found.judge_every), (rounds, every)))
            raise UsageError(
                f"run {self.run} was begun with {then}, and is to have {now} now",
                where=str(path),
                mend="set [orchestrate] back, name another run with --run, or begin this one anew with --fresh",
            )
        self.state = found.model_copy(update={"ended": flat(found.points, self.settings.flat_rounds)})

    def keep(self, **changes: Any) -> None:
        """Put the new state in place, and rounds.jsonl after it."""
        with self.changing:
            self.state = self.state.model_copy(update=changes)
            store = LocalStore(self.folder)
            store.put(STATE, self.state.model_dump_json(indent=1).encode() + b"\n")
            if "points" in changes:
                points = sorted(self.state.points, key=lambda point: (point.round, JUDGED.index(point.split)))
                store.put(ROUNDS, b"".join(point.model_dump_json().encode() + b"\n" for point in points))

    # -- one round --------------------------------------------------------------------------------------------------

    def round(self, number: int) -> None:
        """Train to the round's step, answer what it is asked, and have the answers judged."""
        if number not in self.state.trained:
            self.heed()
            self.train(number)
        if self.due(number) and self.answer(number):
            if self.executor is None:
                self.judge(number)
            else:
                self.pending.append(self.executor.submit(self.judge, number))

    def heed(self) -> None:
        """What the judge has said so far. Raises `_Enough` or `Failure` if training is to end for it."""
        for one in [one for one in self.pending if one.done()]:
            self.pending.remove(one)
            one.result()
        points, limit = self.state.points, self.settings.give_up_after
        if limit and failures(points) >= limit:
            last = max(points, key=lambda point: point.round)
            raise Failure(
                f"the newest {failures(points)} judgings gave no pass rate that can be believed: {_why(last)}",
                where=str(self.folder / ROUNDS),
                mend="mend the judge, then run the same command again; or set orchestrate.give_up_after to 0",
            )
        ended = flat(points, self.settings.flat_rounds)
        if ended != self.state.ended:
            self.keep(ended=ended)
        if ended:
            raise _Enough

    def due(self, number: int) -> bool:
        """Whether the round has questions that were not judged yet, and something to judge."""
        found = self.state.of(number)
        if self.state.unasked or (found and not found[0].error):
            return False
        return self.file(number, "answers").exists() or self.checkpoint(number).is_dir()

    @property
    def unfinished(self) -> bool:
        """Whether a stage is left to run."""
        numbers = range(1, len(self.state.ends) + 1)
        if self.state.ended:
            return any(self.due(number) for number in self.state.trained)
        return any(number not in self.state.trained or self.due(number) for number in numbers)

    def train(self, number: int) -> None:
        arguments = ["run", "--run", self.run, "--device", self.device, "--json", *self.passed_on]
        arguments += ["--fresh"] if self.fresh and number == 1 else []
        # The last round has no step to stop at: it ends where the trainer's own plan ends.
        last = number == len(self.state.ends)
        arguments += [] if last else ["--until-step", str(self.state.ends[number - 1])]
        ended = self.stage(self.lanes.training, number, "train", "trainer.cli", arguments)
        if ended.document.get("stopped") == "stop" and not ended.code:
            self.signals.stop()
            raise Stopped
        if ended.code or ended.document.get("stopped") in (None, "signal"):
            kind = UsageError if ended.code == 2 else Failure
            raise kind(
                f"round {number} could not be trained: {ended.complaint}",
                where=str(ended.log),
                mend="mend that, then run the same command again: it goes on from the last checkpoint",
            )
        result = ended.document
        path = Path(result["checkpoint"])
        keep_judged(path)  # until its judge has spoken
        done = Trained(step=result["step"], checkpoint=path.name, seconds=ended.seconds, gpu_seconds=ended.gpu_seconds)
        with self.changing:
            self.keep(trained={**self.state.trained, number: done}, steps=result["steps"])

    def answer(self, number: int) -> bool:
        """Have the round's questions answered; whether there is something to judge. A failure is recorded, not raised."""
        answers = self.file(number, "answers")
        if not answers.exists():
            arguments = ["answer", "--run", self.run, "--out", str(answers), "--device", self.device, "--json"]
            arguments += [part for split in JUDGED for part in ("--split", split)]
            arguments += ["--checkpoint", str(self.checkpoint(number))]
            arguments += ["--limit", str(self.limit)] if self.limit else []
            ended = self.stage(self.lanes.training, number, "answer", "trainer.cli", arguments)
            if ended.code or not answers.exists():
                self.failed(number, "answer", ended)
                return False
            took = Took(seconds=ended.seconds, gpu_seconds=ended.gpu_seconds)
            with self.changing:
                self.keep(answered={**self.state.answered, number: took})
        if not answers.stat().st_size:
            say("no split has a question to ask, so nothing is judged")
            self.keep(unasked=True)
            return False
        return True

    def judge(self, number: int) -> None:
        """Have the round's answers judged, and the page on them written; a failure is recorded, not raised."""
        answers, verdicts = self.file(number, "answers"), self.file(number, "verdicts")
        arguments = ["run", "--answers", str(answers), "--out", str(verdicts), "--json"]
        ended = self.stage(self.lanes.judge, number, "judge", "judge.cli", arguments)
        if ended.code or "by_split" not in ended.document:
            self.failed(number, "judge", ended)
            return
        judged = Took(seconds=ended.seconds, gpu_seconds=ended.gpu_seconds)
        trained = self.state.trained[number]
        points = points_of(ended.document, number, trained, self.answered(number), judged)
        self.record(number, points)
        for point in points:
            say(f"round {number}, {point.split}: {_told(point)}")
        for problem in points[0].problems if points else ():
            say(f"round {number}: not to be believed: {problem}")
        page = ["report", str(verdicts), "--out", str(self.folder / PAGE), "--json"]
        ended = self.stage(self.lanes.judge, number, "report", "judge.cli", page)
        if ended.code:
            say(f"the page on round {number} could not be written: {ended.complaint}")

    def failed(self, number: int, stage: str, ended: Ended) -> None:
        error = f"{stage}: {ended.complaint}"
        trained = self.state.trained[number]
        took = Took(seconds=ended.seconds, gpu_seconds=ended.gpu_seconds)
        stages = {"train": trained, "answer": self.answered(number), stage: took}
        self.record(
            number,
            (
                RoundPoint(
                    round=number,
                    step=trained.step,
                    seconds={name: one.seconds for name, one in stages.items()},
                    gpu_seconds={name: one.gpu_seconds for name, one in stages.items() if one.gpu_seconds is not None},
                    error=error,
                ),
            ),
        )
        say(f"round {number} could not be judged ({error}); training goes on. Log: {ended.log}")

    def record(self, number: int, points: tuple[RoundPoint, ...]) -> None:
        """Put the judge's word on a round in place, keep what is best by it, and draw the picture anew."""
        with self.changing:
            others = [one for one in self.state.points if one.round != number]
            self.keep(points=(*others, *points))
            self.pin()
            self.draw()

    def pin(self) -> None:
        """Keep the checkpoint with the best pass rate, and those that no judging was tried on; the others may go."""
        best = best_judged(self.state.points)
        for number, trained in self.state.trained.items():
            waits = not self.state.of(number)
            keep_judged(self.checkpoint(number), kept=waits or (best is not None and best.step == trained.step))

    def answered(self, number: int) -> Took:
        return self.state.answered.get(number, Took(seconds=0.0))

    def checkpoint(self, number: int) -> Path:
        return self.folder / "checkpoints" / self.state.trained[number].checkpoint

    def draw(self) -> None:
        from trainer.plot import draw

        try:
            draw(self.folder)
        except (Failure, OSError, ValueError) as error:  # a picture is not worth a run
            say(f"the plot could not be drawn: {error}")

    # -- stages -----------------------------------------------------------------------------------------------------

    @contextmanager
    def judging(self) -> Iterator[None]:
        """Beside the training, if that was asked for: one judging at a time, and all of them done at the end."""
        if not self.settings.judge_device:
            yield
            return
        with ThreadPoolExecutor(1, thread_name_prefix="judge") as executor:
            self.executor = executor
            try:
                yield
            except _Enough:
                pass
            except BaseException:
                self.signals.stop()  # what is judged now is judged again when the run goes on
                raise
            for one in self.pending:
                one.result()
        if self.state.ended:
            raise _Enough

    def stage(self, lane: Lane, number: int, stage: str, module: str, arguments: Sequence[str]) -> Ended:
        say(f"round {number} of {len(self.state.ends)}: {stage}")
        log = self.workspace.logs / f"{self.run}-{number}-{stage}.log"
        return run_stage(lane, module, arguments, name=f"the stage {stage} of round {number}", log=log)

    def file(self, number: int, what: str) -> Path:
        return self.folder / "rounds" / str(number) / f"{what}.jsonl"

    def summary(self, stopped: bool) -> dict[str, Any]:
        trained, best = self.state.trained, best_judged(self.state.points)
        return {
            "run": self.run,
            "rounds": len(self.state.ends),
            "rounds_trained": len(trained),
            "step": max((one.step for one in trained.values()), default=0),
            "steps": self.state.steps,
            "stopped": stopped,
            "ended": self.state.ended,
            "best": None if best is None else {"round": best.round, "step": best.step, "pass_rate": best.pass_rate},
            "stages": cost(self.state.points).document(),
            "results": [point.model_dump() for point in self.state.points],
            "folder": str(self.folder),
        }


def _cut(rounds: int, judge_every: int) -> str:
    return f"a judging every {judge_every:,} steps" if judge_every else f"{rounds} rounds"


def _why(point: RoundPoint) -> str:
    return point.error or "; ".join(point.problems) or "nothing could be scored"


def _told(point: RoundPoint) -> str:
    if point.pass_rate is None or point.low is None or point.high is None:
        return "no pass rate" if point.problems else f"no answer could be scored ({point.unscored} unscored)"
    text = f"{point.pass_rate:.1%} judged right ({point.low:.1%} to {point.high:.1%})"
    return text if point.baseline is None else f"{text}; answers shuffled: {point.baseline:.1%}"
