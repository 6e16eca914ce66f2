"""The contexts of a whole run: each epoch mixed, shuffled and packed anew, from the lengths alone.

Guarantees: an epoch's contexts are a function of (data, mix, seed, epoch): whichever positions are asked for, in whatever
order or pieces, the same contexts come. Over epochs every record is taken as often as the weights add up to, to within one:
half a weight takes the two halves of a prompt type in turn. Nothing is written, and no text is copied.
Cost: 0.25 s for an epoch of a million records when it is begun, and 0.12 s for each of a run's epochs at its start, whose
contexts have to be counted for the schedule; 35 bytes a record.
"""

from __future__ import annotations

import math
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from foundation.errors import UsageError
from foundation.ids import seed_of
from trainer.bestfit import Int32s, Int64s, pack_lengths
from trainer.mix import RAW, WHERE, EpochMix, check_mix, epoch_mix

if TYPE_CHECKING:
    from foundation.tables import MixSettings
    from trainer.pack import PackedData

KEPT = 2  # epochs in memory: a step may reach from one into the next


def permutation(count: int, *parts: str | int) -> Int32s:
    """The numbers 0 to `count` - 1 in an order that is a function of `parts` alone (numpy keeps this one's stream for ever)."""
    return np.random.RandomState(seed_of(*parts)).permutation(np.arange(count, dtype=np.int32))


