"""The optimizers: who is stepped by what, what decays, and that their state is saved and loaded to the last bit."""

from __future__ import annotations

import math
import weakref
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from foundation.errors import Failure, UsageError
from foundation.tables import TrainSettings
from tests.trainer.small_run import one_context, random_records, small_model
from trainer.model import Model
from trainer.optim import Optimizers, build_optimizers
from trainer.shape import ModelConfig

BOTH = pytest.mark.parametrize("optimizer", ["adamw", "muon"])
BATCH = one_context(random_records([12, 20, 30]))


def settings(optimizer: str = "adamw", **more: object) -> TrainSettings:
    return TrainSettings.model_validate({"optimizer": optimizer, "learning_rate": 1e-2, "weight_decay": 0.1} | more)


def model_like_gpt2() -> Model:
    """Untied, with learned positions and biases."""
    torch.manual_seed(0)
    return Model(
        ModelConfig(
            vocabulary=50, layers=2, width=32, heads=4, kv_heads=4, ffn=48, context=64, norm="layernorm",
            positions="learned", activation="gelu", bias=True, tied=False,
        )
    )  # fmt: skip


def llama() -> Model:
    """Tied, with rotary positions, SwiGLU and grouped queries."""
    return small_model(dtype=torch.float32)


MODELS = {"llama": llama, "gpt2": model_like_gpt2}
EACH = pytest.mark.parametrize("family", MODELS)


def backward(model: Model) -> float:
    """Gradients of one batch; returns its loss per token."""
    loss = model.loss(BATCH, "segments") / BATCH.n_supervised
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.item()


def weights(model: Model) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


@BOTH
@EACH
def test_matrices_of_products_decay_and_nothing_else(family: str, optimizer: str) -> None:
    # given gradients of zero, so that only decay moves a weight
    model = MODELS[family]()
    optimizers = build_optimizers(model, settings(optimizer))
    torch.manual_seed(1)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
        parameter.grad = torch.zeros_like(parameter)
    before = weights(model)
    # when a step is taken
    optimizers.set(0.01, 0.5)
    optimizers.step()
    # then the blocks' matrices and the head shrink, and norms, biases and tables that are only looked up do not
    head = "lm_head.weight" if family == "gpt2" else "embedding.weight"
    for name, after in weights(model).items():
        decays = name == head or (name.startswith("blocks.") and before[name].dim() == 2)
        expected = before[name] * (1 - 0.01 * 0.5) if decays else before[name]
        assert torch.allclose(after, expected, rtol=1e-6, atol=0) and (decays or torch.equal(after, expected)), name


@BOTH
@EACH
def test_every_weight_is_stepped_by_one_optimizer(family: str, optimizer: str) -> None:
    model = MODELS[family]()
    state = build_optimizers(model, settings(optimizer)).tensors()
    kinds: dict[str, set[str]] = {name: set() for name, _ in model.named_parameters()}
    for name in state:
        kinds[name.rpartition("/")[0]].add(name.rpartition("/")[2])
    for name, parameter in model.named_parameters():
        by_muon = optimizer == "muon" and name.startswith("blocks.") and parameter.dim() == 2
        assert kinds[name] == ({"momentum_buffer"} if by_muon else {"step", "exp_avg", "exp_avg_sq"}), name


def test_the_state_is_as_large_as_is_said() -> None:
    model = llama()
    matrices = sum(it.numel() for it in model.blocks.parameters() if it.dim() == 2)
    for optimizer, expected in (("adamw", 8 * model.num_parameters), ("muon", 8 * model.num_parameters - 4 * matrices)):
        state = build_optimizers(model, settings(optimizer)).tensors()
        assert sum(it.nbytes for name, it in state.items() if not name.endswith("/step")) == expected


