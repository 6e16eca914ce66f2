"""A run's contexts: every record as often as the mix says, each epoch in another order, whichever piece is asked for."""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foundation.errors import UsageError
from foundation.tables import MixSettings
from trainer.epochs import Epochs
from trainer.pack import PackedData, PackMeta

CONTEXT = 64
PLAIN = MixSettings()
TWO_TYPES = {"qa/one": 40, "qa/two": 60}


def packs(folder: Path, sizes: dict[str, int], lengths: Sequence[int] = ()) -> PackedData:
    """Token files of so many records of each prompt type, one type behind the other; lengths are drawn if not given."""
    draw = random.Random(5)
    count = sum(sizes.values())
    lengths = list(lengths) or [draw.randint(3, CONTEXT // 2) for _ in range(count)]
    folder.mkdir(parents=True, exist_ok=True)
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    np.save(folder / "records.npy", offsets)
    np.save(folder / "types.npy", np.repeat(np.arange(len(sizes), dtype=np.uint16), list(sizes.values())))
    (folder / "tokens.bin").write_bytes(np.arange(offsets[-1], dtype=np.uint16).tobytes())
    (folder / "mask.bin").write_bytes(b"\1" * int(offsets[-1]))
    meta = PackMeta(
        split="train",
        context=CONTEXT,
        dtype="uint16",
        vocabulary=100,
        pad_id=0,
        tokenizer="",
        manifest="",
        seed=1,
        records=count,
        packs=1,
        tokens=int(offsets[-1]),
        supervised=int(offsets[-1]),
        too_long=0,
        longest=max(lengths, default=0),
        text_bytes=0,
        digest="",
        types=tuple(sizes),
        families=tuple(name.partition("/")[0] for name in sizes),
    )
    (folder / "meta.json").write_text(meta.model_dump_json())
    return PackedData.open(folder)


def taken(epochs: Epochs, epoch: int) -> Counter[int]:
    """How often each record is in the contexts of one epoch."""
    first, behind = epochs.bounds[epoch : epoch + 2]
    return Counter(number for context in epochs.take(first, behind - first) for number in context.tolist())


def as_lists(contexts: Sequence[np.ndarray]) -> list[list[int]]:  # type: ignore[type-arg]
    return [context.tolist() for context in contexts]


@pytest.fixture
def data(tmp_path: Path) -> PackedData:
    return packs(tmp_path / "packs", TWO_TYPES)


def test_every_epoch_has_every_record_once_in_contexts_that_hold_them(data: PackedData) -> None:
    epochs = Epochs(data, PLAIN, seed=1, epochs=3)
    lengths = np.diff(data.records)
    for epoch in range(3):
        assert taken(epochs, epoch) == Counter(range(100))
    for context in epochs.take(0, epochs.contexts):
        assert 0 < lengths[context].sum() <= CONTEXT


def test_every_epoch_is_shuffled_and_packed_anew(data: PackedData) -> None:
    epochs = Epochs(data, PLAIN, seed=1, epochs=2)
    first, second = (
        as_lists(epochs.take(start, stop - start))
        for start, stop in zip(epochs.bounds[:-1], epochs.bounds[1:], strict=True)
    )
    together = {frozenset(context) for context in first}
    assert sum(frozenset(context) in together for context in second) < len(second) / 4
    longest = [max(np.diff(data.records)[context]) for context in first]
    assert longest != sorted(longest, reverse=True)  # as they were filled


@pytest.mark.parametrize("mix", [PLAIN, MixSettings(weights={"qa/one": 1.5, "qa/two": 0.25})])
def test_whichever_piece_is_asked_for_the_contexts_are_the_same(data: PackedData, mix: MixSettings) -> None:
    whole = as_lists(Epochs(data, mix, seed=3, epochs=4).take(0, 10**6))
    draw, pieces = random.Random(2), Epochs(data, mix, seed=3, epochs=4)
    got: list[list[int]] = []
    while len(got) < len(whole):
        got += as_lists(pieces.take(len(got), draw.randint(1, 40)))
    assert got == whole
    for _ in range(30):  # backwards and forwards, and from the middle in another process's object
        start, count = draw.randrange(len(whole)), draw.randint(0, 50)
        assert as_lists(pieces.take(start, count)) == whole[start : start + count]
        assert as_lists(Epochs(data, mix, seed=3, epochs=4).take(start, count)) == whole[start : start + count]


def test_a_longer_run_begins_as_a_shorter_one(data: PackedData) -> None:
    short, long = (Epochs(data, PLAIN, seed=1, epochs=epochs) for epochs in (1.5, 3))
    assert as_lists(long.take(0, short.contexts)) == as_lists(short.take(0, 10**6))


def test_the_order_is_the_seeds(data: PackedData) -> None:
    one, same, other = (as_lists(Epochs(data, PLAIN, seed=seed, epochs=1).take(0, 99)) for seed in (1, 1, 2))
    assert one == same != other


@pytest.mark.parametrize(("epochs", "parts"), [(1, 1.0), (0.5, 0.5), (2.25, 0.25), (0.001, 0.001), (3, 1.0)])
def test_the_last_epoch_may_be_cut(data: PackedData, epochs: float, parts: float) -> None:
    run = Epochs(data, PLAIN, seed=1, epochs=epochs)
    whole = run.bounds[-1] - run.bounds[-2]
    assert run.contexts == run.bounds[-2] + -(-whole * parts // 1)
    assert len(run.take(0, 10**6)) == run.contexts
    assert run.take(run.contexts, 5) == []
    assert len(run.take(run.contexts - 1, 5)) == 1


def test_epochs_are_told_by_the_contexts_consumed(data: PackedData) -> None:
    run = Epochs(data, MixSettings(curriculum=[{"qa/one": 3}, {}]), seed=1, epochs=2)
    assert run.epoch_at(0) == 0
    assert run.epoch_at(run.bounds[1]) == 1
    assert run.epoch_at(run.contexts) == 2
    assert run.epoch_at(run.bounds[1] + (run.bounds[2] - run.bounds[1]) // 2) == pytest.approx(1.5, abs=0.05)
    assert run.bounds[1] > run.bounds[2] - run.bounds[1]  # the first epoch is the larger


def test_positions_before_the_first_are_refused(data: PackedData) -> None:
    with pytest.raises(IndexError):
        Epochs(data, PLAIN, seed=1, epochs=1).take(-1, 3)


@pytest.mark.parametrize("weight", [0, 1, 3])
def test_a_whole_weight_takes_each_record_so_often_in_every_epoch(data: PackedData, weight: int) -> None:
    epochs = Epochs(data, MixSettings(weights={"qa/one": weight}), seed=1, epochs=3)
    for epoch in range(3):
        times = taken(epochs, epoch)
        assert [times[number] for number in range(40)] == [weight] * 40
        assert [times[number] for number in range(40, 100)] == [1] * 60


def test_half_a_weight_takes_the_two_halves_in_turn(data: PackedData) -> None:
    epochs = Epochs(data, MixSettings(weights={"qa/one": 0.5, "qa/two": 2.5}), seed=1, epochs=4)
    per_epoch = [taken(epochs, epoch) for epoch in range(4)]
    for early, late in ((0, 1), (2, 3)):
        assert sum(per_epoch[early][number] for number in range(40)) == 20
        assert all(per_epoch[early][number] + per_epoch[late][number] == 1 for number in range(40))
        assert all(per_epoch[early][number] in (2, 3) for number in range(40, 100))
        assert all(per_epoch[early][number] + per_epoch[late][number] == 5 for number in range(40, 100))


def test_weights_whose_sums_are_not_exact_leave_no_record_behind(tmp_path: Path) -> None:
    data = packs(tmp_path / "packs", {"qa/one": 5, "qa/two": 60})
    epochs = Epochs(
        data, MixSettings(curriculum=[{"qa/one": 0.3}, {"qa/one": 0.7}, {"qa/one": 0.05}]), seed=1, epochs=14
    )
    total: Counter[int] = Counter()
    for epoch in range(14):
        total += taken(epochs, epoch)
        times = [total[number] for number in range(5)]
        assert max(times) - min(times) <= 1, epoch


@pytest.mark.parametrize("epochs", [float("inf"), float("nan")])
def test_epochs_without_end_are_refused(data: PackedData, epochs: float) -> None:
    with pytest.raises(UsageError, match=r"never ends(.|\n)*train\.epochs"):
        Epochs(data, PLAIN, seed=1, epochs=epochs)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0.01, 3), min_size=1, max_size=5))
def test_over_epochs_every_record_is_taken_as_often_as_the_weights_add_up_to(weights: list[float]) -> None:
    mix = MixSettings(curriculum=[{"qa/one": weight} for weight in weights])
    with tempfile.TemporaryDirectory() as folder:
        epochs = Epochs(packs(Path(folder), TWO_TYPES), mix, seed=2, epochs=len(weights))
        total = Counter[int]()
        for epoch, weight in enumerate(weights, 1):
            times = taken(epochs, epoch - 1)
            assert all(int(weight) <= times[number] <= -(-weight // 1) + (weight % 1 == 0) for number in range(40))
            total += times
            assert all(abs(total[number] - sum(weights[:epoch])) < 1 + 1 / 40 for number in range(40))


def test_raw_text_has_its_share_of_the_tokens_and_its_documents_come_in_turn(tmp_path: Path) -> None:
    data = packs(tmp_path / "packs", {"qa/one": 200, "raw/article": 30})
    lengths = np.diff(data.records)
    total = Counter[int]()
    epochs = Epochs(data, MixSettings(raw=0.2), seed=1, epochs=5)
    for epoch in range(5):
        times = taken(epochs, epoch)
        tokens = {number: int(lengths[number]) * often for number, often in times.items()}
        raw = sum(size for number, size in tokens.items() if number >= 200)
        assert raw == pytest.approx(0.2 * sum(tokens.values()), abs=CONTEXT)
        assert [times[number] for number in range(200)] == [1] * 200
        total += times
    often = [total[number] for number in range(200, 230)]
    assert max(often) - min(often) <= 1
    assert min(often) > 0


def test_raw_text_is_left_out_unless_a_share_is_asked_for(tmp_path: Path) -> None:
    data = packs(tmp_path / "packs", {"qa/one": 20, "raw/article": 10})
    assert taken(Epochs(data, PLAIN, seed=1, epochs=1), 0) == Counter(range(20))


def test_an_epoch_of_raw_text_alone_has_each_document_once(tmp_path: Path) -> None:
    data = packs(tmp_path / "packs", {"qa/one": 20, "raw/article": 10})
    epochs = Epochs(data, MixSettings(curriculum=[{"raw": 1}, {}]), seed=1, epochs=2)
    assert taken(epochs, 0) == Counter(range(20, 30))
    assert taken(epochs, 1) == Counter(range(20))


def test_raw_text_takes_no_weights_place(tmp_path: Path) -> None:
    """The share is beside whatever the weights take: twice the records, twice the raw text."""
    data = packs(tmp_path / "packs", {"qa/one": 100, "raw/article": 10})
    one, two = (
        Epochs(data, MixSettings(raw=0.5, weights={"qa": weight}), seed=1, epochs=1).selection(0) for weight in (1, 2)
    )
    assert (two >= 100).sum() == pytest.approx(2 * (one >= 100).sum(), abs=2)


def test_the_curriculum_changes_the_mix_from_epoch_to_epoch(data: PackedData) -> None:
    mix = MixSettings(weights={"qa/two": 2}, curriculum=[{"qa/one": 0}, {"qa": 1, "qa/two": 0}])
    epochs = Epochs(data, mix, seed=1, epochs=3)
    assert taken(epochs, 0) == Counter({number: 2 for number in range(40, 100)})
    assert taken(epochs, 1) == taken(epochs, 2) == Counter(range(40))


def test_a_mix_that_takes_nothing_is_refused_with_its_epoch(data: PackedData) -> None:
    with pytest.raises(UsageError, match=r"nothing in epoch 2(.|\n)*weight"):
        Epochs(data, MixSettings(curriculum=[{}, {"qa": 0}]), seed=1, epochs=2)


def test_a_split_without_records_has_no_contexts(tmp_path: Path) -> None:
    run = Epochs(packs(tmp_path / "packs", {}), PLAIN, seed=1, epochs=1)
    assert (run.contexts, run.take(0, 5), run.epoch_at(0)) == (0, [], 1.0)


def test_nothing_is_written(data: PackedData) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in data.folder.iterdir()}
    Epochs(data, PLAIN, seed=1, epochs=2).take(0, 1000)
    assert {path.name: path.stat().st_mtime_ns for path in data.folder.iterdir()} == before


def test_more_records_than_a_window_are_each_there_once(tmp_path: Path) -> None:
    count = 250_000
    lengths = np.random.default_rng(1).integers(3, 40, count).tolist()
    run = Epochs(packs(tmp_path / "packs", {"qa/one": count}, lengths), PLAIN, seed=1, epochs=1)
    order, bounds = run.packing(0)
    assert np.array_equal(np.sort(order), np.arange(count))
    sums = np.add.reduceat(np.asarray(lengths)[order], bounds[:-1])
    assert sums.max() <= CONTEXT
    assert sums.mean() / CONTEXT > 0.998