class Epochs:
    """The contexts of a run of `epochs` epochs (the last may be cut), numbered from 0 through all of them."""

    def __init__(self, data: PackedData, mix: MixSettings, *, seed: int, epochs: float) -> None:
        """Raises `UsageError` if the mix names what is not there, or leaves an epoch with nothing, or for epochs without end."""
        if not math.isfinite(epochs):
            raise UsageError(
                f"a run of {epochs} epochs never ends", where="train.epochs in factory.toml", mend="write 4"
            )
        self.data, self.mix, self.seed, self.epochs = data, mix, seed, epochs
        check_mix(mix, data.meta.types, data.meta.families)
        self._packed: dict[int, tuple[Int32s, Int64s]] = {}
        self._mixes: dict[int, EpochMix] = {}
        whole = [self._count(epoch) for epoch in range(math.ceil(epochs))]
        self.bounds: list[int] = [0, *np.cumsum(whole, dtype=np.int64).tolist()]
        """Position at which each epoch begins, and the one after the last, as if the last were whole."""
        cut = len(whole) - epochs
        self.contexts: int = self.bounds[-1] - (math.floor(cut * whole[-1] + 1e-9) if whole else 0)

    def take(self, start: int, count: int) -> list[Int32s]:
        """The record numbers of the contexts from position `start` on: `count` of them, fewer at the end of the run."""
        if start < 0 or count < 0:
            raise IndexError(f"{count} contexts from {start} on")
        stop = min(start + count, self.contexts)
        found: list[Int32s] = []
        for epoch, (first, behind) in enumerate(pairwise(self.bounds)):
            inside = range(max(start, first), min(stop, behind))
            if inside:
                order, packs = self.packing(epoch)
                found += [order[packs[here - first] : packs[here - first + 1]] for here in inside]
        return found

    def epoch_at(self, cursor: int) -> float:
        """How many epochs `cursor` contexts are."""
        for epoch, (first, behind) in enumerate(pairwise(self.bounds)):
            if cursor < behind:
                return epoch + (cursor - first) / (behind - first)
        return float(len(self.bounds) - 1)

    def packing(self, epoch: int) -> tuple[Int32s, Int64s]:
        """One epoch's contexts: record numbers, and p + 1 offsets into them."""
        if epoch not in self._packed:
            while len(self._packed) >= KEPT:
                del self._packed[next(iter(self._packed))]
            numbers = self._drawn(epoch)
            order, packs = pack_lengths(self._lengths[numbers], self.data.meta.context)
            self._packed[epoch] = self._shuffled(numbers[order], packs, epoch)
        return self._packed[epoch]

    def selection(self, epoch: int) -> Int32s:
        """The records that `epoch` takes, type by type, each as often as it is taken."""
        mixed, past = self._mix(epoch), [self._mix(before) for before in range(epoch)]
        taken: list[Int32s] = []
        for kind, members in enumerate(self._members):
            if self.data.meta.families[kind] == RAW:
                continue
            weights = [one.weights[kind] for one in (*past, mixed)]
            # Both are exact sums: where one epoch ends, the next one begins, to the last record.
            begin, end = (round(math.fsum(some) * len(members)) for some in (weights[:-1], weights))
            taken += self._in_turn(kind, begin, end)
        return np.concatenate([*taken, *self._raw(mixed, past), np.zeros(0, dtype=np.int32)])

    def _count(self, epoch: int) -> int:
        lengths = self._lengths[self._drawn(epoch)]
        if not len(lengths) and self.data.meta.records:
            raise UsageError(f"the mix takes nothing in epoch {epoch + 1}", where=WHERE, mend="give something a weight")
        return len(pack_lengths(lengths, self.data.meta.context)[1]) - 1

    def _drawn(self, epoch: int) -> Int32s:
        """The selection in the epoch's own order."""
        taken = self.selection(epoch)
        return taken[permutation(len(taken), "records", self.seed, epoch)]

    def _shuffled(self, order: Int32s, packs: Int64s, epoch: int) -> tuple[Int32s, Int64s]:
        """The same contexts in another order: best fit leaves them sorted by the length of their records."""
        turns = permutation(len(packs) - 1, "contexts", self.seed, epoch)
        sizes = np.diff(packs)[turns]
        moved = np.zeros_like(packs)
        np.cumsum(sizes, out=moved[1:])
        source = np.repeat(packs[:-1][turns] - moved[:-1], sizes) + np.arange(len(order))
        return order[source], moved

    def _in_turn(self, kind: int, begin: int, end: int) -> list[Int32s]:
        """Members of one type at places `begin` to `end` of an endless round through all of them, in a seeded order."""
        members = self._members[kind]
        if not len(members):
            return []
        rounds, rest = divmod(end - begin, len(members))
        places = (begin + np.arange(rest)) % len(members)
        return [members] * rounds + ([members[self._round(kind)[places]]] if rest else [])

    def _round(self, kind: int) -> Int32s:
        return permutation(len(self._members[kind]), "round", self.seed, self.data.meta.types[kind])

    def _raw(self, mixed: EpochMix, past: list[EpochMix]) -> list[Int32s]:
        """Raw documents, in turn, until they make the share of the epoch's tokens that is asked for."""
        if mixed.raw == 0:
            return []
        kind = self.data.meta.families.index(RAW)
        tokens = np.cumsum(self._lengths[self._members[kind]][self._round(kind)], dtype=np.int64)
        before = sum(self._raw_tokens(one, int(tokens[-1])) for one in past)
        upto = before + self._raw_tokens(mixed, int(tokens[-1]))
        begin, end = (
            count // int(tokens[-1]) * len(tokens) + int(np.searchsorted(tokens, count % int(tokens[-1]), "right"))
            for count in (before, upto)
        )
        return self._in_turn(kind, begin, end)

    def _raw_tokens(self, mixed: EpochMix, packed: int) -> int:
        """Tokens of raw text in one epoch: its share beside the others' weights; alone, each document once."""
        if mixed.raw == 1:
            return packed
        others = sum(weight * tokens for weight, tokens in zip(mixed.weights, self._tokens, strict=True))
        return round(others * mixed.raw / (1 - mixed.raw))

    def _mix(self, epoch: int) -> EpochMix:
        if epoch not in self._mixes:  # asked for by every later epoch
            mixed = epoch_mix(self.mix, self.data.meta.types, self.data.meta.families, epoch)
            self._mixes[epoch] = EpochMix((0.0,) * len(mixed.weights), 1.0) if mixed.raw == 1 else mixed
        return self._mixes[epoch]

    @cached_property
    def _lengths(self) -> Int32s:
        return np.diff(self.data.records).astype(np.int32)

    @cached_property
    def _members(self) -> list[Int32s]:
        """Record numbers of each type."""
        by_type = np.argsort(self.data.types, kind="stable").astype(np.int32)
        counts = np.bincount(self.data.types, minlength=len(self.data.meta.types))
        return np.split(by_type, np.cumsum(counts)[:-1]) if len(counts) else []

    @cached_property
    def _tokens(self) -> list[int]:
        return [int(self._lengths[members].sum()) for members in self._members]
