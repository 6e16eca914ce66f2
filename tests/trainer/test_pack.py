"""Packing: whole records, each once, contexts nearly full, files that say what they hold; and the commands that make them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from typer.testing import CliRunner

from foundation.console import new_app
from foundation.corpus import Corpus, jsonl
from foundation.errors import Failure, UsageError
from foundation.reader import pin, read
from foundation.records import Record
from foundation.tables import MixSettings
from foundation.workspace import Workspace
from trainer.chatml import ENDOFTEXT, IM_END, encode_record
from trainer.commands import pack as pack_commands
from trainer.commands import shuffle as shuffle_commands
from trainer.commands import tokenizer as tokenizer_commands
from trainer.epochs import Epochs
from trainer.layout import IGNORE
from trainer.pack import ENCODED, ENCODED_TEXT, PackedData, TokenFiles, _batches, pack
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


def plain(data: PackedData) -> Epochs:
    """One epoch of every record once."""
    return Epochs(data, MixSettings(), seed=1, epochs=1)


def written(folder: Path, tokenizer: Tokenizer, records: Sequence[Record]) -> PackedData:
    """Token files of these records, in a new folder."""
    folder.mkdir()
    with TokenFiles(folder, tokenizer, 128) as files:
        files.add(records)
        files.finish("train", "", "", 1)
    return PackedData.open(folder)


def contents(folder: Path) -> dict[str, bytes]:
    made = folder.resolve()
    return {str(path.relative_to(made)): path.read_bytes() for path in made.rglob("*") if path.is_file()}


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
        kinds = [(data.meta.types[kind], data.meta.families[kind]) for kind in data.types]
        assert kinds == [(record.prompt_type, record.family) for record in shuffled_records(paths, meta.split)]
        assert meta.tokens == sum(len(ids) for ids, _ in encoded)
        assert meta.supervised == sum(sum(mask) for _, mask in encoded)


def test_a_batch_trains_on_every_answer_and_its_end_and_on_nothing_else(ready: Workspace) -> None:
    pack(ready)
    paths = TrainPaths.of(ready)
    tokenizer = load_tokenizer(paths.tokenizer)
    data = PackedData.open(paths.pack("train"))
    answers = []
    epochs = plain(data)
    for first in range(0, epochs.contexts, 3):
        batch = data.batch(epochs.take(first, 3))
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


def test_packing_is_repeatable(tmp_path: Path, build: Callable[..., Workspace]) -> None:
    packs = []
    for name in ("a", "b"):
        made = build(tmp_path / name)
        prepare(made)
        pack(made)
        packs.append(contents(TrainPaths.of(made).packs))
    assert packs[0] == packs[1]


def test_the_manifest_of_the_records_lies_beside_the_packs(ready: Workspace) -> None:
    pack(ready)
    paths = TrainPaths.of(ready)
    assert (paths.packs / "manifest.json").read_bytes() == paths.manifest.read_bytes()


def test_the_number_of_contexts_is_that_of_the_first_plain_epoch(ready: Workspace) -> None:
    for meta in pack(ready):
        assert meta.packs == plain(PackedData.open(TrainPaths.of(ready).pack(meta.split))).contexts


def test_the_digest_tells_packs_with_other_tokens_apart(ready: Workspace) -> None:
    first = pack(ready)[0]
    path = sorted(TrainPaths.of(ready).records("train").resolve().iterdir())[0]
    path.write_text(path.read_text().replace("Monday", "monday"))
    second = pack(ready)[0]
    assert first.digest != second.digest
    assert first.records == second.records


def test_fewer_records_are_tokenised_at_once_where_they_are_long() -> None:
    rows = ["x" * (number % 2_000 * 5) for number in range(9_000)] + [""] * 9_000
    batches = list(_batches(rows, len))
    assert [row for batch in batches for row in batch] == rows
    assert all(len(batch) <= ENCODED and sum(map(len, batch[:-1])) < ENCODED_TEXT for batch in batches)
    assert len(batches) < 20


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
    assert (meta.too_long, meta.unanswered, meta.records) == (1, 0, 206)
    assert meta.longest > 128
    assert meta.too_long_records == (f"{record.prompt_type} {'f' * 24}: {meta.longest} tokens",)


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
    data = written(tmp_path / "wide", tokenizer, records)
    assert data.meta.dtype == "uint32"
    assert tokenizer.token_to_id("word69999") in data.batch([[0]]).tokens_N.tolist()


def test_a_record_without_an_answer_is_left_out_counted_and_named(ready: Workspace, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(TrainPaths.of(ready).tokenizer)
    good = next(read(ready.store))
    bad = [good.model_copy(update={"id": f"{number:024x}", "supervised": (5,) * (number % 2)}) for number in range(30)]
    data = written(tmp_path / "some", tokenizer, [*bad[:10], good, *bad[10:]])
    assert (data.meta.records, data.meta.unanswered, data.meta.too_long) == (1, 30, 0)
    assert data.meta.unanswered_records == tuple(
        f"{good.prompt_type} {one.id}: nothing is trained on" for one in bad[:20]
    )
    assert data.record(0)[0].tolist() == encode_record(tokenizer, good.messages, good.supervised)[0]


def test_where_nothing_is_supervised_the_former_packs_stay(ready: Workspace) -> None:
    pack(ready)
    paths = TrainPaths.of(ready)
    before = contents(paths.packs)
    for path in paths.records("train").resolve().iterdir():
        path.write_text(path.read_text().replace('"supervised":[1]', '"supervised":[7]'))
    with pytest.raises(UsageError, match=r"206 records .* have no answer(.|\n)*trainer shuffle"):
        pack(ready)
    assert contents(paths.packs) == before


def test_in_a_dialogue_of_many_turns_every_supervised_answer_is_trained_on(
    ready: Workspace, tmp_path: Path, record_of: Callable[..., Record]
) -> None:
    tokenizer = load_tokenizer(TrainPaths.of(ready).tokenizer)
    snippet = next(Corpus(ready.store).all_snippets())
    turns = [(role, f"{role[0]} {number}") for number in range(4) for role in ("user", "assistant")]
    dialogue = record_of(snippet, turns, supervised=(1, 3, 7))  # not the answer at 5: the user corrects it
    data = written(tmp_path / "turns", tokenizer, [dialogue])
    runs: list[list[int]] = [[]]
    for target in data.batch([[0]]).targets_N.tolist():
        if target != IGNORE:
            runs[-1].append(target)
        elif runs[-1]:
            runs.append([])
    assert [tokenizer.decode(run, skip_special_tokens=False) for run in runs if run] == [
        f"a {number}{IM_END}" for number in (0, 1, 3)
    ]


def test_filling_up_adds_contexts_of_padding_alone(ready: Workspace) -> None:
    pack(ready)
    data = PackedData.open(TrainPaths.of(ready).pack("train"))
    contexts = plain(data).take(0, 2)
    short, filled = data.batch(contexts), data.batch(contexts, fill=4)
    assert filled.tokens_N.shape == (4 * 128,)
    assert filled.tokens_N[: 2 * 128].tolist() == short.tokens_N.tolist()
    assert set(filled.tokens_N[2 * 128 :].tolist()) == {data.meta.pad_id}
    assert set(filled.targets_N[2 * 128 :].tolist()) == {IGNORE}
    assert (filled.n_supervised, filled.n_record_tokens) == (short.n_supervised, short.n_record_tokens)
    assert data.batch(contexts, fill=1).tokens_N.tolist() == short.tokens_N.tolist()


def test_a_split_without_records_packs_to_nothing(tmp_path: Path, build: Callable[..., Workspace]) -> None:
    made = build(tmp_path / "w", n_articles=2)
    for name in list(made.store.list("shards")):
        made.store.put(name, jsonl([record for record in map_records(made, name) if record.split != "unseen"]))
    prepare(made)
    pack(made)
    data = PackedData.open(TrainPaths.of(made).pack("unseen"))
    assert (len(data), data.meta.tokens, data.meta.efficiency) == (0, 0, 0)
    assert plain(data).contexts == 0
    with pytest.raises(IndexError, match="of 0"):
        data.batch([[0]])


def map_records(workspace: Workspace, name: str):  # type: ignore[no-untyped-def]
    return [record for record in read(workspace.store) if name.endswith(f"{record.prompt_type}/{record.unit}.jsonl")]


@pytest.mark.parametrize("index", [-1, 10**6])
def test_a_record_that_is_not_there_is_refused(ready: Workspace, index: int) -> None:
    pack(ready)
    with pytest.raises(IndexError, match="of 206"):
        PackedData.open(TrainPaths.of(ready).pack("train")).batch([[0, index]])


def test_records_that_are_too_long_together_are_refused(ready: Workspace) -> None:
    pack(ready)
    with pytest.raises(ValueError, match="does not fit"):
        PackedData.open(TrainPaths.of(ready).pack("train")).batch([range(100)])


def test_packs_of_another_tokenizer_are_refused(ready: Workspace) -> None:
    pack(ready)
    with pytest.raises(UsageError, match=r"another tokenizer(.|\n)*trainer pack"):
        PackedData.open(TrainPaths.of(ready).pack("train"), tokenizer_sha="0" * 64)


def test_missing_packs_say_how_to_make_them(ready: Workspace) -> None:
    with pytest.raises(UsageError, match=r"no packs(.|\n)*trainer pack"):
        PackedData.open(TrainPaths.of(ready).pack("train"))


@pytest.mark.parametrize("name", ["tokens.bin", "mask.bin", "records.npy", "types.npy", "meta.json"])
@pytest.mark.parametrize("keep", [0, 0.5, -1])
def test_a_torn_file_is_found_when_opened(ready: Workspace, name: str, keep: float) -> None:
    pack(ready)
    path = TrainPaths.of(ready).pack("train") / name
    data = path.read_bytes()
    path.write_bytes(data[: -8 if keep < 0 else int(len(data) * keep)])
    with pytest.raises(Failure, match=rf"damaged: {name} (.|\n)*trainer pack"):
        PackedData.open(TrainPaths.of(ready).pack("train"))


def test_open_packs_outlive_a_new_packing(ready: Workspace) -> None:
    pack(ready)
    data = PackedData.open(TrainPaths.of(ready).pack("train"))
    before = data.batch([[0]]).tokens_N.tolist()
    shuffle(ready, 2)
    pack(ready)
    assert data.batch([[0]]).tokens_N.tolist() == before
    assert PackedData.open(TrainPaths.of(ready).pack("train")).batch([[0]]).tokens_N.tolist() != before


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
    assert packed["train"]["records_per_step"] == pytest.approx(2 * packed["train"]["records_per_context"], abs=0.1)
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
