"""Shuffling: every record of the committed shards, in an order that leaves no article bunched.

Guarantees: what is read is what the manifest beside the records says, to the byte: checksums are made while reading, and a
shard that goes away or changes meanwhile is a `Failure` that names it. The same shards, seed and share give the same bytes,
whatever the memory and the number of processes; splits lie apart; the folder is replaced as a whole. A record that could not
teach anything (no answer) is left out, counted and named, as are the reader's broken lines. A share is taken by keyed hash of
the record's id, or its pair's: of one key a larger share holds a smaller one; held-out splits are not thinned.
Cost: two passes over the bytes (`trainer.spread`), by as many processes as pay; memory: `memory`, and 1 KB a shard.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec
from pydantic import Field, ValidationError

from foundation.console import Progress, progress
from foundation.errors import Failure, UsageError
from foundation.reader import Manifest, identities, listed, tombstones
from foundation.records import Contract, Record, Split
from trainer.forked import MOST, in_order
from trainer.paths import SPLITS, TrainPaths, new_folder
from trainer.spread import Gathered, Order, Part, Spread, file_name

if TYPE_CHECKING:
    from foundation.workspace import Workspace

FILES = 1_000  # most files a split is spread over
FILE_BYTES = 6 << 20  # a file's size below that many
TASK = 4 << 20  # bytes of shards that are read and reported together
OWN = 48 << 20  # bytes that Python and its libraries take, and
FORKED = 8 << 20  # what they take once more in each process
LEAST = 64 << 20  # memory that any shuffle needs
WORTH = 16 << 20  # bytes that a process must have to do
MEMORY = 256 << 20


class ShuffleMeta(Contract):
    """What one shuffle did: `meta.json`. `files` is the number of files each split is spread over, `sizes` their bytes (an empty one is not there).

    `not_shared` records of the train split were left out by `share`; `records` are those that stand.
    """

    v: Literal[1] = 1
    seed: int
    manifest: str
    shards: int
    files: int
    records: dict[str, int]
    withdrawn: int
    broken_lines: int
    broken: tuple[str, ...] = ()
    unanswered: int
    unanswered_records: tuple[str, ...] = ()
    share: float = 1.0
    share_key: str = ""
    not_shared: int = 0
    sizes: dict[str, tuple[int, ...]] = Field(default_factory=dict)


def shuffle(
    workspace: Workspace,
    seed: int,
    *,
    share: float = 1.0,
    share_key: str = "share",
    memory: int = MEMORY,
    processes: int = 0,
) -> ShuffleMeta:
    """Make `train/shuffled` from what is committed now, within `memory` bytes; `processes`: 0 for as many as pay.

    Raises `UsageError` if no record of the train split is committed, or for too little memory; what was there before stays.
    """
    if memory < LEAST:
        raise UsageError(
            f"{memory >> 20} MB are too little to shuffle in", where="--memory", mend=f"allow {LEAST >> 20}M or more"
        )
    paths, dead, shards = TrainPaths.of(workspace), tombstones(workspace.store), listed(workspace.store)
    total = sum(size for _, size in shards)
    tasks = _tasks(shards, total)
    spare = memory - OWN
    processes = processes or max(1, min(len(os.sched_getaffinity(0)), total // WORTH, spare // (3 * FORKED)))
    with new_folder(paths.shuffled) as folder:
        part = Part(
            store=workspace.store,
            shards=shards,
            tasks=tasks,
            withdrawn=identities(dead),
            folder=folder,
            files=max(1, min(FILES, -(-total // FILE_BYTES))),
            seed=seed,
            share=share,
            share_key=share_key,
            most=(spare - processes * FORKED) // processes if processes > 1 else spare,
        )
        found = _spread(part, total, processes)
        if not found.records["train"]:
            raise _nothing(len(shards), found)
        sizes = _order(part, sum(found.records.values()), processes)
        manifest = Manifest(shards=tuple(found.entries), tombstones=dead)
        meta = ShuffleMeta(
            seed=seed,
            manifest=manifest.fingerprint,
            shards=len(shards),
            files=part.files,
            records=found.records,
            withdrawn=found.report.withdrawn,
            broken_lines=found.report.broken_lines,
            broken=tuple(found.report.broken),
            unanswered=found.unanswered,
            unanswered_records=tuple(found.unanswered_records),
            share=share,
            share_key=share_key,
            not_shared=found.not_shared,
            sizes={split: tuple(sizes[at * part.files :][: part.files]) for at, split in enumerate(SPLITS)},
        )
        (folder / "manifest.json").write_text(manifest.model_dump_json() + "\n", "utf-8")
        (folder / "meta.json").write_text(meta.model_dump_json(indent=1) + "\n", "utf-8")
    return meta


def _tasks(shards: list[tuple[str, int]], total: int) -> list[range]:
    """Shards that are read together: some `TASK` bytes, or more where that were too many tasks."""
    tasks, begin, held = [], 0, 0
    for at, (_, size) in enumerate(shards, 1):
        held += size
        if (
            held >= max(TASK, 3 * total // MOST, 1)
            or at == len(shards)
            or at - begin >= max(3 * len(shards) // MOST, 256)
        ):
            tasks.append(range(begin, at))
            begin, held = at, 0
    return tasks


def _spread(part: Part, total: int, processes: int) -> Gathered:
    found = Gathered()
    with progress("records read, MB", _mega(total)) as bar:
        rate = _Rate(bar)
        for one in in_order(len(part.tasks), partial(Spread, part), processes):
            found.merge(one)
            rate.advance(sum(entry.size for entry in one.entries), f"{sum(found.records.values()):,} records")
    return found


def _order(part: Part, records: int, processes: int) -> list[int]:
    """Bytes of every file, split by split."""
    for split in SPLITS:
        (part.folder / split).mkdir()
    spread, sizes = list(part.folder.glob(".spread-*")), []
    total = sum(file.stat().st_size for folder in spread for file in folder.iterdir()) - 8 * records  # without places
    with progress("records shuffled, MB", _mega(total)) as bar:
        rate = _Rate(bar)
        for size in in_order(len(SPLITS) * part.files, partial(Order, part), processes):
            sizes.append(size)
            rate.advance(size, f"{records:,} records")
    for folder in spread:
        folder.rmdir()  # each file in it is gone since it was read
    return sizes


def _mega(size: int) -> int:
    return round(size / 1e6)


class _Rate:
    """Bytes, shown on a bar as MB, and how many a second."""

    def __init__(self, bar: Progress) -> None:
        self.bar, self.done, self.begun = bar, 0, time.monotonic()

    def advance(self, size: int, note: str) -> None:
        before, self.done = self.done, self.done + size
        rate = self.done / max(time.monotonic() - self.begun, 1e-3) / 1e6
        self.bar.advance(_mega(self.done) - _mega(before), f"{note}, {rate:,.0f} MB/s")


def shuffle_meta(paths: TrainPaths) -> ShuffleMeta:
    """What the last shuffle did. Raises `UsageError` if there was none."""
    try:
        return ShuffleMeta.model_validate_json(paths.shuffle_meta.read_bytes())
    except FileNotFoundError as error:
        raise UsageError(
            "nothing is shuffled yet", where=str(paths.shuffled), mend="run `trainer shuffle` first"
        ) from error
    except ValidationError as error:
        raise damaged(paths.shuffle_meta) from error


def shuffled_records(paths: TrainPaths, split: Split) -> Iterator[Record]:
    """A split's records in their shuffled order. Raises `UsageError` before the first shuffle, `Failure` if a file is damaged."""
    for path, line in shuffled_lines(paths, split):
        try:
            yield Record.model_validate_json(line)
        except ValidationError as error:
            raise damaged(path) from error


