"""One unit from lease to commit.

Guarantees: a unit that is committed is done without asking the teacher; every item of a committed unit has a record or
a reject; rejects are put first, under a name of this attempt, then the shard, once, under the unit's own name. Whoever
comes second changes nothing. A trouble that is not the unit's own is told apart, so it can stop the work.
Cost: reading a block (about 3 ms), two fsynced puts (0.4 ms each); the rest is the teacher's and the gates'.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import uvloop

from foundation.corpus import Corpus, jsonl
from foundation.errors import Failure, from_os_error
from foundation.ids import stable_id
from foundation.reader import TOMBSTONES
from foundation.records import Record, Reject, Snippet, SplitPolicy, Unit, item_id
from generator.pipeline import Outcome, produce
from generator.render import shows_source
from queue_workers.plan import load_prompt_type
from queue_workers.protocol import DONE, Ack

if TYPE_CHECKING:
    from foundation.prompt_type import PromptType
    from foundation.store import Store
    from generator.gates import Gates
    from generator.teachers.base import Teacher

Fault = Literal["", "unit", "teacher", "store"]


@dataclass(frozen=True, slots=True)
class Ran:
    """What became of a unit. `fault` says whose trouble it was: the unit's, the teacher's, or the store's (a full disk)."""

    ack: Ack
    fault: Fault = ""


@dataclass
class Context:
    """What every unit of one worker shares. Made before the fork; `warm` loads what units would load one by one."""

    store: Store
    teacher: Teacher
    gates: Gates
    policy: SplitPolicy
    lease: float
    _types: dict[str, PromptType] = field(default_factory=dict)

    def warm(self, fingerprints: set[str]) -> None:
        """Load the language detector and compile the templates of these prompt types."""
        self.gates.warm()
        for fingerprint in fingerprints:
            shows_source(self.prompt_type(fingerprint))

    def prompt_type(self, fingerprint: str) -> PromptType:
        found = self._types.get(fingerprint)
        if found is None:
            found = self._types[fingerprint] = load_prompt_type(self.store, fingerprint)
        return found


def run_unit(unit: Unit, context: Context) -> Ran:
    """Run and commit one unit. Raises nothing a unit can cause."""
    if context.store.exists(unit.shard):
        return Ran(DONE)
    attempt = uuid.uuid4().hex[:12]
    try:
        prompt_type = context.prompt_type(unit.fingerprint)
        snippets = standing_snippets(unit, context.store)
    except FileNotFoundError as error:
        return _failed(f"the planned prompt type is missing: {error.filename}")
    except Failure as error:
        return _failed(str(error))
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            outcomes = runner.run(_produce(unit, prompt_type, snippets, attempt, context))
        records, rejects = account(unit, snippets, outcomes)
    except TimeoutError:
        return _failed(f"it ran past its lease of {context.lease:g} s (queue.lease)")
    except Failure as error:
        return Ran(Ack("failed", str(error)), "teacher")
    except Exception as error:
        return _failed(f"{type(error).__name__}: {error}")
    try:
        commit(unit, attempt, records, rejects, context.store)
    except OSError as error:
        return Ran(Ack("release", str(from_os_error(error))), "store")
    except Failure as error:
        return Ran(Ack("release", str(error)), "store")
    return Ran(DONE)


def standing_snippets(unit: Unit, store: Store) -> list[Snippet]:
    """The unit's snippets that no tombstone withdraws now: its items. Raises `Failure` if the block is gone."""
    stones = set(store.list(TOMBSTONES))
    snippets = Corpus(store).snippets(unit.block)[unit.start : unit.stop]
    if not stones:
        return list(snippets)

    def withdrawn(kind: str, value: str) -> bool:
        return f"{TOMBSTONES}/{kind}-{stable_id(value)}.json" in stones

    whole = (("prompt_type", unit.prompt_type), ("fingerprint", unit.fingerprint), ("unit", unit.id))
    if any(withdrawn(kind, value) for kind, value in whole):
        return []
    return [
        snippet
        for snippet in snippets
        if not withdrawn("snippet", snippet.id) and not withdrawn("article", snippet.article_id)
    ]


def account(unit: Unit, snippets: Sequence[Snippet], outcomes: Sequence[Outcome]) -> tuple[list[Record], list[Reject]]:
    """Records and rejects in the order of the snippets, so that two workers' shards can be compared.

    Raises `ValueError` unless every item, and nothing else, has a record or a reject.
    """
    by_item = {outcome.item: outcome for outcome in outcomes if outcome.records or outcome.rejects}
    items = [item_id(snippet.id, unit.fingerprint, unit.round) for snippet in snippets]
    if len(outcomes) != len(by_item) or by_item.keys() != set(items):
        raise ValueError(f"of {len(items)} items {len(by_item.keys() & set(items))} were accounted for")
    records = [record for item in items for record in by_item[item].records]
    rejects = [reject for item in items for reject in by_item[item].rejects]
    return records, rejects


def commit(unit: Unit, attempt: str, records: list[Record], rejects: list[Reject], store: Store) -> bool:
    """Put the rejects, then the shard. False if the unit was committed meanwhile; then nothing of this attempt stays."""
    if rejects:
        store.put_once(unit.rejects(attempt), jsonl(rejects))
    if store.put_once(unit.shard, jsonl(records)):
        return True
    store.delete(unit.rejects(attempt))
    return False


async def _produce(
    unit: Unit, prompt_type: PromptType, snippets: Sequence[Snippet], attempt: str, context: Context
) -> list[Outcome]:
    outcomes = produce(
        context.teacher,
        prompt_type,
        snippets,
        unit=unit,
        policy=context.policy,
        attempt=attempt,
        gates=context.gates,
    )
    try:
        async with asyncio.timeout(context.lease), contextlib.aclosing(outcomes):  # type: ignore[type-var]
            return [outcome async for outcome in outcomes]
    finally:
        await context.teacher.close()  # its connections belong to this unit's event loop


def _failed(error: str) -> Ran:
    return Ran(Ack("failed", error), "unit")
