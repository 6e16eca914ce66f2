"""A checkpoint as a folder that `transformers`, vLLM and others load: safetensors, configs, tokenizer, chat template.

Guarantees: the folder is whole or absent, whatever kills the writer or fills the disk; one that is there is never written
over. Everything is flushed to disk before it gets its name. Tensors above `SHARD_BYTES` together are split over files.
Cost: one file's tensors in memory (5 GB at most) beside the checkpoint's pages; the speed of the disk; no model is built.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from foundation.console import progress
from foundation.errors import Failure, UsageError
from trainer import checkpoint
from trainer.chatml import CHAT_TEMPLATE, ENDOFTEXT, IM_END, special_id
from trainer.export.layouts import hf_config, tied
from trainer.export.tensors import hf_tensors
from trainer.paths import sync_path
from trainer.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.shape import ModelConfig

SHARD_BYTES = 5 * 10**9
SPARE = 16 << 20  # bytes beyond the tensors that must be free: configs, tokenizer, the file system's own
TOP_K, TEMPERATURE = 40, 0.75  # as `trainer chat` draws
Dtype = Literal["float32", "bfloat16"]
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


@dataclass(frozen=True)
class Source:
    """What is exported: a checkpoint's folder, checked, its shape, and the tokenizer it was trained with."""

    checkpoint: Path
    config: ModelConfig
    tokenizer: Path


@contextlib.contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """An empty folder that is renamed to `target` when the block ends well, and removed when it does not.

    Raises `UsageError` if something is there already; an empty folder is not something. One writer a target: the caller
    holds a lock. What a killed writer left behind is swept up by the next one.
    """
    refuse_taken(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    for left in target.parent.glob(f".{target.name}-*.partial"):
        shutil.rmtree(left, ignore_errors=True)
    fresh = target.parent / f".{target.name}-{uuid.uuid4().hex[:12]}.partial"
    fresh.mkdir()
    try:
        yield fresh
        for path in (*fresh.iterdir(), fresh):
            sync_path(path)
        try:
            fresh.rename(target)
        except OSError as error:
            refuse_taken(target)  # someone made it meanwhile
            raise error
        sync_path(target.parent)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def refuse_taken(target: Path) -> None:
    """Raises `UsageError` if `target` is a file, or a folder with something in it."""
    if target.is_symlink() or target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise UsageError(
            "there is something of that name already, and an export writes over nothing",
            where=str(target),
            mend="take another --name or --out, or remove it first",
        )


def exported_bytes(config: ModelConfig, dtype: Dtype) -> int:
    """Bytes of the tensors of an export, but for biases and grouped heads that its layout has and ours has not."""
    extra = config.vocabulary * config.width if config.tied and not tied(config) else 0
    return (config.parameters + extra) * torch.finfo(getattr(torch, dtype)).bits // 8


def write_model(folder: Path, source: Source, dtype: Dtype, shard_bytes: int = SHARD_BYTES) -> dict[str, int]:
    """Write all that a loader needs into the empty `folder`; returns the bytes of each file.

    Raises `UsageError` if no layout can say the shape, `Failure` if the disk has no room for it.
    """
    tokenizer = load_tokenizer(source.tokenizer)
    end, pad = special_id(tokenizer, IM_END), special_id(tokenizer, ENDOFTEXT)
    config = hf_config(source.config, dtype, end=end, pad=pad)
    _check_room(folder, exported_bytes(source.config, dtype))
    _write_weights(folder, source, dtype, shard_bytes)
    _write_json(folder / "config.json", config)
    _write_json(folder / "generation_config.json", generation_config(end, pad))
    _write_json(folder / "tokenizer_config.json", tokenizer_config(source.config.context))
    (folder / "tokenizer.json").write_bytes(source.tokenizer.read_bytes())
    return {path.name: path.stat().st_size for path in sorted(folder.iterdir())}


def generation_config(end: int, pad: int) -> dict[str, Any]:
    """Sampled as `trainer chat` does. No limit on length: a server would take it as its own for every request."""
    return {
        "do_sample": True,
        "top_k": TOP_K,
        "temperature": TEMPERATURE,
        "top_p": 1.0,
        "eos_token_id": end,
        "pad_token_id": pad,
    }


def tokenizer_config(context: int) -> dict[str, Any]:
    """Nothing is put before a text, nothing tidied away behind it: ids are those of `trainer.chatml`."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": None,
        "eos_token": IM_END,
        "pad_token": ENDOFTEXT,
        "model_max_length": context,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }


def _write_weights(folder: Path, source: Source, dtype: Dtype, shard_bytes: int) -> None:
    """One file, or `model-00001-of-0000N` and so on with an index: how many is known only at the end."""
    from safetensors import safe_open

    kind = getattr(torch, dtype)
    part: dict[str, Tensor] = {}
    parts: list[list[str]] = []
    size = total = 0

    def write() -> None:
        _save(part, folder / _unnumbered(len(parts)))
        parts.append(list(part))
        part.clear()

    with safe_open(source.checkpoint / checkpoint.MODEL, "pt") as file, progress("tensors exported") as bar:
        for name, view in hf_tensors(source.config, file.get_tensor):
            # a copy: safetensors takes no two tensors of one storage
            tensor = view.to(kind, copy=True, memory_format=torch.contiguous_format)
            if part and size + tensor.nbytes > shard_bytes:
                write()
                size = 0
            part[name] = tensor
            size += tensor.nbytes
            total += tensor.nbytes
            bar.advance()
        write()
    if len(parts) == 1:
        (folder / _unnumbered(0)).rename(folder / WEIGHTS)
        return
    where: dict[str, str] = {}
    for number, names in enumerate(parts):
        file_name = f"model-{number + 1:05d}-of-{len(parts):05d}.safetensors"
        (folder / _unnumbered(number)).rename(folder / file_name)
        where |= dict.fromkeys(names, file_name)
    _write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": where})


def _unnumbered(number: int) -> str:
    return f"part-{number}"


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(tensors, path, metadata={"format": "pt"})
    except SafetensorError as error:
        raise Failure(
            f"the weights could not be written, and nothing of the export is left: {error}",
            where=str(path.parent.parent),
            mend="make room there, or take another --out, then run the same command again",
        ) from error


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed + SPARE:
        raise Failure(
            f"not enough room: the export takes {needed / 1e9:,.2f} GB, and {free / 1e9:,.2f} GB are free",
            where=str(folder.parent),
            mend="make room there, or take another --out",
        )


def _write_json(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", "utf-8")
