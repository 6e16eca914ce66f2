"""The shape of a model, as data: closed, checked, and counted by arithmetic.

Guarantees: an unknown key is refused, so a typo cannot change a model in silence. Cost: no torch is imported.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator


class ModelConfig(BaseModel):
    """`heads` query heads over `kv_heads` key and value heads; `ffn`: inner size of SwiGLU; `context`: positions.

    `qk_norm`: queries and keys are scaled to a root mean square of 1, which lets a small model learn faster.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    vocabulary: int = Field(ge=2)
    layers: int = Field(ge=1)
    width: int = Field(ge=2)
    heads: int = Field(ge=1)
    kv_heads: int = Field(ge=1)
    ffn: int = Field(ge=1)
    context: int = Field(ge=1)
    qk_norm: bool = False
    rope_base: float = Field(default=10_000.0, gt=0)

    @model_validator(mode="after")
    def _divides(self) -> ModelConfig:
        if self.width % self.heads or self.head_size % 2:
            raise ValueError("width must be an even multiple of heads")
        if self.heads % self.kv_heads:
            raise ValueError("heads must be a multiple of kv_heads")
        return self

    @property
    def head_size(self) -> int:
        return self.width // self.heads

    @property
    def parameters(self) -> int:
        """How many parameters a model of this shape has; the built one is checked against it."""
        attention = 2 * self.width * self.width + 2 * self.width * self.kv_heads * self.head_size
        block = attention + 3 * self.width * self.ffn + 2 * self.width
        return self.vocabulary * self.width + self.layers * block + self.width
