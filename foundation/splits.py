"""What the splits are called where people read of them.

Guarantees: one name each, everywhere, in the order in which a model finds them harder. Cost: none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from foundation.records import Split

SPLIT_NAMES: dict[Split, str] = {
    "train": "trained phrasing",
    "phrasing": "held-out phrasing",
    "unseen": "unseen article",
}


def split_name(split: str) -> str:
    """What a split is called; one that is not known, as it stands."""
    return next((name for known, name in SPLIT_NAMES.items() if known == split), split)
