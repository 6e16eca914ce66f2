"""The parts of `trainer_gpu.py` that look at one thing alone: random batches, attention's time, agreement of the backends.

A turn of each call after the other's, so that what else the machine does meets both. Imports torch, numpy and the trainer's
own modules; it is no benchmark by itself.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from foundation.tables import TrainSettings
from trainer.attention import Backend, attend, choose_backend
from trainer.bestfit import pack_lengths
from trainer.layout import Batch, make_batch
from trainer.presets import model_config, preset, recipe
from trainer.shape import ModelConfig

SUPERVISED = 0.7  # the last part of a record, as in the example corpus
Row = dict[str, Any]


@dataclass
class Bench:
    """Where and how long. `small`: sizes that a CPU gets through in seconds."""

    device: torch.device
    compiled: bool
    small: bool
    end: float
    left_out: list[str] = field(default_factory=list)

    @property
    def backend(self) -> Backend:
        return choose_backend(self.device)

    @property
    def steps(self) -> int:
        return 2 if self.small else 20

    def late(self, what: str) -> bool:
        """Whether the time is up; what is then not measured is named."""
        if time.monotonic() < self.end:
            return False
        self.left_out.append(what)
        return True

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16)

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def forget(self, *, compiled: bool = True) -> None:
        """Give back what earlier parts held, what was `compiled` for them too, and count peaks anew."""
        if compiled:
            torch.compiler.reset()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    def seconds(self, *calls: Callable[[], object], times: int) -> list[list[float]]:
        """Seconds of each call, `times` each, turn by turn, after three turns that do not count."""
        taken: list[list[float]] = [[] for _ in calls]
        for turn in range(times + (1 if self.small else 3)):
            for place, call in enumerate(calls):
                self.synchronize()
                begun = time.perf_counter()
                call()
                self.synchronize()
                if turn >= (1 if self.small else 3):
                    taken[place].append(time.perf_counter() - begun)
        return taken


def random_batches(config: ModelConfig, context: int, batch: int, count: int, seed: int = 0) -> list[Batch]:
    """Packed batches of random tokens, in records as long as a corpus has them: 100 to 400 tokens, 200 on the average."""
    random = np.random.default_rng(seed)
    wanted = count * batch
    draws = random.lognormal(np.log(180), 0.45, size=wanted * context // 150 + 50)
    lengths = np.clip(draws, 16, context).astype(np.int32)
    order, packs = pack_lengths(lengths, context)
    contexts = []
    for number in random.permutation(len(packs) - 1)[:wanted]:
        records = []
        for length in lengths[order[packs[number] : packs[number + 1]]]:
            mask = np.zeros(length, dtype=np.uint8)
            mask[int(length * (1 - SUPERVISED)) :] = 1
            records.append((random.integers(1, config.vocabulary, size=length), mask))
        contexts.append(records)
    return [make_batch(contexts[start : start + batch], context, 0) for start in range(0, wanted, batch)]


def records_in(batch: Batch) -> int:
    """Documents that hold a supervised token: padding has none."""
    starts = batch.layout.bounds.numpy()[:-1].clip(max=len(batch.targets_N) - 1)
    trained = np.concatenate(([0], np.cumsum(batch.targets_N.numpy() >= 0)))
    ends = batch.layout.bounds.numpy()[1:]
    return int((trained[ends] > trained[starts]).sum())


def attention(bench: Bench, name: str, batch: int) -> Row:
    """Forward and backward of one layer's attention through our door, beside the bare call, turn by turn."""
    settings = recipe(TrainSettings(preset=name))
    context = 256 if bench.small else settings.context
    config = model_config(name, settings.vocabulary, context)
    here = random_batches(config, context, batch, 1)[0]
    lengths = here.layout.lengths
    there = here.to(bench.device)
    exact = there.layout.cu_seqlens.to(bench.device)
    q, k, v = heads(config, batch * context, bench.device, torch.bfloat16)
    wanted = torch.randn_like(q)

    def ours() -> None:
        torch.autograd.grad(attend(q, k, v, there.layout, bench.backend), (q, k, v), wanted)

    def bare() -> None:
        torch.autograd.grad(bare_attention(q, k, v, exact, lengths), (q, k, v), wanted)

    of_ours, of_bare = bench.seconds(ours, bare, times=4 if bench.small else 30)
    times = {"ours": statistics.median(of_ours), "bare": statistics.median(of_bare)}
    return {
        "preset": name,
        "tokens": batch * context,
        "records": records_in(here),
        "milliseconds": {key: round(value * 1000, 4) for key, value in times.items()},
        "ratio": round(times["ours"] / times["bare"], 4),
    }


def heads(config: ModelConfig, tokens: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Random q, k and v of that many tokens that ask for gradients; keys and values have as many heads as queries."""
    random = torch.Generator(device="cpu").manual_seed(0)
    shape = (tokens, config.heads, config.head_size)
    q, k, v = (torch.randn(shape, generator=random).to(device, dtype).requires_grad_() for _ in range(3))
    return q, k, v


def bare_attention(q_NHD: Tensor, k_NHD: Tensor, v_NHD: Tensor, bounds: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """torch's own `varlen_attn`, told the longest record there is; on a CPU one causal call a record."""
    if q_NHD.device.type == "cuda":
        from torch.nn.attention.varlen import varlen_attn

        longest = max(lengths)
        out = varlen_attn(q_NHD, k_NHD, v_NHD, bounds, bounds, longest, longest, window_size=(-1, 0))
        assert isinstance(out, Tensor)
        return out
    parts = zip(*(x.split(lengths) for x in (q_NHD, k_NHD, v_NHD)), strict=True)
    each = [F.scaled_dot_product_attention(*(x.transpose(0, 1) for x in part), is_causal=True) for part in parts]
    return torch.cat([one.transpose(0, 1) for one in each])


def parity(bench: Bench, name: str) -> Row:
    """Largest error of each backend in bfloat16, forward and backward, over the largest value: beside `mask` in float64."""
    context = 256 if bench.small else 1024
    config = preset(name).config.model_copy(update={"context": context})
    there = random_batches(config, context, 2, 1, seed=1)[0].to(bench.device)
    backends: list[Backend] = ["varlen", "segments", "mask"] if bench.device.type == "cuda" else ["segments", "mask"]
    inputs = heads(config, 2 * context, bench.device, torch.bfloat16)
    wanted = torch.randn_like(inputs[0])

    def results(backend: Backend, dtype: torch.dtype) -> list[Tensor]:
        q, k, v = (x.detach().to(dtype).requires_grad_() for x in inputs)
        out = attend(q, k, v, there.layout, backend)
        return [out.detach(), *torch.autograd.grad(out, (q, k, v), wanted.to(dtype))]

    right = results("mask", torch.float64)
    off = {}
    for backend in backends:
        got = results(backend, torch.bfloat16)
        off[backend] = {
            of: float(f"{((a.double() - b).abs().max() / b.abs().max()).item():.2e}")
            for of, a, b in zip(("out", "dq", "dk", "dv"), got, right, strict=True)
        }
    return {"preset": name, "tokens": 2 * context, "largest_error_over_largest_value": off}
