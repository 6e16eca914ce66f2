"""A step and what is around it: accumulation, the order of rate and step, guards at work, stops in the middle, dry runs."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from foundation import console
from foundation.errors import Failure, UsageError
from foundation.workspace import Workspace
from tests.trainer.small_run import CPU, packed_workspace
from trainer import checkpoint, loop
from trainer.guards import IN_A_ROW
from trainer.interrupt import STOP, Interrupt, Interrupted
from trainer.metrics import Metric, read_metrics
from trainer.model import Model
from trainer.optim import learning_rate, weight_decay
from trainer.plan import plan
from trainer.setup import prepare
from trainer.trainer import Trainer


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return packed_workspace(tmp_path_factory.mktemp("trainer") / "workspace", batch=4, epochs=2.0)


def _trainer(workspace: Workspace, physical: int = 0, run: str = "r", **settings: Any) -> Trainer:
    planned = plan(workspace, run)
    planned = planned if not settings else _with(planned, settings)
    planned.folder.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(prepare(planned, CPU), Interrupt(planned.folder))
    trainer.fit(physical)
    return trainer


def _with(planned: Any, settings: dict[str, Any]) -> Any:
    from dataclasses import replace

    return replace(planned, settings=planned.settings.model_copy(update=settings))


def _take_steps(trainer: Trainer, count: int) -> None:
    for _ in range(count):
        trainer.train_step()


def _weights(trainer: Trainer) -> dict[str, Tensor]:
    return {name: one.detach().clone() for name, one in trainer.model.named_parameters()}


def _same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


class TestAccumulation:
    def test_in_parts_or_at_once_a_step_is_the_same_to_rounding(self, ready: Workspace) -> None:
        """Normalised by the supervised tokens of the whole step: parts hold very different numbers of them."""
        at_once, in_parts = _trainer(ready, 4), _trainer(ready, 1)
        batches = in_parts._read(0)
        assert len(batches) == 4
        assert len({batch.n_supervised for batch in batches}) > 1
        for _ in range(3):
            whole, parts = at_once.train_step(), in_parts.train_step()
            assert (whole.step, whole.tokens, whole.supervised) == (parts.step, parts.tokens, parts.supervised)
            assert whole.loss == pytest.approx(parts.loss, rel=2e-3)
            assert whole.grad_norm == pytest.approx(parts.grad_norm, rel=2e-2)

    def test_the_last_part_is_filled_up(self, ready: Workspace) -> None:
        trainer = _trainer(ready, 3)
        batches = trainer._read(0)
        assert [len(batch.tokens_N) for batch in batches] == [3 * 128, 3 * 128]
        assert sum(batch.n_record_tokens for batch in batches) == sum(
            batch.n_record_tokens for batch in _trainer(ready, 4)._read(0)
        )

    def test_reading_ahead_changes_nothing(self, ready: Workspace) -> None:
        trainer = _trainer(ready, 2)
        trainer.train_step()
        assert trainer._ahead is not None
        ahead = trainer._ahead[1].result()
        assert all(
            torch.equal(a.tokens_N, b.tokens_N) for a, b in zip(ahead, trainer._read(trainer.cursor), strict=True)
        )


class TestOrder:
    def test_rate_and_decay_are_those_of_the_step_that_is_taken(
        self, ready: Workspace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Set after the step instead of before it, the first step would be taken with what the optimizer was built with."""
        trainer = _trainer(ready, weight_decay=[(0.0, 0.3), (1.0, 0.05)])
        plan_ = trainer.setup.plan
        taken: list[tuple[float, float]] = []
        step = trainer.optimizers.step

        def note() -> None:
            group = trainer.optimizers._adamw.param_groups[0]
            taken.append((float(group["lr"]), float(group["weight_decay"])))
            step()

        monkeypatch.setattr(trainer.optimizers, "step", note)
        metrics = [trainer.train_step() for _ in range(plan_.steps)]
        epochs = [plan_.epochs.epoch_at(number * plan_.settings.batch) for number in range(plan_.steps)]
        assert [rate for rate, _ in taken] == [
            learning_rate(number, plan_.steps, plan_.settings) for number in range(plan_.steps)
        ]
        assert [decay for _, decay in taken] == [weight_decay(epoch, plan_.settings) for epoch in epochs]
        assert {decay for _, decay in taken} == {0.3, 0.05}
        assert [(one.learning_rate, one.weight_decay) for one in metrics] == taken


