"""A judging beside people's labels: what is about what, the figures, and a bottom line that follows from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from foundation.errors import UsageError
from judge import stats
from judge.agree import answer_id, read_judging
from judge.calibrate import calibrate, figures, needed, weighted
from judge.label import Label, read_labels
from tests.judge.cases import CASES, make_answer, make_item
from tests.judge.judgings import answers_of, write_answers, write_judging
from tests.support.commands import run, run_json

# of 80: 20 right and passed, 5 right and failed, 4 wrong and passed, 50 wrong and failed, 1 unscored
HUMAN = "P" * 25 + "F" * 55
JUDGE = "P" * 20 + "F" * 5 + "P" * 4 + "F" * 50 + "U"
WORDS = {"P": "PASS", "F": "FAIL"}


def _labels(words: str = HUMAN, text: str = "It is {n}.", annotator: str = "") -> list[Label]:
    return [
        Label(f"i{n}", WORDS[word], answer_id(text.format(n=n)), annotator=annotator, where=f"labels:{n + 1}")
        for n, word in enumerate(words)
        if word in WORDS
    ]


def _judging(folder: Path, words: str = JUDGE, **summary: Any) -> Path:
    answers = write_answers(folder / "answers.jsonl", answers_of(len(words)))
    return write_judging(folder / "v.jsonl", answers, words, **summary)


def _calibrate(folder: Path, labels: list[Label], words: str = JUDGE, **summary: Any) -> dict[str, Any]:
    return calibrate(read_judging(_judging(folder, words, **summary)), labels, folder / "labels")


def test_figures_leave_the_unscored_out(tmp_path: Path) -> None:
    found = _calibrate(tmp_path, _labels())
    assert found["confusion"] == {
        "PASS": {"PASS": 20, "FAIL": 5, "UNSCORED": 0},
        "FAIL": {"PASS": 4, "FAIL": 50, "UNSCORED": 1},
    }
    assert (found["agreement"]["count"], found["agreement"]["of"]) == (70, 79)
    assert found["tpr"] == stats.as_json(stats.rate(20, 25))
    assert found["fpr"] == stats.as_json(stats.rate(4, 54))
    chance = (25 * 24 + 54 * 55) / 79**2
    assert found["kappa"]["value"] == pytest.approx((70 / 79 - chance) / (1 - chance), abs=1e-5)
    assert found["people_passed"]["passed"] == 25
    assert {row["item_id"] for row in found["disagreements"]} == {f"i{n}" for n in range(20, 29)}
    assert found["by_split"]["phrasing"]["n"] + found["by_split"]["unseen"]["n"] == 80


def test_the_whole_judging_is_corrected_by_some_labels(tmp_path: Path) -> None:
    """Rogan and Gladen by hand: judge passes 24 of 79; of every fourth row people's word is known."""
    some = _labels()[::2]
    found = _calibrate(tmp_path, some)
    tpr, fpr = found["tpr"]["pass_rate"], found["fpr"]["pass_rate"]
    assert found["judging"]["pass_rate"] == pytest.approx(24 / 79, abs=1e-6)
    assert found["judging"]["corrected"]["value"] == pytest.approx((24 / 79 - fpr) / (tpr - fpr), abs=1e-5)
    low, high = (found["judging"]["corrected"][key] for key in ("low", "high"))
    assert low < 25 / 80 < high
    assert high - low > found["judging"]["high"] - found["judging"]["low"]
    # with all of them labelled the correction finds what people passed
    whole = _calibrate(tmp_path, _labels())["judging"]["corrected"]
    assert whole["value"] == pytest.approx(25 / 79, abs=1e-5)


