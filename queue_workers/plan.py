"""The plan: what was asked for, as append-only files; units are derived from it and never stored.

Guarantees: a block is planned once for a prompt type's fingerprint and round, however often it is enqueued; the prompt
type itself and the split policy are fixed in the store with the first unit planned, so a later edit changes nothing that
was planned. A plan file is put whole or not at all, and before anything is queued: what a crash left unqueued,
`reconcile` queues. Taking something out is one more line, so the files also tell what was ever asked for.
Cost: loading takes about 30 µs a plan file and 0.3 µs a block; deriving a unit takes about 6 µs.

What is counted: a unit's items are its snippets that no tombstone names when the unit runs. Text retired before that
yields no item, neither accepted nor rejected; the unit is done all the same.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

from foundation.corpus import Corpus, jsonl
from foundation.errors import UsageError
from foundation.ids import stable_id
from foundation.parse import parse
from foundation.prompt_type import PromptType
from foundation.records import Contract, SplitPolicy, Unit
from queue_workers.partners import put_partners
from queue_workers.protocol import Priority

if TYPE_CHECKING:
    from foundation.store import Store
    from foundation.tables import SplitSettings
    from queue_workers.controls import Controls

FOLDER = "plan"
SPLIT = f"{FOLDER}/split.json"
QUEUE = f"{FOLDER}/queue"
_count = lru_cache(maxsize=1 << 16)(Corpus.count)  # a block is in the plan of every prompt type and round


class PlanLine(Contract):
    """One prompt type over some blocks. `unit` is in snippets.

    `partners` names the set of second snippets chosen for it, where its type asks for them (`queue_workers/partners.py`).

    With `cancel` it takes those blocks out again, but for the units in `kept`, which were committed; and it keeps
    `factory run` from planning that fingerprint until it is enqueued again.
    """

    prompt_type: str
    fingerprint: str
    unit: int
    round: int = 0
    priority: Priority = "normal"
    blocks: tuple[str, ...]
    cancel: bool = False
    kept: tuple[str, ...] = ()
    partners: str = ""

    @property
    def key(self) -> tuple[str, int]:
        """What a block is planned once for."""
        return self.fingerprint, self.round

    @property
    def size(self) -> int:
        """How many units it holds; derives none of them."""
        return len(self.kept) if self.cancel else sum(-(-_count(block) // self.unit) for block in self.blocks)

    @property
    def items(self) -> int:
        """How many snippets its units hold."""
        if self.cancel:
            return sum(unit.stop - unit.start for unit in self.units())
        return sum(map(_count, self.blocks))

    def units(self) -> Iterator[Unit]:
        """Consecutive runs of `unit` snippets within each block; of a line with `cancel`, those that are kept."""
        kept = frozenset(self.kept)
        for block in self.blocks:
            count = _count(block)
            for start in range(0, count, self.unit):
                stop = min(start + self.unit, count)
                id_ = Unit.make_id(block, start, stop, self.fingerprint, self.round)
                if not self.cancel or id_ in kept:
                    yield Unit.model_construct(  # of values that were checked when the plan was read
                        v=1,
                        id=id_,
                        block=block,
                        start=start,
                        stop=stop,
                        prompt_type=self.prompt_type,
                        fingerprint=self.fingerprint,
                        round=self.round,
                        partners=self.partners,
                    )


_Blocks = Mapping[tuple[str, int], Mapping[str, PlanLine]]  # by key, then by block: the line it was planned with


@dataclass(frozen=True)
class Plan:
    """Lines in the order they were planned; no block stands twice for one fingerprint and round.

    A line with `cancel` holds what is kept of cancelled blocks. `cancelled` are the blocks that were taken out and not
    enqueued again; `stopped` the fingerprints whose last line is a cancel: only a person plans those again.
    """

    lines: tuple[PlanLine, ...] = ()
    cancelled: _Blocks = field(default_factory=dict)
    stopped: frozenset[str] = frozenset()

    @cached_property
    def size(self) -> int:
        """How many units it holds; derives none of them."""
        return sum(line.size for line in self.lines)

    @property
    def items(self) -> int:
        """How many snippets its units hold."""
        return sum(line.items for line in self.lines)

    @cached_property
    def planned(self) -> _Blocks:
        """The blocks that are planned whole."""
        found: dict[tuple[str, int], dict[str, PlanLine]] = {}
        for line in self.lines:
            if not line.cancel:
                found.setdefault(line.key, {}).update(dict.fromkeys(line.blocks, line))
        return found

    def units(self, priority: Priority | None = None) -> Iterator[Unit]:
        """The units of one priority, or all, in order."""
        for line in self.lines:
            if priority in (None, line.priority):
                yield from line.units()

    def without_planned(self, line: PlanLine) -> PlanLine:
        """`line` without the blocks that are planned already."""
        planned = self.planned.get(line.key, {})
        return line.model_copy(update={"blocks": tuple(block for block in line.blocks if block not in planned)})

    def under(self, controls: Controls) -> Plan:
        """What of it may run now, at the priorities that hold now."""
        return replace(
            self,
            lines=tuple(
                line.model_copy(update={"priority": controls.priorities.get(line.prompt_type, line.priority)})
                for line in self.lines
                if line.prompt_type not in controls.paused_types
            ),
        )


def load_plan(store: Store) -> Plan:
    """Everything planned so far, in order; empty if nothing is."""
    folding = _Folding()
    for name in store.list(FOLDER):
        if name.endswith(".jsonl"):
            for row in store.get(name).splitlines():
                folding.add(parse(PlanLine, row, name))
    return folding.plan()


class _Folding:
    """Lines as they were written, made one plan. Two machines that planned at once may name the same block: the first counts."""

    def __init__(self) -> None:
        self.lines: list[PlanLine] = []
        self.planned: dict[tuple[str, int], dict[str, int]] = {}  # by block: where in `lines` it stands
        self.cancelled: dict[tuple[str, int], dict[str, PlanLine]] = {}
        self.kept: dict[tuple[str, int], dict[str, set[str]]] = {}
        self.stopped: set[str] = set()

    def add(self, line: PlanLine) -> None:
        if line.cancel:
            self._cancel(line)
            return
        planned = self.planned.setdefault(line.key, {})
        blocks = tuple(block for block in line.blocks if block not in planned)
        planned.update(dict.fromkeys(blocks, len(self.lines)))
        self.lines.append(line if len(blocks) == len(line.blocks) else line.model_copy(update={"blocks": blocks}))
        self.stopped.discard(line.fingerprint)
        cancelled = self.cancelled.get(line.key)
        if cancelled:
            for block in blocks:
                if cancelled.pop(block, None):
                    self.kept.get(line.key, {}).pop(block, None)

    def _cancel(self, line: PlanLine) -> None:
        self.stopped.add(line.fingerprint)
        planned = self.planned.get(line.key, {})
        cancelled = self.cancelled.setdefault(line.key, {})
        out = {block: planned.pop(block) for block in line.blocks if block in planned}
        for index in set(out.values()):
            before = self.lines[index]
            cancelled.update((block, before) for block in before.blocks if block in out)
            left = tuple(block for block in before.blocks if block not in out)
            self.lines[index] = before.model_copy(update={"blocks": left})
        if line.kept:
            kept = self.kept.setdefault(line.key, {})
            for block in line.blocks:
                if block in cancelled:
                    part = cancelled[block].model_copy(update={"blocks": (block,), "cancel": True, "kept": line.kept})
                    kept.setdefault(block, set()).update(unit.id for unit in part.units())

    def plan(self) -> Plan:
        """What stands after all lines."""
        lines = [line for line in self.lines if line.blocks]
        for key, blocks in self.kept.items():
            for block, kept in blocks.items():
                if kept:
                    update = {"blocks": (block,), "cancel": True, "kept": tuple(sorted(kept))}
                    lines.append(self.cancelled[key][block].model_copy(update=update))
        return Plan(
            tuple(lines), {key: blocks for key, blocks in self.cancelled.items() if blocks}, frozenset(self.stopped)
        )


def same_version(store: Store, prompt_types: Iterable[PromptType]) -> list[str]:
    """Ids of those whose very version was planned before with another text: records of two texts would bear one number."""
    versions: dict[tuple[str, int], set[str]] = {}
    for name in store.list("prompt_types"):
        if name.endswith(".json"):
            known = parse(PromptType, store.get(name), name)
            versions.setdefault((known.id, known.version), set()).add(name)
    return [one.id for one in prompt_types if versions.get((one.id, one.version), set()) - {one.file}]


def load_prompt_type(store: Store, fingerprint: str) -> PromptType:
    """The prompt type as it was planned. Raises FileNotFoundError."""
    name = f"prompt_types/{fingerprint}.json"
    return parse(PromptType, store.get(name), name)


def first_blocks(store: Store, limit: int | None) -> tuple[str, ...]:
    """The first blocks that hold at least `limit` snippets, or all. Raises `UsageError` if the corpus is empty."""
    chosen, snippets = [], 0
    for block in Corpus(store).blocks():
        if limit is not None and snippets >= limit:
            break
        chosen.append(block)
        snippets += Corpus.count(block)
    if not chosen:
        raise UsageError("there is nothing to enqueue: the corpus is empty", mend="`factory ingest PATH...` first")
    return tuple(chosen)


def draft(
    plan: Plan, prompt_types: Sequence[PromptType], blocks: Sequence[str], *, round_: int, priority: Priority
) -> Plan:
    """What these prompt types over these blocks would add to `plan`; nothing is written."""
    lines: list[PlanLine] = []
    for prompt_type in prompt_types:
        cancelled = plan.cancelled.get((prompt_type.fingerprint, round_), {})
        by_unit: dict[int, list[str]] = {}
        for block in blocks:
            # What was cancelled half-way is cut again as it was, or the units that are committed would be done twice.
            unit = cancelled[block].unit if block in cancelled else prompt_type.unit
            by_unit.setdefault(unit, []).append(block)
        lines += (
            PlanLine(
                prompt_type=prompt_type.id,
                fingerprint=prompt_type.fingerprint,
                unit=unit,
                round=round_,
                priority=priority,
                blocks=tuple(chosen),
            )
            for unit, chosen in by_unit.items()
        )
    return Plan(tuple(line for line in map(plan.without_planned, lines) if line.blocks))


def draft_back(
    plan: Plan, prompt_types: Sequence[PromptType], blocks: Sequence[str], *, round_: int, priority: Priority
) -> Plan:
    """What enqueueing cancelled prompt types for `round_` brings back besides: what was cancelled of other rounds, and the
    leave to plan more of them (a line without blocks, since there may be none to bring back)."""
    lines: list[PlanLine] = []
    for one in prompt_types:
        if one.fingerprint in plan.stopped:
            lines.append(PlanLine(prompt_type=one.id, fingerprint=one.fingerprint, unit=one.unit, blocks=()))
            for (fingerprint, other), cancelled in plan.cancelled.items():
                if fingerprint == one.fingerprint and other != round_:
                    chosen = [block for block in blocks if block in cancelled]
                    lines += draft(plan, [one], chosen, round_=other, priority=priority).lines
    return Plan(tuple(lines))


def draft_cancel(
    plan: Plan, prompt_types: Collection[str], committed: Collection[str], catalogue: Iterable[PromptType]
) -> tuple[PlanLine, ...]:
    """The lines that take out what is not committed of these prompt types (ids). A block that is done stays planned.

    There is at least one for each fingerprint, planned or in the catalogue, that is not stopped yet.
    """
    lines: list[PlanLine] = []
    seen: set[str] = set()
    for line in plan.lines:
        if line.prompt_type not in prompt_types:
            continue
        out: list[str] = []
        partly: list[str] = []
        kept: list[str] = []
        for block in () if line.cancel else line.blocks:
            ids = [unit.id for unit in line.model_copy(update={"blocks": (block,)}).units()]
            done = [id_ for id_ in ids if id_ in committed]
            if len(done) < len(ids):
                (partly if done else out).append(block)
                kept += done
        for blocks, ids in ((out, []), (partly, kept)):
            if blocks or line.fingerprint not in seen | plan.stopped:
                update = {"blocks": tuple(blocks), "kept": tuple(ids), "cancel": True}
                lines.append(line.model_copy(update=update))
                seen.add(line.fingerprint)
    lines += (
        PlanLine(prompt_type=one.id, fingerprint=one.fingerprint, unit=one.unit, blocks=(), cancel=True)
        for one in catalogue
        if one.id in prompt_types and one.fingerprint not in seen | plan.stopped
    )
    return tuple(lines)


def draft_adoption(plan: Plan, committed: Collection[str]) -> tuple[PlanLine, ...]:
    """The lines that keep what was in flight when it was cancelled, and was committed after all."""
    kept = {unit.id for line in plan.lines if line.cancel for unit in line.units()}
    lines: list[PlanLine] = []
    for blocks in plan.cancelled.values():
        for block, line in blocks.items():
            whole = line.model_copy(update={"blocks": (block,), "cancel": False, "kept": ()})
            late = tuple(unit.id for unit in whole.units() if unit.id in committed and unit.id not in kept)
            if late:
                lines.append(whole.model_copy(update={"cancel": True, "kept": late}))
    return tuple(lines)


def add(store: Store, addition: Plan, prompt_types: Sequence[PromptType], settings: SplitSettings) -> Plan:
    """Put `addition` into the store: the split policy, the prompt types and the partners first, then the plan's file.

    What was put: its lines name their partners. The caller holds the workspace's lock `plan`. Raises `UsageError` if the split differs from the one that is fixed.
    """
    policy = fix_split(store, settings)
    if not addition.lines:
        return addition
    for prompt_type in prompt_types:
        store.put_once(prompt_type.file, prompt_type.model_dump_json().encode())
    addition = replace(addition, lines=_with_partners(store, addition.lines, prompt_types, policy))
    append(store, addition.lines)
    return addition


def _with_partners(
    store: Store, lines: Iterable[PlanLine], prompt_types: Sequence[PromptType], policy: SplitPolicy
) -> tuple[PlanLine, ...]:
    kinds = {one.fingerprint: one.partner for one in prompt_types if one.partner}
    return tuple(
        line.model_copy(update={"partners": put_partners(store, kind, line.blocks, policy, line.round)})
        if line.blocks and (kind := kinds.get(line.fingerprint))
        else line
        for line in lines
    )


def append(store: Store, lines: Sequence[PlanLine]) -> None:
    """Put one more plan file, if there are lines for it. The caller holds the workspace's lock `plan`."""
    if lines:
        numbers = [int(name.rpartition("/")[2][:6]) for name in store.list(FOLDER) if name.endswith(".jsonl")]
        data = jsonl(lines)
        store.put_once(f"{FOLDER}/{max(numbers, default=0) + 1:06d}-{stable_id(data.decode())[:12]}.jsonl", data)


