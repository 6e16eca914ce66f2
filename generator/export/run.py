"""`factory export`: accepted records, through the one reader, as a dataset to hand on.

Guarantees: what is exported is what one pinned manifest names, to the byte, so generation may go on meanwhile; the folder
appears whole or not at all; the same manifest gives the same bytes, also on another machine (with the same pyarrow).
Memory: 125 bytes a record while duplicates are looked for, 200 bytes an article, 1 KB a shard, one row group a split; 160 MB in
all for 300,000 records as JSON lines, 265 MB as Parquet.
Cost: the shards are read three times (checksums, figures and duplicates, writing): some 90 µs a record on one core as JSON
lines, 105 as Parquet, 30 less where duplicates are not looked for (`benchmarks/export.py`); and the log of articles twice.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from foundation.console import progress, say
from foundation.errors import Failure, UsageError
from foundation.parse import parse
from foundation.prompt_type import PromptType
from foundation.reader import Manifest, ReadReport, pin, read
from foundation.records import SplitPolicy
from generator.export.card import Exported, card, document, license_text
from generator.export.formats import (
    FOLDER,
    SHRINKS,
    SINKS,
    Format,
    HashedFile,
    Nothing,
    SplitFiles,
    Written,
    need_arrow,
)
from generator.export.marks import Marks, Mode, find_marks
from generator.export.place import check_free, check_outside, check_room, new_folder
from generator.export.tally import SPLITS, Origins, Tally
from generator.report.generation import Committed, Generation, chosen_types, read_units, type_of

if TYPE_CHECKING:
    from foundation.records import Record, Split
    from foundation.store import Store
    from foundation.workspace import Workspace

SPARE = 16 * 2**20  # bytes beside the rows: card, lists, what the file system wants
SPLIT = "plan/split.json"


@dataclass(frozen=True)
class Options:
    """What to export. Without `prompt_types` or `splits`: all."""

    format: Format = "jsonl"
    prompt_types: Sequence[str] = ()
    duplicates: Mode = "mark"
    splits: Sequence[Split] = ()
    dry_run: bool = False


class PinnedStore:
    """A store that gives each shard as a manifest names it, or a `Failure`; what is no shard passes through."""

    def __init__(self, store: Store, manifest: Manifest) -> None:
        self._store = store
        self._sums = {entry.name: entry.sha256 for entry in manifest.shards}

    def get(self, name: str) -> bytes:
        expected = self._sums.get(name)
        if expected is None:
            return self._store.get(name)
        try:
            data = self._store.get(name)
        except FileNotFoundError as error:
            raise self._changed("went away", name) from error
        if hashlib.sha256(data).hexdigest() != expected:
            raise self._changed("was changed", name)
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    @staticmethod
    def _changed(what: str, name: str) -> Failure:
        return Failure(
            f"a shard {what} while it was exported; the export was given up, and nothing of it is left",
            where=name,
            mend="see who edits or moves shards (the factory never does), then give the same command again",
        )


class _Watched(list[str]):
    """Names that tell when the next one is taken."""

    def __init__(self, names: Iterable[str], advance: Callable[[int], None]) -> None:
        super().__init__(names)
        self._advance = advance

    def __iter__(self) -> Iterator[str]:
        for name in super().__iter__():
            yield name
            self._advance(1)


class _Export:
    """One export: what was chosen, and the passes over it."""

    def __init__(self, workspace: Workspace, options: Options) -> None:
        self.workspace, self.options = workspace, options
        self.manifest = pin(workspace.store)
        self.store: Any = PinnedStore(workspace.store, self.manifest)
        self.chosen = chosen_types(workspace, options.prompt_types, (entry.name for entry in self.manifest.shards))
        sizes = {
            entry.name: entry.size
            for entry in self.manifest.shards
            if self.chosen is None or type_of(entry.name) in self.chosen
        }
        self.names, self.size = list(sizes), sum(sizes.values())
        self.generation, self.articles = Generation(examples=False), set[str]()

    @property
    def report(self) -> ReadReport:
        """What the first pass left out."""
        return self.generation.read

    def compare(self) -> Marks:
        """The first pass: figures, duplicates, and which articles there are."""
        committed = replace(Committed.of(self.store, self.chosen), shards=self.names, manifest=self.manifest)

        def records(names: Iterable[str]) -> Iterator[Record]:
            for _, found in read_units(self.store, committed, names, self.generation):
                yield from found

        def noted(found: Iterator[Record]) -> Iterator[Record]:
            for record in found:
                self.articles.update((record.article_id, record.partner_article_id))
                yield record

        label = "shards read" if self.options.duplicates == "keep" else "shards searched for duplicates"
        with progress(label, len(self.names)) as bar:
            found = records(_Watched(self.names, bar.advance))
            marks = find_marks(noted(self.chosen_of(found)), self.options.duplicates)
        self.articles.discard("")
        return marks

    def chosen_of(self, found: Iterator[Record]) -> Iterator[Record]:
        """Those of the splits asked for."""
        splits = set(self.options.splits)
        return (record for record in found if not splits or record.split in splits)

    def write(self, folder: Path, marks: Marks, origins: Origins) -> tuple[Tally, list[Written]]:
        """The second pass: rows into files of their split. In a dry run nothing is written."""
        tally, form = Tally(), self.options.format
        sink = Nothing if self.options.dry_run else SINKS[form]
        files = {split: SplitFiles(folder, split, form, sink) for split in SPLITS}
        label = "shards counted" if self.options.dry_run else "shards exported"
        try:
            with progress(label, len(self.names)) as bar:
                found = read(self.store, self.manifest, names=_Watched(self.names, bar.advance))
                for number, record in enumerate(self.chosen_of(found)):
                    mark = marks.of(number, record)
                    if mark is not None:
                        row = origins.row(record, *mark)
                        tally.add(record, row)
                        files[record.split].add(row)
            return tally, [one for split in SPLITS for one in files[split].close()]
        except BaseException:
            for one in files.values():
                one.abandon()
            raise

    def kinds(self) -> dict[str, PromptType]:
        """The prompt types as they were planned, by fingerprint."""
        found = (parse(PromptType, self.store.get(name), name) for name in self.store.list("prompt_types"))
        return {kind.fingerprint: kind for kind in found}

    def policy(self) -> SplitPolicy:
        try:
            return parse(SplitPolicy, self.store.get(SPLIT), SPLIT)
        except FileNotFoundError:
            return SplitPolicy(**self.workspace.settings.split.model_dump())


def export(workspace: Workspace, out: Path, options: Options) -> dict[str, Any]:
    """Export into the new folder `out`; what was exported, as `manifest.json` says it. Raises `UsageError` and `Failure`."""
    out = Path(os.path.abspath(out))
    check_free(out)
    check_outside(out, workspace.root)
    if options.format != "jsonl":
        need_arrow()
    one = _Export(workspace, options)
    marks = one.compare()
    _tell_broken(one.report)
    if not marks.count:
        raise UsageError(
            "there is no record to export",
            where=str(workspace.root),
            mend="`factory stats` shows what there is; or choose other prompt types or splits",
        )
    origins = Origins(one.store, one.articles)
    share = marks.count / max(1, one.report.read + one.report.withdrawn)
    share *= 1 - marks.dropped_count / marks.count
    needed = int(one.size * share * SHRINKS[options.format]) + SPARE
    if options.dry_run:
        result = _result(one, marks, origins, *one.write(out, marks, origins))
        found = document(result)
        found["files"] = [{"name": file.name, "records": file.rows} for file in result.files]
        return found | {"estimated_bytes": needed}
    check_room(out, needed)
    with new_folder(out) as folder:
        (folder / FOLDER[options.format]).mkdir(exist_ok=True)
        result = _result(one, marks, origins, *one.write(folder, marks, origins))
        _write_words(folder, result)
    _tell_licenses(result)
    return document(result)


def _result(one: _Export, marks: Marks, origins: Origins, tally: Tally, files: list[Written]) -> Exported:
    fingerprints = {fingerprint for _, fingerprint in tally.versions}
    return Exported(
        format=one.options.format,
        prompt_types=sorted(one.chosen) if one.chosen is not None else None,
        splits=[split for split in SPLITS if split in one.options.splits] or None,
        manifest=one.manifest.fingerprint,
        shards=len(one.names),
        read=one.report,
        tombstones=Counter(stone.kind for stone in one.manifest.tombstones),
        marks=marks,
        tally=tally,
        origins=origins,
        generation=one.generation,
        kinds={key: kind for key, kind in one.kinds().items() if key in fingerprints},
        policy=one.policy(),
        files=files,
    )


def _write_words(folder: Path, result: Exported) -> None:
    """Card, licences, sources, figures and checksums."""
    texts: list[tuple[str, Iterable[bytes]]] = [
        ("sources.jsonl", result.origins.lines(result.tally.articles)),
        ("LICENSE.md", [license_text(result).encode()]),
        ("README.md", [card(result).encode()]),
        ("manifest.json", [orjson.dumps(document(result), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)]),
    ]
    written = [*result.files, *(_write(folder, name, parts) for name, parts in texts)]
    sums = "".join(f"{file.sha256}  {file.name}\n" for file in sorted(written, key=lambda file: file.name))
    _write(folder, "SHA256SUMS", [sums.encode()])


def _write(folder: Path, name: str, parts: Iterable[bytes]) -> Written:
    file = HashedFile(folder / name, name)
    try:
        for part in parts:
            file.write(part)
        file.close()
    except BaseException:
        file.abandon()
        raise
    return file.written


def _tell_broken(report: ReadReport) -> None:
    if report.broken_lines:
        say(f"{report.broken_lines:,} broken lines are left out; the first:")
        for line in report.broken[:5]:
            say(f"  {line}")


def _tell_licenses(result: Exported) -> None:
    silent = result.tally.unlicensed
    if silent:
        sources = sorted({source for source, name, *_ in result.origins.by_source(result.tally.articles) if not name})
        say(
            f"warning: for {silent:,} records no licence was stated when their articles were ingested "
            f"(source {', '.join(sources)}); say it in the articles' front matter, or ask before you hand them on"
        )
