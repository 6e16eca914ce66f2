"""The judge's page where several splits are judged: all that stands under its headline is of the headline's split."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from judge.files import Files
from judge.report import words
from judge.report.collect import collect
from judge.report.page import render
from tests.judge.report_files import Page, made_answers, made_verdicts, write_judging


def _written(folder: Path, unscored: int = 0) -> Path:
    """Three splits of 24 answers each, of which three, two and one in four pass."""
    answers = made_answers()
    write_judging(folder / "v.jsonl", answers, made_verdicts(answers, unscored=unscored))
    return folder / "v.jsonl"


def test_under_a_headline_of_one_split_stands_nothing_of_the_others(tmp_path: Path) -> None:
    """Half of the held-out phrasings pass; trained ones pass in three of four, and must not lift any figure."""
    page = Page(render(collect([_written(tmp_path, unscored=2)])))
    rows = [
        (answer.item, str(verdict.verdict))
        for answer, verdict in zip(made_answers(), made_verdicts(made_answers(), unscored=2), strict=True)
        if answer.item.split == "phrasing"
    ]
    said = [verdict for _, verdict in rows]
    tiles = page.sections["score"]
    for name, tile in (("PASS", "PASS"), ("FAIL", "FAIL"), ("UNSCORED", "Unscored")):
        assert f"{tile}{said.count(name)}" in "".join(tiles.split())
    assert f"Articles{len({item.article_id for item, _ in rows})}" in "".join(tiles.split())
    for section, key in (
        ("families", lambda item: item.family),
        ("articles", lambda item: item.title),
        ("types", lambda item: item.prompt_type),
    ):
        names = {key(item) for item, _ in rows}
        assert len(page.lines[section]) == len(names) + 1
        assert f"({len(names)})" in page.sections[section]
        assert "Of held-out phrasing alone, as the pass rate above: 24 of 72 answers." in page.sections[section]
        for name in names:
            of_name = [verdict for item, verdict in rows if key(item) == name]
            line = next(line for line in page.lines[section] if line[0] == name)
            scored = of_name.count("PASS") + of_name.count("FAIL")
            assert f"{of_name.count('PASS')}of {scored}" in line
            assert line[2].startswith(words.percent(of_name.count("PASS") / scored))
            assert line[3] == "0.0 %", "none of its shuffled answers passes"
    assert "Of held-out phrasing alone" in page.sections["reasons"]
    links = [str(values["href"]) for tag, values in page.tags if tag == "a"]
    for kind in ("family", "article", "type", "reason"):
        found = [one for one in links if one.startswith(f"#{kind}=")]
        assert found and all(one.endswith("&split=phrasing") for one in found), kind
    assert "#split=train" in links, "the table by split filters by its own"
    answers = [answer for answer in made_answers() if answer.item.split == "train"]
    write_judging(tmp_path / "one.jsonl", answers, made_verdicts(answers))
    alone = Page(render(collect([tmp_path / "one.jsonl"])))
    assert "alone" not in alone.sections["families"] and "splits" not in alone.sections["families"]
    assert not any("&split=" in str(values.get("href")) for _, values in alone.tags)


@pytest.mark.parametrize(("passing", "verdict"), [(0, "is clearly above"), (20, "is NOT clearly above")])
def test_the_headline_is_held_against_its_own_splits_luck(tmp_path: Path, passing: int, verdict: str) -> None:
    _written(tmp_path)
    summary = json.loads(Files(tmp_path / "v.jsonl").summary.read_bytes())
    summary["by_split"]["phrasing"]["baseline"] = {
        "passed": passing, "scored": 24, "pass_rate": passing / 24, "low": 0.0, "high": 1.0,
    }  # fmt: skip
    Files(tmp_path / "v.jsonl").summary.write_text(json.dumps(summary))
    page = Page(render(collect([tmp_path / "v.jsonl"])))
    assert verdict in page.sections["score"]
    assert ("not clearly above luck" in page.sections["doubts"]) == bool(passing)
    summary["by_split"]["phrasing"] |= {"pass_rate": None, "low": None, "high": None, "corrected": None}
    Files(tmp_path / "v.jsonl").summary.write_text(json.dumps(summary))
    none = Page(render(collect([tmp_path / "v.jsonl"])))
    assert "clearly above" not in none.sections["score"], "no pass rate, so nothing that could be above"


def test_a_long_table_says_that_it_scrolls_and_a_shorter_one_is_whole(tmp_path: Path) -> None:
    for count, scrolls in ((40, False), (41, True)):
        answers = [
            answer.model_copy(update={"item": answer.item.model_copy(update={"article_id": f"a{n}", "title": f"T{n}"})})
            for n, answer in enumerate(made_answers(count))
        ]
        answers = [one.model_copy(update={"item": one.item.model_copy(update={"split": "unseen"})}) for one in answers]
        write_judging(tmp_path / "v.jsonl", answers, made_verdicts(answers))
        page = Page(render(collect([tmp_path / "v.jsonl"])))
        assert f"By article ({count})" in page.sections["articles"]
        assert ("41 rows: scroll" in page.sections["articles"]) == scrolls
        assert [values.get("class") for tag, values in page.tags if tag == "div"].count("tall") == scrolls


def test_one_is_not_many(tmp_path: Path) -> None:
    answers = made_answers(1)
    write_judging(tmp_path / "v.jsonl", answers, made_verdicts(answers), judged=[])
    page = Page(render(collect([tmp_path / "v.jsonl"])))
    assert not [text for text in page.sections.values() if re.search(r"\b1 (answers|questions|articles)\b", text)]
    assert "1 answer" in page.sections["rows"]
    assert words.shown("x" * 6001).endswith("[1 more character]")
