"""What a teacher said is kept until its unit is committed, and answers nothing but the very same request."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from foundation.errors import Unavailable
from foundation.records import ChatReply, SplitPolicy, Unit
from foundation.workspace import Workspace
from generator.catalogue import select
from generator.gates import Gates
from generator.render import Source, chat_request
from generator.teachers.base import TeacherRequest
from generator.teachers.kept import REPLIES, KeptTeacher
from generator.teachers.kept import _load as kept_keys
from generator.teachers.rules.teacher import RulesTeacher
from queue_workers import plan
from queue_workers.runner import Context, Ran, run_unit
from tests.queue_workers.conftest import add_block


class Failing(RulesTeacher):
    """The rules teacher, which notes whom it was asked about, and is away after so many replies of a call."""

    def __init__(self, after: int = 1 << 30, name: str = "rules:2") -> None:
        super().__init__()
        self.after, self.name = after, name
        self.asked: list[str] = []

    async def complete(self, requests: Sequence[TeacherRequest]) -> AsyncIterator[ChatReply]:
        self.asked += [request.chat.id for request in requests]
        count = 0
        async for reply in super().complete(requests):
            if count >= self.after:
                raise Unavailable("the server cannot be reached", where="nowhere")
            count += 1
            # (What `rules` cannot make it declines, and that is never kept.)
            yield reply if reply.finish == "stop" else reply.model_copy(update={"finish": "length"})


@pytest.fixture
def unit(workspace: Workspace) -> Unit:
    return planned(workspace, "wh/who")


def planned(workspace: Workspace, name: str, round_: int = 0) -> Unit:
    types = select([name])
    before = plan.load_plan(workspace.store)
    blocks = plan.Corpus(workspace.store).blocks() or [add_block(workspace, 40)]
    new = plan.draft(before, types, blocks, round_=round_, priority="normal")
    plan.add(workspace.store, new, types, workspace.settings.split)
    return next(new.units())


def run(workspace: Workspace, unit: Unit, teacher: Failing, lease: float = 20) -> Ran:
    policy = SplitPolicy(key="k", unseen=0.1, phrasing=0.1)
    return run_unit(unit, Context(workspace.store, teacher, Gates(), policy, lease, workspace.cache / REPLIES))


def kept(workspace: Workspace, unit: Unit) -> list[Path]:
    return sorted((workspace.cache / REPLIES / unit.id).glob("*"))


def test_a_second_run_asks_for_the_rest_alone_and_commits_the_same_shard(
    workspace: Workspace, unit: Unit, tmp_path: Path
) -> None:
    first, second = Failing(after=25), Failing()
    assert run(workspace, unit, first).fault == "away"
    assert run(workspace, unit, second).ack.state == "done"
    assert len(first.asked) == 40
    assert second.asked == first.asked[25:]
    other = Workspace.init(tmp_path / "other")
    assert run(other, planned(other, "wh/who"), Failing()).ack.state == "done"
    shards = [
        [(row["id"], row["messages"]) for row in map(json.loads, (one.root / unit.shard).read_text().splitlines())]
        for one in (workspace, other)
    ]
    assert shards[0] == shards[1] and shards[0]


def test_nothing_is_kept_once_the_unit_is_committed(workspace: Workspace, unit: Unit) -> None:
    run(workspace, unit, Failing(after=5))
    assert len(kept(workspace, unit)) == 1
    run(workspace, unit, Failing())
    assert list((workspace.cache / REPLIES).iterdir()) == []


def test_a_unit_committed_by_another_machine_is_cleared_up_too(workspace: Workspace, unit: Unit) -> None:
    run(workspace, unit, Failing(after=5))
    workspace.store.put_once(unit.shard, b"")
    assert run(workspace, unit, Failing()).ack.state == "done"
    assert kept(workspace, unit) == []


def test_another_teacher_and_another_round_are_asked_anew(workspace: Workspace, unit: Unit) -> None:
    run(workspace, unit, Failing(after=30))
    other = Failing(after=0, name="rules:3")
    run(workspace, unit, other)
    assert len(other.asked) == 40
    again = Failing()
    run(workspace, planned(workspace, "wh/who", round_=1), again)
    assert len(again.asked) == 40


def test_a_later_phase_is_asked_anew_when_it_is_about_something_else(workspace: Workspace) -> None:
    unit = planned(workspace, "contrastive/person")
    first = Failing()
    teacher = KeptTeacher(first, workspace.cache / REPLIES / unit.id, "a")
    told: list[TeacherRequest] = []

    async def ask(request: TeacherRequest) -> None:
        async for _ in teacher.complete([request]):
            told.append(request)

    (prompt_type,) = select(["contrastive/person"])
    snippet = plan.Corpus(workspace.store).snippets(unit.block)[0]
    for each in ("Anna Lindqvist", "Tomas Vereen", "Anna Lindqvist"):
        values = {"people": [each], "each": each}
        chat = chat_request(prompt_type, Source(snippet), "item:ask.1", 7, values=values)
        request = TeacherRequest(chat, prompt_type, Source(snippet), 0, values=values)
        teacher._known = None  # as the next attempt finds it
        asyncio.run(ask(request))
    assert len(told) == 3
    assert len(first.asked) == 2


@pytest.mark.parametrize(
    "tail", [b'["half a li', b"\x00" * 40, b'["key", "text", "stop"]\n', b'{"a": 1}\n', b"\xff\xfe\n"]
)
def test_a_torn_file_costs_one_more_request_and_no_more(workspace: Workspace, unit: Unit, tail: bytes) -> None:
    first, second = Failing(after=10), Failing()
    run(workspace, unit, first)
    (file,) = kept(workspace, unit)
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:-1]) + tail)
    assert run(workspace, unit, second).ack.state == "done"
    assert len(second.asked) == 31


def test_a_disk_that_takes_no_more_does_not_stop_the_unit(workspace: Workspace, unit: Unit) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    teacher = KeptTeacher(Failing(), workspace.cache / REPLIES / unit.id, "a")
    teacher._keep("key", ChatReply(id="1", text="x", finish="stop"))
    before = kept(workspace, unit)[0].stat().st_size
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (before, limits[1]))
    try:
        teacher._keep("key2", ChatReply(id="2", text="y" * 500, finish="stop"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert kept(workspace, unit)[0].stat().st_size == before
    assert os.stat(kept(workspace, unit)[0]).st_mode & 0o077 == 0


def test_errors_are_asked_again(workspace: Workspace, unit: Unit) -> None:
    class Erring(Failing):
        async def complete(self, requests: Sequence[TeacherRequest]) -> AsyncIterator[ChatReply]:
            count = 0
            async for reply in super().complete(requests):
                count += 1
                if count > 20:
                    raise Unavailable("away")
                yield reply if count % 2 else ChatReply(id=reply.id, text="", finish="error", detail="HTTP 500")

    run(workspace, unit, Erring())
    second = Failing()
    run(workspace, unit, second)
    assert len(second.asked) == 30


class After(Failing):
    """A teacher that fails everything it is asked."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way

    async def complete(self, requests: Sequence[TeacherRequest]) -> AsyncIterator[ChatReply]:
        self.asked += [request.chat.id for request in requests]
        if self.way == "mute":
            await asyncio.sleep(60)
        for request in requests:
            yield ChatReply(id=request.chat.id, text="", finish="error", detail="HTTP 500")


