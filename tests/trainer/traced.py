"""A training step traced without computing it: which bytes live at once, as torch's own bookkeeping has it.

Tensors are fake (a shape and a type, no numbers), so any preset is traced in a second on a CPU. What a CUDA GPU does otherwise
is acted out: its autocast's rules, its fused RMSNorm. FlashAttention is the real operator, which knows its shapes without a
GPU. What a kernel takes inside itself is not seen.
"""

from __future__ import annotations

import functools
import operator
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.partitioners import min_cut_rematerialization_partition
from torch._inductor.decomposition import select_decomp_table
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention.varlen import varlen_attn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from trainer.model import Model
from trainer.shape import ModelConfig


class LiveBytes(TorchDispatchMode):
    """Bytes of the storages that were made while it is on and are alive, and the most there ever were."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        torch.utils._pytree.tree_map_only(Tensor, self._note, out)
        return out

    def _note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known[key] = weakref.ref(storage, lambda _: self._gone(key, size))
            self.now += size
            self.peak = max(self.peak, self.now)

    def _gone(self, key: int, size: int) -> None:
        del self._known[key]
        self.now -= size


class _FusedRMSNorm(torch.autograd.Function):
    """Keeps what the CUDA kernel keeps: its input, a number for each row, the weight."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, x.new_empty(*x.shape[:-1], 1), weight)
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx: Any, *_grads: Tensor) -> Any:
        x, _, weight = ctx.saved_tensors
        return torch.empty_like(x), None if weight is None else torch.empty_like(weight)


class ActedOutCudaAutocast(TorchFunctionMode):
    """The rules of `torch.autocast("cuda", torch.bfloat16)` for the functions the model calls."""

    def __init__(self) -> None:
        super().__init__()
        self._copies: dict[int, Tensor] = {}  # autocast keeps a weight's 16-bit copy until the forward pass ends

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.linear:
            args = [self._half(one) for one in args]
        elif func is F.rms_norm:
            x, _, weight = (*args, None)[:3]
            return _FusedRMSNorm.apply(x.float(), weight)
        elif func in (F.layer_norm, F.cross_entropy):
            args = [one.float() if isinstance(one, Tensor) and one.is_floating_point() else one for one in args]
        return func(*args, **(kwargs or {}))

    def _half(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or value.dtype != torch.float32:
            return value
        if not value.is_leaf:
            return value.to(torch.bfloat16)
        if id(value) not in self._copies:
            self._copies[id(value)] = value.to(torch.bfloat16)
        return self._copies[id(value)]

    def __exit__(self, *error: Any) -> None:
        self._copies.clear()
        super().__exit__(*error)


@dataclass(frozen=True)
class Traced:
    """Bytes. `kept`: what is alive between forward and loss beside weights and gradients; `peak`: the most beside them."""

    held: int
    kept: int
    peak: int


def flash(config: ModelConfig, bounds: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """What `attend` does with the backend `varlen`."""
    grouped = {"enable_gqa": True} if q.shape[1] != k.shape[1] else {}
    q, k = q.to(v.dtype), k.to(v.dtype)
    longest = config.context
    out = varlen_attn(q, k, v, bounds, bounds, longest, longest, window_size=(-1, 0), **grouped)  # type: ignore[arg-type]
    assert isinstance(out, Tensor)
    return out


def traced_step(config: ModelConfig, batch: int, supervised: int, *, recompute: bool = False) -> Traced:
    """Forward, loss of `supervised` positions, and backward into gradients that are there already; not compiled."""
    tokens = batch * config.context
    with FakeTensorMode(allow_non_fake_inputs=True), LiveBytes() as live:
        model = Model(config)
        model.recompute = recompute
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        ids, where = torch.zeros(tokens, dtype=torch.long), torch.zeros(supervised, dtype=torch.long)
        bounds = torch.zeros(2, dtype=torch.int32)
        held = live.now
        with _autocast_again(model, recompute), ActedOutCudaAutocast():
            hidden_NC = model.hidden(ids, ids, lambda _, q, k, v: flash(config, bounds, q, k, v))
            kept = live.now - held - 4 * tokens * config.width  # the last norm's output goes with the loss
            logits_SV = model.logits(hidden_NC[where]).float()
            loss = F.cross_entropy(logits_SV, where, reduction="sum")
        del hidden_NC, logits_SV
        loss.backward()
        return Traced(held, kept, live.peak - held)


@contextmanager
def _autocast_again(model: Model, recompute: bool) -> Iterator[None]:
    """What is recomputed runs from within backward, where torch switches its own autocast on again, and no other mode."""
    if recompute:
        for block in model.blocks:
            block.forward = functools.partial(_with_autocast, block.forward)
    yield


def _with_autocast(forward: Any, *args: Any) -> Any:
    if torch.overrides._get_current_function_mode() is not None:  # in the forward pass itself
        return forward(*args)
    with ActedOutCudaAutocast():
        return forward(*args)


def kept_when_compiled(config: ModelConfig) -> int:
    """Bytes that the compiled forward of one context keeps for backward, by the cut that torch.compile makes."""
    kept: list[int] = []

    def read_and_stop(graph: Any, _inputs: Any) -> Any:
        output = next(node for node in graph.graph.nodes if node.op == "output")
        bases = {_base(node) for node in output.args[0][1:] if node is not None}
        values = [node.meta["val"] for node in bases if node.op != "placeholder"]
        kept.append(sum(one.numel() * one.element_size() for one in values if isinstance(one, Tensor)))
        raise StopIteration

    model = Model(config)

    def forward(ids: Tensor, bounds: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return model.hidden(ids, ids, lambda _, q, k, v: flash(config, bounds, q, k, v))

    torch._dynamo.reset()
    backend = aot_autograd(
        fw_compiler=read_and_stop,
        bw_compiler=lambda graph, _: graph,
        partition_fn=min_cut_rematerialization_partition,
        decompositions=select_decomp_table,
    )
    try:
        torch.compile(forward, backend=backend, dynamic=False, fullgraph=True)(
            torch.zeros(config.context, dtype=torch.long), torch.zeros(2, dtype=torch.int32)
        )
    except Exception:
        if not kept:
            raise
    finally:
        torch._dynamo.reset()
    return kept[0]


def _base(node: Any) -> Any:
    """The tensor that a view, or a part of a split, lies in."""
    while node.op == "call_function":
        source = node.args[0] if node.args else None
        taken = source if node.target is operator.getitem else node
        if not _is_view(taken):
            return node
        node = source if node.target is not operator.getitem else taken.args[0]
    return node


def _is_view(node: Any) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and any(one.alias_info for one in schema.returns)
