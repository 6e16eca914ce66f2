"""Training: packs in, a model and its checkpoints out. One process, one device.

Guarantees: a run that was stopped, killed or cut into parts ends with the weights of one that was not (on one CPU, to the
last bit): the order of the data is a function of seed and epoch, and the checkpoint carries the rest. SIGTERM and Ctrl-C
end it after the step in hand, with a checkpoint. One process a run; a second is refused.
Cost: weights, gradients and two moments, 16 bytes a parameter, plus activations.
"""

from __future__ import annotations

import math
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from foundation.console import progress, say
from foundation.errors import Failure
from trainer import checkpoint
from trainer.metrics import Metric, RunInfo, append_metric, rewind_metrics, write_run_info
from trainer.model import Model
from trainer.optim import build_optimizer, learning_rate, set_learning_rate
from trainer.plot import draw
from trainer.setup import Setup, git_revision, pack_order, prepare

if TYPE_CHECKING:
    from foundation.workspace import Workspace

EVALUATED = 32  # contexts of a held-out split that a validation loss is taken over, at most


@dataclass(frozen=True)
class Summary:
    """How a call of `train` ended. `stopped`: `end`, `until` (the step asked for) or `signal`."""

    run: str
    step: int
    steps: int
    tokens: int
    loss: float | None
    phrasing: float | None
    unseen: float | None
    seconds: float
    stopped: Literal["end", "until", "signal"]
    checkpoint: str
    parameters: int


@dataclass
class Trainer:
    """A model in training. `step` counts finished steps; `cursor` the contexts they consumed."""

    setup: Setup
    step: int = 0
    cursor: int = 0
    tokens: int = 0
    supervised: int = 0
    losses: dict[str, float] = field(default_factory=dict)  # on the held-out splits, as last measured
    _epoch: tuple[int, list[int]] = (-1, [])

    def __post_init__(self) -> None:
        torch.manual_seed(self.setup.settings.seed)
        self.model = Model(self.setup.config).to(self.setup.device)
        self.optimizer = build_optimizer(self.model, self.setup.settings)

    def train_step(self) -> Metric:
        """Take one step. Raises `Failure` if the loss is not a number; the weights are then as before."""
        setup, started = self.setup, time.perf_counter()
        rate = learning_rate(self.step, setup.steps, setup.settings)
        set_learning_rate(self.optimizer, rate)
        indices = self._next_contexts()
        batch = setup.data.batch(indices).to(setup.device)
        with self._autocast():
            loss = self.model.loss(batch, setup.backend) / max(1, batch.n_supervised)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), setup.settings.clip)
        value, size = loss.item(), norm.item()
        if not math.isfinite(value) or not math.isfinite(size):
            raise Failure(
                f"the loss of step {self.step + 1} is {value}, its gradient's norm {size}",
                where=f"run {setup.run}",
                mend="lower train.learning_rate and begin anew with --fresh; the last checkpoint is as it was",
            )
        self.optimizer.step()
        self.step += 1
        self.cursor += len(indices)
        self.tokens += batch.n_record_tokens
        self.supervised += batch.n_supervised
        return Metric(
            step=self.step,
            epoch=round(self.cursor / len(setup.data), 6),
            tokens=self.tokens,
            supervised=self.supervised,
            loss=value,
            learning_rate=rate,
            grad_norm=size,
            tokens_per_second=round(batch.n_record_tokens / (time.perf_counter() - started), 1),
        )

    def evaluate(self) -> dict[str, float]:
        """Loss per supervised token on each held-out split that is not empty, over its first contexts."""
        self.losses = {}
        for split, data in self.setup.held_out.items():
            total, count = 0.0, 0
            numbers = range(min(EVALUATED, len(data)))
            for start in numbers[:: self.setup.settings.batch]:
                batch = data.batch(numbers[start : start + self.setup.settings.batch]).to(self.setup.device)
                with torch.no_grad(), self._autocast():
                    total += self.model.loss(batch, self.setup.backend).item()
                count += batch.n_supervised
            if count:
                self.losses[split] = total / count
        return self.losses

    def save(self, phrasing: float | None) -> Path:
        """Write a checkpoint. `phrasing`: that split's loss, if measured at this step."""
        setup = self.setup
        state = checkpoint.TrainState(
            run=setup.run,
            step=self.step,
            steps=setup.steps,
            cursor=self.cursor,
            tokens=self.tokens,
            supervised=self.supervised,
            phrasing=phrasing,
            model=setup.config,
            tokenizer=setup.tokenizer,
            identity=setup.identity,
            rng=checkpoint.random_state(),
        )
        return checkpoint.save(setup.folder / "checkpoints", self.model, self.optimizer, state)

    def restore(self, path: Path, state: checkpoint.TrainState) -> None:
        """Go on from a checkpoint. Raises `UsageError` if it is of another run."""
        checkpoint.check_identity(state, self.setup.identity)
        checkpoint.restore(path, self.model, self.optimizer)
        checkpoint.set_random_state(state.rng)
        self.step, self.cursor, self.tokens, self.supervised = state.step, state.cursor, state.tokens, state.supervised

    def _next_contexts(self) -> list[int]:
        setup, packs = self.setup, len(self.setup.data)
        numbers = []
        for position in range(self.cursor, min(self.cursor + setup.settings.batch, setup.contexts)):
            epoch, place = divmod(position, packs)
            if self._epoch[0] != epoch:
                self._epoch = epoch, pack_order(setup.settings.seed, epoch, packs)
            numbers.append(self._epoch[1][place])
        return numbers

    def _autocast(self) -> torch.autocast:
        enabled = self.setup.precision == "bfloat16"
        return torch.autocast(self.setup.device.type, torch.bfloat16, enabled=enabled)


