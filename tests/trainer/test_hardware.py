"""Peaks by the names that drivers give, and the memory of this process."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from tests.support.commands import REPOSITORY
from trainer.hardware import PEAKS, memory_peak, peak_flops, peak_of


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H100 NVL", 835e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA GH200 480GB", 990e12),
        ("NVIDIA A100-SXM4-40GB", 312e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA A100-PCIE-40GB", 312e12),
        ("NVIDIA A100 80GB PCIe", 312e12),
        ("NVIDIA A10G", 70e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA RTX 6000 Ada Generation", 364.2e12),
        ("NVIDIA RTX A6000", 154.8e12),
        ("NVIDIA GeForce RTX 3090", 71e12),
        ("NVIDIA GeForce RTX 4060 Ti", 44.1e12),
        ("NVIDIA GeForce RTX 4070 Ti SUPER", 88.2e12),
        ("NVIDIA GeForce RTX 4090", 165.2e12),
        ("NVIDIA GeForce RTX 5090", 209.5e12),
    ],
)
def test_a_cards_peak_is_found_by_its_name(name: str, peak: float) -> None:
    assert peak_of(name) == peak


@pytest.mark.parametrize(
    "name",
    [
        "Tesla T4",  # no bfloat16
        "Tesla V100-SXM2-16GB",
        "NVIDIA GeForce RTX 4090 Laptop GPU",  # slower than its namesake
        "NVIDIA GeForce RTX 4090 D",
        "NVIDIA A100-SXM4-40GB MIG 1g.5gb",  # a slice
        "GRID A100X-10C",
        "Quadro RTX 6000",
        "AMD Instinct MI300X",
        "",
    ],
)
def test_a_card_that_is_not_known_has_no_peak_rather_than_a_wrong_one(name: str) -> None:
    assert peak_of(name) is None


def test_a_cpu_has_no_peak() -> None:
    assert peak_flops(torch.device("cpu")) is None


def test_no_two_entries_are_read_alike() -> None:
    assert all(peak_of(name) == peak for name, peak in PEAKS.items())


def test_memory_on_a_cpu_is_this_processs_own_and_never_falls() -> None:
    # a child of a large process: what the parent holds does not count as the child's
    ballast = bytearray(300 << 20)
    code = """
import torch
from trainer.hardware import memory_peak
before = memory_peak(torch.device("cpu"))
block = bytearray(200 << 20)
during = memory_peak(torch.device("cpu"))
del block
print(before, during, memory_peak(torch.device("cpu")))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=120
    )
    before, during, after = map(int, done.stdout.split())
    assert during - before > 190 << 20
    assert after > before + (190 << 20)  # though the block is gone; the kernel counts in batches, so not to the byte
    assert memory_peak(torch.device("cpu")) > len(ballast)
