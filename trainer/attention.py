"""Causal attention that never leaves a document: one door, three ways to compute the same numbers.

Shape letters: N tokens of all contexts laid end to end, H query heads, G key and value heads (G divides H), D size of a
head, R documents of one group, L the longest of them.

Guarantees: a token sees itself and the tokens before it in its own document, nothing else; the layout is taken as given.
Cost: work grows with the sum of the squared lengths (`varlen`, and `segments` with about 15 % on top), or with N squared
(`mask`, the reference for tests). `segments` on a CPU in bfloat16 is two to five times as fast as torch's fused kernel there.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from foundation.errors import UsageError

if TYPE_CHECKING:
    from trainer.layout import Layout

Backend = Literal["varlen", "segments", "mask"]


def choose_backend(device: torch.device) -> Backend:
    """`varlen` (FlashAttention in torch) on a GPU that has it (Ampere or newer), `segments` anywhere else."""
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0):
        return "varlen"
    return "segments"


def attend(q_NHD: Tensor, k_NGD: Tensor, v_NGD: Tensor, layout: Layout, backend: Backend) -> Tensor:
    """Attention within each document of `layout`; returns out_NHD. Raises `UsageError` if `backend` cannot run here."""
    if backend == "varlen":
        return _varlen(q_NHD, k_NGD, v_NGD, layout)
    if backend == "segments":
        return _segments(q_NHD, k_NGD, v_NGD, layout)
    return _mask(q_NHD, k_NGD, v_NGD, layout)


def _varlen(q_NHD: Tensor, k_NGD: Tensor, v_NGD: Tensor, layout: Layout) -> Tensor:
    if q_NHD.device.type != "cuda" or q_NHD.dtype not in (torch.bfloat16, torch.float16):
        raise UsageError(
            f"the attention backend `varlen` runs on a CUDA GPU in 16 bits, not on {q_NHD.device.type} in {q_NHD.dtype}",
            mend="use `segments`",
        )
    from torch.nn.attention.varlen import varlen_attn

    options: dict[str, Any] = {"enable_gqa": True} if q_NHD.shape[1] != k_NGD.shape[1] else {}  # from torch 2.12 on
    out = varlen_attn(
        q_NHD,
        k_NGD,
        v_NGD,
        layout.cu_seqlens,
        layout.cu_seqlens,
        layout.max_seqlen,
        layout.max_seqlen,
        window_size=(-1, 0),  # causal; the default is not
        **options,
    )
    assert isinstance(out, Tensor)
    return out


def _segments(q_NHD: Tensor, k_NGD: Tensor, v_NGD: Tensor, layout: Layout) -> Tensor:
    """Documents of similar length side by side, each filled up at its end: what lies behind a token, it never sees."""
    groups, slots_P, homes_N = _plan(layout.lengths, q_NHD.device)
    if homes_N.shape[0] != q_NHD.shape[0]:
        raise ValueError(f"a layout of {homes_N.shape[0]} tokens for {q_NHD.shape[0]}")
    padded = [x.index_select(0, slots_P) for x in (q_NHD, k_NGD, v_NGD)]
    outs, start = [], 0
    for rows, length in groups:
        stop = start + rows * length
        q, k, v = (x[start:stop].unflatten(0, (rows, length)).transpose(1, 2) for x in padded)
        outs.append(_causal(q, k, v).transpose(1, 2).flatten(0, 1))
        start = stop
    return torch.cat(outs).index_select(0, homes_N)


def _causal(q_RHLD: Tensor, k_RGLD: Tensor, v_RGLD: Tensor) -> Tensor:
    grouped = q_RHLD.shape[1] != k_RGLD.shape[1]
    if q_RHLD.device.type != "cpu" or q_RHLD.dtype != torch.bfloat16:
        return F.scaled_dot_product_attention(q_RHLD, k_RGLD, v_RGLD, is_causal=True, enable_gqa=grouped)
    if grouped:
        k_RGLD, v_RGLD = (x.repeat_interleave(q_RHLD.shape[1] // x.shape[1], dim=1) for x in (k_RGLD, v_RGLD))
    scores_RHLL = torch.matmul(q_RHLD * q_RHLD.shape[-1] ** -0.5, k_RGLD.transpose(-1, -2))
    future_LL = torch.full(scores_RHLL.shape[-2:], float("-inf"), dtype=q_RHLD.dtype).triu(1)
    return torch.matmul((scores_RHLL + future_LL).softmax(-1), v_RGLD)


@functools.lru_cache(maxsize=4)  # every layer of a step asks for the same plan
def _plan(lengths: tuple[int, ...], device: torch.device) -> tuple[list[tuple[int, int]], Tensor, Tensor]:
    """Groups as (documents, filled up to), the token that each padded slot holds, and the slot of each token."""
    starts = [0]
    for length in lengths:
        starts.append(starts[-1] + length)
    groups: dict[int, int] = {}
    slots: list[int] = []
    homes = torch.empty(starts[-1], dtype=torch.long)
    for document in sorted(range(len(lengths)), key=lambda document: lengths[document]):
        start, length = starts[document], lengths[document]
        filled = _filled(length)
        groups[filled] = groups.get(filled, 0) + 1
        homes[start : start + length] = torch.arange(len(slots), len(slots) + length)
        slots += [*range(start, start + length), *[start + length - 1] * (filled - length)]
    return [(rows, filled) for filled, rows in groups.items()], torch.tensor(slots, device=device), homes.to(device)


def _filled(length: int) -> int:
    """16, 32, 48, 64, 96, 128, 192, 256 ...: few enough shapes for a CPU's compiled kernels to be met again."""
    step = max(16, 1 << (length - 1).bit_length() >> 2)
    return -(-length // step) * step


def _mask(q_NHD: Tensor, k_NGD: Tensor, v_NGD: Tensor, layout: Layout) -> Tensor:
    document_N = layout.document_ids_N()
    seen_NN = (document_N[:, None] == document_N[None, :]).tril()
    q, k, v = (x.transpose(0, 1).unsqueeze(0) for x in (q_NHD, k_NGD, v_NGD))
    grouped = q_NHD.shape[1] != k_NGD.shape[1]
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=seen_NN, enable_gqa=grouped)
    return out.squeeze(0).transpose(0, 1)