@contextmanager
def stop_on_signal() -> Iterator[list[int]]:
    """A list that is empty until SIGTERM or Ctrl-C arrives; a second one of them then ends the process at once."""
    received: list[int] = []

    def note(number: int, _frame: object) -> None:
        received.append(number)
        for one, handler in before.items():
            signal.signal(one, handler)
        say("stopping after this step, with a checkpoint")

    before = {one: signal.signal(one, note) for one in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def train(
    workspace: Workspace, run: str, device: torch.device, *, until: int | None = None, fresh: bool = False
) -> Summary:
    """Train `run` to its last step, or to step `until`, going on from its newest whole checkpoint unless `fresh`.

    Raises `UsageError` if data or settings are missing or are not those the run was begun with, `Failure` if another
    process trains it.
    """
    setup = prepare(workspace, run, device)
    with workspace.lock(f"train-{run}", wait=False), stop_on_signal() as stopped:
        if fresh and setup.folder.exists():
            shutil.rmtree(setup.folder)
        trainer = Trainer(setup)
        found = checkpoint.latest(setup.folder / "checkpoints")
        if found:
            trainer.restore(*found)
        setup.folder.mkdir(parents=True, exist_ok=True)
        info = _describe(trainer)
        write_run_info(setup.folder, info)
        rewind_metrics(setup.folder, trainer.step)
        started = time.perf_counter()
        metric, path = _steps(trainer, min(setup.steps, until or setup.steps), stopped)
        draw(setup.folder)
        return Summary(
            run=run,
            step=trainer.step,
            steps=setup.steps,
            tokens=trainer.tokens,
            loss=metric.loss if metric else None,
            phrasing=trainer.losses.get("phrasing"),
            unseen=trainer.losses.get("unseen"),
            seconds=round(time.perf_counter() - started, 2),
            stopped="end" if trainer.step == setup.steps else ("signal" if stopped else "until"),
            checkpoint=str(path or (found[0] if found else "")),
            parameters=info.parameters,
        )


def _steps(trainer: Trainer, last: int, stopped: list[int]) -> tuple[Metric | None, Path | None]:
    """Steps up to `last`, or until `stopped` fills; returns the last one's metric and the last checkpoint."""
    setup, settings = trainer.setup, trainer.setup.settings
    metric: Metric | None = None
    path: Path | None = None
    saved = trainer.step
    if trainer.step == 0:
        append_metric(
            setup.folder, Metric(step=0, epoch=0, tokens=0, supervised=0).model_copy(update=trainer.evaluate())
        )
    losses: dict[str, float] = {}
    with progress(f"train {setup.run}", setup.steps) as bar:
        bar.advance(trainer.step)
        while trainer.step < last and not stopped:
            metric, losses = trainer.train_step(), {}
            if trainer.step % settings.evaluate_every == 0 or trainer.step == setup.steps:
                losses = trainer.evaluate()
            append_metric(setup.folder, metric.model_copy(update=losses))
            bar.advance(1, f"loss {metric.loss:.3f}, {metric.tokens_per_second:,.0f} tokens/s")
            if trainer.step % settings.checkpoint_every == 0:
                path, saved = trainer.save(losses.get("phrasing")), trainer.step
                draw(setup.folder)
    if trainer.step != saved:
        path = trainer.save(losses.get("phrasing"))
    return metric, path


def _describe(trainer: Trainer) -> RunInfo:
    """Say, and keep, what this run is."""
    setup = trainer.setup
    info = RunInfo(
        run=setup.run,
        git=git_revision(),
        preset=setup.settings.preset,
        parameters=trainer.model.num_parameters,
        vocabulary=setup.config.vocabulary,
        context=setup.config.context,
        batch=setup.settings.batch,
        steps=setup.steps,
        epoch_tokens=setup.data.meta.tokens,
        device=setup.device.type,
        precision=setup.precision,
        attention=setup.backend,
    )
    say(
        f"run {info.run}: {info.preset}, {info.parameters:,} parameters, {len(setup.data):,} contexts of {info.context}, "
        f"{info.steps:,} steps of {info.batch}; {info.device}, {info.precision}, attention {info.attention}"
        + (f"; going on from step {trainer.step:,}" if trainer.step else "")
    )
    return info