def test_weighing_by_verdict_holds_what_people_would_say_as_often_as_it_says() -> None:
    """Of 300 answers the judge judges all, people 80, twice as many of the passed as chance would give."""
    import random

    draw, hit, narrower, runs = random.Random(2), 0, 0, 300
    for _ in range(runs):
        truth = [draw.random() < 0.3 for _ in range(300)]
        said = [draw.random() < (0.85 if right else 0.08) for right in truth]
        passed, failed = ([n for n in range(300) if said[n] is word] for word in (True, False))
        chosen = draw.sample(passed, 40) + draw.sample(failed, 40)
        pairs = [(WORDS["PF"[not truth[n]]], WORDS["PF"[not said[n]]]) for n in chosen]
        found = weighted(stats.rate(sum(said), 300), pairs)
        assert found is not None
        hit += found.low <= 0.3 <= found.high
        narrower += found.high - found.low < 0.2
    assert 0.93 <= hit / runs <= 0.995
    assert narrower / runs > 0.9
    assert weighted(stats.rate(5, 10), [("PASS", "PASS")]) is None  # nothing of those it fails is labelled
    assert weighted(stats.rate(0, 10), [("FAIL", "FAIL")] * 5) is not None  # it fails all: nothing is missing


def test_more_labels_are_asked_for_as_the_width_asks(tmp_path: Path) -> None:
    labels = [word == "P" for word in HUMAN]
    pairs = [
        (WORDS["P" if right else "F"], WORDS.get(word, "UNSCORED")) for right, word in zip(labels, JUDGE, strict=True)
    ]
    raw = stats.rate(3000, 10000)
    loose, tight = needed(raw, pairs, 0.08), needed(raw, pairs, 0.04)
    assert loose is not None
    assert tight is not None
    assert 2.5 < tight / loose < 6  # a half of the width is four times the labels
    assert needed(stats.rate(24, 79), pairs, 0.01) is None  # 79 answers can never give it
    found = _calibrate(tmp_path, _labels())
    assert any("would take more answers in the judging" in line for line in found["bottom_line"])


def test_a_label_of_another_text_is_not_taken(tmp_path: Path) -> None:
    labels = [*_labels()[:40], *_labels(text="Of another round: {n}.")[40:60], Label("elsewhere", "PASS", "x")]
    found = _calibrate(tmp_path, labels)
    assert found["labels"]["compared"] == 40
    assert (found["labels"]["of_another_answer"], found["labels"]["of_other_questions"]) == (20, 1)
    with pytest.raises(UsageError, match="on other answers to them"):
        _calibrate(tmp_path, _labels(text="Of another round: {n}."))
    with pytest.raises(UsageError, match="has no item elsewhere"):
        _calibrate(tmp_path, [Label("elsewhere", "PASS", where="labels:1")])


def test_a_label_without_a_text_is_taken_and_counted(tmp_path: Path) -> None:
    found = _calibrate(tmp_path, [Label(f"i{n}", WORDS[word]) for n, word in enumerate(HUMAN)])
    assert (found["labels"]["compared"], found["labels"]["without_a_text"]) == (80, 80)
    assert "do not say which text" in found["bottom_line"][0]
    # the text may be given as it is, with the white space a spreadsheet left and its guard
    found = _calibrate(tmp_path, [Label(f"i{n}", "PASS", answer=f" 'It  is\r\n{n}.") for n in range(5)])
    assert (found["labels"]["compared"], found["labels"]["without_a_text"]) == (5, 0)


def test_a_question_with_two_answers_needs_the_text(tmp_path: Path) -> None:
    twice = [*answers_of(3), *answers_of(1, "Or so: {n}.")]
    verdicts = write_judging(tmp_path / "v.jsonl", write_answers(tmp_path / "a.jsonl", twice), "PFFF")
    judging = read_judging(verdicts)
    with pytest.raises(UsageError, match="which of the question's answers"):
        calibrate(judging, [Label("i0", "PASS")], tmp_path / "labels")
    found = calibrate(judging, [Label("i0", "FAIL", answer_id("Or so: 0."))], tmp_path / "labels")
    assert found["confusion"]["FAIL"] == {"PASS": 0, "FAIL": 1, "UNSCORED": 0}


