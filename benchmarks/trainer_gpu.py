"""Training on one H100 or H200: speed, attention, memory and agreement of the backends, in one command of a few minutes.

For each preset, in bfloat16 at its context, on random records of a corpus' lengths packed as a run packs them: useful tokens a
second and the share of the card's dense bfloat16 peak (MFU: matmul FLOPs of record tokens alone, the LM head for supervised
positions, attention by the squared lengths), optimizer and copying of the batch included; attention forward and backward
beside bare `varlen_attn`, turn by turn in the same run; peak memory beside `trainer.memory.estimate`; and the presets' own
attention by each backend, beside `mask` in float32. `wwii-183m` once more with three contexts at once. Needs torch (2.11 or
newer), numpy and pydantic, nothing else. Prints one JSON document, and writes it into benchmarks/results/ where a GPU was
measured. Where there is none it says so and ends well.

    python benchmarks/trainer_gpu.py [--preset wwii-183m --preset base-100m] [--batch 16] [--no-compile] [--minutes 8]
    python benchmarks/trainer_gpu.py --device cpu --preset smoke-10m --small     # tries its logic, measures nothing of use
"""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from foundation.tables import TrainSettings  # noqa: E402
from trainer.attention import Backend, choose_backend  # noqa: E402
from trainer.bestfit import pack_lengths  # noqa: E402
from trainer.hardware import memory_peak, peak_flops  # noqa: E402
from trainer.layout import Batch, make_batch  # noqa: E402
from trainer.memory import estimate  # noqa: E402
from trainer.model import Model  # noqa: E402
from trainer.optim import build_optimizers  # noqa: E402
from trainer.presets import model_config, recipe  # noqa: E402
from trainer.shape import ModelConfig  # noqa: E402

LIMITS = {"mfu": 0.5, "attention_ratio": 1.1, "memory_off": 0.1, "three_contexts_gb": 15.0, "parity": 0.02}
SUPERVISED = 0.7  # the last part of a record, as in the example corpus
BATCHES = 4  # different ones, in turn
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

    def forget(self) -> None:
        """Give back what earlier parts held, and count peaks anew."""
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


def measured_steps(bench: Bench, name: str, batch: int, *, compiled: bool) -> Row:
    """Whole steps of one preset with `batch` contexts at once: speed, MFU, and peak memory beside the estimate."""
    bench.forget()
    settings = recipe(TrainSettings(preset=name))
    context = 256 if bench.small else settings.context
    config = model_config(name, settings.vocabulary, context)
    torch.manual_seed(0)
    model = Model(config).to(bench.device)
    optimizers = build_optimizers(model, settings)
    if compiled:
        model.use_compile()
    batches = random_batches(config, context, batch, BATCHES)
    taken: list[tuple[float, Batch]] = []
    losses = []
    for step in range(bench.steps + 3):
        here = batches[step % BATCHES]
        bench.synchronize()
        begun = time.perf_counter()
        there = here.to(bench.device)
        with bench.autocast():
            loss = model.loss(there, bench.backend) / there.n_supervised
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        optimizers.step()
        if step < bench.steps + 2:  # the last step's gradients stay, as they do in a step of several passes
            optimizers.zero_grad()
        losses.append(loss.item())
        bench.synchronize()
        taken.append((time.perf_counter() - begun, here))
    counted = taken[3:]
    seconds = sum(one for one, _ in counted)
    useful = sum(one.n_record_tokens for _, one in counted)
    flops = sum(config.flops(one.n_record_tokens, one.n_supervised, one.n_squares) for _, one in counted)
    peak = peak_flops(bench.device)
    supervised = max(one.n_supervised for one in batches)
    expected = estimate(
        config, batch, context=context, supervised=supervised / (batch * context), compiled=compiled
    )
    row: Row = {
        "preset": name,
        "parameters": config.parameters,
        "context": context,
        "physical_batch": batch,
        "compiled": compiled,
        "backend": bench.backend,
        "records_a_context": round(sum(len(one.layout.lengths) for one in batches) / (BATCHES * batch), 1),
        "filled": round(useful / (len(counted) * batch * context), 4),
        "supervised": round(sum(one.n_supervised for one in batches) / sum(one.n_record_tokens for one in batches), 3),
        "first_step_seconds": round(taken[0][0], 2),
        "step_seconds": round(seconds / len(counted), 4),
        "step_seconds_median": round(statistics.median(one for one, _ in counted), 4),
        "useful_tokens_a_second": round(useful / seconds),
        "flops_a_second": flops / seconds,
        "mfu": round(flops / seconds / peak, 4) if peak else None,
        "loss_first_last": [round(losses[0], 4), round(losses[-1], 4)],
        "estimate": {**asdict(expected), "tensors": expected.tensors, "total": expected.total},
    }
    del model, optimizers
    return {**row, **_memory(bench, batches, name, context, batch, compiled, row)}


def _memory(
    bench: Bench, batches: list[Batch], name: str, context: int, batch: int, compiled: bool, row: Row
) -> Row:
    """Peak memory of two passes of one step, where gradients of the first are there in the second, as the estimate has it."""
    if bench.device.type != "cuda":
        return {"memory_peak": memory_peak(bench.device)}
    bench.forget()
    settings = recipe(TrainSettings(preset=name))
    config = model_config(name, settings.vocabulary, context)
    model = Model(config).to(bench.device)
    optimizers = build_optimizers(model, settings)
    if compiled:
        model.use_compile()
    fullest = max(batches, key=lambda one: one.n_supervised)
    for _ in range(2):
        there = fullest.to(bench.device)
        with bench.autocast():
            loss = model.loss(there, bench.backend) / there.n_supervised
        loss.backward()
    optimizers.step()
    bench.synchronize()
    tensors, reserved = torch.cuda.max_memory_allocated(bench.device), torch.cuda.max_memory_reserved(bench.device)
    free, whole = torch.cuda.mem_get_info(bench.device)
    return {
        "memory_peak": tensors,
        "memory_reserved": reserved,
        "memory_of_the_card": whole - free,  # with CUDA's context, and what others hold
        "memory_over_estimate": round(tensors / row["estimate"]["tensors"], 4),
        "reserved_over_estimate": round((whole - free) / row["estimate"]["total"], 4),
    }
