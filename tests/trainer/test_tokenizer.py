"""The tokenizer: bytes survive, terms are one token each, tags in text stay text; and the loss mask of ChatML."""

from __future__ import annotations

import json
import re
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from foundation.errors import Failure, UsageError
from foundation.workspace import Workspace
from trainer.chatml import ENDOFTEXT, IM_END, IM_START, SPECIAL
from trainer.paths import TrainPaths
from trainer.shuffle import shuffle, shuffled_records
from trainer.tokenizer import (
    MONTHS,
    TERMS,
    YEARS,
    load_tokenizer,
    record_texts,
    save_tokenizer,
    smallest_vocabulary,
    tokenizer_sha,
    train_tokenizer,
    vocabulary_size,
)

TEXTS = [f"The bridge near the mill was built in {month} {year}, in the 1940s." for year in YEARS for month in MONTHS]

DOMAIN = (
    "Red Army",
    "Army",
    "Group Centre",
    "U-boat",
    "U-boats",
    "Józef",
    "O'Connor",
    "U.S.",
    "T-34",
    "B-17",
    "(sic)"[1:4],
    "Mk. [IV]",
)
COMBINING = "\u0301"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """Trained, saved and read again: what the other commands see."""
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    save_tokenizer(train_tokenizer(TEXTS, 640, DOMAIN), path)
    return load_tokenizer(path)


def pieces_of(tokenizer: Tokenizer, text: str) -> list[str]:
    return [tokenizer.decode([token], skip_special_tokens=False) for token in ids_of(tokenizer, text)]


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


@pytest.mark.parametrize("term", [*TERMS, *DOMAIN])
def test_a_term_is_one_token_wherever_it_stands_and_one_more_with_its_space(tokenizer: Tokenizer, term: str) -> None:
    alone, spaced = ids_of(tokenizer, term), ids_of(tokenizer, f" {term}")
    assert len(alone) == len(spaced) == 1
    assert alone != spaced
    for text in (f"in {term}.", f"in  {term}'s", f" {term}-based", f" {term}, {term}’s"):
        assert spaced[0] in ids_of(tokenizer, text), text
    for text in (term, f"({term})", f"mid-{term}", f"“{term}” was", f"\n{term}\n", f"{term}–1955", f"\u00a0{term}"):
        assert ids_of(tokenizer, text).count(alone[0]) == 1, text


TERMED = st.lists(
    st.tuples(
        st.sampled_from(["", " ", "  ", "\n", "\t ", "\u00a0", "(", "“", "-", "_", "é", "1", "x", "'"]),
        st.sampled_from((*DOMAIN, "1942", "May", "Red", "Army")),
        st.sampled_from(["", " ", "'s", "’s", "s", ".", ", ", "\u0301", "_", "-", "\r\n", "²", IM_END]),
    ),
    max_size=8,
).map(lambda parts: "".join(chain.from_iterable(parts)))


