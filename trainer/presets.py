"""The model shapes that have a name, each with its exact number of parameters.

Guarantees: the number written here is checked against the shape's arithmetic and against the model that is built, so a
changed shape never passes for the old one. Cost: no torch is imported.
"""

from __future__ import annotations

from dataclasses import dataclass

from foundation.errors import UsageError
from trainer.shape import ModelConfig


@dataclass(frozen=True)
class Preset:
    """`parameters` is at the vocabulary of `config`; `any_vocabulary`: the tokenizer's own size takes its place."""

    config: ModelConfig
    parameters: int
    any_vocabulary: bool = False


PRESETS = {
    # Small enough to learn 24 articles in minutes on two cores.
    "demo": Preset(
        ModelConfig(vocabulary=4096, layers=4, width=256, heads=4, kv_heads=4, ffn=704, context=512, qk_norm=True),
        parameters=4_262_144,
        any_vocabulary=True,
    ),
    # The size to compare trainers by on a CPU.
    "smoke-10m": Preset(
        ModelConfig(vocabulary=8192, layers=8, width=256, heads=4, kv_heads=4, ffn=960, context=1024),
        parameters=10_096_896,
    ),
}


def preset(name: str) -> Preset:
    """The preset of that name. Raises `UsageError` that names those there are."""
    if name not in PRESETS:
        raise UsageError(f"no such preset: {name}", mend=f"known: {', '.join(PRESETS)}; set train.preset to one")
    found = PRESETS[name]
    assert found.config.parameters == found.parameters, (name, found.config.parameters, found.parameters)
    return found


def model_config(name: str, vocabulary: int, context: int) -> ModelConfig:
    """Shape of a model of that preset for a tokenizer of `vocabulary` tokens and contexts of `context`.

    Rotary positions have no parameters, so the context is free. Raises `UsageError` if the tokenizer has more tokens
    than the preset has embeddings.
    """
    found = preset(name)
    if vocabulary > found.config.vocabulary and not found.any_vocabulary:
        raise UsageError(
            f"the tokenizer has {vocabulary:,} tokens, the preset {name} has embeddings for {found.config.vocabulary:,}",
            where="train.vocabulary in factory.toml",
            mend=f"set it to {found.config.vocabulary}, then run `trainer tokenizer` and `trainer pack` again",
        )
    size = vocabulary if found.any_vocabulary else found.config.vocabulary
    return found.config.model_copy(update={"vocabulary": size, "context": context})
