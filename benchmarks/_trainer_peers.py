"""One trainer under measurement, in a process of its own: `benchmarks/trainer_cpu.py` starts it and speaks to it in lines.

It takes its first steps, says `{"ready": …}`, and then waits: for each line with a number it takes that many optimizer steps
and answers `{"tokens": …, "seconds": …, "cpu": …}` (seconds on a core); without a line it costs nothing. All kinds take the same model (the shape of
smoke-10m), the same records, AdamW fused, bfloat16 autocast, clipping at 1.

    python benchmarks/_trainer_peers.py KIND FOLDER
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

STARTED = time.time()
BATCH = 8  # contexts of an optimizer step; rows of one record each where nothing is packed
CONTEXT = 1024
IGNORE = -100
OUT = sys.stdout
Step = Callable[[], int]


class Records:
    """The records that `trainer_cpu.py` wrote: token ids, and whether each is trained on."""

    def __init__(self, folder: Path) -> None:
        with np.load(folder / "records.npz") as found:
            self.tokens, self.mask, self.offsets = found["tokens"].astype(np.int64), found["mask"], found["offsets"]
            self.order, self.packs = found["order"], found["packs"]
            self.vocabulary = int(found["vocabulary"])

    def one(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Token ids, and the labels that Hugging Face's models shift by themselves."""
        part = slice(self.offsets[number], self.offsets[number + 1])
        labels = np.where(self.mask[part] > 0, self.tokens[part], IGNORE)
        labels[0] = IGNORE  # nothing of this record comes before it
        return self.tokens[part], labels

    def shuffled(self) -> Iterator[int]:
        while True:
            yield from np.random.default_rng(1).permutation(len(self.offsets) - 1)

    def contexts(self) -> Iterator[np.ndarray]:
        while True:
            for start, stop in zip(self.packs, self.packs[1:], strict=False):
                yield self.order[start:stop]


def llama(vocabulary: int) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=256, intermediate_size=960, num_hidden_layers=8, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=CONTEXT, tie_word_embeddings=True, attn_implementation="sdpa",
        pad_token_id=0, bos_token_id=None, eos_token_id=None, use_cache=False,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def stepper(model: Any, batches: Iterator[tuple[int, dict[str, Any]]]) -> Step:
    """Steps of a plain loop around a model of Hugging Face's."""
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    model.train()

    def step() -> int:
        useful, inputs = next(batches)
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(**inputs).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        loss.item()
        return useful

    return step


def padded(folder: Path) -> Step:
    """One record a row, every row filled up to the context."""
    import torch

    records = Records(folder)

    def batches() -> Iterator[tuple[int, dict[str, Any]]]:
        numbers = records.shuffled()
        while True:
            ids, labels = (np.full((BATCH, CONTEXT), fill, dtype=np.int64) for fill in (0, IGNORE))
            seen = np.zeros((BATCH, CONTEXT), dtype=np.int64)
            for row in range(BATCH):
                tokens, wanted = records.one(next(numbers))
                ids[row, : len(tokens)], labels[row, : len(tokens)], seen[row, : len(tokens)] = tokens, wanted, 1
            tensors = {"input_ids": ids, "labels": labels, "attention_mask": seen}
            yield int(seen.sum()), {key: torch.from_numpy(value) for key, value in tensors.items()}

    return stepper(llama(records.vocabulary), batches())


def block_mask(folder: Path) -> Step:
    """Packed contexts, and a mask of B x 1 x T x T that keeps their records apart."""
    import torch

    records = Records(folder)

    def batches() -> Iterator[tuple[int, dict[str, Any]]]:
        contexts = records.contexts()
        causal = torch.ones(CONTEXT, CONTEXT, dtype=torch.bool).tril()
        while True:
            ids, labels = (np.full((BATCH, CONTEXT), fill, dtype=np.int64) for fill in (0, IGNORE))
            positions, document = np.zeros_like(ids), np.full_like(ids, -1)
            useful = 0
            for row in range(BATCH):
                at = 0
                for number in next(contexts):
                    tokens, wanted = records.one(number)
                    place = slice(at, at + len(tokens))
                    ids[row, place], labels[row, place] = tokens, wanted
                    positions[row, place], document[row, place] = np.arange(len(tokens)), number
                    at += len(tokens)
                useful += at
            same = torch.from_numpy(document)
            mask = (same[:, None, :, None] == same[:, None, None, :]) & causal
            tensors = {"input_ids": ids, "labels": labels, "position_ids": positions}
            yield useful, {"attention_mask": mask, **{key: torch.from_numpy(it) for key, it in tensors.items()}}

    return stepper(llama(records.vocabulary), batches())


