"""Layout and loss mask on the level of tokens: an index that is off by one here trains the wrong model without a sign."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.layout import IGNORE, PADDING, Layout, make_batch

PAD = 0


def test_every_array_of_a_batch_worked_out_by_hand() -> None:
    # two contexts of 8: records of 3 and 2 tokens and a tail of 3; then one record that fills its context
    first = [([11, 12, 13], [0, 1, 1]), ([21, 22], [0, 1])]
    second = [([31, 32, 33, 34, 35, 36, 37, 38], [0, 0, 0, 1, 1, 0, 0, 1])]

    batch = make_batch([first, second], 8, PAD)

    assert batch.tokens_N.tolist() == [11, 12, 13, 21, 22, PAD, PAD, PAD, 31, 32, 33, 34, 35, 36, 37, 38]
    X = IGNORE
    assert batch.targets_N.tolist() == [12, 13, X, 22, X, X, X, X, X, X, 34, 35, X, X, 38, X]
    assert batch.supervised_S.tolist() == [0, 1, 3, 10, 11, 14]
    assert batch.positions_N.tolist() == [0, 1, 2, 0, 1, 0, 1, 2, *range(8)]
    assert batch.layout.cu_seqlens.tolist() == [0, 3, 5, 8, 16]
    assert batch.layout.lengths == (3, 2, 3, 8)
    assert batch.layout.document_ids_N(len(batch.tokens_N)).tolist() == [0, 0, 0, 1, 1, 2, 2, 2, *[3] * 8]
    assert batch.layout.max_seqlen == 8
    assert (batch.n_supervised, batch.n_record_tokens) == (6, 13)
    assert batch.layout.cu_seqlens.dtype == torch.int32
    assert {batch.tokens_N.dtype, batch.targets_N.dtype, batch.positions_N.dtype} == {torch.int64}


def test_a_records_first_token_is_never_a_target_of_the_record_before() -> None:
    batch = make_batch([[([11, 12], [1, 1]), ([21, 22], [1, 1]), ([31], [1])]], 6, PAD)
    assert batch.targets_N.tolist() == [12, IGNORE, 22, IGNORE, IGNORE, IGNORE]
    assert batch.n_supervised == 2


def test_one_token_records_and_a_tail_of_one_are_documents() -> None:
    batch = make_batch([[([5], [0]), ([6], [0])]], 3, PAD)
    assert batch.layout.lengths == (1, 1, 1)
    assert batch.positions_N.tolist() == [0, 0, 0]


def test_the_end_of_a_context_is_a_boundary_even_where_records_fill_it() -> None:
    full = [([1, 2, 3, 4], [0, 1, 1, 1])]
    batch = make_batch([full, full], 4, PAD)
    assert batch.layout.cu_seqlens.tolist() == [0, 4, 8]
    assert batch.targets_N.tolist() == [2, 3, 4, IGNORE, 2, 3, 4, IGNORE]


def test_an_empty_context_is_one_document_of_padding() -> None:
    batch = make_batch([[]], 4, PAD)
    assert (batch.layout.lengths, batch.n_record_tokens, batch.n_supervised) == ((4,), 0, 0)


@pytest.mark.parametrize("records", [[([1, 2, 3], [0, 1, 1]), ([4, 5], [0, 1])], [([], [])], [([1, 2], [1])]])
def test_what_does_not_fit_is_refused(records: list[tuple[list[int], list[int]]]) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        make_batch([records], 4, PAD)


@pytest.mark.parametrize("lengths", [[3, 0, 1], [5]])
def test_a_layout_of_impossible_lengths_is_refused(lengths: list[int]) -> None:
    with pytest.raises(ValueError, match="1 to 4"):
        Layout.of(lengths, 4)


def test_bounds_keep_their_length_from_batch_to_batch_and_end_in_repeats() -> None:
    """A compiled step is compiled again for every new shape it meets."""
    for lengths in ((4096,), (100,) * 40 + (96,), (64,) * 64):
        layout = Layout.of(lengths, 4096)
        numbers = layout.bounds.tolist()
        assert len(numbers) == 129
        assert numbers[: len(lengths) + 1] == layout.cu_seqlens.tolist()
        assert set(numbers[len(lengths) :]) == {4096}
    assert len(Layout.of((1,) * 4096, 4096).bounds) == 8193  # more documents than are to be expected: more room
    assert layout.document_ids_N(4096).unique_consecutive().tolist() == list(range(64))


def test_long_padding_is_cut_into_short_documents() -> None:
    """One as long as the context would cost more attention than the records beside it."""
    batch = make_batch([[([5] * 300, [1] * 300)], []], 1000, PAD)
    assert batch.layout.lengths == (300, *[PADDING] * 5, 60, *[PADDING] * 7, 104)
    assert batch.positions_N[300 + PADDING] == 0
    assert (batch.n_record_tokens, batch.n_squares) == (300, 300**2)


RECORD = st.lists(st.tuples(st.integers(1, 99), st.integers(0, 1)), min_size=1, max_size=6)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(RECORD, max_size=5), min_size=1, max_size=3))
def test_a_batch_equals_the_plain_reading_of_its_definition(contexts: list[list[list[tuple[int, int]]]]) -> None:
    """Token by token, with no arithmetic on arrays: document, position, target."""
    T = 30
    batch = make_batch([[tuple(zip(*record, strict=True)) for record in records] for records in contexts], T, PAD)

    tokens, targets, positions, documents = [], [], [], []
    document = 0
    for records in contexts:
        tail = T - sum(len(record) for record in records)
        for record in [*records, [(PAD, 0)] * tail]:
            for place, (token, _) in enumerate(record):
                following = record[place + 1] if place + 1 < len(record) else (0, 0)
                tokens.append(token)
                positions.append(place)
                documents.append(document)
                targets.append(following[0] if following[1] else IGNORE)
            document += bool(record)
    assert batch.tokens_N.tolist() == tokens
    assert batch.targets_N.tolist() == targets
    assert batch.positions_N.tolist() == positions
    assert batch.layout.document_ids_N(len(batch.tokens_N)).tolist() == documents
    assert batch.n_supervised == sum(target != IGNORE for target in targets)
    assert batch.n_record_tokens == sum(len(record) for records in contexts for record in records)
    ends = batch.layout.cu_seqlens.tolist()
    assert set(range(0, len(tokens) + 1, T)) <= set(ends)


def test_a_batch_moves_as_a_whole() -> None:
    batch = make_batch([[([1, 2], [0, 1])]], 4, PAD).to("meta")
    devices = {
        batch.tokens_N.device,
        batch.targets_N.device,
        batch.positions_N.device,
        batch.supervised_S.device,
        batch.layout.device_bounds.device,
    }
    assert {device.type for device in devices} == {"meta"}
    assert (batch.layout.lengths, batch.n_supervised) == ((2, 2), 1)
