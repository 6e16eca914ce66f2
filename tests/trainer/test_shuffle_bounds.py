"""Shuffling much in little memory, and what can happen on the way: killed, a full disk, shards that change, a dead process."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from foundation.reader import listed
from foundation.records import Record, Snippet
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
@pytest.mark.parametrize(("files", "shards"), [(1_000, 200), (3, 1)])
def test_memory_is_bounded_whatever_the_size(make: Callable[..., Workspace], files: int, shards: int) -> None:
    """256 MB in 64: in many files, and in three of 85 MB each that must be spread again, from one shard of 256 MB."""
    workspace = make(256_000, shards)
    total = sum(size for _, size in listed(workspace.store))
    assert total > 240 * MB

    command = [sys.executable, "-c", PEAK, str(workspace.root), str(files)]
    told = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout

    used, peak = map(int, told.split())
    assert used == min(files, 62)
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
    code = "import os; print(os.getpid(), flush=True); from trainer.cli import main; main()"
    command = [sys.executable, "-c", code, "shuffle", "--seed", "2"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}

    with subprocess.Popen(command, cwd=workspace.root, env=environment, stderr=subprocess.DEVNULL) as process:
        while not list(workspace.train.glob(f".shuffled-*/{moment}")) or process.poll() is not None:
            if process.poll() is not None or any(path.name != link for path in workspace.train.glob("shuffled")) is None:
                break
            older = [path for path in workspace.train.glob(f".shuffled-*/{moment}") if path.parts[-3] != link]
            if older:
                break
            time.sleep(0.001)
        while process.poll() is None:
            fresh = [path for path in workspace.train.glob(f".shuffled-*/{moment}") if link not in path.parts]
            if fresh:
                process.kill()
                break
            time.sleep(0.001)
        assert process.wait() == -signal.SIGKILL

    assert contents(workspace) == before
    assert len(generations(workspace)) == 3  # the link, its folder, and what the killed one left
    shuffle(workspace, 1)
    assert contents(workspace) == before
    assert len(generations(workspace)) == 2
"""rest"""
