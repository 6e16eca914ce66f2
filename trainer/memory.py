"""What a training step holds in a GPU's memory, counted from the model's shape.

Guarantees: a closed form of what autograd keeps for the model as `trainer.model` writes it, under CUDA's bfloat16 autocast with
FlashAttention, plain or compiled, and of what lives beside it at the worst moment; held against torch's own bookkeeping,
tensor by tensor, in the tests. For CUDA's context and for what the allocator loses between blocks there is an allowance; what
a kernel takes inside itself is not counted. Cost: microseconds; no torch is imported.

Letters: L layers, C width, F inner size, D size of a head, H query and G key and value heads, V vocabulary, N tokens of a
physical batch, S supervised ones among them. Sizes are bytes; a GB is 2^30 of them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from trainer.shape import ModelConfig

GB = 1 << 30
SUPERVISED = 0.7  # share of tokens that the example corpus trains on; raw text has 1.0
ROWS = 1024  # supervised positions that the LM head projects at once on a GPU (`trainer.loss`)
CONTEXT = GB // 2  # CUDA and its libraries in one process, their work space included: 0.4 to 0.6 GB
SPARE = 0.03  # of the tensors: what the allocator loses between blocks
# What torch can have of a card that is sold as so many GB: driver and error correction take the rest.
CARDS = {16: 15.6, 24: 23.5, 80: 79.0, 141: 139.0}

Optimizer = Literal["adamw", "muon"]


@dataclass(frozen=True)
class Memory:
    """Bytes of one training step at its worst moment.

    `moments`: the optimizer's state; `copies`: the blocks' weights in 16 bits, which autocast makes for the matrix products;
    `activations`: what blocks and norms keep for backward; `head`: the LM head's logits, some supervised positions at a time,
    and its gradients; `working`: what more is alive where another moment needs more than the head does; `allowance`: CUDA's
    context and what the allocator loses.
    """

    weights: int
    gradients: int
    moments: int
    copies: int
    activations: int
    head: int
    working: int
    allowance: int

    @property
    def total(self) -> int:
        """What `nvidia-smi` is to show."""
        return sum(asdict(self).values())

    @property
    def tensors(self) -> int:
        """What `torch.cuda.max_memory_allocated` is to show."""
        return self.total - self.allowance


def estimate(
    config: ModelConfig,
    batch: int,
    *,
    context: int = 0,
    supervised: float = SUPERVISED,
    optimizer: Optimizer = "adamw",
    recompute: bool = False,
    compiled: bool = True,
) -> Memory:
    """What a step holds with `batch` contexts at once of `context` tokens (0: the model's), a share of them `supervised`.

    Gradients count throughout, as they are there throughout where a step takes more than one physical batch.
    """
    tokens = batch * (context or config.context)
    block = tokens * block_bytes(config, compiled=compiled)
    blocks = 2 * config.layers * config.matrices_per_layer  # their weights in 16 bits
    ends = tokens * _ends_bytes(config)
    through = tokens * _backward_bytes(config, recompute=recompute) + 6 * _largest_matrix(config)
    head = _head_bytes(config, tokens, int(tokens * supervised), compiled=compiled)
    if recompute:
        kept, copies = ends + tokens * 4 * config.layers * config.width, 0
        cached = 0 if compiled else blocks  # autocast keeps its copies until the forward pass ends
        working = max(cached, block + through + blocks // config.layers - head)
    else:
        kept, copies = ends + config.layers * block, blocks
        working = max(0, through - head)  # the head is done when backward comes to the blocks
    held = 4 * config.parameters + _table_bytes(config)
    moments = moment_bytes(config, optimizer)
    tensors = held + 4 * config.parameters + moments + copies + kept + head + working
    return Memory(
        weights=held,
        gradients=4 * config.parameters,
        moments=moments,
        copies=copies,
        activations=kept,
        head=head,
        working=working,
        allowance=CONTEXT + int(SPARE * tensors),
    )


def largest_batch(
    config: ModelConfig,
    room: int,
    *,
    context: int = 0,
    supervised: float = SUPERVISED,
    optimizer: Optimizer = "adamw",
    recompute: bool = False,
    compiled: bool = True,
) -> int:
    """The most contexts at once whose step takes no more than `room` bytes; 0 if not even one does."""

    def total(batch: int) -> int:
        step = estimate(
            config,
            batch,
            context=context,
            supervised=supervised,
            optimizer=optimizer,
            recompute=recompute,
            compiled=compiled,
        )
        return step.total

    low, high = 0, 1
    while total(high) <= room:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if total(middle) <= room else (low, middle)
    return low


def block_bytes(config: ModelConfig, *, compiled: bool) -> int:
    """What one block keeps for backward, per token."""
    width, rows = config.width, (config.heads + config.kv_heads) * config.head_size
    statistics = 8 if config.norm == "layernorm" and not compiled else 4
    norms = 2 * (4 * width + 2 * width + statistics)  # what goes in, in 32 bits, and what comes out, in 16
    qkv = 2 * (rows + config.kv_heads * config.head_size)
    attended = 2 * width + 4 * config.heads  # what comes out of attention, and its log-sum-exp
    turned = 0
    if config.qk_norm or config.positions == "rope":
        turned = 2 * rows  # queries and keys as they go into attention
    if config.qk_norm:
        turned += 4 * (config.heads + config.kv_heads) + (0 if compiled else 4 * rows)  # autocast norms in 32 bits
    elif config.positions == "rope" and not compiled:
        turned += 2 * config.head_size  # sines and cosines in 16 bits
    if config.activation == "gelu":
        ffn = 2 * config.ffn + 2 * config.ffn
    else:  # gate and value, their product, and silu(gate), which a compiler makes again
        ffn = 4 * config.ffn + 2 * config.ffn + (0 if compiled else 2 * config.ffn)
    return norms + qkv + attended + turned + ffn


def _ends_bytes(config: ModelConfig) -> int:
    """What is kept per token outside the blocks: ids, angles, embedding and last norm."""
    angles = 4 * config.head_size if config.positions == "rope" else 0
    embedding = 4 * config.width + 4 if config.embedding_norm else 0
    return 16 + angles + embedding + 4 * config.width + (8 if config.norm == "layernorm" else 4)


def _head_bytes(config: ModelConfig, tokens: int, supervised: int, *, compiled: bool) -> int:
    """What the LM head and its loss have alive, at the end of the forward pass or where backward begins."""
    weights, hidden = config.vocabulary * config.width, tokens * config.width
    chunk = ROWS * config.vocabulary  # the last one is filled up
    # The head in 16 bits, its gradient in 32; what goes in and its gradient, in 16; logits and what is made of them.
    forward = 6 * weights + 4 * hidden + 4 * supervised * config.width + (6 if compiled else 12) * chunk
    if config.positions == "learned":
        forward += 8 * hidden  # the rows of both tables, before they are added
    return max(forward, 8 * weights + 8 * hidden)  # both gradients, and both scaled


def _backward_bytes(config: ModelConfig, *, recompute: bool) -> int:
    """What backward through one block has alive at most, per token, beside what is kept."""
    inner = 2 * config.ffn if config.activation == "gelu" else 4 * config.ffn
    if recompute:
        return max(6 * config.width, inner) - 2 * config.width  # the block's own input is kept already
    return max(8 * config.width, inner + (2 * config.width if config.activation == "gelu" else 0))


def _largest_matrix(config: ModelConfig) -> int:
    """Weights of the largest matrix of a block; its gradient is made in 16 bits, then in 32."""
    return config.width * config.ffn * (2 if config.activation == "swiglu" else 1)


def _table_bytes(config: ModelConfig) -> int:
    """Sines and cosines of every position."""
    return 4 * config.context * config.head_size


def moment_bytes(config: ModelConfig, optimizer: Optimizer) -> int:
    """AdamW's two moments of every parameter; Muon has one of the blocks' matrices."""
    by_muon = config.layers * config.matrices_per_layer if optimizer == "muon" else 0
    return 8 * (config.parameters - by_muon) + 4 * by_muon