@pytest.mark.parametrize("way", ["mute", "errors"])
def test_what_was_kept_does_not_make_a_broken_teacher_look_well(workspace: Workspace, unit: Unit, way: str) -> None:
    # given a unit of which a few replies are kept, and a teacher that has been broken since
    run(workspace, unit, Failing(after=3))
    ran = run(workspace, unit, After(way), lease=2)

    # then the trouble is the teacher's, nothing is committed, and a good one finishes it
    assert ran.fault == "teacher" and not workspace.store.exists(unit.shard)
    last = Failing()
    assert run(workspace, unit, last).ack.state == "done"
    assert len(last.asked) == 37


def test_the_last_few_that_no_teacher_can_answer_do_not_hold_a_unit_up_for_ever(
    workspace: Workspace, unit: Unit
) -> None:
    run(workspace, unit, Failing(after=37))
    assert run(workspace, unit, After("errors")).ack.state == "done"
    rows = (workspace.root / "rejects/wh/who").glob("*.jsonl")
    gates = [json.loads(line)["gate"] for path in rows for line in path.read_text().splitlines()]
    assert gates.count("teacher") == 3


def test_a_line_that_was_cut_by_a_full_disk_spoils_no_other(
    workspace: Workspace, unit: Unit, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = workspace.cache / REPLIES / unit.id
    teacher, write = KeptTeacher(Failing(), folder, "a"), os.write
    for number in range(4):
        cut = 20 if number == 1 else None
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", lambda file, data, cut=cut: write(file, data if data == b"\n" else data[:cut]))
            teacher._keep(f"k{number}", ChatReply(id=str(number), text="x" * 50, finish="stop"))
    assert sorted(kept_keys(folder)) == ["k0", "k2", "k3"]
