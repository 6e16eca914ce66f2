"""Packs: records become token files, from which contexts are laid out; the packing itself is `trainer.epochs`, and on no disk.

Guarantees: a record is never split; one longer than the context, or with nothing to train on, is left out, counted and, of
the first 20, named; the same records, tokenizer and seed give the same bytes; the folder is replaced as a whole or not at all.
Cost: 0.25 ms of a core for a record of 180 tokens, nearly all of it the tokenizer's own; memory of 20 bytes a record. Three
bytes a token on disk, five above 65,536 tokens. Reading is memory-mapped; a damaged file is named when the packs are opened.

One folder a split: `tokens.bin` (uint16 or uint32), `mask.bin` (uint8), `records.npy` (int64, n + 1 offsets), `types.npy`
(uint16, the number of each record's prompt type), `meta.json`; beside them, the `manifest.json` of the records.
"""

from __future__ import annotations

import hashlib
import io
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from foundation.console import progress, say
from foundation.errors import Failure, UsageError
from foundation.records import Contract, Split
from trainer.bestfit import Int32s, Int64s, pack_lengths
from trainer.chatml import ENDOFTEXT, encode_flat, special_id
from trainer.epochs import permutation
from trainer.mix import RAW, RAW_ARTICLE, wants_raw
from trainer.paths import SPLITS, TrainPaths, new_folder
from trainer.presets import model_config, recipe
from trainer.raw import RawReport, raw_articles, raw_documents
from trainer.shuffle import shuffle_meta, shuffled_examples
from trainer.tokenizer import load_tokenizer, tokenizer_sha

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from foundation.records import Message, Record
    from foundation.workspace import Workspace
    from trainer.chatml import Encoded
    from trainer.layout import Batch
    from trainer.shuffle import Example

T = TypeVar("T")
NAMED = 20  # records left out that are named; the rest are counted
ENCODED = 4_000  # records tokenised at a time, or
ENCODED_TEXT = 4 << 20  # so many characters: the tokenizer holds 130 bytes a token while it is at it


class PackMeta(Contract):
    """What `meta.json` says of one split. `efficiency`: the share of context positions that hold a record's token."""

    v: Literal[1] = 1
    split: Split
    context: int
    dtype: Literal["uint16", "uint32"]
    vocabulary: int
    pad_id: int
    tokenizer: str
    manifest: str
    seed: int
    records: int
    packs: int
    tokens: int
    supervised: int
    too_long: int
    too_long_records: tuple[str, ...] = ()
    unanswered: int = 0
    unanswered_records: tuple[str, ...] = ()
    longest: int
    text_bytes: int
    raw_documents: int = 0
    raw_tokens: int = 0
    digest: str
    types: tuple[str, ...]
    families: tuple[str, ...]

    @property
    def efficiency(self) -> float:
        return self.tokens / max(1, self.packs * self.context)

    def figures(self) -> dict[str, object]:
        """The counts and the shares made of them, for people and `--json`."""
        return {
            **self.model_dump(exclude={"v", "types", "families"}),
            "efficiency": round(self.efficiency, 6),
            "records_per_context": round(self.records / max(1, self.packs), 3),
            "supervised_share": round(self.supervised / max(1, self.tokens), 6),
            "tokens_per_record": round(self.tokens / max(1, self.records), 3),
            "bytes_per_token": round(self.text_bytes / max(1, self.tokens), 3),
        }


def pack(workspace: Workspace, *, raw: bool | None = None) -> list[PackMeta]:
    """Make `train/packs` from the shuffled records and the tokenizer, one folder a split.

    `raw`: raw text too, in the train split; None: if the mix asks for it. Raises `UsageError` if records or tokenizer are
    missing or nothing of the train split can be trained on; what was there before then stays.
    """
    paths, settings = TrainPaths.of(workspace), recipe(workspace.settings.train)
    shuffled, tokenizer, sha = shuffle_meta(paths), load_tokenizer(paths.tokenizer), tokenizer_sha(paths.tokenizer)
    model_config(settings.preset, tokenizer.get_vocab_size(), settings.context)  # what no model takes is not packed
    if shuffled.share != settings.share:
        say(f"packing what was shuffled, a share of {shuffled.share:g}; train.share is {settings.share:g}")
    with_raw = wants_raw(workspace.settings.mix) if raw is None else raw
    metas = []
    with new_folder(paths.packs) as folder:
        shutil.copyfile(paths.manifest, folder / "manifest.json")
        for split in SPLITS:
            (folder / split).mkdir()
            with TokenFiles(folder / split, tokenizer, settings.context) as files:
                with progress(f"packed, {split}", shuffled.records[split]) as bar:
                    for batch in _batches(shuffled_examples(paths, split), _characters):
                        files.add(batch)
                        bar.advance(len(batch))
                if split == "train":
                    _check_some(files)
                    if with_raw:
                        _add_raw(files, workspace)
                metas.append(files.finish(split, sha, shuffled.manifest, settings.seed))
    return metas


