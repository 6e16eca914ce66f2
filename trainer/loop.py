"""Training: packs in, a model and its checkpoints out. One process, one device.

Guarantees: a run that was stopped, killed or cut into parts ends with the weights of one that was not (on one CPU, to the
last bit): the order of the data is a function of seed and epoch, and the checkpoint carries the rest. SIGTERM, Ctrl-C and
a file STOP in the run's folder end it with a checkpoint and exit status 0: after the step in hand, or without it where that
is still at its beginning. One process a run; a second is refused.
Cost: weights, gradients and two moments, 16 bytes a parameter, plus activations; a line and a small picture now and then.
"""

from __future__ import annotations

import hashlib
import math
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from foundation.console import progress, say
from foundation.errors import Failure, UsageError
from foundation.store import LocalStore
from trainer import autobatch, checkpoint, tensorboard
from trainer.interrupt import Interrupt, Interrupted, fall_silent, interrupt, unheard
from trainer.metrics import RUN, History, Metric, RunInfo, append_metric, rewind_metrics, write_run_info
from trainer.plan import Plan
from trainer.plot import draw
from trainer.setup import Setup, git_revision, prepare
from trainer.trainer import Trainer

if TYPE_CHECKING:
    from foundation.workspace import Workspace

TOKENIZER = "tokenizer.json"  # the run's own copy: a new one in the workspace does not orphan an old run
DRAWN = 60.0  # seconds between pictures, at least


@dataclass(frozen=True)
class Summary:
    """How a call of `train` ended. `stopped`: `end`, `until` (the step asked for), `signal` or `stop` (the file)."""

    run: str
    step: int
    steps: int
    tokens: int
    loss: float | None
    phrasing: float | None
    unseen: float | None
    seconds: float
    stopped: Literal["end", "until", "signal", "stop"]
    checkpoint: str
    parameters: int
    physical_batch: int
    skipped: int


def train(
    workspace: Workspace,
    plan: Plan,
    device: torch.device,
    *,
    until: int | None = None,
    fresh: bool = False,
    physical: int = 0,
    anew: bool = False,
) -> Summary:
    """Train to the last step, or to step `until`, going on from the run's newest whole checkpoint unless `fresh`.

    `physical`: contexts in memory at once; 0: as before, or as many as fit; `anew`: as many as fit, whatever was
    before. Raises `UsageError` if the data or settings are not those the run was begun with, `Failure` if another process trains it, or memory or disk do not suffice.
    """
    setup = prepare(plan, device)
    with workspace.lock(f"train-{plan.run}", wait=False), interrupt(plan.folder) as asked:
        if fresh and plan.folder.exists():
            shutil.rmtree(plan.folder)
        started = time.perf_counter()
        found = checkpoint.latest(plan.folder / "checkpoints")
        with closing(_built(setup, asked, found)) as trainer:
            if anew:
                trainer.physical = 0
            asked.unsaved = False
            metric: Metric | None = None
            path: Path | None = None
            try:
                with _explained(plan, trainer):
                    _begin(workspace, trainer, physical)
                    metric, path = _steps(trainer, min(plan.steps, until or plan.steps), asked)
            except Interrupted:  # before the first step
                pass
            asked.done()
            if (plan.folder / RUN).exists():
                _draw(plan.folder)
            return Summary(
                run=plan.run,
                step=trainer.step,
                steps=plan.steps,
                tokens=trainer.tokens,
                loss=metric.loss if metric and math.isfinite(metric.loss or 0.0) else None,
                phrasing=trainer.losses.get("phrasing"),
                unseen=trainer.losses.get("unseen"),
                seconds=round(time.perf_counter() - started, 2),
                stopped="end" if trainer.step == plan.steps else asked.asked or "until",
                checkpoint=str(path or (found[0] if found else "")),
                parameters=trainer.model.num_parameters,
                physical_batch=trainer.physical,
                skipped=trainer.guard.skipped,
            )


