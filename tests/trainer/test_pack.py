"""Packing: whole records, each once, contexts nearly full, files that say what they hold; and the commands that make them."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from typer.testing import CliRunner

from foundation.console import new_app, progress
from foundation.corpus import jsonl
from foundation.errors import Failure, UsageError
from foundation.reader import pin, read
from foundation.workspace import Workspace
from trainer.chatml import ENDOFTEXT, IM_END, encode_record
from trainer.commands import pack as pack_commands
from trainer.commands import shuffle as shuffle_commands
from trainer.commands import tokenizer as tokenizer_commands
from trainer.layout import IGNORE
from trainer.pack import PackedData, pack, pack_lengths, pack_split
from trainer.paths import SPLITS, TrainPaths
from trainer.shuffle import shuffle, shuffled_records
from trainer.tokenizer import load_tokenizer, record_texts, save_tokenizer, tokenizer_sha, train_tokenizer


@pytest.fixture
def ready(workspace: Workspace) -> Workspace:
    """A workspace with shuffled records and a tokenizer."""
    prepare(workspace)
    return workspace


def prepare(workspace: Workspace) -> None:
    shuffle(workspace, 1)
    paths = TrainPaths.of(workspace)
    texts = record_texts(shuffled_records(paths, "train"))
    save_tokenizer(train_tokenizer(texts, workspace.settings.train.vocabulary), paths.tokenizer)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        f"{path.parent.name}/{path.name}": path.read_bytes() for path in folder.resolve().rglob("*") if path.is_file()
    }


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 50), max_size=200), st.integers(1, 60))
def test_no_context_overflows_and_every_record_is_in_one(lengths: list[int], window: int) -> None:
    order, packs = pack_lengths(lengths, 50, window)
    assert sorted(order.tolist()) == list(range(len(lengths)))
    assert packs[0] == 0
    assert packs[-1] == len(lengths)
    for start, stop in itertools.pairwise(packs):
        assert start < stop
        assert sum(lengths[number] for number in order[start:stop]) <= 50


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 20), max_size=60))
def test_it_is_best_fit_longest_first(lengths: list[int]) -> None:
    """As many tokens in each context as a search through all open contexts would put there."""
    free: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [left for left in free if left >= length]
        left = min(fitting) if fitting else 20
        if fitting:
            free.remove(left)
        free.append(left - length)
    order, packs = pack_lengths(lengths, 20)
    made = [20 - sum(lengths[number] for number in order[a:b]) for a, b in itertools.pairwise(packs)]
    assert sorted(made) == sorted(free)


@pytest.mark.parametrize("context", [1024, 4096])
def test_contexts_are_at_least_99_percent_full(context: int) -> None:
    draw = random.Random(1)
    lengths = [min(context, max(12, int(draw.lognormvariate(4.9, 0.6)))) for _ in range(20_000)]
    order, packs = pack_lengths(lengths, context)
    assert len(order) == 20_000
    assert sum(lengths) / ((len(packs) - 1) * context) >= 0.99


def test_packs_hold_every_record_once_whole_and_as_encoded(ready: Workspace) -> None:
    metas = pack(ready)

    paths = TrainPaths.of(ready)
    tokenizer = load_tokenizer(paths.tokenizer)
    assert [meta.split for meta in metas] == list(SPLITS)
    for meta in metas:
        data = PackedData.open(paths.pack(meta.split), tokenizer_sha=tokenizer_sha(paths.tokenizer))
        assert data.meta == meta
        packed = [
            tuple(map(tuple, (ids.tolist(), mask.tolist()))) for ids, mask in map(data.record, range(meta.records))
        ]
        encoded = [
            encode_record(tokenizer, record.messages, record.supervised)
            for record in shuffled_records(paths, meta.split)
        ]
        assert packed == [(tuple(ids), tuple(mask)) for ids, mask in encoded]
        assert sorted(data.order.tolist()) == list(range(meta.records))
        assert meta.tokens == sum(len(ids) for ids, _ in encoded)
        assert meta.supervised == sum(sum(mask) for _, mask in encoded)


def test_a_batch_trains_on_every_answer_and_its_end_and_on_nothing_else(ready: Workspace) -> None:
    pack(ready)
    paths = TrainPaths.of(ready)
    tokenizer = load_tokenizer(paths.tokenizer)
    data = PackedData.open(paths.pack("train"))
    answers = []
    for first in range(0, len(data), 3):
        batch = data.batch(range(first, min(first + 3, len(data))))
        bounds = batch.layout.cu_seqlens.tolist()
        for start, stop in itertools.pairwise(bounds):
            targets = [target for target in batch.targets_N[start:stop].tolist() if target != IGNORE]
            if set(batch.tokens_N[start:stop].tolist()) == {data.meta.pad_id}:
                assert not targets
            else:
                answers.append(tokenizer.decode(targets, skip_special_tokens=False))
    wanted = [record.messages[1].content + IM_END for record in shuffled_records(paths, "train")]
    assert sorted(answers) == sorted(wanted)


def test_the_meta_names_what_the_packs_were_made_from(ready: Workspace) -> None:
    paths = TrainPaths.of(ready)
    meta = pack(ready)[0]
    assert meta.manifest == pin(ready.store).fingerprint
    assert meta.tokenizer == tokenizer_sha(paths.tokenizer)
    tokenizer = load_tokenizer(paths.tokenizer)
    assert (meta.pad_id, meta.vocabulary) == (tokenizer.token_to_id(ENDOFTEXT), tokenizer.get_vocab_size())
    assert (meta.context, meta.dtype, meta.seed) == (128, "uint16", 1)
    assert meta.efficiency == meta.tokens / (meta.packs * 128) > 0.8


def test_packing_is_repeatable_and_its_order_is_the_seeds(tmp_path: Path, build: Callable[..., Workspace]) -> None:
    packs = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        made = build(tmp_path / name, train={"seed": seed})
        prepare(made)
        pack(made)
        packs.append(contents(TrainPaths.of(made).packs))
    one, same, other = packs
    assert one == same
    assert one["train/tokens.bin"] == other["train/tokens.bin"]
    assert one["train/order.npy"] != other["train/order.npy"]


def test_contexts_are_not_sorted_by_the_length_of_their_records(
    tmp_path: Path, build: Callable[..., Workspace]
) -> None:
    made = build(tmp_path / "w", n_articles=12)
    prepare(made)
    pack(made)
    data = PackedData.open(TrainPaths.of(made).pack("train"))
    lengths = np.diff(data.records)
    longest = [int(lengths[data.order[start]]) for start in data.packs[:-1]]
    assert longest not in (sorted(longest), sorted(longest, reverse=True))


def test_a_record_longer_than_the_context_is_left_out_and_counted(ready: Workspace) -> None:
    record = next(record for record in read(ready.store) if record.split == "train")
    long = record.model_copy(
        update={
            "id": "f" * 24,
            "messages": (record.messages[0], record.messages[0].model_copy(update={"content": "why " * 200})),
        }
    )
    ready.store.put("shards/qa/first-day/long.jsonl", jsonl([long]))
    shuffle(ready, 1)
    meta = pack(ready)[0]
    assert (meta.too_long, meta.records) == (1, 206)
    assert meta.longest > 128


def test_where_no_record_fits_the_former_packs_stay(ready: Workspace) -> None:
    pack(ready)
    before = contents(TrainPaths.of(ready).packs)
    (ready.root / "factory.toml").write_text("version = 1\n[train]\ncontext = 64\n")
    lines = [
        record.model_copy(
            update={"messages": (record.messages[0].model_copy(update={"content": "z" * 500}), *record.messages[1:])}
        )
        for record in read(ready.store)
    ]
    for name in list(ready.store.list("shards")):
        ready.store.delete(name)
    ready.store.put("shards/qa/first-day/long.jsonl", jsonl(lines))
    shuffle(ready, 1)
    with pytest.raises(
        UsageError, match=r"all 206 records .* longer than a context of 64 tokens(.|\n)*the longest has"
    ):
        pack(Workspace(ready.root))
    assert contents(TrainPaths.of(ready).packs) == before


def test_a_vocabulary_above_16_bits_is_stored_in_32(ready: Workspace, tmp_path: Path) -> None:
    tokenizer: Tokenizer = load_tokenizer(TrainPaths.of(ready).tokenizer)
    tokenizer.add_tokens([f"word{number}" for number in range(70_000)])
    record = next(read(ready.store))
    message = record.messages[0].model_copy(update={"content": "word69999"})
    records = [record.model_copy(update={"messages": (message, *record.messages[1:])})]
    (tmp_path / "wide").mkdir()
    with progress("packed") as bar:
        meta = pack_split(
            records,
            tmp_path / "wide",
            split="train",
            tokenizer=tokenizer,
            tokenizer_sha="",
            manifest="",
            context=128,
            seed=1,
            bar=bar,
        )
    assert meta.dtype == "uint32"
    assert tokenizer.token_to_id("word69999") in PackedData.open(tmp_path / "wide").batch([0]).tokens_N.tolist()


def test_a_split_without_records_packs_to_nothing(tmp_path: Path, build: Callable[..., Workspace]) -> None:
    made = build(tmp_path / "w", n_articles=2)
    for name in list(made.store.list("shards")):
        made.store.put(name, jsonl([record for record in map_records(made, name) if record.split != "unseen"]))
    prepare(made)
    pack(made)
    data = PackedData.open(TrainPaths.of(made).pack("unseen"))
    assert (len(data), data.meta.tokens, data.meta.efficiency) == (0, 0, 0)
    with pytest.raises(IndexError, match="pack 0 of 0"):
        data.batch([0])


def map_records(workspace: Workspace, name: str):  # type: ignore[no-untyped-def]
    return [record for record in read(workspace.store) if name.endswith(f"{record.prompt_type}/{record.unit}.jsonl")]


@pytest.mark.parametrize("index", [-1, 10**6])
def test_a_pack_that_is_not_there_is_refused(ready: Workspace, index: int) -> None:
    pack(ready)
    with pytest.raises(IndexError, match="pack"):
        PackedData.open(TrainPaths.of(ready).pack("train")).batch([index])


def test_packs_of_another_tokenizer_are_refused(ready: Workspace) -> None:
    pack(ready)
    with pytest.raises(UsageError, match=r"another tokenizer(.|\n)*trainer pack"):
        PackedData.open(TrainPaths.of(ready).pack("train"), tokenizer_sha="0" * 64)


def test_missing_packs_say_how_to_make_them(ready: Workspace) -> None:
    with pytest.raises(UsageError, match=r"no packs(.|\n)*trainer pack"):
        PackedData.open(TrainPaths.of(ready).pack("train"))


@pytest.mark.parametrize("name", ["tokens.bin", "mask.bin", "records.npy", "order.npy", "packs.npy", "meta.json"])
@pytest.mark.parametrize("keep", [0, 0.5, -1])
def test_a_torn_file_is_found_when_opened(ready: Workspace, name: str, keep: float) -> None:
    pack(ready)
    path = TrainPaths.of(ready).pack("train") / name
    data = path.read_bytes()
    path.write_bytes(data[: -8 if keep < 0 else int(len(data) * keep)])
    with pytest.raises(Failure, match=r"damaged(.|\n)*trainer pack"):
        PackedData.open(TrainPaths.of(ready).pack("train"))


def test_open_packs_outlive_a_new_packing(ready: Workspace) -> None:
    pack(ready)
    data = PackedData.open(TrainPaths.of(ready).pack("train"))
    before = data.batch([0]).tokens_N.tolist()
    shuffle(ready, 2)
    pack(ready)
    assert data.batch([0]).tokens_N.tolist() == before
    assert PackedData.open(TrainPaths.of(ready).pack("train")).batch([0]).tokens_N.tolist() != before


def test_the_three_commands_one_after_the_other(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACTORY_WORKSPACE", str(workspace.root))
    app = new_app("test")
    for module in (shuffle_commands, tokenizer_commands, pack_commands):
        module.register(app)

    def result(*arguments: str) -> dict[str, object]:
        ran = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
        assert ran.exit_code == 0
        return dict(json.loads(ran.stdout))

    shuffled = result("shuffle", "--seed", "5")
    assert (shuffled["records"], shuffled["seed"]) == ({"train": 206, "phrasing": 34, "unseen": 48}, 5)
    tokenizer = result("tokenizer")
    assert tokenizer["sha256"] == tokenizer_sha(TrainPaths.of(workspace).tokenizer)
    packed = result("pack")["splits"]
    assert isinstance(packed, dict)
    assert [packed[split]["records"] for split in SPLITS] == [206, 34, 48]
    assert packed["train"]["efficiency"] > 0.8
    assert packed["train"]["vocabulary"] == tokenizer["vocabulary"]
    for command in ("shuffle", "tokenizer", "pack"):
        ran = CliRunner().invoke(app, [command], catch_exceptions=False)
        assert ran.exit_code == 0
        assert not ran.stdout.lstrip().startswith("{")


@pytest.mark.parametrize(("command", "first"), [("tokenizer", "trainer shuffle"), ("pack", "trainer shuffle")])
def test_a_command_that_comes_too_early_says_which_is_first(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, command: str, first: str
) -> None:
    monkeypatch.setenv("FACTORY_WORKSPACE", str(workspace.root))
    app = new_app("test")
    for module in (shuffle_commands, tokenizer_commands, pack_commands):
        module.register(app)
    ran = CliRunner().invoke(app, [command])
    assert isinstance(ran.exception, UsageError)
    assert first in str(ran.exception)
