"""Sizes and shares as people write them."""

from __future__ import annotations

import pytest

from foundation.errors import UsageError
from foundation.quantities import share, size_bytes


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("4096", 4096), ("256M", 256 << 20), ("256 mb", 256 << 20), ("1.5G", 3 << 29), ("64KiB", 64 << 10), ("2T", 2 << 40)],
)  # fmt: skip
def test_sizes(text: str, size: int) -> None:
    assert size_bytes(text) == size


@pytest.mark.parametrize("text", ["", "M", "-1G", "1X", "1,5G", "nan", "1e9", "256 M B", "9" * 400])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(UsageError, match="not a size"):
        size_bytes(text)


@pytest.mark.parametrize(
    ("text", "value"), [("10%", 0.1), ("0.1", 0.1), (".5", 0.5), ("100%", 1.0), ("1", 1.0), ("2.5 %", 0.025)]
)
def test_shares(text: str, value: float) -> None:
    assert share(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "%", "0", "0%", "101%", "2", "-10%", "ten"])
def test_what_is_no_share(text: str) -> None:
    with pytest.raises(UsageError, match="not a share"):
        share(text)
