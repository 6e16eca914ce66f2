"""A training step traced without computing it: which bytes live at once, as torch's own bookkeeping has it.

Tensors are fake (a shape and a type, no numbers), so any preset is traced in a second on a CPU. What a CUDA GPU does otherwise
is acted out: norms in 32 bits under autocast, RMSNorm in one kernel. FlashAttention is the real operator, which knows its shapes without a
GPU. What a kernel takes inside itself is not seen.
"""

from __future__ import annotations

import functools
import operator
import weakref
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

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

from trainer.layout import Batch, Layout
from trainer.loss import ROWS
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


class ActedOutCuda(TorchFunctionMode):
    """What CUDA does otherwise than a CPU, under autocast, in what the model calls; and a count that needs numbers."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.rms_norm:
            x, _, weight = (*args, None)[:3]
            return _FusedRMSNorm.apply(x.float(), weight)
        if func is F.layer_norm:
            args = [one.float() if isinstance(one, Tensor) else one for one in args]
        elif func is Tensor.nonzero:  # of the targets of one chunk, where none is ignored
            return args[0].new_empty((0, 1), dtype=torch.long)
        return func(*args, **(kwargs or {}))


@dataclass(frozen=True)
class Traced:
    """Bytes. `held`: weights and gradients. Beside them: `kept` between forward and backward, and the most in each."""

    held: int
    kept: int
    forward: int
    backward: int

    @property
    def peak(self) -> int:
        return max(self.forward, self.backward)


def flash(q: Tensor, k: Tensor, v: Tensor, layout: Layout, _backend: Any = "varlen") -> Tensor:
    """What `attend` does with the backend `varlen` where there is a GPU."""
    grouped = {"enable_gqa": True} if q.shape[1] != k.shape[1] else {}
    q, k = q.to(v.dtype), k.to(v.dtype)
    bounds, longest = layout.device_bounds, layout.max_seqlen
    out = varlen_attn(q, k, v, bounds, bounds, longest, longest, window_size=(-1, 0), **grouped)  # type: ignore[arg-type]
    assert isinstance(out, Tensor)
    return out


def traced_step(config: ModelConfig, batch: int, supervised: int, *, recompute: bool = False) -> Traced:
    """`Model.loss` and its backward, not compiled, with gradients that are there already."""
    tokens = batch * config.context
    with (
        patch("trainer.model.attend", flash),
        patch.dict(ROWS, cpu=ROWS["cuda"]),
        FakeTensorMode(allow_non_fake_inputs=True),
        LiveBytes() as live,
    ):
        model = Model(config)
        model.recompute = recompute
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        ids, bounds = torch.zeros(tokens, dtype=torch.long), torch.zeros(2, dtype=torch.int32)
        layout = Layout(bounds, bounds, (tokens,), config.context)
        packed = Batch(ids, ids, ids, ids[:supervised], layout, supervised, tokens, 0)
        held = live.now
        if recompute:
            for block in model.blocks:
                block.forward = functools.partial(_as_on_cuda, block.forward)
        with ActedOutCuda(), torch.autocast("cpu", torch.bfloat16):
            loss = model.loss(packed, "varlen")
        kept, forward = live.now - held, live.peak - held
        live.peak = live.now
        loss.backward()  # type: ignore[no-untyped-call]
        return Traced(held, kept, forward, live.peak - held)


def _as_on_cuda(forward: Any, *args: Any) -> Any:
    """A block that is computed again from within backward, where torch knows of its own autocast and of no other mode."""
    if torch.overrides._get_current_function_mode() is not None:  # this is the forward pass itself
        return forward(*args)
    with ActedOutCuda():
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
        layout = Layout(bounds, bounds, (config.context,), config.context)
        with torch.autocast("cpu", torch.bfloat16):
            return model.hidden(ids, ids, lambda _, q, k, v: flash(q, k, v, layout))

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
        view = node.args[0] if node.target is operator.getitem else node
        if not _is_view(view):
            return node
        node = view.args[0]
    return node


def _is_view(node: Any) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and any(one.alias_info for one in schema.returns)
