"""`trainer tokenizer compare`: what is measured, on what, and tokenizers that are not ours."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from foundation.errors import UsageError
from foundation.workspace import Workspace
from tests.support.commands import run, run_json
from trainer.chatml import encode_record
from trainer.shuffle import Example, shuffle
from trainer.terms import TERMS_FILE
from trainer.tokenizer import save_tokenizer, train_tokenizer
from trainer.tokenizer_compare import MEASURES, Row, Sample, compare, read_files


def example(number: int) -> Example:
    year = 1900 + number % 51
    turns = (
        ("user", f"What of {year}, asked No {number}?"),
        ("assistant", f"The Red Army stood on the Volga in {year}."),
    )
    return Example(str(number), "qa/x", "qa", "", turns, (1,))


EXAMPLES = [example(number) for number in range(400)]


def rows_of(sizes: list[int], files: list[Path], tmp_path: Path, **more: object) -> list[Row]:
    sample = Sample.of(EXAMPLES, 1 << 20, EXAMPLES[:5])
    options = {"terms": None, "current": tmp_path / "none.json", "vocabulary": 400, **more}
    return compare(sample, sizes, read_files(files), **options)  # type: ignore[arg-type]


def lossy(path: Path) -> Path:
    """Lower case, words alone, no bytes and no tags: what others may bring."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=["[UNK]"], show_progress=False)
    tokenizer.train_from_iterator([text for one in EXAMPLES for _, text in one.messages], trainer)
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=64)
    tokenizer.save(str(path))
    return path


def test_what_measures_does_not_train_and_the_sample_is_bounded() -> None:
    sample = Sample.of(EXAMPLES, 1 << 20)
    assert [one.id for one in sample.measured] == [str(number) for number in range(0, 400, MEASURES)]
    assert len(sample.training) == 2 * (400 - len(sample.measured))
    assert not {one.messages[0][1] for one in sample.measured} & set(sample.training)
    assert len(Sample.of(EXAMPLES, 5_000).training) < len(sample.training) / 2


def test_too_few_records_are_refused() -> None:
    with pytest.raises(UsageError, match="too few records"):
        Sample.of(EXAMPLES[:1], 1 << 20)


def test_a_row_counts_what_records_cost_in_chatml(tmp_path: Path) -> None:
    sample = Sample.of(EXAMPLES, 1 << 20)
    (row,) = rows_of([420], [], tmp_path, terms=("Red Army", "Volga"))
    made = train_tokenizer(sample.training, 420, ("Red Army", "Volga"))
    costs = [len(encode_record(made, one.messages, one.supervised)[0]) for one in sample.measured]
    assert row.tokens_per_record == round(sum(costs) / len(costs), 3)
    assert row.tokens_per_unseen == pytest.approx(
        sum(len(encode_record(made, one.messages, ())[0]) for one in EXAMPLES[:5]) / 5, abs=1e-3
    )
    assert (row.vocabulary, row.terms, row.current, row.lossless) == (made.get_vocab_size(), 2, False, True)
    assert (row.tokens_per_term, row.one_token, row.tokens_per_date) == (1, 1, 1)
    assert 0 < row.used <= 1


def test_terms_of_its_own_make_a_tokenizer_shorter_than_the_same_without(tmp_path: Path) -> None:
    """400 has 63 years and months and no room to learn the words; what is mined for it pays."""
    without, with_terms, larger = rows_of([420, 460], [], tmp_path, plain=True)[:3]
    assert (without.name, with_terms.name, larger.name) == ("420, no terms", "420", "460, no terms")
    assert without.terms == 0
    assert with_terms.terms
    assert with_terms.one_token > without.one_token
    assert with_terms.tokens_per_record < without.tokens_per_record
    assert larger.tokens_per_record < without.tokens_per_record


def test_another_tokenizer_is_held_to_the_same_and_what_it_loses_is_said(tmp_path: Path) -> None:
    """Its truncation, padding and missing tags change no count."""
    path = lossy(tmp_path / "other.json")
    (row,) = rows_of([], [path], tmp_path, terms=("Red Army",))
    # "what of 1900 , asked no 0 ?" and the frame: two tags, the role; Whitespace knows no line feed
    assert row.tokens_per_record > 2 * 3
    assert (row.terms, row.lossless, row.current) == (None, False, False)
    assert row.tokens_per_term == 2
    plain = Tokenizer.from_file(str(path))
    plain.no_truncation()
    plain.no_padding()
    contents = [len(plain.encode(text)) for one in EXAMPLES[::MEASURES] for _, text in one.messages]
    roles = sum(len(plain.encode(role)) + 2 for role in ("user", "assistant"))
    assert row.tokens_per_record == round(sum(contents) / 20 + roles, 3)


def test_the_current_one_is_marked_by_its_file(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    save_tokenizer(train_tokenizer([text for one in EXAMPLES for _, text in one.messages], 400), path)
    (tmp_path / "link.json").symlink_to(path)
    rows = rows_of([], [tmp_path / "link.json", lossy(tmp_path / "b.json")], tmp_path, terms=(), current=path)
    assert [row.current for row in rows] == [True, False]
    assert rows[0].tokens_per_term == 0  # no term to measure


@pytest.mark.parametrize(("data", "why"), [(None, "no such file"), (b"{}", "not a tokenizer.json"), (b"\xff", "not a")])
def test_a_file_that_will_not_do_is_named_first(tmp_path: Path, data: bytes | None, why: str) -> None:
    path = tmp_path / "x.json"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(UsageError, match=rf"{why}[\s\S]*x\.json"):
        read_files([path])


def test_the_command_sets_sizes_files_and_the_current_one_side_by_side(workspace: Workspace, tmp_path: Path) -> None:
    shuffle(workspace, 1)
    root = workspace.root
    run("trainer", "tokenizer", "--vocabulary", "450", cwd=root)
    current = (workspace.train / "tokenizer.json").read_bytes()
    other = lossy(tmp_path / "other.json")
    told = run_json("trainer", "tokenizer", "compare", "420", "450", str(other), cwd=root)
    rows = told["tokenizers"]
    assert [row["name"] for row in rows] == ["420", "450", str(other), str(workspace.train / "tokenizer.json")]
    assert [row["current"] for row in rows] == [False, False, False, True]
    assert rows[0]["tokens_per_record"] > rows[1]["tokens_per_record"]
    assert told["measured_records"] > 0
    assert (workspace.train / "tokenizer.json").read_bytes() == current
    assert not (workspace.train / TERMS_FILE).exists()
    drawn = run("trainer", "tokenizer", "compare", "8K", cwd=root).stdout
    assert "8,192" in drawn
    assert "current" in drawn


def test_the_command_refuses_what_is_no_size_and_no_file(workspace: Workspace) -> None:
    shuffle(workspace, 1)
    for argument, why in (("8kb", "not a vocabulary's size"), ("no.json", "no such file"), ("200", "too small")):
        assert why in run("trainer", "tokenizer", "compare", argument, cwd=workspace.root, code=2).stderr
