"""The judge's page as a document: its figures are the summary's, a refused score has none, bad input is named."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from foundation.errors import UsageError
from judge.agree import agree, read_judging
from judge.commands.report import report
from judge.files import Files
from judge.report import words
from judge.report.bars import Axis, Bar, axis
from judge.report.collect import collect, labels, load, newest
from judge.report.compare import compare
from judge.report.doubts import doubts
from judge.report.page import render
from tests.judge.report_files import Page, made_answers, made_canaries, made_verdicts, write_judging
from tests.support.commands import run, run_json

PERCENT = re.compile(r"\d\s?%")


def _made(folder: Path, name: str = "v.jsonl", **how: Any) -> tuple[Page, dict[str, Any]]:
    summary = _write(folder, name, **how)
    return Page(render(collect([folder / name]))), summary


def _write(folder: Path, name: str = "v.jsonl", unscored: int = 0, wrong: int = 0, better: int = 0, **how: Any) -> Any:
    answers = made_answers(checkpoint=how.pop("checkpoint", "run/step-10"))
    verdicts = made_verdicts(answers, unscored=unscored, better=better)
    return write_judging(folder / name, answers, verdicts, judged=made_canaries(answers, wrong), **how)


def test_the_figures_of_the_page_are_those_of_the_summary(tmp_path: Path) -> None:
    page, summary = _made(tmp_path)
    score = page.sections["score"]
    main = summary["by_split"]["phrasing"]  # the measure; trained phrasings would flatter it
    assert f"{100 * main['pass_rate']:.1f} %" == "50.0 %"
    assert "50.0 %" in score
    assert "12 of 24 scored answers; the other splits below" in score
    assert "Pass rate, held-out phrasing" in score
    for low, high in (
        (main["low"], main["high"]),
        (main["corrected"]["low"], main["corrected"]["high"]),
        (main["baseline"]["low"], main["baseline"]["high"]),
    ):
        assert words.interval(low, high) in score
    assert words.percent(main["corrected"]["value"]) in score
    assert words.percent(main["stop_rate"]) in score
    for split, name, rate, passed in (
        ("train", "trained phrasing", "75.0 %", "18of 24"),
        ("phrasing", "held-out phrasing", "50.0 %", "12of 24"),
        ("unseen", "unseen article", "25.0 %", "6of 24"),
    ):
        figures = summary["by_split"][split]
        line = page.line("splits", name)
        assert line[2] == rate + words.interval(figures["low"], figures["high"])
        assert line[4] == passed
        assert words.interval(figures["corrected"]["low"], figures["corrected"]["high"]) in line[0]
        assert words.percent(figures["stop_rate"]) in line[0]
    reasons = main["reasons"]["FAIL"]
    assert {line[0].removesuffix("lacks what was asked for"): line[1] for line in page.lines["reasons"]}[
        "missing"
    ] == str(reasons["missing"])


def test_every_answer_is_there_with_all_that_belongs_to_it(tmp_path: Path) -> None:
    page, _ = _made(tmp_path)
    answers = made_answers()
    verdicts = made_verdicts(answers)
    assert len(page.cards) == len(page.said) == 72
    for card, said, answer, verdict in zip(page.cards, page.said, answers, verdicts, strict=True):
        item = answer.item
        assert (said["data-verdict"], said["data-reason"]) == (verdict.verdict, verdict.reason)
        assert (card["data-split"], card["data-family"], card["data-type"], card["data-article"], card["data-row"]) == (
            item.split, item.family, item.prompt_type, item.article_id, item.id,
        )  # fmt: skip
        for text in (item.question, item.reference, answer.text, verdict.explanation, item.title):
            assert text in card["text"]
        assert ("cut off" in card["text"]) == (answer.stopped == "length")
        assert ("asked 3 times" in card["text"]) == bool(verdict.votes)
        assert item.snippet in page.sections["passages"]
    assert page.sections["passages"].count("Risto Ryti replaced") == 12  # each snippet once


def test_prompt_types_are_counted_from_the_rows(tmp_path: Path) -> None:
    page, summary = _made(tmp_path, unscored=2)
    lines = [page.line("types", name) for name in ("choice/four", "truth/true", "wh/when", "wh/who")]
    assert len(page.lines["types"]) == 5
    main = summary["by_split"]["phrasing"]
    assert sum(int(line[4].partition("of")[0]) for line in lines) == main["passed"]
    assert sum(int(line[-1]) for line in lines) == main["counts"]["UNSCORED"] == 1


def test_a_refused_score_shows_no_pass_rate_anywhere(tmp_path: Path) -> None:
    page, summary = _made(tmp_path, wrong=5)
    assert summary["refused"]
    assert words.sentence(summary["problems"][0]) in page.sections["score"]
    assert page.sections["score"].index("This score is refused") < page.sections["score"].index("Pass rate")
    told = [
        text.replace(words.sentence(summary["problems"][0]), "")
        for name, text in page.sections.items()
        if name != "canaries"
    ]
    assert not any("50.0" in text or "75.0" in text or "25.0" in text for text in told)
    for section in ("splits", "families", "articles", "types"):
        assert not PERCENT.search(page.sections[section]), section
        assert "Pass rate" not in page.sections[section]
    assert page.line("splits", "trained phrasing")[1:] == ["18", "6", "0"]  # what was counted stays
    assert not any("strip" in str(values.get("class")) for _, values in page.tags)
    assert "refused" in page.sections["doubts"] or "cannot be told from noise" in page.sections["doubts"]


def test_an_invalid_run_says_so_first_and_keeps_its_figures(tmp_path: Path) -> None:
    page, summary = _made(tmp_path, unscored=6)
    assert not summary["valid"]
    score = page.sections["score"]
    assert score.index("This run is not valid") < score.index("Pass rate")
    assert words.sentence(summary["problems"][0]) in score
    assert words.percent(summary["by_split"]["phrasing"]["pass_rate"]) in score
    assert "6 answers of 72 (8.3 %) could not be scored" in page.sections["doubts"]


def test_the_canaries_stand_there_with_those_judged_wrongly(tmp_path: Path) -> None:
    page, summary = _made(tmp_path, wrong=1)
    line = page.line("canaries", "another question's answer")
    share = summary["canaries"]["classes"]["other-row"]
    assert line[1:4] == ["FAIL", "12", "11of 12"]
    assert line[4].startswith(words.percent(share["share"]))
    assert line[5:] == ["90 %", "yes"]
    assert "1 judged wrongly" in page.sections["canaries"]
    assert "should be FAIL" in page.sections["canaries"]
    assert "8.3 %" in page.sections["canaries"]  # wrong answers that pass
    assert "κ" in page.sections["canaries"]
    Files(tmp_path / "v.jsonl").canaries.unlink()
    bare = Page(render(collect([tmp_path / "v.jsonl"])))
    assert "not shown: their file is not beside the verdicts" in bare.sections["canaries"]


def test_the_doubts_follow_the_figures(tmp_path: Path) -> None:
    _write(tmp_path, "calm.jsonl")
    _write(tmp_path, "poor.jsonl", wrong=2, floors={})
    summary = json.loads(Files(tmp_path / "poor.jsonl").summary.read_bytes())
    main = summary["by_split"]["phrasing"]
    main["baseline"], main["stop_rate"] = (
        {name: main[name] for name in ("passed", "scored", "pass_rate", "low", "high")},
        0.4,
    )
    Files(tmp_path / "poor.jsonl").summary.write_text(json.dumps(summary))
    calm, poor = (doubts(load(tmp_path / name)) for name in ("calm.jsonl", "poor.jsonl"))
    assert 3 <= len(calm) <= 6
    assert 3 <= len(poor) <= 6
    assert any("4 articles" in one for one in calm), "of those behind the headline"
    assert not any("trained on" in one for one in calm)  # the headline is of held-out phrasings alone
    assert not any("lenient" in one or "luck" in one for one in calm)
    assert poor[0].startswith("The rate is not clearly above luck")
    assert any("lenient: of 12 answers known to be wrong 16.7 %" in one for one in poor)
    assert any("does not claim" in one for one in poor)


def test_a_page_is_one_file_that_loads_nothing(tmp_path: Path) -> None:
    _write(tmp_path)
    text = render(collect([tmp_path / "v.jsonl"]))
    page = Page(text)
    policy = next(v["content"] for tag, v in page.tags if tag == "meta" and v.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    for tag in ("style", "script"):
        inside = text[text.index(f"<{tag}>") + len(tag) + 2 : text.index(f"</{tag}>")]
        assert f"{tag}-src 'sha256-{base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()}'" in policy
    assert [tag for tag, _ in page.tags if tag in ("link", "img", "iframe", "object", "base")] == []
    assert [v for tag, v in page.tags if tag == "script"] == [{}]
    assert all(str(v["href"]).startswith("#") for tag, v in page.tags if tag == "a")
    assert not any(name.startswith("on") or name in ("style", "src") for _, v in page.tags for name in v)


def test_texts_are_shown_harmlessly() -> None:
    assert words.clean("a\x00b\x1b[2J\x7f\r\nc\td") == "a␀b␛[2J␡\nc\td"
    assert words.clean("\u202eevil\u2066\u2028\ud800\x9b") == "⟨U+202E⟩evil⟨U+2066⟩⟨U+2028⟩⟨U+D800⟩⟨U+009B⟩"
    assert words.clean("Çok güzel, שלום 👩‍👩‍👧") == "Çok güzel, שלום 👩‍👩‍👧"
    assert words.shown("x" * 6005).endswith("x … [5 more characters]")


def test_a_summary_may_hold_half_a_surrogate_pair(tmp_path: Path) -> None:
    """Rows cannot: their contract refuses it. The page is UTF-8 all the same."""
    _write(tmp_path, changes={"problems": ["Half \ud83d of it, and \u202e turned"], "valid": False})
    page = render(collect([tmp_path / "v.jsonl"]), title="t\udfff").encode()
    assert "Half ⟨U+D83D⟩ of it, and ⟨U+202E⟩ turned".encode() in page
    assert "t⟨U+DFFF⟩".encode() in page


def test_two_students_are_compared_question_by_question(tmp_path: Path) -> None:
    _write(tmp_path, "a.jsonl", checkpoint="run/step-1")
    _write(tmp_path, "b.jsonl", checkpoint="run/step-2", better=1)
    judgings = collect([tmp_path / "a.jsonl", tmp_path / "b.jsonl"])
    assert [one.label for one in judgings] == ["run/step-1", "run/step-2"]
    whole, *parts = compare(*judgings).changes
    assert (whole.n, whole.gained, whole.lost) == (72, 18, 0)
    assert (whole.value, whole.one, whole.other) == (0.25, 0.5, 0.75)
    assert 0 < whole.low < 0.25 < whole.high < 1
    assert [(part.name, part.gained) for part in parts] == [
        ("trained phrasing", 6),
        ("held-out phrasing", 6),
        ("unseen article", 6),
    ]
    page = Page(render(judgings))
    assert page.line("compared", "all shared questions")[1].startswith("+25.0")
    links = [values["href"] for tag, values in page.tags if tag == "a"]
    assert {"#change=gained&run=2&split=unseen", "#split=train&run=1", "#reason=missing&run=2&split=phrasing"} <= set(
        links
    )
    assert len(page.cards) == 72  # a question once, with both answers
    assert len(page.said) == 144
    assert [one["data-change"] for one in page.said].count("gained") == 18


def test_what_cannot_be_compared_is_said(tmp_path: Path) -> None:
    _write(tmp_path, "a.jsonl")
    _write(tmp_path, "refused.jsonl", wrong=6)
    answers = made_answers(30)
    write_judging(tmp_path / "fewer.jsonl", answers, made_verdicts(answers), changes={"fingerprint": "f01"})
    one, refused, fewer = collect([tmp_path / name for name in ("a.jsonl", "refused.jsonl", "fewer.jsonl")])
    assert compare(one, refused).changes == []
    assert "is refused" in compare(one, refused).warning
    assert "The graders differ" in compare(one, fewer).warning
    assert "30 questions were scored in both, of 72" in compare(one, fewer).warning


def test_two_judgings_differ_by_one_figure_on_the_page_and_in_judge_agree(tmp_path: Path) -> None:
    answers = made_answers()
    for name, better in (("a.jsonl", 0), ("b.jsonl", 1)):
        write_judging(tmp_path / name, answers, made_verdicts(answers, better=better))
    one, other = collect([tmp_path / "a.jsonl", tmp_path / "b.jsonl"])
    whole = compare(one, other).changes[0]
    told = agree(*(read_judging(tmp_path / name) for name in ("b.jsonl", "a.jsonl")))["difference"]
    assert {name: getattr(whole, name) for name in ("value", "low", "high")} == told


def test_one_student_judged_twice_is_two_judgings(tmp_path: Path) -> None:
    for name, checkpoint in (("a.jsonl", "run/step-1"), ("b.jsonl", "run/step-1"), ("c.jsonl", "run/step-2")):
        _write(tmp_path, name, checkpoint=checkpoint)
    a, b, c = (tmp_path / name for name in ("a.jsonl", "b.jsonl", "c.jsonl"))
    same, differ = Page(render(collect([a, b]))), Page(render(collect([a, c])))
    assert (same.title, differ.title) == ("2 judgings compared", "2 students compared")
    assert "Judging" in same.sections["rows"] and "Student" not in same.sections["rows"]


def test_an_axis_holds_all_and_no_more() -> None:
    rows = [Bar("x", {"pass_rate": 0.11, "low": 0.0, "high": 0.31, "baseline": {"pass_rate": 0.3, "high": 0.38}})]
    assert axis(rows) == Axis(0.4)
    assert axis(rows).labels == ["0", "10", "20", "30", "40 %"]
    assert axis([Bar("x", {"pass_rate": None})]) == Axis(1.0)
    assert (Axis(0.4).at(0.1), Axis(0.4).at(0.9), Axis(0.4).at(0.0)) == ("25", "100", "0")


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "v.jsonl"
    summary = _write(tmp_path)
    source = Path(summary["answers"]["file"])
    whole, judged = source.read_bytes(), out.read_bytes()
    source.write_bytes(whole.replace(b"Winter", b"Summer", 1))
    with pytest.raises(UsageError, match="it has changed since"):
        load(out)
    source.unlink()
    with pytest.raises(UsageError, match="are gone") as gone:
        load(out)
    assert str(source) in str(gone.value)
    assert "--answers FILE" in str(gone.value)
    moved = tmp_path / "elsewhere.jsonl"
    moved.write_bytes(whole)
    assert load(out, [moved]).answers == moved
    source.write_bytes(whole)
    lines = judged.splitlines(keepends=True)
    out.write_bytes(b"".join(lines[:-1]))
    with pytest.raises(UsageError, match="71 verdicts on 72 answers do not fit"):
        load(out)
    out.write_bytes(b"".join([lines[1], lines[0], *lines[2:]]))
    with pytest.raises(UsageError, match="on another answer"):
        load(out)
    out.write_bytes(judged.replace(b'"PASS"', b'"FAIL"', 1))
    with pytest.raises(UsageError, match="their counts differ"):
        load(out)
    out.write_bytes(judged)
    shuffled = Files(out).shuffled.read_bytes()
    Files(out).shuffled.write_bytes(b"".join(shuffled.splitlines(keepends=True)[1:]))
    with pytest.raises(UsageError, match="of other answers"):
        load(out)
    Files(out).shuffled.write_bytes(shuffled)
    Files(out).canaries.write_text("{}\n")
    with pytest.raises(UsageError, match="no judged canary"):
        load(out)


def test_an_old_summary_is_refused(tmp_path: Path) -> None:
    _write(tmp_path, changes={"v": 1})
    with pytest.raises(UsageError, match="version 1") as refused:
        load(tmp_path / "v.jsonl")
    assert "run `judge run` again" in str(refused.value)
    with pytest.raises(UsageError, match="of an older version"):
        newest(tmp_path, tmp_path / "train")


def test_labels_differ(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        _write(tmp_path, name)
    same = collect([tmp_path / "a.jsonl", tmp_path / "b.jsonl", tmp_path / "b.jsonl"])
    assert len(set(labels(same))) == 3
    assert labels(same[:2]) == [str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")]


def test_the_command_takes_the_newest_judging_and_answers_in_json(tmp_path: Path) -> None:
    (tmp_path / "factory.toml").touch()
    deep = tmp_path / "train" / "runs" / "main" / "rounds" / "2"
    deep.mkdir(parents=True)
    _write(tmp_path, "old.jsonl")
    summary = _write(deep, "verdicts.jsonl", checkpoint="main/step-9")
    os.utime(Files(tmp_path / "old.jsonl").summary, (1, 1))
    told = run_json("judge", "report", cwd=tmp_path)
    page = Path(told["path"])
    assert page == deep / "verdicts.jsonl.html"
    assert told["bytes"] == page.stat().st_size
    (one,) = told["judgings"]
    assert (one["pass_rate"], one["valid"], one["rows"], one["articles"]) == (summary["pass_rate"], True, 72, 12)
    assert one["by_split"]["train"]["pass_rate"] == 0.75
    done = run("judge", "report", "old.jsonl", "--out", "p.html", "--title", "Two <b>words", cwd=tmp_path)
    assert done.stdout.strip() == str(tmp_path / "p.html")
    assert Page((tmp_path / "p.html").read_text()).title == "Two <b>words"
    before = (tmp_path / "old.jsonl").read_bytes()
    for out, what in (("old.jsonl", "made from"), ("train", "a folder"), ("no/p.html", "does not exist")):
        with pytest.raises(UsageError, match=what):
            report([tmp_path / "old.jsonl"], out=tmp_path / out, title="", answers=[], as_json=False)
    assert (tmp_path / "old.jsonl").read_bytes() == before
    with pytest.raises(UsageError, match=r"name the verdicts, not their summary: .*old\.jsonl$"):
        load(Files(tmp_path / "old.jsonl").summary)
    assert "no such file of verdicts" in run("judge", "report", "none.jsonl", cwd=tmp_path, code=2).stderr


def test_a_real_run_of_the_judge_has_its_page(tmp_path: Path) -> None:
    (tmp_path / "factory.toml").touch()
    answers = made_answers()
    (tmp_path / "a.jsonl").write_text("".join(answer.model_dump_json() + "\n" for answer in answers))
    run("judge", "run", "--answers", "a.jsonl", "--out", "v.jsonl", cwd=tmp_path)
    summary = json.loads((tmp_path / "v.jsonl.summary.json").read_text())
    told = run_json("judge", "report", "v.jsonl", cwd=tmp_path)
    page = Page(Path(told["path"]).read_text())
    assert len(page.said) == 72
    assert {kind for kind in summary["canaries"]["classes"]} <= set(words.CLASSES)
    shown = "refused" if summary["refused"] else words.percent(summary["by_split"]["phrasing"]["pass_rate"])
    assert shown in page.sections["score"]
    assert len(page.lines["canaries"]) == len(summary["canaries"]["classes"]) + 1
