"""One unit: committed once, every item accounted for, and a trouble told from another."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import resource
import signal
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from foundation.errors import Failure, Unavailable
from foundation.reader import Tombstone
from foundation.records import ChatReply, SplitPolicy, Unit
from foundation.store import TEMPORARY
from foundation.workspace import Workspace
from generator.catalogue import select
from generator.gates import Gates
from generator.pipeline import Outcome
from generator.teachers.base import TeacherRequest
from generator.teachers.rules.teacher import RulesTeacher
from queue_workers import plan, runner
from queue_workers.runner import Context, Recall, account, run_unit
from tests.queue_workers.conftest import add_block, standing_snippets

_fork = multiprocessing.get_context("fork")


class Spoilt(RulesTeacher):
    """The rules teacher, made to fail in one way."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.asked = way, 0

    async def complete(self, requests: Sequence[TeacherRequest]) -> AsyncIterator[ChatReply]:
        self.asked += 1
        if self.way == "gone":
            raise Failure("the server cannot be reached", where="http://127.0.0.1:1/v1")
        if self.way == "away":
            raise Unavailable("the server cannot be reached", where="http://127.0.0.1:1/v1")
        if self.way == "broken":
            raise RuntimeError("a bug in a teacher")
        if self.way == "hangs":
            await asyncio.sleep(60)
        if self.way == "errors":
            for request in requests:
                yield ChatReply(id=request.chat.id, text="", finish="error", detail="HTTP 500: no")
            return
        number = 0
        async for reply in super().complete(requests):
            number += 1
            if self.way == "slow":
                await asyncio.sleep(0.3)
            if self.way == "falls silent" and number > 3:
                await asyncio.sleep(60)
            if self.way == "some errors" and number % 2:
                yield ChatReply(id=reply.id, text="", finish="error", detail="HTTP 500: no")
                continue
            yield reply.model_copy(update={"text": "no JSON at all"}) if self.way == "nonsense" else reply


@pytest.fixture
def context(workspace: Workspace) -> Context:
    return make_context(workspace, RulesTeacher())


def make_context(workspace: Workspace, teacher: RulesTeacher, lease: float = 20) -> Context:
    return Context(workspace.store, teacher, Gates(), SplitPolicy(key="k", unseen=0.1, phrasing=0.1), lease)


def make_units(workspace: Workspace, name: str = "wh/who", snippets: int = 100) -> list[Unit]:
    types = select([name])
    new = plan.draft(plan.Plan(), types, [add_block(workspace, snippets)], round_=0, priority="normal")
    plan.add(workspace.store, new, types, workspace.settings.split)
    return list(plan.load_plan(workspace.store).units())


def rows(workspace: Workspace, pattern: str) -> list[dict[str, Any]]:
    return [json.loads(line) for path in sorted(workspace.root.glob(pattern)) for line in path.read_text().splitlines()]


def test_every_item_has_a_record_or_a_reject_in_the_order_of_the_block(workspace: Workspace, context: Context) -> None:
    units = make_units(workspace)
    for unit in units:
        assert run_unit(unit, context).ack.state == "done"
    snippets = [snippet.id for unit in units for snippet in standing_snippets(unit, workspace.store)]
    records, rejects = rows(workspace, "shards/wh/who/*.jsonl"), rows(workspace, "rejects/wh/who/*.jsonl")
    assert records
    assert {row["snippet_id"] for row in records + rejects} == set(snippets)
    assert not {row["item"] for row in records} & {row["item"] for row in rejects}
    for unit in units:
        order = [snippets.index(row["snippet_id"]) for row in rows(workspace, unit.shard)]
        assert order == sorted(order)


def test_a_committed_unit_is_done_without_asking_the_teacher(workspace: Workspace, context: Context) -> None:
    unit = make_units(workspace)[0]
    run_unit(unit, context)
    before = (workspace.root / unit.shard).read_bytes()
    teacher = Spoilt("broken")
    assert run_unit(unit, make_context(workspace, teacher)).ack.state == "done"
    assert teacher.asked == 0
    assert (workspace.root / unit.shard).read_bytes() == before


def test_a_unit_whose_every_item_is_rejected_commits_an_empty_shard(workspace: Workspace) -> None:
    unit = make_units(workspace)[0]
    teacher = Spoilt("nonsense")
    assert run_unit(unit, make_context(workspace, teacher)).ack.state == "done"
    assert (workspace.root / unit.shard).read_bytes() == b""
    assert len(rows(workspace, "rejects/wh/who/*.jsonl")) == 64
    assert run_unit(unit, make_context(workspace, teacher)).ack.state == "done"
    assert teacher.asked == 1


