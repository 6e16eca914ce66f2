"""What a run will do, worked out without torch: its recipe, shape, data and number of steps.

Guarantees: packs, tokenizer and preset fit each other, or one clear error says what to do; the number of steps is exact.
Cost: opens memory-mapped files and lays out the epochs (`trainer.epochs` says what that takes); no torch is imported.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from foundation.errors import UsageError
from foundation.ids import stable_id
from trainer.epochs import Epochs
from trainer.pack import PackedData
from trainer.paths import TrainPaths, run_folder
from trainer.presets import model_config, recipe
from trainer.shape import ModelConfig
from trainer.tokenizer import tokenizer_sha

if TYPE_CHECKING:
    from foundation.tables import MixSettings, TrainSettings
    from foundation.workspace import Workspace

# What may change while a run is under way: how often it saves and looks at itself, how rounds cut it, how it fits its
# card, and what is in the packs' identity already.
FREE = {
    "checkpoint_every", "evaluate_every", "keep", "tensorboard", "rounds", "physical_batch", "leave_vram", "vocabulary",
    "share", "share_key", "compile",
}  # fmt: skip

Identity = dict[str, str | int | float | bool]


@dataclass(frozen=True)
class Plan:
    """A run as its settings and packs have it. `settings` is the resolved recipe."""

    run: str
    folder: Path
    paths: TrainPaths
    settings: TrainSettings
    mix: MixSettings
    config: ModelConfig
    data: PackedData
    epochs: Epochs
    tokenizer: str

    @property
    def steps(self) -> int:
        """Optimizer steps; the last one may hold fewer contexts than the others."""
        return math.ceil(self.epochs.contexts / self.settings.batch)

    @cached_property
    def records_per_context(self) -> float:
        """As the run's first contexts have it."""
        first = self.epochs.take(0, 500)
        return sum(map(len, first)) / max(1, len(first))

    @property
    def records_per_step(self) -> float:
        return self.records_per_context * min(self.settings.batch, self.epochs.contexts)

    @cached_property
    def epoch_tokens(self) -> int:
        """Useful tokens of the first epoch, as its mix has it."""
        return int(np.diff(self.data.records)[self.epochs.selection(0)].sum())

    @property
    def identity(self) -> Identity:
        """What makes this run this run, as far as settings and data go."""
        settings = self.settings.model_dump(exclude=FREE)
        return {
            **{f"train.{key}": _plain(value) for key, value in settings.items()},
            **{f"mix.{key}": _plain(value) for key, value in self.mix.model_dump().items()},
            **{f"model.{key}": value for key, value in self.config.model_dump().items()},
            "tokenizer": self.tokenizer[:16],
            "packs": stable_id("packs", self.data.meta.model_dump_json()),
        }


def _plain(value: object) -> str | int | float | bool:
    return value if isinstance(value, str | int | float | bool) else json.dumps(value, sort_keys=True)


def plan(workspace: Workspace, run: str) -> Plan:
    """Open the data and fix the shape of a run. Raises `UsageError` if packs or tokenizer are missing or do not match."""
    paths, settings = TrainPaths.of(workspace), recipe(workspace.settings.train)
    folder = run_folder(workspace, run)
    sha = tokenizer_sha(paths.tokenizer)
    data = PackedData.open(paths.pack("train"), tokenizer_sha=sha)
    if not data.meta.supervised:
        raise UsageError(
            "the packs hold nothing to learn from: no token of theirs is trained on",
            where=str(paths.pack("train")),
            mend="generate records, then `trainer shuffle` and `trainer pack`",
        )
    if data.meta.context != settings.context:
        raise UsageError(
            f"the packs have contexts of {data.meta.context:,} tokens, and the run is to have {settings.context:,}",
            where=f"{paths.pack('train')}, train.context in factory.toml",
            mend="run `trainer pack` again, or set train.context back",
        )
    return Plan(
        run=run,
        folder=folder,
        paths=paths,
        settings=settings,
        mix=workspace.settings.mix,
        config=model_config(settings.preset, data.meta.vocabulary, data.meta.context),
        data=data,
        epochs=Epochs(data, workspace.settings.mix, seed=settings.seed, epochs=settings.epochs),
        tokenizer=sha,
    )
