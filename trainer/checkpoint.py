"""Checkpoints: weights, optimizer, random state and data cursor of one step, seen whole or not at all.

One folder a checkpoint, `step-NNNNNN/`: `model.safetensors`, `optimizer.safetensors`, `state.json`. No pickle.
Guarantees: written under a temporary name, flushed to disk, then renamed; each file's SHA-256 stands in `state.json`,
which carries its own, so a torn or changed checkpoint is passed over for the one before, and a line says so. The last
two are kept, and the one with the lowest loss on the `phrasing` split. One writer at a time: the caller holds a lock.
Cost: 12 bytes a parameter on disk; about 0.2 s for 4 million parameters.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from pydantic import Field, ValidationError

from foundation.console import say
from foundation.errors import Failure, UsageError
from foundation.records import Contract
from trainer.shape import ModelConfig

if TYPE_CHECKING:
    from torch import Tensor

MODEL, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"
KEPT = 2
PREFIX, TEMPORARY = "step-", ".tmp-"


class TrainState(Contract):
    """All but the tensors. `identity` is what must be the same for a run to go on: settings, model, data, precision.

    `cursor`: contexts consumed, counted through all epochs. `phrasing`: held-out loss, where it was measured at this very
    step. `rng`: torch's random state, in hexadecimal. `files`: SHA-256 by name. `digest`: SHA-256 of all the rest of this.
    """

    v: Literal[1] = 1
    run: str
    step: int
    steps: int
    cursor: int
    tokens: int
    supervised: int
    phrasing: float | None
    model: ModelConfig
    tokenizer: str
    identity: dict[str, str | int | float | bool]
    rng: dict[str, str]
    files: dict[str, str] = Field(default_factory=dict)
    digest: str = ""

    def sealed(self, files: dict[str, str]) -> TrainState:
        whole = self.model_copy(update={"files": files, "digest": ""})
        return whole.model_copy(update={"digest": hashlib.sha256(whole.model_dump_json().encode()).hexdigest()})


def folder_name(step: int) -> str:
    return f"{PREFIX}{step:06d}"


def random_state() -> dict[str, str]:
    """torch's random state on the CPU and, where there is one, on the GPU."""
    state = {"cpu": torch.get_rng_state().numpy().tobytes().hex()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state().numpy().tobytes().hex()
    return state


def set_random_state(state: dict[str, str]) -> None:
    def tensor(text: str) -> Tensor:
        return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)

    torch.set_rng_state(tensor(state["cpu"]))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensor(state["cuda"]))


def save(folder: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, state: TrainState) -> Path:
    """Write a checkpoint into `folder` (all of a run's), then remove those that are no longer wanted. Returns its path.

    Raises `Failure` or OSError if the disk refuses; the checkpoints that stood before then still stand.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    fresh = folder / f"{TEMPORARY}{uuid.uuid4().hex}"
    fresh.mkdir()
    try:
        save_file(dict(model.named_parameters()), fresh / MODEL)
        save_file(_optimizer_tensors(model, optimizer), fresh / OPTIMIZER)
        sealed = state.sealed({name: _sha256(fresh / name) for name in (MODEL, OPTIMIZER)})
        (fresh / STATE).write_text(sealed.model_dump_json(indent=1), "utf-8")
        for path in (fresh / MODEL, fresh / OPTIMIZER, fresh / STATE, fresh):
            _sync(path)
        target = folder / folder_name(state.step)
        _discard(target)  # a damaged one of this very step
        fresh.rename(target)
        _sync(folder)
    except SafetensorError as error:
        raise Failure(
            f"the checkpoint of step {state.step} could not be written: {error}",
            where=str(folder),
            mend="make room there, then run the same command again: the checkpoints before it are whole",
        ) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    _prune(folder)
    return target


def latest(folder: Path) -> tuple[Path, TrainState] | None:
    """The newest whole checkpoint in `folder`, or None. Says which ones it had to pass over."""
    for path in sorted(folder.glob(f"{PREFIX}*"), reverse=True):
        try:
            return path, read_state(path)
        except Failure as error:
            say(f"passed over {path.name}: {error.what}")
    return None


def read_state(path: Path) -> TrainState:
    """Check a checkpoint against its own checksums and return its state. Raises `Failure` if it is torn or changed."""
    mend = "use the checkpoint before it, or train again"
    try:
        state = TrainState.model_validate_json((path / STATE).read_bytes())
        if state.sealed(state.files).digest != state.digest:
            raise Failure(f"{STATE} is not what was written", where=str(path), mend=mend)
        for name, wanted in state.files.items():
            if _sha256(path / name) != wanted:
                raise Failure(f"{name} is not what was written", where=str(path), mend=mend)
    except FileNotFoundError as error:
        raise Failure(f"there is no {Path(error.filename).name}", where=str(path), mend=mend) from error
    except ValidationError as error:
        raise Failure(f"{STATE} cannot be read", where=str(path), mend=mend) from error
    return state


def check_identity(state: TrainState, now: dict[str, str | int | float | bool]) -> None:
    """Raises `UsageError` that names the first thing in which this run is not the one that was begun."""
    for key in [*state.identity, *now]:
        then, today = state.identity.get(key), now.get(key)
        if then != today:
            raise UsageError(
                f"{key} was {then} when run {state.run} began, and is {today} now",
                where=f"step {state.step} of run {state.run}",
                mend="set it back, name another run with --run, or begin this one anew with --fresh",
            )


def restore(path: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Load weights and optimizer state in place."""
    load_weights(path, model)
    tensors = _load(path / OPTIMIZER)
    for name, parameter in model.named_parameters():
        device = parameter.device
        optimizer.state[parameter] = {
            key.rpartition("/")[2]: value.to(device) for key, value in tensors.items() if key.startswith(f"{name}/")
        }


def load_weights(path: Path, model: torch.nn.Module) -> None:
    """Load a checkpoint's weights in place. The caller has checked it with `read_state`."""
    model.load_state_dict(_load(path / MODEL))


def _optimizer_tensors(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{name}/{key}": value
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state[parameter].items()
    }


def _load(path: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(path)


def _prune(folder: Path) -> None:
    paths = sorted(folder.glob(f"{PREFIX}*"))
    losses = {}
    for path in paths:
        try:
            state = TrainState.model_validate_json((path / STATE).read_bytes())
        except (OSError, ValidationError):
            continue
        if state.phrasing is not None:
            losses[path] = state.phrasing
    best = min(losses, key=lambda path: losses[path], default=None)
    for path in paths[:-KEPT]:
        if path != best:
            _discard(path)


def _discard(path: Path) -> None:
    """Out of sight in one step, then removed file by file."""
    if path.exists():
        doomed = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex}")
        path.rename(doomed)
        shutil.rmtree(doomed)


def _sweep(folder: Path) -> None:
    for path in folder.glob(f"{TEMPORARY}*"):
        shutil.rmtree(path, ignore_errors=True)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
