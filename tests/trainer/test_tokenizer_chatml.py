"""ChatML: what of a record is trained on, raw text, and the chat template that other programs render."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from foundation.errors import Failure
from foundation.records import Record, messages_of
from trainer.chatml import (
    CHAT_TEMPLATE,
    ENDOFTEXT,
    IM_END,
    IM_START,
    SPECIAL,
    encode_flat,
    encode_prompt,
    encode_raw,
    encode_record,
    encode_records,
)
from trainer.tokenizer import load_tokenizer, save_tokenizer, train_tokenizer

TEXTS = [f"The bridge near the user's mill was built in May {year}.\n\nIt stands." for year in range(1900, 1951)]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    save_tokenizer(train_tokenizer(TEXTS, 560, ["near the mill"]), path)
    return path


@pytest.fixture(scope="module")
def tokenizer(file: Path) -> Tokenizer:
    return load_tokenizer(file)


PIECES = st.sampled_from(
    [" 1942", "1940s", "May", " ", "\n", "\n\n", "\r\n", "\t", "user", IM_START, IM_END, ENDOFTEXT, "é", "年"]
)
TEXT = st.one_of(st.text(), st.lists(PIECES, max_size=8).map("".join))

ROLES = st.sampled_from(["system", "user", "assistant"])


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(ROLES, TEXT, st.booleans()), min_size=1, max_size=5))
def test_answers_and_their_closing_tag_are_trained_on_and_nothing_else(
    tokenizer: Tokenizer, turns: list[tuple[str, str, bool]]
) -> None:
    """Each run of trained tokens is one supervised message's text and its `<|im_end|>`; the whole is plain ChatML."""
    messages = messages_of([(role, text) for role, text, _ in turns])  # type: ignore[misc]
    supervised = [index for index, (_, _, trained) in enumerate(turns) if trained]

    ids, mask = encode_record(tokenizer, messages, supervised)

    assert len(ids) == len(mask)
    whole = "".join(f"{IM_START}{role}\n{text}{IM_END}\n" for role, text, _ in turns)
    assert tokenizer.decode(ids, skip_special_tokens=False) == whole
    assert (ids, mask) == encode_record(tokenizer, [(role, text) for role, text, _ in turns], supervised)
    assert _trained(tokenizer, ids, mask) == [turns[index][1] + IM_END for index in supervised]
    end = tokenizer.token_to_id(IM_END)
    ends = [trained for token, trained in zip(ids, mask, strict=True) if token == end]
    assert ends == [
        int(trained) for _, _, trained in turns
    ]  # one real tag a message, trained on where it is supervised


def test_a_prompt_is_what_a_record_holds_before_its_answer(tokenizer: Tokenizer) -> None:
    messages = messages_of([("system", "Be short."), ("user", "When?"), ("assistant", "In 1942.")])
    ids, mask = encode_record(tokenizer, messages, [2])
    assert encode_prompt(tokenizer, messages[:2]) == ids[: mask.index(1)]


def test_a_batch_is_its_records_one_behind_the_other(tokenizer: Tokenizer, record_of: Callable[..., Record]) -> None:
    """Whatever brings the messages: a record, plain (messages, supervised), or nothing to train on."""
    pairs = [("system", "Be short."), ("user", "When?"), ("assistant", "May 1942."), ("user", ""), ("assistant", "x")]
    items = [(pairs, (2, 4)), (pairs[1:3], (1,)), ([], ()), (pairs[:2], ())]
    ids, mask, lengths = encode_flat(tokenizer, items)
    apart = [encode_record(tokenizer, *item) for item in items]
    assert encode_records(tokenizer, items) == apart
    assert lengths.tolist() == [len(one) for one, _ in apart]
    assert ids.tolist() == [token for one, _ in apart for token in one]
    assert mask.tolist() == [trained for _, one in apart for trained in one]
    assert (ids.dtype, mask.dtype) == (np.uint32, np.uint8)
    assert [len(part) for part in encode_flat(tokenizer, [])] == [0, 0, 0]


def test_a_role_that_chatml_does_not_have_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(Failure, match=r"'tool'.*\n.*system, user, assistant"):
        encode_record(tokenizer, [("tool", "x")], ())


@settings(max_examples=200, deadline=None)
@given(st.lists(TEXT, max_size=4))
def test_raw_text_is_trained_on_whole_and_closed_by_one_real_tag(tokenizer: Tokenizer, texts: list[str]) -> None:
    encoded = encode_raw(tokenizer, texts)
    assert [tokenizer.decode(ids, skip_special_tokens=False) for ids, _ in encoded] == [
        text + ENDOFTEXT for text in texts
    ]
    assert all(mask == [1] * len(ids) for ids, mask in encoded)
    tags = {tokenizer.token_to_id(tag) for tag in SPECIAL}
    assert all([token for token in ids if token in tags] == [tokenizer.token_to_id(ENDOFTEXT)] for ids, _ in encoded)


@pytest.fixture(scope="module")
def theirs(file: Path, tmp_path_factory: pytest.TempPathFactory) -> object:
    """The same file, saved and read again by `transformers`, with our chat template."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("theirs")
    made = PreTrainedTokenizerFast(tokenizer_file=str(file), eos_token=IM_END, pad_token=ENDOFTEXT)
    made.chat_template = CHAT_TEMPLATE
    made.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


NO_TAGS = TEXT.filter(lambda text: "<|" not in text)  # a template renders text first, so there a tag in a text is a tag


@settings(max_examples=200, deadline=None)
@given(NO_TAGS)
def test_transformers_reads_the_same_ids_and_writes_the_same_text(
    tokenizer: Tokenizer, theirs: object, text: str
) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert theirs.encode(text, add_special_tokens=False) == ids  # type: ignore[attr-defined]
    assert theirs.decode(ids, clean_up_tokenization_spaces=False) == text  # type: ignore[attr-defined]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(ROLES, NO_TAGS), min_size=1, max_size=5))
def test_the_chat_template_renders_what_a_record_holds(
    tokenizer: Tokenizer, theirs: object, turns: list[tuple[str, str]]
) -> None:
    """One turn and many, a system message anywhere, and text that begins or ends in white space."""
    messages = [{"role": role, "content": text} for role, text in turns]
    render = theirs.apply_chat_template  # type: ignore[attr-defined]
    whole = render(messages, tokenize=True, return_dict=False)
    asked = render(messages, tokenize=True, add_generation_prompt=True, return_dict=False)
    assert whole == encode_record(tokenizer, turns, ())[0]
    assert asked == encode_prompt(tokenizer, turns)


def _trained(tokenizer: Tokenizer, ids: Sequence[int], mask: Sequence[int]) -> list[str]:
    runs = groupby(zip(ids, mask, strict=True), key=lambda pair: pair[1])
    return [
        tokenizer.decode([token for token, _ in run], skip_special_tokens=False) for trained, run in runs if trained
    ]
