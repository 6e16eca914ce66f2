"""Packing: records become token files, and contexts of T tokens are filled with whole records.

Guarantees: a record is never split, and is in exactly one context; one longer than T is left out and counted; the same
records, tokenizer and seed give the same bytes. Contexts come in a seeded order, so reading them one by one is fair.
Cost: tokenising, about 0.15 ms a record; then best fit, longest first, in windows of 100,000 records: 0.8 s for a million,
99.8 % full at 1,024 and more above. Memory: some 30 bytes a record. Reading is memory-mapped.

One folder a split: `tokens.bin` (uint16, or uint32 above 65,536 tokens), `mask.bin` (uint8), `records.npy` (int64, n + 1
offsets), `order.npy` (int32, record numbers, context by context), `packs.npy` (int64, p + 1 offsets into `order`), `meta.json`.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from foundation.console import Progress, progress
from foundation.errors import Failure, UsageError
from foundation.ids import seed_of
from foundation.records import Contract, Record, Split
from trainer.chatml import ENDOFTEXT, encode_records, special_id
from trainer.paths import SPLITS, TrainPaths, new_folder
from trainer.presets import recipe
from trainer.shuffle import shuffle_meta, shuffled_records
from trainer.tokenizer import load_tokenizer, tokenizer_sha

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from foundation.workspace import Workspace
    from trainer.layout import Batch

WINDOW = 100_000  # records packed together: more would fill contexts no better and hold more in memory
ENCODED = 1_000  # records tokenised at a time

Int32s = NDArray[np.int32]
Int64s = NDArray[np.int64]


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
    longest: int
    text_bytes: int

    @property
    def efficiency(self) -> float:
        return self.tokens / max(1, self.packs * self.context)

    def figures(self) -> dict[str, object]:
        """The counts and the shares made of them, for people and `--json`."""
        return {
            **self.model_dump(exclude={"v"}),
            "efficiency": round(self.efficiency, 6),
            "records_per_context": round(self.records / max(1, self.packs), 3),
            "supervised_share": round(self.supervised / max(1, self.tokens), 6),
            "tokens_per_record": round(self.tokens / max(1, self.records), 3),
            "bytes_per_token": round(self.text_bytes / max(1, self.tokens), 3),
        }


def pack_lengths(lengths: Sequence[int] | Int64s, context: int, window: int = WINDOW) -> tuple[Int32s, Int64s]:
    """Put records of these lengths (each 1 to `context`) into contexts.

    Returns `order` (n record numbers, context by context) and `packs` (p + 1 offsets into it). Each window of records is
    packed by itself, longest first, each into the fullest context it still fits.
    """
    orders, sizes = [np.zeros(0, dtype=np.int32)], [np.zeros(0, dtype=np.int64)]
    rest = np.asarray(lengths, dtype=np.int64)
    for start in range(0, len(rest), window):
        members = _best_fit(rest[start : start + window], context)
        orders.append(np.fromiter(chain.from_iterable(members), dtype=np.int32) + np.int32(start))
        sizes.append(np.fromiter(map(len, members), dtype=np.int64))
    order, size = np.concatenate(orders), np.concatenate(sizes)
    packs = np.zeros(len(size) + 1, dtype=np.int64)
    np.cumsum(size, out=packs[1:])
    return order, packs


def _best_fit(lengths: Int64s, context: int) -> list[list[int]]:
    """One window. `room` has bit c set while a context with c free positions waits in `waiting[c]`."""
    longest_first = np.argsort(-lengths, kind="stable")
    waiting: list[list[list[int]]] = [[] for _ in range(context + 1)]
    full: list[list[int]] = []
    room = 0
    for member, length in zip(longest_first.tolist(), lengths[longest_first].tolist(), strict=True):
        fitting = room >> length
        if fitting:
            free = length + (fitting & -fitting).bit_length() - 1
            stack = waiting[free]
            members = stack.pop()
            if not stack:
                room ^= 1 << free
            members.append(member)
        else:
            free, members = context, [member]
        free -= length
        if free:
            waiting[free].append(members)
            room |= 1 << free
        else:
            full.append(members)
    return full + [members for stack in waiting for members in stack]


def pack(workspace: Workspace) -> list[PackMeta]:
    """Make `train/packs` from the shuffled records and the tokenizer, one folder a split.

    Raises `UsageError` if either is missing or no record of the train split fits a context; what was there before then stays.
    """
    paths, settings = TrainPaths.of(workspace), recipe(workspace.settings.train)
    shuffled, tokenizer = shuffle_meta(paths), load_tokenizer(paths.tokenizer)
    metas = []
    with new_folder(paths.packs) as folder:
        for split in SPLITS:
            (folder / split).mkdir()
            with progress(f"packed, {split}", shuffled.records[split]) as bar:
                meta = pack_split(
                    shuffled_records(paths, split),
                    folder / split,
                    split=split,
                    tokenizer=tokenizer,
                    tokenizer_sha=tokenizer_sha(paths.tokenizer),
                    manifest=shuffled.manifest,
                    context=settings.context,
                    seed=settings.seed,
                    bar=bar,
                )
            if split == "train" and not meta.records:
                what = f"all {meta.too_long:,} records of the train split are longer than a context of {meta.context} tokens"
                mend = f"raise it: the longest has {meta.longest:,} tokens"
                raise UsageError(what, where="train.context in factory.toml", mend=mend)
            metas.append(meta)
    return metas


def pack_split(
    records: Iterable[Record],
    folder: Path,
    *,
    split: Split,
    tokenizer: Tokenizer,
    tokenizer_sha: str,
    manifest: str,
    context: int,
    seed: int,
    bar: Progress,
) -> PackMeta:
    """Tokenise `records` and write their token files and contexts into the empty `folder`."""
    vocabulary = tokenizer.get_vocab_size()
    dtype: Literal["uint16", "uint32"] = "uint16" if vocabulary <= 1 << 16 else "uint32"
    supervised = too_long = longest = text_bytes = 0
    chunks: list[Int64s] = []
    with open(folder / "tokens.bin", "xb") as tokens, open(folder / "mask.bin", "xb") as masks:
        for batch in _batches(records):
            kept: list[int] = []
            for record, (ids, mask) in zip(batch, encode_records(tokenizer, batch), strict=True):
                longest = max(longest, len(ids))
                if len(ids) > context:
                    too_long += 1
                    continue
                tokens.write(np.asarray(ids, dtype=dtype).tobytes())
                masks.write(bytes(mask))
                kept.append(len(ids))
                supervised += sum(mask)
                text_bytes += sum(len(message.content.encode()) for message in record.messages)
            chunks.append(np.asarray(kept, dtype=np.int64))
            bar.advance(len(batch))
    lengths = np.concatenate(chunks) if chunks else np.zeros(0, dtype=np.int64)
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    order, packs = _shuffled(*pack_lengths(lengths, context), seed=seed_of("packs", seed, split))
    for name, values in (("records", offsets), ("order", order), ("packs", packs)):
        np.save(folder / f"{name}.npy", values)
    meta = PackMeta(
        split=split,
        context=context,
        dtype=dtype,
        vocabulary=vocabulary,
        pad_id=special_id(tokenizer, ENDOFTEXT),
        tokenizer=tokenizer_sha,
        manifest=manifest,
        seed=seed,
        records=len(lengths),
        packs=len(packs) - 1,
        tokens=int(offsets[-1]),
        supervised=supervised,
        too_long=too_long,
        longest=longest,
        text_bytes=text_bytes,
    )
    (folder / "meta.json").write_text(meta.model_dump_json(indent=1) + "\n", "utf-8")
    return meta


def _batches(records: Iterable[Record]) -> Iterator[list[Record]]:
    rest = iter(records)
    while batch := list(islice(rest, ENCODED)):
        yield batch


def _shuffled(order: Int32s, packs: Int64s, seed: int) -> tuple[Int32s, Int64s]:
    """The same contexts in a seeded order: best fit leaves them sorted by the length of their records."""
    turns = list(range(len(packs) - 1))
    random.Random(seed).shuffle(turns)
    sizes = np.diff(packs)[turns]
    parts = [order[packs[turn] : packs[turn + 1]] for turn in turns]
    moved = np.zeros_like(packs)
    np.cumsum(sizes, out=moved[1:])
    return (np.concatenate(parts) if parts else order), moved


class PackedData:
    """One split's contexts, memory-mapped. `len()` is the number of contexts; indices run from 0."""

    def __init__(self, folder: Path, meta: PackMeta) -> None:
        self.folder, self.meta = folder, meta
        self.tokens = _mapped(folder / "tokens.bin", np.dtype(meta.dtype))
        self.mask = _mapped(folder / "mask.bin", np.dtype(np.uint8))
        self.records: Int64s = _loaded(folder / "records.npy")
        self.order: Int32s = _loaded(folder / "order.npy")
        self.packs: Int64s = _loaded(folder / "packs.npy")
        sizes = (len(self.tokens), len(self.mask), len(self.records), len(self.order), len(self.packs), self.packs[-1])
        wanted = (meta.tokens, meta.tokens, meta.records + 1, meta.records, meta.packs + 1, meta.records)
        if sizes != wanted or self.records[-1] != meta.tokens:
            raise ValueError(f"files hold {sizes}, meta.json says {wanted}")

    @classmethod
    def open(cls, folder: Path, *, tokenizer_sha: str | None = None) -> PackedData:
        """Open the packs in `folder`. Raises `UsageError` if they are missing or were made with another tokenizer, `Failure` if torn."""
        folder = folder.resolve()  # stay with one generation of the files, whatever is packed meanwhile
        try:
            meta = PackMeta.model_validate_json((folder / "meta.json").read_bytes())
            data = cls(folder, meta)
        except FileNotFoundError as error:
            raise UsageError(
                "there are no packs here", where=str(folder), mend="make them with `trainer pack`"
            ) from error
        except (ValueError, EOFError) as error:  # pydantic's errors and most of numpy's are ValueErrors
            raise Failure(
                f"the packs are damaged: {error}", where=str(folder), mend="make them again with `trainer pack`"
            ) from error
        if tokenizer_sha is not None and tokenizer_sha != meta.tokenizer:
            raise UsageError(
                "the packs were made with another tokenizer", where=str(folder), mend="run `trainer pack` again"
            )
        return data

    def __len__(self) -> int:
        return self.meta.packs

    def record(self, number: int) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
        """Token ids and mask of one record (views of the mapped files)."""
        start, stop = self.records[number], self.records[number + 1]
        return self.tokens[start:stop], self.mask[start:stop]

    def batch(self, pack_indices: Sequence[int]) -> Batch:
        """The contexts of these numbers, laid out for a model (see `trainer.layout`). Raises `IndexError`."""
        from trainer.layout import make_batch

        contexts = []
        for index in pack_indices:
            if not 0 <= index < len(self):
                raise IndexError(f"pack {index} of {len(self)}")
            contexts.append([self.record(number) for number in self.order[self.packs[index] : self.packs[index + 1]]])
        return make_batch(contexts, self.meta.context, self.meta.pad_id)


def _mapped(path: Path, dtype: np.dtype[np.generic]) -> NDArray[np.generic]:
    if not path.stat().st_size:  # an empty file cannot be mapped
        return np.zeros(0, dtype=dtype)
    return np.asarray(np.memmap(path, dtype=dtype, mode="r"))  # as a plain array: slicing a memmap costs 20 times more


def _loaded(path: Path) -> NDArray[Any]:
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
