"""Each member of the model family: it runs, learns, is what GPT-2 and Llama are made of, and keeps records apart."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.trainer.small_run import one_context, random_records
from trainer.attention import attend
from trainer.generate import generate, greedy
from trainer.layout import Batch
from trainer.model import Model
from trainer.presets import PRESETS
from trainer.shape import ModelConfig

LENGTHS = (9, 1, 17, 2, 12, 6)
GPT2 = {"norm": "layernorm", "positions": "learned", "activation": "gelu", "bias": True, "tied": False}
LLAMA = {"norm": "rmsnorm", "positions": "rope", "activation": "swiglu", "bias": False, "tied": True}
FAMILY = [
    {"norm": norm, "positions": positions, "activation": activation, "tied": tied, "bias": bias, **norms}
    for norm, positions, activation, tied, bias, norms in itertools.product(
        ("rmsnorm", "layernorm"),
        ("rope", "learned"),
        ("swiglu", "gelu"),
        (True, False),
        (True, False),
        ({}, {"qk_norm": True, "embedding_norm": True}),
    )
    if not (bias and norm == "rmsnorm")
]


def member(dtype: torch.dtype = torch.float64, kv_heads: int = 2, **choices: Any) -> Model:
    torch.manual_seed(0)
    config = ModelConfig(vocabulary=50, layers=2, width=32, heads=4, kv_heads=kv_heads, ffn=48, context=64, **choices)
    return Model(config).to(dtype)


def told(choices: dict[str, Any]) -> str:
    return "-".join(str(value) if isinstance(value, str) else key for key, value in choices.items() if value)


def hidden(model: Model, batch: Batch) -> Tensor:
    return model.hidden(batch.tokens_N, batch.positions_N, lambda _, q, k, v: attend(q, k, v, batch.layout, "mask"))


@pytest.mark.parametrize("choices", FAMILY, ids=told)
def test_each_is_counted_and_every_weight_of_it_learns(choices: dict[str, Any]) -> None:
    model, batch = member(**choices), one_context(random_records(LENGTHS))
    assert model.num_parameters == model.config.parameters
    model.loss(batch, "segments").backward()
    silent = {name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()}
    assert silent == set()


@pytest.mark.parametrize("choices", [GPT2, LLAMA, {**GPT2, "qk_norm": True, "embedding_norm": True}], ids=told)
def test_each_packs_without_a_trace_of_the_neighbours(choices: dict[str, Any]) -> None:
    model, records = member(**choices), random_records(LENGTHS)
    packed = model.loss(one_context(records), "segments")
    apart = sum(model.loss(one_context([it], len(it[0])), "segments") for it in records if len(it[0]) > 1)
    torch.testing.assert_close(packed, apart, rtol=1e-11, atol=0)


@pytest.mark.parametrize("choices", FAMILY[::5], ids=told)
def test_generation_with_the_cache_is_the_packed_forward(choices: dict[str, Any]) -> None:
    model, seen = member(torch.float32, **choices), []
    prompts = [[5, 9, 3], [7], [9] * 20]

    def watch(logits_BV: Tensor) -> Tensor:
        seen.append(logits_BV)
        return greedy(logits_BV)

    written: list[list[int]] = [[] for _ in prompts]
    for row, token in generate(model, prompts, limit=6, stop=99, choose=watch):
        written[row].append(token)
    for place in range(6):
        texts = [prompt + new[:place] for prompt, new in zip(prompts, written, strict=True)]
        batch = one_context([(text, [0] * len(text)) for text in texts])
        ends = torch.tensor([len(text) for text in texts]).cumsum(0) - 1
        wanted = model.logits(hidden(model, batch)[ends])
        torch.testing.assert_close(seen[place], wanted, rtol=0, atol=1e-5)


def test_learned_positions_tell_places_apart_and_begin_anew_in_each_record() -> None:
    model = member(**GPT2)
    batch = one_context([([7, 7, 7, 7], [0] * 4), ([7, 7, 7, 7], [0] * 4)], 8)
    states = hidden(model, batch)
    torch.testing.assert_close(states[:4], states[4:], rtol=1e-12, atol=1e-12)
    assert (states[0] - states[3]).abs().max() > 1e-3


def test_a_block_of_the_gpt2_kind_is_the_textbook() -> None:
    model, batch = member(**GPT2, kv_heads=4), one_context(random_records((11,)), 11)
    with torch.no_grad():  # biases and norms begin as nothing, and would hide a missing one
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.1)
    x = model.embedding.weight[batch.tokens_N] + model.positions.weight[: len(batch.tokens_N)]
    for block in model.blocks:
        y = F.layer_norm(x, (32,), block.attention_norm.weight, block.attention_norm.bias)
        qkv = y @ block.attention.qkv.weight.T + block.attention.qkv.bias
        q, k, v = (part.unflatten(1, (4, 8)).transpose(0, 1) for part in qkv.split(32, dim=1))
        scores = (q @ k.transpose(1, 2) / 8**0.5).masked_fill(~torch.ones(11, 11).tril().bool(), float("-inf"))
        seen = (scores.softmax(-1) @ v).transpose(0, 1).flatten(1)
        x = x + seen @ block.attention.out.weight.T + block.attention.out.bias
        y = F.layer_norm(x, (32,), block.ffn_norm.weight, block.ffn_norm.bias)
        y = F.gelu(y @ block.ffn.up.weight.T + block.ffn.up.bias, approximate="tanh")
        x = x + y @ block.ffn.down.weight.T + block.ffn.down.bias
    x = F.layer_norm(x, (32,), model.final_norm.weight, model.final_norm.bias)
    torch.testing.assert_close(hidden(model, batch), x, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(model.logits(x), x @ model.lm_head.weight.T)


@pytest.mark.parametrize("choices", [GPT2, LLAMA], ids=told)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_recomputed_activations_give_the_same_gradients_to_the_bit(choices: dict[str, Any], dtype: torch.dtype) -> None:
    batch, gradients = one_context(random_records(LENGTHS)), []
    for recompute in (False, True):
        model = member(dtype, **choices)
        model.recompute = recompute
        model.loss(batch, "segments").backward()
        gradients.append([weight.grad for weight in model.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


@pytest.mark.parametrize("name", [name for name in PRESETS if not name.startswith("ladder-")])
def test_a_preset_cut_down_takes_a_step(name: str) -> None:
    """Its own choices, at a size that a test can afford."""
    small = {"vocabulary": 50, "layers": 2, "width": 32, "heads": 4, "kv_heads": 4, "ffn": 48, "context": 64}
    torch.manual_seed(0)
    model = Model(PRESETS[name].config.model_copy(update=small))
    batch = one_context(random_records(LENGTHS))
    before = model.loss(batch, "segments")
    before.backward()
    with torch.no_grad():
        for weight in model.parameters():
            weight -= 0.01 * weight.grad / batch.n_supervised
    assert model.loss(batch, "segments") < before
