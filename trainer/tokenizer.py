"""The tokenizer: byte-level BPE trained on the train split, with ChatML tags, years, months and domain terms one token each.

Guarantees: `decode(encode(text)) == text` for every text (all 256 bytes are in the alphabet, nothing is normalised, and every
token but a tag is a run of bytes); a term (a year from 1900 to 1950, a month, what `terms` adds) is one token wherever it
stands as a word of its own, alone or with the space before it; of terms that overlap the leftmost counts, then the longest;
a tag written in a text stays text. Tags have the lowest ids, terms the highest. The file holds nothing but what
`tokenizers` itself reads, so `transformers` and vLLM load it as it is, with the same ids.
How: the pre-tokenizer's pattern keeps ` ?TERM` in one piece, both forms are in the vocabulary, and `ignore_merges` takes a
piece that the vocabulary holds whole. BPE is never shown a term, so it spends no merge on one.
Cost: 0.2 s of one core a MB to train on and 0.35 s to encode, as bare BPE, however many terms: they are one trie in the
pattern. A second form a term, so that its space is no token of its own (`benchmarks/tokenizer.py`: 3 to 4 % of all tokens).
"""

from __future__ import annotations

import calendar
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundation.errors import Failure, UsageError
from trainer.chatml import ROLES, SPECIAL

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from tokenizers.pre_tokenizers import PreTokenizer

YEARS = tuple(str(year) for year in range(1900, 1951))
MONTHS = tuple(calendar.month_name[1:])
TERMS = (*YEARS, *MONTHS)  # in every tokenizer; domain terms come on top
FORMS = 2  # tokens a term takes: alone, and with the space before it
TERM_LENGTH = 64  # characters
LARGEST = 1 << 18  # tokens
_WORD = r"[\p{L}\p{M}\p{N}_]"
# What is not a term: contractions, words, numbers, punctuation, white space. The line feed behind a role is a piece of its
# own, so that a chat template, which encodes it together with the message, gets the ids that `trainer.chatml` lays out.
_PIECES = (
    r"['’](?:[dmst]|ll|re|ve)(?!\p{L})",
    r" ?[\p{L}\p{M}]+",
    r" ?\p{N}+",
    r" ?[^\s\p{L}\p{M}\p{N}]+",
    *(rf"(?<={role})\n" for role in ROLES),
    r"\n+",
    r"\s+(?!\S)",
    r"\s+",
)


