"""Writing with the model: prompts in, tokens out one by one, many prompts at once.

Shape letters: B prompts, S places in the cache, N tokens of all prompts laid end to end; the rest as in `trainer.model`.
Guarantees: with the cache the logits are those of the model without it (to rounding, tested at 1e-5); greedy choice is
repeatable; a sampled text is a function of its seed. Rows that have ended are dropped from the work once they are half.
Cost: one pass over all prompts packed, then one step a token; the cache takes 2 x layers x G x D numbers of the weights'
own kind a token, all at the start. Nothing is computed twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.attention import attend
from trainer.layout import Layout

if TYPE_CHECKING:
    from trainer.model import Model
    from trainer.shape import ModelConfig

Choose = Callable[[Tensor], Tensor]
"""logits_BV -> the next token of each row, int64 of shape (B,)."""


def greedy(logits_BV: Tensor) -> Tensor:
    """The likeliest token of each row."""
    return logits_BV.argmax(-1)


def top_k_sampler(k: int, temperature: float, seed: int) -> Choose:
    """Draws among the `k` likeliest tokens, from a random state of its own."""
    random = torch.Generator().manual_seed(seed)

    def choose(logits_BV: Tensor) -> Tensor:
        values_Bk, tokens_Bk = logits_BV.topk(min(k, logits_BV.shape[-1]))
        shares_Bk = (values_Bk / temperature).softmax(-1).cpu()
        drawn_B1 = torch.multinomial(shares_Bk, 1, generator=random).to(tokens_Bk.device)
        return tokens_Bk.gather(-1, drawn_B1).squeeze(-1)

    return choose


class KVCache:
    """Keys and values of B rows, each as long as its own `lengths` says; room for all of them is taken at the start."""

    def __init__(self, config: ModelConfig, lengths: Sequence[int], places: int, like: Tensor) -> None:
        shape = (config.layers, 2, len(lengths), config.kv_heads, places, config.head_size)
        self.kv = torch.zeros(shape, dtype=like.dtype, device=like.device)
        self.lengths = list(lengths)
        self.grouped = config.kv_heads != config.heads
        self.layout = Layout.of(lengths, max(lengths)).to(like.device)

    def prefill(self, layer: int, q_NHD: Tensor, k_NGD: Tensor, v_NGD: Tensor) -> Tensor:
        """All prompts at once, packed: attention within each, and what it looked at kept."""
        kv_2NGD = torch.stack((k_NGD, v_NGD))
        start = 0
        for row, length in enumerate(self.lengths):
            self.kv[layer, :, row, :, :length] = kv_2NGD[:, start : start + length].transpose(1, 2)
            start += length
        return attend(q_NHD, k_NGD, v_NGD, self.layout, "segments")

    def begin(self, last: int) -> Tensor:
        """Make room for one more token in every row; returns their positions, at most `last`. Once before all layers' `step`.

        What does not differ from layer to layer is worked out here: on a GPU, nothing in `step` waits for it.
        """
        self.lengths = [min(length, last) for length in self.lengths]  # rows that have ended go on unseen
        self.used = max(self.lengths) + 1
        device = self.kv.device
        self.at_B = torch.tensor(self.lengths, device=device)
        self.even = self.used == min(self.lengths) + 1
        if not self.even:
            self.rows_B = torch.arange(len(self.lengths), device=device)
            self.seen_B11S = (torch.arange(self.used, device=device) <= self.at_B[:, None])[:, None, None]
        self.lengths = [length + 1 for length in self.lengths]
        return self.at_B

    def step(self, layer: int, q_BHD: Tensor, k_BGD: Tensor, v_BGD: Tensor) -> Tensor:
        """One more token in every row, at the places that `begin` chose."""
        if self.even:
            self.kv[layer, 0, :, :, self.used - 1], self.kv[layer, 1, :, :, self.used - 1] = k_BGD, v_BGD
        else:
            self.kv[layer, 0, self.rows_B, :, self.at_B] = k_BGD
            self.kv[layer, 1, self.rows_B, :, self.at_B] = v_BGD
        k_BGSD, v_BGSD = self.kv[layer, :, :, :, : self.used]
        mask = None if self.even else self.seen_B11S
        out_BH1D = F.scaled_dot_product_attention(
            q_BHD.unsqueeze(2), k_BGSD, v_BGSD, attn_mask=mask, enable_gqa=self.grouped
        )
        return out_BH1D.squeeze(2)

    def keep(self, rows: list[int]) -> None:
        """Forget all rows but these."""
        self.kv = self.kv[:, :, torch.tensor(rows, device=self.kv.device)]
        self.lengths = [self.lengths[row] for row in rows]


@torch.inference_mode()
def generate(
    model: Model, prompts: Sequence[Sequence[int]], *, limit: int, stop: int, choose: Choose = greedy
) -> Iterator[tuple[int, int]]:
    """Yields (number of the prompt, token) as tokens come; a row's last one is `stop` unless it ran to `limit` tokens.

    No prompt may be empty. A row also ends where the model's positions do. Prompts of that length or more yield nothing.
    """
    room = model.config.context
    alive = [number for number, prompt in enumerate(prompts) if len(prompt) < room]
    if not alive or limit < 1:
        return
    lengths = [len(prompts[number]) for number in alive]
    device = model.embedding.weight.device
    cache = KVCache(model.config, lengths, min(room, max(lengths) + limit), model.embedding.weight)
    tokens_N = torch.tensor([token for number in alive for token in prompts[number]], device=device)
    positions_N = torch.cat([torch.arange(length, device=device) for length in lengths])
    ends_B = torch.tensor(lengths, device=device).cumsum(0) - 1
    hidden_BC = model.hidden(tokens_N, positions_N, cache.prefill)[ends_B]
    left = [min(limit, room - length) for length in lengths]  # tokens each row may still write
    while True:
        tokens_B = choose(model.logits(hidden_BC))
        for row, token in enumerate(tokens_B.tolist()):
            if left[row]:
                left[row] = 0 if token == stop else left[row] - 1
                yield alive[row], token
        running = [row for row, more in enumerate(left) if more]
        if not running:
            return
        if 2 * len(running) <= len(alive):
            cache.keep(running)
            tokens_B = tokens_B[torch.tensor(running, device=device)]
            alive, left = [alive[row] for row in running], [left[row] for row in running]
        positions_B = cache.begin(room - 1)
        hidden_BC = model.hidden(tokens_B, positions_B, cache.step)
