"""One unit from lease to commit.

Guarantees: a unit that is committed is done without asking the teacher; every item of a committed unit has a record or
a reject; rejects are put first, under a name of this attempt, then the shard, once, under the unit's own name. Whoever
comes second changes nothing. A trouble that is not the unit's own is told apart, so it can stop the work: a teacher that is
away or says nothing never counts against a unit by itself, and a slow one has all the time it needs: what is limited is its
silence. A unit that is recalled is given back, whole, within a moment of the teacher's next word. What the teacher said is
kept on disk until the unit is committed: whoever runs it next on this machine asks for the rest alone.
Cost: reading a block (about 10 µs a snippet), two fsynced puts (0.4 ms each); the rest is the teacher's and the gates'.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
import uuid
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import uvloop

from foundation.corpus import Corpus, jsonl
from foundation.errors import Failure, Unavailable, from_os_error
from foundation.ids import stable_id
from foundation.reader import TOMBSTONES
from foundation.records import Record, Reject, Snippet, SplitPolicy, Unit, item_id
from generator.pipeline import AllErrors, Outcome, produce
from generator.render import shown
from generator.teachers.kept import KeptTeacher, forget
from queue_workers.partners import sources_of
from queue_workers.plan import load_prompt_type
from queue_workers.protocol import DONE, LONGEST, RELEASE, Ack

if TYPE_CHECKING:
    from foundation.prompt_type import PromptType
    from foundation.store import Store
    from generator.gates import Gates
    from generator.render import Source
    from generator.teachers.base import Teacher


NAMED = 5  # items whose errors are told
Fault = Literal["", "unit", "teacher", "away", "store", "recall"]


@dataclass(frozen=True, slots=True)
class Ran:
    """What became of a unit. `fault` says whose trouble it was: the unit's, the teacher's (it fails what it is asked),
    that it is away, the store's (a full disk), or nobody's: it was recalled. `items` are ids of some items, and what the teacher said of them; `seconds` how long it took."""

    ack: Ack
    fault: Fault = ""
    attempt: str = ""
    seconds: float = 0.0
    items: tuple[tuple[str, str], ...] = ()


class Recall:
    """A signal handler of the process that runs a unit: the teacher is waited for no longer, and the unit is given back."""

    def __init__(self) -> None:
        self.asked = False
        self._task: asyncio.Task[Any] | None = None

    def __call__(self, *_: Any) -> None:
        self.asked = True
        if self._task:
            self._task.get_loop().call_soon_threadsafe(self._task.cancel)

    @contextlib.contextmanager
    def reaches(self, task: asyncio.Task[Any] | None) -> Iterator[None]:
        """Cancel this task when the recall comes."""
        self._task = task
        try:
            if self.asked:
                raise asyncio.CancelledError
            yield
        finally:
            self._task = None


@dataclass
class Context:
    """What every unit of one worker shares. Made before the fork; `warm` loads what units would load one by one.

    `replies` is the folder where what the teacher said is kept until its unit is committed; None keeps nothing.
    """

    store: Store
    teacher: Teacher
    gates: Gates
    policy: SplitPolicy
    lease: float
    replies: Path | None = None
    _types: dict[str, PromptType] = field(default_factory=dict)
    _loop: asyncio.AbstractEventLoop | None = None
    _pid: int = 0

    def warm(self, fingerprints: Iterable[str], also: Iterable[PromptType] = ()) -> None:
        """Load the language detector and compile the templates of these prompt types; `also` of some not planned yet."""
        self.gates.warm()
        self._types.update((prompt_type.fingerprint, prompt_type) for prompt_type in also)
        for fingerprint in (*fingerprints, *self._types):
            with contextlib.suppress(Failure, FileNotFoundError):  # whoever runs a unit of it says so
                shown(self.prompt_type(fingerprint))

    def prompt_type(self, fingerprint: str) -> PromptType:
        found = self._types.get(fingerprint)
        if found is None:
            found = self._types[fingerprint] = load_prompt_type(self.store, fingerprint)
        return found

    def asked_by(self, unit: Unit, attempt: str) -> Teacher:
        """The teacher for one attempt at a unit: it is asked for what no attempt before heard."""
        return KeptTeacher(self.teacher, self.replies / unit.id, attempt) if self.replies else self.teacher

    def forget(self, unit: Unit) -> None:
        """What the teacher said of a unit that is committed."""
        if self.replies:
            forget(self.replies / unit.id)

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Its result, and nothing of it left running. One event loop for all units of a process: `asyncio.Runner` costs
        0.6 ms more a unit, half of it for words about the finished task that a SIGINT handler would never say."""
        if self._loop is None or self._pid != os.getpid():
            self._loop, self._pid = uvloop.new_event_loop(), os.getpid()
        try:
            return self._loop.run_until_complete(coroutine)
        finally:
            if left := asyncio.all_tasks(self._loop):
                for task in left:
                    task.cancel()
                self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))