def ours(folder: Path, compiled: bool) -> Step:
    """The trainer itself, as `trainer run` has it, without the files it writes."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from dataclasses import replace

    import torch

    from foundation.workspace import Workspace
    from trainer.interrupt import Interrupt
    from trainer.plan import plan
    from trainer.setup import prepare
    from trainer.trainer import Trainer

    found = plan(Workspace(folder / "workspace"), "benchmark")
    settings = found.settings.model_copy(update={"compile": "on" if compiled else "off"})
    found = replace(found, settings=settings)
    assert (settings.batch, found.config.context) == (BATCH, CONTEXT)
    trainer = Trainer(prepare(found, torch.device("cpu")), Interrupt(found.folder))
    trainer.fit(0)

    def step() -> int:
        before = trainer.tokens
        trainer.train_step()
        return trainer.tokens - before

    return step


def serve(step: Step, warm: int = 2) -> None:
    """Take steps as they are asked for."""
    step()
    first = time.time() - float(os.environ.get("BENCHMARK_SPAWNED", STARTED))
    for _ in range(warm):
        step()
    say(ready=round(first, 2))
    for line in sys.stdin:
        started, cpu = time.perf_counter(), time.process_time()
        tokens = sum(step() for _ in range(int(line)))
        say(tokens=tokens, seconds=time.perf_counter() - started, cpu=time.process_time() - cpu)


def say(**what: object) -> None:
    print(json.dumps(what), file=OUT, flush=True)


def trl_packed(folder: Path) -> None:
    """TRL's own loop over contexts it packs itself; it waits at the beginning of a step until one is asked for.

    One context at a time and eight of them a step: its collator lays a batch in one row, whose mask would be 8,192 squared.
    """
    from datasets import Dataset
    from transformers import PreTrainedTokenizerFast, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    records = Records(folder)
    rows = [records.one(number) for number in range(min(8000, len(records.offsets) - 1))]
    data = Dataset.from_dict({"input_ids": [ids for ids, _ in rows], "labels": [labels for _, labels in rows]})
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "workspace/train/tokenizer.json"))
    tokenizer.pad_token = tokenizer.eos_token = "<|endoftext|>"
    collated: list[int] = []  # tokens of each context, in turn; some are laid out before their step begins
    state = {"left": 3, "warm": True, "started": 0.0, "cpu": 0.0, "steps": 0, "first": 0}

    class Turns(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *_: object, **__: object) -> None:
            if state["left"]:
                return
            line = sys.stdin.readline()
            if not line:
                os._exit(0)
            state.update(left=int(line), first=state["steps"], started=time.perf_counter(), cpu=time.process_time())

        def on_step_end(self, *_: object, **__: object) -> None:
            state["left"] -= 1
            state["steps"] += 1
            if state["left"]:
                return
            if state["warm"]:
                state["warm"] = False
                say(ready=round(time.time() - float(os.environ.get("BENCHMARK_SPAWNED", STARTED)), 2))
            else:
                seconds, cpu = time.perf_counter() - state["started"], time.process_time() - state["cpu"]
                tokens = sum(collated[int(state["first"]) * BATCH : int(state["steps"]) * BATCH])
                say(tokens=tokens, seconds=seconds, cpu=cpu)

    config = SFTConfig(
        output_dir=str(folder / "trl"), per_device_train_batch_size=1, gradient_accumulation_steps=BATCH, bf16=True,
        use_cpu=True, packing=True, max_length=CONTEXT, max_steps=100_000, learning_rate=1e-3, weight_decay=0.1,
        optim="adamw_torch_fused", adam_beta2=0.95, save_strategy="no", report_to=[], disable_tqdm=True,
        logging_steps=10_000, gradient_checkpointing=False, dataloader_pin_memory=False,
    )  # fmt: skip
    trainer = SFTTrainer(
        model=llama(records.vocabulary),
        args=config,
        train_dataset=data,
        processing_class=tokenizer,
        callbacks=[Turns()],
    )
    collate = trainer.data_collator

    def counting(examples: list[dict[str, Any]]) -> Any:
        collated.extend(len(example["input_ids"]) for example in examples)
        return collate(examples)

    trainer.data_collator = counting
    trainer.train()


def main() -> None:
    global OUT
    kind, folder = sys.argv[1], Path(sys.argv[2])
    OUT = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints goes to stderr: stdout is for the figures
    if kind == "trl":
        trl_packed(folder)
        return
    steps = {
        "padded": lambda: padded(folder),
        "mask": lambda: block_mask(folder),
        "plain": lambda: ours(folder, compiled=False),
        "compiled": lambda: ours(folder, compiled=True),
    }
    serve(steps[kind]())


if __name__ == "__main__":
    main()
