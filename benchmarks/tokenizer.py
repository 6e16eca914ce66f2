"""What one token a term is worth, and costs: tokens a record and encoding speed, by how terms are made single tokens.

Four tokenizers of each size, trained on the same records of a workspace's train split and measured on others (one in twenty)
and on the articles that were held out whole: bare byte-level BPE as `tokenizers` has it, the peer; the same with years and
months as added tokens, whose space stays a token of its own; ours with years and months; ours with mined terms too.
Speed is CPU time of `encode_batch_fast` over all of them in turn, the best of some, as a ratio to the peer's.

    .venv/bin/python benchmarks/tokenizer.py [--workspace FOLDER] [--sizes 4k 8k 16k 32k] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from benchmarks._example import example_workspace  # noqa: E402
from trainer.chatml import SPECIAL, encode_flat  # noqa: E402
from trainer.paths import TrainPaths  # noqa: E402
from trainer.shuffle import Example, shuffled_examples  # noqa: E402
from trainer.terms import mine, mined_share  # noqa: E402
from trainer.tokenizer import TERMS, record_texts, train_tokenizer, vocabulary_size  # noqa: E402
from trainer.tokenizer_compare import Sample  # noqa: E402

TIMES = 3
SAMPLE = 64 << 20
DATES = re.compile(rf"\b(?:{'|'.join(TERMS)})\b")


def bare(texts: Sequence[str], vocabulary: int) -> Tokenizer:
    """Byte-level BPE without any terms."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        show_progress=False,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def added(texts: Sequence[str], vocabulary: int) -> Tokenizer:
    """Years and months as added tokens, which BPE is not shown."""
    tokenizer = bare([piece for text in texts for piece in DATES.split(text) if piece], vocabulary - len(TERMS))
    tokenizer.add_tokens([AddedToken(term, single_word=True, normalized=False) for term in TERMS])
    return tokenizer


def per_record(tokenizer: Tokenizer, examples: Sequence[Example]) -> float | None:
    return round(len(encode_flat(tokenizer, examples)[0]) / len(examples), 2) if examples else None


def measured(sample: Sample, size: int) -> dict[str, Any]:
    """One size's four tokenizers."""
    dates = train_tokenizer(sample.training, size)
    terms = [term.term for term in mine(sample.training, dates, mined_share(dates.get_vocab_size()))]
    ways = {
        "bare": bare(sample.training, size),
        "added_tokens": added(sample.training, size),
        "dates": dates,
        "dates_and_terms": train_tokenizer(sample.training, size, terms),
    }
    texts = sample.training[:10_000]
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(TIMES):
        for way, tokenizer in ways.items():
            tokenizer.encode_special_tokens = True
            begun = time.process_time()
            tokenizer.encode_batch_fast(texts, add_special_tokens=False)
            seconds[way].append(time.process_time() - begun)
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    return {
        way: {
            "vocabulary": tokenizer.get_vocab_size(),
            "terms": len(terms) if way == "dates_and_terms" else 0,
            "tokens_per_record": per_record(tokenizer, sample.measured),
            "tokens_per_unseen_record": per_record(tokenizer, sample.unseen),
            "megabytes_a_cpu_second": round(megabytes / min(seconds[way]), 2),
            "speed_to_bare": round(min(seconds["bare"]) / min(seconds[way]), 2),
        }
        for way, tokenizer in ways.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, help="one after `trainer shuffle`; default: the example's")
    parser.add_argument("--sizes", nargs="+", type=vocabulary_size, default=[4096, 8192, 16384, 32768])
    parser.add_argument("--json", type=Path, help="write the document here too")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        workspace = chosen.workspace or example_workspace(Path(folder), upto="shuffle")
        told = measure(workspace, chosen.sizes)
    document = json.dumps(told, indent=2)
    print(document)
    if chosen.json:
        chosen.json.write_text(document + "\n", "utf-8")


def measure(workspace: Path, sizes: Sequence[int]) -> dict[str, Any]:
    """All sizes on the same records."""
    paths = TrainPaths(workspace / "train")
    unseen = list(islice(shuffled_examples(paths, "unseen"), 1_000))
    sample = Sample.of(shuffled_examples(paths, "train"), SAMPLE, unseen)
    return {
        "measured_records": len(sample.measured),
        "text_bytes": sum(len(text.encode()) for text in (*sample.training, *record_texts(sample.measured))),
        **{str(size): measured(sample, size) for size in sizes},
    }


if __name__ == "__main__":
    main()