class Example(NamedTuple):
    """What of a record is trained on: (role, content) of each message, and which messages are supervised."""

    id: str
    prompt_type: str
    family: str
    pair_id: str
    messages: tuple[tuple[str, str], ...]
    supervised: tuple[int, ...]


class _Turn(msgspec.Struct, gc=False):
    role: str
    content: str


class _Light(msgspec.Struct, gc=False):
    """Of a record, the fields of an `Example`; the others are passed over."""

    id: str
    prompt_type: str
    family: str
    messages: list[_Turn]
    supervised: tuple[int, ...]
    pair_id: str = ""


def shuffled_examples(paths: TrainPaths, split: Split) -> Iterator[Example]:
    """As `shuffled_records`, with the little that training needs, in a third of the time (3 µs). Raises the same."""
    decode = msgspec.json.Decoder(_Light).decode
    for path, line in shuffled_lines(paths, split):
        row: _Light | Record
        try:
            row = decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            try:
                row = Record.model_validate_json(line)  # which takes `"supervised": ["1"]` too
            except ValidationError as error:
                raise damaged(path) from error
        messages = tuple([(turn.role, turn.content) for turn in row.messages])
        yield Example(row.id, row.prompt_type, row.family, row.pair_id, messages, row.supervised)


def shuffled_lines(paths: TrainPaths, split: Split) -> Iterator[tuple[Path, bytes]]:
    """Each line with the file it stands in. Raises `Failure` if a file is not as long as it was made."""
    meta = shuffle_meta(paths)
    folder = paths.records(split).resolve()  # stay with one generation of the files
    sizes = meta.sizes.get(split)
    for index in range(meta.files):
        if sizes is not None and not sizes[index]:
            continue
        path = folder / file_name(index)
        try:
            if sizes is not None and path.stat().st_size != sizes[index]:
                raise damaged(path)
            with open(path, "rb") as file:
                for line in file:
                    yield path, line
        except FileNotFoundError as error:
            if paths.records(split).resolve() != folder:
                raise Failure(
                    "the records were shuffled anew while they were read",
                    where=str(paths.shuffled),
                    mend="give the same command again",
                ) from error
            raise damaged(path) from error


def damaged(path: Path) -> Failure:
    return Failure("the shuffled records are damaged", where=str(path), mend="run `trainer shuffle` again")


def _nothing(shards: int, found: Gathered) -> UsageError:
    if not shards:
        return UsageError(
            "there are no records yet: no shard is committed",
            mend="generate some: `factory enqueue`, then `factory work`",
        )
    report, held_out = found.report, found.records["phrasing"] + found.records["unseen"]
    what = (
        f"no record of the train split: {shards} shards hold {held_out} held-out records, "
        f"{report.withdrawn} withdrawn, {report.broken_lines} broken lines, {found.unanswered} without an answer"
    )
    if found.not_shared:
        what += f", {found.not_shared} outside the share"
    mend = "take a larger share" if found.not_shared else "generate more: `factory enqueue`, then `factory work`"
    return UsageError(what, where=(report.broken or [""])[0], mend=mend)
