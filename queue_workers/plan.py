"""The plan: what was asked for, as append-only files; units are derived from it and never stored.

Guarantees: a block is planned once for a prompt type's fingerprint and round, however often it is enqueued; the prompt
type itself and the split policy are fixed in the store with the first unit planned, so a later edit changes nothing that
was planned. A plan file is put whole or not at all, and before anything is queued: what a crash left unqueued,
`reconcile` queues. Cost: loading reads a few hundred KB at a million items; deriving a unit takes about 6 µs.

What is counted: a unit's items are its snippets that no tombstone names when the unit runs. Text retired before that
yields no item, neither accepted nor rejected; the unit is done all the same.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from foundation.corpus import Corpus, jsonl
from foundation.errors import UsageError
from foundation.ids import stable_id
from foundation.prompt_type import PromptType
from foundation.records import Contract, SplitPolicy, Unit
from queue_workers.protocol import Priority

if TYPE_CHECKING:
    from foundation.settings import SplitSettings
    from foundation.store import Store

FOLDER = "plan"
SPLIT = f"{FOLDER}/split.json"
QUEUE = f"{FOLDER}/queue"


class PlanLine(Contract):
    """One prompt type over some blocks. `unit` is in snippets."""

    prompt_type: str
    fingerprint: str
    unit: int
    round: int = 0
    priority: Priority = "normal"
    blocks: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """Lines in the order they were planned; no block stands twice for one fingerprint and round."""

    lines: tuple[PlanLine, ...] = ()

    @cached_property
    def size(self) -> int:
        """How many units it holds; derives none of them."""
        return sum(-(-Corpus.count(block) // line.unit) for line in self.lines for block in line.blocks)

    def units(self, priority: Priority | None = None) -> Iterator[Unit]:
        """The units of one priority, or all, in order: consecutive runs of `unit` snippets within a block."""
        for line in self.lines:
            if priority not in (None, line.priority):
                continue
            for block in line.blocks:
                count = Corpus.count(block)
                for start in range(0, count, line.unit):
                    stop = min(start + line.unit, count)
                    yield Unit.model_construct(  # of values that were checked when the plan was read
                        v=1,
                        id=Unit.make_id(block, start, stop, line.fingerprint, line.round),
                        block=block,
                        start=start,
                        stop=stop,
                        prompt_type=line.prompt_type,
                        fingerprint=line.fingerprint,
                        round=line.round,
                    )

    def without_planned(self, line: PlanLine) -> PlanLine:
        """`line` without the blocks that are planned already."""
        planned = {
            block
            for known in self.lines
            if (known.fingerprint, known.round) == (line.fingerprint, line.round)
            for block in known.blocks
        }
        return line.model_copy(update={"blocks": tuple(block for block in line.blocks if block not in planned)})


def load_plan(store: Store) -> Plan:
    """Everything planned so far, in order; empty if nothing is."""
    lines: list[PlanLine] = []
    planned: dict[tuple[str, int], set[str]] = {}
    for name in store.list(FOLDER):
        if not name.endswith(".jsonl"):
            continue
        for row in store.get(name).splitlines():
            line = PlanLine.model_validate_json(row)
            known = planned.setdefault((line.fingerprint, line.round), set())
            # Two machines that planned at once may have planned the same block: the first file counts.
            blocks = tuple(block for block in line.blocks if block not in known)
            known.update(blocks)
            lines.append(line if len(blocks) == len(line.blocks) else line.model_copy(update={"blocks": blocks}))
    return Plan(tuple(lines))


def load_prompt_type(store: Store, fingerprint: str) -> PromptType:
    """The prompt type as it was planned. Raises FileNotFoundError."""
    return PromptType.model_validate_json(store.get(f"prompt_types/{fingerprint}.json"))


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
    lines = (
        PlanLine(
            prompt_type=prompt_type.id,
            fingerprint=prompt_type.fingerprint,
            unit=prompt_type.unit,
            round=round_,
            priority=priority,
            blocks=tuple(blocks),
        )
        for prompt_type in prompt_types
    )
    return Plan(tuple(line for line in map(plan.without_planned, lines) if line.blocks))


def add(store: Store, addition: Plan, prompt_types: Iterable[PromptType], settings: SplitSettings) -> None:
    """Put `addition` into the store: the split policy and the prompt types first, then the plan's file.

    The caller holds the workspace's lock `plan`. Raises `UsageError` if the split differs from the one that is fixed.
    """
    fix_split(store, settings)
    if not addition.lines:
        return
    for prompt_type in prompt_types:
        store.put_once(prompt_type.file, prompt_type.model_dump_json().encode())
    numbers = [int(name.rpartition("/")[2][:6]) for name in store.list(FOLDER) if name.endswith(".jsonl")]
    data = jsonl(addition.lines)
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
    return SplitPolicy.model_validate_json(store.get(SPLIT))


def queue_name(store: Store) -> str:
    """The name of this workspace's queue: drawn once and kept in the store, so workers on any machine agree on it.

    It keeps two workspaces that share a Redis apart; unit ids alone would not, where they hold the same text.
    """
    store.put_once(QUEUE, uuid.uuid4().hex[:8].encode())
    return store.get(QUEUE).decode()
