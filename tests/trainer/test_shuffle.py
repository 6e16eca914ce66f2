"""Shuffling: every record once, repeatable byte for byte, never half-written, and nothing left out in silence."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import pytest

import trainer.shuffle
import trainer.spread
from foundation.corpus import jsonl
from foundation.errors import Failure, UsageError
from foundation.reader import Manifest, Tombstone, pin, read
from foundation.records import Record, Snippet, Split
from foundation.workspace import Workspace
from tests.support.commands import run, run_json
from trainer.paths import SPLITS, TrainPaths
from trainer.shuffle import Example, shuffle, shuffle_meta, shuffled_examples, shuffled_records


@pytest.fixture
def many_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files and tasks so small that a few hundred records need many."""
    monkeypatch.setattr(trainer.shuffle, "FILE_BYTES", 20_000)
    monkeypatch.setattr(trainer.shuffle, "TASK", 10_000)


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
        for example, record in zip(shuffled_examples(paths, split), records, strict=True):
            assert example == Example(
                id=record.id,
                prompt_type=record.prompt_type,
                family=record.family,
                pair_id=record.pair_id,
                messages=tuple((message.role, message.content) for message in record.messages),
                supervised=record.supervised,
            )
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
    assert one["train/0000.jsonl"] != other["train/0000.jsonl"]
    for split in SPLITS:
        lines = [
            [line for name in sorted(files) if name.startswith(split) for line in files[name].splitlines()]
            for files in (one, other)
        ]
        assert lines[0] != lines[1] and sorted(lines[0]) == sorted(lines[1])


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
        (
            {"messages": ({"role": "user", "content": "When?"}, {"role": "assistant", "content": "\u3000"})},
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

    monkeypatch.setattr(trainer.spread.Spread, "finish", full_disk)
    with pytest.raises(OSError, match="No space"):
        shuffle(workspace, 2)

    assert contents(shuffled) == before
    assert sorted(path.name for path in workspace.train.iterdir()) == sorted([shuffled.name, shuffled.readlink().name])


@pytest.mark.usefixtures("many_files")
def test_records_that_are_shuffled_anew_while_they_are_read_are_not_called_damaged(workspace: Workspace) -> None:
    shuffle(workspace, 1)
    reading = shuffled_examples(TrainPaths.of(workspace), "train")
    next(reading)

    shuffle(workspace, 2)

    with pytest.raises(Failure, match=r"shuffled anew while(.|\n)*same command again"):
        list(reading)


def test_damaged_files_are_named(workspace: Workspace) -> None:
    shuffle(workspace, 1)
    paths = TrainPaths.of(workspace)
    first = paths.records("train") / "0000.jsonl"
    whole = first.read_bytes()
    lines = whole.splitlines(keepends=True)
    of_the_same_length = [b"x" + whole[1:], whole[:14] + b"\xff" + whole[15:], whole.replace(b"[1]", b"1  ", 1)]
    for damaged in (whole[:-10], b"".join(lines[:-1]), whole + lines[0], b"", *of_the_same_length):
        first.write_bytes(damaged)
        for reading in (shuffled_records(paths, "train"), shuffled_examples(paths, "train")):
            with pytest.raises(Failure, match=r"damaged\n.*0000\.jsonl"):
                list(reading)
    first.unlink()
    for reading in (shuffled_records(paths, "train"), shuffled_examples(paths, "train")):
        with pytest.raises(Failure, match=r"damaged\n.*0000\.jsonl"):
            list(reading)
    paths.shuffle_meta.write_text("{}")
    with pytest.raises(Failure, match=r"damaged\n.*meta\.json"):
        list(shuffled_records(paths, "train"))


# The order


@pytest.mark.usefixtures("many_files")
def test_neither_memory_nor_the_number_of_processes_shows_in_the_bytes(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = next(iter(workspace.store.list("shards")))
    workspace.store.put(name, workspace.store.get(name) + b"{torn\n" * 30)
    shuffled = TrainPaths.of(workspace).shuffled
    plain, again = shuffle(workspace, 3), []
    assert plain.broken_lines == 30 and len(plain.broken) == 20
    wanted = contents(shuffled)

    meant = trainer.spread._Cells

    class Cells(meant):  # type: ignore[misc, valid-type]
        def __init__(self, folder: Path, groups: Sequence[str], cells: int) -> None:
            super().__init__(folder, groups, cells)
            again.append(folder.name)

    monkeypatch.setattr(trainer.spread, "_Cells", Cells)
    monkeypatch.setattr(trainer.spread, "AGAIN", 4)
    monkeypatch.setattr(trainer.shuffle, "FORKED", 0)
    for processes, room in (
        (1, 10_000),
        (2, 10_000),
        (3, 1 << 30),
    ):  # 20,000 bytes are spread again, once or twice, or not
        monkeypatch.setattr(trainer.shuffle, "OWN", (64 << 20) - processes * room)
        again.clear()
        assert shuffle(workspace, 3, memory=64 << 20, processes=processes) == plain
        assert contents(shuffled) == wanted
        if processes == 1:  # else it is counted in another process
            assert sum(name.startswith(".again") for name in again) > plain.files  # so some not for the first time


def test_lines_that_draw_one_place_stand_in_the_order_of_their_bytes(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer.spread, "seed_of", lambda *parts: 7)  # every shard draws the same places
    first = shuffle(workspace, 1, processes=1)
    wanted = contents(TrainPaths.of(workspace).shuffled)
    assert sum(first.records.values()) == 288
    lines = wanted["train/0000.jsonl"].splitlines()
    assert len(set(lines)) == first.records["train"]
    assert shuffle(workspace, 1, processes=3) == first
    assert contents(TrainPaths.of(workspace).shuffled) == wanted


def test_places_are_even_and_shards_are_not_bunched(tmp_path: Path, record_of: Callable[..., Record]) -> None:
    """Chi-squared over the files, and neighbours of one shard as often as chance has it."""
    workspace = Workspace.init(tmp_path / "w")
    snippet = Snippet(id="s", article_id="a", title="t", source="s", index=0, sentences=("x",), text="x")
    record = record_of(snippet, [("user", "q"), ("assistant", "a")])
    for shard in range(40):
        rows = [record.model_copy(update={"id": f"{shard}-{n}", "article_id": f"a{shard}"}) for n in range(100)]
        (workspace.root / f"shards/wh/who/u{shard}.jsonl").parent.mkdir(parents=True, exist_ok=True)
        (workspace.root / f"shards/wh/who/u{shard}.jsonl").write_bytes(jsonl(rows))

    shuffle(workspace, 1)

    order = [example.id.split("-") for example in shuffled_examples(TrainPaths.of(workspace), "train")]
    together = sum(one[0] == other[0] for one, other in pairwise(order))
    assert 60 < together < 140  # 4,000 / 40 = 100 expected, and 10 is the standard deviation
    runs = sum(int(one[1]) + 1 == int(other[1]) and one[0] == other[0] for one, other in pairwise(order))
    assert runs < 8  # 1 expected
    tenth = len(order) // 10
    for shard in range(40):
        counts = [sum(name == str(shard) for name, _ in order[at * tenth :][:tenth]) for at in range(10)]
        assert sum((count - 10) ** 2 / 10 for count in counts) < 33.7  # chi-squared, 9 degrees: one in 10,000


# Shares


def ids(workspace: Workspace, split: Split = "train") -> set[str]:
    return {example.id for example in shuffled_examples(TrainPaths.of(workspace), split)}


def test_a_larger_share_holds_a_smaller_one_and_another_key_draws_anew(workspace: Workspace) -> None:
    whole = shuffle(workspace, 1).records
    shares = {}
    for share in (0.1, 0.3, 0.6, 1.0):
        meta = shuffle(workspace, 1, share=share, share_key="k")
        shares[share] = ids(workspace)
        assert meta.not_shared + meta.records["train"] == whole["train"]
        assert (meta.records["phrasing"], meta.records["unseen"]) == (whole["phrasing"], whole["unseen"])
        assert abs(len(shares[share]) / whole["train"] - share) < 0.15
    assert shares[0.1] < shares[0.3] < shares[0.6] < shares[1.0]
    order = [example.id for example in shuffled_examples(TrainPaths.of(workspace), "train")]
    shuffle(workspace, 1, share=0.3, share_key="k")
    thinned = [example.id for example in shuffled_examples(TrainPaths.of(workspace), "train")]
    assert thinned == [id_ for id_ in order if id_ in shares[0.3]]  # thinning moves nobody
    shuffle(workspace, 1, share=0.3, share_key="other")
    assert not shares[0.3] <= ids(workspace) and not ids(workspace) <= shares[0.3]


def test_a_pair_is_taken_or_left_together(workspace: Workspace) -> None:
    shuffle(workspace, 1)
    pairs = [example.pair_id for example in shuffled_examples(TrainPaths.of(workspace), "train") if example.pair_id]
    assert set(Counter(pairs).values()) == {2}
    shuffle(workspace, 1, share=0.4)
    kept = Counter(example.pair_id for example in shuffled_examples(TrainPaths.of(workspace), "train"))
    assert 0 < len(kept) - 1 < len(set(pairs))
    assert {count for pair, count in kept.items() if pair} == {2}


def test_the_command_takes_its_share_from_the_settings_or_the_line(
    tmp_path: Path, build: Callable[..., Workspace]
) -> None:
    workspace = build(tmp_path / "w", train={"share": 0.5, "share_key": "mine"})
    half = run_json("trainer", "shuffle", cwd=workspace.root)
    assert (half["share"], half["share_key"]) == (0.5, "mine") and half["not_shared"] > 0
    fewer = run_json("trainer", "shuffle", "--share", "10%", "--memory", "64M", cwd=workspace.root)
    assert fewer["share"] == 0.1 and fewer["not_shared"] > half["not_shared"]
    told = run("trainer", "shuffle", "--share", "10%", cwd=workspace.root).stdout
    assert f"outside the share of 0.1 {fewer['not_shared']}" in " ".join(told.split())
    before = contents(TrainPaths.of(workspace).shuffled)
    for wrong, why in (
        ("--memory=63M", "too little"),
        ("--memory=much", "not a size"),
        ("--share=200%", "not a share"),
    ):
        assert why in run("trainer", "shuffle", wrong, cwd=workspace.root, code=2).stderr
    assert "take a larger share" in run("trainer", "shuffle", "--share", "0.0001", cwd=workspace.root, code=2).stderr
    assert contents(TrainPaths.of(workspace).shuffled) == before
