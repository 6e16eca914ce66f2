"""`trainer run --orchestrate`: train → answer → judge, round after round, each a process group of its own.

Guarantees: it holds its device over all stages, having asked whoever had it; the next stage starts when the last one's
processes are gone and GPU memory is back; a run that was stopped or killed in any stage goes on where it was, repeating no
stage whose output is whole; a judging that fails is recorded, and training goes on; a checkpoint that waits for its judge,
or has the best pass rate, is not removed. With `judge_device` the judge runs beside the training, in a lane of its own.
Cost: each stage's own start (torch: about 3 s); this process imports no torch and holds no model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundation.console import say
from foundation.errors import Failure, UsageError
from foundation.splits import SPLIT_NAMES
from foundation.tables import OrchestrateSettings
from trainer.interrupt import STOP
from trainer.judgings import cost
from trainer.lanes import Lanes
from trainer.metrics import ROUNDS, RoundPoint, best_judged
from trainer.paths import keep_judged, run_folder
from trainer.plan import plan
from trainer.round_book import Book
from trainer.round_state import (
    JUDGED,
    Took,
    Trained,
    failures,
    flat,
    points_of,
    together,
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
        line.lanes.end_leftovers()
        if (line.folder / STOP).exists():
            (line.folder / STOP).unlink()
            say(f"removed {line.folder / STOP}, left from before this run")
        line.open(lambda: plan(workspace, run).steps, settings, fresh=fresh)
        if not line.unfinished:
            say(f"run {run} is trained and judged to its end: nothing is left to do")
        stopped = False
        with ExitStack() as held:
            if line.unfinished:
                line.lanes.hold(held, device)
            if fresh:
                line.forget()  # not before: who gives up waiting has forgotten nothing
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
                    again = "the same command without --fresh" if fresh else "the same command"
                    say(f"stopped at a clean point; {again} goes on from here")
        return line.summary(stopped)


class _Line(Book):
    """One run of the orchestrator: its stages, and when they are due."""

    def __init__(
        self,
        workspace: Workspace,
        run: str,
        settings: OrchestrateSettings,
        limit: int | None,
        device: str,
        passed_on: Sequence[str],
    ) -> None:
        self.workspace, self.settings = workspace, settings
        self.limit, self.device, self.passed_on = limit, device, passed_on
        super().__init__(run, run_folder(workspace, run))
        self.signals = Signals(file=self.folder / STOP)
        self.lanes = Lanes(workspace, run, self.signals, settings.judge_device)
        self.executor: ThreadPoolExecutor | None = None
        self.pending: list[Future[None]] = []

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
        limit = self.settings.give_up_after
        if limit and failures(self.state.points) >= limit:
            while self.pending:  # one of them may be judged again just now
                self.pending.pop().result()
        points = self.state.points
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
        # Who gives up for judgings that cannot be believed has them judged again when the run goes on: a second look costs
        # nothing where the judge is the same, and the judge may have been mended.
        again = found and (found[0].error or (found[0].problems and self.settings.give_up_after))
        if self.state.unasked or (found and not again):
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
        # The last round has no step to stop at: it ends where the trainer's own plan ends.
        last = number == len(self.state.ends)
        arguments += [] if last else ["--until-step", str(self.state.ends[number - 1])]
        ended = self.stage(self.lanes.training, number, "train", "trainer.cli", arguments)
        if ended.document.get("stopped") == "stop" and not ended.code:
            self.signals.stop()
            with self.changing:
                took = Took(seconds=ended.seconds, gpu_seconds=ended.gpu_seconds)
                self.keep(stopped={**self.state.stopped, f"{number}/train": took})
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
        keep_judged(path, kept=not self.state.unasked)  # until its judge has spoken
        done = Trained(step=result["step"], checkpoint=path.name, seconds=ended.seconds, gpu_seconds=ended.gpu_seconds)
        with self.changing:
            self.keep(trained={**self.state.trained, number: done}, steps=result["steps"])

    def answer(self, number: int) -> bool:
        """Have the round's questions answered; whether there is something to judge. A failure is recorded, not raised."""
        answers = self.file(number, "answers")
        if not answers.exists():
            answers.parent.mkdir(parents=True, exist_ok=True)
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
            self.pin()
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
        took = Took(seconds=ended.seconds, gpu_seconds=ended.gpu_seconds)
        judged = together(took, self.page(number, verdicts))
        points = points_of(ended.document, number, self.state.trained[number], self.answered(number), judged)
        self.record(number, points)
        for point in points:
            say(f"round {number}, {SPLIT_NAMES[point.split]}: {_told(point)}")
        for problem in points[0].problems if points else ():
            say(f"round {number}: not to be believed: {problem}")

    def page(self, number: int, verdicts: Path) -> Took:
        """Write the judge's page on a round; one that cannot be written is told of. What it took is part of judging."""
        arguments = ["report", str(verdicts), "--out", str(self.folder / PAGE), "--json"]
        ended = self.stage(self.lanes.judge, number, "report", "judge.cli", arguments)
        if ended.code:
            say(f"the page on round {number} could not be written: {ended.complaint}")
        return Took(seconds=ended.seconds, gpu_seconds=ended.gpu_seconds)

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
        log, key = self.workspace.logs / f"{self.run}-{number}-{stage}.log", f"{number}/{stage}"
        try:
            ended = run_stage(lane, module, arguments, name=f"the stage {stage} of round {number}", log=log)
        except Stopped as stop:
            with self.changing:
                took = together(self.state.stopped.get(key), Took(seconds=stop.seconds, gpu_seconds=stop.gpu_seconds))
                self.keep(stopped={**self.state.stopped, key: took})
            raise
        before = self.state.stopped.get(key)
        took = together(before, Took(seconds=ended.seconds, gpu_seconds=ended.gpu_seconds))
        return replace(ended, seconds=took.seconds, gpu_seconds=took.gpu_seconds)

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


def _why(point: RoundPoint) -> str:
    return point.error or "; ".join(point.problems) or "nothing could be scored"


def _told(point: RoundPoint) -> str:
    if point.pass_rate is None or point.low is None or point.high is None:
        return "no pass rate" if point.problems else f"no answer could be scored ({point.unscored} unscored)"
    text = f"{100 * point.pass_rate:.1f} % judged right ({100 * point.low:.1f}–{100 * point.high:.1f})"
    return text if point.baseline is None else f"{text}; shuffled answers: {100 * point.baseline:.1f} %"
