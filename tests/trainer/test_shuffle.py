"""Shuffling: every record once, repeatable byte for byte, never half-written, and nothing left out in silence."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

import trainer.shuffle
from foundation.corpus import jsonl
from foundation.errors import Failure, UsageError
from foundation.reader import Manifest, Tombstone, pin, read
from foundation.records import Record
from foundation.workspace import Workspace
from trainer.paths import SPLITS, TrainPaths, new_folder
from trainer.shuffle import shuffle, shuffle_meta, shuffled_records


@pytest.fixture
def many_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files and buffers so small that a few hundred records need many."""
    monkeypatch.setattr(trainer.shuffle, "FILE_BYTES", 20_000)
    monkeypatch.setattr(trainer.shuffle, "BUFFER", 2_000)


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.resolve().rglob("*") if path.is_file())
    return {str(path.relative_to(folder.resolve())): path.read_bytes() for path in files}


@pytest.mark.usefixtures("many_files")
def test_every_record_is_there_once_in_its_split(workspace: Workspace) -> None:
    committed = list(read(workspace.store))

    meta = shuffle(workspace, 1)

    assert meta.files > 5
    paths = TrainPaths.of(workspace)
    for split in SPLITS:
        records = list(shuffled_records(paths, split))
        wanted = [record for record in committed if record.split == split]
        assert len(records) == len(wanted) == meta.records[split] > 0
        assert {record.id: record for record in records} == {record.id: record for record in wanted}
    assert meta == shuffle_meta(paths)
    assert (meta.withdrawn, meta.broken_lines, meta.unanswered) == (0, 0, 0)


@pytest.mark.usefixtures("many_files")
def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_order(
    tmp_path: Path, build: Callable[..., Workspace]
) -> None:
    first, second = build(tmp_path / "a"), build(tmp_path / "b")
    shuffle(first, 7)
    shuffle(second, 7)
    one = contents(TrainPaths.of(first).shuffled)
    assert one == contents(TrainPaths.of(second).shuffled)

    shuffle(second, 8)

    other = contents(TrainPaths.of(second).shuffled)
    assert sorted(one) == sorted(other)
    assert one["train/0000.jsonl"] != other["train/0000.jsonl"]


@pytest.mark.parametrize("files", [1, 20])
def test_articles_are_not_bunched(workspace: Workspace, monkeypatch: pytest.MonkeyPatch, files: int) -> None:
    monkeypatch.setattr(trainer.shuffle, "FILE_BYTES", 1 if files > 1 else 1 << 30)
    monkeypatch.setattr(trainer.shuffle, "FILES", files)
    shuffle(workspace, 1)
    articles = [record.article_id for record in shuffled_records(TrainPaths.of(workspace), "train")]
    together = sum(one == other for one, other in pairwise(articles)) / (len(articles) - 1)
    assert together < 0.35  # five articles: one in five by chance; as committed it is over nine in ten


def test_the_manifest_is_pinned_with_the_records(workspace: Workspace) -> None:
    meta = shuffle(workspace, 1)
    pinned = Manifest.model_validate_json(TrainPaths.of(workspace).manifest.read_bytes())
    assert pinned == pin(workspace.store)
    assert (meta.manifest, meta.shards) == (pinned.fingerprint, len(pinned.shards))

    workspace.store.put("shards/qa/first-day/later.jsonl", jsonl([next(read(workspace.store))]))

    assert Manifest.model_validate_json(TrainPaths.of(workspace).manifest.read_bytes()) == pinned
    assert shuffle(workspace, 1).manifest != pinned.fingerprint


def test_withdrawn_records_are_left_out_and_counted(workspace: Workspace) -> None:
    before = shuffle(workspace, 1).records["train"]
    gone = next(record for record in read(workspace.store) if record.split == "train")
    stone = Tombstone(kind="article", value=gone.article_id)
    workspace.store.put(stone.name, stone.model_dump_json().encode())

    meta = shuffle(workspace, 1)

    assert meta.withdrawn == 48
    assert before - 48 < meta.records["train"] < before
    assert gone.article_id not in {record.article_id for record in shuffled_records(TrainPaths.of(workspace), "train")}