@settings(max_examples=500, deadline=None)
@given(TERMED)
def test_text_full_of_terms_comes_back_byte_for_byte(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(ids_of(tokenizer, text), skip_special_tokens=False) == text


@settings(max_examples=300, deadline=None)
@given(TERMED)
def test_every_term_that_is_a_word_of_its_own_is_one_token(tokenizer: Tokenizer, text: str) -> None:
    """Against Python's own idea of words: the leftmost term, the longest of those that begin there, in the text's order."""
    longest = sorted((*TERMS, *DOMAIN), key=len, reverse=True)
    pattern = re.compile(rf"(?<!{COMBINING})(?<![\w²])(?:{'|'.join(map(re.escape, longest))})(?![\w²{COMBINING}])")
    tokens = iter(token.removeprefix(" ") for token in pieces_of(tokenizer, text))
    assert [found for found in pattern.findall(text) if found not in tokens] == []


def test_of_terms_that_overlap_the_leftmost_counts_then_the_longest(tokenizer: Tokenizer) -> None:
    assert pieces_of(tokenizer, "the Red Army Group Centre") == [
        *pieces_of(tokenizer, "the"),
        " Red Army",
        " Group Centre",
    ]
    assert pieces_of(tokenizer, " Red Armyx")[0] != " Red Army"
    assert pieces_of(tokenizer, " U-boat U-boats")[:2] == [" U-boat", " U-boats"]


@pytest.mark.parametrize(
    ("text", "term"),
    [
        ("19421", "1942"),
        ("11942", "1942"),
        ("Mayor", "May"),
        ("Marched", "March"),
        ("May\u0301", "May"),
    ],
)
def test_a_longer_word_is_not_cut_at_a_term(tokenizer: Tokenizer, text: str, term: str) -> None:
    assert not {term, f" {term}"} & set(pieces_of(tokenizer, text) + pieces_of(tokenizer, f" {text}"))


def test_tags_have_one_id_each_which_text_never_gets(tokenizer: Tokenizer) -> None:
    tags = [tokenizer.token_to_id(tag) for tag in SPECIAL]
    assert tags == [0, 1, 2]
    for tag in SPECIAL:
        assert not set(tags) & set(ids_of(tokenizer, f"a {tag}{tag} b"))


def test_the_vocabulary_is_as_asked_where_the_text_allows() -> None:
    assert train_tokenizer(TEXTS, 410).get_vocab_size() == 410
    assert train_tokenizer(TEXTS, 412, ["mill", "in the"]).get_vocab_size() == 412
    assert train_tokenizer(["a"], 60_000).get_vocab_size() == smallest_vocabulary()
    assert train_tokenizer(TEXTS, smallest_vocabulary(["mill"]), ["mill"]).get_vocab_size() == smallest_vocabulary(
        ["mill"]
    )


def test_a_term_that_bpe_learnt_within_a_longer_word_leaves_its_room_to_others() -> None:
    """`May` is a part of `Mayor`, which comes often: both forms of it may be there before the terms are put in."""
    texts = ["the Mayor and Mayors of May-like towns, xMay yMay zMay " * 5] * 20
    tokenizer = train_tokenizer(texts, 400)
    assert tokenizer.get_vocab_size() == 400
    assert sorted(tokenizer.get_vocab().values()) == list(range(400))


def test_bpe_spends_no_merge_on_terms() -> None:
    texts = [text.replace("1940s", "forties") for text in TEXTS]
    made = json.loads(train_tokenizer(texts, 512, ["near the mill"]).to_str())
    merged = {"".join(pair).removeprefix("Ġ") for pair in made["model"]["merges"]}
    assert "bridge" in merged
    assert not merged & {*TERMS, "near", "mill"}
    assert made["model"]["vocab"]["ĠnearĠtheĠmill"]


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
    with pytest.raises(UsageError, match=r"too small.*\n.*\n.*385"):
        train_tokenizer(TEXTS, 384)
    with pytest.raises(UsageError, match=r"65 terms .* take 389"):
        train_tokenizer(TEXTS, 388, ["mill", "near", "May"])


@pytest.mark.parametrize(
    ("term", "why"),
    [
        ("x", "1 characters"),
        ("x" * 65, "65 characters"),
        (".303", "letter or digit"),
        (" mill", "letter or digit"),
        ("mill ", "space"),
        ("the  mill", "two in a row"),
        ("the\tmill", r"U\+0009"),
        ("mill\u200b", r"U\+200B"),
        ("mill\ud800", r"U\+D800"),
        (f"a{IM_END}", "tag"),
    ],
)
def test_what_cannot_be_a_term_is_refused(term: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        train_tokenizer(TEXTS, 512, [term])


@pytest.mark.parametrize(
    ("text", "size"), [("8k", 8192), ("16K", 16384), ("32000", 32000), ("32,000", 32000), ("385", 385)]
)
def test_a_vocabulary_is_written_in_thousands_or_exactly(text: str, size: int) -> None:
    assert vocabulary_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "8kb", "1.5k", "-8k", "300k", "k", "9999999999"])
def test_what_is_no_vocabulary_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not a vocabulary's size"):
        vocabulary_size(text)


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


def test_a_tokenizer_whose_ids_have_gaps_is_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = tmp_path / "tokenizer.json"
    made = json.loads(tokenizer.to_str())
    last = max(made["model"]["vocab"], key=made["model"]["vocab"].__getitem__)
    made["model"]["vocab"][last] = 70_000  # in 16 bits that were 4,464
    path.write_text(json.dumps(made), "utf-8")
    with pytest.raises(Failure, match=r"ids go up to 70,000"):
        load_tokenizer(path)