class TestGuards:
    def test_a_bad_step_leaves_the_weights_alone_and_the_data_go_on(
        self, ready: Workspace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        trainer = _trainer(ready)
        trainer.train_step()
        before, cursor = _weights(trainer), trainer.cursor
        good = Model.loss
        monkeypatch.setattr(Model, "loss", lambda *arguments: good(*arguments) * math.nan)
        metric = trainer.train_step()
        assert _same(before, _weights(trainer))
        assert (metric.skipped, trainer.step, trainer.cursor) == (1, 2, 2 * cursor)
        monkeypatch.setattr(Model, "loss", good)
        assert trainer.train_step().skipped == 1
        assert not _same(before, _weights(trainer))

    def test_three_in_a_row_go_back_to_the_checkpoint_and_then_it_gives_up(
        self, ready: Workspace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        trainer = _trainer(ready, run="back")
        trainer.train_step()
        trainer.save()
        saved = _weights(trainer)
        trainer.train_step()
        monkeypatch.setattr(Model, "loss", lambda *_: torch.tensor(math.nan, requires_grad=True))
        for _ in range(IN_A_ROW):
            assert not _same(saved, _weights(trainer))
            trainer.train_step()
        assert _same(saved, _weights(trainer))
        assert trainer.step == 2 + IN_A_ROW, "the data that did harm are not seen again"
        with pytest.raises(Failure, match="no numbers any more"):
            _take_steps(trainer, IN_A_ROW)
        assert _same(saved, _weights(trainer))

    def test_without_a_checkpoint_to_go_back_to_it_says_so(
        self, ready: Workspace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        trainer = _trainer(ready, run="nothing-saved")
        monkeypatch.setattr(Model, "loss", lambda *_: torch.tensor(math.inf, requires_grad=True))
        with pytest.raises(Failure, match="no checkpoint to go back to"):
            _take_steps(trainer, IN_A_ROW)


class TestStops:
    def test_a_step_that_is_stopped_in_the_middle_was_never_begun(self, ready: Workspace) -> None:
        trainer = _trainer(ready, 1)
        trainer.train_step()
        before = _weights(trainer)
        seen = 0
        loss = trainer._loss

        def stop_at_the_third(batch: Any) -> Tensor:
            nonlocal seen
            seen += 1
            if seen == 3:
                trainer.interrupt.asked = "signal"
            return loss(batch)

        trainer._loss = stop_at_the_third  # type: ignore[method-assign]
        with pytest.raises(Interrupted):
            trainer.train_step()
        assert seen == 3
        assert (trainer.step, trainer.cursor) == (1, 4)
        assert _same(before, _weights(trainer))
        assert all(parameter.grad is None for parameter in trainer.model.parameters())

    def test_stopped_during_a_look_at_the_held_out_splits_it_looks_when_it_goes_on(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        workspace = packed_workspace(tmp_path / "w", batch=2, evaluate_every=2)
        plain = loop.train(workspace, plan(workspace, "plain"), CPU, until=4)
        evaluate = Trainer.evaluate

        def asked_to_stop(self: Trainer) -> Metric:
            if self.step == 2:
                self.interrupt.asked = "signal"
            return evaluate(self)

        monkeypatch.setattr(Trainer, "evaluate", asked_to_stop)
        stopped = loop.train(workspace, plan(workspace, "cut"), CPU, until=4)
        assert (stopped.stopped, stopped.step) == ("signal", 2)
        monkeypatch.setattr(Trainer, "evaluate", evaluate)
        loop.train(workspace, plan(workspace, "cut"), CPU, until=4)
        assert _lines(workspace, "cut") == _lines(workspace, "plain")
        assert plain.step == 4

    def test_the_file_stops_it_with_a_checkpoint(self, ready: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
        step = Trainer.train_step

        def touch(self: Trainer) -> Metric:
            metric = step(self)
            if self.step == 3:
                (self.setup.plan.folder / STOP).touch()
            return metric

        monkeypatch.setattr(Trainer, "train_step", touch)
        summary = loop.train(ready, plan(ready, "stopped"), CPU)
        assert (summary.stopped, summary.step) == ("stop", 3)
        assert summary.checkpoint.endswith("step-000003")
        assert not (plan(ready, "stopped").folder / STOP).exists()

    def test_a_signal_before_the_first_step_saves_nothing_and_fails_nothing(
        self, ready: Workspace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Trainer, "fit", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        summary = loop.train(ready, plan(ready, "early"), CPU)
        assert (summary.stopped, summary.step, summary.checkpoint) == ("signal", 0, "")

    def test_a_signal_behind_the_last_step_waits_for_the_end(
        self, ready: Workspace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Everything is saved then, but nothing is left that may be dropped."""
        draw = loop._draw

        def signalled(folder: Path) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            draw(folder)

        monkeypatch.setattr(loop, "_draw", signalled)
        monkeypatch.setenv("FACTORY_TRAIN__CHECKPOINT_EVERY", "2")
        summary = loop.train(ready, plan(Workspace(ready.root), "late"), CPU, until=2)
        assert summary.step == 2
        assert summary.checkpoint.endswith("step-000002")

    def test_when_nobody_reads_what_is_said_a_stop_is_kept_all_the_same(
        self, ready: Workspace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Ctrl-C ends `| tee` too, and at once."""
        read, write = os.pipe()
        step = Trainer.train_step

        def stopped(self: Trainer) -> Metric:
            metric = step(self)
            if self.step == 3:
                os.close(read)
                os.kill(os.getpid(), signal.SIGINT)
            return metric

        monkeypatch.setattr(Trainer, "train_step", stopped)
        monkeypatch.setattr(console, "SPEAK", 0.0)
        monkeypatch.setattr(sys, "stderr", os.fdopen(write, "w"))
        summary = loop.train(ready, plan(ready, "unread"), CPU)
        monkeypatch.undo()
        assert (summary.stopped, summary.step) == ("signal", 3)
        found = checkpoint.latest(plan(ready, "unread").folder / "checkpoints")
        assert found is not None
        assert found[1].step == 3


class TestMemory:
    @pytest.mark.parametrize(
        "error",
        [
            torch.OutOfMemoryError("CUDA out of memory"),
            MemoryError(),
            RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        ],
    )
    def test_out_of_memory_later_on_keeps_the_checkpoint_and_names_the_mend(
        self, ready: Workspace, monkeypatch: pytest.MonkeyPatch, error: Exception
    ) -> None:
        run = f"memory-{type(error).__name__}"
        loop.train(ready, plan(ready, run), CPU, until=2)

        def full(*_: object) -> Tensor:
            raise error

        monkeypatch.setattr(Model, "loss", full)
        with pytest.raises(Failure, match="out of memory in step 3, with 4 contexts at once") as caught:
            loop.train(ready, plan(ready, run), CPU)
        assert "smaller --batch" in caught.value.mend
        monkeypatch.undo()
        assert loop.train(ready, plan(ready, run), CPU, until=4).step == 4

    def test_another_error_is_not_taken_for_it(self, ready: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
        def wrong(*_: object) -> Tensor:
            raise RuntimeError("shapes do not match")

        monkeypatch.setattr(Model, "loss", wrong)
        with pytest.raises(RuntimeError, match="shapes"):
            loop.train(ready, plan(ready, "wrong"), CPU)


class TestPlan:
    def test_packs_of_another_context_are_not_trained_on(
        self, ready: Workspace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FACTORY_TRAIN__CONTEXT", "256")
        with pytest.raises(UsageError, match="contexts of 128 tokens, and the run is to have 256"):
            plan(Workspace(ready.root), "r")

    def test_what_may_change_under_way_is_not_part_of_what_a_run_is(
        self, ready: Workspace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = plan(Workspace(ready.root), "r").identity
        for key, value in (("KEEP", "5"), ("LEAVE_VRAM", "2.5"), ("PHYSICAL_BATCH", "1"), ("EVALUATE_EVERY", "7")):
            monkeypatch.setenv(f"FACTORY_TRAIN__{key}", value)
        assert plan(Workspace(ready.root), "r").identity == before
        monkeypatch.setenv("FACTORY_MIX__WEIGHTS", json.dumps({"qpt": 2.0}))
        assert plan(Workspace(ready.root), "r").identity != before


def _lines(workspace: Workspace, run: str) -> list[dict[str, Any]]:
    timed = {"tokens_per_second", "seconds", "memory", "mfu"}
    return [one.model_dump(exclude=timed) for one in read_metrics(plan(workspace, run).folder)]
