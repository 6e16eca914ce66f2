"""Tokenizers side by side: sizes that are trained here, in memory, and any `tokenizer.json`.

Guarantees: what measures did not train (every 20th example of the sample measures, the others train); nothing is written.
A row counts what a record costs in ChatML, two tags a message at one token each, so that tokenizers without our tags are
held to the same. A file that was trained elsewhere may have seen the measuring part: the current one has.
Cost: two trainings a size (one finds its terms), 0.5 s a MB of the sample; the sample lies in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.errors import UsageError
from trainer.chatml import ROLES
from trainer.terms import mine, mined_share
from trainer.tokenizer import MONTHS, YEARS, read_tokenizer, record_texts, train_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from trainer.shuffle import Example

MEASURES = 20  # every so-manieth example measures
USED_TEXTS = 20_000  # texts of the sample in which the tokens that are met are counted
BATCH = 2_000


@dataclass(frozen=True)
class Row:
    """One tokenizer. `terms`: domain terms it was given; `tokens_per_term` and `one_token` (a share): over the comparison's.

    `tokens_per_unseen`: per record of articles that were held out whole, where too many terms show. `tokens_per_date`: mean
    over years and months. `used`: share of the vocabulary met in the sample. `lossless`: every text that was measured came
    back byte for byte.
    """

    name: str
    vocabulary: int
    terms: int | None
    tokens_per_record: float
    tokens_per_unseen: float | None
    bytes_per_token: float
    tokens_per_term: float
    one_token: float
    tokens_per_date: float
    used: float
    lossless: bool
    current: bool

    def figures(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True)
class Sample:
    """The examples that measure, and the texts of those that train."""

    measured: list[Example]
    training: list[str]
    unseen: list[Example]

    @classmethod
    def of(cls, examples: Iterable[Example], size: int, unseen: Iterable[Example] = ()) -> Sample:
        """The first `size` bytes of text. Raises `UsageError` if they hold too little to measure and to train."""
        measured: list[Example] = []
        training: list[str] = []
        for number, example in enumerate(examples):
            if number % MEASURES == 0:
                measured.append(example)
            else:
                training += record_texts([example])
            size -= sum(len(text.encode()) for text in record_texts([example]))
            if size <= 0:
                break
        if not any(training):
            raise UsageError(
                "there are too few records to compare tokenizers on", mend="generate more, then run `trainer shuffle`"
            )
        return cls(measured, training, list(unseen))


def read_files(paths: Iterable[Path]) -> list[tuple[Path, Tokenizer]]:
    """The tokenizers in these files. Raises `UsageError` for one that is missing or is none, so that it is said before the long work."""
    read = []
    for path in paths:
        try:
            read.append((path, read_tokenizer(path)))
        except FileNotFoundError as error:
            raise UsageError(
                "there is no such file", where=str(path), mend="name a tokenizer.json, or a size"
            ) from error
        except ValueError as error:
            raise UsageError(
                f"this is not a tokenizer.json: {error}", where=str(path), mend="leave it out, or get it again"
            ) from error
    return read


def compare(
    sample: Sample,
    sizes: Sequence[int],
    files: Sequence[tuple[Path, Tokenizer]],
    *,
    terms: Sequence[str] | None,
    current: Path,
    vocabulary: int,
    plain: bool = False,
    named: int = 500,
    done: Callable[[str], None] = lambda name: None,
) -> list[Row]:
    """A row for each size and file, in that order. `terms`: the domain terms; None: mined for each size, as `trainer tokenizer` would.

    All rows are measured on the same terms: those given, else the `named` best that plain BPE of `vocabulary` tokens cuts.
    `plain`: a row without domain terms for each size too. Raises `UsageError` for a size that will not do.
    """
    bare: dict[int, Tokenizer] = {}

    def plain_of(size: int) -> Tokenizer:
        if size not in bare:
            bare[size] = train_tokenizer(sample.training, size)
        return bare[size]

    def mined(size: int, most: int) -> list[str]:
        return [term.term for term in mine(sample.training, plain_of(size), most)]

    reference = list(terms) if terms is not None else mined(vocabulary, named)
    rows: list[Row] = []

    def add(name: str, tokenizer: Tokenizer, given: int | None, *, is_current: bool = False) -> None:
        rows.append(_row(name, tokenizer, sample, reference, terms=given, current=is_current))

    for size in sizes:
        if plain:
            add(f"{size:,}, no terms", plain_of(size), 0)
        given = list(terms) if terms is not None else mined(size, mined_share(plain_of(size).get_vocab_size()))
        add(f"{size:,}", train_tokenizer(sample.training, size, given), len(given))
        bare.pop(size, None)
        done(f"{size:,}")
    for path, tokenizer in files:
        add(str(path), tokenizer, None, is_current=path.resolve() == current.resolve())
        done(path.name)
    return rows


def _row(
    name: str, tokenizer: Tokenizer, sample: Sample, reference: Sequence[str], *, terms: int | None, current: bool
) -> Row:
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    texts = list(record_texts(sample.measured))
    contents = _encoded(tokenizer, texts)
    tokens = _tokens(tokenizer, sample.measured, contents)
    met = {token for ids in contents for token in ids}
    for start in range(0, min(len(sample.training), USED_TEXTS), BATCH):
        met.update(*_encoded(tokenizer, sample.training[start : min(start + BATCH, USED_TEXTS)]))
    per_term = [len(ids) for ids in _encoded(tokenizer, [f" {term}" for term in reference])]
    per_date = [len(ids) for ids in _encoded(tokenizer, [f" {term}" for term in (*YEARS, *MONTHS)])]
    unseen = _encoded(tokenizer, list(record_texts(sample.unseen)))
    return Row(
        name=name,
        vocabulary=tokenizer.get_vocab_size(),
        terms=terms,
        tokens_per_record=round(tokens / len(sample.measured), 3),
        tokens_per_unseen=round(_tokens(tokenizer, sample.unseen, unseen) / len(sample.unseen), 3) if unseen else None,
        bytes_per_token=round(sum(len(text.encode()) for text in texts) / tokens, 3),
        tokens_per_term=round(sum(per_term) / max(1, len(per_term)), 3),
        one_token=round(sum(count == 1 for count in per_term) / max(1, len(per_term)), 4),
        tokens_per_date=round(sum(per_date) / len(per_date), 3),
        used=round(len(met) / tokenizer.get_vocab_size(), 4),
        lossless=all(
            tokenizer.decode(ids, skip_special_tokens=False) == text for text, ids in zip(texts, contents, strict=True)
        ),
        current=current,
    )


def _tokens(tokenizer: Tokenizer, examples: Sequence[Example], contents: Sequence[Sequence[int]]) -> int:
    """Tokens of the examples in ChatML, their messages' contents encoded already; a tag is one token in any tokenizer."""
    headers = _encoded(tokenizer, [f"{role}\n" for role in ROLES])
    frame = {role: len(ids) + 2 for role, ids in zip(ROLES, headers, strict=True)}
    newline = len(_encoded(tokenizer, ["\n"])[0])
    turns = sum(frame[role] + newline for example in examples for role, _ in example.messages)
    return turns + sum(map(len, contents))


def _encoded(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    return [encoding.ids for encoding in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]