def test_two_people_who_differ_are_left_out_and_compared_with_each_other(tmp_path: Path) -> None:
    other = "F" * 10 + HUMAN[10:60]  # the second one fails ten that the first one passes, and stops at 60
    found = _calibrate(tmp_path, [*_labels(annotator="ann"), *_labels(other, annotator="bob")])
    assert found["labels"]["compared"] == 70
    assert found["labels"]["annotators_differ"] == 10
    (pair,) = found["annotators"]
    assert (pair["annotators"], pair["agreement"]["count"], pair["agreement"]["of"]) == (["ann", "bob"], 50, 60)
    assert pair["kappa"]["value"] > 0.5
    assert found["annotators_differ"][0]["people"] == {"ann": "PASS", "bob": "FAIL"}
    assert found["confusion"]["PASS"]["PASS"] == 10


def test_one_who_contradicts_himself_is_refused(tmp_path: Path) -> None:
    same = _labels()[0]
    assert _calibrate(tmp_path, [*_labels(), same])["labels"]["compared"] == 80
    with pytest.raises(UsageError, match="contradict") as caught:
        _calibrate(tmp_path, [*_labels(), Label("i0", "FAIL", same.answer_id, where="labels:99")])
    assert caught.value.where == "labels:1, labels:99"


@pytest.mark.parametrize(
    ("human", "judge", "words"),
    [
        ("P" * 10 + "F" * 10, "P" * 10 + "F" * 10, ["20 compared labels are few", "no answer they disagree about"]),
        ("P" * 30 + "F" * 30, "P" * 30 + "F" * 30, ["almost perfect", "believed in the main"]),
        ("P" * 30 + "F" * 30, "P" * 30 + "P" * 15 + "F" * 15, ["too lenient", "passes 15 that people fail"]),
        ("P" * 30 + "F" * 30, "P" * 15 + "F" * 15 + "F" * 30, ["too strict", "fails 15 that people pass"]),
        ("PF" * 30, "PPFF" * 15, ["hardly better than chance", "do not believe", "hardly tells them apart"]),
        ("F" * 40, "F" * 38 + "PP", ["one side says the same", "No labelled answer is right"]),
        ("PF" * 20, "U" * 40, ["scored none of the labelled"]),
    ],
)  # fmt: skip
def test_the_bottom_line_follows_the_figures(tmp_path: Path, human: str, judge: str, words: list[str]) -> None:
    said = " ".join(_calibrate(tmp_path, _labels(human), judge)["bottom_line"])
    for word in words:
        assert word in said


def test_canaries_are_held_against_people(tmp_path: Path) -> None:
    def canaries(tpr: tuple[int, int], fpr: tuple[int, int]) -> dict[str, Any]:
        return {"tpr": stats.as_json(stats.rate(*tpr)), "fpr": stats.as_json(stats.rate(*fpr)), "kappa": None}

    # given canaries that say 80 % and 7 %, as the labels do; then ones that flatter, then ones that are too hard
    same = _calibrate(tmp_path, _labels(), canaries=canaries((80, 100), (7, 100)))
    assert not same["canaries"]["tpr"]["differs"]
    assert any("do not differ visibly" in line for line in same["bottom_line"])
    easy = _calibrate(tmp_path, _labels(), canaries=canaries((200, 200), (15, 200)))
    assert easy["canaries"]["tpr"]["differs"]
    assert easy["canaries"]["tpr"]["difference"]["value"] == pytest.approx(-0.2)
    assert any("look better than it is" in line for line in easy["bottom_line"])
    hard = _calibrate(tmp_path, _labels(), canaries=canaries((80, 100), (60, 100)))
    assert any("look worse than it is" in line for line in hard["bottom_line"])
    assert _calibrate(tmp_path, _labels())["canaries"] is None


def test_a_judging_that_doubts_itself_is_quoted(tmp_path: Path) -> None:
    found = _calibrate(tmp_path, _labels(), problems=["More than 2 % are unscored."])
    assert "The judging itself says: More than 2 % are unscored." in found["bottom_line"]
    # and labels of one split alone are said to be that
    found = _calibrate(tmp_path, _labels()[::2])
    assert "No label is on unseen article" in found["bottom_line"][0]


