"""What a mix makes of the packs, epoch by epoch, before anything is trained.

Guarantees: the counts are those of the run (the same code draws the records). Epochs that follow each other with one mix are
told of once, by the first of them. Cost: a pass over the mask (0.1 s for 150 million tokens), and the run's own start.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from trainer.epochs import Epochs
from trainer.mix import RAW, RAW_ARTICLE, epoch_mix

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from foundation.tables import MixSettings, TrainSettings
    from trainer.pack import PackedData

REPLAY = 0.2  # share of the tokens below which what is not favoured is soon forgotten
BLOCK = 10_000  # records whose masks are summed at a time
WORN = 8  # times an epoch that a raw document may be read before it is said aloud


@dataclass(frozen=True)
class Part:
    """One prompt type or family in one epoch. `repeats`: how often a packed record of it is taken, on average."""

    name: str
    packed: int
    taken: int
    tokens: int
    share: float
    repeats: float


@dataclass(frozen=True)
class MixedEpoch:
    """Epochs `first` to `last` (counted from 1) that have one mix; the counts are of the first."""

    first: int
    last: int
    records: int
    tokens: int
    supervised: int
    raw: float
    contexts: int
    steps: int
    families: tuple[Part, ...]
    types: tuple[Part, ...]

    @property
    def name(self) -> str:
        return f"epoch {self.first}" if self.first == self.last else f"epochs {self.first} to {self.last}"


@dataclass(frozen=True)
class MixReport:
    """A run's mix. `records_per_step`: what one optimizer step of `batch` contexts holds on average."""

    context: int
    batch: int
    epochs: tuple[MixedEpoch, ...]
    contexts: int
    steps: int
    records_per_context: float
    records_per_step: float
    left_out: tuple[str, ...]
    warnings: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def mix_report(data: PackedData, mix: MixSettings, settings: TrainSettings) -> MixReport:
    """The report of a run with `settings` (resolved by `trainer.presets.recipe`). Raises what `Epochs` raises."""
    epochs = Epochs(data, mix, seed=settings.seed, epochs=settings.epochs)
    types, families = data.meta.types, data.meta.families
    mixes = [epoch_mix(mix, types, families, epoch) for epoch in range(len(epochs.bounds) - 1)]
    lengths = np.diff(data.records)
    trained = _trained(data)
    told = []
    for _, group in groupby(range(len(mixes)), key=lambda epoch: mixes[epoch]):
        alike = list(group)
        told.append(_mixed(epochs, alike, lengths, trained, settings.batch))
    taken = sum(one.records * (one.last - one.first + 1) for one in told)
    whole = sum(one.contexts * (one.last - one.first + 1) for one in told)
    per_context = taken / max(1, whole)
    return MixReport(
        context=data.meta.context,
        batch=settings.batch,
        epochs=tuple(told),
        contexts=epochs.contexts,
        steps=math.ceil(epochs.contexts / settings.batch),
        records_per_context=round(per_context, 2),
        records_per_step=round(per_context * min(settings.batch, max(1, epochs.contexts)), 1),
        left_out=_left_out(told, range(len(told))),
        warnings=tuple(_warnings(told, data)),
    )


def _trained(data: PackedData) -> NDArray[np.int64]:
    """How many tokens of each record are trained on. A block of records at a time, for numpy widens what it sums."""
    found = np.zeros(len(data), dtype=np.int64)
    for start in range(0, len(data), BLOCK):
        bounds = data.records[start : start + BLOCK + 1]
        masks = data.mask[bounds[0] : bounds[-1]]
        found[start : start + BLOCK] = np.add.reduceat(masks, bounds[:-1] - bounds[0], dtype=np.int64)
    return found


def _mixed(epochs: Epochs, alike: Sequence[int], lengths: Any, trained: Any, batch: int) -> MixedEpoch:
    epoch, meta = alike[0], epochs.data.meta
    numbers = epochs.selection(epoch)
    kinds = epochs.data.types[numbers]
    count = len(meta.types)
    packed = np.bincount(epochs.data.types, minlength=count)
    taken = np.bincount(kinds, minlength=count)
    tokens = np.bincount(kinds, weights=lengths[numbers], minlength=count).astype(np.int64)
    parts = _parts(meta.types, packed, taken, tokens)
    raw = [part.share for part in parts if part.name == RAW_ARTICLE]
    first, behind = epochs.bounds[epoch : epoch + 2]
    return MixedEpoch(
        first=epoch + 1,
        last=alike[-1] + 1,
        records=len(numbers),
        tokens=int(tokens.sum()),
        supervised=int(trained[numbers].sum()),
        raw=sum(raw),
        contexts=behind - first,
        steps=math.ceil(behind / batch) - math.ceil(first / batch),
        families=_parts(meta.families, packed, taken, tokens),
        types=parts,
    )


def _parts(names: Sequence[str], packed: Any, taken: Any, tokens: Any) -> tuple[Part, ...]:
    """The counts summed by name, those with most tokens first."""
    sums: dict[str, Any] = defaultdict(lambda: np.zeros(3, dtype=np.int64))
    for number, name in enumerate(names):
        sums[name] += (packed[number], taken[number], tokens[number])
    whole = max(1, int(tokens.sum()))
    parts = [
        Part(name, int(has), int(took), int(long), round(int(long) / whole, 4), round(int(took) / max(1, int(has)), 3))
        for name, (has, took, long) in sums.items()
    ]
    return tuple(sorted(parts, key=lambda part: (-part.tokens, part.name)))


def _left_out(told: Sequence[MixedEpoch], which: Sequence[int]) -> tuple[str, ...]:
    """Prompt types with records of which none of these epochs takes one; raw text not among them."""
    absent = [{part.name for part in told[number].types if not part.taken} - {RAW_ARTICLE} for number in which]
    return tuple(sorted(set.intersection(*absent))) if absent else ()


def _warnings(told: Sequence[MixedEpoch], data: PackedData) -> list[str]:
    lines = []
    if never := _left_out(told, range(len(told))):
        lines.append(f"left out of every epoch: {_named(never)}; a model cannot do what it is never shown")
    for number, one in enumerate(told):
        gone = set(_left_out(told, [number])) - set(never)
        if number and gone:
            lines.append(
                f"{one.name}: without {_named(sorted(gone))}, which would soon be forgotten; keep a share of it"
            )
        favoured = sum(part.share for part in one.types if part.repeats > 1 and part.name != RAW_ARTICLE)
        if favoured and 1 - favoured < REPLAY and favoured < 1:
            lines.append(
                f"{one.name}: what has no weight above 1 is {1 - favoured:.0%} of the tokens; below {REPLAY:.0%} it is soon forgotten"
            )
        lines += [
            f"{one.name}: each raw document is read {part.repeats:g} times; take in more text, or lower its share"
            for part in one.types
            if part.name == RAW_ARTICLE and part.repeats > WORN
        ]
    if RAW in data.meta.families and not any(one.raw for one in told):
        lines.append(f"{data.meta.raw_documents:,} raw documents are packed, and none is taken: mix.raw is 0")
    return lines


def _named(types: Sequence[str]) -> str:
    """Up to eight names; of a long list, the rest is counted."""
    return ", ".join(types[:8]) + (f" and {len(types) - 8} more" if len(types) > 8 else "")
