"""What the teacher made: planned items, records and rejects by prompt type, as data.

Guarantees: of several attempts at one unit it counts the rejects of the committed one alone; a call that made two
records is paid for once; what a tombstone withdraws is in no figure.
Cost: one pass over the committed shards and their rejects, about 15 µs a record; memory: one shard, the names of the
files of rejects, and the examples.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING

from pydantic import ValidationError

from foundation.corpus import Corpus
from foundation.errors import Failure
from foundation.reader import REJECTS, SHARDS, ReadReport, committed_rejects, is_withdrawn, read, tombstones
from foundation.records import Record, Reject, Usage
from generator.report.pick import Pick

if TYPE_CHECKING:
    from foundation.store import Store

EXAMPLES = 10


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
    blocks: list[str] = field(default_factory=list)
    reasons: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """Rejects by gate, code and phase; a part of an item that was asked about by itself counts by itself."""
    teacher_put: Counter[int] = field(default_factory=Counter)
    """Where the teacher itself had put the right option, from 1, once a call."""
    stands: Counter[str] = field(default_factory=Counter)
    """Where the right option stands in the records: `right_first`, `right_3`."""

    @property
    def items(self) -> int:
        return self.accepted + self.rejected

    @property
    def accept_rate(self) -> float | None:
        return self.accepted / self.items if self.items else None


@dataclass
class Generation:
    """All prompt types, and what concerns them together. `teachers` counts items."""

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
            for name in ("planned", "units", "accepted", "rejected", "records", "prompt_tokens", "completion_tokens"):
                setattr(total, name, getattr(total, name) + getattr(one, name))
            total.reasons += one.reasons
        return total


def collect_generation(store: Store, advance: Callable[[int], None]) -> Generation:
    """Read the plan, the shards and the rejects; `advance` is told of every committed unit that was read."""
    result = Generation()
    _count_plan(store, result)
    committed = {name.rpartition("/")[2].removesuffix(".jsonl"): name for name in store.list(SHARDS)}
    for name in committed.values():
        result.of(name.removeprefix(f"{SHARDS}/").rpartition("/")[0]).units += 1
    files: dict[str, list[str]] = {}
    for name in store.list(REJECTS):
        unit = name.rpartition("/")[2].partition(".")[0]
        if unit in committed:
            files.setdefault(unit, []).append(name)
    withdrawn: set[tuple[str, str]] = {(stone.kind, stone.value) for stone in tombstones(store)}
    for unit, records in groupby(read(store, report=result.read), key=lambda record: record.unit):
        attempts, accepted = _count_records(records, result)
        files.pop(unit, None)
        lines = committed_rejects(store, committed.get(unit, ""), attempts, list)
        _count_rejects(_read_rejects(lines, result), accepted, withdrawn, result)
        advance(1)
    for unit, names in files.items():  # units without a record: every item was rejected
        lines = committed_rejects(store, committed[unit], set(), partial(list, names))
        _count_rejects(_read_rejects(lines, result), set(), withdrawn, result)
        advance(1)
    return result


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


def _count_records(records: Iterator[Record], result: Generation) -> tuple[set[str], set[str]]:
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
        result.records.offer(record.prompt_type, record.id, record)
    figures.accepted += len(teachers)  # a group is never empty, and a unit is of one prompt type
    figures.prompt_tokens += sum(usage.prompt_tokens for usage in calls.values())
    figures.completion_tokens += sum(usage.completion_tokens for usage in calls.values())
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
        # An entry of a list has its number in its phase ("ask.3"); it is the phase that is counted.
        figures.reasons[reject.gate, reject.code, reject.phase.partition(".")[0]] += 1
        result.rejects.offer(reject.prompt_type, reject.id, reject)
