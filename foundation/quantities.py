"""Sizes and shares as people write them on a command line: `256M`, `1.5G`, `10%`.

Guarantees: what cannot be read is wrong use, named, with the forms that can. Cost: nothing.
"""

from __future__ import annotations

import re

from foundation.errors import UsageError

UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
DIGITS = 18  # of a size, at most: no disk holds more, and a float takes no 400


def size_bytes(text: str) -> int:
    """Bytes of `256M`, `1.5GB`, `64KiB` or `4096`; units are powers of 1,024. Raises `UsageError`."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?)(?:I?B)?", text.strip().upper())
    if not found or len(found[1]) > DIGITS:
        raise UsageError(f"not a size: {text!r}", mend="write it as 256M, 1.5G or a number of bytes")
    return int(float(found[1]) * UNITS[found[2]])


def share(text: str) -> float:
    """A share above 0 and up to 1, of `10%` or `0.1`. Raises `UsageError`."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s*(%?)", text.strip())
    value = float(found[1]) / (100 if found[2] else 1) if found else 0.0
    if not 0 < value <= 1:
        raise UsageError(f"not a share: {text!r}", mend="write it as 10% or 0.1, above 0 and up to 100%")
    return value
