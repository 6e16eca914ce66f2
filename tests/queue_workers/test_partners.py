"""Partners in the plan: chosen once, read alike by every worker, and what becomes of an item whose partner is withdrawn."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from foundation.corpus import Corpus
from foundation.reader import ReadReport, Tombstone, read
from foundation.records import ChatReply, Record, Reject, Unit
from foundation.store import TEMPORARY, LocalStore
from foundation.workspace import Workspace
from generator.catalogue import load_catalogue, select
from generator.gates import Gates
from generator.render import Source
from generator.teachers.base import TeacherRequest
from queue_workers import plan
from queue_workers.ledger import committed
from queue_workers.memory import MemoryQueue
from queue_workers.partners import sources_of
from queue_workers.plan import Plan, draft_cancel, load_plan
from queue_workers.refill import Refill
from queue_workers.runner import Context, run_unit
from tests.queue_workers.conftest import standing_snippets
from tests.support.commands import REPOSITORY, run, run_json
from tests.support.faults import (
    RULES,
    SHORT,
    assert_all_is_there,
    clear,
    dies_at,
    factory,
    finish,
    make_workspace,
    snippet,
)

COMPARED, NAMED, ALONE = "cross/compared-passages", "cross/same-entity-in-two-articles", "wh/who"


class ScriptedTeacher:
    """Tells a fact of each of the two passages. `asked` are the ids of the snippets it was asked about."""

    name = "scripted:1"

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def complete(self, requests: Sequence[TeacherRequest]) -> AsyncIterator[ChatReply]:
        for request in requests:
            one, other = request.source.snippet, request.source.partner
            assert other
            self.asked.append(one.id)
            question = f"What was kept in the archive of Tarvik besides {one.sentences[-1].split()[5]} papers?"
            answer = f"Two facts are known. {one.sentences[0]} Besides, it is recorded: {other.sentences[0]}"
            yield ChatReply(
                id=request.chat.id, text=json.dumps({"question": question, "answer": answer}), finish="stop"
            )

    async def close(self) -> None:
        pass


def room(folder: Path, *types: str, blocks: int = 2, planned: bool = True) -> Workspace:
    """Blocks of twenty snippets, an article each, whose people are the same."""
    return make_workspace(folder, blocks=blocks, size=20, types=types, planned=planned)


def add(workspace: Workspace, *types: str, round_: int = 0) -> Plan:
    chosen = select(types)
    new = plan.draft(
        load_plan(workspace.store), chosen, Corpus(workspace.store).blocks(), round_=round_, priority="normal"
    )
    return plan.add(workspace.store, new, chosen, workspace.settings.split)


def work(workspace: Workspace, *units: Unit) -> list[Record | Reject]:
    """Run units (all that are planned, unless named); their records and rejects. Items are accounted for, each once."""
    found: list[Record | Reject] = []
    context = Context(workspace.store, ScriptedTeacher(), Gates(), plan.load_split(workspace.store), 60)
    for unit in units or tuple(load_plan(workspace.store).units()):
        assert run_unit(unit, context).ack.state == "done"
        records = [Record.model_validate_json(line) for line in workspace.store.get(unit.shard).splitlines()]
        rejects = [
            Reject.model_validate_json(line)
            for path in workspace.root.glob(f"rejects/{unit.prompt_type}/{unit.id}.*")
            for line in path.read_bytes().splitlines()
        ]
        accounted = Counter({one.item for one in records}) + Counter({one.item for one in rejects})
        assert accounted.total() == len(accounted) == len(standing_snippets(unit, workspace.store))
        found += [*records, *rejects]
    return found


def sources(workspace: Workspace) -> dict[str, list[Source]]:
    """What stands beside what, by unit."""
    store = workspace.store
    return {unit.id: sources_of(unit, standing_snippets(unit, store), store) for unit in load_plan(store).units()}


def retire(workspace: Workspace, kind: str, value: str) -> None:
    stone = Tombstone.model_validate({"kind": kind, "value": value})
    workspace.store.put(stone.name, stone.model_dump_json().encode())


def test_partners_are_put_before_the_line_that_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = room(tmp_path / "w", COMPARED, planned=False)
    put, order = LocalStore.put_once, []

    def noted(store: LocalStore, name: str, data: bytes) -> bool:
        order.append(name)
        return put(store, name, data)

    monkeypatch.setattr(LocalStore, "put_once", noted)
    (line,) = add(workspace, COMPARED).lines
    blocks = Corpus(workspace.store).blocks()
    files = [f"partners/{line.partners}/{block}.json" for block in blocks]
    assert order[-3:-1] == files
    assert order[-1].startswith("plan/000001-")
    assert load_plan(workspace.store).lines == (line,)
    for name, block in zip(files, blocks, strict=True):
        assert len(json.loads(workspace.store.get(name))) == Corpus.count(block)


def test_a_type_without_partners_has_none(tmp_path: Path) -> None:
    workspace = room(tmp_path / "w", ALONE)
    assert {unit.partners for unit in load_plan(workspace.store).units()} == {""}
    assert not (workspace.root / "partners").exists()


@pytest.mark.parametrize("kind", [COMPARED, NAMED])
def test_another_process_reads_what_was_planned(tmp_path: Path, kind: str) -> None:
    workspace = room(tmp_path / "w", kind)
    here = sources(workspace)
    assert any(source.partner for found in here.values() for source in found)
    # when the corpus has grown since, so that a choice made now might be another
    corpus = Corpus(workspace.store)
    workspace.store.put(*corpus.block_file(3, [snippet(number) for number in range(40, 60)]))
    code = (
        "import json, pathlib, sys; from foundation.workspace import Workspace\n"
        "from tests.queue_workers.test_partners import sources\n"
        "found = sources(Workspace(pathlib.Path(sys.argv[1])))\n"
        "print(json.dumps({u: [(s.snippet.id, s.partner and s.partner.id, s.entity) for s in f] for u, f in found.items()}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(workspace.root)], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == {
        unit: [[one.snippet.id, one.partner and one.partner.id, one.entity] for one in found]
        for unit, found in here.items()
    }


def test_the_commands_give_each_snippet_its_planned_partner(tmp_path: Path) -> None:
    # given real text, over which `factory` plans, queues and works
    workspace = Workspace.init(tmp_path / "w")
    (workspace.root / "factory.toml").write_text(f"{RULES}{SHORT}")
    files = sorted((REPOSITORY / "examples/wwii/articles").glob("*.md"))[:4]
    run("factory", "ingest", *map(str, files), cwd=workspace.root)
    try:
        run("factory", "enqueue", "--prompt-type", "cross", cwd=workspace.root)
        told = run_json("factory", "work", "--burst", cwd=workspace.root)
        planned = {(unit, source.snippet.id): source for unit, found in sources(workspace).items() for source in found}
        records = [record for record in read(workspace.store) if record.prompt_type in (COMPARED, NAMED)]
        assert {record.prompt_type for record in records} == {COMPARED, NAMED}
        for record in records:
            partner = planned[record.unit, record.snippet_id].partner
            assert partner
            assert (record.partner_id, record.partner_article_id) == (partner.id, partner.article_id)
        status = run_json("factory", "status", cwd=workspace.root)
        assert status["items"] == status["items_accepted"] + status["items_rejected"] == told["items"]
    finally:
        clear(workspace)


def test_the_id_of_a_unit_does_not_depend_on_its_partners(tmp_path: Path) -> None:
    # given one block, planned alone and beside another one
    alone, beside = (room(tmp_path / str(blocks), NAMED, blocks=blocks) for blocks in (1, 2))
    first = Corpus(alone.store).blocks()[0]
    here, there = ([one for one in load_plan(w.store).units() if one.block == first] for w in (alone, beside))
    assert [one.id for one in here] == [one.id for one in there]
    assert {one.partners for one in here} != {one.partners for one in there}
    assert not any(source.partner for unit in here for source in sources(alone)[unit.id])


def test_a_retired_partner_is_none_and_its_item_is_rejected(tmp_path: Path) -> None:
    workspace = room(tmp_path / "w", COMPARED, blocks=1)
    before = [source for found in sources(workspace).values() for source in found]
    dead = before[0].partner
    assert dead
    bereft = {one.snippet.id for one in before if one.partner == dead} - {dead.id}
    # when one partner's text is withdrawn between the planning and the work
    retire(workspace, "snippet", dead.id)
    rows = work(workspace)
    # then the items that had it are rejected, by name, and the rest is as it was
    assert len({row.item for row in rows}) == 19
    rejects = {row.snippet_id: (row.gate, row.code, row.phase) for row in rows if isinstance(row, Reject)}
    assert {rejects.get(id_) for id_ in bereft} == {("partner", "none", "source")}
    assert {id_ for id_, (gate, _, _) in rejects.items() if gate == "partner"} == bereft
    assert any(isinstance(row, Record) for row in rows)


def test_the_reader_withdraws_what_was_made_with_a_retired_partner(tmp_path: Path) -> None:
    workspace = room(tmp_path / "w", NAMED)
    rows = [row for row in work(workspace) if isinstance(row, Record)]
    of = {article: [row for row in rows if row.article_id == article] for article in ("article-0", "article-1")}
    assert all(of.values())
    assert all(row.partner_article_id == "article-1" for row in of["article-0"])
    retire(workspace, "snippet", of["article-0"][0].partner_id)
    gone = [row for row in rows if of["article-0"][0].partner_id in (row.partner_id, row.snippet_id)]
    report = ReadReport()
    left = list(read(workspace.store, report=report))
    assert {row.id for row in left} == {row.id for row in rows} - {row.id for row in gone}
    assert (report.withdrawn, report.read) == (len(gone), len(left))
    retire(workspace, "article", "article-1")
    assert list(read(workspace.store)) == []


def test_what_is_cancelled_and_enqueued_again_has_partners(tmp_path: Path) -> None:
    workspace = room(tmp_path / "w", NAMED)
    units = list(load_plan(workspace.store).units())
    assert len(units) == 4
    work(workspace, units[0])
    shard = workspace.store.get(units[0].shard)
    lines = draft_cancel(load_plan(workspace.store), [NAMED], committed(workspace.store), load_catalogue().values())
    plan.append(workspace.store, lines)
    assert [unit.id for unit in load_plan(workspace.store).units()] == [units[0].id]
    # when another article came meanwhile
    workspace.store.put(*Corpus(workspace.store).block_file(3, [snippet(number) for number in range(40, 60)]))
    add(workspace, NAMED)
    again = list(load_plan(workspace.store).units())
    # then the same units are planned, each with a set that is there, and the one that was done stays as it was
    assert {unit.id for unit in units} < {unit.id for unit in again}
    assert len(again) == 6
    assert all(workspace.store.exists(f"partners/{unit.partners}/{unit.block}.json") for unit in again)
    work(workspace)
    assert committed(workspace.store) == {unit.id for unit in again}
    assert workspace.store.get(units[0].shard) == shard


def test_each_round_has_a_set_of_its_own(tmp_path: Path) -> None:
    workspace = room(tmp_path / "w", COMPARED, blocks=1)
    add(workspace, COMPARED, round_=1)
    first, second = load_plan(workspace.store).lines
    assert first.partners != second.partners
    rows = [row for row in work(workspace) if isinstance(row, Record)]
    by_snippet: dict[str, set[str]] = {}
    for row in rows:
        by_snippet.setdefault(row.snippet_id, set()).add(row.partner_id)
    assert max(map(len, by_snippet.values())) == 2


def test_refill_plans_partners_too(tmp_path: Path) -> None:
    workspace = room(tmp_path / "w", NAMED, planned=False)
    queue = MemoryQueue()
    assert Refill(workspace, queue).top_up(drain=True).units == 4
    while delivery := queue.take():
        unit, _ = delivery
        found = sources_of(unit, standing_snippets(unit, workspace.store), workspace.store)
        assert all(source.partner and source.entity for source in found)
        assert unit in list(load_plan(workspace.store).units())


@pytest.mark.parametrize("left", [None, b"", b"{}", b"[null]", b'[{"block": 1}]'])
def test_partners_that_are_lost_fail_the_unit_and_nobody_else(tmp_path: Path, left: bytes | None) -> None:
    workspace = room(tmp_path / "w", COMPARED, blocks=1)
    unit = next(load_plan(workspace.store).units())
    name = f"partners/{unit.partners}/{unit.block}.json"
    kept = workspace.store.get(name)
    workspace.store.delete(name)
    if left is not None:
        workspace.store.put(name, left)
    context = Context(workspace.store, ScriptedTeacher(), Gates(), plan.load_split(workspace.store), 60)
    ran = run_unit(unit, context)
    assert (ran.ack.state, ran.fault) == ("failed", "unit")
    assert name in ran.ack.error
    assert not workspace.store.exists(unit.shard)
    workspace.store.put(name, kept)
    assert run_unit(unit, context).ack.state == "done"


@pytest.mark.parametrize(
    ("place", "after", "when"),
    [
        ("foundation.store:os.link", False, "'/partners/' in str(a[1])"),
        ("foundation.store:os.link", True, "'/partners/' in str(a[1])"),
        ("queue_workers.plan:append", False, "True"),
        ("queue_workers.plan:append", True, "True"),
    ],
)
def test_killed_between_partners_and_plan_it_goes_on(tmp_path: Path, place: str, after: bool, when: str) -> None:
    workspace = make_workspace(tmp_path / "w", blocks=2, size=20, types=(COMPARED, ALONE), planned=False)
    command = ("enqueue", "--prompt-type", COMPARED, "--prompt-type", ALONE)
    try:
        with factory(workspace, *command, prelude=dies_at(place, after=after, when=when)) as process:
            assert process.wait(100) == -9
        assert load_plan(workspace.store).size == (6 if after and place.endswith("append") else 0)
        finish(workspace, *command)
        (set_,) = (workspace.root / "partners").iterdir()
        assert {unit.partners for unit in load_plan(workspace.store).units()} == {set_.name, ""}
        finish(workspace, "work", "--burst")
        for path in workspace.root.rglob(f"{TEMPORARY}*"):  # an hour later it is nobody's work any more
            os.utime(path, (time.time() - 4000,) * 2)
        finish(workspace, "gc")
        assert_all_is_there(workspace)
    finally:
        clear(workspace)
