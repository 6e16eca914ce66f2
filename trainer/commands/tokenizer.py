"""`trainer tokenizer`.

Guarantees: one of the data commands at a time in a workspace; one that fails leaves the former result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from foundation.console import emit_json, progress, say, table
from trainer.commands.options import AS_JSON, LOCK, counted

if TYPE_CHECKING:
    from foundation.workspace import Workspace


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("tokenizer")(tokenizer_command)


def tokenizer_command(as_json: bool = AS_JSON) -> None:
    """Train the tokenizer on the shuffled train split; writes train/tokenizer.json."""
    from foundation.workspace import Workspace
    from trainer.paths import TrainPaths
    from trainer.presets import recipe
    from trainer.shuffle import shuffled_records
    from trainer.tokenizer import record_texts, save_tokenizer, train_tokenizer

    workspace = Workspace.find()
    paths, vocabulary = TrainPaths.of(workspace), recipe(workspace.settings.train).vocabulary
    with workspace.lock(LOCK, wait=False):
        with progress("read") as bar:
            texts = record_texts(counted(shuffled_records(paths, "train"), bar))
            tokenizer = train_tokenizer(texts, vocabulary)
        sha = save_tokenizer(tokenizer, paths.tokenizer)
        figures = _measure(workspace)
    if tokenizer.get_vocab_size() < vocabulary:
        say(f"the texts gave {tokenizer.get_vocab_size():,} tokens; train.vocabulary asks for {vocabulary:,}")
    result = {"vocabulary": tokenizer.get_vocab_size(), **figures, "sha256": sha, "file": str(paths.tokenizer)}
    emit_json(result) if as_json else table(("tokenizer", ""), result.items())


def _measure(workspace: Workspace) -> dict[str, float]:
    """Tokens per record and bytes per token, on the first 2,000 records of the train split."""
    from itertools import islice

    from trainer.chatml import encode_records
    from trainer.paths import TrainPaths
    from trainer.shuffle import shuffled_records
    from trainer.tokenizer import load_tokenizer

    paths = TrainPaths.of(workspace)
    records = list(islice(shuffled_records(paths, "train"), 2_000))
    tokens = sum(len(ids) for ids, _ in encode_records(load_tokenizer(paths.tokenizer), records))
    size = sum(len(message.content.encode()) for record in records for message in record.messages)
    return {"tokens_per_record": round(tokens / len(records), 3), "bytes_per_token": round(size / tokens, 3)}