class TokenFiles:
    """Writes the token files of one split into an empty folder: `add` and `add_raw`, then `finish`."""

    def __init__(self, folder: Path, tokenizer: Tokenizer, context: int) -> None:
        self.folder, self.tokenizer, self.context = folder, tokenizer, context
        self.vocabulary = tokenizer.get_vocab_size()
        self.dtype: Literal["uint16", "uint32"] = "uint16" if self.vocabulary <= 1 << 16 else "uint32"
        self.left_out = {"too_long": LeftOut(), "unanswered": LeftOut()}
        self.raw = RawReport()
        self.raw_documents = self.raw_tokens = self.supervised = self.longest = self.text_bytes = 0
        self._kinds: dict[tuple[str, str], int] = {}
        self._lengths: list[Int32s] = [np.zeros(0, dtype=np.int32)]
        self._types: list[NDArray[np.uint16]] = [np.zeros(0, dtype=np.uint16)]
        self._digest = hashlib.blake2b(digest_size=16)

    def __enter__(self) -> TokenFiles:
        self._open = ExitStack()
        self._tokens = self._open.enter_context(open(self.folder / "tokens.bin", "xb"))
        self._mask = self._open.enter_context(open(self.folder / "mask.bin", "xb"))
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def add(self, records: Sequence[Example | Record]) -> None:
        """Encode `records` and write those that fit the context and have something to train on; count and name the others."""
        ids, mask, lengths = encode_flat(self.tokenizer, records)
        ends = np.cumsum(lengths)
        trained = np.concatenate(([0], np.cumsum(mask, dtype=np.int64)))
        answers = trained[ends] - trained[ends - lengths]
        kept = (lengths <= self.context) & (answers > 0)
        for number in np.flatnonzero(~kept).tolist():
            record = records[number]
            long = lengths[number] > self.context
            why = f"{lengths[number]:,} tokens" if long else "nothing is trained on"
            self.left_out["too_long" if long else "unanswered"].note(f"{record.prompt_type} {record.id}: {why}")
        self.longest = max(self.longest, int(lengths.max(initial=0)))
        chosen = [records[number] for number in np.flatnonzero(kept).tolist()]
        kinds = [self._kind(record.prompt_type, record.family) for record in chosen]
        self.text_bytes += sum(len(_content(message).encode()) for record in chosen for message in record.messages)
        positions = np.repeat(kept, lengths)
        self._write(ids[positions], mask[positions], lengths[kept], np.asarray(kinds, dtype=np.uint16))

    def add_raw(self, documents: Sequence[tuple[str, Encoded]]) -> None:
        """Write raw documents that fit the context (see `trainer.raw`)."""
        kinds = np.full(len(documents), self._kind(RAW_ARTICLE, RAW), dtype=np.uint16)
        lengths = np.asarray([len(ids) for _, (ids, _) in documents], dtype=np.int64)
        ids = np.fromiter(chain.from_iterable(ids for _, (ids, _) in documents), dtype=np.uint32)
        mask = np.fromiter(chain.from_iterable(mask for _, (_, mask) in documents), dtype=np.uint8)
        self.raw_documents += len(documents)
        self.raw_tokens += len(ids)
        self.text_bytes += sum(len(text.encode()) for text, _ in documents)
        self._write(ids, mask, lengths, kinds)

    @property
    def records(self) -> int:
        return sum(map(len, self._lengths))

    def finish(self, split: Split, tokenizer: str, manifest: str, seed: int) -> PackMeta:
        """Write what says where each record lies, and `meta.json`, the last of all."""
        self._open.close()
        lengths = np.concatenate(self._lengths)
        offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
        np.cumsum(lengths, out=offsets[1:])
        _save(self.folder / "records.npy", offsets)
        _save(self.folder / "types.npy", np.concatenate(self._types))
        plain = lengths[permutation(len(lengths), "records", seed, 0)]
        too_long, unanswered = self.left_out["too_long"], self.left_out["unanswered"]
        meta = PackMeta(
            split=split,
            context=self.context,
            dtype=self.dtype,
            vocabulary=self.vocabulary,
            pad_id=special_id(self.tokenizer, ENDOFTEXT),
            tokenizer=tokenizer,
            manifest=manifest,
            seed=seed,
            digest=self._digest.hexdigest(),
            records=len(lengths),
            packs=len(pack_lengths(plain, self.context)[1]) - 1,
            tokens=int(offsets[-1]),
            supervised=self.supervised,
            too_long=too_long.count,
            too_long_records=tuple(too_long.named),
            unanswered=unanswered.count,
            unanswered_records=tuple(unanswered.named),
            longest=self.longest,
            text_bytes=self.text_bytes,
            raw_documents=self.raw_documents,
            raw_tokens=self.raw_tokens,
            types=tuple(name for name, _ in self._kinds),
            families=tuple(family for _, family in self._kinds),
        )
        (self.folder / "meta.json").write_text(meta.model_dump_json(indent=1) + "\n", "utf-8")
        return meta

    def _kind(self, prompt_type: str, family: str) -> int:
        return self._kinds.setdefault((prompt_type, family), len(self._kinds))

    def _write(self, ids: NDArray[Any], mask: NDArray[Any], lengths: Int64s, kinds: NDArray[np.uint16]) -> None:
        for file, data in ((self._tokens, ids.astype(self.dtype).tobytes()), (self._mask, mask.tobytes())):
            file.write(data)
            self._digest.update(data)
        self.supervised += int(mask.sum())
        self._lengths.append(lengths.astype(np.int32))
        self._types.append(kinds)


