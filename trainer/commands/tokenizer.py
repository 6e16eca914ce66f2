"""`trainer tokenizer`, `trainer tokenizer terms` and `trainer tokenizer compare`.

Guarantees: one of the data commands at a time in a workspace writes; one that fails leaves the former result. Nothing but
`--write` touches `train/terms.txt`, which belongs to the person.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from foundation.console import emit_json, progress, say, table
from trainer.commands.options import AS_JSON, LOCK

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tokenizers import Tokenizer

    from foundation.console import Progress
    from trainer.paths import TrainPaths
    from trainer.shuffle import Example
    from trainer.tokenizer_compare import Row

MEASURED = 2_000  # records whose tokens are counted at the end
UNSEEN = 1_000  # records of held-out articles that `compare` measures, at most
NAMED = 500  # terms that `terms` prints, and that `compare` measures
VOCABULARY = typer.Option(None, "--vocabulary", help="Tokens: 8k, 16k, 32000 ...; default: train.vocabulary's.")


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    group = typer.Typer(invoke_without_command=True, rich_markup_mode=None)
    group.callback()(tokenizer_command)
    group.command("terms")(terms_command)
    group.command("compare")(compare_command)
    app.add_typer(group, name="tokenizer")


def tokenizer_command(
    context: typer.Context,
    vocabulary: str | None = VOCABULARY,
    terms: int | None = typer.Option(
        None, "--terms", min=0, help="Domain terms to mine where there is no train/terms.txt; default: vocabulary/32."
    ),
    sample: str = typer.Option("256M", "--sample", help="Bytes of text to train on, at most."),
    as_json: bool = AS_JSON,
) -> None:
    """Train the tokenizer on the shuffled train split; writes train/tokenizer.json."""
    if context.invoked_subcommand is not None:
        return
    from foundation.quantities import size_bytes
    from foundation.workspace import Workspace
    from trainer.paths import TrainPaths
    from trainer.shuffle import shuffled_examples
    from trainer.terms import first_bytes
    from trainer.tokenizer import record_texts, save_tokenizer, train_tokenizer

    workspace = Workspace.find()
    paths, size = TrainPaths.of(workspace), _size(vocabulary)
    limit = size_bytes(sample)
    with workspace.lock(LOCK, wait=False):
        domain, origin = _domain_terms(paths, size, terms)
        with progress("read") as bar:
            texts = first_bytes(record_texts(_noted(shuffled_examples(paths, "train"), bar)), limit)
            tokenizer = train_tokenizer(texts, size, domain)
        sha = save_tokenizer(tokenizer, paths.tokenizer)
        figures = _measure(paths, tokenizer)
    made = tokenizer.get_vocab_size()
    if made < size:
        say(f"the texts gave {made:,} tokens; {size:,} were asked for")
    result = {"vocabulary": made, "domain_terms": len(domain), "terms_from": origin, **figures}
    result |= {"sha256": sha, "file": str(paths.tokenizer)}
    emit_json(result) if as_json else table(("tokenizer", ""), result.items())


def terms_command(
    number: int = typer.Option(NAMED, "-n", "--number", min=1, help="Terms, at most."),
    min_count: int = typer.Option(20, "--min-count", min=1, help="A term stands in the text at least that often."),
    vocabulary: str | None = VOCABULARY,
    write: bool = typer.Option(False, "--write", help="Write them to train/terms.txt, in place of what it held."),
    as_json: bool = AS_JSON,
) -> None:
    """Mine domain terms: names, phrases and words that come often and that plain BPE cuts in several tokens."""
    from dataclasses import asdict, astuple

    from foundation.errors import UsageError
    from foundation.workspace import Workspace
    from trainer.paths import TrainPaths
    from trainer.shuffle import shuffled_examples
    from trainer.terms import TERMS_FILE, mine_for, write_terms
    from trainer.tokenizer import record_texts

    workspace = Workspace.find()
    paths, size = TrainPaths.of(workspace), _size(vocabulary)
    with progress("read") as bar:
        found = mine_for(record_texts(_noted(shuffled_examples(paths, "train"), bar)), size, number, min_count)
    path = paths.root / TERMS_FILE
    if write:
        if not found:
            raise UsageError("no term was found, so none was written", mend="lower --min-count")
        with workspace.lock(LOCK, wait=False):
            write_terms(path, found)
        say(f"{len(found):,} terms written to {path}; edit it as you like, then run `trainer tokenizer`")
    elif not as_json:
        say("with --write they go to train/terms.txt, which `trainer tokenizer` then follows")
    if as_json:
        result = {
            "vocabulary": size,
            "saved": sum(term.saved for term in found),
            "written": str(path) if write else None,
        }
        emit_json(result | {"terms": [asdict(term) for term in found]})
    else:
        table(("term", "count", "tokens without", "tokens saved"), map(astuple, found))


def compare_command(
    tokenizers: list[str] = typer.Argument(
        ..., metavar="SIZE|FILE...", help="8k, 16k, 32000 ..., or a tokenizer.json."
    ),
    plain: bool = typer.Option(False, "--plain", help="Train each size without domain terms too."),
    sample: str = typer.Option("64M", "--sample", help="Bytes of text to train and measure on, at most."),
    as_json: bool = AS_JSON,
) -> None:
    """Train tokenizers of several sizes in memory and set them, and files, side by side."""
    from itertools import islice

    from foundation.quantities import size_bytes
    from foundation.workspace import Workspace
    from trainer.paths import TrainPaths
    from trainer.shuffle import shuffled_examples
    from trainer.terms import TERMS_FILE, read_terms
    from trainer.tokenizer import vocabulary_size
    from trainer.tokenizer_compare import Sample, compare, read_files

    paths = TrainPaths.of(Workspace.find())
    files = [Path(name) for name in tokenizers if name.endswith(".json") or Path(name).is_file()]
    sizes = [vocabulary_size(name) for name in tokenizers if Path(name) not in files]
    if paths.tokenizer.is_file() and paths.tokenizer.resolve() not in [path.resolve() for path in files]:
        files.append(paths.tokenizer)
    read = read_files(files)
    terms = read_terms(paths.root / TERMS_FILE)
    with progress("read") as bar:
        unseen = islice(shuffled_examples(paths, "unseen"), UNSEEN)
        drawn = Sample.of(_noted(shuffled_examples(paths, "train"), bar), size_bytes(sample), unseen)
    with progress("compared", len(sizes) + len(files)) as bar:
        rows = compare(
            drawn, sizes, read, terms=terms, current=paths.tokenizer, vocabulary=_size(None), plain=plain, named=NAMED,
            done=lambda name: bar.advance(note=name),
        )  # fmt: skip
    if as_json:
        emit_json({"measured_records": len(drawn.measured), "tokenizers": [row.figures() for row in rows]})
        return
    _show_rows(rows, len(drawn.measured))


def _show_rows(rows: Iterable[Row], measured: int) -> None:
    say(
        f"measured on {measured:,} records that trained none of the sizes; a file may have seen them. "
        "record: tokens a record, ChatML too; unseen: the same, on articles held out; term, date: tokens for one in running "
        "text, of the terms that `trainer tokenizer terms` names; used: share of the vocabulary met"
    )
    headings = ("tokenizer", "", "vocabulary", "terms", "record", "unseen", "bytes/token", "term", "one token", "date")
    cells = (
        (
            min(row.name, os.path.relpath(row.name), key=len) if row.terms is None else row.name,
            "current" if row.current else "",
            row.vocabulary,
            row.terms,
            f"{row.tokens_per_record:.1f}",
            "" if row.tokens_per_unseen is None else f"{row.tokens_per_unseen:.1f}",
            f"{row.bytes_per_token:.2f}",
            f"{row.tokens_per_term:.2f}",
            f"{row.one_token:.0%}",
            f"{row.tokens_per_date:.2f}",
            f"{row.used:.0%}",
            row.lossless,
        )
        for row in rows
    )
    table((*headings, "used", "lossless"), cells)


def _noted(examples: Iterable[Example], bar: Progress) -> Iterator[Example]:
    """The examples, each one noted on `bar`."""
    for example in examples:
        bar.advance()
        yield example


def _size(text: str | None) -> int:
    """The vocabulary that is asked for: on the command line, or else in the settings."""
    from foundation.workspace import Workspace
    from trainer.presets import recipe
    from trainer.tokenizer import vocabulary_size

    return vocabulary_size(text) if text is not None else recipe(Workspace.find().settings.train).vocabulary


def _domain_terms(paths: TrainPaths, vocabulary: int, most: int | None) -> tuple[Sequence[str], str]:
    """The terms in train/terms.txt, or else mined ones, and a word for where they are from."""
    from trainer.shuffle import shuffled_examples
    from trainer.terms import TERMS_FILE, mine_for, read_terms
    from trainer.tokenizer import record_texts

    path = paths.root / TERMS_FILE
    written = read_terms(path)
    if written is not None:
        say(f"one token each: years, months and the {len(written):,} terms of {path}")
        if most is not None:
            say("--terms is passed over: it is for a workspace without that file")
        return written, str(path)
    if most == 0:
        return (), "none"
    with progress("read for terms") as bar:
        found = mine_for(record_texts(_noted(shuffled_examples(paths, "train"), bar)), vocabulary, most)
    some = ", ".join(term.term for term in found[:3])
    say(
        f"one token each: years, months and {len(found):,} mined terms{f' ({some}, ...)' if some else ''}; "
        "to choose them yourself: `trainer tokenizer terms --write`, then edit train/terms.txt"
    )
    return [term.term for term in found], "mined" if found else "none"


def _measure(paths: TrainPaths, tokenizer: Tokenizer) -> dict[str, float]:
    """Tokens per record and bytes per token, on the first records of the train split."""
    from itertools import islice

    from trainer.chatml import encode_flat
    from trainer.shuffle import shuffled_examples
    from trainer.tokenizer import record_texts

    examples = list(islice(shuffled_examples(paths, "train"), MEASURED))
    tokens = len(encode_flat(tokenizer, examples)[0])
    size = sum(len(text.encode()) for text in record_texts(examples))
    return {"tokens_per_record": round(tokens / len(examples), 3), "bytes_per_token": round(size / tokens, 3)}
