"""Checkpoints: a torn one is never taken for a whole one, and the last whole one is never lost."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from foundation.errors import Failure, UsageError
from foundation.tables import TrainSettings
from tests.trainer.small_run import one_context, random_records, small_model
from trainer import checkpoint
from trainer.checkpoint import MODEL, OPTIMIZER, STATE, TrainState
from trainer.model import Model
from trainer.optim import build_optimizer

FILES = (MODEL, OPTIMIZER, STATE)


def trained(steps: int = 1, seed: int = 0) -> tuple[Model, torch.optim.Optimizer]:
    model = small_model(dtype=torch.float32, seed=seed)
    optimizer = build_optimizer(model, TrainSettings())
    take_steps(model, optimizer, steps)
    return model, optimizer


def take_steps(model: Model, optimizer: torch.optim.Optimizer, steps: int) -> None:
    batch = one_context(random_records((9, 20, 5)))
    for _ in range(steps):
        optimizer.zero_grad()
        model.loss(batch, "segments").backward()
        optimizer.step()


def state_of(model: Model, step: int, phrasing: float | None = None, **identity: str | int | float) -> TrainState:
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
        identity=identity,
        rng=checkpoint.random_state(),
    )


def save(folder: Path, step: int, phrasing: float | None = None) -> Path:
    model, optimizer = trained()
    return checkpoint.save(folder, model, optimizer, state_of(model, step, phrasing))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_comes_back_is_what_went_in(tmp_path: Path) -> None:
    model, optimizer = trained(3)
    path = checkpoint.save(tmp_path, model, optimizer, state_of(model, 3))
    torch.rand(5)
    other, fresh = trained(0, seed=1)
    found = checkpoint.latest(tmp_path)
    assert found is not None
    assert found[0] == path
    checkpoint.restore(path, other, fresh)
    for here, there in ((model, other),):
        take_steps(here, optimizer, 2)
        take_steps(there, fresh, 2)
        assert all(torch.equal(one, two) for one, two in zip(here.parameters(), there.parameters(), strict=True))
    assert names(path) == sorted(FILES)


def test_the_random_state_comes_back() -> None:
    state = checkpoint.random_state()
    first = torch.rand(4)
    checkpoint.set_random_state(state)
    assert torch.equal(torch.rand(4), first)


def test_two_are_kept_and_the_best(tmp_path: Path) -> None:
    for step, phrasing in ((1, 2.0), (2, 1.0), (3, None), (4, 1.5), (5, 1.7), (6, None)):
        save(tmp_path, step, phrasing)
    assert names(tmp_path) == ["step-000002", "step-000005", "step-000006"]
    save(tmp_path, 7, 0.5)
    save(tmp_path, 8)
    save(tmp_path, 9)
    assert names(tmp_path) == ["step-000007", "step-000008", "step-000009"]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("harm", [cut, flip, empty, Path.unlink])
def test_a_damaged_one_is_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, harm) -> None:  # type: ignore[no-untyped-def]
    whole, damaged = save(tmp_path, 1), save(tmp_path, 2)
    harm(damaged / name)
    found = checkpoint.latest(tmp_path)
    assert found is not None
    assert found[0] == whole
    assert found[1].step == 1
    said = capsys.readouterr().err
    assert "passed over step-000002" in said
    assert name in said
    assert save(tmp_path, 2) == damaged  # trained again up to there, it takes the damaged one's place
    assert checkpoint.latest(tmp_path)[0] == damaged  # type: ignore[index]


def test_none_is_none(tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path / "nothing") is None
    damaged = save(tmp_path, 1)
    cut(damaged / MODEL)
    assert checkpoint.latest(tmp_path) is None


def test_a_number_changed_by_hand_is_noticed(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    text = (path / STATE).read_text()
    (path / STATE).write_text(text.replace('"cursor": 4', '"cursor": 8'))
    assert (path / STATE).read_text() != text
    with pytest.raises(Failure, match=r"state\.json is not what was written"):
        checkpoint.read_state(path)


def test_what_a_killed_writer_left_is_swept_up(tmp_path: Path) -> None:
    (tmp_path / ".tmp-dead").mkdir()
    (tmp_path / ".tmp-dead" / MODEL).write_bytes(b"half")
    save(tmp_path, 1)
    assert names(tmp_path) == ["step-000001"]


def test_the_first_difference_is_named() -> None:
    model, _ = trained(0)
    state = state_of(model, 5, **{"train.batch": 4, "model.width": 32})
    checkpoint.check_identity(state, {"train.batch": 4, "model.width": 32})
    with pytest.raises(UsageError, match=r"model\.width was 32 when run test began, and is 64 now"):
        checkpoint.check_identity(state, {"train.batch": 4, "model.width": 64})
    with pytest.raises(UsageError, match=r"model\.qk_norm was None"):
        checkpoint.check_identity(state, {"train.batch": 4, "model.width": 32, "model.qk_norm": 1})