@dataclass
class LeftOut:
    """Records left out for one reason: how many, and the first of them by name."""

    count: int = 0
    named: list[str] = field(default_factory=list)

    def note(self, name: str) -> None:
        self.count += 1
        if len(self.named) < NAMED:
            self.named.append(name)


def _add_raw(files: TokenFiles, workspace: Workspace) -> None:
    """The corpus' raw text, behind the records. Raises `UsageError` if there is none."""
    with progress("packed, raw text") as bar:
        articles = raw_articles(workspace, files.raw)
        for batch in _batches(
            raw_documents(articles, files.tokenizer, files.context, files.raw), lambda made: len(made[0])
        ):
            files.add_raw(batch)
            bar.advance(len(batch))
    if not files.raw_documents:
        raise UsageError(
            f"there is no raw text to pack: {files.raw.unseen} articles are held out, {files.raw.withdrawn} withdrawn",
            where=str(workspace.root / "corpus"),
            mend="take in articles with `factory ingest`, or leave raw text out",
        )
    told, long = files.raw, files.raw.long_sentences
    say(
        f"raw text: {files.raw_documents:,} documents of {told.articles:,} articles; left out: {told.unseen:,} held out, "
        f"{told.withdrawn:,} withdrawn" + (f", and {long:,} sentences that fit no context" if long else "")
    )


def _check_some(files: TokenFiles) -> None:
    if files.records:
        return
    too_long, unanswered = files.left_out["too_long"].count, files.left_out["unanswered"].count
    if unanswered:
        raise UsageError(
            f"nothing to train on: {unanswered:,} records of the train split have no answer, {too_long:,} are too long",
            where=files.left_out["unanswered"].named[0],
            mend="generate records that supervise an answer, then `trainer shuffle` and `trainer pack`",
        )
    raise UsageError(
        f"all {too_long:,} records of the train split are longer than a context of {files.context} tokens",
        where="train.context in factory.toml",
        mend=f"raise it: the longest has {files.longest:,} tokens",
    )


def _content(message: Message | tuple[str, str]) -> str:
    return message[1] if isinstance(message, tuple) else message.content


def _characters(record: Example) -> int:
    return sum(len(content) for _, content in record.messages)


