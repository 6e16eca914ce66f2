"""How fast `trainer chat` writes, beside `transformers` with the same weights, exported: greedy, one text at a time.

Both write the same tokens (checked) after the same prompt, in turn, so that what else the machine does meets both alike;
the ratio is of the medians of seconds spent on a core, which a busy neighbour moves least. The weights are random: they cost
what trained ones do. Also measured: seconds and bytes of the export itself. Prints one JSON document.

    .venv/bin/python benchmarks/chat.py [--preset base-100m] [--tokens 128] [--turns 5] [--threads 1]
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from safetensors.torch import save_file

from trainer import checkpoint
from trainer.export.hf import Source, write_model
from trainer.generate import generate
from trainer.model import Model
from trainer.presets import preset
from trainer.tokenizer import save_tokenizer, train_tokenizer

PROMPT = 64  # tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="base-100m")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    torch.manual_seed(0)
    model = Model(preset(chosen.preset).config).eval()
    prompt = torch.randint(3, model.config.vocabulary, (PROMPT,)).tolist()

    with tempfile.TemporaryDirectory() as temporary:
        exported, seconds, size = export(model, Path(temporary))
        theirs = their_writer(exported, prompt, chosen.tokens)

        def ours() -> list[int]:
            return [token for _, token in generate(model, [prompt], limit=chosen.tokens, stop=-1)]

        same = ours() == theirs()
        spent: dict[str, list[tuple[float, float]]] = {"ours": [], "transformers": []}
        for _ in range(chosen.turns):
            spent["ours"].append(timed(ours))
            spent["transformers"].append(timed(theirs))
    core = {name: median(one[1] for one in turns) for name, turns in spent.items()}
    wall = {name: median(one[0] for one in turns) for name, turns in spent.items()}
    print(
        json.dumps(
            {
                "preset": chosen.preset,
                "parameters": model.num_parameters,
                "prompt": PROMPT,
                "tokens": chosen.tokens,
                "threads": chosen.threads,
                "same_tokens": same,
                "tokens_per_second": {name: round(chosen.tokens / it, 1) for name, it in wall.items()},
                "tokens_per_core_second": {name: round(chosen.tokens / it, 1) for name, it in core.items()},
                "ratio": round(core["transformers"] / core["ours"], 2),
                "export_seconds": round(seconds, 2),
                "export_bytes": size,
                "load": round(os.getloadavg()[0], 1),
            },
            indent=1,
        )
    )


def export(model: Model, folder: Path) -> tuple[Path, float, int]:
    """The folder, the seconds it took, and its bytes."""
    save_tokenizer(train_tokenizer(["a text to train a tokenizer on"] * 10, 4096), folder / "tokenizer.json")
    save_file(dict(model.named_parameters()), folder / checkpoint.MODEL)
    out = folder / "out"
    out.mkdir()
    began = time.perf_counter()
    sizes = write_model(out, Source(folder, model.config, folder / "tokenizer.json"), "float32")
    return out, time.perf_counter() - began, sum(sizes.values())


def their_writer(folder: Path, prompt: list[int], tokens: int) -> Callable[[], list[int]]:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    model.generation_config.eos_token_id = None  # both write all of the tokens
    ids = torch.tensor([prompt])

    def write() -> list[int]:
        found = model.generate(ids, do_sample=False, max_new_tokens=tokens, top_k=None, temperature=None, top_p=None)
        return [int(token) for token in found[0, len(prompt) :]]

    return write


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds of the clock, and of a core."""
    began, spent = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - began, time.process_time() - spent


if __name__ == "__main__":
    main()
