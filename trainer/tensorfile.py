"""Tensors into a safetensors file, one after another.

Guarantees: any layout, device and dtype below; the bytes are a function of the tensors alone, and `safetensors` reads
them; flushed to disk when `write` returns. Cost: one tensor on the CPU at a time, so a model on a GPU needs no second copy
of itself in memory (`safetensors.torch.save_file` makes one, and takes contiguous tensors only); the checksum is taken on
the way, without reading back.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.bool: "BOOL",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8",
}  # fmt: skip


def write(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write `tensors` into the new file `path`. Returns the file's SHA-256. Raises OSError if the disk refuses."""
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))  # so that each is aligned
    header: dict[str, object] = {}
    end = 0
    for name in order:
        tensor, start = tensors[name], end
        end += tensor.numel() * tensor.element_size()
        header[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    digest = hashlib.sha256()
    with open(path, "xb", buffering=0) as file:
        _append(file.fileno(), digest, memoryview(len(head).to_bytes(8, "little") + head))
        for name in order:
            _append(file.fileno(), digest, _bytes(tensors[name]))
        os.fsync(file.fileno())
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def _append(descriptor: int, digest: hashlib._Hash, data: memoryview) -> None:
    """Write all of it: one call takes 2 GiB at most, and less where the disk fills up on the way."""
    digest.update(data)
    while len(data):
        data = data[os.write(descriptor, data) :]
