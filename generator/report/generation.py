"""What the teacher made: planned items, records and rejects by prompt type, as data.

Guarantees: of several attempts at one unit it counts the rejects of the committed one alone; a call that made two
records is paid for once; what a tombstone withdraws is in no figure.
Cost: one pass over the committed shards and their rejects, about 15 µs a record; memory: one shard, the names of the
files of rejects, and the examples.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from pydantic import ValidationError

from foundation.corpus import Corpus
from foundation.errors import Failure
from foundation.reader import (
    REJECTS,
    SHARDS,
    Manifest,
    ReadReport,
    attempts_of,
    committed_rejects,
    identities,
    is_withdrawn,
    read,
    tombstones,
)
from foundation.records import Record, Reject, Usage
from generator.report.pick import Pick

if TYPE_CHECKING:
    from foundation.store import Store
    from foundation.workspace import Workspace

EXAMPLES = 10
_SUMMED = ("planned", "units", "accepted", "rejected", "records", "prompt_tokens", "completion_tokens", "seconds")


@dataclass
class TypeFigures:
    """One prompt type. Items, but for `records` and `units`; `blocks` are those planned, once for each round."""

    id: str
    planned: int = 0
    units: int = 0
    accepted: int = 0
    rejected: int = 0
    records: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    blocks: list[str] = field(default_factory=list)
    reasons: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """Rejects by gate, code and phase; a part of an item that was asked about by itself counts by itself."""
    teacher_put: Counter[int] = field(default_factory=Counter)
    """Where the teacher itself had put the right option, from 1, once a call."""
    stands: Counter[str] = field(default_factory=Counter)
    """Where the right option stands in the records: `right_first`, `right_3`."""

    def add(self, other: TypeFigures) -> None:
        """Sum up; `blocks` stay."""
        for name in _SUMMED:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.reasons.update(other.reasons)
        self.teacher_put.update(other.teacher_put)
        self.stands.update(other.stands)

    @property
    def items(self) -> int:
        return self.accepted + self.rejected

    @property
    def accept_rate(self) -> float | None:
        return self.accepted / self.items if self.items else None


@dataclass
class Generation:
    """All prompt types, and what concerns them together. `teachers` counts items; `examples`: whether to choose some."""

    examples: bool = True
    types: dict[str, TypeFigures] = field(default_factory=dict)
    teachers: Counter[str] = field(default_factory=Counter)
    read: ReadReport = field(default_factory=ReadReport)
    broken_rejects: int = 0
    records: Pick[Record] = field(default_factory=lambda: Pick(EXAMPLES))
    rejects: Pick[Reject] = field(default_factory=lambda: Pick(EXAMPLES))

    def of(self, prompt_type: str) -> TypeFigures:
        return self.types.setdefault(prompt_type, TypeFigures(prompt_type))

    @property
    def total(self) -> TypeFigures:
        """The sums over all prompt types."""
        total = TypeFigures("all")
        for one in self.types.values():
            total.add(one)
        return total

    def merge(self, other: Generation) -> None:
        """Add what another pass counted of other shards; examples are left out."""
        for id_, one in other.types.items():
            self.of(id_).add(one)
        self.teachers.update(other.teachers)
        self.read.merge(other.read)
        self.broken_rejects += other.broken_rejects


@dataclass
class Committed:
    """What a pass reads, as it was when it was listed: shards in order, their rejects by unit, and the tombstones."""

    shards: list[str]
    rejects: dict[str, list[str]]
    manifest: Manifest

    @classmethod
    def of(cls, store: Store, wanted: Collection[str] | None = None) -> Committed:
        """Everything, or the shards of the `wanted` prompt types alone."""
        shards = [name for name in store.list(SHARDS) if wanted is None or type_of(name) in wanted]
        units = {unit_of(name) for name in shards}
        rejects: dict[str, list[str]] = {}
        for name in store.list(REJECTS):
            unit = name.rpartition("/")[2].partition(".")[0]
            if unit in units:
                rejects.setdefault(unit, []).append(name)
        return cls(shards, rejects, Manifest(shards=(), tombstones=tombstones(store)))


def type_of(shard: str) -> str:
    """The prompt type whose records a shard holds."""
    return shard.removeprefix(f"{SHARDS}/").rpartition("/")[0]


def chosen_types(workspace: Workspace, names: Sequence[str], shards: Iterable[str]) -> set[str] | None:
    """The prompt types that some ids and families stand for: of those with shards, and of the catalogue. None: all.

    Raises `UsageError` for a name that is neither.
    """
    if not names:
        return None
    from generator.catalogue import select

    there = {type_of(shard) for shard in shards}
    found: set[str] = set()
    for name in names:
        committed = {id_ for id_ in there if name in (id_, id_.partition("/")[0])}
        found |= committed or {kind.id for kind in select([name], workspace.prompts)}
    return found


def unit_of(shard: str) -> str:
    return shard.rpartition("/")[2].removesuffix(".jsonl")


def collect_generation(store: Store, advance: Callable[[int], None]) -> Generation:
    """Read the plan, the shards and the rejects; `advance` is told of every committed unit that was read."""
    result = Generation()
    _count_plan(store, result)
    committed = Committed.of(store)
    for _ in read_units(store, committed, committed.shards, result):
        advance(1)
    return result


def read_units(
    store: Store, committed: Committed, shards: Iterable[str], result: Generation
) -> Iterator[tuple[str, list[Record]]]:
    """Count the units of some shards and their rejects in `result`; yields each shard with the records that stand."""
    withdrawn = identities(committed.manifest.tombstones)
    for shard in shards:
        records = list(read(store, committed.manifest, result.read, names=[shard]))
        result.of(type_of(shard)).units += 1
        attempts, accepted = _count_records(records, result) if records else (set(), set())
        # Without a record that stands, every item was rejected, or withdrawn: then the shard still says whose rejects count.
        attempts = attempts or attempts_of(store.get(shard))
        listed = committed.rejects.get(unit_of(shard), [])
        lines = committed_rejects(store, shard, attempts, partial(list, listed))
        _count_rejects(_read_rejects(lines, result), accepted, withdrawn, result)
        yield shard, records


def _count_plan(store: Store, result: Generation) -> None:
    """A block counts once for a prompt type and round, however often it was enqueued."""
    seen: set[tuple[str, int, str]] = set()
    for name in store.list("plan"):
        if not name.endswith(".jsonl"):
            continue
        for number, line in enumerate(store.get(name).splitlines(), 1):
            try:
                row = json.loads(line)
                prompt_type, fingerprint, round_ = row["prompt_type"], row["fingerprint"], row["round"]
                counts = {block: Corpus.count(block) for block in row["blocks"]}
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise Failure(
                    "the plan is damaged", where=f"{name}:{number}", mend="restore plan/ from a copy"
                ) from error
            figures = result.of(prompt_type)
            for block, count in counts.items():
                if (fingerprint, round_, block) not in seen:
                    seen.add((fingerprint, round_, block))
                    figures.planned += count
                    figures.blocks.append(block)


def _count_records(records: Sequence[Record], result: Generation) -> tuple[set[str], set[str]]:
    """Count the records of one unit: the attempts that made them (it is one) and the items they come from."""
    calls: dict[tuple[str, str], Usage] = {}
    teachers: dict[str, str] = {}
    attempts: set[str] = set()
    for record in records:
        figures = result.of(record.prompt_type)
        figures.records += 1
        teachers[record.item] = record.teacher
        attempts.add(record.attempt)
        if record.right_at and (record.item, record.phase) not in calls:
            figures.teacher_put[record.right_at] += 1
        if record.ordering:
            figures.stands[record.ordering] += 1
        calls[record.item, record.phase] = record.usage
        if result.examples:
            result.records.offer(record.prompt_type, record.id, record)
    figures.accepted += len(teachers)  # a group is never empty, and a unit is of one prompt type
    figures.prompt_tokens += sum(usage.prompt_tokens for usage in calls.values())
    figures.completion_tokens += sum(usage.completion_tokens for usage in calls.values())
    figures.seconds += sum(usage.seconds for usage in calls.values())
    result.teachers.update(teachers.values())
    return attempts, set(teachers)


def _read_rejects(lines: list[bytes], result: Generation) -> list[Reject]:
    rejects = []
    for line in lines:
        try:
            rejects.append(Reject.model_validate_json(line))
        except ValidationError:
            result.broken_rejects += 1
    return rejects


def _count_rejects(
    rejects: list[Reject], accepted: set[str], withdrawn: set[tuple[str, str]], result: Generation
) -> None:
    seen: set[str] = set()
    for reject in rejects:
        if withdrawn and is_withdrawn(reject, withdrawn):
            continue
        figures = result.of(reject.prompt_type)
        if reject.item not in seen and reject.item not in accepted:
            seen.add(reject.item)
            figures.rejected += 1
            result.teachers[reject.teacher] += 1
        figures.prompt_tokens += reject.usage.prompt_tokens
        figures.completion_tokens += reject.usage.completion_tokens
        figures.seconds += reject.usage.seconds
        # An entry of a list has its number in its phase ("ask.3"); it is the phase that is counted.
        figures.reasons[reject.gate, reject.code, reject.phase.partition(".")[0]] += 1
        if result.examples:
            result.rejects.offer(reject.prompt_type, reject.id, reject)
