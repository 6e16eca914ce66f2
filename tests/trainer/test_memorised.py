"""Memorised spans: the longest run of training tokens in an answer, checked against looking at every pair of positions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer import memorised
from trainer.memorised import Run, longest_runs
from trainer.pack import PackedData, PackMeta

NOTHING = Run(0, 0, -1)
Records = Sequence[Sequence[int]]


class Packs:
    """What `longest_runs` reads of `PackedData`, from lists."""

    def __init__(self, records: Records, dtype: type = np.uint16, vocabulary: int = 100) -> None:
        self.tokens = np.asarray([token for record in records for token in record], dtype=dtype)
        self.records = np.concatenate(([0], np.cumsum([len(record) for record in records]))).astype(np.int64)
        self.meta = type("Meta", (), {"vocabulary": vocabulary})


def runs(answers: Records, records: Records, least: int = 3, **packs: object) -> list[Run]:
    return longest_runs(answers, Packs(records, **packs), least)  # type: ignore[arg-type]


def by_looking_everywhere(answers: Records, records: Records, least: int) -> list[Run]:
    """The same by definition: every start in the answer, every start in every record."""
    told = []
    for answer in answers:
        best = NOTHING
        for number, record in enumerate(records):
            for start in range(len(answer)):
                for at in range(len(record)):
                    n = 0
                    while start + n < len(answer) and at + n < len(record) and answer[start + n] == record[at + n]:
                        n += 1
                    if n >= least and (
                        n > best.tokens or ((n, number) == (best.tokens, best.record) and start < best.start)
                    ):
                        best = Run(n, start, number)
        told.append(best)
    return told


def texts(alphabet: int, longest: int) -> st.SearchStrategy[list[list[int]]]:
    return st.lists(st.lists(st.integers(0, alphabet - 1), max_size=longest), max_size=6)


@settings(max_examples=300, deadline=None)
@given(answers=texts(3, 24), records=texts(3, 30), least=st.integers(1, 9), chunk=st.integers(1, 9))
def test_runs_are_those_found_by_looking_everywhere(answers: Records, records: Records, least: int, chunk: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memorised, "CHUNK", chunk)
        patch.setattr(memorised, "HELD", chunk)
        assert runs(answers, records, least) == by_looking_everywhere(answers, records, least)


@settings(max_examples=100, deadline=None)
@given(data=st.data(), alphabet=st.sampled_from([2, 40, 70_000]))
def test_and_where_answers_are_cut_from_the_records(data: st.DataObject, alphabet: int) -> None:
    records = data.draw(
        st.lists(st.lists(st.integers(0, alphabet - 1), min_size=1, max_size=60), min_size=1, max_size=4)
    )
    answers = []
    for _ in range(data.draw(st.integers(1, 3))):
        answer: list[int] = []
        for _ in range(data.draw(st.integers(0, 3))):
            record = data.draw(st.sampled_from(records))
            begin = data.draw(st.integers(0, len(record) - 1))
            answer += record[begin : data.draw(st.integers(begin, len(record)))]
        answers.append(answer)
    found = runs(answers, records, 4, dtype=np.uint32, vocabulary=alphabet)
    assert found == by_looking_everywhere(answers, records, 4)


def test_a_run_never_crosses_a_records_border_nor_an_answers() -> None:
    records = [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert runs([[3, 4, 5, 6, 7]], records) == [Run(3, 2, 1)]
    assert runs([[2, 3, 4, 5, 6]], records) == [Run(3, 0, 0)]
    assert runs([[3, 4, 5, 6]], records) == [NOTHING]
    assert runs([[1, 2], [3, 4]], [[1, 2, 3, 4]]) == [NOTHING, NOTHING]


def test_a_whole_answer_is_found_wherever_it_stands() -> None:
    draw = np.random.default_rng(1)
    records = [draw.integers(0, 90, 300).tolist() for _ in range(20)]
    answers = [records[7], records[3][5:261], records[19][-8:], records[0][:8], records[0][:7]]
    assert runs(answers, records, 8) == [Run(300, 0, 7), Run(256, 0, 3), Run(8, 0, 19), Run(8, 0, 0), NOTHING]


def test_no_answer_and_an_empty_one_and_no_records() -> None:
    assert runs([], [[1, 2, 3]]) == []
    assert runs([[], [1, 2]], [[1, 2, 3]]) == [NOTHING, NOTHING]
    assert runs([[1, 2, 3], []], []) == [NOTHING, NOTHING]
    assert runs([[1, 2, 3], []], [[], [0, 1, 2, 3], []]) == [Run(3, 0, 1), NOTHING]


def test_of_runs_as_long_the_earliest_record_is_told_then_the_earliest_in_the_answer() -> None:
    records = [[9, 9, 9, 4, 5, 6], [1, 2, 3], [4, 5, 6], [1, 2, 3, 4]]
    assert runs([[1, 2, 3, 0, 4, 5, 6]], records) == [Run(3, 4, 0)]
    assert runs([[1, 2, 3, 0, 4, 5, 6]], records[1:]) == [Run(3, 0, 0)]
    assert runs([[4, 5, 6, 0, 4, 5, 6]], records) == [Run(3, 0, 0)]
    assert runs([[1, 2, 3, 4]], records) == [Run(4, 0, 3)]  # a longer one that comes later is still the longer one
    # One answer's longer run at a place must not hide another's shorter one at an earlier place.
    assert runs([[1, 2, 3, 4], [1, 2, 3, 7]], records) == [Run(4, 0, 3), Run(3, 0, 1)]


def test_ids_that_no_record_holds_match_nothing() -> None:
    assert runs([[200, 201, 202, 1, 2, 3]], [[1, 2, 3]]) == [Run(3, 3, 0)]
    assert runs([[70_001, 70_002, 70_003]], [[4465, 4466, 4467]]) == [NOTHING]  # the same in 16 bits
    with pytest.raises(ValueError, match="no token -1"):
        runs([[1, -1, 2]], [[1, 2, 3]])
    with pytest.raises(ValueError, match="at least 0"):
        runs([[1, 2]], [[1, 2]], least=0)


def test_tokens_beyond_the_vocabulary_that_is_told_are_nobody_elses() -> None:
    assert runs([[5, 99, 99, 99]], [[5, 300, 300, 300]], vocabulary=100) == [NOTHING]


def test_a_template_in_every_record_hides_no_longer_run() -> None:
    template = list(range(20))
    draw = np.random.default_rng(2)
    records = [template + draw.integers(20, 100, 10).tolist() for _ in range(3_000)]
    answers = [template + records[1_000 + number][20:23] for number in range(200)]
    told = runs(answers, records, 8)
    for answer, run in zip(answers, told, strict=True):
        first = next(number for number, record in enumerate(records) if record[:23] == answer)
        assert run == Run(23, 0, first)


def test_packs_on_disk_are_read_as_they_lie(tmp_path: Path) -> None:
    records = [[1, 2, 3, 4, 5], [6, 7, 8, 9]]
    packs = Packs(records)
    packs.tokens.tofile(tmp_path / "tokens.bin")
    np.ones(9, dtype=np.uint8).tofile(tmp_path / "mask.bin")
    np.save(tmp_path / "records.npy", packs.records)
    np.save(tmp_path / "types.npy", np.zeros(2, dtype=np.uint16))
    meta = dict.fromkeys(("seed", "packs", "supervised", "too_long", "longest", "text_bytes", "pad_id"), 0)
    meta |= {"split": "train", "context": 8, "dtype": "uint16", "vocabulary": 10, "records": 2, "tokens": 9}  # type: ignore[dict-item]
    names = {"tokenizer": "", "manifest": "", "digest": "", "types": ["a/b"], "families": ["a"]}
    data = PackedData(tmp_path, PackMeta.model_validate(meta | names))
    assert longest_runs([[0, 7, 8, 9], [1, 2, 3, 4, 5]], data, 3) == [Run(3, 1, 1), Run(5, 0, 0)]
