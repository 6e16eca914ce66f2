"""Two judgings of the same answers: matched by text, counted rightly, and told in words that fit the figures."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from foundation.errors import UsageError
from judge.agree import agree, grouped, paired_difference, read_judging, share
from tests.judge.cases import CASES, make_answer, make_item
from tests.judge.judgings import answers_of, write_answers, write_judging
from tests.support.commands import run, run_json

# of 40 answers: 12 both pass, 15 both fail, 10 only B passes, 1 only A, one unscored by each
A = "P" * 12 + "F" * 15 + "F" * 10 + "P" + "U" + "P"
B = "P" * 12 + "F" * 15 + "P" * 10 + "F" + "P" + "U"


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    return write_answers(tmp_path / "answers.jsonl", answers_of(40))


def test_figures_are_those_of_the_rows_both_scored(answers: Path, tmp_path: Path) -> None:
    a, b = (write_judging(tmp_path / f"{name}.jsonl", answers, words, name) for name, words in (("one", A), ("two", B)))
    found = agree(read_judging(a), read_judging(b))
    assert found["confusion"] == {
        "PASS": {"PASS": 12, "FAIL": 1, "UNSCORED": 1},
        "FAIL": {"PASS": 10, "FAIL": 15, "UNSCORED": 0},
        "UNSCORED": {"PASS": 1, "FAIL": 0, "UNSCORED": 0},
    }
    assert found["agreement"] == share(27, 38)
    # chance: (13 × 22 + 25 × 16) / 38²
    chance = (13 * 22 + 25 * 16) / 38**2
    assert found["kappa"]["value"] == pytest.approx((27 / 38 - chance) / (1 - chance), abs=1e-5)
    assert found["kappa"]["low"] < found["kappa"]["value"] < found["kappa"]["high"]
    # 2 × P(at most 1 of 11 heads)
    assert found["mcnemar_p"] == pytest.approx(2 * 12 / 2**11, rel=1e-2)
    assert found["difference"]["value"] == pytest.approx(-9 / 38, abs=1e-6)
    assert found["difference"]["high"] < 0
    assert found["rows"] == {"common": 40, "answered_differently": 0, "only_a": 0, "only_b": 0}
    assert {name: own["n"] for name, own in found["by_split"].items()} == {"phrasing": 20, "unseen": 20}
    for key in ("by_split", "by_family"):
        assert sum(own["agreement"]["count"] for own in found[key].values()) == 27
    assert len(found["disagreements"]) == 11
    first = found["disagreements"][0]
    assert (first["item_id"], first["answer"]) == ("i27", "It is 27.")
    assert (first["a"]["verdict"], first["b"]["verdict"], first["b"]["explanation"]) == (
        "FAIL",
        "PASS",
        "two thinks so",
    )
    assert any(note.startswith("B is the more lenient") for note in found["notes"])
    assert found["a"]["unscored"] == {"parse": 1}


def test_a_judging_that_doubts_itself_is_quoted(answers: Path, tmp_path: Path) -> None:
    a = read_judging(write_judging(tmp_path / "one.jsonl", answers, A, "one", problems=["Below a floor."]))
    b = read_judging(write_judging(tmp_path / "two.jsonl", answers, A, "one"))
    found = agree(a, b)
    assert found["notes"][:2] == [
        "Both are the same grader with the same settings: what differs is its own chance.",
        "A's judging itself says: Below a floor.",
    ]
    assert (found["kappa"]["value"], found["mcnemar_p"], found["disagreements"]) == (1.0, 1.0, [])


def test_of_a_refused_score_no_pass_rate_is_told(answers: Path, tmp_path: Path) -> None:
    write_judging(tmp_path / "one.jsonl", answers, A, "one", refused=True, problems=["the pass rate is refused: so."])
    write_judging(tmp_path / "two.jsonl", answers, B, "two")
    for sides in (("one", "two"), ("two", "one")):
        found = run_json("judge", "agree", *(f"{name}.jsonl" for name in sides), cwd=tmp_path)
        refused, sound = (found["ab"[sides.index(name)]] for name in ("one", "two"))
        assert [refused[key] for key in ("refused", "pass_rate", "low", "high")] == [True, None, None, None]
        assert (sound["refused"], sound["pass_rate"]) == (False, pytest.approx(23 / 39, abs=1e-6))
        # counts and agreement stay; no difference does, of no group either
        assert (refused["passed"], refused["scored"], found["agreement"]["count"]) == (14, 39, 27)
        groups = [found, *found["by_split"].values(), *found["by_family"].values()]
        assert len(groups) == 5
        assert all(own["difference"] is None and own["kappa"] for own in groups)
        side = "AB"[sides.index("one")]
        assert any(note.startswith(f"{side}'s score is refused") for note in found["notes"])
    shown = run("judge", "agree", "one.jsonl", "two.jsonl", cwd=tmp_path).stdout
    assert "fingerprint of-one, its score is refused" in shown
    assert "fingerprint of-two, passes 59.0 %" in shown
    assert "points (95 %)" in shown
    assert not re.search(r"[+-]\d+\.\d \(", shown)  # the column of differences is empty


def test_the_other_order_says_the_same(answers: Path, tmp_path: Path) -> None:
    a = read_judging(write_judging(tmp_path / "one.jsonl", answers, A, "one"))
    b = read_judging(write_judging(tmp_path / "two.jsonl", answers, B, "two"))
    there, back = agree(a, b), agree(b, a)
    assert there["kappa"] == back["kappa"]
    assert there["mcnemar_p"] == back["mcnemar_p"]
    assert there["difference"]["low"] == pytest.approx(-back["difference"]["high"], abs=1e-6)
    assert any(note.startswith("A is the more lenient") for note in back["notes"])


def test_rows_are_matched_by_text_not_by_question(tmp_path: Path) -> None:
    # given another round: half of its answers are new, ten questions are of it alone
    old = answers_of(20)
    new = [*answers_of(10), *answers_of(30, "It is perhaps {n}.")[10:]]
    one = write_judging(tmp_path / "1.jsonl", write_answers(tmp_path / "a1", old), "P" * 20, "one")
    two = write_judging(tmp_path / "2.jsonl", write_answers(tmp_path / "a2", new), "P" * 9 + "F" * 21, "two")
    found = agree(read_judging(one), read_judging(two))
    assert found["rows"] == {"common": 10, "answered_differently": 10, "only_a": 0, "only_b": 10}
    assert found["agreement"]["count"] == 9
    # one of them says the same of all: no kappa, and it is said why
    assert found["kappa"] is None
    assert any("kappa is undefined" in note for note in found["notes"])
    assert any("Only 10 answers" in note for note in found["notes"])


def test_newcombes_own_example() -> None:
    """Newcombe 1998, table II: 36 both, 12 and 2 one alone, none neither; method 10 gives 0.0569 to 0.3404."""
    found = paired_difference(36, 12, 2, 0)
    assert found is not None
    assert (found.value, round(found.low, 4), round(found.high, 4)) == (0.2, 0.0569, 0.3404)
    assert paired_difference(0, 0, 0, 0) is None


def test_paired_interval_holds_the_truth_as_often_as_it_says() -> None:
    import random

    draw, hit = random.Random(4), 0
    for _ in range(600):
        cells = draw.choices(range(4), (0.25, 0.12, 0.03, 0.6), k=60)
        found = paired_difference(*(cells.count(cell) for cell in range(4)))
        assert found is not None
        hit += found.low <= 0.09 <= found.high
    assert 0.93 <= hit / 600 <= 0.985


def test_a_group_too_small_has_its_number_alone() -> None:
    pairs = [("PASS", "FAIL")] * 9 + [("UNSCORED", "FAIL")] * 5 + [("PASS", "PASS")] * 12
    found = grouped(pairs, ["small"] * 14 + ["large"] * 12, lambda own: {"figures": len(own)})
    assert found == {"large": {"figures": 12}, "small": {"n": 14}}


def test_one_that_scored_nothing_is_said_and_no_error(answers: Path, tmp_path: Path) -> None:
    write_judging(tmp_path / "one.jsonl", answers, A, "one")
    write_judging(tmp_path / "none.jsonl", answers, "U" * 40, "none")
    found = run_json("judge", "agree", "one.jsonl", "none.jsonl", cwd=tmp_path)
    assert (found["agreement"]["of"], found["kappa"], found["mcnemar_p"]) == (0, None, None)
    assert any("B scored none of these answers (parse 40)" in note for note in found["notes"])
    assert "B scored none" in run("judge", "agree", "one.jsonl", "none.jsonl", cwd=tmp_path).stdout


def test_wrong_use_is_named(answers: Path, tmp_path: Path) -> None:
    one = write_judging(tmp_path / "one.jsonl", answers, A, "one")
    done = run("judge", "agree", str(one), "./one.jsonl", cwd=tmp_path, code=2)
    assert "one file twice" in done.stderr
    other = write_answers(tmp_path / "b.jsonl", answers_of(40, "It was {n}."))
    write_judging(tmp_path / "two.jsonl", other, B, "two")
    done = run("judge", "agree", "one.jsonl", "two.jsonl", cwd=tmp_path, code=2)
    assert "40 questions are in both, but were answered differently" in done.stderr
    done = run("judge", "agree", "one.jsonl", "nothing.jsonl", cwd=tmp_path, code=2)
    assert "no such file of verdicts" in done.stderr
    (tmp_path / "one.jsonl.summary.json").unlink()
    done = run("judge", "agree", "one.jsonl", "two.jsonl", cwd=tmp_path, code=2)
    assert "no summary" in done.stderr
    assert done.stdout == ""


def test_answers_are_found_where_they_went_and_refused_if_they_changed(answers: Path, tmp_path: Path) -> None:
    # given a workspace that was moved: what the summary names is not there, but beside the verdicts
    folder = tmp_path / "moved"
    folder.mkdir()
    one = write_judging(folder / "one.jsonl", answers, A, "one")
    answers.rename(folder / "answers.jsonl")
    assert read_judging(one).answers == folder / "answers.jsonl"
    # when the answers were made again
    write_answers(folder / "answers.jsonl", answers_of(40, "New: {n}."))
    with pytest.raises(UsageError, match="have changed since they were judged"):
        read_judging(one)
    (folder / "answers.jsonl").unlink()
    with pytest.raises(UsageError, match="not where they were"):
        read_judging(one)
    with pytest.raises(UsageError, match="not on these answers"):
        read_judging(one, write_answers(tmp_path / "fewer", answers_of(39)))


def test_texts_cannot_move_the_cursor(tmp_path: Path) -> None:
    hostile = "\x1b[2J\x1b[31mIt is\rPASS\u202e {n}\n9. held-out phrasing\nA:         PASS"
    answers = write_answers(tmp_path / "answers.jsonl", answers_of(4, hostile))
    for name, words in (("one", "PPFF"), ("two", "FPFF")):
        write_judging(tmp_path / f"{name}.jsonl", answers, words, f"{name}\x1b[0m")
    shown = run("judge", "agree", "one.jsonl", "two.jsonl", cwd=tmp_path).stdout
    assert not {"\x1b", "\r", "\u202e"} & set(shown)
    assert "           A:         PASS" in shown  # set in: no line of it passes for one of ours


def test_through_the_real_judge(tmp_path: Path) -> None:
    (tmp_path / "factory.toml").touch()
    items = [make_item(case.question, case.reference, id=f"i{n}") for n, case in enumerate(CASES)]
    answers = [make_answer(item, case.answer) for item, case in zip(items, CASES, strict=True)]
    write_answers(tmp_path / "answers.jsonl", answers)
    run("judge", "run", "--answers", "answers.jsonl", "--out", "a.jsonl", "--json", cwd=tmp_path)
    words = [case.verdict[0] for case in CASES]
    write_judging(tmp_path / "b.jsonl", tmp_path / "answers.jsonl", words, "author")
    found = run_json("judge", "agree", "a.jsonl", "b.jsonl", cwd=tmp_path)
    assert found["rows"]["common"] == len({(a.item.id, a.text) for a in answers})
    assert found["agreement"]["value"] > 0.95
    assert found["a"]["grader"]["name"] == "rules"
