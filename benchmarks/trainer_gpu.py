"""Training on one H100 or H200: speed, attention, memory and agreement of the backends, in one command of a few minutes.

For each preset, in bfloat16 at its context, on random records of a corpus' lengths packed as a run packs them: useful tokens a
second and the share of the card's dense bfloat16 peak (MFU: matmul FLOPs of record tokens alone, the LM head for supervised
positions, attention by the squared lengths), optimizer and copying of the batch included; attention forward and backward
beside bare `varlen_attn`, turn by turn in the same run; peak memory beside `trainer.memory.estimate`; and the presets' own
attention by each backend, beside `mask` in float64. `wwii-183m` once more with three contexts at once. Needs torch (2.11 or
newer), numpy and pydantic, nothing else. Prints one JSON document, and writes it into benchmarks/results/ where a GPU was
measured. Where there is none it says so and ends well.

    python benchmarks/trainer_gpu.py [--preset wwii-183m --preset base-100m] [--batch 16] [--no-compile] [--minutes 8]
    python benchmarks/trainer_gpu.py --device cpu --preset smoke-10m --small     # tries its logic, measures nothing of use
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

import torch  # noqa: E402

from benchmarks._peak_parts import Bench, attention, parity, random_batches, records_in  # noqa: E402
from foundation.tables import TrainSettings  # noqa: E402
from trainer.hardware import memory_peak, peak_flops  # noqa: E402
from trainer.memory import GB, estimate, largest_batch  # noqa: E402
from trainer.model import Model  # noqa: E402
from trainer.optim import build_optimizers  # noqa: E402
from trainer.presets import model_config, preset, recipe  # noqa: E402

LIMITS = {"mfu": 0.5, "attention_ratio": 1.1, "memory_off": 0.1, "three_contexts_gb": 15.0, "parity": 0.02}
BATCHES = 4  # different ones, in turn
Row = dict[str, Any]


@dataclass
class Trained:
    """A preset in training, and the batches it is trained on in turn."""

    bench: Bench
    name: str
    batch: int
    compiled: bool

    def __post_init__(self) -> None:
        self.bench.forget()
        self.settings = recipe(TrainSettings(preset=self.name))
        self.context = 256 if self.bench.small else self.settings.context
        self.config = model_config(self.name, self.settings.vocabulary, self.context)
        torch.manual_seed(0)
        self.model = Model(self.config).to(self.bench.device)
        self.optimizers = build_optimizers(self.model, self.settings)
        if self.compiled:
            self.model.use_compile()
        self.batches = random_batches(self.config, self.context, self.batch, BATCHES)

    def passes(self, number: int) -> float:
        """A forward and a backward of one batch; its gradients are added to those there are."""
        here = self.batches[number % BATCHES].to(self.bench.device)
        with self.bench.autocast():
            loss = self.model.loss(here, self.bench.backend) / here.n_supervised
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.item()

    def step(self, number: int) -> float:
        """A whole step: the batch is copied, the gradient clipped, the optimizer takes it. Returns the loss."""
        loss = self.passes(number)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        self.optimizers.step()
        self.optimizers.zero_grad()
        return loss

    def flops(self, number: int) -> int:
        one = self.batches[number % BATCHES]
        return self.config.flops(one.n_record_tokens, one.n_supervised, one.n_squares)


def measured(bench: Bench, name: str, batch: int, *, compiled: bool) -> Row:
    """Whole steps of one preset with `batch` contexts at once: speed, MFU, and peak memory beside the estimate."""
    it = Trained(bench, name, batch, compiled)
    taken, losses = [], []
    for number in range(3 + bench.steps):
        bench.synchronize()
        begun = time.perf_counter()
        losses.append(it.step(number))
        bench.synchronize()
        taken.append(time.perf_counter() - begun)
    numbers = range(3, 3 + bench.steps)
    seconds = sum(taken[3:])
    useful = sum(it.batches[number % BATCHES].n_record_tokens for number in numbers)
    reached = sum(it.flops(number) for number in numbers) / seconds
    peak = peak_flops(bench.device)
    row = {
        "preset": name,
        "parameters": it.config.parameters,
        "context": it.context,
        "physical_batch": batch,
        "compiled": compiled,
        "backend": bench.backend,
        "records_a_context": round(sum(records_in(one) for one in it.batches) / (BATCHES * batch), 1),
        "filled": round(useful / (len(numbers) * batch * it.context), 4),
        "first_step_seconds": round(taken[0], 2),
        "step_seconds": round(seconds / len(numbers), 4),
        "step_seconds_median": round(statistics.median(taken[3:]), 4),
        "useful_tokens_a_second": round(useful / seconds),
        "flops_a_second": reached,
        "mfu": round(reached / peak, 4) if peak else None,
        "loss_first_last": [round(losses[0], 4), round(losses[-1], 4)],
        **peak_memory(it),
    }
    del it
    bench.forget()
    return row


def peak_memory(it: Trained) -> Row:
    """Most memory of a step of two passes, beside the estimate: the first one's gradients are there during the second."""
    fullest = max(range(BATCHES), key=lambda number: it.batches[number].n_supervised)
    share = it.batches[fullest].n_supervised / (it.batch * it.context)
    expected = estimate(it.config, it.batch, context=it.context, supervised=share, compiled=it.compiled)
    told: Row = {"estimate": {**asdict(expected), "tensors": expected.tensors, "total": expected.total}}
    it.bench.forget(compiled=False)
    for _ in range(2):
        it.passes(fullest)
    it.optimizers.step()
    it.bench.synchronize()
    tensors = memory_peak(it.bench.device)
    it.optimizers.zero_grad()
    if it.bench.device.type != "cuda":
        return {**told, "resident_peak": tensors}
    free, whole = torch.cuda.mem_get_info(it.bench.device)
    return {
        **told,
        "tensors_peak": tensors,
        "reserved_peak": torch.cuda.max_memory_reserved(it.bench.device),
        "taken_of_the_card": whole - free,  # CUDA's own included, and what other processes hold
        "tensors_over_estimate": round(tensors / expected.tensors, 4),
        "taken_over_estimate": round((whole - free) / expected.total, 4),
    }


