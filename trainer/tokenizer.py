"""The tokenizer: byte-level BPE trained on the train split, with ChatML tags, years and months one token each.

Guarantees: `decode(encode(text)) == text` for every text (all 256 bytes are in the alphabet, nothing is normalised); the
years 1900 to 1950 and the months are one token each wherever they stand as words of their own, the same one behind a
space as without; a tag written in a text stays text. Tags have the lowest ids, terms the highest.
Cost: about 0.2 s a MB to train on and 0.2 s a MB to encode; a term's space is a token of its own, which makes text full
of dates 4 % longer and lets the student learn each year once.
"""

from __future__ import annotations

import calendar
import hashlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.errors import Failure, UsageError
from trainer.chatml import SPECIAL

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from foundation.records import Record

YEARS = tuple(str(year) for year in range(1900, 1951))
MONTHS = tuple(calendar.month_name[1:])
TERMS = (*YEARS, *MONTHS)
# Python's idea of a word must be at least as narrow as the tokenizer's own: only then has BPE learnt from what it will see.
_TERM = re.compile(rf"\b(?:{'|'.join(TERMS)})\b")


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """A tokenizer of at most `vocabulary` tokens (fewer if the texts hold too little to merge). Raises `UsageError` without text."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    smallest = 256 + len(SPECIAL) + len(TERMS)
    if vocabulary < smallest:
        raise UsageError(
            f"a vocabulary of {vocabulary} is too small", where="train.vocabulary", mend=f"set it to {smallest} or more"
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(TERMS),
        min_frequency=2,
        show_progress=False,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    pieces = _without_terms(texts)
    first = next(pieces, None)
    if first is None:
        raise UsageError(
            "there is no text to train a tokenizer on", mend="generate records, then run `trainer shuffle`"
        )
    tokenizer.train_from_iterator(_chain(first, pieces), trainer)
    tokenizer.add_tokens([AddedToken(term, single_word=True, normalized=False) for term in TERMS])
    return tokenizer


def _chain(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


def _without_terms(texts: Iterable[str]) -> Iterator[str]:
    """The texts as BPE will see them: cut at the terms, which it is never shown."""
    for text in texts:
        yield from (piece for piece in _TERM.split(text) if piece)


def record_texts(records: Iterable[Record]) -> Iterator[str]:
    """The text of every message."""
    for record in records:
        for message in record.messages:
            yield message.content


def save_tokenizer(tokenizer: Tokenizer, path: Path) -> str:
    """Write `tokenizer.json` whole or not at all; returns its SHA-256."""
    from foundation.store import LocalStore

    data = tokenizer.to_str(pretty=True).encode()
    LocalStore(path.parent).put(path.name, data)
    return hashlib.sha256(data).hexdigest()


def load_tokenizer(path: Path) -> Tokenizer:
    """Read a tokenizer. Raises `UsageError` if it is missing, `Failure` if the file is not one of ours."""
    from tokenizers import Tokenizer

    try:
        text = path.read_text("utf-8")
    except FileNotFoundError as error:
        raise UsageError(
            "there is no tokenizer yet", where=str(path), mend="make it with `trainer tokenizer`"
        ) from error
    except UnicodeDecodeError as error:
        raise _not_ours(path, "it is not text") from error
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # the library raises bare Exception
        raise _not_ours(path, str(error)) from error
    missing = [tag for tag in SPECIAL if tokenizer.token_to_id(tag) is None]
    if missing:
        raise _not_ours(path, f"it has no {', '.join(missing)}")
    tokenizer.encode_special_tokens = True  # a tag in a text is text; the real ones are placed by id
    return tokenizer


def tokenizer_sha(path: Path) -> str:
    """SHA-256 of a tokenizer's file: what packs and checkpoints are held against. Raises `UsageError` if it is missing."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError as error:
        raise UsageError(
            "there is no tokenizer yet", where=str(path), mend="make it with `trainer tokenizer`"
        ) from error


def _not_ours(path: Path, why: str) -> Failure:
    return Failure(
        f"this is not a tokenizer of the trainer's: {why}",
        where=str(path),
        mend="make it again with `trainer tokenizer`",
    )
