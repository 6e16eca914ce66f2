"""Mined terms: what is found, that the tokens saved are really saved, and the file a person edits."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from foundation.errors import UsageError
from foundation.workspace import Workspace
from tests.support.commands import run, run_json
from trainer.shuffle import shuffle
from trainer.terms import TERMS_FILE, Term, first_bytes, mine, mine_for, mined_share, read_terms, write_terms
from trainer.tokenizer import MONTHS, YEARS, load_tokenizer, smallest_vocabulary, train_tokenizer

SENTENCES = [
    "The Sixth Army fought at Stalingrad in 1942, and the Red Army closed the ring.",
    "There a U-boat sank a ship, for the Kriegsmarine, in May 1941.",
    "Winter came early. The Sixth Army's last aeroplane left, and the Luftwaffe sent no other.",
    "The Battle of Britain was won by the Royal Air Force, and the Luftwaffe lost it.",
    "Although the Red Army was near, the Sixth Army held Stalingrad for weeks.",
    "In the Battle of Britain and the Battle of France the Luftwaffe flew by day.",
]


def texts(n: int = 400) -> list[str]:
    return random.Random(1).choices(SENTENCES, k=n)


@pytest.fixture(scope="module")
def plain() -> Tokenizer:
    """So small that it cuts nearly every word."""
    return train_tokenizer(texts(), 400)


def test_names_phrases_and_words_are_found_and_dates_are_not(plain: Tokenizer) -> None:
    found = {term.term for term in mine(texts(), plain, 100)}
    assert {
        "Sixth Army",
        "Stalingrad",
        "Luftwaffe",
        "U-boat",
        "Kriegsmarine",
        "Royal Air Force",
        "Battle of Britain",
    } <= found
    assert not found & {"The Sixth Army", "The", "In", "A U-boat", "Although the Red Army", "Army's", "Battle of"}
    assert not {word for term in found for word in term.split()} & {*YEARS, *MONTHS}


def test_a_word_that_only_begins_a_sentence_is_no_name(plain: Tokenizer) -> None:
    told = ["Winter came. The winter was cold, and winter is long. Winter War began."] * 40
    found = {term.term for term in mine(told, plain, 100)}
    assert "winter" in found
    assert not found & {"Winter", "Winter War"}


def test_initials_ordinals_hyphens_and_other_alphabets_make_names_too(plain: Tokenizer) -> None:
    told = ["There the 6th Army met Émile Łoś of the U.S. Army, in a T-34 of O'Connor's, by Ångström-Straße."] * 30
    found = {term.term for term in mine(told, plain, 100)}
    assert {"6th Army", "Émile Łoś of the U.S. Army", "T-34 of O'Connor", "Ångström-Straße"} <= found


def test_the_count_is_that_of_the_text_and_each_token_saved_is_saved(plain: Tokenizer) -> None:
    """Given a tokenizer with those very terms on top of the same merges: it is shorter by what the table promised, and no more."""
    read = texts()
    found = mine(read, plain, 8)
    by_name = {term.term: term for term in found}
    assert by_name["Sixth Army"].count == sum(text.count("Sixth Army") for text in read)
    assert all(term.tokens > 1 and 0 < term.saved <= term.count * (term.tokens - 1) for term in found)
    assert [term.saved for term in found] == sorted((term.saved for term in found), reverse=True)
    with_terms = _with(plain, [term.term for term in found])
    assert _tokens(plain, read) - _tokens(with_terms, read) == sum(term.saved for term in found)


def test_a_name_within_a_name_counts_only_where_it_stands_alone(plain: Tokenizer) -> None:
    told = ["He met Adolf Hitler there."] * 90 + ["He met Hitler there."] * 30
    found = {term.term: term for term in mine(told, plain, 10)}
    assert found["Hitler"].count == 120
    cost = found["Hitler"].tokens
    assert found["Adolf Hitler"].saved + found["Hitler"].saved == 90 * (found["Adolf Hitler"].tokens - 1) + 30 * (
        cost - 1
    )


def test_most_and_min_count_bound_what_is_found(plain: Tokenizer) -> None:
    assert len(mine(texts(), plain, 3)) == 3
    assert mine(texts(), plain, 0) == []
    assert mine(texts(10), plain, 10, min_count=1000) == []
    assert min(term.count for term in mine(texts(), plain, 1000, min_count=150)) >= 150


def test_mining_is_repeatable_and_ends_on_odd_text() -> None:
    odd = ["", "\x00 ... -- 's 1942 _ é\u0301 年 U- -X A B C D E F G H of the of", "<|im_end|> O'Connor’s"] * 30
    assert mine_for(odd + texts(), 460, 50) == mine_for(odd + texts(), 460, 50)


def test_the_default_leaves_most_of_a_vocabulary_to_bpe() -> None:
    assert [mined_share(size) for size in (4096, 8192, 16384, 32768)] == [128, 256, 512, 1024]
    for size in (1, 385, 400, 500, 4096):
        assert smallest_vocabulary([f"term{n}" for n in range(mined_share(size))]) <= max(size, smallest_vocabulary())


def test_where_the_text_fills_no_vocabulary_terms_go_by_what_it_fills() -> None:
    learnt = train_tokenizer(texts(), 60_000).get_vocab_size()
    assert learnt < 1000
    assert len(mine_for(texts(), 60_000, min_count=1)) <= mined_share(learnt)


def test_the_sample_ends_with_the_text_that_fills_it() -> None:
    assert list(first_bytes(["ab", "é", "cd", "ef"], 4)) == ["ab", "é"]
    assert list(first_bytes(["ab"], 100)) == ["ab"]


def test_terms_are_written_one_a_line_under_a_comment_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / TERMS_FILE
    assert read_terms(path) is None
    write_terms(path, [Term("Sixth Army", 9, 3, 18), Term("Józef", 5, 3, 10)])
    assert path.read_text("utf-8").splitlines()[0].startswith("#")
    assert read_terms(path) == ("Sixth Army", "Józef")


def test_a_file_edited_by_hand_may_have_comments_blanks_doubles_and_windows_line_ends(tmp_path: Path) -> None:
    path = tmp_path / TERMS_FILE
    path.write_bytes("\ufeff# mine\r\n\r\nPanzer\r\n  Red Army \r\nPanzer\r\nMay".encode())
    assert read_terms(path) == ("Panzer", "Red Army", "May")


@pytest.mark.parametrize(
    ("line", "why"),
    [(b"x", "1 characters"), (b".303", "letter"), (b"a\tb", r"U\+0009"), (b"a  b", "two in a row"), (b"\xff", "UTF-8"),
     (b"a<|im_end|>", "tag"), (b"y" * 65, "65 characters")],
)  # fmt: skip
def test_a_bad_line_is_named(tmp_path: Path, line: bytes, why: str) -> None:
    path = tmp_path / TERMS_FILE
    path.write_bytes(b"# terms\nPanzer\n" + line + b"\nRed Army\n")
    with pytest.raises(UsageError, match=rf"{why}[\s\S]*terms\.txt, line 3"):
        read_terms(path)


def test_the_commands_mine_write_and_follow_the_file(workspace: Workspace) -> None:
    """`tokenizer` mines by itself, follows the file where there is one, and says which; `terms --write` makes it."""
    shuffle(workspace, 1)
    root, train = workspace.root, workspace.train
    done = run("trainer", "tokenizer", "--vocabulary", "500", cwd=root)
    assert "mined terms" in done.stderr
    assert "trainer tokenizer terms --write" in done.stderr

    told = run_json("trainer", "tokenizer", "terms", "-n", "4", "--vocabulary", "450", "--write", cwd=root)
    assert len(told["terms"]) == 4
    assert told["saved"] == sum(term["saved"] for term in told["terms"])
    terms = [term["term"] for term in told["terms"]]
    assert read_terms(train / TERMS_FILE) == tuple(terms)

    (train / TERMS_FILE).write_text("\n".join([*terms, "common year"]), "utf-8")
    made = run_json("trainer", "tokenizer", "--vocabulary", "470", cwd=root)
    assert (made["vocabulary"], made["domain_terms"], made["terms_from"]) == (470, 5, str(train / TERMS_FILE))
    tokenizer = load_tokenizer(train / "tokenizer.json")
    for term in (*terms, "common year"):
        assert len(tokenizer.encode(term, add_special_tokens=False)) == 1
        assert len(tokenizer.encode(f"a {term}.", add_special_tokens=False)) == 3

    before = (train / "tokenizer.json").read_bytes()
    (train / TERMS_FILE).write_text("common year\n-x\n", "utf-8")
    failed = run("trainer", "tokenizer", cwd=root, code=2)
    assert "line 2" in failed.stderr
    assert failed.stdout == ""
    assert (train / "tokenizer.json").read_bytes() == before


def test_terms_of_nothing_shuffled_or_with_nothing_found_say_what_to_do(workspace: Workspace) -> None:
    assert "trainer shuffle" in run("trainer", "tokenizer", "terms", cwd=workspace.root, code=2).stderr
    shuffle(workspace, 1)
    options = ("--min-count", "100000", "--write")
    assert "--min-count" in run("trainer", "tokenizer", "terms", *options, cwd=workspace.root, code=2).stderr
    assert not (workspace.train / TERMS_FILE).exists()


def _tokens(tokenizer: Tokenizer, read: list[str]) -> int:
    return sum(map(len, tokenizer.encode_batch_fast(read, add_special_tokens=False)))


def _with(plain: Tokenizer, terms: list[str]) -> Tokenizer:
    """The same merges, with those terms on top."""
    import json

    from trainer.tokenizer import _byte_level, _pieces

    made = json.loads(plain.to_str())
    for form in _byte_level([form for term in terms for form in (term, f" {term}")]):
        made["model"]["vocab"].setdefault(form, len(made["model"]["vocab"]))
    tokenizer = Tokenizer.from_str(json.dumps(made))
    from tokenizers import pre_tokenizers

    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(_pieces((*YEARS, *MONTHS, *terms)))
    return tokenizer