def _built(setup: Setup, asked: Interrupt, found: tuple[Path, checkpoint.TrainState] | None) -> Trainer:
    """The model and its optimizers, as the checkpoint has them if there is one."""
    with _explained(setup.plan):
        trainer = Trainer(setup, asked)
        if found:
            trainer.restore(*found)
        return trainer


def _begin(workspace: Workspace, trainer: Trainer, physical: int) -> None:
    """Fit the run to its device, say and keep what it is, and drop what was written behind its checkpoint."""
    plan, before = trainer.setup.plan, trainer.physical
    trainer.fit(physical or plan.settings.physical_batch)
    if before and before != trainer.physical:
        say(
            f"{trainer.physical} contexts in memory at once now, {before} before: the same to rounding, not to the last bit"
        )
    plan.folder.mkdir(parents=True, exist_ok=True)
    tokenizer = plan.paths.tokenizer.read_bytes()
    if hashlib.sha256(tokenizer).hexdigest() != plan.tokenizer:
        raise UsageError(
            "the tokenizer was made anew just now",
            where=str(plan.paths.tokenizer),
            mend="run `trainer pack`, then this again",
        )
    LocalStore(plan.folder).put(TOKENIZER, tokenizer)
    if (manifest := plan.data.folder.parent / checkpoint.MANIFEST).exists():  # else packed anew since: it has its own
        checkpoint.pin(manifest, plan.folder / checkpoint.MANIFEST)
    info = describe(trainer.setup, trainer.physical)
    say(told(trainer.setup, trainer.physical) + (f"; going on from step {trainer.step:,}" if trainer.step else ""))
    write_run_info(plan.folder, info)
    rewind_metrics(plan.folder, trainer.step)


def _steps(trainer: Trainer, last: int, asked: Interrupt) -> tuple[Metric | None, Path | None]:
    """Steps up to `last`, or until a stop is asked for; returns the last one's metric and the last checkpoint."""
    plan, settings = trainer.setup.plan, trainer.setup.plan.settings
    metric: Metric | None = None
    path: Path | None = None
    saved, drawn, history = trainer.step, time.monotonic(), History(plan.folder)
    if trainer.step >= last:
        say(f"nothing is left to train: run {plan.run} has taken {trainer.step:,} of {plan.steps:,} steps")
    with progress(f"train {plan.run}", plan.steps) as bar, _writer(trainer) as write:
        bar.advance(trainer.step)
        try:
            if _unmeasured(trainer, history):
                write(trainer.evaluate())
            while trainer.step < last and not asked.look():
                metric = trainer.train_step()
                asked.unsaved = True
                write(metric)
                bar.advance(1, _shown(metric))
                if _due(trainer):
                    write(trainer.evaluate())
                if trainer.step % settings.checkpoint_every == 0:
                    path, saved = trainer.save(), trainer.step
                    asked.unsaved = False
                if time.monotonic() - drawn >= DRAWN:
                    _draw(plan.folder, history)
                    drawn = time.monotonic()
            asked.unsaved = True  # nothing in hand is left to be dropped: from here on a signal waits for the end
        except Interrupted:  # the step or the evaluation in hand is dropped; what stands before it is kept
            pass
        except OSError:
            if not unheard():
                raise
            asked.asked = asked.asked or "signal"  # who read it is gone: `| tee` after Ctrl-C, a terminal that hung up
        if asked.unsaved and trainer.step != saved:
            path = trainer.save()  # before anything more is said
        if asked.asked and unheard():
            fall_silent()
    return metric, path


def _due(trainer: Trainer) -> bool:
    """Whether the held-out splits are looked at after this step."""
    plan, step = trainer.setup.plan, trainer.step
    return bool(trainer.setup.held_out) and (step % plan.settings.evaluate_every == 0 or step == plan.steps)


def _unmeasured(trainer: Trainer, history: History) -> bool:
    """Whether that look is still to be taken: before the first step, or where a stop cut it short."""
    if not _due(trainer):
        return False
    history.refresh()
    columns = history.columns
    looked = (
        step
        for step, phrasing, unseen in zip(columns["step"], columns["phrasing"], columns["unseen"], strict=True)
        if not (math.isnan(phrasing) and math.isnan(unseen))
    )
    return trainer.step not in looked


