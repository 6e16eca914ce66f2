"""What the machine is said to reach: the peak a GPU's MFU is taken of, and the most memory this process has had.

Guarantees: a card that is not in the table, or a slice or a laptop's kind of one that is, has no peak rather than a wrong one.
Cost: torch is imported only where a device is asked.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# Dense bfloat16 FLOP/s with float32 accumulation, at boost clock, as the vendor's sheets have it. Sheets that give only the
# figure "with sparsity" are halved. Turing and Volta (T4, V100) have no bfloat16 in hardware, so they are not here.
PEAKS = {
    "b200": 2_250e12,  # HGX B200 datasheet: 36 PFLOP/s for eight, with sparsity
    "h200": 989e12,  # H200 datasheet, SXM: 1,979 with sparsity
    "h200 nvl": 835e12,  # H200 datasheet, NVL: 1,671 with sparsity
    "gh200": 990e12,  # GH200 datasheet
    "h100": 989e12,  # H100 datasheet, SXM: 1,979 with sparsity
    "h100 pcie": 756e12,  # H100 datasheet, PCIe: 1,513 with sparsity
    "h100 nvl": 835e12,  # H100 datasheet, NVL: 1,671 with sparsity
    "a100": 312e12,  # A100 datasheet, SXM and PCIe alike
    "a100 pcie": 312e12,
    "a30": 165e12,  # A30 datasheet
    "a40": 149.7e12,  # A40 datasheet
    "a10": 125e12,  # A10 datasheet
    "a10g": 70e12,  # A10G datasheet, as Amazon has it
    "l4": 121e12,  # L4 datasheet: 242 with sparsity
    "l40": 181e12,  # L40 datasheet
    "l40s": 362e12,  # L40S datasheet
    "rtx a6000": 154.8e12,  # RTX A6000 datasheet: 309.7 with sparsity
    "rtx a5000": 111.1e12,  # RTX A5000 datasheet: 222.2 with sparsity
    "rtx a4000": 76.7e12,  # RTX A4000 datasheet: 153.4 with sparsity
    "rtx 6000 ada": 364.2e12,  # RTX 6000 Ada datasheet: 1,457 in FP8 with sparsity, a quarter of it
    # GeForce: the GA102, Ada and Blackwell whitepapers' tables; those not in them are twice the FP32 rate of their data
    # sheet, as all that are in them are.
    "rtx 3060": 25.6e12,
    "rtx 3060 ti": 32.4e12,
    "rtx 3070": 40.6e12,
    "rtx 3070 ti": 43.5e12,
    "rtx 3080": 59.5e12,
    "rtx 3080 ti": 68.2e12,
    "rtx 3090": 71e12,
    "rtx 3090 ti": 80e12,
    "rtx 4060": 30.2e12,
    "rtx 4060 ti": 44.1e12,
    "rtx 4070": 58.3e12,
    "rtx 4070 super": 71e12,
    "rtx 4070 ti": 80.2e12,
    "rtx 4070 ti super": 88.2e12,
    "rtx 4080": 97.5e12,
    "rtx 4080 super": 104.4e12,
    "rtx 4090": 165.2e12,
    "rtx 5060": 38.4e12,
    "rtx 5060 ti": 47.4e12,
    "rtx 5070": 61.7e12,
    "rtx 5070 ti": 87.9e12,
    "rtx 5080": 112.6e12,
    "rtx 5090": 209.5e12,
}
# Words of a card's name that do not change how fast it is.
_NOISE = re.compile(r"nvidia|geforce|generation|sxm\d*|hbm\d?e?|\d+gb")


def peak_of(name: str) -> float | None:
    """Dense bfloat16 FLOP/s of the card that calls itself `name`, or None where that is not known."""
    words = re.findall(r"[a-z0-9]+", name.lower())
    return PEAKS.get(" ".join(word for word in words if not _NOISE.fullmatch(word)))


def peak_flops(device: torch.device) -> float | None:
    """Dense bfloat16 FLOP/s of `device`; None where it is not known, and on a CPU."""
    if device.type != "cuda":
        return None
    import torch

    return peak_of(torch.cuda.get_device_name(device))


def memory_peak(device: torch.device) -> int:
    """Most bytes this process has had at once since it began: allocated on a GPU, resident for a CPU."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated(device))
    try:  # not `ru_maxrss` where it can be helped: that counts what the process was before it became this program
        found = re.search(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text("ascii", "replace"), re.MULTILINE)
    except OSError:
        found = None
    if found:
        return int(found[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