def _race(workspace: Workspace, unit: Unit, way: str, gate: Any) -> None:
    context = make_context(workspace, Spoilt(way))
    context.gates.warm()
    gate.wait(20)
    assert run_unit(unit, context).ack.state == "done"


def test_of_two_that_run_one_unit_one_commits_and_nothing_of_the_other_stays(workspace: Workspace) -> None:
    # given two processes that make different shards of the same unit, many times over
    for unit in make_units(workspace, snippets=256):
        gate = _fork.Barrier(2)
        racers = [_fork.Process(target=_race, args=(workspace, unit, way, gate)) for way in ("", "nonsense")]
        for racer in racers:
            racer.start()
        for racer in racers:
            racer.join()
            assert racer.exitcode == 0
        # then one shard stands, whole, with the rejects of its own attempt
        records, rejects = rows(workspace, unit.shard), rows(workspace, f"rejects/wh/who/{unit.id}.*")
        assert len({row["attempt"] for row in records + rejects}) == 1
        assert len({row["item"] for row in records} | {row["item"] for row in rejects}) == 64
    assert not list(workspace.root.rglob(f"{TEMPORARY}*"))


def test_withdrawn_text_is_no_item(workspace: Workspace, context: Context) -> None:
    unit = make_units(workspace, snippets=40)[0]
    snippets = standing_snippets(unit, workspace.store)
    stones = [Tombstone(kind="snippet", value=snippets[0].id), Tombstone(kind="article", value=snippets[25].article_id)]
    for stone in stones:
        workspace.store.put(stone.name, stone.model_dump_json().encode())
    standing = [snippet.id for snippet in standing_snippets(unit, workspace.store)]
    assert standing == [snippet.id for snippet in snippets[1:20]]
    assert run_unit(unit, context).ack.state == "done"
    seen = rows(workspace, "shards/wh/who/*.jsonl") + rows(workspace, "rejects/wh/who/*.jsonl")
    assert {row["snippet_id"] for row in seen} == set(standing)


@pytest.mark.parametrize("kind", ["prompt_type", "fingerprint", "unit"])
def test_a_unit_that_is_withdrawn_whole_is_done_with_no_item(workspace: Workspace, kind: str) -> None:
    unit = make_units(workspace, snippets=5)[0]
    value = {"prompt_type": unit.prompt_type, "fingerprint": unit.fingerprint, "unit": unit.id}[kind]
    stone = Tombstone(kind=kind, value=value)  # type: ignore[arg-type]
    workspace.store.put(stone.name, stone.model_dump_json().encode())
    assert run_unit(unit, make_context(workspace, RulesTeacher())).ack.state == "done"
    assert (workspace.root / unit.shard).read_bytes() == b""
    assert rows(workspace, "rejects/wh/who/*.jsonl") == []


@pytest.mark.parametrize(("way", "word"), [("gone", "cannot be reached"), ("broken", "a bug in a teacher")])
def test_a_teachers_trouble_is_told_apart(workspace: Workspace, way: str, word: str) -> None:
    unit = make_units(workspace, snippets=5)[0]
    ran = run_unit(unit, make_context(workspace, Spoilt(way)))
    assert (ran.ack.state, ran.fault) == ("failed", "teacher")
    assert word in ran.ack.error
    assert not list(workspace.root.glob("shards/**/*.jsonl"))


def test_a_template_that_cannot_be_rendered_is_the_units_own_failure(workspace: Workspace, context: Context) -> None:
    unit = make_units(workspace, snippets=5)[0]
    broken = plan.load_prompt_type(workspace.store, unit.fingerprint).model_copy(update={"user": "{{ nothing }}"})
    workspace.store.put(f"prompt_types/{unit.fingerprint}.json", broken.model_dump_json().encode())
    ran = run_unit(unit, context)
    assert (ran.ack.state, ran.fault) == ("failed", "unit")
    assert "nothing" in ran.ack.error


def test_a_teacher_that_hangs_costs_a_lease_and_no_more(workspace: Workspace) -> None:
    unit = make_units(workspace, snippets=5)[0]
    ran = run_unit(unit, make_context(workspace, Spoilt("hangs"), lease=0.2))
    assert (ran.ack.state, ran.fault) == ("release", "teacher")  # not one word came
    assert "lease" in ran.ack.error


