"""The optimizers: AdamW for everything, or Muon for the matrices of the blocks and AdamW for the rest.

Guarantees: weight decay on matrices that take part in products, and on nothing else. Norms and biases set a scale, and
decay would only pull it to zero; tables that are only looked up (positions, and an embedding that is not the head too)
get a gradient just where they are read, so decay would wear a rare word's row away between its readings. All state is
made at once and is there to be saved and loaded by name, exactly. One learning rate serves both: Muon's updates are
scaled to the root mean square of AdamW's. The matrices that are laid in one for speed (queries, keys and values; gate and
value) are orthogonalised apart, as if they were apart: of one tall matrix only a part's share of the directions would be
lifted, and the loud part would decide. Their state is kept whole.
Cost: AdamW 8 bytes a parameter, Muon 4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from foundation.errors import Failure
from trainer.schedules import check_schedule, learning_rate, weight_decay

if TYPE_CHECKING:
    from foundation.tables import TrainSettings
    from trainer.model import Model
    from trainer.shape import ModelConfig

__all__ = ["Optimizers", "build_optimizers", "learning_rate", "weight_decay"]

BETAS = (0.9, 0.95)
MOMENTUM = 0.95  # of Muon


class Optimizers:
    """What takes a run's steps. Build it with `build_optimizers`, after the model is where it stays."""

    def __init__(self, model: Model, settings: TrainSettings) -> None:
        check_schedule(settings)
        self._names = {parameter: name for name, parameter in model.named_parameters()}
        blocks = {it for it in model.blocks.parameters() if it.dim() == 2}
        matrices = [it for it in self._names if it in blocks or it is model.head_VC]
        by_muon = [it for it in matrices if it in blocks] if settings.optimizer == "muon" else []
        taken = set(by_muon)
        self._parts = [(it, _parts(model.config, self._names[it], it)) for it in by_muon]
        self._adamw = torch.optim.AdamW(
            [
                {"params": [it for it in matrices if it not in taken]},
                {"params": [it for it in self._names if it not in set(matrices)]},
            ],
            lr=settings.learning_rate,
            betas=BETAS,
            fused=True,
        )
        self._decaying = [self._adamw.param_groups[0]]
        self._all: list[torch.optim.Optimizer] = [self._adamw]
        if self._parts:
            muon = torch.optim.Muon(
                [part for _, parts in self._parts for part in parts],
                lr=settings.learning_rate,
                momentum=MOMENTUM,
                adjust_lr_fn="match_rms_adamw",
            )
            self._decaying += muon.param_groups
            self._all.append(muon)
        self._state = self._begin()
        self.set(settings.learning_rate, weight_decay(0.0, settings))

    def _begin(self) -> dict[str, Tensor]:
        """All state, as it is before the first step, by "PARAMETER/KEY".

        Made here and not by the first step, so that memory is measured with it, and a checkpoint always holds all of it.
        """
        state: dict[str, Tensor] = {}
        for group in self._adamw.param_groups:
            for parameter in group["params"]:
                own = self._adamw.state[parameter]
                own["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
                own["exp_avg"], own["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
                state |= {f"{self._names[parameter]}/{key}": value for key, value in own.items()}
        for parameter, parts in self._parts:
            buffer = torch.zeros_like(parameter)
            for part, view in zip(parts, _split(buffer, parts), strict=True):
                self._all[1].state[part]["momentum_buffer"] = view
            state[f"{self._names[parameter]}/momentum_buffer"] = buffer
        return state

    def set(self, rate: float, decay: float) -> None:
        """Learning rate and weight decay of the steps from now on."""
        for optimizer in self._all:
            for group in optimizer.param_groups:
                group["lr"], group["weight_decay"] = rate, 0.0
        for group in self._decaying:
            group["weight_decay"] = decay

    def step(self) -> None:
        """Take a step by the gradients there are; a parameter without one stays as it is."""
        for parameter, parts in self._parts:
            if parts[0].untyped_storage().data_ptr() != parameter.untyped_storage().data_ptr():
                raise RuntimeError("the model was moved after its optimizers were built")
            gradients = [None] * len(parts) if parameter.grad is None else _split(parameter.grad, parts)
            for part, gradient in zip(parts, gradients, strict=True):
                part.grad = gradient
        for optimizer in self._all:
            optimizer.step()
        for _, parts in self._parts:
            for part in parts:
                part.grad = None  # or the gradient would live on in its parts

    def zero_grad(self) -> None:
        """Forget the gradients, and free their memory."""
        for parameter in self._names:
            parameter.grad = None

    def tensors(self) -> dict[str, Tensor]:
        """All state by "PARAMETER/KEY": the tensors themselves, not copies, in an order that is always the same."""
        return dict(self._state)

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take over what `tensors()` gave, to the last bit. Raises `Failure`, with nothing changed, if it does not fit."""
        unlike = sorted(
            name
            for name in self._state.keys() | tensors.keys()
            if name not in self._state
            or name not in tensors
            or (self._state[name].shape, self._state[name].dtype) != (tensors[name].shape, tensors[name].dtype)
        )
        if unlike:
            raise Failure(
                f"the saved state of the optimizer is not this one's: {len(unlike)} tensors differ, {unlike[0]} first",
                mend="go on with the settings the run was begun with, or begin anew with --fresh",
            )
        for name, tensor in tensors.items():
            self._state[name].copy_(tensor)


def build_optimizers(model: Model, settings: TrainSettings) -> Optimizers:
    """The optimizers of `settings`, a resolved recipe. Raises `UsageError` if its schedule cannot be."""
    return Optimizers(model, settings)


def _parts(config: ModelConfig, name: str, parameter: nn.Parameter) -> list[Tensor]:
    """The matrices that lie in `parameter` one behind the other, as views that an optimizer can step."""
    rows = [parameter.shape[0]]
    if name.endswith("attention.qkv.weight"):
        rows = [heads * config.head_size for heads in (config.heads, config.kv_heads, config.kv_heads)]
    elif name.endswith("ffn.up.weight") and config.activation == "swiglu":
        rows = [config.ffn, config.ffn]
    return list(parameter.detach().split(rows))


def _split(tensor: Tensor, parts: list[Tensor]) -> tuple[Tensor, ...]:
    return tensor.split([len(part) for part in parts])
