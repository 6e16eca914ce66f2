"""What is fixed before a run's first step: data, shape, device, precision, and what makes the run this run.

Guarantees: packs, tokenizer and preset fit each other, or one clear error says what to do. Cost: opens memory-mapped
files; imports torch.
"""

from __future__ import annotations

import math
import random
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from foundation.errors import UsageError
from foundation.ids import seed_of, stable_id
from foundation.records import Split
from trainer.attention import Backend, choose_backend
from trainer.pack import PackedData
from trainer.paths import TrainPaths, run_folder
from trainer.presets import model_config, recipe
from trainer.shape import ModelConfig
from trainer.tokenizer import tokenizer_sha

if TYPE_CHECKING:
    from foundation.tables import TrainSettings
    from foundation.workspace import Workspace

HELD_OUT: tuple[Split, ...] = ("phrasing", "unseen")
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Setup:
    """All that is fixed before the first step."""

    run: str
    folder: Path
    settings: TrainSettings
    config: ModelConfig
    data: PackedData
    held_out: dict[Split, PackedData]
    device: torch.device
    precision: Precision
    backend: Backend
    tokenizer: str

    @property
    def contexts(self) -> int:
        """Contexts to be consumed through all epochs; the last step may hold fewer than the others."""
        return math.ceil(self.settings.epochs * len(self.data))

    @property
    def steps(self) -> int:
        return math.ceil(self.contexts / self.settings.batch)

    @property
    def identity(self) -> dict[str, str | int | float | bool]:
        """What makes this run this run. Left out: how often it saves and looks at itself, and how rounds cut it."""
        free = {"checkpoint_every", "evaluate_every", "rounds", "vocabulary"}
        return {
            **{f"train.{key}": value for key, value in self.settings.model_dump(exclude=free).items()},
            **{f"model.{key}": value for key, value in self.config.model_dump().items()},
            "tokenizer": self.tokenizer[:16],
            "packs": stable_id("packs", self.data.meta.model_dump_json()),
            "device": self.device.type,
            "precision": self.precision,
        }


def choose_device(asked: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """`auto`: the GPU if there is one. Raises `UsageError` if a GPU is asked for and there is none."""
    if asked == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            "a CUDA GPU was asked for, and torch finds none",
            where="--device cuda",
            mend="use --device cpu, or leave it out",
        )
    return torch.device("cuda" if asked != "cpu" and torch.cuda.is_available() else "cpu")


def choose_precision(device: torch.device) -> Precision:
    """bfloat16 where matrix products have it in hardware (twice as fast on such a CPU, ten times slower on others)."""
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    try:
        flags = set(Path("/proc/cpuinfo").read_text("ascii", "replace").split())
    except OSError:
        return "float32"
    return "bfloat16" if flags & {"avx512_bf16", "amx_bf16"} else "float32"


def prepare(workspace: Workspace, run: str, device: torch.device) -> Setup:
    """Open the data and fix the shape of a run. Raises `UsageError` if packs or tokenizer are missing or do not match."""
    paths, settings = TrainPaths.of(workspace), recipe(workspace.settings.train)
    sha = tokenizer_sha(paths.tokenizer)
    data = PackedData.open(paths.pack("train"), tokenizer_sha=sha)
    if not data.meta.supervised:
        raise UsageError(
            "the packs hold nothing to learn from",
            where=str(data.folder),
            mend="generate records, then shuffle and pack",
        )
    held_out = {split: PackedData.open(paths.pack(split), tokenizer_sha=sha) for split in HELD_OUT}
    return Setup(
        run=run,
        folder=run_folder(workspace, run),
        settings=settings,
        config=model_config(settings.preset, data.meta.vocabulary, data.meta.context),
        data=data,
        held_out=held_out,
        device=device,
        precision=choose_precision(device),
        backend=choose_backend(device),
        tokenizer=sha,
    )


def pack_order(seed: int, epoch: int, packs: int) -> list[int]:
    """The order of the contexts in one epoch: a permutation that is a function of the arguments alone."""
    order = list(range(packs))
    random.Random(seed_of("epoch", seed, epoch)).shuffle(order)
    return order


def git_revision() -> str:
    """Short revision of this code, `-dirty` behind it if it was changed since; "no git" where it is under none."""
    here = Path(__file__)
    try:
        for command in (
            ("ls-files", "--error-unmatch", here.name),
            ("describe", "--always", "--dirty", "--exclude", "*"),
        ):
            done = subprocess.run(
                ("git", *command), cwd=here.parent, capture_output=True, text=True, check=True, timeout=10
            )
    except (OSError, subprocess.SubprocessError):
        return "no git"
    return done.stdout.strip()