def test_of_a_refused_score_no_pass_rate_is_told(tmp_path: Path) -> None:
    easy = {"tpr": stats.as_json(stats.rate(200, 200)), "fpr": stats.as_json(stats.rate(15, 200)), "kappa": None}
    found = _calibrate(tmp_path, _labels(), refused=True, problems=["the pass rate is refused: so."], canaries=easy)
    judging = found["judging"]
    assert found["refused"]
    assert [judging[key] for key in ("pass_rate", "low", "high", "corrected")] == [None] * 4
    # the counts stay, and what people say of what it passes and fails, which leans on no judge
    assert (judging["passed"], judging["scored"], found["agreement"]["count"]) == (24, 79, 70)
    assert judging["weighted"]["value"] == pytest.approx(25 / 79, abs=1e-5)
    said = " ".join(found["bottom_line"])
    assert "Its score is refused: neither its pass rate is told" in said
    assert "30.4 %" not in said  # 24 of 79
    for words in ("The judge passes", "believed in the main", "Believe the pass rate", "cannot be corrected"):
        assert words not in said
    # nor does a judge that people agree with get it back
    good = _calibrate(tmp_path, _labels("P" * 30 + "F" * 30), "P" * 30 + "F" * 30, refused=True)
    assert not any("believed in the main" in line for line in good["bottom_line"])
    assert not _calibrate(tmp_path, _labels())["refused"]


def test_figures_of_nothing_are_none() -> None:
    found = figures([])
    assert (found["agreement"]["value"], found["kappa"], found["tpr"]["pass_rate"]) == (None, None, None)


def test_the_command_writes_what_it_prints(tmp_path: Path) -> None:
    _judging(tmp_path)
    rows = [{"item_id": one.item_id, "answer_id": one.answer_id, "label": one.label} for one in _labels()]
    (tmp_path / "l.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ("judge", "calibrate", "--labels", "l.jsonl", "--verdicts", "v.jsonl")
    found = run_json(*command, "--out", "c.json", cwd=tmp_path)
    assert json.loads((tmp_path / "c.json").read_text()) == found
    shown = run(*command, "--show", "1", cwd=tmp_path).stdout
    assert "9 disagreements, of which --show shows 1" in shown
    assert "people: PASS" in shown
    assert "80.0 % (60.9–91.1)" in shown  # of right answers it passes 20 of 25
    for wrong, words in ((["--out", "l.jsonl"], "names a file that is read"), (["--out", "no/c.json"], "folder")):
        assert words in run(*command, *wrong, cwd=tmp_path, code=2).stderr
    assert len((tmp_path / "l.jsonl").read_text().splitlines()) == 80


def test_labels_of_the_corpus_agree_with_the_real_judge(tmp_path: Path) -> None:
    """The verdicts a careful person gave the hand-made cases, as labels; judged by the rules, canaries and all."""
    (tmp_path / "factory.toml").touch()
    items = [make_item(case.question, case.reference, id=f"i{n}") for n, case in enumerate(CASES)]
    answers = [make_answer(item, case.answer) for item, case in zip(items, CASES, strict=True)]
    write_answers(tmp_path / "answers.jsonl", answers)
    run("judge", "run", "--answers", "answers.jsonl", "--out", "v.jsonl", "--json", cwd=tmp_path)
    rows = [f"i{n};{case.verdict}" for n, case in enumerate(CASES) if case.verdict != "UNSCORED"]
    (tmp_path / "l.csv").write_bytes("\r\n".join(["item_id;label", *rows, ""]).encode("utf-8-sig"))
    found = run_json("judge", "calibrate", "--labels", "l.csv", "--verdicts", "v.jsonl", cwd=tmp_path)
    assert found["labels"]["compared"] == len(rows) == len(read_labels(tmp_path / "l.csv")[0])
    assert found["agreement"]["value"] > 0.95
    assert found["kappa"]["low"] > 0.85
