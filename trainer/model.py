"""The student: one family of decoder-only transformers, readable from top to bottom.

Shape letters: N tokens of all contexts laid end to end, S supervised tokens, H query heads, G key and value heads,
D size of a head, C width, V vocabulary.

Guarantees: pre-norm blocks, put together as `ModelConfig` says (RMSNorm or LayerNorm, rotary or learned positions, SwiGLU
or GELU, grouped queries, tied or untied LM head, biases or none). Which tokens may see each other is decided by the `attend`
it is given, never guessed here; positions come with the tokens and restart with every record. The loss projects supervised
positions alone and is taken in float32. There is no dropout: it keeps a small model from absorbing facts.
Cost: 6 x matrix parameters FLOPs a token, forward and backward; the LM head for supervised tokens only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from trainer.attention import Backend, attend
from trainer.loss import Score, head_loss, score, score_plainly

if TYPE_CHECKING:
    from trainer.layout import Batch, Layout
    from trainer.shape import ModelConfig

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""(number of the layer, q_NHD, k_NGD, v_NGD) -> out_NHD."""


def unit_norm(x: Tensor) -> Tensor:
    """Scale the last dimension to a root mean square of 1."""
    return F.rms_norm(x, x.shape[-1:], eps=1e-6)


class RMSNorm(nn.Module):
    """`unit_norm`, then a learned weight."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x_NC: Tensor) -> Tensor:
        return F.rms_norm(x_NC, self.weight.shape, self.weight, 1e-6)


def norm(config: ModelConfig) -> nn.Module:
    """The norm of this family, over the width."""
    return RMSNorm(config.width) if config.norm == "rmsnorm" else nn.LayerNorm(config.width, bias=config.bias)


def rotary_table(config: ModelConfig) -> tuple[Tensor, Tensor]:
    """Cosine and sine, each (context, D/2), float32."""
    half = config.head_size // 2
    frequency = config.rope_base ** (-torch.arange(half, dtype=torch.float64) / half)
    angle = torch.outer(torch.arange(config.context, dtype=torch.float64), frequency)
    return angle.cos().float(), angle.sin().float()


def rotate(x_NHD: Tensor, cos_N1d: Tensor, sin_N1d: Tensor) -> Tensor:
    """Turn each pair (i, i + D/2) of a head by its position's angle."""
    cos, sin = cos_N1d.to(x_NHD.dtype), sin_N1d.to(x_NHD.dtype)
    first, second = x_NHD.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class Attention(nn.Module):
    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.heads, self.kv_heads, self.size = layer, config.heads, config.kv_heads, config.head_size
        self.qk_norm, self.rotary = config.qk_norm, config.positions == "rope"
        self.qkv = nn.Linear(config.width, (config.heads + 2 * config.kv_heads) * self.size, bias=config.bias)
        self.out = nn.Linear(config.width, config.width, bias=config.bias)

    def forward(self, x_NC: Tensor, cos_N1d: Tensor, sin_N1d: Tensor, attend_: Attend) -> Tensor:
        qkv = self.qkv(x_NC).unflatten(-1, (-1, self.size))
        qk, v_NGD = qkv.split((self.heads + self.kv_heads, self.kv_heads), dim=1)
        if self.qk_norm:
            qk = unit_norm(qk)
        if self.rotary:
            qk = rotate(qk, cos_N1d, sin_N1d)
        q_NHD, k_NGD = qk.split((self.heads, self.kv_heads), dim=1)
        return self.out(attend_(self.layer, q_NHD, k_NGD, v_NGD).flatten(1))  # type: ignore[no-any-return]


