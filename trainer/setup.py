"""What is fixed before a run's first step, as far as torch is needed to know it: device, precision, attention, compilation.

Guarantees: what cannot run here is one clear error before anything is loaded. Cost: imports torch (about 2 s).
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from foundation.console import say
from foundation.errors import UsageError
from foundation.records import Split
from trainer.attention import Backend, choose_backend
from trainer.epochs import Epochs
from trainer.pack import PackedData
from trainer.plan import Identity, Plan

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

HELD_OUT: tuple[Split, ...] = ("phrasing", "unseen")
EVALUATED = 32  # contexts of a held-out split that a validation loss is taken over, at most
WORTH_COMPILING = 5_000_000  # tokens of a run on a CPU: below, half a minute of compiling is not won back
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class HeldOut:
    """The contexts of a held-out split that a loss is taken over, each given by its record numbers."""

    data: PackedData
    contexts: list[NDArray[np.int32]]


@dataclass(frozen=True)
class Setup:
    """All that is fixed before the first step."""

    plan: Plan
    held_out: dict[Split, HeldOut]
    device: torch.device
    precision: Precision
    backend: Backend
    compiled: bool

    @property
    def identity(self) -> Identity:
        """What makes this run this run: to the last bit, on a CPU."""
        return {
            **self.plan.identity,
            "device": self.device.type,
            "precision": self.precision,
            "compiled": self.compiled,
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


def choose_compiled(plan: Plan, device: torch.device) -> bool:
    """Whether to compile the model. Raises `UsageError` if that is asked for and no C++ compiler is found for a CPU."""
    asked = plan.settings.compile
    compiler = device.type != "cpu" or any(shutil.which(name) for name in ("g++", "clang++", "c++"))
    if asked == "on" and not compiler:
        raise UsageError(
            "torch.compile needs a C++ compiler on a CPU, and none is on PATH",
            where="train.compile in factory.toml",
            mend='install g++, or set train.compile = "off"',
        )
    if asked != "auto":
        return asked == "on"
    tokens = plan.epochs.contexts * plan.data.meta.context
    return compiler and (device.type != "cpu" or tokens >= WORTH_COMPILING)


def prepare(plan: Plan, device: torch.device) -> Setup:
    """Fix how a run is computed. Raises `UsageError` if that cannot be done here."""
    held_out = {}
    for split in HELD_OUT:
        data = PackedData.open(plan.paths.pack(split), tokenizer_sha=plan.tokenizer)
        if data.meta.records:
            everything = Epochs(data, type(plan.mix)(), seed=plan.settings.seed, epochs=1)
            held_out[split] = HeldOut(data, everything.take(0, EVALUATED))
    setup = Setup(
        plan=plan,
        held_out=held_out,
        device=device,
        precision=choose_precision(device),
        backend=choose_backend(device),
        compiled=choose_compiled(plan, device),
    )
    if device.type == "cuda" and setup.precision == "float32":
        say(
            f"{torch.cuda.get_device_name(device)} has no bfloat16 in hardware: training in float32, several times slower"
        )
    return setup


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