def train_tokenizer(texts: Iterable[str], vocabulary: int, terms: Sequence[str] = ()) -> Tokenizer:
    """A tokenizer of at most `vocabulary` tokens (fewer if the texts hold too little to merge); `terms` on top of `TERMS`.

    Raises `UsageError` without text, if the vocabulary is too small for tags, bytes and terms, or if a term cannot be one.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    wanted = tuple(dict.fromkeys((*TERMS, *terms)))
    for term in wanted:
        if problem := term_problem(term):
            raise UsageError(f"{term!r} cannot be a term: {problem}")
    _check_room(vocabulary, wanted)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([_split(_term_pattern(wanted), "removed"), *_pieces(())])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        show_progress=False,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    pieces = (text for text in texts if text)
    first = next(pieces, None)
    if first is None:
        raise UsageError(
            "there is no text to train a tokenizer on", mend="generate records, then run `trainer shuffle`"
        )
    tokenizer.train_from_iterator(chain([first], pieces), trainer)
    made = json.loads(tokenizer.to_str())
    _put_terms(made["model"], wanted, vocabulary)
    tokenizer = Tokenizer.from_str(json.dumps(made))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(_pieces(wanted))
    return tokenizer


def vocabulary_size(text: str) -> int:
    """Tokens of `8k`, `16K` (thousands of 1,024) or `32000`. Raises `UsageError`."""
    found = re.fullmatch(r"([0-9]{1,7})(k?)", text.strip().lower().replace(",", ""))
    size = int(found[1]) * (1024 if found[2] else 1) if found else 0
    if not 0 < size <= LARGEST:
        raise UsageError(f"not a vocabulary's size: {text!r}", mend=f"write it as 8k, 16k, 32000; at most {LARGEST:,}")
    return size


def smallest_vocabulary(terms: Iterable[str] = ()) -> int:
    """Tokens that tags, bytes, `TERMS` and `terms` take before BPE learns the first."""
    return 256 + len(SPECIAL) + FORMS * len({*TERMS, *terms})


def term_problem(term: str) -> str:
    """Why this text cannot be a term; empty if it can."""
    if not 2 <= len(term) <= TERM_LENGTH:
        return f"it has {len(term)} characters, and a term has 2 to {TERM_LENGTH}"
    if not term[0].isalnum():
        return "it does not begin with a letter or digit"
    odd = next((c for c in term if c != " " and (not c.isprintable() or 0xD800 <= ord(c) <= 0xDFFF)), "")
    if odd:
        return f"it holds the character U+{ord(odd):04X}"
    if term != " ".join(term.split()):
        return "it has a space at its end, or two in a row"
    tag = next((tag for tag in SPECIAL if tag in term), "")
    return f"it holds the tag {tag}" if tag else ""


def record_texts(records: Iterable[Any]) -> Iterator[str]:
    """The text of every message of records or examples."""
    for record in records:
        for message in record.messages:
            yield message[1] if isinstance(message, tuple) else message.content


def save_tokenizer(tokenizer: Tokenizer, path: Path) -> str:
    """Write `tokenizer.json` whole or not at all; returns its SHA-256."""
    from foundation.store import LocalStore

    data = tokenizer.to_str(pretty=True).encode()
    LocalStore(path.parent).put(path.name, data)
    return hashlib.sha256(data).hexdigest()


def load_tokenizer(path: Path) -> Tokenizer:
    """Read a tokenizer. Raises `UsageError` if it is missing, `Failure` if the file is not one of ours."""
    try:
        tokenizer = read_tokenizer(path)
    except FileNotFoundError as error:
        raise UsageError(
            "there is no tokenizer yet", where=str(path), mend="make it with `trainer tokenizer`"
        ) from error
    except ValueError as error:
        raise _not_ours(path, str(error)) from error
    missing = [tag for tag in SPECIAL if tokenizer.token_to_id(tag) is None]
    if missing:
        raise _not_ours(path, f"it has no {', '.join(missing)}")
    size, largest = tokenizer.get_vocab_size(), max(tokenizer.get_vocab().values())
    if largest >= size:  # token files and models have room for `size` ids
        raise _not_ours(path, f"it has {size:,} tokens, and their ids go up to {largest:,}")
    return tokenizer


def read_tokenizer(path: Path) -> Tokenizer:
    """Read any `tokenizer.json`, with our tags or without; a tag in a text is text to it.

    Raises `FileNotFoundError`, or `ValueError` that says what is wrong with the file.
    """
    from tokenizers import Tokenizer

    text = path.read_text("utf-8")  # UnicodeDecodeError is a ValueError
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # the library raises bare Exception
        raise ValueError(str(error)) from error
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


def _check_room(vocabulary: int, terms: Sequence[str]) -> None:
    smallest = smallest_vocabulary(terms)
    if vocabulary < smallest:
        raise UsageError(
            f"a vocabulary of {vocabulary:,} is too small: tags, bytes and {len(terms):,} terms (years and months among them) "
            f"take {smallest:,}",
            where="train.vocabulary",
            mend=f"set it to {smallest} or more"
            + (", or take fewer terms" if smallest > smallest_vocabulary() else ""),
        )


def _put_terms(model: dict[str, Any], terms: Sequence[str], vocabulary: int) -> None:
    """Both forms of every term into BPE's vocabulary, behind as many learnt tokens as leave room for them.

    Learnt tokens stand in the order of their merges, so a shorter vocabulary is the longer one cut off. A form that BPE
    learnt as part of a longer word (`May` of `Mayor`) is there already and takes no room.
    """
    forms = _byte_level([form for term in terms for form in (term, f" {term}")])
    learnt = sorted(model["vocab"], key=model["vocab"].__getitem__)
    keep = min(len(learnt), vocabulary - len(forms))
    while keep < len(learnt):
        spare = vocabulary - keep - len(set(forms) - set(learnt[:keep]))
        if not spare:
            break
        keep = min(len(learnt), keep + spare)
    kept = {token: number for number, token in enumerate(learnt[:keep])}
    model["merges"] = [pair for pair in model["merges"] if "".join(pair) in kept]
    for form in forms:
        kept.setdefault(form, len(kept))
    model["vocab"] = kept
    model["ignore_merges"] = True


def _byte_level(texts: Sequence[str]) -> list[str]:
    """Each text as byte-level BPE spells it: a printable character a byte."""
    from tokenizers import pre_tokenizers

    spell = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return [spell.pre_tokenize_str(text)[0][0] for text in texts]


def _pieces(terms: Sequence[str]) -> list[PreTokenizer]:
    from tokenizers import pre_tokenizers

    pattern = "|".join((_term_pattern(terms), *_PIECES) if terms else _PIECES)
    return [_split(pattern, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]


def _split(pattern: str, behavior: str) -> PreTokenizer:
    from tokenizers import Regex, pre_tokenizers

    split: PreTokenizer = pre_tokenizers.Split(Regex(pattern), behavior)
    return split


def _term_pattern(terms: Sequence[str]) -> str:
    return f" ?(?<!{_WORD}){_trie(terms)}(?!{_WORD})"


def _trie(terms: Sequence[str]) -> str:
    """A pattern of exactly these texts, the longest first; what they begin with in common is looked at once."""
    root: dict[str, Any] = {}
    for term in terms:
        node = root
        for character in term:
            node = node.setdefault(character, {})
        node[""] = {}
    return _branches(root)


def _branches(node: dict[str, Any]) -> str:
    rests: dict[str, list[str]] = {}
    for character, below in node.items():
        if character:
            rests.setdefault(_branches(below), []).append(_escaped(character))
    if not rests:
        return ""
    parts = [(c[0] if len(c) == 1 else f"[{''.join(sorted(c))}]") + rest for rest, c in rests.items()]
    if "" in node:  # a shorter term ends here
        return f"(?:{'|'.join(parts)})?"
    return parts[0] if len(parts) == 1 else f"(?:{'|'.join(parts)})"


def _escaped(character: str) -> str:
    return character if character.isalnum() or character == " " else re.escape(character)


def _not_ours(path: Path, why: str) -> Failure:
    return Failure(
        f"this is not a tokenizer of the trainer's: {why}",
        where=str(path),
        mend="make it again with `trainer tokenizer`",
    )
