"""Shuffling: every record of the committed shards, in an order that leaves no article bunched.

Guarantees: one pass over a pinned manifest; each record goes to one of N files by a seeded hash of its id, then each file
is shuffled in memory. The same manifest and seed give the same bytes; splits lie apart; the folder is replaced as a whole.
A record that could not teach anything (no answer) is left out, counted and named, as are the reader's broken lines.
Cost: memory bounded by one file and 64 MB of buffers; N grows with the data, up to 1,000 files (about 8 MB each until
8 GB of shards); about 30 µs a record, nearly all of it the contract's validation.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import ValidationError

from foundation.console import progress
from foundation.errors import Failure, UsageError
from foundation.ids import seed_of
from foundation.reader import Manifest, ReadReport, pin, read
from foundation.records import Contract, Record, Split
from trainer.paths import SPLITS, TrainPaths, new_folder

if TYPE_CHECKING:
    from foundation.workspace import Workspace

FILES = 1_000  # most files a split is spread over
FILE_BYTES = 8 << 20  # a file's size below that many
BUFFER = 32 << 10  # bytes a file collects before they are appended to it: no file is held open
NAMED = 20  # records left out that are named; the rest are counted


class ShuffleMeta(Contract):
    """What one shuffle did: `meta.json`. `files` is the number of files each split is spread over."""

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


def shuffle(workspace: Workspace, seed: int) -> ShuffleMeta:
    """Make `train/shuffled` from what is committed now.

    Raises `UsageError` if no record of the train split is committed; what was there before then stays.
    """
    paths = TrainPaths.of(workspace)
    manifest = pin(workspace.store)
    files = max(1, min(FILES, -(-sum(entry.size for entry in manifest.shards) // FILE_BYTES)))
    report = ReadReport()
    unanswered: list[str] = []
    counts: dict[str, int] = dict.fromkeys(SPLITS, 0)
    left_out = 0
    with new_folder(paths.shuffled) as folder, progress("shuffled") as bar:
        spread = _Spread(folder, files, seed)
        for record in read(workspace.store, manifest, report):
            if problem := _no_answer(record):
                left_out += 1
                if len(unanswered) < NAMED:
                    unanswered.append(f"shards/{record.prompt_type}/{record.unit}.jsonl: record {record.id}: {problem}")
                continue
            counts[record.split] += 1
            spread.add(record)
            bar.advance()
        if not counts["train"]:
            raise _nothing(manifest, report, counts, left_out)
        spread.finish()
        meta = ShuffleMeta(
            seed=seed,
            manifest=manifest.fingerprint,
            shards=len(manifest.shards),
            files=files,
            records=counts,
            withdrawn=report.withdrawn,
            broken_lines=report.broken_lines,
            broken=tuple(report.broken),
            unanswered=left_out,
            unanswered_records=tuple(unanswered),
        )
        (folder / "manifest.json").write_text(manifest.model_dump_json() + "\n", "utf-8")
        (folder / "meta.json").write_text(meta.model_dump_json(indent=1) + "\n", "utf-8")
    return meta


def shuffle_meta(paths: TrainPaths) -> ShuffleMeta:
    """What the last shuffle did. Raises `UsageError` if there was none."""
    try:
        return ShuffleMeta.model_validate_json(paths.shuffle_meta.read_bytes())
    except FileNotFoundError as error:
        raise UsageError(
            "nothing is shuffled yet", where=str(paths.shuffled), mend="run `trainer shuffle` first"
        ) from error
    except ValidationError as error:
        raise _damaged(paths.shuffle_meta) from error


def shuffled_records(paths: TrainPaths, split: Split) -> Iterator[Record]:
    """A split's records in their shuffled order. Raises `UsageError` before the first shuffle, `Failure` if a file is damaged."""
    meta = shuffle_meta(paths)
    folder = paths.records(split).resolve()  # stay with one generation of the files
    for index in range(meta.files):
        path = folder / _name(index)
        try:
            lines = path.read_bytes().splitlines()
            yield from (Record.model_validate_json(line) for line in lines)
        except (FileNotFoundError, ValidationError) as error:
            raise _damaged(path) from error


def _damaged(path: Path) -> Failure:
    return Failure("the shuffled records are damaged", where=str(path), mend="run `trainer shuffle` again")


def _name(index: int) -> str:
    return f"{index:04d}.jsonl"


class _Spread:
    """Spreads records over files by a seeded hash, appending in large pieces; `finish` shuffles each file."""

    def __init__(self, folder: Path, files: int, seed: int) -> None:
        self.folder, self.files, self.seed = folder, files, seed
        self.buffers: dict[Path, bytearray] = defaultdict(bytearray)
        for split in SPLITS:
            (folder / split).mkdir()
            for index in range(files):
                (folder / split / _name(index)).touch()

    def add(self, record: Record) -> None:
        path = self.folder / record.split / _name(seed_of("shuffle", self.seed, record.id) % self.files)
        buffer = self.buffers[path]
        buffer += record.model_dump_json().encode() + b"\n"
        if len(buffer) >= BUFFER:
            self._flush(path)

    def finish(self) -> None:
        for path in list(self.buffers):
            self._flush(path)
        for split in SPLITS:
            for index in range(self.files):
                path = self.folder / split / _name(index)
                lines = path.read_bytes().splitlines(keepends=True)
                random.Random(seed_of("within", self.seed, split, index)).shuffle(lines)
                path.write_bytes(b"".join(lines))

    def _flush(self, path: Path) -> None:
        with open(path, "ab") as file:
            file.write(self.buffers.pop(path))


def _no_answer(record: Record) -> str:
    """Why this record has nothing to train on; empty if it has."""
    if not record.supervised:
        return "no message is supervised"
    for index in record.supervised:
        if not 0 <= index < len(record.messages):
            return f"there is no message {index} to supervise"
        if not record.messages[index].content.strip():
            return f"the supervised message {index} is empty"
    return ""


def _nothing(manifest: Manifest, report: ReadReport, counts: dict[str, int], unanswered: int) -> UsageError:
    if not manifest.shards:
        return UsageError(
            "there are no records yet: no shard is committed",
            mend="generate some: `factory enqueue`, then `factory work`",
        )
    held_out = counts["phrasing"] + counts["unseen"]
    what = (
        f"no record of the train split: {len(manifest.shards)} shards hold {held_out} held-out records, "
        f"{report.withdrawn} withdrawn, {report.broken_lines} broken lines, {unanswered} without an answer"
    )
    return UsageError(
        what, where=(report.broken or [""])[0], mend="generate more: `factory enqueue`, then `factory work`"
    )