def test_a_slow_teacher_has_the_time_it_needs_and_a_silent_one_has_not(workspace: Workspace) -> None:
    unit = make_units(workspace, snippets=12)[0]
    # given a teacher that takes four leases in all, but never one between two replies
    ran = run_unit(unit, make_context(workspace, Spoilt("slow"), lease=1.5))
    assert ran.ack.state == "done"
    print(f"a unit of 12 took {ran.seconds} s, with a lease of 1.5 s")
    assert ran.seconds > 1.5
    workspace.store.delete(unit.shard)
    ran = run_unit(unit, make_context(workspace, Spoilt("falls silent"), lease=0.5))
    assert (ran.ack.state, ran.fault) == ("failed", "unit")
    assert "after 3 of 12 items" in ran.ack.error


def test_there_is_an_end_to_a_slow_unit_too(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "LONGEST", 1)
    unit = make_units(workspace, snippets=12)[0]
    ran = run_unit(unit, make_context(workspace, Spoilt("slow"), lease=1.5))
    assert (ran.ack.state, ran.fault) == ("failed", "unit")


def test_the_items_that_the_teacher_refused_are_named(workspace: Workspace) -> None:
    unit = make_units(workspace, snippets=20)[0]
    ran = run_unit(unit, make_context(workspace, Spoilt("some errors")))
    assert ran.ack.state == "done"
    assert len(ran.items) == 5
    assert all("HTTP 500: no" in error for _, error in ran.items)


def test_a_teacher_that_is_away_costs_the_unit_nothing(workspace: Workspace) -> None:
    unit = make_units(workspace, snippets=5)[0]
    ran = run_unit(unit, make_context(workspace, Spoilt("away")))
    assert (ran.ack.state, ran.fault) == ("release", "away")


def test_a_recalled_unit_is_given_back_whole(workspace: Workspace) -> None:
    """The signal comes while the teacher is waited for, and before anything was asked."""
    unit = make_units(workspace, snippets=5)[0]
    for delay in (0.5, 0.0):
        recall = Recall()
        before = signal.signal(signal.SIGALRM, recall)
        try:
            if delay:
                signal.setitimer(signal.ITIMER_REAL, delay)
            else:
                signal.raise_signal(signal.SIGALRM)
            ran = run_unit(unit, make_context(workspace, Spoilt("hangs")), recall)
        finally:
            signal.signal(signal.SIGALRM, before)
        assert recall.asked
        assert (ran.ack.state, ran.fault) == ("release", "recall")
        assert ran.seconds < 20  # the lease
    assert not list(workspace.root.glob("shards/**/*.jsonl"))
    assert not list(workspace.root.rglob(f"{TEMPORARY}*"))


def test_items_that_all_failed_are_named_with_the_teachers_words(workspace: Workspace) -> None:
    unit = make_units(workspace, snippets=20)[0]
    ran = run_unit(unit, make_context(workspace, Spoilt("errors")))
    assert (ran.ack.state, ran.fault) == ("failed", "teacher")
    assert len(ran.items) == 5
    assert {error for _, error in ran.items} == {"HTTP 500: no"}


def test_a_missing_block_or_prompt_type_is_the_units_own_failure(workspace: Workspace, context: Context) -> None:
    unit = make_units(workspace, snippets=5)[0]
    gone = unit.model_copy(update={"fingerprint": "0" * 24})
    assert run_unit(gone, context).ack.state == "failed"
    workspace.store.delete(f"corpus/blocks/{unit.block}.jsonl")
    ran = run_unit(unit, context)
    assert (ran.ack.state, ran.fault) == ("failed", "unit")
    assert "block of snippets is missing" in ran.ack.error


def _full_disk(workspace: Workspace, unit: Unit, out: Path) -> None:
    context = make_context(workspace, RulesTeacher())
    context.gates.warm()
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))  # acts out a full disk
    ran = run_unit(unit, context)
    out.write_text(f"{ran.ack.state} {ran.fault} {ran.ack.error}")


def test_a_full_disk_releases_the_unit_and_leaves_nothing_half_written(workspace: Workspace, tmp_path: Path) -> None:
    unit = make_units(workspace)[0]
    process = _fork.Process(target=_full_disk, args=(workspace, unit, tmp_path / "out"))
    process.start()
    process.join()
    assert (tmp_path / "out").read_text().startswith("release store the disk is full")
    assert not (workspace.root / unit.shard).exists()
    assert not list(workspace.root.rglob(f"{TEMPORARY}*"))


def test_an_item_that_nobody_accounts_for_is_an_error(workspace: Workspace) -> None:
    unit = make_units(workspace, snippets=3)[0]
    snippets = standing_snippets(unit, workspace.store)
    with pytest.raises(ValueError, match="of 3 items 0 were accounted for"):
        account(unit, snippets, [])
    with pytest.raises(ValueError, match="of 3 items 0"):
        account(unit, snippets, [Outcome("someone else's")])