def test_adamw_against_its_formula() -> None:
    model = llama()
    optimizers = build_optimizers(model, settings())
    reference = {name: it.double() for name, it in weights(model).items()}
    first = {name: torch.zeros_like(it) for name, it in reference.items()}
    second = {name: torch.zeros_like(it) for name, it in reference.items()}
    for step in range(1, 5):
        optimizers.set(rate := 0.01 / step, decay := 0.1 * step)
        optimizers.zero_grad()
        backward(model)
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            gradient = parameter.grad.double()
            first[name] = 0.9 * first[name] + 0.1 * gradient
            second[name] = 0.95 * second[name] + 0.05 * gradient**2
            decayed = reference[name] * (1 - rate * decay * (parameter.dim() == 2))
            size = (second[name] / (1 - 0.95**step)).sqrt() + 1e-8
            reference[name] = decayed - rate * first[name] / (1 - 0.9**step) / size
        optimizers.step()
    for name, parameter in model.named_parameters():
        assert torch.allclose(parameter.double(), reference[name], rtol=1e-4, atol=1e-6), name


def test_matrices_laid_in_one_are_orthogonalised_apart() -> None:
    # given the same gradients for a model and for its matrices cut apart, stepped by torch's own Muon
    model = llama()
    optimizers = build_optimizers(model, settings("muon"))
    config, block = model.config, model.blocks[0]
    rows = {"attention.qkv": [32, 16, 16], "attention.out": [32], "ffn.up": [48, 48], "ffn.down": [32]}
    assert rows["attention.qkv"] == [config.head_size * heads for heads in (4, 2, 2)]
    apart = {
        name: [torch.nn.Parameter(part.clone()) for part in block.get_parameter(f"{name}.weight").detach().split(sizes)]
        for name, sizes in rows.items()
    }
    theirs = torch.optim.Muon(
        [it for parts in apart.values() for it in parts], momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    for rate, decay in ((0.01, 0.1), (0.02, 0.3), (0.005, 0.0)):
        optimizers.zero_grad()
        backward(model)
        for name, sizes in rows.items():
            gradient = block.get_parameter(f"{name}.weight").grad
            assert gradient is not None
            for part, cut in zip(apart[name], gradient.split(sizes), strict=True):
                part.grad = cut.clone()
        theirs.param_groups[0].update(lr=rate, weight_decay=decay)
        theirs.step()
        optimizers.set(rate, decay)
        optimizers.step()
    # then both are the same, to the last bit
    for name, parts in apart.items():
        assert torch.equal(block.get_parameter(f"{name}.weight"), torch.cat(list(parts))), name


def test_an_update_of_muon_is_as_large_as_one_of_adamw() -> None:
    model = small_model(dtype=torch.float32)
    optimizers = build_optimizers(model, settings("muon"))
    before = weights(model)
    backward(model)
    optimizers.set(0.01, 0.0)
    optimizers.step()
    for name, after in weights(model).items():
        if name.startswith("blocks.") and after.dim() == 2:
            size = math.sqrt((after - before[name]).square().mean())
            assert 0.1 * 0.01 < size < 0.3 * 0.01, (name, size)  # AdamW's are 0.2 to 0.4 of the rate


@BOTH
def test_a_step_is_taken_at_the_rate_that_was_set_before_it(optimizer: str) -> None:
    model = llama()
    optimizers = build_optimizers(model, settings(optimizer))
    before = weights(model)
    backward(model)
    optimizers.set(0.0, 0.7)
    optimizers.step()
    assert all(torch.equal(it, before[name]) for name, it in weights(model).items())
    optimizers.set(0.01, 0.0)
    optimizers.step()
    assert not any(torch.equal(it, before[name]) for name, it in weights(model).items())


@BOTH
@EACH
def test_state_written_and_read_goes_on_to_the_last_bit(tmp_path: Path, family: str, optimizer: str) -> None:
    # given six steps in one go
    whole = MODELS[family]()
    unbroken = build_optimizers(whole, settings(optimizer))
    stepped(whole, unbroken, range(6))
    # when three are taken, and three more by others that have what was written
    first = MODELS[family]()
    begun = build_optimizers(first, settings(optimizer))
    stepped(first, begun, range(3))
    save_file(begun.tensors(), tmp_path / "optimizer.safetensors")
    save_file(weights(first), tmp_path / "model.safetensors")
    second = MODELS[family]()
    second.load_state_dict(load_file(tmp_path / "model.safetensors"), strict=True)
    resumed = build_optimizers(second, settings(optimizer))
    resumed.load(load_file(tmp_path / "optimizer.safetensors"))
    assert {it.item() for name, it in resumed.tensors().items() if name.endswith("/step")} == {3.0}
    stepped(second, resumed, range(3, 6))
    # then weights and state are those of the six
    assert resumed.tensors().keys() == unbroken.tensors().keys()
    assert all(torch.equal(it, unbroken.tensors()[name]) for name, it in resumed.tensors().items())
    for name, it in weights(whole).items():
        assert torch.equal(it, weights(second)[name]), name


def stepped(model: Model, optimizers: Optimizers, steps: range) -> None:
    """Take these steps, each at a rate and a decay of its own."""
    for step in steps:
        optimizers.set(0.01 / (step + 1), 0.1 * step)
        optimizers.zero_grad()
        backward(model)
        optimizers.step()


@BOTH
def test_the_same_steps_give_the_same_bits(optimizer: str) -> None:
    found = []
    for _ in range(2):
        model = llama()
        stepped(model, build_optimizers(model, settings(optimizer)), range(4))
        found.append(weights(model))
    assert all(torch.equal(it, found[1][name]) for name, it in found[0].items())


@BOTH
def test_a_small_model_learns_its_batch(optimizer: str) -> None:
    model = llama()
    optimizers = build_optimizers(model, settings(optimizer))
    optimizers.set(0.02, 0.0)
    losses = []
    for _ in range(40):
        optimizers.zero_grad()
        losses.append(backward(model))
        optimizers.step()
    assert losses[-1] < 0.1 * losses[0], losses[::10]


def test_state_that_does_not_fit_is_refused_and_changes_nothing() -> None:
    model = llama()
    optimizers = build_optimizers(model, settings())
    stepped(model, optimizers, range(2))
    before = {name: it.clone() for name, it in optimizers.tensors().items()}
    good = {name: torch.ones_like(it) for name, it in before.items()}
    name = "blocks.1.ffn.down.weight/exp_avg"
    shorter, cut, other = dict(good), dict(good), dict(good)
    del shorter[name]
    cut[name] = cut[name][:, 1:]
    other[name] = other[name].double()
    muon = build_optimizers(llama(), settings("muon")).tensors()
    for wrong in (shorter, cut, other, good | {"someone/else": torch.ones(1)}, muon, {}):
        with pytest.raises(Failure, match="not this one's") as error:
            optimizers.load(wrong)
        assert "--fresh" in error.value.mend
    assert all(torch.equal(it, before[name]) for name, it in optimizers.tensors().items())


@BOTH
def test_a_weight_without_a_gradient_stays_and_gradients_are_let_go(optimizer: str) -> None:
    model = llama()
    optimizers = build_optimizers(model, settings(optimizer))
    backward(model)
    still = ["blocks.0.attention.qkv.weight", "final_norm.weight"]
    for name in still:
        model.get_parameter(name).grad = None
    before = weights(model)
    gradients = [weakref.ref(it.grad) for it in model.parameters() if it.grad is not None]
    optimizers.step()
    optimizers.zero_grad()
    assert len(gradients) > 10 and all(it() is None for it in gradients)  # their memory is free
    unchanged = [name for name, it in weights(model).items() if torch.equal(it, before[name])]
    assert unchanged == still
    assert all(it.grad is None for it in model.parameters())


def test_a_model_that_was_moved_is_not_stepped_in_vain() -> None:
    model = llama()
    optimizers = build_optimizers(model, settings("muon"))
    model.double()
    with pytest.raises(RuntimeError, match="moved after its optimizers were built"):
        optimizers.step()


def test_a_schedule_that_cannot_be_is_refused_before_the_first_step() -> None:
    with pytest.raises(UsageError, match="more than the whole run"):
        build_optimizers(llama(), settings(schedule="wsd", warmup=0.9, decay=0.9))
