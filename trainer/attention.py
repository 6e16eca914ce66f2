"""Causal attention that never leaves a document: one door, three ways to compute the same numbers.

Shape letters: N tokens of all contexts laid end to end, H query heads, G key and value heads (G divides H), D size of a
head.

Guarantees: a token sees itself and the tokens before it in its own document, nothing else; the layout is taken as given.
A backend that cannot run says so, and none stands in for another. Under torch.compile each is one operator or plain code,
without a break, and no length of a document is part of what is compiled.
Cost: work grows with the sum of the squared lengths (`varlen`, FlashAttention in torch; `segments`, see
`trainer.attention_segments`), or with N squared (`mask`, the reference for tests).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.torch_version import TorchVersion

from foundation.errors import UsageError
from trainer.attention_segments import segments

if TYPE_CHECKING:
    from trainer.layout import Layout

Backend = Literal["varlen", "segments", "mask"]

# Before torch 2.12, `varlen_attn` took as many heads of keys as of queries.
GROUPED_VARLEN = TorchVersion(torch.__version__) >= "2.12"


def choose_backend(device: torch.device) -> Backend:
    """`varlen` (FlashAttention in torch) on a GPU that has it (Ampere or newer), `segments` anywhere else."""
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0):
        return "varlen"
    return "segments"


def attend(q_NHD: Tensor, k_NGD: Tensor, v_NGD: Tensor, layout: Layout, backend: Backend) -> Tensor:
    """Attention within each document of `layout`; returns out_NHD. Raises `UsageError` if `backend` cannot run here."""
    q_NHD, k_NGD = q_NHD.to(v_NGD.dtype), k_NGD.to(v_NGD.dtype)  # autocast takes norms in float32
    if backend == "varlen":
        return _varlen(q_NHD, k_NGD, v_NGD, layout)
    if backend == "segments":
        return segments(q_NHD, k_NGD, v_NGD, layout.bounds)
    return _mask(q_NHD, k_NGD, v_NGD, layout)


def _varlen(q_NHD: Tensor, k_NGD: Tensor, v_NGD: Tensor, layout: Layout) -> Tensor:
    if q_NHD.device.type != "cuda" or q_NHD.dtype not in (torch.bfloat16, torch.float16):
        raise UsageError(
            f"the attention backend `varlen` runs on a CUDA GPU in 16 bits, not on {q_NHD.device.type} in {q_NHD.dtype}",
            mend="use `segments`",
        )
    from torch.nn.attention.varlen import varlen_attn

    options: dict[str, Any] = {}
    if q_NHD.shape[1] != k_NGD.shape[1]:
        if GROUPED_VARLEN:
            options["enable_gqa"] = True
        else:
            k_NGD, v_NGD = (x.repeat_interleave(q_NHD.shape[1] // x.shape[1], dim=1) for x in (k_NGD, v_NGD))
    out = varlen_attn(
        q_NHD,
        k_NGD,
        v_NGD,
        layout.device_bounds,
        layout.device_bounds,
        layout.max_seqlen,
        layout.max_seqlen,
        window_size=(-1, 0),  # causal; the default is not
        **options,
    )
    assert isinstance(out, Tensor)
    return out


def _mask(q_NHD: Tensor, k_NGD: Tensor, v_NGD: Tensor, layout: Layout) -> Tensor:
    document_N = layout.document_ids_N(q_NHD.shape[0])
    seen_NN = (document_N[:, None] == document_N[None, :]).tril()
    q, k, v = (x.transpose(0, 1).unsqueeze(0) for x in (q_NHD, k_NGD, v_NGD))
    grouped = q_NHD.shape[1] != k_NGD.shape[1]
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=seen_NN, enable_gqa=grouped)
    return out.squeeze(0).transpose(0, 1)
