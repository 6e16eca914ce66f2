"""The data half of the `trainer` command: `shuffle`, `tokenizer`, `pack`.

Guarantees: one of them at a time in a workspace; a command that fails leaves the former result; results on standard
output, everything else on standard error. Cost: numpy and tokenizers are imported when a command runs, torch never.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from foundation.console import emit_json, progress, say, table

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from foundation.console import Progress
    from foundation.records import Record
    from foundation.workspace import Workspace
    from trainer.pack import PackMeta
    from trainer.shuffle import ShuffleMeta

LOCK = "train-data"
AS_JSON = typer.Option(False, "--json", help="Print one JSON document.")


def register(app: typer.Typer) -> None:
    """Add the three commands to `app`."""
    app.command("shuffle")(shuffle_command)
    app.command("tokenizer")(tokenizer_command)
    app.command("pack")(pack_command)


def shuffle_command(
    seed: int | None = typer.Option(None, min=0, help="Seed of the order; default: train.seed of factory.toml."),
    as_json: bool = AS_JSON,
) -> None:
    """Shuffle the committed records into train/shuffled, split by split."""
    from foundation.workspace import Workspace
    from trainer.shuffle import shuffle

    workspace = Workspace.find()
    with workspace.lock(LOCK, wait=False):
        meta = shuffle(workspace, workspace.settings.train.seed if seed is None else seed)
    _name_left_out(meta)
    if as_json:
        emit_json(meta.model_dump(mode="json", exclude={"v"}))
        return
    left_out = {"withdrawn": meta.withdrawn, "broken lines": meta.broken_lines, "without an answer": meta.unanswered}
    table(("shuffled", ""), {"shards": meta.shards, **meta.records, **left_out, "seed": meta.seed}.items())


def tokenizer_command(as_json: bool = AS_JSON) -> None:
    """Train the tokenizer on the shuffled train split; writes train/tokenizer.json."""
    from foundation.workspace import Workspace
    from trainer.paths import TrainPaths
    from trainer.shuffle import shuffled_records
    from trainer.tokenizer import record_texts, save_tokenizer, train_tokenizer

    workspace = Workspace.find()
    paths = TrainPaths.of(workspace)
    with workspace.lock(LOCK, wait=False):
        with progress("read") as bar:
            texts = record_texts(_counted(shuffled_records(paths, "train"), bar))
            tokenizer = train_tokenizer(texts, workspace.settings.train.vocabulary)
        sha = save_tokenizer(tokenizer, paths.tokenizer)
        figures = _measure(workspace)
    if tokenizer.get_vocab_size() < workspace.settings.train.vocabulary:
        say(
            f"the texts gave {tokenizer.get_vocab_size():,} tokens; train.vocabulary asks for {workspace.settings.train.vocabulary:,}"
        )
    result = {"vocabulary": tokenizer.get_vocab_size(), **figures, "sha256": sha, "file": str(paths.tokenizer)}
    emit_json(result) if as_json else table(("tokenizer", ""), result.items())


def pack_command(as_json: bool = AS_JSON) -> None:
    """Tokenise the shuffled records and pack them into contexts; writes train/packs."""
    from foundation.workspace import Workspace
    from trainer.pack import pack

    workspace = Workspace.find()
    with workspace.lock(LOCK, wait=False):
        metas = pack(workspace)
    if as_json:
        emit_json({"splits": {meta.split: meta.figures() for meta in metas}})
        return
    _show_packs(metas)


def _show_packs(metas: list[PackMeta]) -> None:
    first = metas[0]
    headings = ("split", "records", "contexts", "tokens", "full", "records/context", "trained on", "too long")
    rows = []
    for meta in metas:
        figures = meta.figures()
        per_context, share = figures["records_per_context"], f"{meta.supervised / max(1, meta.tokens):.1%}"
        rows.append(
            (
                meta.split,
                meta.records,
                meta.packs,
                meta.tokens,
                f"{meta.efficiency:.2%}",
                per_context,
                share,
                meta.too_long,
            )
        )
        if meta.too_long:
            say(
                f"{meta.split}: {meta.too_long:,} records are longer than the context of {meta.context} (the longest: {meta.longest:,} tokens)"
            )
    table(headings, rows, title=f"contexts of {first.context:,} tokens, vocabulary {first.vocabulary:,}")


def _name_left_out(meta: ShuffleMeta) -> None:
    for kind, count, named in (
        ("broken line", meta.broken_lines, meta.broken),
        ("record without an answer", meta.unanswered, meta.unanswered_records),
    ):
        for name in named:
            say(f"left out, {kind}: {name}")
        if count > len(named):
            say(f"... and {count - len(named):,} more")


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


def _counted(records: Iterable[Record], bar: Progress) -> Iterator[Record]:
    for record in records:
        bar.advance()
        yield record
