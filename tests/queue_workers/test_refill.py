"""Refill: the `[plan]` table, in its order, mixed as it says, within its caps, round after round."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from foundation.errors import UsageError
from foundation.records import Unit
from foundation.workspace import Workspace
from generator import catalogue
from queue_workers import plan
from queue_workers.controls import change_controls
from queue_workers.ledger import committed, reconcile
from queue_workers.memory import MemoryQueue
from queue_workers.plan import Plan, draft_cancel, load_plan
from queue_workers.protocol import DONE
from queue_workers.refill import Refill, Refilled
from tests.queue_workers.conftest import add_block

NAMES = ("cloze/gap", "wh/when", "wh/who")


@pytest.fixture
def prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A catalogue of its own, of three prompt types of units of 64, so that no edit of the real one moves a number."""
    folder = tmp_path / "prompts"
    source = (catalogue.FOLDER / "wh/who.md").read_text()
    for name in NAMES:
        (folder / name).with_suffix(".md").parent.mkdir(parents=True, exist_ok=True)
        lines = [line for line in source.splitlines() if not line.startswith(("unit:", "weight:"))]
        text = "\n".join([lines[0], "unit: 64", *lines[1:]]).replace("id: wh/who", f"id: {name}")
        (folder / name).with_suffix(".md").write_text(text)
    monkeypatch.setattr(catalogue, "FOLDER", folder)
    return folder


@pytest.fixture
def room(tmp_path: Path, prompts: Path) -> Workspace:
    return Workspace.init(tmp_path / "w")


def settings(workspace: Workspace, text: str) -> None:
    # A teacher that takes any type; `rules` is left out of what it has no rules for.
    (workspace.root / "factory.toml").write_text(f'[teacher]\nbackend = "openai"\n[plan]\n{text}\n')
    workspace.__dict__.pop("settings", None)


def work(workspace: Workspace, queue: MemoryQueue, limit: int = 10**9) -> list[Unit]:
    """Commit what waits, every item rejected."""
    done: list[Unit] = []
    while len(done) < limit and (delivery := queue.take()):
        unit, token = delivery
        assert workspace.store.put_once(unit.shard, b""), "done twice"
        assert queue.settle(unit.id, token, DONE)
        done.append(unit)
    return done


def run(workspace: Workspace, *, drain: bool, turns: int = 100) -> list[Unit]:
    """What is worked off, in that order, until refill is done or for so many turns."""
    queue = MemoryQueue()
    refill, done = Refill(workspace, queue), []
    for _ in range(turns):
        told = refill.top_up(drain=drain)
        done += work(workspace, queue)
        if told.done:
            break
    return done


def test_a_round_takes_every_block_for_every_type_and_then_the_next_begins(room: Workspace) -> None:
    blocks = {add_block(room, count) for count in (256, 100, 256)}
    settings(room, "low_water = 2")
    queue = MemoryQueue()
    refill = Refill(room, queue)
    rounds = []
    for _ in range(40):
        told = refill.top_up(drain=False)
        assert not told.done
        assert told.units and told.round is not None
        rounds.append(told.round)
        work(room, queue)
    assert rounds == sorted(rounds)
    assert rounds[-1] > 2
    loaded = load_plan(room.store)
    for round_ in range(rounds[-1]):
        assert {key for key in loaded.planned if key[1] == round_} == {(f, round_) for f, r in loaded.planned if r == 0}
        assert all(set(found) == blocks for key, found in loaded.planned.items() if key[1] == round_)
    assert committed(room.store) == {unit.id for unit in loaded.units()}


def test_drain_ends_when_the_round_that_was_begun_is_planned(room: Workspace) -> None:
    for _ in range(3):
        add_block(room, 256)
    settings(room, "low_water = 2")
    done = run(room, drain=True)
    assert {unit.round for unit in done} == {0}
    assert len(done) == len({unit.id for unit in done}) == 3 * 3 * 4
    assert run(room, drain=True) == []
    # when a run without drain was stopped in the middle of a later round
    assert {unit.round for unit in run(room, drain=False, turns=2)} == {1}
    rest = run(room, drain=True)
    assert {unit.round for unit in rest} == {1}
    assert load_plan(room.store).size == len(committed(room.store)) == 72
    # and new text is taken in every round that was opened
    add_block(room, 64)
    assert Counter(unit.round for unit in run(room, drain=True)) == {0: 3, 1: 3}


def test_nothing_is_planned_while_enough_waits(room: Workspace) -> None:
    for _ in range(20):
        add_block(room, 256)
    settings(room, "low_water = 8")
    queue = MemoryQueue()
    refill = Refill(room, queue)
    first = refill.top_up(drain=False)
    assert 32 <= first.units < 36
    assert load_plan(room.store).size == queue.depth().low == first.units
    for _ in range(5):
        assert refill.top_up(drain=False) == Refilled()
        work(room, queue, limit=2)
    work(room, queue, limit=queue.depth().queued - 7)
    assert refill.top_up(drain=False).units
    assert len(list(room.store.list("plan"))) == 3  # two chunks and the split


