"""The model: what a record learns and how it is counted does not depend on what it was packed with."""

from __future__ import annotations

import math
import random

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from foundation.errors import UsageError
from foundation.tables import TrainSettings
from tests.trainer.small_run import one_context, random_records, small_model
from trainer.attention import attend
from trainer.layout import IGNORE, Batch, make_batch
from trainer.model import Model
from trainer.optim import build_optimizers
from trainer.presets import PRESETS, model_config, preset
from trainer.shape import ModelConfig

BACKENDS = ("segments", "mask")
LENGTHS = (9, 1, 17, 2, 12, 6)  # 47 of 64: a padding tail of 17


def hidden(model: Model, batch: Batch, backend: str = "mask") -> torch.Tensor:
    return model.hidden(batch.tokens_N, batch.positions_N, lambda _, q, k, v: attend(q, k, v, batch.layout, backend))


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_gradient_across_records_is_exactly_zero(backend: str) -> None:
    model, records = small_model(), random_records(LENGTHS)
    embedded: list[torch.Tensor] = []
    model.embedding.register_forward_hook(lambda _m, _i, out: (out.retain_grad(), embedded.append(out))[0])
    start = 0
    for number, (ids, _) in enumerate(records):
        alone = [(other, mask if at == number else [0] * len(other)) for at, (other, mask) in enumerate(records)]
        batch = one_context(alone)
        if batch.n_supervised:
            model.loss(batch, backend).backward()
            gradient_N = embedded[-1].grad.abs().sum(-1)
            inside = torch.zeros(64, dtype=torch.bool)
            inside[start : start + len(ids)] = True
            assert (gradient_N[~inside] == 0).all()
            assert gradient_N[inside].sum() > 0
        start += len(ids)
    assert len(embedded) == 5  # the record of one token has nothing to be trained on


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_the_packed_loss_is_the_sum_of_the_losses_apart(backend: str, kv_heads: int) -> None:
    model, records = small_model(kv_heads), random_records(LENGTHS)
    packed = model.loss(one_context(records), backend)
    apart = sum(model.loss(one_context([record], len(record[0])), backend) for record in records if len(record[0]) > 1)
    torch.testing.assert_close(packed, apart, rtol=1e-11, atol=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_order_of_the_records_changes_nothing(backend: str) -> None:
    records, results = random_records(LENGTHS), []
    for seed in range(3):
        model, order = small_model(), list(records)
        random.Random(seed).shuffle(order)
        loss = model.loss(one_context(order), backend)
        loss.backward()
        results.append((loss.detach(), model.blocks[0].attention.qkv.weight.grad, model.embedding.weight.grad))
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_token_sees_nothing_behind_it(backend: str) -> None:
    model, records = small_model(), random_records(LENGTHS)
    before = hidden(model, one_context(records), backend)
    ids = list(records[2][0])
    ids[5] = ids[5] % 49 + 1  # token 15 of the context, record 2 is 10..26
    records[2] = (ids, records[2][1])
    after = hidden(model, one_context(records), backend)
    changed = (before != after).any(-1).nonzero().squeeze(1).tolist()
    assert changed == list(range(15, 27))


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_padding_tail_weighs_nothing(backend: str) -> None:
    model, records = small_model(), random_records(LENGTHS)
    tail, full = one_context(records), one_context(records, sum(LENGTHS))
    assert tail.tokens_N.shape[0] > full.tokens_N.shape[0]
    losses = []
    for batch in (tail, full):
        model.zero_grad()
        loss = model.loss(batch, backend)
        loss.backward()
        losses.append((loss.detach(), model.embedding.weight.grad.clone()))
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-10, atol=1e-13)


def test_projecting_supervised_positions_alone_is_the_full_projection() -> None:
    model, batch = small_model(), one_context(random_records(LENGTHS))
    loss = model.loss(batch, "segments")
    full = F.cross_entropy(model.logits(hidden(model, batch)), batch.targets_N, ignore_index=IGNORE, reduction="sum")
    torch.testing.assert_close(loss, full, rtol=1e-11, atol=0)


