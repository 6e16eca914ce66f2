"""What an epoch takes of each prompt type: weights, the share of raw text, and how both change from epoch to epoch.

Guarantees: a name that no packed record has is refused, with the nearest one; what an epoch takes is a function of the mix
and the epoch's number alone. A prompt type's own weight goes before its family's; an entry of the curriculum goes before the
weights of the table, and changes nothing of the other entries. Raw text goes by its share, never by a weight.
Cost: none; numpy and torch are not imported.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from foundation.errors import UsageError

if TYPE_CHECKING:
    from foundation.tables import MixSettings

RAW = "raw"  # family of the raw text, and the curriculum's key for its share
RAW_ARTICLE = "raw/article"
HEAVIEST = 1000.0  # what a weight may be: above it, one epoch of a million records would not fit in memory
WHERE = "[mix] in factory.toml"


@dataclass(frozen=True)
class EpochMix:
    """One epoch's mix: the weight of each prompt type, in the order of their numbers (0 for raw text), and raw text's share."""

    weights: tuple[float, ...]
    raw: float


def epoch_mix(mix: MixSettings, types: Sequence[str], families: Sequence[str], epoch: int) -> EpochMix:
    """The mix of `epoch`, counted from 0. `types` and `families` are the names of each type number (as in `PackMeta`)."""
    entry = mix.curriculum[min(epoch, len(mix.curriculum) - 1)] if mix.curriculum else {}
    named = {**mix.weights, **{name: weight for name, weight in entry.items() if name != RAW}}
    weights = [
        0.0 if family == RAW else float(named.get(name, named.get(family, 1.0)))
        for name, family in zip(types, families, strict=True)
    ]
    return EpochMix(tuple(weights), float(entry.get(RAW, mix.raw)))


def check_mix(mix: MixSettings, types: Sequence[str], families: Sequence[str]) -> None:
    """Raise `UsageError` for a name that no record has, a weight or share out of bounds, or raw text that is not packed."""
    _check_weights(mix.weights, "mix.weights", types, families)
    for number, entry in enumerate(mix.curriculum, 1):
        weights = {name: weight for name, weight in entry.items() if name != RAW}
        _check_weights(weights, f"mix.curriculum, epoch {number}", types, families)
        share = entry.get(RAW, 0.0)
        if not 0 <= share <= 1:
            raise UsageError(
                f"raw text is a share, and {share:g} is none",
                where=f"mix.curriculum, epoch {number}, {WHERE}",
                mend='write a number from 0 to 1: {"raw" = 0.2}',
            )
    if wants_raw(mix) and RAW not in families:
        raise UsageError(
            "the mix asks for raw text, and none is packed",
            where=WHERE,
            mend="run `trainer pack --raw`, or set raw to 0",
        )


def wants_raw(mix: MixSettings) -> bool:
    """Whether any epoch could take raw text."""
    return mix.raw > 0 or any(entry.get(RAW, 0) > 0 for entry in mix.curriculum)


def _check_weights(weights: Mapping[str, float], where: str, types: Sequence[str], families: Sequence[str]) -> None:
    known = {*types, *families} - {RAW, RAW_ARTICLE}
    for name, weight in weights.items():
        if name in (RAW, RAW_ARTICLE):
            raise UsageError(
                f"{name!r} has no weight: raw text goes by its share",
                where=f"{where}, {WHERE}",
                mend="set mix.raw = 0.2 for a fifth of the tokens",
            )
        if name not in known:
            near = "".join(f"did you mean {one!r}? " for one in difflib.get_close_matches(name, known, 1, 0.5))
            has = ", ".join(sorted({*families} - {RAW}))
            raise UsageError(
                f"no packed record is of a prompt type or family {name!r}",
                where=f"{where}, {WHERE}",
                mend=f"{near}families here: {has}",
            )
        if not 0 <= weight <= HEAVIEST:
            raise UsageError(
                f"the weight of {name!r} is {weight:g}",
                where=f"{where}, {WHERE}",
                mend=f"write one from 0 to {HEAVIEST:g}",
            )
