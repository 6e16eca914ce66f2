"""A disk that fills up and a process that dies while packing: the former packs stay, and nothing is left behind."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from foundation.workspace import Workspace
from tests.support.commands import REPOSITORY, run
from trainer.pack import PackedData, pack
from trainer.paths import SPLITS, TrainPaths
from trainer.shuffle import shuffle, shuffled_records
from trainer.tokenizer import record_texts, save_tokenizer, train_tokenizer

PACK = "import signal; signal.signal(signal.SIGXFSZ, signal.{}); from trainer.cli import main; main()"


@pytest.fixture
def packed(workspace: Workspace) -> Workspace:
    shuffle(workspace, 1)
    paths = TrainPaths.of(workspace)
    texts = record_texts(shuffled_records(paths, "train"))
    save_tokenizer(train_tokenizer(texts, workspace.settings.train.vocabulary), paths.tokenizer)
    pack(workspace)
    return workspace


def pack_with_room(workspace: Workspace, room: int, at_the_end: str) -> subprocess.CompletedProcess[str]:
    """`trainer pack` in a process none of whose files may grow beyond `room` bytes.

    `at_the_end`: what then happens. `SIG_IGN`: the write fails, as on a full disk; `SIG_DFL`: the kernel ends the process
    in the middle of the write, and no line of its code runs any more.
    """
    return subprocess.run(
        [sys.executable, "-c", PACK.format(at_the_end), "pack", "--raw"],
        cwd=workspace.root,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, room)),
    )


def digests(workspace: Workspace) -> list[str]:
    """Of each split, after its files were read whole."""
    found = []
    for split in SPLITS:
        data = PackedData.open(TrainPaths.of(workspace).pack(split))
        assert sum(len(data.record(number)[0]) for number in range(len(data))) == data.meta.tokens
        found.append(data.meta.digest)
    return found


def generations(workspace: Workspace) -> list[Path]:
    return sorted(workspace.train.glob(".packs-*"))


@pytest.mark.parametrize("room", [0, 3_000, 9_000])
def test_a_full_disk_is_one_clear_error_and_the_former_packs_stay(packed: Workspace, room: int) -> None:
    before, there = digests(packed), generations(packed)
    ended = pack_with_room(packed, room, "SIG_IGN")
    assert ended.returncode == 1
    assert ended.stderr.count("error:") == 1
    assert "Traceback" not in ended.stderr
    assert "large" in ended.stderr or "space" in ended.stderr
    assert ended.stdout == ""
    assert digests(packed) == before
    assert generations(packed) == there


@pytest.mark.parametrize("room", [1_000, 5_000, 9_000])
def test_a_process_that_dies_while_it_writes_leaves_the_former_packs(packed: Workspace, room: int) -> None:
    before = digests(packed)
    assert pack_with_room(packed, room, "SIG_DFL").returncode == -signal.SIGXFSZ
    assert digests(packed) == before
    assert len(generations(packed)) == 2  # the packs, and what the dead one left

    run("trainer", "pack", "--raw", cwd=packed.root)

    assert digests(packed)[0] != before[0]  # raw text has come in
    assert digests(packed)[1:] == before[1:]
    assert len(generations(packed)) == 1
