"""Power loss, as far as it can be acted out without pulling a plug.

What is acted out. On a store: every call that changes the disk is recorded, and for a crash after each of them the disk
is rebuilt as the two worst file systems would leave it: `lazy` has of each folder only the names it had when that folder
was last synced, `eager` has all names but nothing of a file's bytes that were not synced. On a workspace: everything is
killed, and then what nothing had synced is cut, torn, filled with zeros or taken away: the end of Redis's append-only
file, the SQLite index, the event log, snapshots, locks, temporary files, and names of shards. What is not: sectors that
tear within a synced file, a disk that lies about a sync.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from foundation.store import TEMPORARY, LocalStore
from foundation.workspace import Workspace
from queue_workers.plan import load_plan
from tests.faults.conftest import Recovery
from tests.faults.test_kills import RUN
from tests.support.faults import (
    assert_all_is_there,
    committed,
    ended,
    factory,
    finish,
    gone,
    kill_redis,
    kill_tree,
    make_workspace,
    redis_pid,
    snippet,
    wait_for,
)


@dataclass
class Recorder:
    """What a disk under `root` would still have after a crash at any of the calls it saw."""

    root: Path
    names: dict[Path, set[str]] = field(default_factory=dict)  # of a folder, when it was last synced
    data: dict[int, bytes] = field(default_factory=dict)  # of an inode, when it was last synced
    crashes: list[dict[str, dict[Path, bytes | None]]] = field(default_factory=list)

    def watch(self, patch: pytest.MonkeyPatch) -> None:
        self._sync_all()
        for name in ("link", "replace", "rename", "unlink", "mkdir", "fsync"):
            original = getattr(os, name)

            def seen(
                *arguments: Any, _name: str = name, _original: Callable[..., Any] = original, **options: Any
            ) -> Any:
                result = _original(*arguments, **options)
                if _name == "fsync":
                    self._synced(Path(os.readlink(f"/proc/self/fd/{arguments[0]}")))
                self.crashes.append({"lazy": self._left(lazy=True), "eager": self._left(lazy=False)})
                return result

            patch.setattr(os, name, seen)

    def _sync_all(self) -> None:
        for folder, _, _ in os.walk(self.root):
            self._synced(Path(folder))
        for path in self.root.rglob("*"):
            if path.is_file():
                self._synced(path)

    def _synced(self, path: Path) -> None:
        if path.is_dir():
            self.names[path] = set(os.listdir(path))
        elif path.exists():
            self.data[path.stat().st_ino] = path.read_bytes()

    def _left(self, *, lazy: bool) -> dict[Path, bytes | None]:
        """Paths below the root, with their bytes; None for a folder."""
        left: dict[Path, bytes | None] = {}

        def walk(folder: Path) -> None:
            for name in sorted(os.listdir(folder)):
                path = folder / name
                if lazy and name not in self.names.get(folder, set()):
                    continue
                if path.is_dir():
                    left[path.relative_to(self.root)] = None
                    walk(path)
                else:
                    left[path.relative_to(self.root)] = self.data.get(path.stat().st_ino, b"\0torn")

        walk(self.root)
        return left


def rebuilt(folder: Path, left: dict[Path, bytes | None]) -> LocalStore:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for path, data in left.items():
        if data is None:
            (folder / path).mkdir()
        else:
            (folder / path).write_bytes(data)
    return LocalStore(folder)


@pytest.mark.parametrize("way", ["put_once", "put", "replace"])
@pytest.mark.parametrize("disk", ["lazy", "eager"])
def test_a_blob_is_whole_or_absent_after_a_crash_at_any_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, disk: str
) -> None:
    name, old, new = "shards/wh/who/abc.jsonl", b"old\n" * 100, b"new\n" * 100
    store = LocalStore(tmp_path / "store")
    store.root.mkdir()
    if way == "replace":
        store.put(name, old)
    recorder = Recorder(store.root)
    with monkeypatch.context() as patch:
        recorder.watch(patch)
        getattr(store, "put_once" if way == "put_once" else "put")(name, new)
    assert len(recorder.crashes) >= 3
    for crash in recorder.crashes:
        after = rebuilt(tmp_path / "after", crash[disk])
        found = after.get(name) if after.exists(name) else None
        assert found in ((old, new) if way == "replace" else (None, new))
        after.put(name, new)  # and whoever comes next can do its work
        assert after.get(name) == new
    # once the call has returned, no crash takes it back
    after = rebuilt(tmp_path / "after", recorder.crashes[-1][disk])
    assert after.exists(name), "a folder that was made on the way is not synced into its own"
    assert after.get(name) == new


def test_a_shard_is_never_there_without_its_rejects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from queue_workers.runner import commit

    workspace = make_workspace(tmp_path / "w", blocks=1, types=["wh/who"])
    unit = next(iter(load_plan(workspace.store).units()))
    recorder = Recorder(workspace.root)
    with monkeypatch.context() as patch:
        recorder.watch(patch)
        assert commit(unit, "attempt", [snippet(1)], [snippet(2)], workspace.store)  # type: ignore[list-item]
    for crash in recorder.crashes:
        for left in crash.values():
            if Path(unit.shard) in left:
                assert left[Path(unit.rejects("attempt"))] == workspace.store.get(unit.rejects("attempt"))
    assert Path(unit.shard) in recorder.crashes[-1]["lazy"]


def some_done(workspace: Workspace) -> None:
    """Work until some units are committed, then everything ends at once, Redis too."""
    with factory(workspace, *RUN) as process:
        wait_for(lambda: len(committed(workspace)) > 20)
        time.sleep(1.2)  # so that some of the append-only file is synced
        tree = kill_tree(process)
        if redis_pid(workspace):
            kill_redis(workspace)
        wait_for(lambda: gone(tree))
    assert len(committed(workspace)) < load_plan(workspace.store).size, "nothing was left to lose"


def damage_caches(workspace: Workspace, draw: random.Random) -> None:
    """The index cut, its journal gone; snapshots, locks, pid files and the last event torn."""
    for path in workspace.cache.glob("index.sqlite*"):
        if path.name.endswith(("-wal", "-shm")):
            path.unlink()
        else:
            cut(path, draw)
    for path in workspace.run.glob("state-*"):
        cut(path, draw)
    (workspace.run / "state-1.json").write_bytes(b'{"v": 1, "pid"')
    for path in (*workspace.run.glob("*.lock"), *workspace.run.glob("work-*"), *workspace.run.glob("*.users")):
        path.write_bytes(b"\0" * path.stat().st_size)
    for path in workspace.logs.glob("factory-*.jsonl"):
        os.truncate(path, max(0, path.stat().st_size - 17))


def damage_index(workspace: Workspace, draw: random.Random) -> None:
    """Pages of the index that were never written: zeros, with its journal as it was."""
    path = workspace.cache / "index.sqlite"
    data = bytearray(path.read_bytes())
    start = draw.randrange(0, len(data), 4096)
    data[start:] = bytes(len(data) - start)
    path.write_bytes(bytes(data))


def damage_shards(workspace: Workspace, draw: random.Random) -> None:
    """Names of shards that never reached the disk, a whole folder among them, and temporary files torn."""
    paths = sorted(committed(workspace))
    for path in draw.sample(paths, len(paths) // 3):
        path.unlink()
    shutil.rmtree(draw.choice(paths).parent)
    for number, path in enumerate(paths[:3]):
        path.parent.mkdir(parents=True, exist_ok=True)
        (path.parent / f"{TEMPORARY}{number}").write_bytes(b'{"v": 1, "id": "torn'[: 7 * number])


def damage_queue_tail(workspace: Workspace, draw: random.Random) -> None:
    """The append-only file cut somewhere in its last third."""
    cut(append_only_file(workspace), draw, least=0.66)


def damage_queue_zeros(workspace: Workspace, draw: random.Random) -> None:
    """Its last bytes are zeros: the file had grown, its data was not there yet."""
    path = append_only_file(workspace)
    data = path.read_bytes()
    path.write_bytes(data[:-500] + bytes(500))


def damage_queue_middle(workspace: Workspace, draw: random.Random) -> None:
    """A page in its middle is zeros."""
    path = append_only_file(workspace)
    data = bytearray(path.read_bytes())
    start = len(data) // 2
    data[start : start + 4096] = bytes(len(data[start : start + 4096]))
    path.write_bytes(bytes(data))


def damage_queue_gone(workspace: Workspace, draw: random.Random) -> None:
    """Nothing of it is left."""
    shutil.rmtree(workspace.run / "redis")


def cut(path: Path, draw: random.Random, least: float = 0.0) -> None:
    size = path.stat().st_size
    os.truncate(path, int(size * (least + (1 - least) * draw.random())))


def append_only_file(workspace: Workspace) -> Path:
    """Of Redis 7 in a folder, of Redis 6 a file; the part that grows."""
    found = [path for path in workspace.run.glob("redis/**/*") if ".aof" in path.name and "manifest" not in path.name]
    return max(found, key=lambda path: path.stat().st_size)


@pytest.mark.parametrize(
    "damage",
    [
        damage_caches,
        pytest.param(damage_index, marks=pytest.mark.slow),
        damage_shards,
        pytest.param(damage_queue_tail, marks=pytest.mark.slow),
        damage_queue_zeros,
        pytest.param(damage_queue_middle, marks=pytest.mark.slow),
        pytest.param(damage_queue_gone, marks=pytest.mark.slow),
    ],
)
def test_a_start_after_power_loss_mends_itself(
    make: Callable[..., Workspace], damage: Callable[[Workspace, random.Random], None], recovery: Recovery
) -> None:
    workspace = make(blocks=60)
    some_done(workspace)
    damage(workspace, random.Random(damage.__name__))
    before = len(committed(workspace))
    with recovery(f"power loss: {str(damage.__doc__).rstrip('.')}"), factory(workspace, *RUN) as process:
        wait_for(lambda: len(committed(workspace)) > before, what="the next commit")
    with factory(workspace, *RUN) as process:
        ended(process, workspace)
    finish(workspace, "status")
    assert_all_is_there(workspace, torn_log=damage is damage_caches)
