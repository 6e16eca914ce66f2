"""The whole run in one pass: what came of each prompt type, how varied its texts are, and which come twice.

Guarantees: the figures do not depend on how many processes read: each takes every n-th few shards, what they found is put
together in reading order. A process of its own ends with the one that started it, however that ends. What one cannot go on
with (a record of another version) is raised here. Nothing is written.
Cost: measured by `benchmarks/stats.py`; most of it is the sketches of `generator.near` (27 µs a record) and reading (12 µs).
Memory: 110 bytes a record for the sketches, 16 for what was found, and of each process some 100 MB.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import numpy as np

from foundation.corpus import Corpus
from foundation.errors import FactoryError
from foundation.processes import die_with_parent
from foundation.reader import read
from generator.near import Block, Found, Signatures, sketch, text_of
from generator.report.generation import Committed, Generation, read_units, type_of
from generator.report.places import places, sentences_of
from generator.report.texts import Texts

if TYPE_CHECKING:
    from foundation.store import Store

PART = 8  # shards that are read, sketched and handed over together
PROCESSES = 4  # at most
WORTH = 32  # parts a process must have to be worth its start of half a second
GROUPS = 5  # of duplicates, how many are shown


@dataclass
class Duplicates:
    """Of some records: `exact` have the words of an earlier one, `near` resemble one; `across`: one of another prompt type."""

    records: int = 0
    exact: int = 0
    near: int = 0
    across: int = 0

    @property
    def share(self) -> float | None:
        return (self.exact + self.near) / self.records if self.records else None


@dataclass
class Group:
    """A record that others repeat: `count` with itself, of these `prompt_types`; its text and that of the last of them."""

    count: int
    prompt_types: list[str]
    first: str
    last: str


@dataclass
class Survey:
    """All that `factory stats` tells."""

    generation: Generation = field(default_factory=lambda: Generation(examples=False))
    texts: dict[str, Texts] = field(default_factory=dict)
    duplicates: dict[str, Duplicates] = field(default_factory=dict)
    groups: list[Group] = field(default_factory=list)
    places: dict[str, dict[str, Any]] = field(default_factory=dict)


def survey(
    store: Store,
    wanted: Collection[str] | None = None,
    advance: Callable[[int], None] = lambda _: None,
    processes: int = 0,
) -> Survey:
    """Read every shard, or those of the `wanted` types; `advance` is told of units that were read."""
    committed = Committed.of(store, wanted)
    parts = [committed.shards[at : at + PART] for at in range(0, len(committed.shards), PART)]
    processes = processes or min(len(os.sched_getaffinity(0)), PROCESSES, len(parts) // WORTH)
    result, signatures, counts = Survey(), Signatures(), []
    for found in _read(store, committed, parts, processes):
        if isinstance(found, Survey):
            result.generation.merge(found.generation)
            for id_, texts in found.texts.items():
                result.texts.setdefault(id_, Texts()).merge(texts)
            continue
        counts += found.counts
        signatures.extend(found.block)
        advance(len(found.counts))
    _compare(store, committed, np.array(counts, np.int64), signatures.find(), result)
    samples = {id_: texts.placed.things() for id_, texts in result.texts.items()}
    sentences = sentences_of(Corpus(store), {snippet for sample in samples.values() for snippet, _ in sample})
    result.places = {id_: places(sentences, sample) for id_, sample in samples.items()}
    return result


@dataclass
class _Part:
    """A few shards in reading order: how many records each has, and their sketches."""

    counts: list[int]
    block: Block


def _read(store: Store, committed: Committed, parts: Sequence[list[str]], processes: int) -> Iterator[_Part | Survey]:
    """Every part in order, then what each process counted."""
    if processes < 2:
        yield from _some(store, committed, parts)
        return
    context = multiprocessing.get_context("spawn")  # `rensa` has threads: forking them would hang
    pipes: list[Connection] = []
    children = []
    try:
        for index in range(processes):
            mine, its = context.Pipe(duplex=False)
            arguments = (its, os.getpid(), store, committed, parts[index::processes])
            child = context.Process(target=_child, args=arguments, daemon=True)
            child.start()
            its.close()
            pipes.append(mine)
            children.append(child)
        for index in range(len(parts)):
            yield _received(pipes[index % processes])
        for pipe in pipes:
            yield _received(pipe)
    finally:
        for child in children:
            child.terminate()
            child.join()


def _received(pipe: Connection) -> Any:
    try:
        found = pipe.recv()
    except (EOFError, OSError):  # between two messages, or in the middle of one
        raise FactoryError(
            "a process that was reading died", mend="see whether memory ran out; then run it again"
        ) from None
    if isinstance(found, _Broke):
        raise found.error
    return found


@dataclass
class _Broke:
    """What a process could not go on with. An error of ours takes its parts along: pickling an exception loses them."""

    kind: type[FactoryError] | None
    what: tuple[str, str, str]
    other: Exception | None = None

    @property
    def error(self) -> Exception:
        if self.kind is None:
            return self.other or RuntimeError(*self.what)
        what, where, mend = self.what
        return self.kind(what, where=where, mend=mend)


def _child(pipe: Connection, parent: int, store: Store, committed: Committed, parts: Sequence[list[str]]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's affair: it ends us
    die_with_parent(signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)  # it died before we could ask to die with it
    os.environ["RAYON_NUM_THREADS"] = "1"  # the processes share the cores already
    gc.set_threshold(100_000)  # records are made and dropped by the thousand, and none is in a cycle
    try:
        for found in _some(store, committed, parts):
            pipe.send(found)
    except FactoryError as error:
        pipe.send(_Broke(type(error), (error.what, error.where, error.mend)))
    except MemoryError:
        os._exit(1)  # the parent says what that means
    except Exception as error:
        pipe.send(_Broke(None, (type(error).__name__, str(error), ""), error if isinstance(error, OSError) else None))


def _some(store: Store, committed: Committed, parts: Sequence[list[str]]) -> Iterator[_Part | Survey]:
    """The parts, one by one, and what was counted on the way."""
    result = Survey()
    for shards in parts:
        counts, written, pairs = [], [], []
        for shard, records in read_units(store, committed, shards, result.generation):
            texts = result.texts.setdefault(type_of(shard), Texts())
            for record in records:
                written.append(text_of(record))
                pairs.append(record.pair_id)
                texts.see(record, written[-1])
            counts.append(len(records))
        yield _Part(counts, sketch(written, pairs))
    yield result


def _compare(
    store: Store, committed: Committed, counts: np.ndarray[Any, np.dtype[np.int64]], found: Found, result: Survey
) -> None:
    """Count duplicates by type, and pick the largest groups."""
    types = sorted({type_of(shard) for shard in committed.shards})
    number = {id_: at for at, id_ in enumerate(types)}
    of_shard = np.array([number[type_of(shard)] for shard in committed.shards], np.int32)
    of_record = np.repeat(of_shard, counts)
    again = np.flatnonzero(found.near >= 0)
    across = again[of_record[again] != of_record[found.near[again]]]
    exact = np.flatnonzero(found.exact >= 0)
    sums = [np.bincount(of_record[at], minlength=len(types)).tolist() for at in (slice(None), exact, again, across)]
    for id_, records, same, both, other in zip(types, *sums, strict=True):
        result.duplicates[id_] = Duplicates(records, same, both - same, other)
    leaders, sizes = np.unique(found.near[again], return_counts=True)
    ends = np.cumsum(counts)
    for at in np.argsort(-sizes, kind="stable")[:GROUPS].tolist():
        members = again[found.near[again] == leaders[at]]
        both_ends = [_text_at(store, committed, ends, int(one)) for one in (leaders[at], members[-1])]
        inside = {types[one] for one in of_record[[leaders[at], *members]].tolist()}
        result.groups.append(Group(int(sizes[at]) + 1, sorted(inside), *both_ends))


def _text_at(store: Store, committed: Committed, ends: np.ndarray[Any, np.dtype[np.int64]], index: int) -> str:
    """What the teacher wrote of the record with this number in reading order."""
    shard = int(np.searchsorted(ends, index, side="right"))
    within = index - (int(ends[shard - 1]) if shard else 0)
    for at, record in enumerate(read(store, committed.manifest, names=[committed.shards[shard]])):
        if at == within:
            return text_of(record)
    return ""
