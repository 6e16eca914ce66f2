"""The plan: what is asked for once is planned once, and what was planned stays as it was."""

from __future__ import annotations

import time

import pytest

from foundation.errors import UsageError
from foundation.settings import SplitSettings
from foundation.store import LocalStore
from foundation.workspace import Workspace
from generator.catalogue import load_catalogue, select
from queue_workers import plan
from queue_workers.memory import MemoryQueue
from queue_workers.plan import Plan, PlanLine, load_plan
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
    assert _add(workspace, ["wh"], [first, second]).size == 3  # who: the new block; when: both
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
