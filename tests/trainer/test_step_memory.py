"""The closed form of a step's memory, against torch's own bookkeeping of the same model."""

from __future__ import annotations

import pytest

from tests.trainer.traced import kept_when_compiled, traced_step
from trainer import loss
from trainer.memory import CARDS, GB, ROWS, block_bytes, estimate, largest_batch
from trainer.presets import PRESETS, preset
from trainer.shape import ModelConfig

SLOW = pytest.mark.slow
SHAPES = [
    "base-100m", "wwii-183m", *(pytest.param(one, marks=SLOW) for one in ("smoke-10m", "ladder-350m", "ladder-1b", "ladder-7b")),
]  # fmt: skip
ONE_OF_A_KIND = {  # small ones, wide enough that what is kept by the token outweighs the rest
    "wwii-183m": {"width": 128, "heads": 2, "kv_heads": 2, "ffn": 512},
    "base-100m": {"width": 128, "heads": 2, "kv_heads": 2, "ffn": 352},
    "ladder-350m": {"width": 128, "heads": 4, "kv_heads": 2, "ffn": 384},
    "ladder-1b": {"width": 256, "heads": 8, "kv_heads": 2, "ffn": 1024},
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("recompute", [False, True])
def test_the_peak_is_that_of_a_traced_step(name: str, recompute: bool) -> None:
    # given a preset's shape, four layers deep, and the share of supervised tokens of a corpus
    config = preset(name).config.model_copy(update={"layers": 4})
    batch = 2
    supervised = int(batch * config.context * 0.7)
    # when every tensor of a step is traced, and its bytes are worked out
    traced = traced_step(config, batch, supervised, recompute=recompute)
    worked_out = estimate(config, batch, recompute=recompute, compiled=False)
    # then they are the same within 3 %
    assert worked_out.weights + worked_out.gradients == pytest.approx(traced.held, rel=1e-3)
    peak = worked_out.tensors - worked_out.moments - worked_out.weights - worked_out.gradients
    assert peak == pytest.approx(traced.peak, rel=0.03)


@pytest.mark.parametrize("name", SHAPES)
def test_a_block_keeps_what_autograd_saves(name: str) -> None:
    config = preset(name).config
    two, three = (config.model_copy(update={"layers": layers}) for layers in (2, 3))
    in_16_bits = 2 * config.matrices_per_layer
    more = traced_step(three, 1, 2048).kept - traced_step(two, 1, 2048).kept - in_16_bits
    assert block_bytes(config, compiled=False) * config.context == pytest.approx(more, rel=0.01)


@pytest.mark.parametrize(
    ("supervised", "recompute"),
    [(0.02, False), (0.02, True), *(pytest.param(1.0, it, marks=SLOW) for it in (False, True))],
)
def test_few_or_many_supervised_tokens(supervised: float, recompute: bool) -> None:
    # where backward through the blocks, and not the logits, needs the most
    config = preset("wwii-183m").config
    traced = traced_step(config, 3, int(3 * config.context * supervised), recompute=recompute)
    worked_out = estimate(config, 3, supervised=supervised, recompute=recompute, compiled=False)
    assert worked_out.tensors - worked_out.moments == pytest.approx(traced.peak + traced.held, rel=0.03)


@pytest.mark.parametrize("name", [pytest.param(one, marks=[] if one == "base-100m" else SLOW) for one in ONE_OF_A_KIND])
def test_compiled_blocks_keep_what_the_compilers_cut_keeps(name: str) -> None:
    small = {"context": 512, "vocabulary": 128, **ONE_OF_A_KIND[name]}
    two, three = (preset(name).config.model_copy(update={**small, "layers": layers}) for layers in (2, 3))
    more = kept_when_compiled(three) - kept_when_compiled(two) - 2 * two.matrices_per_layer
    assert block_bytes(two, compiled=True) * two.context == pytest.approx(more, rel=0.01)


def test_the_archives_model_trains_three_contexts_on_a_16_gb_card() -> None:
    # as the first model of this kind did: 3 contexts of 4,096, 1 GB left to use the machine
    config = preset("wwii-183m").config
    assert estimate(config, 3).total < 15 * GB
    assert estimate(config, 3, supervised=1.0).total < 15 * GB
    assert largest_batch(config, int((CARDS[16] - 1) * GB)) >= 3


def test_as_many_positions_are_projected_at_once_as_the_loss_says() -> None:
    assert loss.ROWS["cuda"] == ROWS


def test_what_does_not_fit_does_not_fit_at_all() -> None:
    config = preset("ladder-7b").config
    assert largest_batch(config, int(15.6 * GB)) == 0
    assert largest_batch(config, 139 * GB, recompute=True) > 0


@pytest.mark.parametrize("room", [4, 9, 15, 100])
def test_the_largest_batch_is_the_last_that_fits(room: int) -> None:
    config = preset("base-100m").config
    most = largest_batch(config, room * GB, recompute=True)
    assert estimate(config, max(1, most), recompute=True).total <= room * GB or most == 0
    assert estimate(config, most + 1, recompute=True).total > room * GB


def test_muon_keeps_one_moment_of_the_blocks_matrices() -> None:
    config: ModelConfig = PRESETS["base-100m"].config
    saved = estimate(config, 1).moments - estimate(config, 1, optimizer="muon").moments
    assert saved == 4 * config.layers * config.matrices_per_layer
    assert estimate(config, 1).moments == 8 * config.parameters
