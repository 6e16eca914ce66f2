"""The plan: what is asked for once is planned once, and what was planned stays as it was."""

from __future__ import annotations

import time

import pytest

from foundation.errors import UsageError
from foundation.store import LocalStore
from foundation.tables import SplitSettings
from foundation.workspace import Workspace
from generator.catalogue import load_catalogue, select
from queue_workers import plan
from queue_workers.ledger import committed, reconcile
from queue_workers.memory import MemoryQueue
from queue_workers.plan import Plan, PlanLine, draft_adoption, draft_cancel, load_plan
from tests.queue_workers.conftest import add_block

SPLIT = SplitSettings()


def _add(workspace: Workspace, names: list[str], blocks: list[str], *, round_: int = 0) -> Plan:
    types = select(names)
    new = plan.draft(load_plan(workspace.store), types, blocks, round_=round_, priority="normal")
    plan.add(workspace.store, new, types, SPLIT)
    return new


def test_units_are_runs_of_a_block_and_their_ids_are_hashes_of_what_they_name(workspace: Workspace) -> None:
    block = add_block(workspace, 150)
    _add(workspace, ["wh/who"], [block])
    loaded = load_plan(workspace.store)
    units = list(loaded.units())
    assert [(unit.start, unit.stop) for unit in units] == [(0, 64), (64, 128), (128, 150)]
    assert loaded.size == 3
    who = load_catalogue()["wh/who"]
    for unit in units:
        assert unit == type(unit).model_validate(unit.model_dump())
        assert unit.id == unit.make_id(block, unit.start, unit.stop, who.fingerprint, 0)
        assert (unit.prompt_type, unit.fingerprint, unit.round) == ("wh/who", who.fingerprint, 0)


def test_what_is_planned_is_not_planned_again(workspace: Workspace) -> None:
    first = add_block(workspace, 64)
    assert _add(workspace, ["wh/who"], [first]).size == 1
    before = list(workspace.store.list("plan"))
    assert _add(workspace, ["wh/who"], [first]).size == 0
    assert list(workspace.store.list("plan")) == before
    second = add_block(workspace, 64)
    assert _add(workspace, ["wh/who", "wh/when"], [first, second]).size == 3  # who: the new block; when: both
    assert load_plan(workspace.store).size == 4
    assert _add(workspace, ["wh/who"], [first, second], round_=1).size == 2
    ids = [unit.id for unit in load_plan(workspace.store).units()]
    assert len(ids) == len(set(ids)) == 6


def test_a_block_planned_twice_at_once_counts_once(workspace: Workspace) -> None:
    # given two plan files that overlap, as two machines on one store would leave them
    line = PlanLine(prompt_type="wh/who", fingerprint="f", unit=64, blocks=("000001-a-64", "000002-b-64"))
    other = line.model_copy(update={"blocks": ("000002-b-64", "000003-c-64"), "unit": 16})
    for number, one in enumerate((line, other), 1):
        workspace.store.put(f"plan/00000{number}-x.jsonl", one.model_dump_json().encode())
    assert [(line.unit, line.blocks) for line in load_plan(workspace.store).lines] == [
        (64, ("000001-a-64", "000002-b-64")),
        (16, ("000003-c-64",)),
    ]


def test_the_prompt_type_is_kept_as_it_was_planned(workspace: Workspace) -> None:
    _add(workspace, ["wh/who"], [add_block(workspace, 3)])
    who = load_catalogue()["wh/who"]
    assert plan.load_prompt_type(workspace.store, who.fingerprint) == who


def test_the_split_is_fixed_with_the_first_unit(workspace: Workspace) -> None:
    block = add_block(workspace, 3)
    _add(workspace, ["wh/who"], [block])
    assert plan.load_split(workspace.store).key == "qpt"
    with pytest.raises(UsageError, match="split is fixed") as caught:
        plan.add(workspace.store, Plan(), [], SplitSettings(key="another"))
    assert "key = 'qpt'" in caught.value.mend
    assert load_plan(workspace.store).size == 1


def test_a_limit_is_rounded_up_to_blocks(workspace: Workspace) -> None:
    with pytest.raises(UsageError, match="corpus is empty"):
        plan.first_blocks(workspace.store, None)
    blocks = [add_block(workspace, 10) for _ in range(3)]
    assert plan.first_blocks(workspace.store, None) == tuple(blocks)
    assert plan.first_blocks(workspace.store, 1) == tuple(blocks[:1])
    assert plan.first_blocks(workspace.store, 10) == tuple(blocks[:1])
    assert plan.first_blocks(workspace.store, 11) == tuple(blocks[:2])


def test_the_name_of_the_queue_is_drawn_once(workspace: Workspace) -> None:
    name = plan.queue_name(workspace.store)
    assert name == plan.queue_name(LocalStore(workspace.root))
    assert name.isalnum()


def test_a_million_items_are_planned_and_submitted_in_seconds(workspace: Workspace) -> None:
    blocks = tuple(f"{number:06d}-{'a' * 12}-256" for number in range(1, 3907))
    line = PlanLine(prompt_type="wh/who", fingerprint="f" * 24, unit=64, blocks=blocks)
    workspace.store.put("plan/000001-x.jsonl", line.model_dump_json().encode())
    began = time.monotonic()
    loaded = load_plan(workspace.store)
    assert loaded.size == 15_624
    assert time.monotonic() - began < 1
    assert MemoryQueue().submit(loaded.units(), "normal") == 15_624
    assert time.monotonic() - began < 5


