"""What finding memorised spans costs: tokens a second, beside a bare numpy pass over the same memory and a naive loop on a part.

The training set is made from the packs of the wwii example (the `rules` teacher): each record is a real one that goes over, at a
random token, into the tail of another, so that what an answer holds stands in training many times over, as it does where every
passage is asked about in many ways. Of the answers a third are records as they stand, a third two halves, a third random tokens.
The corpus is made 50 times as large by renumbering its tokens, copy by copy, or 600 answers
would hold nearly all of it. The second row puts a template of 12 tokens before every record and every answer; the third has
the small corpus, and a tenth of the tokens: the worst case, where most positions begin something that an answer holds. The bare pass reads each token once (a maximum
over chunks as large as ours); both run twice and the faster counts. The naive loop looks up every position in a dict of the
answers' 8-grams and walks on; its runs must be ours. Memory is what Python and numpy took at the highest, without the mapped file.
Prints one JSON document; absolute figures are this machine's own.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/memorised.py [--tokens 20000000] [--answers 600] [--packs DIR]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import tracemalloc
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from benchmarks._example import example_workspace  # noqa: E402
from trainer.memorised import CHUNK, LEAST, Run, _Answers, _candidates, longest_runs  # noqa: E402
from trainer.pack import PackedData  # noqa: E402

AT_ONCE = 5_000  # records that are made together
LONGEST = 256  # tokens of an answer
NAIVE = 30_000  # tokens of the part that the naive loop reads
TEMPLATE = 12
COPIES = 50
STEP = 61  # by which each copy's tokens are renumbered


class Made:
    """Of `PackedData` what the search reads: tokens from a file, offsets, the vocabulary's size."""

    def __init__(self, path: Path, lengths: list[np.ndarray], meta: Any) -> None:
        self.meta = meta
        self.records = np.concatenate(([0], np.cumsum(np.concatenate(lengths))))
        self.tokens = np.asarray(np.memmap(path, dtype=meta.dtype, mode="r"))

    def part(self, tokens: int) -> Made:
        """The first records, about so many tokens of them."""
        made = object.__new__(Made)
        last = int(np.searchsorted(self.records, tokens, side="right"))
        made.meta, made.records = self.meta, self.records[:last]
        made.tokens = self.tokens[: made.records[-1]]
        return made


def make(real: PackedData, path: Path, wanted: int, template: bool, copies: int, seed: int = 1) -> Made:
    """`wanted` tokens of records made of `real` ones."""
    draw = np.random.default_rng(seed)
    starts, sizes, lengths, done = real.records[:-1], np.diff(real.records), [], 0
    with open(path, "wb") as file:
        while done < wanted:
            one, other = draw.integers(0, len(real), (2, AT_ONCE))
            size = sizes[one]
            at = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
            turn = (at >= np.repeat(draw.integers(0, size + 1), size)) & (at < np.repeat(sizes[other], size))
            made = real.tokens[np.where(turn, np.repeat(starts[other], size), np.repeat(starts[one], size)) + at]
            copy = np.repeat(draw.integers(0, copies, len(one)), size)
            made = ((made + STEP * copy) % real.meta.vocabulary).astype(real.tokens.dtype)
            if template:
                made[at < TEMPLATE] = np.arange(TEMPLATE)[at[at < TEMPLATE]]
            made.tofile(file)
            lengths.append(size)
            done += len(made)
    return Made(path, lengths, real.meta)