def test_positions_are_relative() -> None:
    """Rotary positions: a record moved by ten places gives the same states."""
    model, batch = small_model(), one_context(random_records((20,)), 20)
    here = hidden(model, batch)
    there = model.hidden(
        batch.tokens_N, batch.positions_N + 10, lambda _, q, k, v: attend(q, k, v, batch.layout, "mask")
    )
    torch.testing.assert_close(here, there, rtol=1e-5, atol=1e-6)  # the table of angles is float32
    still = model.hidden(
        batch.tokens_N, batch.positions_N * 0, lambda _, q, k, v: attend(q, k, v, batch.layout, "mask")
    )
    assert (here - still).abs().max() > 1e-3


def test_the_loss_is_taken_in_float32_under_autocast() -> None:
    model, batch = small_model(dtype=torch.float32), one_context(random_records(LENGTHS))
    with torch.autocast("cpu", torch.bfloat16):
        loss = model.loss(batch, "segments")
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(model.loss(batch, "mask").item(), rel=0.02)


def test_a_new_model_is_as_good_as_guessing() -> None:
    batch = one_context(random_records(LENGTHS))
    loss = small_model().loss(batch, "mask").item() / batch.n_supervised
    assert loss == pytest.approx(math.log(50), abs=0.15)


def test_it_learns_a_handful_of_records_by_heart() -> None:
    model, batch = small_model(dtype=torch.float32), one_context(random_records(LENGTHS))
    optimizers = build_optimizers(model, TrainSettings(learning_rate=5e-3, weight_decay=0.0))
    for _ in range(120):
        loss = model.loss(batch, "segments") / batch.n_supervised
        optimizers.zero_grad()
        loss.backward()
        optimizers.step()
    assert loss.item() < 0.05


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_the_parameters_it_says(name: str) -> None:
    with torch.device("meta"):  # shapes without weights: the largest would take 30 GB
        model = Model(preset(name).config)
    assert model.num_parameters == PRESETS[name].parameters
    assert sum(parameter.numel() for parameter in model.state_dict().values()) == PRESETS[name].parameters


def test_the_presets_the_world_knows_have_its_numbers() -> None:
    wanted = {
        "smoke-10m": 10_096_896,
        "smoke-12m": 12_194_048,
        "base-100m": 97_536_768,
        "wwii-183m": 179_880_960,
        "ladder-100m": 101_028_480,
    }
    assert {name: preset(name).parameters for name in wanted} == wanted


def test_an_unknown_preset_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="smoke-10m"):
        preset("smoke10m")


def test_the_demo_takes_the_tokenizer_and_others_must_hold_it() -> None:
    assert model_config("demo", 777, 128).vocabulary == 777
    assert model_config("smoke-10m", 777, 128).vocabulary == 8192
    with pytest.raises(UsageError, match="9,000 tokens"):
        model_config("smoke-10m", 9000, 128)


def test_a_shape_is_closed_and_checked() -> None:
    good = PRESETS["demo"].config.model_dump()
    with pytest.raises(ValidationError, match="kv_head"):
        ModelConfig(**{**good, "kv_head": 2})
    for bad in ({"heads": 3}, {"kv_heads": 3}, {"width": 258}):
        with pytest.raises(ValidationError, match="multiple"):
            ModelConfig(**{**good, **bad})


@pytest.mark.parametrize("width", [256, 768])
def test_however_wide_it_begins_at_chance(width: int) -> None:
    """Normalised and tied, an embedding is what the head looks for: its own logit must not begin far above the others'."""
    torch.manual_seed(0)
    shape = {"layers": 2, "heads": 4, "kv_heads": 4, "ffn": 64, "context": 64, "embedding_norm": True}
    model = Model(ModelConfig(vocabulary=2000, width=width, **shape))
    records = [(torch.randint(1, 2000, (64,)).tolist(), [1] * 64) for _ in range(4)]
    batch = make_batch([[record] for record in records], 64, 0)
    with torch.no_grad():
        assert model.loss(batch, "segments").item() / batch.n_supervised == pytest.approx(math.log(2000), abs=0.2)
