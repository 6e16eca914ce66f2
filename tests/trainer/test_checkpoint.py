"""Checkpoints: a torn one is never taken for a whole one, and the last whole one is never lost."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from foundation.errors import Failure, UsageError
from foundation.tables import TrainSettings
from tests.support.commands import REPOSITORY
from tests.trainer.small_run import THREADS, one_context, random_records, small_model
from trainer import checkpoint, tensorfile
from trainer.checkpoint import MANIFEST, MODEL, OPTIMIZER, STATE, OtherVersion, TrainState
from trainer.model import Model
from trainer.optim import Optimizers, build_optimizers
from trainer.paths import KEEP, keep_judged
from trainer.presets import recipe

FILES = (MANIFEST, MODEL, OPTIMIZER, STATE)


def trained(steps: int = 1, seed: int = 0, optimizer: str = "adamw") -> tuple[Model, Optimizers]:
    model = small_model(dtype=torch.float32, seed=seed)
    optimizers = build_optimizers(model, recipe(TrainSettings(optimizer=optimizer)))  # type: ignore[arg-type]
    take_steps(model, optimizers, steps)
    return model, optimizers


def take_steps(model: Model, optimizers: Optimizers, steps: int) -> None:
    batch = one_context(random_records((9, 20, 5)))
    for _ in range(steps):
        optimizers.zero_grad()
        model.loss(batch, "segments").backward()
        optimizers.step()


def state_of(model: Model, step: int, phrasing: float | None = None, **more: Any) -> TrainState:
    return TrainState(
        run="test",
        step=step,
        steps=100,
        cursor=4 * step,
        tokens=1000 * step,
        supervised=500 * step,
        phrasing=phrasing,
        model=model.config,
        tokenizer="f" * 64,
        rng=checkpoint.random_state(),
        **{"identity": {}, **more},
    )


def save(folder: Path, step: int, phrasing: float | None = None, keep: int = 2) -> Path:
    model, optimizers = trained()
    manifest = folder.parent / "source.json"
    if not manifest.exists():
        manifest.write_text('{"shards": []}')
    return checkpoint.save(folder, model, optimizers, state_of(model, step, phrasing), keep=keep, manifest=manifest)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a run's checkpoints go."""
    return tmp_path / "checkpoints"


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_what_comes_back_is_what_went_in(folder: Path, optimizer: str) -> None:
    model, optimizers = trained(3, optimizer=optimizer)
    guard = (0.1, float("inf"), 1e-300, 2 / 3)
    written = state_of(model, 3, physical_batch=5, skipped=2, guard=guard, identity={"train.clip": 0.1, "x": True})
    path = checkpoint.save(folder, model, optimizers, written, keep=2, manifest=None)
    torch.rand(5)
    other, fresh = trained(0, seed=1, optimizer=optimizer)
    found = checkpoint.latest(folder)
    assert found is not None
    assert found[0] == path
    assert found[1].model_copy(update={"files": {}, "digest": ""}) == written
    checkpoint.restore(path, other, fresh)
    take_steps(model, optimizers, 2)
    take_steps(other, fresh, 2)
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), other.parameters(), strict=True))
    assert names(path) == sorted({*FILES} - {MANIFEST})


def test_the_random_state_comes_back() -> None:
    state = checkpoint.random_state()
    first = torch.rand(4)
    checkpoint.set_random_state(state)
    assert torch.equal(torch.rand(4), first)