class FeedForward(nn.Module):
    """SwiGLU, its gate and its value in one matrix, or GELU (the tanh form, as GPT-2 has it)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gated = config.activation == "swiglu"
        self.up = nn.Linear(config.width, (2 if self.gated else 1) * config.ffn, bias=config.bias)
        self.down = nn.Linear(config.ffn, config.width, bias=config.bias)

    def forward(self, x_NC: Tensor) -> Tensor:
        up = self.up(x_NC)
        if not self.gated:
            return self.down(F.gelu(up, approximate="tanh"))  # type: ignore[no-any-return]
        gate, value = up.chunk(2, dim=-1)
        return self.down(F.silu(gate) * value)  # type: ignore[no-any-return]


class Block(nn.Module):
    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.attention_norm, self.attention = norm(config), Attention(config, layer)
        self.ffn_norm, self.ffn = norm(config), FeedForward(config)

    def forward(self, x_NC: Tensor, cos_N1d: Tensor, sin_N1d: Tensor, attend_: Attend) -> Tensor:
        x_NC = x_NC + self.attention(self.attention_norm(x_NC), cos_N1d, sin_N1d, attend_)
        return x_NC + self.ffn(self.ffn_norm(x_NC))  # type: ignore[no-any-return]


class Model(nn.Module):
    """The decoder. Build it with `Model(config)`; weights come from torch's global random state."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self._compiled: tuple[Callable[..., Tensor], Score] | None = None  # see `use_compile`
        self.recompute = False  # activation checkpointing: a block's activations are made again in backward, not kept
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        self.positions = nn.Embedding(config.context, config.width) if config.positions == "learned" else None
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        self.final_norm = norm(config)
        self.lm_head = None if config.tied else nn.Linear(config.width, config.vocabulary, bias=False)
        cos, sin = rotary_table(config)
        self.cos: Tensor
        self.sin: Tensor
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        self._initialise()
        assert self.num_parameters == config.parameters, (self.num_parameters, config.parameters)

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def head_VC(self) -> Tensor:
        """The LM head's matrix: the embedding's own where they are tied."""
        return self.embedding.weight if self.lm_head is None else self.lm_head.weight

    def _initialise(self) -> None:
        """Normal weights; what writes into the residual stream is scaled down by its depth.

        Of 1/sqrt(inputs) where embeddings enter with a root mean square of 1; else of 0.02, as the embeddings are, or the
        first block's output would drown what a token is.
        """
        # Normalised on the way in, an embedding points where the head finds the token itself: its logit begins at std x width.
        # 0.02 is right up to a width of 256 (5 of a loss of 9); at 768 a model would first have to unlearn 15.
        nn.init.normal_(
            self.embedding.weight, std=0.02 * min(1, 256 / self.config.width) if self.config.embedding_norm else 0.02
        )
        if self.positions is not None:
            nn.init.normal_(self.positions.weight, std=0.02)
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                depth = math.sqrt(2 * self.config.layers) if name.endswith(("attention.out", "ffn.down")) else 1.0
                std = 1 / math.sqrt(module.in_features) if self.config.embedding_norm else 0.02
                nn.init.normal_(module.weight, std=std / depth)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def hidden(self, tokens_N: Tensor, positions_N: Tensor, attend_: Attend) -> Tensor:
        """(N, C) after the last norm. Positions must be below `config.context`."""
        return self._through(*self._enter(tokens_N, positions_N), positions_N, attend_)

    def _enter(self, tokens_N: Tensor, positions_N: Tensor) -> tuple[Tensor, Tensor | None]:
        """The rows looked up in the tables. Never compiled: compiled, their gradients would be added up in any order."""
        return self.embedding(tokens_N), self.positions(positions_N) if self.positions is not None else None

    def _through(self, x_NC: Tensor, place_NC: Tensor | None, positions_N: Tensor, attend_: Attend) -> Tensor:
        cos, sin = (table[positions_N].unsqueeze(1) for table in (self.cos, self.sin))
        if self.config.embedding_norm:
            x_NC = unit_norm(x_NC)
        if place_NC is not None:
            x_NC = x_NC + place_NC
        for block in self.blocks:
            if self.recompute:
                x_NC = checkpoint(block, x_NC, cos, sin, attend_, use_reentrant=False, preserve_rng_state=False)
            else:
                x_NC = block(x_NC, cos, sin, attend_)
        return self.final_norm(x_NC)  # type: ignore[no-any-return]

    def _packed(
        self, x_NC: Tensor, place_NC: Tensor | None, positions_N: Tensor, layout: Layout, backend: Backend
    ) -> Tensor:
        """What is compiled. What the compiler sees of it depends on N and on `len(layout.bounds)` alone."""

        def packed(_layer: int, q_NHD: Tensor, k_NGD: Tensor, v_NGD: Tensor) -> Tensor:
            return attend(q_NHD, k_NGD, v_NGD, layout, backend)

        return self._through(x_NC, place_NC, positions_N, packed)

    def logits(self, hidden_NC: Tensor) -> Tensor:
        """(N, V)."""
        return F.linear(hidden_NC, self.head_VC)

    def use_compile(self) -> None:
        """Compile the forward and backward of packed contexts, from the next `loss` with gradients on.

        That step takes as long as the compiler does; each further number of tokens compiles again. Weights, states, `hidden`
        and what is done without gradients are as before.
        """
        import torch._dynamo

        torch._dynamo.config.recompile_limit = 64  # sizes of a physical batch that may be tried
        self._compiled = (
            torch.compile(self._packed, fullgraph=True, dynamic=False),
            torch.compile(score, fullgraph=True, dynamic=False),
        )

    def loss(self, batch: Batch, backend: Backend) -> Tensor:
        """Sum of the cross-entropy over the supervised tokens of `batch`, in float32 (float64 for a float64 model).

        The caller divides by `batch.n_supervised`, so that packing does not change what a token weighs.
        """
        compiled = self._compiled if torch.is_grad_enabled() else None
        forward, score_ = compiled or (self._packed, score_plainly)
        entered = self._enter(batch.tokens_N, batch.positions_N)
        hidden_NC = forward(*entered, batch.positions_N, batch.layout, backend)
        return head_loss(hidden_NC, self.head_VC, batch.targets_N, batch.supervised_S, score_)
