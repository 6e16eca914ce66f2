"""Refill: what `factory run` plans next when the queue runs low, by the `[plan]` table of `factory.toml`.

Guarantees: deterministic, from plan, corpus, controls and table alone, so a killed run goes on where it was. A round
takes every block for every prompt type: first those of `order`, entry by entry, each to its end, then the rest mixed,
the type with the fewest items for its weight next. A new round is opened when the last one is planned, not when it is
done, so no worker waits for another's tail. What was cancelled is not planned again, what is paused waits, new blocks
are found missing, and so is a prompt type whose file was edited since this was made (`factory run` was started).
Cost: nothing while enough units wait; else a reading of the plan, about once in a hundred units.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.console import say
from foundation.corpus import Corpus
from foundation.errors import Failure, UsageError
from generator.catalogue import load_catalogue, select
from generator.teachers.make import unable
from queue_workers.controls import load_controls, plan_again, retired_types
from queue_workers.plan import Plan, add, draft, load_plan
from queue_workers.protocol import PRIORITIES, Priority, Queue

if TYPE_CHECKING:
    from foundation.prompt_type import PromptType
    from foundation.tables import PlanSettings
    from foundation.workspace import Workspace

CHUNK = 4  # units planned at once, in `low_water`s: one plan file each
PRIORITY: Priority = "low"  # what a person enqueued goes first


@dataclass(frozen=True, slots=True)
class Refilled:
    """`units` newly queued, of `round`. `done`: there is nothing more to take; what was taken may still be at work."""

    units: int = 0
    round: int | None = None
    done: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class _Kind:
    """A prompt type as the table has it. `step` is its place in `order`; the rest share the last one."""

    prompt_type: PromptType
    step: int
    weight: float


class Refill:
    """Raises `UsageError` if the table names what is no prompt type or family, or has a negative number."""

    def __init__(self, workspace: Workspace, queue: Queue) -> None:
        self.workspace, self.queue = workspace, queue
        self.settings = workspace.settings.plan
        kinds = _kinds(self.settings, workspace.prompts)
        cannot = unable(workspace, [kind.prompt_type.id for kind in kinds])
        self.kinds = [kind for kind in kinds if kind.prompt_type.id not in cannot]
        if cannot:
            say(
                f"the teacher is `rules`: left out are the {len(cannot)} prompt types it has none for: {', '.join(cannot)}"
            )

    def top_up(self, *, drain: bool) -> Refilled:
        """Plan and queue the next units if fewer than `low_water` wait; else, or while another command plans, do nothing.

        With `drain` no round is opened beyond the first that is not planned whole. Raises `UsageError` if the corpus is empty.
        """
        if self.queue.depth().queued >= self.settings.low_water:
            return Refilled()
        with ExitStack() as stack:
            try:
                stack.enter_context(self.workspace.lock("plan", wait=False))
            except Failure:
                return Refilled()
            return self._take(drain)

    def _take(self, drain: bool) -> Refilled:
        store = self.workspace.store
        blocks = Corpus(store).blocks()
        if not blocks:
            raise UsageError("there is nothing to plan: the corpus is empty", mend="`factory ingest PATH...` first")
        plan, controls = load_plan(store), load_controls(store)
        _check_caps(self.settings, min(map(Corpus.count, blocks)))
        table = _Table(plan, blocks, self.settings)
        retired = retired_types(store, [kind.prompt_type for kind in self.kinds])
        able = [
            kind
            for kind in self.kinds
            if kind.prompt_type.fingerprint not in plan.stopped and kind.prompt_type.id not in retired
        ]
        free = [kind for kind in able if kind.prompt_type.id not in controls.paused_types]
        round_ = table.open_round(free, drain)
        if round_ is None:
            # What is paused may be resumed, so it ends only a run that is to end.
            return Refilled(done=drain or table.open_round(able, drain) is None)
        addition = table.chunk(free, round_, CHUNK * self.settings.low_water)
        fingerprints = {line.fingerprint for line in addition.lines}
        types = [kind.prompt_type for kind in free if kind.prompt_type.fingerprint in fingerprints]
        again = {one.id for one in types} & {*controls.cancelled}
        if again:  # its file was edited since
            controls = plan_again(store, again)
            self.queue.control("hold", controls.held)
        now = add(store, addition, types, self.workspace.settings.split).under(controls)
        queued = sum(self.queue.submit(now.units(priority), priority) for priority in PRIORITIES)
        return Refilled(queued, round_)


def _check_caps(settings: PlanSettings, block: int) -> None:
    """Raises `UsageError` for a cap that leaves no room for the smallest block, which is planned whole or not at all."""
    for name, cap in settings.caps.items():
        if 0 < cap < block:
            raise UsageError(
                f"plan.caps lets {name} have {cap} items, but the smallest block of the corpus has {block}: none would be planned",
                where="[plan] in factory.toml",
                mend=f"raise it to {block} or more; a weight of 0 leaves a prompt type out",
            )


class _Table:
    """The `[plan]` table over one reading of the plan; `chunk` counts what it takes."""

    def __init__(self, plan: Plan, blocks: list[str], settings: PlanSettings) -> None:
        self.plan, self.blocks, self.settings = plan, blocks, settings
        self.items: Counter[str] = Counter()  # by prompt type and by family, all rounds
        if settings.caps:
            for line in plan.lines:
                self._count(line.prompt_type, line.items)

    def open_round(self, kinds: Collection[_Kind], drain: bool) -> int | None:
        """The lowest round in which one of `kinds` may still plan a block; None if there is none."""
        opened = {line.round for line in self.plan.lines if not line.cancel}
        for round_ in range(max(opened, default=-1) + 2):
            if (self.settings.rounds and round_ >= self.settings.rounds) or (drain and round_ and round_ not in opened):
                return None
            if any(next(self._missing(kind, round_), None) for kind in kinds):
                return round_
        return None

    def chunk(self, kinds: Collection[_Kind], round_: int, units: int) -> Plan:
        """The next blocks of a round, until they hold so many units or the round is planned."""
        missing = {kind: self._missing(kind, round_) for kind in kinds}
        done = {kind: self._items_of(kind, round_) for kind in kinds}
        taken: dict[_Kind, list[str]] = {}
        while missing and units > 0:
            kind = min(missing, key=lambda kind: (kind.step, done[kind] / kind.weight, kind.prompt_type.id))
            block = next(missing[kind], None)
            if block is None:
                del missing[kind]
                continue
            taken.setdefault(kind, []).append(block)
            count = Corpus.count(block)
            self._count(kind.prompt_type.id, count)
            done[kind] += count
            units -= -(-count // kind.prompt_type.unit)
        lines = (
            line
            for kind, blocks in taken.items()
            for line in draft(self.plan, [kind.prompt_type], blocks, round_=round_, priority=PRIORITY).lines
        )
        return Plan(tuple(lines))

    def _missing(self, kind: _Kind, round_: int) -> Iterator[str]:
        """The blocks that are neither planned nor cancelled and that the caps have room for when they are drawn."""
        key = (kind.prompt_type.fingerprint, round_)
        planned, cancelled = self.plan.planned.get(key, {}), self.plan.cancelled.get(key, {})
        names = (kind.prompt_type.id, kind.prompt_type.family)
        caps = [(name, self.settings.caps[name]) for name in names if name in self.settings.caps]
        if not caps and all(map(planned.__contains__, self.blocks)):
            return
        for block in self.blocks:
            if block not in planned and block not in cancelled:
                count = Corpus.count(block)
                if all(self.items[name] + count <= cap for name, cap in caps):
                    yield block

    def _items_of(self, kind: _Kind, round_: int) -> int:
        return sum(map(Corpus.count, self.plan.planned.get((kind.prompt_type.fingerprint, round_), {})))

    def _count(self, prompt_type: str, items: int) -> None:
        self.items[prompt_type] += items
        self.items[prompt_type.partition("/")[0]] += items


def _kinds(settings: PlanSettings, own: Path) -> list[_Kind]:
    """Every prompt type that the table lets through. Raises `UsageError`."""
    steps: dict[str, int] = {}
    for step, entry in enumerate(settings.order):
        for prompt_type in _select([entry], "order", own):
            steps.setdefault(prompt_type.id, step)
    for name, table in (("weights", settings.weights), ("caps", settings.caps)):
        _select(table, name, own)
        below = next((key for key, value in table.items() if not value >= 0), None)
        if below is not None:
            raise UsageError(
                f"{below} has a negative number in [plan] {name}", where="factory.toml", mend="give it 0 or more"
            )
    kinds = []
    for prompt_type in load_catalogue(own=own).values():
        weight = _weight(prompt_type, settings.weights, prompt_type.id in steps)
        if weight:
            kinds.append(_Kind(prompt_type, steps.get(prompt_type.id, len(settings.order)), weight))
    return kinds


def _weight(prompt_type: PromptType, weights: Mapping[str, float], ordered: bool) -> float:
    """The id's weight, else the family's, else the prompt file's; a file's 0 does not undo what `order` asks for by name."""
    for name in (prompt_type.id, prompt_type.family):
        if name in weights:
            return weights[name]
    return prompt_type.weight or float(ordered)


def _select(names: Collection[str], table: str, own: Path) -> list[PromptType]:
    try:
        return select(list(names), own)
    except UsageError as error:
        if error.where:  # a prompt file that is broken
            raise
        raise UsageError(error.what, where=f"[plan] {table} in factory.toml", mend=error.mend) from error