def test_order_comes_first_and_weights_mix_the_rest(room: Workspace) -> None:
    for _ in range(12):
        add_block(room, 64)
    settings(room, 'low_water = 1\norder = ["cloze"]\nweights = { "wh/who" = 3, wh = 1 }')
    kinds = [unit.prompt_type for unit in run(room, drain=True)]
    assert kinds[:12] == ["cloze/gap"] * 12
    counts = Counter(kinds[12:24])
    assert counts == {"wh/who": 9, "wh/when": 3}
    assert Counter(kinds) == {"cloze/gap": 12, "wh/who": 12, "wh/when": 12}
    # each entry of `order` is finished before the next
    shutil.rmtree(room.root / "shards")
    shutil.rmtree(room.root / "plan")
    settings(room, 'low_water = 1\norder = ["wh/who", "wh", "cloze"]')
    kinds = [unit.prompt_type for unit in run(room, drain=True)]
    assert kinds == ["wh/who"] * 12 + ["wh/when"] * 12 + ["cloze/gap"] * 12


def test_a_weight_of_nothing_leaves_a_type_out(room: Workspace, prompts: Path) -> None:
    add_block(room, 64)
    settings(room, 'weights = { wh = 0, "wh/who" = 1 }')
    assert {unit.prompt_type for unit in run(room, drain=True)} == {"wh/who", "cloze/gap"}
    settings(room, 'order = ["wh"]\nweights = { wh = 0, cloze = 0 }')
    assert run(room, drain=False) == []
    # a prompt file's own 0 is overruled by name
    file = prompts / "wh/when.md"
    file.write_text(file.read_text().replace("unit: 64", "unit: 64\nweight: 0"))
    catalogue._load.cache_clear()
    settings(room, "")
    assert run(room, drain=True) == []
    settings(room, 'order = ["wh/when"]')
    assert {unit.prompt_type for unit in run(room, drain=True)} == {"wh/when"}


def test_caps_hold_over_all_rounds_and_end_the_run(room: Workspace) -> None:
    for count in (100, 64, 64):
        add_block(room, count)
    settings(room, 'low_water = 1\ncaps = { wh = 400, "wh/who" = 150, cloze = 0 }')
    items: Counter[str] = Counter()
    for unit in run(room, drain=False):
        items[unit.prompt_type] += unit.stop - unit.start
    assert items["cloze/gap"] == 0
    assert items["wh/who"] <= 150
    assert 300 < items.total() <= 400
    queue = MemoryQueue()
    assert Refill(room, queue).top_up(drain=False) == Refilled(done=True)


def test_rounds_end_the_run(room: Workspace) -> None:
    add_block(room, 64)
    settings(room, "rounds = 3")
    assert Counter(unit.round for unit in run(room, drain=False)) == {0: 3, 1: 3, 2: 3}


def test_what_a_person_enqueued_is_not_planned_twice(room: Workspace) -> None:
    block = add_block(room, 64)
    types = catalogue.select(["wh/who"])
    new = plan.draft(load_plan(room.store), types, [block], round_=0, priority="high")
    plan.add(room.store, new, types, room.settings.split)
    queue = MemoryQueue()
    reconcile(load_plan(room.store), room.store, queue)
    settings(room, "")
    told = Refill(room, queue).top_up(drain=True)
    assert (told.units, queue.depth().high, queue.depth().low) == (2, 1, 2)


def test_what_is_paused_waits_and_what_is_resumed_comes(room: Workspace) -> None:
    add_block(room, 64)
    settings(room, "low_water = 1\nrounds = 2")
    change_controls(room.store, paused_types=("wh/who",))
    done = run(room, drain=False, turns=10)
    assert Counter(unit.prompt_type for unit in done) == {"cloze/gap": 2, "wh/when": 2}
    queue = MemoryQueue()
    refill = Refill(room, queue)
    assert refill.top_up(drain=False) == Refilled()  # it may be resumed
    assert refill.top_up(drain=True) == Refilled(done=True)
    change_controls(room.store, paused_types=())
    assert [unit.prompt_type for unit in run(room, drain=False)] == ["wh/who"] * 2


def test_what_is_cancelled_stays_out_until_it_is_enqueued(room: Workspace) -> None:
    blocks = [add_block(room, 64) for _ in range(4)]
    settings(room, "low_water = 1")
    run(room, drain=True, turns=1)
    lines = draft_cancel(load_plan(room.store), ["wh/who"], set(), catalogue.load_catalogue().values())
    plan.append(room.store, lines)
    assert "wh/who" not in {unit.prompt_type for unit in run(room, drain=False, turns=20)}
    types = catalogue.select(["wh/who"])
    new = plan.draft(load_plan(room.store), types, blocks[:1], round_=0, priority="low")
    plan.add(room.store, new, types, room.settings.split)
    again = {unit.block for unit in run(room, drain=True) if unit.prompt_type == "wh/who" and unit.round == 0}
    out = load_plan(room.store).cancelled.get((types[0].fingerprint, 0), {})
    assert not again & out.keys()