def _cancel(workspace: Workspace, *names: str) -> None:
    store = workspace.store
    plan.append(store, draft_cancel(load_plan(store), names, committed(store), load_catalogue().values()))


def _commit(workspace: Workspace, *places: int) -> list[str]:
    """Commit the units at these places of the plan, with every item rejected."""
    units = list(load_plan(workspace.store).units())
    for place in places:
        workspace.store.put_once(units[place].shard, b"")
    return [units[place].id for place in places]


def test_what_is_cancelled_is_out_but_for_what_is_committed(workspace: Workspace) -> None:
    # given three blocks of four units: one done, one begun, one untouched; and another prompt type
    _add(workspace, ["wh/who", "wh/when"], [add_block(workspace, 256) for _ in range(3)])
    before = load_plan(workspace.store)
    who = [place for place, unit in enumerate(before.units()) if unit.prompt_type == "wh/who"]
    done = _commit(workspace, *who[:5])
    # when it is cancelled
    _cancel(workspace, "wh/who")
    # then the done ones stay planned, once, and the other type is as it was
    after = load_plan(workspace.store)
    left = list(after.units())
    assert [unit.id for unit in left if unit.prompt_type == "wh/who"] == done
    assert after.size == len(left) == 5 + 12
    assert after.items == sum(unit.stop - unit.start for unit in left)
    assert {fingerprint for fingerprint, _ in after.cancelled} == after.stopped
    assert reconcile(after, workspace.store, MemoryQueue()) == 12
    # and again changes nothing
    names = list(workspace.store.list("plan"))
    _cancel(workspace, "wh/who")
    assert list(workspace.store.list("plan")) == names


def test_a_cancelled_block_is_planned_again_whole_and_cut_as_before(workspace: Workspace) -> None:
    block = add_block(workspace, 256)
    _add(workspace, ["wh/who"], [block])
    before = [unit.id for unit in load_plan(workspace.store).units()]
    _commit(workspace, 1)
    _cancel(workspace, "wh/who")
    assert load_plan(workspace.store).size == 1
    # when the prompt file's unit, which is no part of its fingerprint, is another one by then
    who = load_catalogue()["wh/who"].model_copy(update={"unit": 16})
    new = plan.draft(load_plan(workspace.store), [who], [block], round_=0, priority="high")
    assert new.size == 4
    plan.add(workspace.store, new, [who], SPLIT)
    after = load_plan(workspace.store)
    assert [unit.id for unit in after.units()] == before
    assert not after.cancelled and not after.stopped
    assert reconcile(after, workspace.store, MemoryQueue()) == 3
    _cancel(workspace, "wh/who")
    assert load_plan(workspace.store).size == 1


def test_a_unit_that_was_in_flight_when_it_was_cancelled_is_kept_once_it_is_committed(workspace: Workspace) -> None:
    _add(workspace, ["wh/who"], [add_block(workspace, 256) for _ in range(2)])
    store, queue = workspace.store, MemoryQueue()
    reconcile(load_plan(store), store, queue)
    units = list(load_plan(store).units())
    store.put_once(units[0].shard, b"")
    _cancel(workspace, "wh/who")
    for unit in (units[1], units[5]):
        store.put_once(unit.shard, b"")
    assert load_plan(store).size == 1
    reconcile(load_plan(store), store, queue)
    after = load_plan(store)
    assert {unit.id for unit in after.units()} == {units[0].id, units[1].id, units[5].id} == committed(store)
    assert draft_adoption(after, committed(store)) == ()


def test_cancelling_stops_a_type_that_was_never_planned(workspace: Workspace) -> None:
    block = add_block(workspace, 64)
    _cancel(workspace, "wh/who")
    loaded = load_plan(workspace.store)
    assert loaded.stopped == {load_catalogue()["wh/who"].fingerprint}
    assert (loaded.size, loaded.lines) == (0, ())
    assert _add(workspace, ["wh/who"], [block]).size == 1
    assert not load_plan(workspace.store).stopped


def test_a_plan_of_thousands_of_files_loads_at_once(workspace: Workspace) -> None:
    # given half a million units in 6,000 plan files, and one of 40 types cancelled half-way
    folder = workspace.root / "plan"
    folder.mkdir()
    blocks = [f"{number:06d}-{'a' * 12}-256" for number in range(1, 401)]
    for number in range(6000):
        lines = [
            PlanLine(
                prompt_type=f"many/t{kind}",
                fingerprint=f"{kind:024d}",
                unit=64,
                round=number // 50,
                priority="low",
                blocks=tuple(blocks[number % 50 * 8 : number % 50 * 8 + 8]),
            )
            for kind in range(3)
        ]
        (folder / f"{number + 1:06d}-aaaaaaaaaaaa.jsonl").write_bytes(plan.jsonl(lines))
    plan.append(workspace.store, draft_cancel(load_plan(workspace.store), ["many/t0"], set(), []))
    began = time.monotonic()
    loaded = load_plan(workspace.store)
    print(f"{loaded.size:,} units of {len(loaded.lines):,} lines loaded in {time.monotonic() - began:.2f} s")
    assert loaded.size == 2 * 6000 * 32
    assert sum(map(len, loaded.cancelled.values())) == 6000 * 8
    assert time.monotonic() - began < 20  # 0.3 s here; generous, since a busy machine must not fail it
