"""`factory gc`: what goes, what stays, and what the plan will need."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from foundation.reader import REJECTS
from foundation.records import Unit
from foundation.store import TEMPORARY
from foundation.workspace import Workspace
from generator.teachers.kept import REPLIES
from queue_workers import gc, presence
from queue_workers.forecast import Forecast, Need, forecast, size
from queue_workers.identity import began
from queue_workers.ledger import open_ledger
from queue_workers.plan import add, draft, load_plan
from tests.queue_workers.conftest import add_block, make_units
from tests.support.commands import run, run_json

OLD = time.time() - 10 * 24 * 3600


def line(unit: Unit, attempt: str, item: str = "i") -> bytes:
    """A line with what the ledger and the sweep look at."""
    usage = {"prompt_tokens": 1, "completion_tokens": 1}
    row = {"item": item, "attempt": attempt, "phase": "ask", "usage": usage, "unit": unit.id}
    return json.dumps(row).encode() + b"\n"


def left(workspace: Workspace) -> list[str]:
    return sorted(str(path.relative_to(workspace.root)) for path in workspace.root.rglob("*") if path.is_file())


def test_superseded_and_abandoned_rejects_go_and_the_valid_ones_stay(workspace: Workspace) -> None:
    won, empty, none_won, open_ = make_units(4)
    store = workspace.store
    store.put(won.shard, line(won, "aaa"))
    store.put(empty.shard, b"")
    store.put(none_won.shard, line(none_won, "ccc"))
    kept = [won.rejects("aaa"), empty.rejects("bbb")]
    lost = [won.rejects("zzz"), empty.rejects("aaa"), none_won.rejects("zzz"), open_.rejects("zzz")]
    for name in (won.rejects("aaa"), *lost):
        store.put(name, line(won, "aaa"))
    store.put(empty.rejects("bbb"), 2 * line(empty, "bbb"))  # the whole of it
    with open_ledger(store, workspace.cache) as ledger:
        before = ledger.totals()

    seen = gc.collect(workspace, dry_run=True)
    assert sorted(store.list(REJECTS)) == sorted(kept + lost), "a dry run removes nothing"
    swept = gc.collect(workspace, dry_run=False)

    assert sorted(store.list(REJECTS)) == sorted(kept)
    assert {kind: row.files for kind, row in swept.kinds.items()} == {"superseded": 3, "abandoned": 1}
    assert seen == gc.Sweep(dry_run=True, kinds=swept.kinds), "what was said beforehand is what happened"
    assert all(row.bytes >= row.files for row in swept.kinds.values())
    assert gc.collect(workspace, dry_run=False).total.files == 0
    shutil.rmtree(workspace.cache)
    with open_ledger(store, workspace.cache) as ledger:
        assert ledger.totals() == before, "counts do not depend on what was removed"


def test_rejects_beside_a_shard_that_cannot_be_read_stay(workspace: Workspace) -> None:
    (unit,) = make_units(1)
    workspace.store.put(unit.shard, b"torn {\n")
    workspace.store.put(unit.rejects("aaa"), line(unit, "aaa"))
    gc.collect(workspace, dry_run=False)
    assert workspace.store.exists(unit.rejects("aaa"))


def test_while_somebody_is_at_work_only_what_nobody_writes_goes(workspace: Workspace) -> None:
    won, open_ = make_units(2)
    workspace.store.put(won.shard, line(won, "aaa"))
    for name in (won.rejects("zzz"), open_.rejects("zzz")):
        workspace.store.put(name, line(won, "zzz"))
        os.utime(workspace.root / name, (OLD, OLD))  # one that was just written may be beside a shard in a moment
    with presence.at_work(workspace):  # sweeps on its own before it lets us in
        temporary = workspace.root / "shards" / f"{TEMPORARY}1"
        temporary.write_bytes(b"half")
        swept = gc.collect(workspace, dry_run=False)
        assert swept.busy and {*swept.kinds} == {"superseded"}
        assert temporary.exists() and workspace.store.exists(open_.rejects("zzz"))
        assert list(workspace.run.glob("work-[0-9]*")), "the record of the one at work stays"
    workspace.store.put(f"shards/{TEMPORARY}2/x", b"")  # a folder of that name is none of ours
    temporary.write_bytes(b"half")
    assert {*gc.collect(workspace, dry_run=False).kinds} == {"temporaries", "abandoned"}


def test_with_a_redis_elsewhere_another_machine_gets_time(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACTORY_QUEUE__URL", "redis://elsewhere.invalid/0")
    shared = Workspace(workspace.root)
    (unit,) = make_units(1)
    shared.store.put(unit.rejects("aaa"), line(unit, "aaa"))
    temporary = shared.root / "shards" / f"{TEMPORARY}1"
    temporary.parent.mkdir(exist_ok=True)
    temporary.write_bytes(b"half")
    assert gc.collect(shared, dry_run=False).total.files == 0
    for path in (temporary, shared.root / unit.rejects("aaa")):
        os.utime(path, (OLD, OLD))
    assert {*gc.collect(shared, dry_run=False).kinds} == {"temporaries", "abandoned"}


def test_what_dead_processes_left_old_logs_and_caches_go(workspace: Workspace) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    me, run_, today = os.getpid(), workspace.run, datetime.now(UTC).date()
    gone = [run_ / f"work-{dead.pid}", run_ / f"state-{dead.pid}.json", run_ / f"state-{dead.pid}.new"]
    gone += [run_ / f"work-{os.getppid()}"]  # its pid went to another process since
    gone += [workspace.logs / f"factory-{today - timedelta(days=31)}.jsonl", workspace.cache / "ingest-dead" / "x"]
    gone += [workspace.root / "plan" / f"{TEMPORARY}old", workspace.root / f"{TEMPORARY}old"]
    stay = [
        run_ / f"work-{me}",
        run_ / f"state-{me}.json",
        run_ / "plan.lock",
        workspace.root / "plan" / f"{TEMPORARY}now",
    ]
    stay += [workspace.logs / f"factory-{today - timedelta(days=29)}.jsonl", workspace.cache / "index.sqlite"]
    stay += [workspace.logs / "redis.log", workspace.root / "train" / f"{TEMPORARY}step"]
    for path in gone + stay:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("1")
    (run_ / f"work-{me}").write_text(began(me))
    (run_ / f"state-{me}.json").write_text(json.dumps({"began": began(me)}))
    for path in gone:
        os.utime(path, (OLD, OLD))
    gc.collect(workspace, dry_run=True)
    assert all(path.exists() for path in gone)
    swept = gc.collect(workspace, dry_run=False)
    assert [path for path in gone if path.exists()] == []
    assert [path for path in stay if not path.exists()] == []
    assert {kind: row.files for kind, row in swept.kinds.items()} == {
        "run": 4,
        "logs": 1,
        "caches": 1,
        "temporaries": 2,
    }


def test_replies_kept_for_units_that_need_them_no_more_go(workspace: Workspace) -> None:
    done, left, old = make_units(3)
    workspace.store.put(done.shard, b"")
    files = {unit.id: workspace.cache / REPLIES / unit.id / "aaa.jsonl" for unit in (done, left, old)}
    for path in files.values():
        path.parent.mkdir(parents=True)
        path.write_text("1")
    os.utime(files[old.id], (OLD - 25 * 24 * 3600,) * 2)
    os.utime(files[done.id], (time.time() - 120, time.time() - 120))
    assert gc.collect(workspace, dry_run=True).kinds["replies"].files == 2
    assert all(path.exists() for path in files.values())
    gc.collect(workspace, dry_run=False)
    assert [path.parent for path in files.values() if path.parent.exists()] == [files[left.id].parent]


def test_an_ingest_that_runs_keeps_its_cache(workspace: Workspace) -> None:
    staged = workspace.cache / "ingest-alive" / "x"
    staged.parent.mkdir()
    staged.write_text("1")
    with workspace.lock("ingest"):
        gc.collect(workspace, dry_run=False)
    assert staged.exists()


def test_killed_in_the_middle_it_is_only_less_to_do(workspace: Workspace) -> None:
    units = make_units(300)
    for unit in units:
        workspace.store.put(unit.shard, line(unit, "aaa"))
        for attempt in ("aaa", "zzz", "yyy"):
            workspace.store.put(unit.rejects(attempt), line(unit, attempt))
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom foundation.workspace import Workspace\nfrom queue_workers import gc\n"
        "unlink = Path.unlink\n"
        "def slow(path, *a, **k):\n    unlink(path, *a, **k)\n    print('.', flush=True)\n"
        "Path.unlink = slow\n"
        "gc.collect(Workspace(Path(sys.argv[1])), dry_run=False)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(workspace.root)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    for _ in range(50):
        assert child.stdout.readline()
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    some = len(list(workspace.store.list(REJECTS)))
    assert 300 <= some <= 850
    gc.collect(workspace, dry_run=False)
    assert sorted(workspace.store.list(REJECTS)) == sorted(unit.rejects("aaa") for unit in units)
    assert sum(workspace.store.exists(unit.shard) for unit in units) == 300


def test_the_forecast_is_bytes_by_item_times_items_left(workspace: Workspace) -> None:
    from generator.catalogue import load_catalogue

    catalogue = load_catalogue()
    block = add_block(workspace, 192)
    types = [catalogue["wh/who"], catalogue["wh/when"], catalogue["cloze/entity"]]
    store = workspace.store
    add(store, draft(load_plan(store), types, (block,), round_=0, priority="normal"), types, workspace.settings.split)
    nothing = forecast(workspace)
    assert not nothing.known and nothing.needed == 0 and nothing.units_left == load_plan(store).size

    unit = next(one for one in load_plan(store).units() if one.prompt_type == "wh/who")
    items = unit.stop - unit.start
    store.put(unit.shard, b"".join(line(unit, "aaa", f"i{number}") + b" " * 4000 + b"\n" for number in range(items)))
    ahead = forecast(workspace)
    used = (workspace.root / unit.shard).stat().st_blocks * 512
    assert ahead.used == used and ahead.known
    assert ahead.kinds["wh/who"].per_item == pytest.approx(used / items)
    assert ahead.kinds["cloze/entity"].per_item == pytest.approx(used / items), "taken for the mean of what is known"
    assert ahead.needed == pytest.approx(used / items * (576 - items), rel=1e-6)
    assert ahead.round == pytest.approx(used / items * 576, rel=1e-6)
    assert ahead.free == pytest.approx(shutil.disk_usage(workspace.root).free, rel=0.1)


def test_it_warns_of_bytes_and_of_files_that_will_not_fit() -> None:
    def ahead(free: int, files: int | None) -> str:
        need = Need(items_left=1000, used=0, per_item=5000.0)
        return Forecast({"wh/who": need}, free, 1_000_000, units_left=10, files_free=files, snippets=1).warning

    assert ahead(7_000_000, None) == ahead(7_000_000, 100) == ""
    assert "needs 5.0 MB more, and 1.0 MB of that is not free" in ahead(5_000_000, None)
    assert "20 more files" in ahead(7_000_000, 19)
    done = Need(items_left=0, used=10**9, per_item=1000.0)
    busy = Forecast({"wh/who": done}, 10**9, 0, 0, None, 1, rate=100.0, items=10**6)
    assert busy.full_in == 10_000 and busy.warning == "at the rate of now the disk is full in 2 h 46 min"
    assert Forecast({"wh/who": done}, 10**9, 0, 0, None, 1).full_in is None
    assert [size(count) for count in (0, 999, 1500, 150_000, 2.5e9, 4e12)] == [
        "0 B",
        "999 B",
        "1.5 kB",
        "150 kB",
        "2.5 GB",
        "4.0 TB",
    ]


def test_the_command_tells_and_changes_nothing_it_should_not(tmp_path: Path) -> None:
    workspace = Workspace.init(tmp_path / "w")
    add_block(workspace, 20)
    env = {"FACTORY_TEACHER__BACKEND": "rules"}
    run("factory", "enqueue", "--prompt-type", "wh/who", cwd=workspace.root, env=env)
    run("factory", "work", "--burst", cwd=workspace.root, env=env)
    (unit,) = load_plan(workspace.store).units()
    workspace.store.put(unit.rejects("zzz"), b"{}\n")
    (workspace.run / "state-0.json").write_text("{}")
    before = left(workspace)
    document = run_json("factory", "gc", "--dry-run", cwd=workspace.root)
    assert document["removed"]["kinds"]["superseded"]["files"] == 1 and document["forecast"]["needed"] == 0
    assert set(before) <= set(left(workspace))
    out = run("factory", "gc", cwd=workspace.root).stdout
    assert "removed 2 files, 8.2 kB" in out and "superseded" in out and "each further round" in out
    assert set(before) - set(left(workspace)) == {unit.rejects("zzz"), "run/state-0.json"}
    assert run_json("factory", "status", cwd=workspace.root)["committed"] == 1