def test_enqueueing_a_cancelled_type_brings_back_other_rounds_and_lets_it_be_planned_on(room: Workspace) -> None:
    blocks = [add_block(room, 64)]
    settings(room, "low_water = 1")
    run(room, drain=False, turns=2)  # two rounds
    types = catalogue.select(["wh/who"])
    done = {unit.id for unit in load_plan(room.store).units() if unit.round == 0}
    plan.append(room.store, draft_cancel(load_plan(room.store), ["wh/who"], done, catalogue.load_catalogue().values()))
    now = load_plan(room.store)
    assert {round_ for _, round_ in now.cancelled} and types[0].fingerprint in now.stopped
    new = plan.draft(now, types, blocks, round_=0, priority="low")
    assert not new.lines  # round 0 is committed
    back = plan.draft_back(now, types, blocks, round_=0, priority="low")
    plan.add(room.store, back, types, room.settings.split)
    after = load_plan(room.store)
    assert not after.cancelled and not after.stopped
    assert {unit.round for unit in after.units() if unit.prompt_type == "wh/who"} > {0}
    assert plan.draft_back(after, types, blocks, round_=0, priority="low") == Plan()


def test_a_cap_below_the_smallest_block_is_refused(room: Workspace) -> None:
    add_block(room, 64)
    settings(room, 'caps = {"wh/who" = 63}')
    with pytest.raises(UsageError, match="wh/who have 63 items, but the smallest block of the corpus has 64"):
        Refill(room, MemoryQueue()).top_up(drain=True)


def test_an_edited_prompt_file_counts_as_unplanned_and_the_old_one_still_runs(room: Workspace, prompts: Path) -> None:
    add_block(room, 64)
    settings(room, "low_water = 1")
    queue = MemoryQueue()
    Refill(room, queue).top_up(drain=True)
    file = prompts / "wh/who.md"
    file.write_text(file.read_text().replace("version: 1", "version: 2"))
    (prompts / "cloze/gap.md").unlink()
    catalogue._load.cache_clear()
    done = work(room, queue) + run(room, drain=True)
    assert Counter(unit.prompt_type for unit in done) == {"wh/who": 2, "wh/when": 1, "cloze/gap": 1}
    for line in load_plan(room.store).lines:
        assert plan.load_prompt_type(room.store, line.fingerprint).id == line.prompt_type


def test_a_promoted_type_is_queued_where_it_belongs(room: Workspace) -> None:
    add_block(room, 64)
    settings(room, "")
    change_controls(room.store, priorities={"wh/who": "high"})
    queue = MemoryQueue()
    assert Refill(room, queue).top_up(drain=True) == Refilled(3, 0)
    assert (queue.depth().high, queue.depth().low) == (1, 2)
    assert reconcile(load_plan(room.store), room.store, queue) == 0


def test_it_waits_for_another_command_that_plans(room: Workspace) -> None:
    add_block(room, 64)
    settings(room, "")
    refill = Refill(room, MemoryQueue())
    with room.lock("plan"):
        assert refill.top_up(drain=True) == Refilled()
    assert refill.top_up(drain=True).units == 3


@pytest.mark.parametrize(
    ("text", "word", "mend"),
    [
        ('order = ["wh/whom"]', "order", "wh/who"),
        ('weights = { "clozes" = 1 }', "weights", "cloze"),
        ('caps = { "wh/whne" = 1 }', "caps", "wh/when"),
        ("weights = { wh = -1 }", "factory.toml", "0 or more"),
        ("weights = { wh = nan }", "factory.toml", "a value of the kind"),
        ("caps = { wh = -1 }", "factory.toml", "0 or more"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused(room: Workspace, text: str, word: str, mend: str) -> None:
    settings(room, text)
    with pytest.raises(UsageError) as caught:
        Refill(room, MemoryQueue())
    assert word in caught.value.where
    assert mend in caught.value.mend


def test_an_empty_corpus_is_refused(room: Workspace) -> None:
    settings(room, "")
    with pytest.raises(UsageError, match="corpus is empty"):
        Refill(room, MemoryQueue()).top_up(drain=True)


def test_rules_is_asked_only_for_what_it_has_rules_for(room: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    # given two types that `rules` makes and one of a name it has never heard of
    add_block(room, 64)
    (room.root / "factory.toml").write_text('[teacher]\nbackend = "rules"\n')
    queue = MemoryQueue()
    # when the queue is topped up, then the third is left out, and named
    refill = Refill(room, queue)
    assert refill.top_up(drain=True).units == 2
    assert {unit.prompt_type for unit in load_plan(room.store).units()} == {"wh/who", "wh/when"}
    assert "cloze/gap" in capsys.readouterr().err


def test_a_broken_prompt_file_is_named_itself_and_not_the_table(room: Workspace) -> None:
    settings(room, 'order = ["wh/who"]')
    (room.prompts / "wh").mkdir(parents=True)
    (room.prompts / "wh" / "who.md").write_text("---\nid: wh/who\nneeds: [[\n---\n")
    with pytest.raises(UsageError) as caught:
        Refill(room, MemoryQueue())
    assert "who.md" in str(caught.value) and "factory.toml" not in str(caught.value)
