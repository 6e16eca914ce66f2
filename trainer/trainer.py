"""A model in training: one step, one look at the held-out splits, one checkpoint.

Guarantees: the learning rate and the weight decay of a step are set before it is taken; the loss is summed over the
supervised tokens of all its contexts and divided by their number once, however many are in memory at a time; a step is
judged by its loss and its gradient before it touches the weights; a step that is interrupted was never begun.
Cost: weights, gradients and two moments, 16 bytes a parameter, plus the activations of one physical batch.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from foundation.console import say
from foundation.errors import Failure
from trainer import autobatch, checkpoint, hardware
from trainer.guards import Guard
from trainer.metrics import Metric
from trainer.model import Model
from trainer.optim import build_optimizers, learning_rate, weight_decay

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from trainer.interrupt import Interrupt
    from trainer.layout import Batch
    from trainer.setup import Setup


@dataclass
class Trainer:
    """`step` counts finished steps, `cursor` the contexts they consumed; `physical` contexts are in memory at once."""

    setup: Setup
    interrupt: Interrupt
    physical: int = 0
    step: int = 0
    cursor: int = 0
    tokens: int = 0
    supervised: int = 0
    losses: dict[str, float] = field(default_factory=dict)  # on the held-out splits, as last measured ...
    measured: int = -1  # ... at this step

    def __post_init__(self) -> None:
        plan = self.setup.plan
        torch.manual_seed(plan.settings.seed)
        if self.setup.device.type == "cuda":
            torch.set_float32_matmul_precision("high")
        self.model = Model(plan.config).to(self.setup.device)
        self.model.recompute = plan.settings.recompute
        self.optimizers = build_optimizers(self.model, plan.settings)
        self.guard = Guard()
        self.peak = hardware.peak_flops(self.setup.device)
        self._reader = ThreadPoolExecutor(1, "contexts")  # lays out the next step's contexts during this one
        self._ahead: tuple[int, Future[list[Batch]]] | None = None

    # -- before the first step --------------------------------------------------------------------------------------

    def fit(self, asked: int) -> None:
        """Choose how many contexts are in memory at once: `asked` (0: as many as fit), no more than a step has.

        The model is compiled after that, for the shape it will meet. Raises `Failure` if not even one fits.
        """
        plan = self.setup.plan
        if asked:
            self.physical = min(asked, plan.settings.batch)
        elif not self.physical:
            self.physical = autobatch.choose(
                self._try,
                batch=plan.settings.batch,
                context=plan.data.meta.context,
                device=self.setup.device,
                leave=int(plan.settings.leave_vram * (1 << 30)),
                reserve=4 * self.model.num_parameters,  # gradients, which stay from one pass of a step to the next
            )
        if self.setup.compiled:
            self.model.use_compile()

    def _try(self, contexts: int) -> None:
        """A forward and a backward of that many contexts, and none of it kept."""
        plan = self.setup.plan
        batch = plan.data.batch(plan.epochs.take(0, contexts), fill=contexts).to(self.setup.device)
        try:
            (self._loss(batch) / max(1, batch.n_supervised)).backward()
        finally:
            self.optimizers.zero_grad()

    # -- a step -----------------------------------------------------------------------------------------------------

    def train_step(self) -> Metric:
        """Take one step. Raises `Failure` if the losses are no numbers any more, `Interrupted` if a stop was asked for."""
        plan, started = self.setup.plan, time.perf_counter()
        contexts = min(plan.settings.batch, plan.epochs.contexts - self.cursor)
        batches = self._batches()
        epoch = plan.epochs.epoch_at(self.cursor)
        before = plan.epochs.epoch_at(max(0, self.cursor - plan.settings.batch))
        if plan.mix.curriculum and int(epoch) != int(before):
            self.guard.forget()  # other data
        rate, decay = learning_rate(self.step, plan.steps, plan.settings), weight_decay(epoch, plan.settings)
        self.optimizers.set(rate, decay)
        supervised = sum(batch.n_supervised for batch in batches)
        loss, norm = self._gradient(batches, supervised)
        self._apply(loss, norm)
        self.step += 1
        self.cursor += contexts
        useful = sum(batch.n_record_tokens for batch in batches)
        self.tokens += useful
        self.supervised += supervised
        seconds = time.perf_counter() - started
        flops = plan.config.flops(useful, supervised, sum(batch.n_squares for batch in batches))
        return Metric(
            step=self.step,
            epoch=round(plan.epochs.epoch_at(self.cursor), 6),
            tokens=self.tokens,
            supervised=self.supervised,
            loss=loss,
            learning_rate=rate,
            weight_decay=decay,
            grad_norm=norm,
            tokens_per_second=round(useful / seconds, 1),
            mfu=round(flops / seconds / self.peak, 4) if self.peak else None,
            memory=hardware.memory_peak(self.setup.device),
            seconds=round(seconds, 4),
            skipped=self.guard.skipped or None,
        )

    def _gradient(self, batches: Sequence[Batch], supervised: int) -> tuple[float, float]:
        """Loss per supervised token, and the norm of its gradient before clipping; the gradient is clipped."""
        self.optimizers.zero_grad()
        total: Tensor | float = 0.0
        try:
            for batch in batches:
                self.interrupt.check()
                loss = self._loss(batch.to(self.setup.device)) / max(1, supervised)
                loss.backward()  # type: ignore[no-untyped-call]
                total = total + loss.detach()
        except BaseException:
            self.optimizers.zero_grad()  # this step was never begun
            raise
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.setup.plan.settings.clip)
        return float(total), norm.item()

    def _apply(self, loss: float, norm: float) -> None:
        """Step the optimizers, unless the guard says that it would do harm."""
        self.interrupt.unsaved = True  # from here on a signal waits: a step is taken whole, or not at all
        decision = self.guard.judge(loss, norm)
        if decision == "take":
            self.optimizers.step()
            return
        self.optimizers.zero_grad()
        seen = f"step {self.step + 1} has a loss of {loss:.4g} and a gradient of norm {norm:.4g}"
        if decision == "give up":
            raise Failure(
                f"the losses are no numbers any more: {seen}, after going back to the last checkpoint once",
                where=f"run {self.setup.plan.run}",
                mend="lower train.learning_rate and begin anew with --fresh; the last checkpoint is as it was",
            )
        if decision == "skip":
            say(f"{seen}: left out")
            return
        # Not one that a stop left in between: an unbroken run would not have it.
        found = checkpoint.latest(self.setup.plan.folder / "checkpoints", self.setup.plan.settings.checkpoint_every)
        if found is None:
            raise Failure(
                f"{seen}, the third bad step in a row, and there is no checkpoint to go back to",
                where=f"run {self.setup.plan.run}",
                mend="lower train.learning_rate and begin anew with --fresh",
            )
        say(f"{seen}, the third bad one in a row: the weights are those of step {found[1].step} again")
        checkpoint.restore(found[0], self.model, self.optimizers)

    def _loss(self, batch: Batch) -> Tensor:
        with self._autocast():
            return self.model.loss(batch, self.setup.backend)

    def _batches(self) -> list[Batch]:
        """The contexts of this step, a physical batch at a time; the next step's are laid out meanwhile."""
        ahead, self._ahead = self._ahead, None
        batches = ahead[1].result() if ahead and ahead[0] == self.cursor else self._read(self.cursor)
        following = self.cursor + self.setup.plan.settings.batch
        if following < self.setup.plan.epochs.contexts:
            self._ahead = following, self._reader.submit(self._read, following)
        return batches

    def _read(self, cursor: int) -> list[Batch]:
        plan = self.setup.plan
        contexts = plan.epochs.take(cursor, min(plan.settings.batch, plan.epochs.contexts - cursor))
        return list(self._laid_out(plan.data, contexts))

    def _laid_out(self, data: Any, contexts: Sequence[NDArray[np.int32]]) -> Iterator[Batch]:
        for start in range(0, len(contexts), self.physical):
            yield data.batch(contexts[start : start + self.physical], fill=self.physical)

    def _autocast(self) -> torch.autocast:
        enabled = self.setup.precision == "bfloat16"
        return torch.autocast(self.setup.device.type, torch.bfloat16, enabled=enabled)

    # -- between steps ----------------------------------------------------------------------------------------------

    def evaluate(self) -> Metric:
        """Loss per supervised token on each held-out split that is not empty, over its first contexts."""
        losses: dict[str, float] = {}
        for split, held_out in self.setup.held_out.items():
            total, count = 0.0, 0
            for batch in self._laid_out(held_out.data, held_out.contexts):
                self.interrupt.check()
                with torch.no_grad():
                    total += self._loss(batch.to(self.setup.device)).item()
                count += batch.n_supervised
            if count:
                losses[split] = total / count
        self.losses, self.measured = losses, self.step
        return Metric(
            step=self.step,
            epoch=round(self.setup.plan.epochs.epoch_at(self.cursor), 6),
            tokens=self.tokens,
            supervised=self.supervised,
            phrasing=losses.get("phrasing"),
            unseen=losses.get("unseen"),
        )

    def save(self) -> Path:
        """Write a checkpoint. It has the loss on `phrasing` if that was measured at this step."""
        plan = self.setup.plan
        state = checkpoint.TrainState(
            run=plan.run,
            step=self.step,
            steps=plan.steps,
            cursor=self.cursor,
            tokens=self.tokens,
            supervised=self.supervised,
            phrasing=self.losses.get("phrasing") if self.measured == self.step else None,
            physical_batch=self.physical,
            skipped=self.guard.skipped,
            guard=self.guard.state(),
            model=plan.config,
            tokenizer=plan.tokenizer,
            identity=self.setup.identity,
            rng=checkpoint.random_state(),
        )
        manifest = plan.folder / checkpoint.MANIFEST
        return checkpoint.save(
            plan.folder / "checkpoints",
            self.model,
            self.optimizers,
            state,
            keep=plan.settings.keep,
            every=plan.settings.checkpoint_every,
            manifest=manifest if manifest.exists() else None,
        )

    def restore(self, path: Path, state: checkpoint.TrainState) -> None:
        """Go on from a checkpoint. Raises `UsageError` if it is of another run."""
        checkpoint.check_identity(state, self.setup.identity)
        checkpoint.restore(path, self.model, self.optimizers)
        checkpoint.set_random_state(state.rng)
        self.guard.restore(state.guard, state.skipped)
        self.physical = state.physical_batch
        self.step, self.cursor, self.tokens, self.supervised = state.step, state.cursor, state.tokens, state.supervised

    def close(self) -> None:
        """Let the reader's thread end."""
        self._reader.shutdown(wait=True, cancel_futures=True)
