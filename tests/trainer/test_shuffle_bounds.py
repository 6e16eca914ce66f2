"""Shuffling much in little memory, and what can happen on the way: killed, a full disk, shards that change, a dead process."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

import trainer.shuffle
import trainer.spread
from foundation.errors import Failure
from foundation.reader import Manifest, listed, pin
from foundation.records import Record, Snippet
from foundation.store import Store
from foundation.workspace import Workspace
from tests.support.commands import REPOSITORY
from trainer.paths import TrainPaths
from trainer.shuffle import shuffle, shuffled_examples

MB = 1 << 20


@pytest.fixture
def make(tmp_path: Path, record_of: Callable[..., Record]) -> Callable[..., Workspace]:
    """A workspace of so many records of 1,000 bytes, in so many shards."""

    def made(records: int, shards: int) -> Workspace:
        workspace = Workspace.init(tmp_path / "big")
        snippet = Snippet(id="s", article_id="a", title="t", source="s", index=0, sentences=("x",), text="x")
        record = record_of(snippet, [("user", "q"), ("assistant", "a")]).model_copy(update={"id": "%08d"})
        line = record.model_dump_json().encode()
        line = line.replace(b'"content":"a"', b'"content":"' + b"a" * (1_000 - len(line)) + b'"') + b"\n"
        folder = workspace.root / "shards/wh/who"
        folder.mkdir(parents=True)
        each = records // shards
        for shard in range(shards):
            data = b"".join([line % number for number in range(shard * each, (shard + 1) * each)])
            (folder / f"u{shard:04d}.jsonl").write_bytes(data)
        return workspace

    return made


def contents(workspace: Workspace) -> dict[str, str]:
    """Files of the shuffled folder by their checksums."""
    folder = TrainPaths.of(workspace).shuffled.resolve()
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def generations(workspace: Workspace) -> list[str]:
    return sorted(path.name for path in workspace.train.iterdir())


PEAK = """
import re, sys
from pathlib import Path
import trainer.shuffle
from foundation.workspace import Workspace
trainer.shuffle.FILES = int(sys.argv[2])
meta = trainer.shuffle.shuffle(Workspace(Path(sys.argv[1])), 1, memory=64 << 20)
print(meta.files, re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the kernel does not tell the peak")
@pytest.mark.parametrize(("files", "shards"), [(1_000, 200), pytest.param(3, 1, marks=pytest.mark.slow)])
def test_memory_is_bounded_whatever_the_size(make: Callable[..., Workspace], files: int, shards: int) -> None:
    """256 MB in 64: in many files, and in three of 85 MB each that must be spread again, from one shard of 256 MB."""
    workspace = make(256_000, shards)
    total = sum(size for _, size in listed(workspace.store))
    assert total > 240 * MB

    command = [sys.executable, "-c", PEAK, str(workspace.root), str(files)]
    told = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout

    used, peak = map(int, told.split())
    assert used == min(files, -(-total // trainer.shuffle.FILE_BYTES))
    assert peak * 1024 < 64 * MB
    paths = TrainPaths.of(workspace)
    assert sum(path.stat().st_size for path in paths.records("train").iterdir()) == total
    ids = [int(example.id) for example in shuffled_examples(paths, "train")]
    assert sorted(ids) == list(range(256_000))
    assert sum(abs(one - at) for at, one in enumerate(ids)) / 256_000**2 == pytest.approx(1 / 3, abs=0.01)
    assert not list(paths.shuffled.resolve().glob(".*"))


@pytest.mark.parametrize("moment", [".spread-*/train-0001", "train/0002.jsonl"])
def test_a_shuffle_killed_at_any_moment_leaves_the_former_result(make: Callable[..., Workspace], moment: str) -> None:
    workspace = make(60_000, 60)
    shuffle(workspace, 1)
    before, link = contents(workspace), TrainPaths.of(workspace).shuffled.readlink().name
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", "from trainer.cli import main; main()", "shuffle", "--seed", "2"]

    def begun() -> bool:
        return any(link not in path.parts for path in workspace.train.glob(f".shuffled-*/{moment}"))

    with subprocess.Popen(command, cwd=workspace.root, env=environment, stderr=subprocess.DEVNULL) as process:
        while not begun() and process.poll() is None:
            time.sleep(0.001)
        children = psutil.Process(process.pid).children()
        process.kill()
        assert process.wait() == -signal.SIGKILL

    assert not psutil.wait_procs(children, timeout=10)[1]
    assert contents(workspace) == before
    assert len(generations(workspace)) == 3  # the link, its folder, and what the killed one left
    shuffle(workspace, 1)
    assert contents(workspace) == before
    assert len(generations(workspace)) == 2


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("limit", [100_000, 3_900_000])
def test_a_full_disk_is_told_and_leaves_the_former_result(
    make: Callable[..., Workspace], processes: int, limit: int
) -> None:
    """The system's limit on a file's size acts it out: in the first pass, or where two spread files become one."""
    workspace = make(16_000, 16)
    shuffle(workspace, 1)
    before = contents(workspace)
    code = (
        "import resource\nfrom pathlib import Path\nfrom foundation.errors import from_os_error\n"
        "from foundation.workspace import Workspace\nfrom trainer.shuffle import shuffle\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        f"try:\n    shuffle(Workspace(Path({str(workspace.root)!r})), 2, processes={processes})\n"
        "except OSError as error:\n    print(from_os_error(error))\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, check=True, capture_output=True, text=True
    ).stdout
    assert "the disk is full" in told and re.search(r"where: .*/\.shuffled-.*train", told)
    assert contents(workspace) == before
    assert len(generations(workspace)) == 2


def meanwhile(monkeypatch: pytest.MonkeyPatch, change: Callable[[Store], None]) -> None:
    """Let `change` happen between the listing of the shards and their reading."""

    def listed_and_changed(store: Store) -> list[tuple[str, int]]:
        found = listed(store)
        change(store)
        return found

    monkeypatch.setattr(trainer.shuffle, "listed", listed_and_changed)


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize(
    ("changed", "told"), [("cut", "was changed"), ("longer", "was changed"), ("gone", "went away")]
)
def test_a_shard_that_changes_meanwhile_is_named(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, processes: int, changed: str, told: str
) -> None:
    monkeypatch.setattr(trainer.shuffle, "TASK", 1)
    shuffle(workspace, 1)
    before, name = contents(workspace), list(workspace.store.list("shards"))[7]
    data = workspace.store.get(name)

    def change(store: Store) -> None:
        if changed == "gone":
            store.delete(name)
        else:
            store.put(name, data[:-20] if changed == "cut" else data + data)

    meanwhile(monkeypatch, change)
    with pytest.raises(Failure, match=told) as caught:
        shuffle(workspace, 1, processes=processes)
    assert caught.value.where == name
    assert contents(workspace) == before and len(generations(workspace)) == 2


def test_the_manifest_says_what_was_read_even_of_a_shard_that_kept_its_size(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = next(iter(workspace.store.list("shards")))
    lines = workspace.store.get(name).splitlines(keepends=True)
    meanwhile(monkeypatch, lambda store: store.put(name, b"".join(reversed(lines))))
    shuffle(workspace, 1)
    pinned = Manifest.model_validate_json(TrainPaths.of(workspace).manifest.read_bytes())
    assert pinned == pin(workspace.store)


@pytest.mark.parametrize("processes", [1, 3])
def test_a_newer_record_stops_the_shuffle_and_the_first_one_is_named(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, processes: int
) -> None:
    monkeypatch.setattr(trainer.shuffle, "TASK", 1)
    names = list(workspace.store.list("shards"))
    for name in (names[3], names[4], names[-1]):
        row = json.loads(workspace.store.get(name).splitlines()[0])
        workspace.store.put(name, workspace.store.get(name) + json.dumps(row | {"v": 2}).encode())
    with pytest.raises(Failure, match="Record of version 2") as caught:
        shuffle(workspace, 1, processes=processes)
    assert caught.value.where == f"{names[3]}:{len(workspace.store.get(names[3]).splitlines())}"
    assert not TrainPaths.of(workspace).shuffled.exists()


def test_a_process_that_dies_is_an_error_and_not_a_wait(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer.shuffle, "TASK", 1)
    here = os.getpid()

    class Dies(trainer.spread.Spread):
        def do(self, task: int) -> trainer.spread.Gathered:
            if task == 5 and os.getpid() != here:
                os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does where memory ran out
            return super().do(task)

    monkeypatch.setattr(trainer.shuffle, "Spread", Dies)
    before = set(psutil.Process().children())  # another test's may still stand
    with pytest.raises(Failure, match="a process that took part died"):
        shuffle(workspace, 1, processes=2)
    assert not TrainPaths.of(workspace).shuffled.exists()
    assert set(psutil.Process().children()) <= before
