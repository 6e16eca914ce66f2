"""The model shapes that have a name, each with its exact number of parameters and the recipe that goes with it.

Guarantees: the number written here is checked against the shape's arithmetic and against the model that is built, so a
changed shape never passes for the old one. Cost: no torch is imported.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from foundation.errors import UsageError
from trainer.shape import ModelConfig

if TYPE_CHECKING:
    from foundation.tables import TrainSettings


@dataclass(frozen=True)
class Preset:
    """`parameters` is at the vocabulary and context of `config`; `any_vocabulary`: the tokenizer's own size takes its place.

    `batch` contexts a step and the peak `learning_rate` are what `recipe` fills in; `why` is one line for people.
    """

    config: ModelConfig
    parameters: int
    learning_rate: float
    why: str
    batch: int = 120
    any_vocabulary: bool = False


def _smoke(vocabulary: int) -> ModelConfig:
    return ModelConfig(
        vocabulary=vocabulary, layers=8, width=256, heads=4, kv_heads=4, ffn=960, context=1024, embedding_norm=True
    )


PRESETS = {
    "demo": Preset(
        ModelConfig(
            vocabulary=4096, layers=4, width=256, heads=4, kv_heads=4, ffn=704, context=512, qk_norm=True,
            embedding_norm=True,
        ),
        parameters=4_262_144,
        learning_rate=3e-3,
        why="learns 24 articles in minutes on two cores",
        batch=2,
        any_vocabulary=True,
    ),
    "smoke-10m": Preset(
        _smoke(8192), parameters=10_096_896, learning_rate=2e-3, why="the size to compare trainers by, a CPU will do"
    ),
    "smoke-12m": Preset(
        _smoke(16384), parameters=12_194_048, learning_rate=2e-3, why="the same with twice the vocabulary"
    ),
    "base-100m": Preset(
        ModelConfig(
            vocabulary=16384, layers=12, width=768, heads=12, kv_heads=12, ffn=2048, context=4096, qk_norm=True,
            embedding_norm=True,
        ),
        parameters=97_536_768,
        learning_rate=1e-3,
        why="a small corpus on a 16 GB card",
    ),
    "wwii-183m": Preset(
        ModelConfig(
            vocabulary=32000, layers=18, width=768, heads=12, kv_heads=12, ffn=3072, context=4096, norm="layernorm",
            positions="learned", activation="gelu", bias=True, tied=False,
        ),
        parameters=179_880_960,
        learning_rate=6e-4,
        why="the shape of the model this project began with: 40 MB of text on a 16 GB card",
    ),
    # Two query heads over one of keys and values: 5:1 cost 0.13 of validation loss at this size.
    "ladder-100m": Preset(
        ModelConfig(
            vocabulary=50304, layers=16, width=640, heads=10, kv_heads=5, ffn=1600, context=4096, qk_norm=True,
            embedding_norm=True,
        ),
        parameters=101_028_480,
        learning_rate=1e-3,
        why="the ladder's first rung: deep and narrow, half the KV heads",
    ),
    "ladder-350m": Preset(
        ModelConfig(
            vocabulary=50304, layers=24, width=1024, heads=16, kv_heads=8, ffn=3072, context=4096, qk_norm=True,
            embedding_norm=True,
        ),
        parameters=353_551_360,
        learning_rate=6e-4,
        why="the second rung",
    ),
    "ladder-1b": Preset(
        ModelConfig(
            vocabulary=64000, layers=16, width=2048, heads=32, kv_heads=8, ffn=8192, context=4096, rope_base=500_000.0
        ),
        parameters=1_104_218_112,
        learning_rate=4e-4,
        why="the shape of Llama-3.2-1B",
    ),
    "ladder-7b": Preset(
        ModelConfig(
            vocabulary=64000, layers=32, width=4096, heads=32, kv_heads=8, ffn=14336, context=4096, tied=False
        ),
        parameters=7_503_876_096,
        learning_rate=3e-4,
        why="the shape of Mistral-7B",
    ),
}  # fmt: skip


def preset(name: str) -> Preset:
    """The preset of that name. Raises `UsageError` that names those there are."""
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, 1)
        guess = f"did you mean {near[0]}? " if near else ""
        raise UsageError(f"no such preset: {name}", mend=f"{guess}known: {', '.join(PRESETS)}; set train.preset to one")
    found = PRESETS[name]
    assert found.config.parameters == found.parameters, (name, found.config.parameters, found.parameters)
    return found


def recipe(settings: TrainSettings) -> TrainSettings:
    """The settings with the preset's own figures where they say 0. Raises `UsageError` if there is no such preset."""
    found = preset(settings.preset)
    return settings.model_copy(
        update={
            "vocabulary": settings.vocabulary or found.config.vocabulary,
            "context": settings.context or found.config.context,
            "batch": settings.batch or found.batch,
            "learning_rate": settings.learning_rate or found.learning_rate,
        }
    )


def model_config(name: str, vocabulary: int, context: int) -> ModelConfig:
    """Shape of a model of that preset for a tokenizer of `vocabulary` tokens and contexts of `context`.

    Rotary positions have no parameters, so the context is free; learned ones hold no more than the preset's. Raises
    `UsageError` if the tokenizer has more tokens than the preset has embeddings, or the context more than positions.
    """
    found = preset(name)
    if vocabulary > found.config.vocabulary and not found.any_vocabulary:
        raise UsageError(
            f"the tokenizer has {vocabulary:,} tokens, the preset {name} has embeddings for {found.config.vocabulary:,}",
            where="train.vocabulary in factory.toml",
            mend=f"set it to {found.config.vocabulary}, then run `trainer tokenizer` and `trainer pack` again",
        )
    size = vocabulary if found.any_vocabulary else found.config.vocabulary
    if found.config.positions == "learned":
        if context > found.config.context:
            raise UsageError(
                f"a context of {context:,} tokens, and the preset {name} has learned {found.config.context:,} positions",
                where="train.context in factory.toml",
                mend=f"set it to {found.config.context} or less, then run `trainer pack` again",
            )
        context = found.config.context
    return found.config.model_copy(update={"vocabulary": size, "context": context})
