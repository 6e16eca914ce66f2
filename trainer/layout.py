"""The one place where the layout of packed contexts is made: document boundaries, positions and targets.

Shapes: B contexts of T tokens lie one behind the other as N = B*T tokens. A document is one record, or padding that
fills a context's tail, in pieces of at most 128; D documents follow each other without a gap, and none crosses a context's end.
Guarantees: positions restart at 0 in every document; a target is the next token of the same record, or `IGNORE`.
Knows nothing of attention, models or files. Cost: one pass over the tokens in numpy (under 1 ms for 16,384 tokens).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

IGNORE = -100  # what torch's cross entropy passes over
PADDING = 128  # longest document of padding: one as long as the context would cost more attention than all its records
SPARSE = 64  # `bounds` has room for documents of this length on the average, and more where more are needed ...
FEW = 32  # ... and for this many at least


@dataclass(frozen=True)
class Layout:
    """Where the documents of N tokens lie.

    `bounds`: int32 on the CPU, where each document begins, from 0, and N behind the last; N is repeated up to a length of
    1 + a power of two, so that tensors keep their shape from batch to batch and a compiled step is not compiled again.
    `device_bounds`: the same numbers where the tokens are. `lengths`: the D lengths, none of them 0. `max_seqlen`: the
    context T, an upper bound on every length that stays the same from batch to batch.
    """

    bounds: torch.Tensor
    device_bounds: torch.Tensor
    lengths: tuple[int, ...]
    max_seqlen: int

    @classmethod
    def of(cls, lengths: Sequence[int], max_seqlen: int) -> Layout:
        """The layout of documents of these lengths, one behind the other. Every length is 1 to `max_seqlen`."""
        if any(not 1 <= length <= max_seqlen for length in lengths):
            raise ValueError(f"a document is 1 to {max_seqlen} tokens long")
        total = int(sum(lengths))
        slots = 1 << max(len(lengths), -(-total // SPARSE), FEW).bit_length()  # above the number of documents
        numbers = np.full(slots + 1, total, dtype=np.int32)
        numbers[0] = 0
        np.cumsum(lengths, out=numbers[1 : len(lengths) + 1])
        bounds = torch.from_numpy(numbers)
        return cls(bounds, bounds, tuple(int(length) for length in lengths), max_seqlen)

    @property
    def cu_seqlens(self) -> torch.Tensor:
        """The D + 1 boundaries alone, on the CPU."""
        return self.bounds[: len(self.lengths) + 1]

    def document_ids_N(self, tokens: int) -> torch.Tensor:
        """For each of the N `tokens`, the number of its document, from 0 (int64, where the tokens are)."""
        place_N = torch.arange(tokens, device=self.device_bounds.device)
        return torch.bucketize(place_N, self.device_bounds[1:].long(), right=True)

    def to(self, device: torch.device | str) -> Layout:
        return Layout(self.bounds, self.bounds.to(device, non_blocking=True), self.lengths, self.max_seqlen)


@dataclass(frozen=True)
class Batch:
    """B contexts ready for a model: int64 tensors of N tokens.

    `targets_N[i]` is `tokens_N[i + 1]` where that token is trained on and of the same record, else `IGNORE`.
    `supervised_S`: the places of the targets that count, known here so that a GPU is never waited for to count them.
    `n_supervised`: how many they are. `n_record_tokens`: useful tokens, padding not counted. `n_squares`: the sum of the
    records' squared lengths, which attention's cost goes by.
    """

    tokens_N: torch.Tensor
    targets_N: torch.Tensor
    positions_N: torch.Tensor
    supervised_S: torch.Tensor
    layout: Layout
    n_supervised: int
    n_record_tokens: int
    n_squares: int

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on `device`."""
        return Batch(
            self.tokens_N.to(device, non_blocking=True),
            self.targets_N.to(device, non_blocking=True),
            self.positions_N.to(device, non_blocking=True),
            self.supervised_S.to(device, non_blocking=True),
            self.layout.to(device),
            self.n_supervised,
            self.n_record_tokens,
            self.n_squares,
        )


Ints = Sequence[int] | NDArray[np.generic]


def make_batch(contexts: Sequence[Sequence[tuple[Ints, Ints]]], context: int, pad_id: int) -> Batch:
    """Lay out B contexts, each a list of records as (token ids, mask), in tensors of B * `context` tokens.

    Raises `ValueError` if a context's records are longer than `context`, if a record is empty, or if ids and mask differ in length.
    """
    total = len(contexts) * context
    tokens_N = np.full(total, pad_id, dtype=np.int64)
    trained_N = np.zeros(total, dtype=bool)
    lengths: list[int] = []
    useful = squares = 0
    for row, records in enumerate(contexts):
        start, end = row * context, (row + 1) * context
        for ids, mask in records:
            stop = start + len(ids)
            if not len(ids) or len(ids) != len(mask) or stop > end:
                raise ValueError(f"a record of {len(ids)} tokens with a mask of {len(mask)} does not fit here")
            tokens_N[start:stop] = ids
            trained_N[start + 1 : stop] = mask[1:]  # a record's first token has nothing before it to be told from
            lengths.append(len(ids))
            squares += len(ids) ** 2
            start = stop
        useful += start - row * context
        lengths += [min(PADDING, end - at) for at in range(start, end, PADDING)]
    layout = Layout.of(lengths, context)
    targets_N = np.full(total, IGNORE, dtype=np.int64)
    where = np.flatnonzero(trained_N)
    targets_N[where - 1] = tokens_N[where]
    starts_N = np.repeat(layout.cu_seqlens[:-1].numpy(), lengths)
    positions_N = np.arange(total, dtype=np.int64) - starts_N
    return Batch(
        torch.from_numpy(tokens_N),
        torch.from_numpy(targets_N),
        torch.from_numpy(positions_N),
        torch.from_numpy(where - 1),
        layout,
        len(where),
        useful,
        squares,
    )
