"""The controls: what a person said about the plan while it runs; pauses and priorities, in `plan/controls.json`.

Guarantees: they live in the store, so they outlast the queue and every process, and hold on every machine; a change is
put whole, before the queue is touched, and what has not reached the queue yet stands in `unsettled`, so a command killed
in between is completed by the next `settle` (which `reconcile` begins with). The lock `plan` may be one a host, and a
plain store cannot compare and put: two changes on two machines in the same millisecond can lose one, so a change reads
anew just before it puts and replaces nothing but its own fields. Cost: one small file; one read a question.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationError

from foundation.errors import Failure, UsageError
from foundation.reader import TOMBSTONES, Tombstone
from foundation.records import Contract
from queue_workers.protocol import Priority, Queue

if TYPE_CHECKING:
    from foundation.prompt_type import PromptType
    from foundation.store import Store
    from queue_workers.plan import Plan

CONTROLS = "plan/controls.json"
Unsettled = Literal["withdraw", "drop"]


class Controls(Contract):
    """`paused` holds everything back, `paused_types` some prompt types; `priorities` overrule those they were planned with.

    `cancelled` are the prompt types that were cancelled and not planned again since: what of them was in flight does not
    come back if it fails or is lost. `unsettled` names prompt types whose waiting units are still to be taken out of the queue: `withdraw`, since the plan
    has them at another priority or holds them back; `drop`, since they were cancelled: what was set aside goes too.
    """

    v: Literal[1] = 1
    paused: bool = False
    paused_types: tuple[str, ...] = ()
    cancelled: tuple[str, ...] = ()
    priorities: dict[str, Priority] = Field(default_factory=dict)
    unsettled: dict[str, Unsettled] = Field(default_factory=dict)

    @property
    def held(self) -> tuple[str, ...]:
        """The prompt types of which nothing is to be queued: paused or cancelled."""
        return tuple(sorted({*self.paused_types, *self.cancelled}))


def retired_types(store: Store, prompt_types: Iterable[PromptType]) -> list[str]:
    """Ids of those that a tombstone withdraws: whatever is planned of them yields nothing."""
    stones = set(store.list(TOMBSTONES))
    return [
        one.id
        for one in prompt_types
        if Tombstone(kind="prompt_type", value=one.id).name in stones
        or Tombstone(kind="fingerprint", value=one.fingerprint).name in stones
    ]


def load_controls(store: Store) -> Controls:
    """The controls, or their defaults where none were ever set. Raises `Failure` if the file cannot be understood."""
    try:
        return Controls.model_validate_json(store.get(CONTROLS))
    except FileNotFoundError:
        return Controls()
    except ValidationError as error:
        raise Failure(
            f"the controls cannot be read: {error.errors()[0]['msg']}",
            where=CONTROLS,
            mend="delete that file, then pause and promote again what should be",
        ) from error


def change_controls(store: Store, **update: Any) -> Controls:
    """Put the controls with some fields replaced. The caller holds the workspace's lock `plan`."""
    before = load_controls(store)
    after = Controls.model_validate(before.model_dump() | update)
    if after != before:
        store.put(CONTROLS, after.model_dump_json().encode())
    return after


def plan_again(store: Store, prompt_types: Collection[str]) -> Controls:
    """Say that these are planned anew, cancelled or not. The caller holds the workspace's lock `plan`."""
    return change_controls(store, cancelled=tuple(sorted({*load_controls(store).cancelled} - {*prompt_types})))


def unsettle(controls: Controls, prompt_types: Collection[str], how: Unsettled) -> Mapping[str, Unsettled]:
    """`unsettled` with some more prompt types in it; one that is to be dropped stays so."""
    return {**controls.unsettled, **{name: controls.unsettled.get(name, how) for name in prompt_types}}


def settle(store: Store, queue: Queue) -> int:
    """Bring the queue in line with the controls, but for what it lacks; how many waiting units were taken out of it.

    The caller holds the workspace's lock `plan`, and queues the rest of the plan after.
    """
    controls = load_controls(store)
    if queue.depth().paused != controls.paused:
        queue.control("pause" if controls.paused else "resume")
    queue.control("hold", controls.held)  # each time: the queue may have been lost since
    # A paused type each time: another machine may have queued it while it was being paused.
    waiting = sorted({*controls.paused_types, *controls.unsettled})
    touched = queue.control("withdraw", waiting) if waiting else 0  # without a name it would take everything
    dropped = sorted(name for name, how in controls.unsettled.items() if how == "drop")
    if dropped:
        touched += queue.control("forget", dropped)
    if controls.unsettled:
        now = load_controls(store).unsettled  # more may have been said meanwhile, on another machine
        left = {name: how for name, how in now.items() if controls.unsettled.get(name) != how}
        change_controls(store, unsettled=left)
    return touched


def known_types(plan: Plan, catalogue: Iterable[str]) -> list[str]:
    """Ids of every prompt type there is: those of the catalogue, and those that are planned and no longer in it."""
    return sorted({*catalogue, *(line.prompt_type for line in plan.lines)})


def named_types(names: Collection[str], known: Collection[str]) -> list[str]:
    """The ids that `names` (ids or families) stand for. Raises `UsageError` with the nearest names for one that is neither."""
    chosen: set[str] = set()
    families = {id_.partition("/")[0] for id_ in known}
    for name in names:
        found = {id_ for id_ in known if name in (id_, id_.partition("/")[0])}
        if not found:
            near = difflib.get_close_matches(name, [*known, *families], n=3, cutoff=0.4)
            mend = f"did you mean {' or '.join(near)}" if near else f"families here: {', '.join(sorted(families))}"
            raise UsageError(f"no such prompt type or family: {name}", mend=f"{mend}; `factory prompts list` shows all")
        chosen |= found
    return sorted(chosen)