def _draw(folder: Path, history: History | None = None) -> None:
    try:
        draw(folder, history)
    except (Failure, OSError, ValueError) as error:  # a picture is not worth a run
        say(f"the plot could not be drawn: {error}")


def _shown(metric: Metric) -> str:
    mfu = f", {metric.mfu:.0%} MFU" if metric.mfu is not None else ""
    return f"loss {metric.loss:.3f}, {metric.tokens_per_second:,.0f} tokens/s{mfu}"


@contextmanager
def _writer(trainer: Trainer) -> Iterator[Callable[[Metric], None]]:
    """Puts a metric into metrics.jsonl, and for TensorBoard if asked to."""
    plan = trainer.setup.plan
    board = tensorboard.writer(plan.folder, plan.settings.tensorboard, step=trainer.step)

    def write(metric: Metric) -> None:
        append_metric(plan.folder, metric)
        board.add(metric)

    try:
        yield write
    finally:
        board.close()


@contextmanager
def _explained(plan: Plan, trainer: Trainer | None = None) -> Iterator[None]:
    """Running out of memory or of disk, said as what it is and with the mend. No `trainer`: it is still to be built."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not _out_of_memory(error):
            raise
        when, mend = "before the first step", "take a smaller preset: `trainer params` says what fits"
        if trainer:
            when = f"in step {trainer.step + 1}, with {trainer.physical} contexts at once"
            mend = (
                "run again with a smaller --batch (the step stays as large), or set train.recompute = true; "
                "the last checkpoint is as it was"
            )
        reason = str(error).partition("\n")[0]
        raise Failure(f"out of memory {when}{reason and f': {reason}'}", where=f"run {plan.run}", mend=mend) from error
    except BrokenPipeError:
        raise  # what was said, not what was written down
    except OSError as error:
        if trainer is None:
            raise
        raise Failure(
            f"step {trainer.step} could not be written down: {error.strerror or error}",
            where=str(error.filename or plan.folder),
            mend="make room there, then run the same command again: it goes on from the last whole checkpoint",
        ) from error


def _out_of_memory(error: RuntimeError | MemoryError) -> bool:
    """A GPU's, or a CPU's, which torch has no exception of its own for."""
    return isinstance(error, MemoryError) or autobatch.out_of_memory(error) or "can't allocate memory" in str(error)


def describe(setup: Setup, physical: int) -> RunInfo:
    """What this run is, for `run.json` and the picture."""
    plan = setup.plan
    return RunInfo(
        run=plan.run,
        git=git_revision(),
        preset=plan.settings.preset,
        parameters=plan.config.parameters,
        vocabulary=plan.config.vocabulary,
        context=plan.data.meta.context,
        batch=plan.settings.batch,
        steps=plan.steps,
        epoch_tokens=plan.epoch_tokens,
        device=setup.device.type,
        precision=setup.precision,
        attention=setup.backend,
        physical_batch=physical,
        optimizer=plan.settings.optimizer,
        schedule=plan.settings.schedule,
        compiled=setup.compiled,
        recipe=plan.settings.model_dump(mode="json"),
    )


def told(setup: Setup, physical: int) -> str:
    """What this run is, in a line."""
    plan = setup.plan
    at_once = f", {physical} at once" if physical and physical != plan.settings.batch else ""
    return (
        f"run {plan.run}: {plan.settings.preset}, {plan.config.parameters:,} parameters; {plan.steps:,} steps of "
        f"{plan.settings.batch} contexts{at_once} ({plan.records_per_context:.1f} records a context of "
        f"{plan.data.meta.context:,}, {plan.records_per_step:,.0f} a step); {plan.settings.optimizer}, {plan.settings.schedule}; "
        f"{setup.device.type}, {setup.precision}, attention {setup.backend}{', compiled' if setup.compiled else ''}"
    )
