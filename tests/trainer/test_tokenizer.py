"""The tokenizer: bytes survive, terms are one token each, tags in text stay text; and the loss mask of ChatML."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from foundation.errors import Failure, UsageError
from foundation.records import messages_of
from foundation.workspace import Workspace
from trainer.chatml import ENDOFTEXT, IM_END, IM_START, SPECIAL, encode_prompt, encode_record
from trainer.paths import TrainPaths
from trainer.shuffle import shuffle, shuffled_records
from trainer.tokenizer import (
    MONTHS,
    TERMS,
    YEARS,
    load_tokenizer,
    record_texts,
    save_tokenizer,
    tokenizer_sha,
    train_tokenizer,
)

TEXTS = [f"The bridge near the mill was built in {month} {year}, in the 1940s." for year in YEARS for month in MONTHS]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """Trained, saved and read again: what the other commands see."""
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    save_tokenizer(train_tokenizer(TEXTS, 512), path)
    return load_tokenizer(path)


def ids_of(tokenizer: Tokenizer, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


PIECES = st.sampled_from(
    [
        "1942",
        " 1942",
        "19421",
        "1940s",
        "May",
        "Mayor",
        " ",
        "\n",
        IM_START,
        IM_END,
        ENDOFTEXT,
        "<|",
        "é",
        "e\u0301",
        "Ġ",
        "年",
    ]
)
TEXT = st.one_of(
    st.text(), st.lists(PIECES, max_size=8).map("".join), st.binary().map(lambda data: data.decode("latin-1"))
)


@settings(max_examples=500, deadline=None)
@given(TEXT)
@example("\x00\ufffd\uffff\U0010ffff\u200f\ufeff")
@example("\r\n\t 1942\u00a01943 ﬁ İ ß")
def test_every_text_comes_back_byte_for_byte(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(ids_of(tokenizer, text), skip_special_tokens=False) == text


@pytest.mark.parametrize("term", TERMS)
def test_a_year_or_month_is_the_same_single_token_wherever_it_stands(tokenizer: Tokenizer, term: str) -> None:
    one = tokenizer.token_to_id(term)
    assert ids_of(tokenizer, term) == [one]
    assert len(ids_of(tokenizer, f" {term}")) == 2  # the space, then the term
    for text in (f" {term}", f"in {term}.", f"({term})", f"{term}'s", f"mid-{term}", f"{term}–1955", f"\n{term}\n"):
        assert ids_of(tokenizer, text).count(one) == 1, text


@pytest.mark.parametrize(
    ("text", "term"), [("19421", "1942"), ("11942", "1942"), ("Mayor", "May"), ("Marched", "March")]
)
def test_a_longer_word_is_not_cut_at_a_term(tokenizer: Tokenizer, text: str, term: str) -> None:
    assert tokenizer.token_to_id(term) not in ids_of(tokenizer, text)


def test_tags_have_one_id_each_which_text_never_gets(tokenizer: Tokenizer) -> None:
    tags = [tokenizer.token_to_id(tag) for tag in SPECIAL]
    assert tags == [0, 1, 2]
    for tag in SPECIAL:
        assert not set(tags) & set(ids_of(tokenizer, f"a {tag}{tag} b"))


def test_the_vocabulary_is_as_asked_where_the_text_allows() -> None:
    assert train_tokenizer(TEXTS, 340).get_vocab_size() == 340
    assert train_tokenizer(["a"], 60_000).get_vocab_size() == 256 + len(SPECIAL) + len(TERMS)


def test_bpe_spends_no_merge_on_terms() -> None:
    made = json.loads(train_tokenizer([text.replace("1940s", "forties") for text in TEXTS], 512).to_str())
    learnt = {token.removeprefix("Ġ") for token in made["model"]["vocab"]}
    assert "bridge" in learnt
    assert not learnt & set(TERMS)


def test_training_is_repeatable(tmp_path: Path) -> None:
    first = save_tokenizer(train_tokenizer(TEXTS, 400), tmp_path / "a.json")
    second = save_tokenizer(train_tokenizer(iter(TEXTS), 400), tmp_path / "b.json")
    assert first == second == tokenizer_sha(tmp_path / "a.json")


def test_only_the_train_split_is_read(workspace: Workspace) -> None:
    shuffle(workspace, 1)
    read = "\n".join(record_texts(shuffled_records(TrainPaths.of(workspace), "train")))
    assert "1939" in read
    assert "1944" not in read  # the unseen article


def test_a_vocabulary_that_cannot_hold_bytes_and_terms_is_refused() -> None:
    with pytest.raises(UsageError, match="too small"):
        train_tokenizer(TEXTS, 300)


@pytest.mark.parametrize("texts", [[], ["", ""]])
def test_no_text_is_refused(texts: list[str]) -> None:
    with pytest.raises(UsageError, match="no text"):
        train_tokenizer(texts, 512)


def test_a_missing_tokenizer_says_how_to_make_one(tmp_path: Path) -> None:
    for read in (load_tokenizer, tokenizer_sha):
        with pytest.raises(UsageError, match="trainer tokenizer"):
            read(tmp_path / "tokenizer.json")


@pytest.mark.parametrize("data", [b"", b"{}", b'{"model": 1}', b"\xff\xfe", b"[1, 2"])
def test_a_file_that_is_no_tokenizer_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(data)
    with pytest.raises(Failure, match=r"not a tokenizer of the trainer's.*\n.*tokenizer\.json"):
        load_tokenizer(path)


def test_a_tokenizer_without_the_tags_is_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(tokenizer.to_str().replace(IM_END, "<|other|>"), "utf-8")
    with pytest.raises(Failure, match=r"has no <\|im_end\|>"):
        load_tokenizer(path)


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


def _trained(tokenizer: Tokenizer, ids: Sequence[int], mask: Sequence[int]) -> list[str]:
    runs = groupby(zip(ids, mask, strict=True), key=lambda pair: pair[1])
    return [
        tokenizer.decode([token for token, _ in run], skip_special_tokens=False) for trained, run in runs if trained
    ]