def _batches(rows: Iterable[T], characters: Callable[[T], int]) -> Iterator[list[T]]:
    """Rows that are taken together: `ENCODED`, or fewer where they are long."""
    batch: list[T] = []
    held = 0
    for row in rows:
        batch.append(row)
        held += characters(row)
        if len(batch) == ENCODED or held >= ENCODED_TEXT:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def _save(path: Path, values: NDArray[Any]) -> None:
    """As `np.save`, which does not say why it failed where the disk is full."""
    buffer = io.BytesIO()
    np.save(buffer, values)
    path.write_bytes(buffer.getbuffer())


class PackedData:
    """One split's records, memory-mapped. `len()` is how many there are; their numbers run from 0."""

    def __init__(self, folder: Path, meta: PackMeta) -> None:
        self.folder, self.meta = folder, meta
        self.tokens = _mapped(folder / "tokens.bin", np.dtype(meta.dtype), meta.tokens)
        self.mask = _mapped(folder / "mask.bin", np.dtype(np.uint8), meta.tokens)
        self.records: Int64s = _loaded(folder / "records.npy", meta.records + 1)
        self.types: NDArray[np.uint16] = _loaded(folder / "types.npy", meta.records)
        if self.records[-1] != meta.tokens:
            raise ValueError(f"records.npy ends at token {self.records[-1]:,}, meta.json says {meta.tokens:,}")

    @classmethod
    def open(cls, folder: Path, *, tokenizer_sha: str | None = None) -> PackedData:
        """Open the packs in `folder`. Raises `UsageError` if they are missing or were made with another tokenizer, `Failure` if torn."""
        named, folder = folder, folder.resolve()  # stay with one generation of the files, whatever is packed meanwhile
        try:
            meta = PackMeta.model_validate_json((folder / "meta.json").read_bytes())
            data = cls(folder, meta)
        except FileNotFoundError as error:
            raise UsageError(
                "there are no packs here", where=str(named), mend="make them with `trainer pack`"
            ) from error
        except ValidationError as error:
            raise _damaged(named, "meta.json is torn, or another version wrote it") from error
        except ValueError as error:
            raise _damaged(named, str(error)) from error
        if tokenizer_sha is not None and tokenizer_sha != meta.tokenizer:
            raise UsageError(
                "the packs were made with another tokenizer", where=str(named), mend="run `trainer pack` again"
            )
        return data

    def __len__(self) -> int:
        return self.meta.records

    def record(self, number: int) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
        """Token ids and mask of one record (views of the mapped files)."""
        start, stop = self.records[number], self.records[number + 1]
        return self.tokens[start:stop], self.mask[start:stop]

    def batch(self, contexts: Sequence[Sequence[int] | Int32s], fill: int = 0) -> Batch:
        """Contexts, given by their records' numbers, laid out for a model (see `trainer.layout`).

        Fewer than `fill` of them are filled up with empty ones, padding only. Raises `IndexError` for a record that is not
        there, `ValueError` if one context's records are too long for it.
        """
        from trainer.layout import make_batch

        laid: list[list[tuple[NDArray[np.generic], NDArray[np.generic]]]] = []
        for numbers in contexts:
            if len(numbers) and not 0 <= min(numbers) <= max(numbers) < self.meta.records:
                raise IndexError(f"records {min(numbers)} to {max(numbers)} of {self.meta.records}")
            laid.append([self.record(number) for number in numbers])
        laid += [[] for _ in range(fill - len(contexts))]
        return make_batch(laid, self.meta.context, self.meta.pad_id)


def _damaged(folder: Path, why: str) -> Failure:
    return Failure(f"the packs are damaged: {why}", where=str(folder), mend="make them again with `trainer pack`")


def _mapped(path: Path, dtype: np.dtype[np.generic], wanted: int) -> NDArray[np.generic]:
    """`wanted` values of a file, memory-mapped. Raises `ValueError` that names it if it holds more or fewer."""
    size = path.stat().st_size
    if size != wanted * dtype.itemsize:
        raise ValueError(f"{path.name} holds {size:,} bytes, meta.json says {wanted * dtype.itemsize:,}")
    if not size:  # an empty file cannot be mapped
        return np.zeros(0, dtype=dtype)
    return np.asarray(np.memmap(path, dtype=dtype, mode="r"))  # as a plain array: slicing a memmap costs 20 times more


def _loaded(path: Path, wanted: int) -> NDArray[Any]:
    try:
        values = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path.name} is torn") from error
    if len(values) != wanted:
        raise ValueError(f"{path.name} has {len(values):,} entries, meta.json says {wanted:,}")
    return values
