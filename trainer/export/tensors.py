"""Our weights under the names of others' layouts, in the shapes they have there.

Guarantees: the model that `transformers` builds from them computes what ours does (tested to 1e-4 on logits in float32).
`embedding_norm`, which no layout has, is folded in: the embedding holds the scaled rows and the LM head, apart from it
now, the raw ones, so the file has vocabulary x width numbers more.
Cost: one tensor at a time; nothing is computed but the scaled rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch

from trainer.export.layouts import layout_of, tied
from trainer.model import unit_norm

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.shape import ModelConfig

Weights = Callable[[str], "Tensor"]
"""name of one of our parameters -> its tensor."""


def hf_tensors(config: ModelConfig, weights: Weights) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of the exported model under its name there, in the order of the forward pass. Views, where they can be."""
    gpt2 = layout_of(config) == "gpt2"
    raw_VC = weights("embedding.weight")
    yield "transformer.wte.weight" if gpt2 else "model.embed_tokens.weight", _entering(config, raw_VC)
    if gpt2:
        yield "transformer.wpe.weight", weights("positions.weight")
    for layer in range(config.layers):
        yield from (_gpt2_block if gpt2 else _llama_block)(config, weights, layer)
    if gpt2:
        yield from _layernorm(config, weights, "final_norm", "transformer.ln_f")
    else:
        yield "model.norm.weight", weights("final_norm.weight")
    if not tied(config):
        yield "lm_head.weight", raw_VC if config.tied else weights("lm_head.weight")


def _entering(config: ModelConfig, raw_VC: Tensor) -> Tensor:
    """The rows as the first block meets them."""
    return unit_norm(raw_VC.float()).to(raw_VC.dtype) if config.embedding_norm else raw_VC


def _heads(config: ModelConfig, fused: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of a fused matrix or bias, along its first dimension."""
    query, other = config.heads * config.head_size, config.kv_heads * config.head_size
    q, k, v = fused.split((query, other, other))
    return q, k, v


def _llama_block(config: ModelConfig, weights: Weights, layer: int) -> Iterator[tuple[str, Tensor]]:
    ours, theirs = f"blocks.{layer}", f"model.layers.{layer}"
    yield f"{theirs}.input_layernorm.weight", weights(f"{ours}.attention_norm.weight")
    for name, part in zip("qkv", _heads(config, weights(f"{ours}.attention.qkv.weight")), strict=True):
        yield f"{theirs}.self_attn.{name}_proj.weight", part
    if config.qk_norm:
        for name in "qk":
            yield f"{theirs}.self_attn.{name}_norm.weight", torch.ones(config.head_size)
    yield f"{theirs}.self_attn.o_proj.weight", weights(f"{ours}.attention.out.weight")
    yield f"{theirs}.post_attention_layernorm.weight", weights(f"{ours}.ffn_norm.weight")
    gate, value = weights(f"{ours}.ffn.up.weight").chunk(2)
    yield f"{theirs}.mlp.gate_proj.weight", gate
    yield f"{theirs}.mlp.up_proj.weight", value
    yield f"{theirs}.mlp.down_proj.weight", weights(f"{ours}.ffn.down.weight")


def _gpt2_block(config: ModelConfig, weights: Weights, layer: int) -> Iterator[tuple[str, Tensor]]:
    ours, theirs = f"blocks.{layer}", f"transformer.h.{layer}"
    yield from _layernorm(config, weights, f"{ours}.attention_norm", f"{theirs}.ln_1")
    for name, path in (
        ("attention.qkv", "attn.c_attn"),
        ("attention.out", "attn.c_proj"),
        ("ffn.up", "mlp.c_fc"),
        ("ffn.down", "mlp.c_proj"),
    ):
        matrix = weights(f"{ours}.{name}.weight")
        bias = weights(f"{ours}.{name}.bias") if config.bias else matrix.new_zeros(len(matrix))
        if name == "attention.qkv":
            matrix, bias = _ungrouped(config, matrix), _ungrouped(config, bias)
        yield f"{theirs}.{path}.weight", matrix.T  # its Conv1D multiplies from the other side
        yield f"{theirs}.{path}.bias", bias
    yield from _layernorm(config, weights, f"{ours}.ffn_norm", f"{theirs}.ln_2")


def _ungrouped(config: ModelConfig, fused: Tensor) -> Tensor:
    """A fused matrix or bias with keys and values once for every query head."""
    if config.kv_heads == config.heads:
        return fused
    q, *grouped = _heads(config, fused)
    times = config.heads // config.kv_heads
    spread = [
        part.unflatten(0, (config.kv_heads, config.head_size)).repeat_interleave(times, 0).flatten(0, 1)
        for part in grouped
    ]
    return torch.cat((q, *spread))


def _layernorm(config: ModelConfig, weights: Weights, ours: str, theirs: str) -> Iterator[tuple[str, Tensor]]:
    weight = weights(f"{ours}.weight")
    yield f"{theirs}.weight", weight
    yield f"{theirs}.bias", weights(f"{ours}.bias") if config.bias else torch.zeros_like(weight)