@dataclass
class _Told:
    """What came of a unit so far; of a chain, many replies before the first outcome."""

    outcomes: list[Outcome] = field(default_factory=list)
    replies: int = 0


def run_unit(unit: Unit, context: Context, recall: Recall | None = None) -> Ran:
    """Run and commit one unit, unless `recall` is asked for meanwhile. Raises nothing a unit can cause."""
    began, attempt = time.monotonic(), uuid.uuid4().hex[:12]
    ran = Ran(DONE) if context.store.exists(unit.shard) else _run(unit, context, attempt, recall or Recall())
    if ran.ack == DONE:
        context.forget(unit)
    return replace(ran, attempt=attempt, seconds=round(time.monotonic() - began, 3))


def _run(unit: Unit, context: Context, attempt: str, recall: Recall) -> Ran:
    told = _Told()
    try:
        prompt_type = context.prompt_type(unit.fingerprint)
        block = Corpus(context.store).snippets(unit.block)
        snippets = standing(unit, block, context.store)
        sources = sources_of(unit, snippets, context.store)
    except FileNotFoundError as error:
        return _failed(f"the planned prompt type is missing: {error.filename}")
    except Failure as error:
        return _failed(str(error))
    try:
        context.run(_produce(unit, prompt_type, sources, block, attempt, context, recall, told))
        records, rejects = account(unit, snippets, told.outcomes)
    except asyncio.CancelledError:
        return Ran(RELEASE, "recall")
    except TimeoutError:
        if not told.replies:
            return Ran(Ack("release", f"not one reply came in {context.lease:g} s (queue.lease)"), "teacher")
        said = f"after {len(told.outcomes)} of {len(snippets)} items none came for {context.lease:g} s (queue.lease)"
        return Ran(Ack("failed", f"{said}, or it took {LONGEST} times as long in all"), "unit")
    except Unavailable as error:
        return Ran(Ack("release", str(error)), "away")
    except Failure as error:
        return Ran(Ack("failed", str(error)), "teacher", items=error.items if isinstance(error, AllErrors) else ())
    except Exception as error:
        return _failed(f"{type(error).__name__}: {error}")
    try:
        commit(unit, attempt, records, rejects, context.store)
    except OSError as error:
        return Ran(Ack("release", str(from_os_error(error))), "store")
    except Failure as error:
        return Ran(Ack("release", str(error)), "store")
    except ValueError as error:  # a teacher's text that no file can hold
        return _failed(f"{type(error).__name__}: {error}")
    return Ran(DONE, items=tuple((one.item, one.reason) for one in rejects if one.gate == "teacher")[:NAMED])


def standing(unit: Unit, block: Sequence[Snippet], store: Store) -> list[Snippet]:
    """Those of the unit's snippets that no tombstone withdraws now: its items. `block` is the whole of its block."""
    stones = set(store.list(TOMBSTONES))
    snippets = block[unit.start : unit.stop]
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
    unit: Unit,
    prompt_type: PromptType,
    sources: Sequence[Source],
    block: Sequence[Snippet],
    attempt: str,
    context: Context,
    recall: Recall,
    told: _Told,
) -> None:
    """Fill `told` with the outcomes of the unit's items. Raises `TimeoutError` when no reply comes for a lease."""
    clock = asyncio.get_running_loop().time
    end = clock() + LONGEST * context.lease
    silence = asyncio.timeout(context.lease)

    def heard() -> None:
        told.replies += 1
        silence.reschedule(min(end, clock() + context.lease))

    teacher = context.asked_by(unit, attempt)
    outcomes = produce(
        teacher,
        prompt_type,
        sources,
        unit=unit,
        policy=context.policy,
        attempt=attempt,
        gates=context.gates,
        around=block,
        heard=heard,
    )
    try:
        with recall.reaches(asyncio.current_task()):
            async with silence, contextlib.aclosing(outcomes):  # type: ignore[type-var]
                async for outcome in outcomes:
                    told.outcomes.append(outcome)
    finally:
        await teacher.close()  # its connections belong to this unit's event loop


def _failed(error: str) -> Ran:
    return Ran(Ack("failed", error), "unit")
