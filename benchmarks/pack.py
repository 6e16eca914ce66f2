"""What packing an epoch costs: a million records, beside a bare next-fit loop and TRL's own packing, at two context lengths.

The lengths are drawn, with replacement, from those of real records: the wwii example by the `rules` teacher, tokenised by the
demo's tokenizer (or from the packs of `--workspace`). Ours is all that a run does for an epoch: draw the records, shuffle,
pack, shuffle the contexts, and again by what is left of the run at its start (the count of each epoch's contexts). Next-fit
closes a context when a record does not fit, in the records' order. TRL is `trl.pack_dataset(strategy="bfd")` as it comes and
in batches of our window; it moves the tokens too, so it gets tokens of one byte. It needs an environment of its own:
`python -m venv V && V/bin/pip install --no-deps trl && V/bin/pip install datasets` beside torch, then `--peer-python
V/bin/python`; without it this says so. Absolute figures are this machine's own.

    .venv/bin/python benchmarks/pack.py [--records 1000000] [--workspace FOLDER] [--peer-python PATH] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from benchmarks._example import example_workspace  # noqa: E402
from foundation.tables import MixSettings  # noqa: E402
from trainer.bestfit import WINDOW, pack_lengths  # noqa: E402
from trainer.epochs import Epochs  # noqa: E402
from trainer.pack import PackedData  # noqa: E402
from trainer.paths import TrainPaths  # noqa: E402

CONTEXTS = (1024, 4096)
LIMITS = {"seconds": 3.0, "fill": 0.998}  # for a million records, at either context
TIMES = 3  # the best of so many counts
PEER = """
import json, sys, time
import numpy as np, pyarrow as pa
from datasets import Dataset, disable_progress_bars
import trl
from trl import pack_dataset
disable_progress_bars()
lengths, context, window, told = np.load(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), {"version": trl.__version__}
offsets = np.concatenate(([0], np.cumsum(lengths)))
tokens = pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), pa.array(np.zeros(offsets[-1], dtype=np.int8)))
data = Dataset(pa.table({"input_ids": tokens}))
for name, chosen in (("as_it_comes", {}), ("in_our_window", {"batch_size": window})):
    begun = time.perf_counter()
    packed = pack_dataset(data, context, map_kwargs={"keep_in_memory": True, **chosen})
    told[name] = {"seconds": time.perf_counter() - begun, "contexts": len(packed)}
print(json.dumps(told))
"""
Row = dict[str, Any]


def real_lengths(workspace: Path) -> np.ndarray[Any, Any]:
    """Tokens of each packed record."""
    data = PackedData.open(TrainPaths(workspace / "train").pack("train"))
    return np.diff(data.records)


def packs_of(lengths: np.ndarray[Any, Any], context: int) -> Any:
    """As much of `PackedData` as epochs are made from."""
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    meta = SimpleNamespace(types=("qa/one",), families=("qa",), context=context, records=len(lengths))
    return SimpleNamespace(meta=meta, records=offsets, types=np.zeros(len(lengths), dtype=np.uint16))


def next_fit(lengths: list[int], context: int) -> int:
    """Contexts that a bare loop fills with records as they come."""
    contexts, free = 0, 0
    for length in lengths:
        if length > free:
            contexts, free = contexts + 1, context
        free -= length
    return contexts


def timed(what: Callable[[], Any]) -> tuple[Any, float, float]:
    """The result, and the least seconds of the clock and of a core that it took."""
    seconds, core, result = [], [], None
    for _ in range(TIMES):
        begun, spent = time.perf_counter(), time.process_time()
        result = what()
        seconds.append(time.perf_counter() - begun)
        core.append(time.process_time() - spent)
    return result, min(seconds), min(core)


def measured(lengths: np.ndarray[Any, Any], context: int, peer: Path | None) -> Row:
    tokens, data = int(lengths.sum()), packs_of(lengths, context)

    def row(contexts: int, seconds: float, **more: float) -> Row:
        return {
            "seconds": round(seconds, 3),
            **more,
            "contexts": contexts,
            "fill": round(tokens / contexts / context, 5),
        }

    def epoch() -> int:
        run = Epochs(data, MixSettings(), seed=1, epochs=1)
        run.packing(0)
        return run.contexts

    (_, packs), bare_seconds, bare_core = timed(lambda: pack_lengths(lengths, context))
    contexts, seconds, core = timed(epoch)
    loop, loop_seconds, _ = timed(lambda: next_fit(lengths.tolist(), context))
    found: Row = {
        "epoch": row(contexts, seconds, core_seconds=round(core, 3)),
        "packing_alone": row(len(packs) - 1, bare_seconds, core_seconds=round(bare_core, 3)),
        "next_fit_loop": row(loop, loop_seconds),
        "epoch_to_next_fit": round(seconds / loop_seconds, 2),
        "start_of_a_run_of_4_epochs": round(timed(lambda: Epochs(data, MixSettings(), seed=1, epochs=4))[1], 3),
        "trl": "not measured: name a Python that has it with --peer-python",
    }
    if peer:
        told = trl(lengths, context, peer)
        found["trl"] = {
            "version": told.pop("version"),
            **{n: row(r["contexts"], r["seconds"]) for n, r in told.items()},
        }
        found["trl_to_epoch"] = round(min(one["seconds"] for one in told.values()) / seconds, 1)
    return found


def trl(lengths: np.ndarray[Any, Any], context: int, peer: Path) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "lengths.npy", lengths)
        argv = [str(peer), "-c", PEER, f"{folder}/lengths.npy", str(context), str(WINDOW)]
        done = subprocess.run(argv, capture_output=True, text=True, env={**os.environ, "HF_HOME": folder})
    if done.returncode:
        raise SystemExit(f"the peer ended with {done.returncode}: {done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--workspace", type=Path, help="one whose packs the lengths are drawn from")
    parser.add_argument("--peer-python", type=Path, help="a Python that can import trl and datasets")
    parser.add_argument("--json", type=Path, help="write the document here too")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        real = real_lengths(chosen.workspace or example_workspace(Path(folder), "[train]\ncontext = 1024\n"))
    lengths = np.random.default_rng(1).choice(real, chosen.records)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    told: Row = {
        "records": len(lengths),
        "lengths": {
            "drawn_from": len(real),
            "mean": round(float(lengths.mean()), 1),
            **{f"p{part}": int(np.percentile(lengths, part)) for part in (1, 50, 99, 100)},
        },
        "window": WINDOW,
        **{f"context_{context}": measured(lengths, context, chosen.peer_python) for context in CONTEXTS},
    }
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    told["megabytes_grown"] = round(grown / 1000)
    told["cores"], told["load"] = len(os.sched_getaffinity(0)), round(os.getloadavg()[0], 1)
    told["limits_for_a_million"] = LIMITS
    document = json.dumps(told, indent=2)
    print(document)
    if chosen.json:
        chosen.json.write_text(document + "\n", "utf-8")


if __name__ == "__main__":
    main()
