"""Checkpoints: weights, optimizer, random state, data and cursor of one step, seen whole or not at all.

One folder a checkpoint, `step-NNNNNN/`: `model.safetensors`, `optimizer.safetensors`, `manifest.json` (the shards the run
reads, pinned: a hard link where the file system has them, so that it costs nothing), `state.json`. No pickle.
Guarantees: written under a temporary name, flushed to disk, then renamed; each file's SHA-256 stands in `state.json`,
which carries its own, so a torn or changed checkpoint is passed over for the one before, and a line says so. The newest
ones are kept, the newest that no stop asked for, the one with the lowest loss on the `phrasing` split, and every one that
has a file named `keep` in it. One written by another version of this program is never passed over, nor removed. One writer
at a time: the caller holds a lock.
Cost: 12 bytes a parameter on disk with AdamW, 8 for what Muon steps; one tensor's copy in memory; half a second for 10
million parameters, most of it for the disk and the checksum.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from pydantic import BaseModel, Field, ValidationError

from foundation.console import say
from foundation.errors import Failure, UsageError
from foundation.parse import installed
from foundation.records import Contract
from foundation.tables import MixSettings, TrainSettings
from trainer import tensorfile
from trainer.paths import KEEP, sync_path
from trainer.shape import ModelConfig

if TYPE_CHECKING:
    from torch import Tensor

MODEL, OPTIMIZER, MANIFEST, STATE = "model.safetensors", "optimizer.safetensors", "manifest.json", "state.json"
PREFIX, TEMPORARY = "step-", ".tmp-"
VERSION = 2
MEND = "use the checkpoint before it, or train again"

Plain = str | int | float | bool
_known: dict[tuple[int, ...], str] = {}  # the checksum of the manifest that was pinned last, by what its file is


class Optimizers(Protocol):
    """What a checkpoint asks of `trainer.optim.Optimizers`: its state as plain tensors, by name."""

    def tensors(self) -> dict[str, Tensor]: ...
    def load(self, tensors: dict[str, Tensor]) -> None: ...


class OtherVersion(Failure):
    """A whole checkpoint that another version of this program wrote: not to be passed over."""


class TrainState(Contract):
    """All but the tensors. `identity` is what must be the same for a run to go on: settings, model, data, precision.

    `cursor`: contexts consumed, counted through all epochs. `phrasing`: held-out loss, where it was measured at this very
    step. `rng`: torch's random state, in hexadecimal. `physical_batch`: contexts in memory at once. `skipped`: steps the
    guard left out so far; `guard`: what else it knows. `files`: SHA-256 by name. `digest`: SHA-256 of the rest of this.
    """

    v: Literal[2] = 2
    run: str
    step: int
    steps: int
    cursor: int
    tokens: int
    supervised: int
    phrasing: float | None
    model: ModelConfig
    tokenizer: str
    identity: dict[str, Plain]
    rng: dict[str, str]
    physical_batch: int = 0
    skipped: int = 0
    guard: tuple[float, ...] = ()
    files: dict[str, str] = Field(default_factory=dict)
    digest: str = ""


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


def save(
    folder: Path,
    model: torch.nn.Module,
    optimizers: Optimizers,
    state: TrainState,
    *,
    keep: int,
    manifest: Path | None,
    every: int = 0,
) -> Path:
    """Write a checkpoint into `folder` (all of a run's), then remove those that are no longer wanted. Returns its path.

    Kept: the newest `keep`, the best, the marked ones, and the newest at a multiple of `every` steps. Any of a later step is of a course that was given up, or
    damaged: it goes. Raises `Failure` if the disk refuses; the checkpoints that stood before then still stand.
    """
    fresh = folder / f"{TEMPORARY}{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        fresh.mkdir()
        files = {
            MODEL: tensorfile.write(fresh / MODEL, dict(model.named_parameters())),
            OPTIMIZER: tensorfile.write(fresh / OPTIMIZER, optimizers.tensors()),
        }
        if manifest is not None:
            pin(manifest, fresh / MANIFEST)
            files[MANIFEST] = _sha256_once(fresh / MANIFEST)
        _write_state(fresh / STATE, state.model_copy(update={"files": files, "digest": ""}))
        sync_path(fresh)
        target = folder / folder_name(state.step)
        _discard(target)  # a damaged one of this very step
        fresh.rename(target)
        sync_path(folder)
    except OSError as error:
        raise Failure(
            f"the checkpoint of step {state.step} could not be written: {error.strerror or error}",
            where=str(folder),
            mend="make room there, then run the same command again: the checkpoints before it are whole",
        ) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    forget_after(folder, state.step)
    _prune(folder, keep, every)
    return target


def latest(folder: Path, every: int = 0) -> tuple[Path, TrainState] | None:
    """The newest whole checkpoint in `folder`; None if there are none. Says which ones it had to pass over.

    `every`: one at a multiple of so many steps before any other; those a run has however it was cut.
    Raises `Failure` if none of them is whole, and `OtherVersion` rather than pass over what another version wrote: a run
    does not begin anew, and write over what is left of it, unless it is told to.
    """
    paths = _all(folder)
    found = _first_whole(sorted(paths, key=lambda path: (_regular(path, every), _step(path)), reverse=True))
    if paths and found is None:
        raise Failure(
            f"none of the {len(paths)} checkpoints of this run is whole",
            where=str(folder),
            mend="put a copy of one back, name another run with --run, or begin this one anew with --fresh",
        )
    return found


def best(folder: Path) -> tuple[Path, TrainState] | None:
    """The whole checkpoint in `folder` with the lowest loss on the `phrasing` split; None if it was measured at none."""
    losses = _losses(folder)
    return _first_whole(sorted(losses, key=lambda path: (losses[path], -_step(path))))


def read_state(path: Path) -> TrainState:
    """Check a checkpoint against its own checksums and return its state. Raises `Failure` if it is torn or changed."""
    try:
        data = (path / STATE).read_bytes()
        state = _parse(data, path)
        for name, wanted in state.files.items():
            if _sha256(path / name) != wanted:
                raise Failure(f"{name} is not what was written", where=str(path), mend=MEND)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise Failure(f"there is no {Path(error.filename).name}", where=str(path), mend=MEND) from error
    return state


def check_identity(state: TrainState, now: Mapping[str, Plain]) -> None:
    """Raises `UsageError` that names the first thing in which this run is not the one that was begun.

    A setting that did not exist when the run began is no difference while it stands at its default.
    """
    for key in [*state.identity, *(key for key in now if key not in state.identity)]:
        if key not in state.identity and now[key] == _default(key):
            continue
        then, today = state.identity.get(key, "not known"), now.get(key, "not known")
        if then != today:
            what = {
                "packs": "the packs are not those",
                "tokenizer": "the tokenizer is not the one",
                "model.vocabulary": "the tokenizer has another number of tokens than the one",
            }.get(key)
            if what:
                raise UsageError(
                    f"{what} that run {state.run} began with ({then}, and now {today})",
                    where=f"step {state.step} of run {state.run}",
                    mend="name another run with --run, or begin this one anew with --fresh",
                )
            raise UsageError(
                f"{key} was {then} when run {state.run} began, and is {today} now",
                where=f"step {state.step} of run {state.run}",
                mend="set it back, name another run with --run, or begin this one anew with --fresh",
            )


def restore(path: Path, model: torch.nn.Module, optimizers: Optimizers) -> None:
    """Load weights and optimizer state in place. The caller has checked it with `read_state`."""
    load_weights(path, model)
    optimizers.load(_load(path / OPTIMIZER))


def load_weights(path: Path, model: torch.nn.Module) -> None:
    """Load a checkpoint's weights in place, onto the model's device. The caller has checked it with `read_state`."""
    model.load_state_dict(_load(path / MODEL))


def pin(manifest: Path, target: Path) -> None:
    """Give the manifest of a run's data a second name, which stays when the data are packed anew.

    A hard link, or a copy where there can be none. Raises `Failure` if there is no manifest.
    """
    fresh = target.with_name(f"{TEMPORARY}{uuid.uuid4().hex}")
    try:
        os.link(manifest, fresh)
    except FileNotFoundError as error:
        mend = "pack the same records again with `trainer pack`, or begin this run anew with --fresh"
        raise Failure("the manifest of this run's data is gone", where=str(manifest), mend=mend) from error
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(manifest, fresh)
        sync_path(fresh)
    os.replace(fresh, target)
    fresh.unlink(missing_ok=True)  # still there if both were one file already


def forget_after(folder: Path, step: int) -> None:
    """Remove every checkpoint of a later step: what a run goes back over is written anew."""
    for path in _all(folder):
        if _step(path) > step:
            _discard(path)


def _parse(data: bytes, path: Path) -> TrainState:
    try:
        row = json.loads(data)
        version, digest = row["v"], row["digest"]
    except (ValueError, KeyError, TypeError) as error:
        raise Failure(f"{STATE} cannot be read", where=str(path), mend=MEND) from error
    if version == 1 or (version != VERSION and digest == _digest(row)):  # the first version took its digest otherwise
        raise OtherVersion(
            f"another version of this program wrote this checkpoint: version {version}, and {installed()} reads {VERSION}",
            where=str(path),
            mend="go on with the one that wrote it, name another run with --run, or begin this one anew with --fresh",
        )
    if digest != _digest(row):
        raise Failure(f"{STATE} is not what was written", where=str(path), mend=MEND)
    try:
        return TrainState.model_validate_json(data)
    except ValidationError as error:
        raise Failure(f"{STATE} cannot be read", where=str(path), mend=MEND) from error


def _write_state(path: Path, state: TrainState) -> None:
    row = state.model_dump()
    row["digest"] = _digest(row)
    with open(path, "xb") as file:
        file.write(json.dumps(row, indent=1).encode())
        file.flush()
        os.fsync(file.fileno())


def _digest(row: dict[str, Any]) -> str:
    rest = {key: value for key, value in row.items() if key != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _sha256_once(path: Path) -> str:
    """Once a run, not once a checkpoint: the manifest of 400,000 shards has 60 MB."""
    found = path.stat()
    key = found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
    if key not in _known:
        _known.clear()
        _known[key] = _sha256(path)
    return _known[key]


def _default(key: str) -> Plain | None:
    """What a setting of this name in an identity is when nobody sets it; None if it has no default."""
    table, _, name = key.partition(".")
    kinds: dict[str, type[BaseModel]] = {"train": TrainSettings, "mix": MixSettings, "model": ModelConfig}
    field = kinds[table].model_fields.get(name) if table in kinds else None
    if field is None or field.is_required():
        return None
    value = field.get_default(call_default_factory=True)
    return value if isinstance(value, Plain) else json.dumps(value, sort_keys=True)


def _load(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(path)


def _step(path: Path) -> int:
    return int(path.name.removeprefix(PREFIX))


def _all(folder: Path) -> list[Path]:
    """Every checkpoint's folder, whole or not, in the order of their steps."""
    return sorted((path for path in folder.glob(f"{PREFIX}*") if path.name.removeprefix(PREFIX).isdecimal()), key=_step)


def _first_whole(paths: Iterable[Path]) -> tuple[Path, TrainState] | None:
    for path in paths:
        try:
            return path, read_state(path)
        except OtherVersion:
            raise
        except Failure as error:
            say(f"passed over {path.name}: {error.what}")
    return None


def _losses(folder: Path) -> dict[Path, float]:
    """The loss on the `phrasing` split where one was measured. Reads states alone: no checksum of the tensors."""
    losses = {}
    for path in _all(folder):
        with contextlib.suppress(OSError, Failure):
            loss = _parse((path / STATE).read_bytes(), path).phrasing
            if loss is not None and math.isfinite(loss):
                losses[path] = loss
    return losses


def _regular(path: Path, every: int) -> bool:
    """Whether it is no checkpoint that only a stop left."""
    return every > 0 and _step(path) % every == 0


def _prune(folder: Path, keep: int, every: int) -> None:
    paths, losses = _all(folder), _losses(folder)
    lowest = min(losses, key=lambda path: (losses[path], -_step(path)), default=None)
    regular = next((path for path in reversed(paths) if _regular(path, every)), None)
    for path in paths[:-keep]:
        if path not in (lowest, regular) and not (path / KEEP).exists():
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
