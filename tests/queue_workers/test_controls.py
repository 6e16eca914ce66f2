"""What a person said holds: in the store first, then in the queue, and after a kill in between."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from foundation.errors import Failure, UsageError
from foundation.store_memory import MemoryStore
from foundation.tables import SplitSettings
from generator.catalogue import load_catalogue, select
from queue_workers import plan
from queue_workers.controls import (
    CONTROLS,
    Controls,
    change_controls,
    known_types,
    load_controls,
    named_types,
    plan_again,
    settle,
    unsettle,
)
from queue_workers.ledger import reconcile, remaining
from queue_workers.memory import MemoryQueue
from queue_workers.plan import Plan, load_plan
from queue_workers.protocol import Ack, Command

BLOCKS = ("000001-aaaaaaaaaaaa-256", "000002-bbbbbbbbbbbb-128")


@pytest.fixture
def store() -> MemoryStore:
    """Two prompt types over two blocks: six units each."""
    made, types = MemoryStore(), select(["wh/who", "wh/when"])
    plan.add(made, plan.draft(Plan(), types, BLOCKS, round_=0, priority="normal"), types, SplitSettings())
    return made


@pytest.fixture
def queue(store: MemoryStore) -> MemoryQueue:
    made = MemoryQueue(max_failures=1)
    assert reconcile(load_plan(store), store, made) == 12
    return made


def drain(queue: MemoryQueue) -> list[str]:
    """Take everything that may be taken; the prompt types in that order."""
    taken = []
    while delivery := queue.take():
        taken.append(delivery[0].prompt_type)
    return taken


def test_they_are_kept_in_the_store(store: MemoryStore) -> None:
    assert load_controls(store) == Controls()
    assert not store.exists(CONTROLS)
    change_controls(store, paused_types=("wh/who",))
    change_controls(store, priorities={"wh/who": "high"})
    assert load_controls(store) == Controls(paused_types=("wh/who",), priorities={"wh/who": "high"})
    assert load_plan(store).size == 12  # it is no plan file


@pytest.mark.parametrize("data", [b"", b"{", b'{"v": 2}', b'{"priorities": {"wh/who": "urgent"}}'])
def test_a_file_that_cannot_be_read_is_told(store: MemoryStore, data: bytes) -> None:
    store.put(CONTROLS, data)
    with pytest.raises(Failure, match="controls cannot be read") as caught:
        load_controls(store)
    assert caught.value.where == CONTROLS


def test_a_wrong_value_is_never_put(store: MemoryStore) -> None:
    with pytest.raises(ValueError, match="urgent"):
        change_controls(store, priorities={"wh/who": "urgent"})
    assert not store.exists(CONTROLS)


def test_promotion_moves_what_waits_and_holds_for_what_comes(store: MemoryStore, queue: MemoryQueue) -> None:
    out = queue.take()
    assert out and out[0].prompt_type == "wh/who"
    change_controls(store, priorities={"wh/when": "high"}, unsettled={"wh/when": "withdraw"})
    assert settle(store, queue) == 6
    assert reconcile(load_plan(store), store, queue) == 6
    assert (queue.depth().high, queue.depth().normal, queue.depth().in_flight) == (6, 5, 1)
    assert drain(queue) == ["wh/when"] * 6 + ["wh/who"] * 5
    more = ("000003-cccccccccccc-64",)
    types = select(["wh/when"])
    plan.add(store, plan.draft(load_plan(store), types, more, round_=0, priority="low"), types, SplitSettings())
    assert reconcile(load_plan(store), store, queue) == 1
    assert queue.depth().high == 1


def test_a_command_killed_before_it_reached_the_queue_is_completed(store: MemoryStore, queue: MemoryQueue) -> None:
    # given what `promote` has written when it is killed
    change_controls(store, priorities={"wh/when": "high"}, unsettled={"wh/when": "withdraw"})
    assert reconcile(load_plan(store), store, queue) == 6
    assert queue.depth().high == 6
    assert load_controls(store).unsettled == {}
    assert reconcile(load_plan(store), store, queue) == 0


def test_a_paused_type_waits_and_comes_back(store: MemoryStore, queue: MemoryQueue) -> None:
    change_controls(store, paused_types=("wh/who",))
    assert reconcile(load_plan(store), store, queue) == 0
    assert queue.depth().queued == 6
    assert {unit.prompt_type for unit in remaining(load_plan(store), store)} == {"wh/when"}
    assert load_plan(store).size == 12
    # when another machine queued it meanwhile, the next look takes it out again
    queue.control("hold")
    assert queue.submit(load_plan(store).units(), "normal") == 6
    assert settle(store, queue) == 6
    change_controls(store, paused_types=())
    assert reconcile(load_plan(store), store, queue) == 6
    assert sorted(drain(queue)) == ["wh/when"] * 6 + ["wh/who"] * 6


def test_a_paused_queue_stays_paused_after_it_was_lost(store: MemoryStore, queue: MemoryQueue) -> None:
    change_controls(store, paused=True)
    for one in (queue, MemoryQueue()):  # the second as after a flush
        reconcile(load_plan(store), store, one)
        assert one.depth().queued == 12
        assert one.take() is None
    change_controls(store, paused=False)
    reconcile(load_plan(store), store, queue)
    assert len(drain(queue)) == 12


def test_nothing_to_settle_touches_nothing(store: MemoryStore, queue: MemoryQueue) -> None:
    assert settle(store, queue) == 0
    assert queue.depth().queued == 12


def test_a_drop_takes_what_was_set_aside_too(store: MemoryStore, queue: MemoryQueue) -> None:
    unit, token = queue.take() or pytest.fail("nothing waits")
    queue.settle(unit.id, token, Ack("failed", "no"))
    assert [row.unit.id for row in queue.failures()] == [unit.id]
    change_controls(store, unsettled=unsettle(load_controls(store), [unit.prompt_type], "withdraw"))
    assert settle(store, queue) == 5
    assert queue.failures()
    change_controls(store, unsettled=unsettle(load_controls(store), [unit.prompt_type], "drop"))
    assert unsettle(load_controls(store), [unit.prompt_type], "withdraw") == {unit.prompt_type: "drop"}
    assert settle(store, queue) == 1
    assert not queue.failures()


def test_names_are_ids_or_families_of_the_catalogue_or_of_the_plan(store: MemoryStore) -> None:
    planned = Plan((load_plan(store).lines[0].model_copy(update={"prompt_type": "old/gone"}),))
    known = known_types(planned, load_catalogue())
    assert named_types(["old"], known) == named_types(["old/gone"], known) == ["old/gone"]
    assert named_types(["wh", "wh/who"], known) == sorted(one.id for one in select(["wh"]))
    with pytest.raises(UsageError, match="old/gome") as caught:
        named_types(["wh", "old/gome"], known)
    assert "old/gone" in caught.value.mend


def test_a_cancelled_type_stays_held_until_it_is_planned_again(store: MemoryStore, queue: MemoryQueue) -> None:
    unit, token = queue.take() or pytest.fail("nothing waits")
    change_controls(store, cancelled=(unit.prompt_type,), unsettled={unit.prompt_type: "drop"})
    assert settle(store, queue) == 5
    lost = MemoryQueue()  # as after a flush
    settle(store, lost)
    for one in (queue, lost):
        assert one.submit([unit], "normal") == 0
    assert queue.settle(unit.id, token, Ack("failed", "no"))
    assert (queue.depth().queued, queue.depth().in_flight, queue.failures()) == (6, 0, [])
    assert plan_again(store, [unit.prompt_type]).cancelled == ()
    settle(store, queue)
    assert queue.submit([unit], "normal") == 1


def test_what_is_said_while_the_queue_is_settled_stands(store: MemoryStore) -> None:
    class Meanwhile(MemoryQueue):
        """Another machine speaks while this one withdraws."""

        def control(self, command: Command, prompt_types: Collection[str] = ()) -> int:
            if command == "withdraw":
                change_controls(store, paused_types=("wh/when",), unsettled={"wh/who": "drop", "wh/when": "withdraw"})
            return super().control(command, prompt_types)

    change_controls(store, unsettled={"wh/who": "withdraw"})
    settle(store, Meanwhile())
    now = load_controls(store)
    assert now.paused_types == ("wh/when",)
    assert now.unsettled == {"wh/who": "drop", "wh/when": "withdraw"}