def test_a_broken_line_is_named_and_counted(workspace: Workspace) -> None:
    name = next(iter(workspace.store.list("shards")))
    lines = workspace.store.get(name).splitlines()
    whole = sum(shuffle(workspace, 1).records.values())
    without_split = {key: value for key, value in json.loads(lines[4]).items() if key != "split"}
    lines[2], lines[4] = lines[2][:50], json.dumps(without_split).encode()
    workspace.store.put(name, b"\n".join(lines) + b"\n")

    meta = shuffle(workspace, 1)

    assert (meta.broken_lines, sum(meta.records.values())) == (2, whole - 2)
    assert [line.split(": ")[0] for line in meta.broken] == [f"{name}:3", f"{name}:5"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"supervised": ()}, "no message is supervised"),
        ({"supervised": (2,)}, "no message 2"),
        ({"supervised": (-1,)}, "no message -1"),
        (
            {"messages": ({"role": "user", "content": "When?"}, {"role": "assistant", "content": " \n"})},
            "message 1 is empty",
        ),
    ],
)
def test_a_record_without_an_answer_is_left_out_named_and_counted(
    workspace: Workspace, change: dict[str, object], problem: str
) -> None:
    good = next(read(workspace.store))
    bad = Record.model_validate({**good.model_dump(), **change})
    workspace.store.put("shards/qa/first-day/odd.jsonl", jsonl([bad]))
    meta = shuffle(workspace, 1)
    assert (meta.unanswered, sum(meta.records.values())) == (1, 288)
    assert problem in meta.unanswered_records[0]
    assert good.id in meta.unanswered_records[0]


def test_without_records_it_says_to_generate_some_first(tmp_path: Path, build: Callable[..., Workspace]) -> None:
    empty = Workspace.init(tmp_path / "empty")
    with pytest.raises(UsageError, match=r"no records yet(.|\n)*factory enqueue"):
        shuffle(empty, 1)
    assert not TrainPaths.of(empty).shuffled.exists()
    with pytest.raises(UsageError, match="trainer shuffle"):
        list(shuffled_records(TrainPaths.of(empty), "train"))

    only_unseen = build(tmp_path / "unseen", n_articles=1)
    with pytest.raises(UsageError, match="no record of the train split: 3 shards hold 48 held-out"):
        shuffle(only_unseen, 1)


def test_a_failure_half_way_leaves_the_former_result(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    shuffle(workspace, 1)
    shuffled = TrainPaths.of(workspace).shuffled
    before = contents(shuffled)

    def full_disk(spread: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(trainer.shuffle._Spread, "finish", full_disk)
    with pytest.raises(OSError, match="No space"):
        shuffle(workspace, 2)

    assert contents(shuffled) == before
    assert sorted(path.name for path in workspace.train.iterdir()) == sorted([shuffled.name, shuffled.readlink().name])


KILLED = """
import os, sys
from pathlib import Path
from trainer.paths import new_folder
with new_folder(Path(sys.argv[1])) as folder:
    (folder / "half").write_text("half")
    os.kill(os.getpid(), 9)
"""


def test_a_killed_writer_leaves_the_former_folder_and_is_swept_up_after(tmp_path: Path) -> None:
    target = tmp_path / "target"
    with new_folder(target) as folder:
        (folder / "whole").write_text("first")

    here = Path(__file__).parents[2]
    ended = subprocess.run([sys.executable, "-c", KILLED, str(target)], cwd=here, check=False)

    assert ended.returncode == -signal.SIGKILL
    assert contents(target) == {"whole": b"first"}
    assert len(list(tmp_path.iterdir())) == 3  # the link, its folder, and what the killed one left
    with new_folder(target) as folder:
        (folder / "whole").write_text("second")
    assert contents(target) == {"whole": b"second"}
    assert len(list(tmp_path.iterdir())) == 2


def test_a_link_that_became_a_folder_is_replaced_too(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "old").write_text("old")
    with new_folder(target) as folder:
        (folder / "new").write_text("new")
    assert contents(target) == {"new": b"new"}
    assert len(list(tmp_path.iterdir())) == 2


def test_damaged_files_are_named(workspace: Workspace) -> None:
    shuffle(workspace, 1)
    paths = TrainPaths.of(workspace)
    first = paths.records("train") / "0000.jsonl"
    first.write_bytes(first.read_bytes()[:-10])
    with pytest.raises(Failure, match=r"damaged\n.*0000\.jsonl"):
        list(shuffled_records(paths, "train"))
    first.unlink()
    with pytest.raises(Failure, match=r"damaged\n.*0000\.jsonl"):
        list(shuffled_records(paths, "train"))
    paths.shuffle_meta.write_text("{}")
    with pytest.raises(Failure, match=r"damaged\n.*meta\.json"):
        list(shuffled_records(paths, "train"))
