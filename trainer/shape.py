"""The shape of a model, as data: closed, checked, and counted by arithmetic.

Guarantees: an unknown key is refused, so a typo cannot change a model in silence. Cost: no torch is imported.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class ModelConfig(BaseModel):
    """`heads` query heads over `kv_heads` key and value heads; `ffn`: inner size; `context`: positions.

    `qk_norm`: queries and keys are scaled to a root mean square of 1, without weights, which lets a small model learn
    faster. `embedding_norm`: so is each token's embedding, where it enters the first block. `tied`: the embedding is the
    LM head too. `bias`: on every matrix and norm but the LM head's. `rope_base` means nothing with learned positions.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    vocabulary: int = Field(ge=2)
    layers: int = Field(ge=1)
    width: int = Field(ge=2)
    heads: int = Field(ge=1)
    kv_heads: int = Field(ge=1)
    ffn: int = Field(ge=1)
    context: int = Field(ge=1)
    norm: Literal["rmsnorm", "layernorm"] = "rmsnorm"
    positions: Literal["rope", "learned"] = "rope"
    activation: Literal["swiglu", "gelu"] = "swiglu"
    bias: bool = False
    tied: bool = True
    qk_norm: bool = False
    embedding_norm: bool = False
    rope_base: float = Field(default=10_000.0, gt=0)

    @model_validator(mode="after")
    def _fits(self) -> ModelConfig:
        if self.width % self.heads or self.head_size % 2:
            raise ValueError("width must be an even multiple of heads")
        if self.heads % self.kv_heads:
            raise ValueError("heads must be a multiple of kv_heads")
        if self.norm == "rmsnorm" and self.bias:
            raise ValueError("RMSNorm has no bias: take layernorm, or bias = false")
        return self

    @property
    def head_size(self) -> int:
        return self.width // self.heads

    @property
    def parameters(self) -> int:
        """How many parameters a model of this shape has; the built one is checked against it."""
        ends = self.vocabulary * self.width * (1 if self.tied else 2)
        learned = self.context * self.width if self.positions == "learned" else 0
        return ends + learned + self.layers * (self.matrices_per_layer + self._vectors_per_layer) + self._norm

    @property
    def matrices_per_layer(self) -> int:
        """Weights of one block that take part in matrix products."""
        attention = 2 * self.width * self.width + 2 * self.width * self.kv_heads * self.head_size
        return attention + (3 if self.activation == "swiglu" else 2) * self.width * self.ffn

    @property
    def _norm(self) -> int:
        return self.width * (2 if self.bias else 1)

    @property
    def _vectors_per_layer(self) -> int:
        if not self.bias:
            return 2 * self._norm
        qkv = (self.heads + 2 * self.kv_heads) * self.head_size
        inner = self.ffn * (2 if self.activation == "swiglu" else 1)
        return 2 * self._norm + qkv + inner + 2 * self.width

    def flops(self, tokens: int, supervised: int, squares: int) -> int:
        """Matmul FLOPs of one forward and backward over `tokens` record tokens.

        `supervised`: tokens the LM head projects; `squares`: the sum of the records' squared lengths. A product of (m, k)
        with (k, n) is 2mkn; backward is twice forward; causal attention does half of its square.
        """
        matrices = self.layers * self.matrices_per_layer * tokens + self.vocabulary * self.width * supervised
        attention = self.layers * self.width * squares  # q·k and p·v, 2 x 2 x n²/2 x width, over two below
        return 6 * matrices + 6 * attention
