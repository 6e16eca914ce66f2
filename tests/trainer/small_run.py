"""What the tests of the model half share: a workspace with packs, and small models and batches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from foundation.workspace import Workspace
from tests.trainer.conftest import make_workspace
from trainer.interrupt import Interrupt
from trainer.layout import Batch, make_batch
from trainer.loop import Summary, train
from trainer.model import Model
from trainer.pack import pack
from trainer.paths import TrainPaths
from trainer.plan import plan
from trainer.setup import prepare
from trainer.shape import ModelConfig
from trainer.shuffle import shuffle, shuffled_records
from trainer.tokenizer import record_texts, save_tokenizer, train_tokenizer
from trainer.trainer import Trainer

Ids = Sequence[int]
CPU = torch.device("cpu")
THREADS = {"OMP_NUM_THREADS": "1"}  # for processes that are compared with this one to the last bit
torch.set_num_threads(1)  # these models are too small for two, and two wait for each other when tests run side by side


def packed_workspace(path: Path, n_articles: int = 3, **train: object) -> Workspace:
    """A workspace that is ready for `trainer run`."""
    workspace = make_workspace(path, n_articles, {"batch": 2, "evaluate_every": 4, "checkpoint_every": 100, **train})
    pack_again(workspace)
    return workspace


def pack_again(workspace: Workspace) -> None:
    """Shuffle, tokenizer and packs, from the workspace's shards."""
    paths = TrainPaths.of(workspace)
    shuffle(workspace, 1)
    texts = record_texts(shuffled_records(paths, "train"))
    save_tokenizer(train_tokenizer(texts, workspace.settings.train.vocabulary), paths.tokenizer)
    pack(workspace)


def train_run(workspace: Workspace, run: str, **how: Any) -> Summary:
    """Train as `trainer run` does, in this process."""
    return train(workspace, plan(workspace, run), CPU, **how)


def trainer_of(workspace: Workspace, run: str, physical: int = 0) -> Trainer:
    """A model about to take its first step, `physical` contexts at once (0: as many as fit)."""
    planned = plan(workspace, run)
    trainer = Trainer(prepare(planned, CPU), Interrupt(planned.folder))
    trainer.fit(physical)
    return trainer


def small_model(kv_heads: int = 2, dtype: torch.dtype = torch.float64, seed: int = 0) -> Model:
    """Two layers, width 32, vocabulary 50."""
    torch.manual_seed(seed)
    config = ModelConfig(
        vocabulary=50, layers=2, width=32, heads=4, kv_heads=kv_heads, ffn=48, context=64, qk_norm=True
    )
    return Model(config).to(dtype)


def random_records(lengths: Sequence[int], seed: int = 0) -> list[tuple[list[int], list[int]]]:
    """Records of these lengths; the second half of each is trained on."""
    random = torch.Generator().manual_seed(seed)
    records = []
    for length in lengths:
        ids = torch.randint(1, 50, (length,), generator=random).tolist()
        records.append((ids, [0] * (length - length // 2) + [1] * (length // 2)))
    return records


def one_context(records: Sequence[tuple[Ids, Ids]], context: int = 64) -> Batch:
    return make_batch([list(records)], context, 0)