def test_tensors_of_every_kind_are_what_safetensors_reads(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tensors = {
        "turned": torch.randn(3, 5).t(),
        "every-other": torch.arange(20)[::2],
        "a number": torch.tensor(3.0),
        "half": torch.randn(7).bfloat16(),
        "none": torch.zeros(0, 4),
        "flags": torch.tensor([True, False, True]),
        "double": torch.randn(2, 2, 2, dtype=torch.float64),
        "ärger": torch.nn.Parameter(torch.randn(3)),
    }
    digest = tensorfile.write(tmp_path / "ours", tensors)
    assert digest == hashlib.sha256((tmp_path / "ours").read_bytes()).hexdigest()
    read = load_file(tmp_path / "ours")
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert (read[name].dtype, read[name].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(read[name], tensor), name
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, tmp_path / "theirs")
    assert load_file(tmp_path / "theirs").keys() == tensors.keys()
    assert (tmp_path / "theirs").stat().st_size == (tmp_path / "ours").stat().st_size


def test_the_newest_are_kept_and_the_best(folder: Path) -> None:
    for step, phrasing in ((1, 2.0), (2, 1.0), (3, None), (4, 1.5), (5, 1.7), (6, None)):
        save(folder, step, phrasing)
    assert names(folder) == ["step-000002", "step-000005", "step-000006"]
    assert checkpoint.best(folder)[0].name == "step-000002"  # type: ignore[index]
    save(folder, 7, 0.5)
    save(folder, 8, float("nan"))
    save(folder, 9)
    assert names(folder) == ["step-000007", "step-000008", "step-000009"]
    save(folder, 10, keep=1)
    assert names(folder) == ["step-000007", "step-000010"]
    for step in range(11, 15):
        save(folder, step, keep=4)
    assert names(folder) == ["step-000007", *(f"step-{step:06d}" for step in range(11, 15))]


def test_a_marked_one_is_kept(folder: Path) -> None:
    keep_judged(save(folder, 1))
    for step in (2, 3, 4):
        save(folder, step)
    assert names(folder) == ["step-000001", "step-000003", "step-000004"]
    assert (folder / "step-000001" / KEEP).exists()
    assert checkpoint.read_state(folder / "step-000001").step == 1
    keep_judged(folder / "step-000001", kept=False)
    (folder / "step-000004" / KEEP).touch()  # by hand: the orchestrator leaves it alone
    keep_judged(folder / "step-000004", kept=False)
    for step in (5, 6, 7):
        save(folder, step)
    assert names(folder) == ["step-000004", "step-000006", "step-000007"]
    keep_judged(folder / "step-000099", kept=False)


def test_the_best_that_is_damaged_is_passed_over(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for step, phrasing in ((1, 2.0), (2, 1.0), (3, 3.0)):
        save(folder, step, phrasing, keep=3)
    assert checkpoint.best(folder)[0].name == "step-000002"  # type: ignore[index]
    flip(folder / "step-000002" / MODEL)
    assert checkpoint.best(folder)[0].name == "step-000001"  # type: ignore[index]
    assert "passed over step-000002: model.safetensors" in capsys.readouterr().err
    assert checkpoint.best(folder / "nothing") is None


def test_steps_are_numbers(folder: Path) -> None:
    for step in (999_998, 999_999, 1_000_000, 1_000_001):
        save(folder, step)
    assert names(folder) == ["step-1000000", "step-1000001"]
    (folder / "step-by-step").mkdir()
    assert checkpoint.latest(folder)[1].step == 1_000_001  # type: ignore[index]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    replace(path, bytes(data))


def empty(path: Path) -> None:
    replace(path, b"")


def replace(path: Path, data: bytes) -> None:
    """In a file of its own: the manifest of one checkpoint is that of the others."""
    path.unlink()
    path.write_bytes(data)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("harm", [cut, flip, empty, Path.unlink])
def test_a_damaged_one_is_passed_over(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str, harm: Callable[[Path], None]
) -> None:
    whole, damaged = save(folder, 1), save(folder, 2)
    if name == MANIFEST:
        replace(damaged / name, (damaged / name).read_bytes())
    harm(damaged / name)
    found = checkpoint.latest(folder)
    assert found is not None
    assert found[0] == whole
    assert found[1].step == 1
    said = capsys.readouterr().err
    assert "passed over step-000002" in said
    assert name in said
    with pytest.raises(Failure, match=name.replace(".", r"\.")) as raised:
        checkpoint.read_state(damaged)
    assert raised.value.where == str(damaged)
    assert save(folder, 2) == damaged  # trained again up to there, it takes the damaged one's place
    assert checkpoint.latest(folder)[0] == damaged  # type: ignore[index]


def test_wherever_it_is_torn_it_is_noticed(folder: Path) -> None:
    path = save(folder, 1)
    for name in FILES:
        data = (path / name).read_bytes()
        steps = {*range(0, len(data), max(1, len(data) // 40)), *range(17), len(data) - 1}
        for length in sorted(step for step in steps if step < len(data)):
            replace(path / name, data[:length])
            with pytest.raises(Failure, match=name.replace(".", r"\.")):
                checkpoint.read_state(path)
        replace(path / name, data)
        assert checkpoint.read_state(path).step == 1


def test_whichever_bit_is_flipped_it_is_noticed(folder: Path) -> None:
    path = save(folder, 1)
    for name in FILES:
        data = (path / name).read_bytes()
        for place in range(0, len(data), max(1, len(data) // 60)):
            harmed = bytearray(data)
            harmed[place] ^= 1 << place % 8
            replace(path / name, bytes(harmed))
            try:
                state = checkpoint.read_state(path)
            except Failure:
                continue
            assert name == STATE  # of a space between two values nothing depends
            assert state == checkpoint.read_state(restored(path / name, data))
        restored(path / name, data)


def restored(path: Path, data: bytes) -> Path:
    replace(path, data)
    return path.parent


def test_no_checkpoint_is_none_but_a_damaged_one_stops_the_run(folder: Path) -> None:
    assert checkpoint.latest(folder) is None
    damaged = save(folder, 1)
    cut(damaged / MODEL)
    with pytest.raises(Failure, match="none of the 1 checkpoints of this run is whole") as raised:
        checkpoint.latest(folder)
    assert "--fresh" in raised.value.mend
    assert damaged.is_dir()


def test_what_lies_behind_the_step_it_goes_on_from_is_written_anew(folder: Path) -> None:
    for step in (1, 2, 3, 4):
        save(folder, step, keep=9)
    flip(folder / "step-000004" / MODEL)
    save(folder, 3, keep=9)
    assert names(folder) == ["step-000001", "step-000002", "step-000003"]
    checkpoint.forget_after(folder, 1)
    assert names(folder) == ["step-000001"]


def test_a_number_changed_by_hand_is_noticed(folder: Path) -> None:
    path = save(folder, 1)
    text = (path / STATE).read_text()
    (path / STATE).write_text(text.replace('"cursor": 4', '"cursor": 8'))
    assert (path / STATE).read_text() != text
    with pytest.raises(Failure, match=r"state\.json is not what was written"):
        checkpoint.read_state(path)


@pytest.mark.parametrize("version", [1, 3])
def test_another_version_is_never_passed_over(folder: Path, version: int) -> None:
    save(folder, 1)
    path = save(folder, 2)
    row = json.loads((path / STATE).read_text())
    row |= {"v": version, "what": "only that version knows"}
    row["digest"] = checkpoint._digest(row) if version > 1 else "as that version took it"
    (path / STATE).write_text(json.dumps(row))
    with pytest.raises(OtherVersion, match=f"version {version}, and qpt-factory .* reads 2"):
        checkpoint.latest(folder)
    assert names(folder) == ["step-000001", "step-000002"]


def test_what_a_killed_writer_left_is_swept_up(folder: Path) -> None:
    (folder / ".tmp-dead").mkdir(parents=True)
    (folder / ".tmp-dead" / MODEL).write_bytes(b"half")
    save(folder, 1)
    assert names(folder) == ["step-000001"]


def test_the_manifest_costs_nothing_and_outlives_its_first_name(folder: Path, tmp_path: Path) -> None:
    first, second = save(folder, 1), save(folder, 2)
    source = tmp_path / "source.json"
    assert {(path / MANIFEST).stat().st_ino for path in (first, second)} == {source.stat().st_ino}
    checkpoint.pin(source, tmp_path / "pinned.json")
    checkpoint.pin(source, tmp_path / "pinned.json")
    checkpoint.pin(tmp_path / "pinned.json", tmp_path / "pinned.json")
    source.unlink()
    assert (tmp_path / "pinned.json").read_text() == '{"shards": []}'
    assert checkpoint.read_state(second).files[MANIFEST] == hashlib.sha256(b'{"shards": []}').hexdigest()
    with pytest.raises(Failure, match="manifest of this run's data is gone"):
        checkpoint.pin(source, tmp_path / "again.json")
    assert names(tmp_path) == ["checkpoints", "pinned.json"]


def test_without_hard_links_the_manifest_is_copied(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    path = save(folder, 1)
    assert (path / MANIFEST).stat().st_ino != (tmp_path / "source.json").stat().st_ino
    assert checkpoint.read_state(path).step == 1
    flip(tmp_path / "source.json")
    assert checkpoint.read_state(path).step == 1
    assert checkpoint.read_state(save(folder, 2)).files[MANIFEST] != checkpoint.read_state(path).files[MANIFEST]


def test_the_first_difference_is_named() -> None:
    model, _ = trained(0)
    state = state_of(model, 5, identity={"train.batch": 4, "model.width": 32})
    checkpoint.check_identity(state, {"train.batch": 4, "model.width": 32})
    with pytest.raises(UsageError, match=r"model\.width was 32 when run test began, and is 64 now") as raised:
        checkpoint.check_identity(state, {"train.batch": 4, "model.width": 64})
    assert "--fresh" in raised.value.mend
    with pytest.raises(UsageError, match=r"train\.batch was 4 when run test began, and is not known now"):
        checkpoint.check_identity(state, {"model.width": 32})


def test_a_setting_that_is_new_is_no_difference_while_nobody_sets_it() -> None:
    model, _ = trained(0)
    state = state_of(model, 5, identity={"train.batch": 4})
    new = {
        "train.clip": 1.0,
        "train.weight_decay": "[[0.0, 0.1], [2.0, 0.05]]",
        "mix.raw": 0.0,
        "mix.curriculum": "[]",
        "model.bias": False,
    }
    checkpoint.check_identity(state, {"train.batch": 4, **new})
    for key, other in (("train.clip", 0.5), ("mix.curriculum", '[{"raw": 0.5}]'), ("model.width", 32), ("compiled", 1)):
        with pytest.raises(UsageError, match=rf"{key} was not known when run test began, and is "):
            checkpoint.check_identity(state, {"train.batch": 4, **new, key: other})


def test_saving_needs_no_second_copy_in_memory(folder: Path) -> None:
    """A process that holds 240 MB of weights and moments may grow by one tensor of 20 MB, and a little, as it saves."""
    code = """
import sys, torch
from pathlib import Path
from tests.trainer.test_checkpoint import state_of, small_model
from trainer import checkpoint, hardware
class Big(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.tables = torch.nn.ParameterList(torch.ones(1000, 5000).t() for _ in range(4))
class Moments:
    def __init__(self): self.own = {f"{n}/{k}": torch.ones(1000, 5000).t() for n in range(4) for k in "ab"}
    def tensors(self): return self.own
    def load(self, tensors): pass
model, moments, state = Big(), Moments(), state_of(small_model(), 1)
checkpoint.save(Path(sys.argv[1]) / "small", small_model(), type("None", (), {"tensors": dict})(), state, keep=1, manifest=None)
before = hardware.memory_peak(torch.device("cpu"))
path = checkpoint.save(Path(sys.argv[1]), model, moments, state, keep=1, manifest=None)
print((hardware.memory_peak(torch.device("cpu")) - before) // 2**20)
assert checkpoint.read_state(path).step == 1
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        capture_output=True,
        text=True,
        env={**os.environ, **THREADS, "PYTHONPATH": str(REPOSITORY)},
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 60
