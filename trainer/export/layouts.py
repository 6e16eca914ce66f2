"""The layouts of others: which one can say a shape of ours, and its `config.json` there.

| layout | shape |
| --- | --- |
| Llama | rotary positions, RMSNorm, SwiGLU |
| Qwen3 | the same with `qk_norm`; ours has no weights, so those of `q_norm` and `k_norm` are 1 |
| GPT-2 | learned positions, LayerNorm, GELU; grouped keys and values are written once a query head, missing biases as 0 |

Guarantees: what cannot be said exactly in any of them is refused, with what can. Cost: no torch is imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from foundation.errors import UsageError

if TYPE_CHECKING:
    from trainer.shape import ModelConfig

LayoutName = Literal["llama", "qwen3", "gpt2"]

CLASSES: dict[LayoutName, str] = {
    "llama": "LlamaForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "gpt2": "GPT2LMHeadModel",
}
EPS, LAYERNORM_EPS = 1e-6, 1e-5  # as `trainer.model` has them


def layout_of(config: ModelConfig) -> LayoutName:
    """The layout that can say this shape. Raises `UsageError` that names what none can."""
    if (config.positions, config.norm, config.activation) == ("rope", "rmsnorm", "swiglu"):
        return "qwen3" if config.qk_norm else "llama"
    if (config.positions, config.norm, config.activation) == ("learned", "layernorm", "gelu") and not config.qk_norm:
        return "gpt2"
    shape = f"{config.positions} positions, {config.norm}, {config.activation}{', qk_norm' if config.qk_norm else ''}"
    raise UsageError(
        f"no layout can say this shape: {shape}",
        where="the model's config",
        mend="Llama and Qwen3 are rope, rmsnorm and swiglu; GPT-2 is learned, layernorm and gelu without qk_norm: "
        "train a shape of these, or load the checkpoint with the trainer's own commands",
    )


def tied(config: ModelConfig) -> bool:
    """Whether embedding and LM head are still one when exported."""
    return config.tied and not config.embedding_norm


def hf_config(config: ModelConfig, dtype: str, *, end: int, pad: int) -> dict[str, Any]:
    """`config.json`. `end` closes an answer (`<|im_end|>`), `pad` fills batches; no token opens a text."""
    layout = layout_of(config)
    common: dict[str, Any] = {
        "architectures": [CLASSES[layout]],
        "model_type": layout,
        "vocab_size": config.vocabulary,
        "tie_word_embeddings": tied(config),
        "bos_token_id": None,
        "eos_token_id": end,
        "pad_token_id": pad,
        "dtype": dtype,
        "use_cache": True,
    }
    if layout == "gpt2":
        return {
            **common,
            "n_positions": config.context,
            "n_embd": config.width,
            "n_layer": config.layers,
            "n_head": config.heads,
            "n_inner": config.ffn,
            "activation_function": "gelu_new",
            "layer_norm_epsilon": LAYERNORM_EPS,
            "resid_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "attn_pdrop": 0.0,
        }
    return {
        **common,
        "hidden_size": config.width,
        "intermediate_size": config.ffn,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_size,
        "hidden_act": "silu",
        "max_position_embeddings": config.context,
        "rms_norm_eps": EPS,
        "rope_theta": config.rope_base,  # read by transformers 4 and most others
        "rope_parameters": {"rope_theta": config.rope_base, "rope_type": "default"},  # by transformers 5
        "attention_bias": False,
        "attention_dropout": 0.0,
        **({"mlp_bias": False} if layout == "llama" else {"use_sliding_window": False}),
    }
