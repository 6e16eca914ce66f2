"""How fast smoke-10m trains on a CPU, beside `transformers` and TRL: useful tokens a second, all in one run.

Useful tokens are those of records, not of padding. The records are real ones: the example corpus put through `factory` with
the `rules` teacher, its own tokenizer of 8,192, contexts of 1,024. Measured: the trainer as `trainer run` has it, compiled
and not; `transformers` with one record a row, padded to the context; `transformers` on packed contexts with a 4-D mask;
TRL's SFTTrainer with packing (if `--peer-python` is given). Each is a process that takes its first steps and then waits;
then they take turns, `--steps` optimizer steps of 8 contexts each, for `--rounds` rounds, so that a machine that is busy
with other things is as busy for all. Printed: the median of each one's rounds, the ratios, and the seconds from the start
of the process to the end of its first step (compiled: with an empty cache of compiled code, and again with it filled).
Where others use the machine, tokens per second on a core (`per_core_second`) say more than those of the clock.
Two threads, about five minutes on two quiet cores, a minute of them to make the records.

    python -m venv PEERS && echo $PWD/.venv/lib/python3.11/site-packages > PEERS/lib/python3.11/site-packages/trainer.pth
    PEERS/bin/python -m pip install --no-deps trl accelerate
    .venv/bin/python benchmarks/trainer_cpu.py --peer-python PEERS/bin/python [--json] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from benchmarks._example import example_workspace  # noqa: E402

PEER = Path(__file__).with_name("_trainer_peers.py")
KINDS = ("compiled", "plain", "padded", "mask", "trl")
WANTED = {"padded": 6.0, "trl": 2.5}  # times as fast as these, at least
FIRST_STEP = 15.0  # seconds, uncompiled or with a warm cache
SETTINGS = '[train]\npreset = "smoke-10m"\nbatch = 8\n'


def make_records(folder: Path, workspace: Path | None) -> int:
    """The workspace, packed for smoke-10m, and its records as the children read them; returns their number."""
    if workspace:
        (folder / "workspace").symlink_to(workspace.resolve())
    else:
        example_workspace(folder, SETTINGS)
    from foundation.workspace import Workspace
    from trainer.plan import plan

    found = plan(Workspace(folder / "workspace"), "benchmark")
    contexts = found.epochs.take(0, len(found.data))
    np.savez(
        folder / "records.npz",
        tokens=found.data.tokens,
        mask=found.data.mask,
        offsets=found.data.records,
        order=np.concatenate(contexts),
        packs=np.concatenate(([0], np.cumsum([len(context) for context in contexts]))),
        vocabulary=found.config.vocabulary,
    )
    return int(found.data.meta.records)


class Child:
    """One kind under measurement."""

    def __init__(self, kind: str, folder: Path, python: str, threads: int) -> None:
        self.kind = kind
        self.rounds: list[dict[str, float]] = []
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(threads),
            "TORCHINDUCTOR_CACHE_DIR": str(folder / "compiled"),
            "HF_HUB_OFFLINE": "1",
            "BENCHMARK_SPAWNED": str(time.time()),
        }
        self.log = (folder / f"{kind}.log").open("w")
        self.process = subprocess.Popen(
            [python, str(PEER), kind, str(folder)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )
        self.first_step = self._read()["ready"]

    def _read(self) -> dict[str, float]:
        line = self.process.stdout.readline()  # type: ignore[union-attr]
        if not line:
            tail = Path(self.log.name).read_text()[-2000:]
            raise SystemExit(f"{self.kind} ended with {self.process.wait()}:\n{tail}")
        return json.loads(line)  # type: ignore[no-any-return]

    def take(self, steps: int) -> None:
        print(steps, file=self.process.stdin, flush=True)
        self.rounds.append(self._read())

    def close(self) -> None:
        self.process.stdin.close()  # type: ignore[union-attr]
        self.process.wait()
        self.log.close()

    def figures(self) -> dict[str, Any]:
        rates = [one["tokens"] / one["seconds"] for one in self.rounds]
        return {
            "tokens_per_second": round(statistics.median(rates), 1),
            "least": round(min(rates), 1),
            "most": round(max(rates), 1),
            "per_core_second": round(statistics.median(one["tokens"] / one["cpu"] for one in self.rounds), 1),
            "first_step_seconds": self.first_step,
        }


def measure(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """The figures of every kind, their rounds taken in turns."""
    kinds = [kind for kind in KINDS if kind != "trl" or arguments.peer_python]
    cold = Child("compiled", folder, sys.executable, arguments.threads)  # fills the cache of compiled code
    cold.close()
    children: list[Child] = []
    try:
        for kind in kinds:
            print(f"starting {kind}", file=sys.stderr)
            python = arguments.peer_python if kind == "trl" else sys.executable
            children.append(Child(kind, folder, python, arguments.threads))
        for number in range(arguments.rounds):
            for child in children:
                child.take(arguments.steps)
            told = ", ".join(f"{it.kind} {it.rounds[-1]['tokens'] / it.rounds[-1]['seconds']:,.0f}" for it in children)
            print(f"round {number + 1} of {arguments.rounds}: {told}", file=sys.stderr)
    finally:
        for child in children:
            child.close()
    figures = {child.kind: child.figures() for child in children}
    figures["compiled"]["first_step_seconds_cold"] = cold.first_step
    return figures


def compared(kinds: dict[str, Any]) -> dict[str, Any]:
    """How many times as fast ours is, compiled, and whether that is what was wanted."""
    best = kinds["compiled"]
    ratios = {
        f"{how}_vs_{kind}": round(best[how] / kinds[kind][how], 2)
        for how in ("tokens_per_second", "per_core_second")
        for kind in kinds
        if kind != "compiled"
    }
    met = {
        f"{kind}: {times} times": ratios[f"tokens_per_second_vs_{kind}"] >= times
        for kind, times in WANTED.items()
        if kind in kinds
    }
    for kind in ("compiled", "plain"):
        met[f"{kind}: first step within {FIRST_STEP:.0f} s"] = kinds[kind]["first_step_seconds"] <= FIRST_STEP
    return {"ratios": ratios, "met": met}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer-python", help="Python of an environment with trl and accelerate")
    parser.add_argument("--workspace", type=Path, help="a workspace packed for smoke-10m with train.batch = 8")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="optimizer steps of one turn")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--out", type=Path, help="write that document to this file too")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="trainer-cpu-"))
    try:
        records = make_records(folder, arguments.workspace)
        kinds = measure(folder, arguments)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    document = {
        "preset": "smoke-10m",
        "context": 1024,
        "contexts_a_step": 8,
        "records": records,
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "steps_a_round": arguments.steps,
        "load": round(os.getloadavg()[1], 2),  # of five minutes: above the threads, others were at work
        "kinds": kinds,
        **compared(kinds),
    }
    text = json.dumps(document, indent=1)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text + "\n")
    if arguments.json:
        print(text)
        return
    for kind, one in kinds.items():
        print(f"{kind:10}{one['tokens_per_second']:>9,.0f} tokens/s  first step {one['first_step_seconds']:>6.1f} s")
    for name, ratio in document["ratios"].items():
        print(f"{name:40}{ratio:>6.2f}")
    for name, met in document["met"].items():
        print(f"{'met' if met else 'MISSED':8}{name}")


if __name__ == "__main__":
    main()