def fix_split(store: Store, settings: SplitSettings) -> SplitPolicy:
    """The split policy of this workspace: fixed with the first unit planned. Raises `UsageError` if the settings differ."""
    wanted = SplitPolicy(**settings.model_dump())
    store.put_once(SPLIT, wanted.model_dump_json().encode())
    fixed = load_split(store)
    if fixed != wanted:
        values = ", ".join(f"{name} = {value!r}" for name, value in fixed.model_dump(exclude={"v"}).items())
        raise UsageError(
            "the split is fixed since the first unit was planned, and factory.toml now says another one",
            where=f"[split] in factory.toml, and {SPLIT}",
            mend=f"set it back ({values}), or start another workspace with `factory init`",
        )
    return fixed


def load_split(store: Store) -> SplitPolicy:
    """The fixed split policy. Raises FileNotFoundError if nothing was planned."""
    return parse(SplitPolicy, store.get(SPLIT), SPLIT)


def queue_name(store: Store) -> str:
    """The name of this workspace's queue: drawn once and kept in the store, so workers on any machine agree on it.

    It keeps two workspaces that share a Redis apart; unit ids alone would not, where they hold the same text.
    """
    store.put_once(QUEUE, uuid.uuid4().hex[:8].encode())
    return store.get(QUEUE).decode()