def make_answers(real: PackedData, count: int, template: bool, copies: int) -> list[list[int]]:
    draw = np.random.default_rng(2)
    answers = []
    for number in range(count):
        tokens = real.record(int(draw.integers(len(real))))[0][:LONGEST].tolist()
        if number % 3 == 1:
            other = real.record(int(draw.integers(len(real))))[0].tolist()
            tokens = tokens[: len(tokens) // 2] + other[len(other) // 2 :]
        elif number % 3 == 2:
            tokens = draw.integers(0, real.meta.vocabulary, LONGEST).tolist()
        copy = int(draw.integers(copies))
        tokens = [(token + STEP * copy) % real.meta.vocabulary for token in tokens]
        answers.append(list(range(TEMPLATE)) + tokens[TEMPLATE:] if template else tokens)
    return answers


def naive(answers: list[list[int]], data: Made) -> list[Run]:
    """The same by a plain loop over training positions."""
    where = defaultdict(list)
    for number, answer in enumerate(answers):
        for start in range(len(answer) - LEAST + 1):
            where[tuple(answer[start : start + LEAST])].append((number, start))
    best = [Run(0, 0, -1)] * len(answers)
    for record, (first, last) in enumerate(zip(data.records[:-1].tolist(), data.records[1:].tolist(), strict=True)):
        text = data.tokens[first:last].tolist()
        for at in range(len(text) - LEAST + 1):
            for number, start in where.get(tuple(text[at : at + LEAST]), ()):
                answer, size = answers[number], LEAST
                while start + size < len(answer) and at + size < len(text) and answer[start + size] == text[at + size]:
                    size += 1
                earlier = size == best[number].tokens and best[number].record == record and start < best[number].start
                if size > best[number].tokens or earlier:
                    best[number] = Run(size, start, record)
    return best


def bare_pass(data: Made) -> int:
    return max(int(data.tokens[at : at + CHUNK].max()) for at in range(0, len(data.tokens), CHUNK))


def looked_at(answers: list[list[int]], data: Made) -> float:
    """The share of training positions that the filter lets through."""
    index = _Answers(answers, data.meta.vocabulary)
    return sum(map(len, _candidates(index.tokens, index.ends, data.tokens, LEAST))) / len(data.tokens)


def seconds(work: Any) -> float:
    """Of a core, the faster of two."""
    spent = []
    for _ in range(2):
        begun = time.process_time()
        work()
        spent.append(time.process_time() - begun)
    return min(spent)


def measured(real: PackedData, folder: Path, tokens: int, count: int, template: bool, copies: int) -> dict[str, Any]:
    data = make(real, folder / "tokens.bin", tokens, template, copies)
    answers = make_answers(real, count, template, copies)
    bare, ours = seconds(lambda: bare_pass(data)), seconds(lambda: longest_runs(answers, data))  # type: ignore[arg-type]
    found = [run.tokens for run in longest_runs(answers, data)]  # type: ignore[arg-type]
    small = data.part(NAIVE)
    begun = time.process_time()
    by_loop = naive(answers, small)
    loop = time.process_time() - begun
    tracemalloc.start()
    by_us = longest_runs(answers, small)  # type: ignore[arg-type]
    tracemalloc.reset_peak()
    longest_runs(answers, data.part(10_000_000))  # type: ignore[arg-type]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    if by_us != by_loop:
        raise SystemExit("the naive loop found other runs")
    total = len(data.tokens)
    return {
        "template": TEMPLATE if template else 0,
        "copies_of_the_corpus": copies,
        "positions_looked_at": round(looked_at(answers, data), 4),
        "training_tokens": total,
        "answers": count,
        "answer_tokens": sum(map(len, answers)),
        "runs": {"none": found.count(0), "median": int(np.median(found)), "longest": max(found)},
        "core_seconds": round(ours, 2),
        "tokens_a_second": round(total / ours),
        "nanoseconds_a_token": round(ours / total * 1e9, 2),
        "bare_pass_core_seconds": round(bare, 3),
        "to_bare_pass": round(ours / bare, 1),
        "naive_loop_tokens_a_second": round(len(small.tokens) / loop),
        "faster_than_naive_loop": round((loop / len(small.tokens)) / (ours / total), 1),
        "same_runs_as_naive_loop": True,
        "peak_megabytes": round(peak / 1e6, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tokens", type=int, default=20_000_000)
    parser.add_argument("--answers", type=int, default=600)
    parser.add_argument(
        "--packs", type=Path, help="a split's packs to draw records from; default: the example's, made anew"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        real = PackedData.open(arguments.packs or example_workspace(folder) / "train/packs/train")
        cases = (
            (arguments.tokens, False, COPIES),
            (arguments.tokens, True, COPIES),
            (arguments.tokens // 10, False, 1),
        )
        rows = [measured(real, folder, size, arguments.answers, *how) for size, *how in cases]
    print(json.dumps({"least": LEAST, "drawn_from": len(real), "measured": rows}, indent=2))


if __name__ == "__main__":
    main()