def missed(told: Row) -> list[str]:
    """What was measured on a GPU and is beyond its limit, in words."""
    found = []
    for row in told["training"]:
        which = f"{row['preset']} at {row['physical_batch']} contexts"
        if row["physical_batch"] > 3 and (row["mfu"] is None or row["mfu"] < LIMITS["mfu"]):
            found.append(f"{which}: an MFU of {row['mfu']}, not {LIMITS['mfu']}")
        if abs(row["tensors_over_estimate"] - 1) > LIMITS["memory_off"]:
            found.append(f"{which}: {row['tensors_over_estimate']} of the memory that was estimated")
        if row["physical_batch"] == 3 and row["taken_of_the_card"] > LIMITS["three_contexts_gb"] * GB:
            found.append(f"{which}: {row['taken_of_the_card'] / GB:.1f} GB, not under {LIMITS['three_contexts_gb']}")
    for row in told["attention"]:
        if row["ratio"] > LIMITS["attention_ratio"]:
            found.append(f"attention of {row['preset']}: {row['ratio']} times bare, not {LIMITS['attention_ratio']}")
    for row in told["parity"]:
        for backend, errors in row["largest_error_over_largest_value"].items():
            if max(errors.values()) > LIMITS["parity"]:
                found.append(f"{backend} of {row['preset']} is off: {errors}")
    return found


def measure(bench: Bench, presets: list[str], asked: int) -> Row:
    """All parts, the short ones first."""
    told: Row = {"parity": [], "attention": [], "training": []}
    for name in presets:
        bench.forget()
        told["parity"].append(parity(bench, name))
        bench.forget()
        told["attention"].append(attention(bench, name, asked))
    plan = [(name, batch_for(bench, name, asked), bench.compiled) for name in presets]
    if "wwii-183m" in presets and not bench.small:
        plan += [("wwii-183m", 3, compiled) for compiled in {bench.compiled, False}]
    for name, batch, compiled in plan:
        what = f"{name}, {batch} contexts at once{', compiled' if compiled else ''}"
        if not bench.late(what):
            print(f"{what} ...", file=sys.stderr, flush=True)
            told["training"].append(measured(bench, name, batch, compiled=compiled))
    return told


def batch_for(bench: Bench, name: str, asked: int) -> int:
    """`asked` contexts, or as many as the card's free memory is estimated to hold."""
    if bench.device.type != "cuda":
        return asked
    free, _ = torch.cuda.mem_get_info(bench.device)
    return max(1, min(asked, largest_batch(preset(name).config, free - GB, supervised=1.0, compiled=False)))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    options.add_argument("--preset", action="append", help="one or more; default: wwii-183m and base-100m")
    options.add_argument("--batch", type=int, default=0, help="contexts at once; default: 16, or 2 with --small")
    options.add_argument("--no-compile", action="store_true", help="without torch.compile")
    options.add_argument("--small", action="store_true", help="contexts of 256 tokens, two steps, nothing compiled")
    options.add_argument("--minutes", type=float, default=8.0, help="begin no part after so long")
    options.add_argument("--results", type=Path, default=REPOSITORY / "benchmarks" / "results", help="folder")
    chosen = options.parse_args()
    if chosen.device == "cuda" and not torch.cuda.is_available():
        print(
            "trainer_gpu: torch finds no CUDA GPU here, so nothing was measured; it is for one H100 or H200",
            file=sys.stderr,
        )
        return
    bench = Bench(
        torch.device(chosen.device),
        compiled=not (chosen.no_compile or chosen.small),
        small=chosen.small,
        end=time.monotonic() + 60 * chosen.minutes,
    )
    on_gpu = bench.device.type == "cuda"
    if on_gpu:
        torch.set_float32_matmul_precision("high")
    told = measure(bench, chosen.preset or ["wwii-183m", "base-100m"], chosen.batch or (2 if chosen.small else 16))
    now = datetime.datetime.now(datetime.UTC)
    name = torch.cuda.get_device_name(bench.device) if on_gpu else "CPU"
    document = {
        "benchmark": "trainer_gpu",
        "date": now.isoformat(timespec="seconds"),
        "device": name,
        "peak_flops": peak_flops(bench.device),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        **told,
        "left_out": bench.left_out,
        "limits": LIMITS,
        "missed": missed(told) if on_gpu and not chosen.small else None,
    }
    text = json.dumps(document, indent=1)
    print(text)
    if on_gpu:
        chosen.results.mkdir(parents=True, exist_ok=True)
        file = chosen.results / f"trainer_gpu-{re.sub('[^a-z0-9]+', '-', name.lower())}-{now:%Y-%m-%d}.json"
        file.write_text(text + "\n", "utf-8")
        print(f"written to {file}", file=sys.stderr)


if __name__ == "__main__":
    main()
