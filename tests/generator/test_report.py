"""The report: right figures at every stage, and a page that stands alone and executes nothing."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from foundation.console import new_app
from foundation.errors import Failure, UsageError
from foundation.reader import Tombstone
from foundation.records import Article
from generator.commands import report as command
from generator.report.chart import chart
from generator.report.collect import Report, collect
from generator.report.judgings import Round, costs
from generator.report.page import interval, percent, render, seconds, shown
from generator.report.pick import Pick
from tests.generator.report_workspace import HOSTILE, STAGES, TEACHER, TYPES, Page, build, png


@pytest.fixture
def full(tmp_path: Path) -> Report:
    return collect(build(tmp_path, *STAGES).workspace)


# Figures


def test_corpus_figures_and_unseen_articles(full: Report) -> None:
    corpus = full.corpus
    assert (corpus.articles, corpus.snippets, corpus.blocks, corpus.words) == (2, 8, 1, 88)
    assert {name: (source.articles, source.snippets) for name, source in corpus.sources.items()} == {
        "notes": (1, 4),
        "enwiki": (1, 4),
    }
    assert corpus.policy_fixed
    assert corpus.policy.unseen == 0.5  # the plan's, not the settings' 0.05
    ids = {title: Article.make_id(source, title) for source, title in (("notes", "Battle 0"), ("enwiki", "Battle 1"))}
    assert corpus.unseen == [title for title, id_ in ids.items() if corpus.policy.split(id_, "s", "t") == "unseen"]


def test_items_records_and_tokens_by_prompt_type(full: Report) -> None:
    cloze, pairs, formal = (full.generation.types[one] for one in TYPES)
    assert (cloze.planned, cloze.units, cloze.accepted, cloze.rejected, cloze.records) == (8, 2, 4, 4, 4)
    # Two records of one call, and two rejects: the stale attempts rejected four and one.
    assert (pairs.planned, pairs.units, pairs.accepted, pairs.rejected, pairs.records) == (8, 1, 2, 2, 4)
    assert (pairs.prompt_tokens, pairs.completion_tokens) == (400, 40)
    assert (formal.planned, formal.units, formal.items, formal.accept_rate) == (8, 0, 0, None)
    assert full.generation.total.items == 12
    assert full.generation.total.accept_rate == 0.5
    assert full.generation.teachers == {TEACHER: 12}
    assert cloze.reasons == {("cjk", "han", "ask"): 4}


def test_of_several_attempts_at_a_unit_without_records_the_whole_one_counts(tmp_path: Path) -> None:
    built = build(tmp_path, "corpus", "plan")
    unit = built.unit(TYPES[0], 0)
    built.commit(unit, [], [built.reject(unit, snippet) for snippet in built.snippets[:4]], attempt="mm")
    for attempt, count in (("aa", 3), ("zz", 1)):  # both accepted the rest, and were killed before their commit
        rejects = [built.reject(unit, snippet, attempt, "stale") for snippet in built.snippets[:count]]
        built.store.put(unit.rejects(attempt), b"".join(one.model_dump_json().encode() + b"\n" for one in rejects))
    figures = collect(built.workspace).generation.types[TYPES[0]]
    assert figures.rejected == 4
    assert figures.reasons == {("cjk", "han", "ask"): 4}


def test_a_stale_attempt_does_not_count_once_every_record_is_withdrawn(tmp_path: Path) -> None:
    built = build(tmp_path, "corpus", "plan")
    unit, (first, *others) = built.unit(TYPES[0], 0), built.snippets[:4]
    built.commit(unit, [built.record(unit, first)], [built.reject(unit, others[0])])
    stale = [built.reject(unit, snippet, "old", "stale") for snippet in others]
    built.store.put(unit.rejects("old"), b"".join(one.model_dump_json().encode() + b"\n" for one in stale))
    stone = Tombstone(kind="snippet", value=first.id)
    built.store.put(stone.name, stone.model_dump_json().encode())
    figures = collect(built.workspace).generation.types[TYPES[0]]
    assert (figures.accepted, figures.rejected) == (0, 1)


def test_what_is_withdrawn_is_in_no_figure(tmp_path: Path) -> None:
    built = build(tmp_path, *STAGES)
    stone = Tombstone(kind="article", value=built.snippets[0].article_id)
    built.store.put(stone.name, stone.model_dump_json().encode())
    report = collect(built.workspace)
    assert (report.corpus.articles, report.corpus.retired, report.corpus.snippets) == (1, 1, 4)
    assert report.generation.read.withdrawn == 8
    assert [one.planned for one in report.generation.types.values()] == [4, 4, 4]
    assert (report.generation.total.accepted, report.generation.total.rejected) == (0, 4)
    assert "8 more records are withdrawn" in render(report)


def test_an_edited_article_counts_once_with_its_last_text(tmp_path: Path) -> None:
    built = build(tmp_path, "corpus")
    row = json.loads(built.store.get("corpus/articles/000001.jsonl"))
    built.store.put("corpus/articles/000002.jsonl", json.dumps(row | {"text": "Three words now."}).encode())
    corpus = collect(built.workspace).corpus
    assert (corpus.articles, corpus.words) == (2, 47)


def test_broken_lines_are_counted_and_named(tmp_path: Path) -> None:
    built = build(tmp_path, "corpus", "plan", "generate")
    shard = built.unit(TYPES[0], 0).shard
    built.store.put(shard, built.store.get(shard) + b'{"half')
    report = collect(built.workspace)
    assert report.generation.types[TYPES[0]].accepted == 4
    page = render(report)
    assert "1 line could not be read" in page
    assert f"{shard}:5" in page


def test_a_damaged_corpus_or_plan_is_a_failure_that_says_where(tmp_path: Path) -> None:
    built = build(tmp_path, "corpus", "plan")
    built.store.put("plan/000002-b.jsonl", b'{"prompt_type": "a/b"}\n')
    with pytest.raises(Failure, match=r"000002-b\.jsonl:1"):
        collect(built.workspace)
    built.store.delete("plan/000002-b.jsonl")
    built.store.put("corpus/articles/000009.jsonl", b"{}\n")
    with pytest.raises(Failure, match="damaged"):
        collect(built.workspace)


def test_training_figures_survive_a_torn_line(full: Report) -> None:
    (run,) = full.student.runs
    assert (run.name, run.preset, run.parameters, run.step, run.tokens) == ("0001", "demo", 3_400_000, 20, 20_000)
    assert run.losses == {"phrasing": 5.25, "unseen": 5.5, "train": pytest.approx(6.45)}
    assert run.tokens_per_second == 900
    assert run.plot == png()
    (packs,) = full.student.packs
    assert (packs.efficiency, packs.records_per_context, packs.supervised_share) == (5000 / 5120, 6, 0.4)


def test_the_newest_run_stands_first_and_a_round_judged_again_counts_once(tmp_path: Path) -> None:
    built = build(tmp_path, *STAGES)
    older = built.workspace.train / "runs/0000"
    shutil.copytree(built.workspace.train / "runs/0001", older)
    os.utime(older / "metrics.jsonl", (1, 1))
    rounds = built.workspace.train / "runs/0001/rounds.jsonl"
    rounds.write_text(rounds.read_text() + '{"round": 2, "split": "unseen", "pass_rate": 0.5}\n{"rou')
    student = collect(built.workspace).student
    assert [run.name for run in student.runs] == ["0001", "0000"]
    assert [(one.round, one.split) for one in student.runs[0].rounds] == [
        (number, split) for number in (1, 2) for split in ("train", "phrasing", "unseen")
    ]
    assert student.runs[0].rounds[-1].pass_rate == 0.5


def test_judged_answers_are_those_of_the_last_round_with_their_verdicts_held_out_ones_first(full: Report) -> None:
    assert (full.student.judged_run, full.student.judged_round) == ("0001", "2")
    assert len(full.student.judged) == 10  # of 14 that are held out and have a verdict, and 7 that were trained on
    assert {one.answer.item.split for one in full.student.judged} == {"phrasing", "unseen"}
    assert {one.answer.item.prompt_type for one in full.student.judged} == set(TYPES)
    assert all(one.answer.item.id == one.verdict.item_id for one in full.student.judged)


def test_where_few_held_out_answers_are_judged_trained_ones_follow_them(tmp_path: Path) -> None:
    built = build(tmp_path, *STAGES)
    verdicts = built.workspace.train / "runs/0001/rounds/2/verdicts.jsonl"
    lines = verdicts.read_text().splitlines()
    verdicts.write_text("\n".join(lines[:2] + [line for line in lines if '"train-' in line]))
    splits = [one.answer.item.split for one in collect(built.workspace).student.judged]
    assert splits == ["phrasing"] * 2 + ["train"] * 7


def test_a_round_of_before_has_a_pair_of_files_for_each_split(tmp_path: Path) -> None:
    built = build(tmp_path, *STAGES)
    folder = built.workspace.train / "runs/0001/rounds/2"
    for name in ("answers", "verdicts"):
        lines = (folder / f"{name}.jsonl").read_text().splitlines(keepends=True)
        for split in ("phrasing", "unseen"):
            (folder / f"{name}-{split}.jsonl").write_text("".join(line for line in lines if f'"{split}-' in line))
        (folder / f"{name}.jsonl").unlink()
    student = collect(built.workspace).student
    assert (student.judged_round, len(student.judged)) == ("2", 10)


# The choice of examples


def test_the_choice_is_spread_over_kinds_and_does_not_depend_on_order() -> None:
    offers = [(f"kind-{number % 4}" if number < 400 else "huge", f"id-{number}") for number in range(2000)]
    chosen = []
    for seed in (1, 2):
        random.Random(seed).shuffle(offers)
        pick: Pick[str] = Pick(10)
        for kind, identity in offers:
            pick.offer(kind, identity, identity)
        chosen.append(pick.chosen())
    assert chosen[0] == chosen[1]
    kinds = [kind for kind, _ in chosen[0]]
    assert [kinds.count(kind) for kind in ("huge", "kind-0", "kind-1", "kind-2", "kind-3")] == [2, 2, 2, 2, 2]
    assert len({identity for _, identity in chosen[0]}) == 10


def test_more_kinds_than_examples_and_fewer_things_than_asked() -> None:
    many: Pick[int] = Pick(10)
    for number in range(50):
        many.offer(f"kind-{number}", str(number), number)
    assert len({kind for kind, _ in many.chosen()}) == 10
    few: Pick[int] = Pick(10)
    few.offer("one", "a", 1)
    assert few.chosen() == [("one", 1)]


def test_records_come_with_their_snippet(full: Report) -> None:
    assert len(full.records) == 8
    for record, passage in full.records:
        day = record.messages[0].content.split()[-1].rstrip("?")
        assert passage.startswith(f"The army of day {day} ")


# The page

NEXT = {
    "corpus": "factory ingest",
    "generation": "factory enqueue",
    "packing": "trainer pack",
    "training": "trainer run",
    "judging": "trainer run --orchestrate",
    "records": "factory work",
    "rejects": "factory work",
    "answers": "trainer run --orchestrate",
}


def test_an_empty_workspace_says_what_makes_each_part(tmp_path: Path) -> None:
    page = Page(render(collect(build(tmp_path).workspace)))
    assert {section: command for section, command in NEXT.items() if command not in page.sections[section]} == {}


@pytest.mark.parametrize("stages", [STAGES[:count] for count in range(1, 5)], ids="-".join)
def test_every_stage_makes_a_page(tmp_path: Path, stages: tuple[str, ...]) -> None:
    page = Page(render(collect(build(tmp_path, *stages).workspace)))
    assert set(NEXT) <= set(page.sections)
    assert ("factory ingest" in page.sections["corpus"]) is False
    assert ("factory work" in page.sections["generation"]) is (stages[-1] == "plan")
    assert ("trainer run" in page.sections["training"]) is ("train" not in stages)


def test_the_page_shows_the_figures(full: Report) -> None:
    page = Page(render(full))
    for section, words in {
        "corpus": ["2 articles", "88 words", "8 snippets", "1 block", "CC0", "50.0 %"],
        "generation": ["12 items of 3 units", TEACHER, "1,200", "50.0 %", "han", "train 8"],
        "packing": ["97.66 %", "6.0", "5,000", "40.0 %"],
        "training": ["0001", "3,400,000", "20,000", "6.450", "5.250", "5.500"],
        "judging": [
            "40.0 %", "35.0–46.0 %", "41.0 %", "34.0–48.0 %", "4.0 %", "2.0–7.0 %", "98.0 %", "trained phrasing",
            "held-out phrasing", "unseen article", "step 20 (round 2, 40.0 %)", "step 20 (5.250)", "best checkpoint",
        ],
        "rejects": ["cjk", "U+4E2D at character 7", '"answer": "中"'],
        "answers": ["held-out phrasing", "unseen article", "PASS", "FAIL", "UNSCORED", "The answer names the army."],
    }.items():  # fmt: skip
        assert [word for word in words if word not in page.sections[section]] == [], section


def test_each_rounds_time_counts_once_and_the_share_of_judging_is_told(tmp_path: Path) -> None:
    built = build(tmp_path, *STAGES)
    (one, two, both) = costs(collect(built.workspace).student.runs[0].rounds)
    assert (one.round, two.round, both.round) == (1, 2, None)
    assert one.seconds == two.seconds == {"train": 60, "answer": 8.5, "judge": 1.5}
    assert both.seconds == {"train": 120, "answer": 17, "judge": 3}
    assert both.gpu_seconds == {"train": 116, "answer": 10}
    assert one.judging == both.judging == pytest.approx(10 / 70)
    shown = Page(render(collect(built.workspace))).sections["judging"].partition("What judging costs")[2]
    for word in ("on the GPU", "60 s", "58 s", "8.5 s", "1.5 s", "70 s", "2 min", "17 s", "14.3 %"):
        assert word in shown, word


def test_the_time_of_old_lines_is_read_and_a_run_without_any_has_no_table(tmp_path: Path) -> None:
    rounds = [_round(1, 0.5), _round(1, 0.1)]
    assert costs(rounds) == []
    rounds[0].seconds, rounds[1].seconds = {"train": 60.0, "answer": 5.0}, {"train": 60.0, "answer": 7.0, "judge": 3.0}
    assert costs(rounds)[-1].seconds == {"train": 60.0, "answer": 7.0, "judge": 3.0}
    built = build(tmp_path, *STAGES)
    (built.workspace.train / "runs/0001/rounds.jsonl").write_text('{"round": 1, "step": 5, "pass_rate": 0.5}\n')
    judging = Page(render(collect(built.workspace))).sections["judging"]
    assert "50.0 %" in judging and "What judging costs" not in judging


def test_a_judging_that_is_not_believed_is_never_the_best_and_says_why(tmp_path: Path) -> None:
    # given a third round in which 5 % are unscored, and a fourth whose score is refused
    built = build(tmp_path, *STAGES)
    rounds = built.workspace.train / "runs/0001/rounds.jsonl"
    doubted = {
        "round": 3,
        "step": 30,
        "split": "phrasing",
        "pass_rate": 0.93,
        "corrected": 0.97,
        "problems": ["5.0 % <b>unscored</b>"],
    }
    refused = {
        "round": 4,
        "step": 40,
        "split": "phrasing",
        "pass_rate": None,
        "problems": ["below its floor", "and more"],
    }
    rounds.write_text(rounds.read_text() + json.dumps(doubted) + "\n" + json.dumps(refused) + "\n")
    # then the page says so, in the table, the tile and the chart
    page = Page(render(collect(built.workspace)))
    judging = page.sections["judging"]
    for word in (
        "Not to be believed: 5.0 % <b>unscored</b>", "Not to be believed: below its floor", "Not to be believed: and more",
        "(93.0 %)", "step 20 (round 2, 40.0 %)",
    ):  # fmt: skip
        assert word in judging, word
    assert judging.count("not believed") >= 3
    assert "97.0 %" not in judging
    assert "not believed" in page.sections[""]
    drawn = chart(collect(built.workspace).student.runs[0].rounds)
    assert drawn is not None and drawn.doubted
    (line,) = (one for one in drawn.lines if (one.split, one.kind) == ("phrasing", "rate"))
    assert [point.doubted for point in line.points] == [False, False, True]
    assert [point.best for point in line.points] == [False, True, False]
    assert len(line.path.split()) == 2


def test_what_is_said_of_a_whole_round_is_said_once(tmp_path: Path) -> None:
    built = build(tmp_path, *STAGES)
    rounds = built.workspace.train / "runs/0001/rounds.jsonl"
    points = [
        {"round": 3, "split": split, "problems": ["below its floor"]} for split in ("train", "phrasing", "unseen")
    ]
    points[2]["problems"] = ["another one"]
    rounds.write_text("".join(json.dumps(one) + "\n" for one in points))
    judging = Page(render(collect(built.workspace))).sections["judging"]
    assert (judging.count("below its floor"), judging.count("another one")) == (1, 1)
    assert judging.count("not believed") == 3


def test_without_a_judging_to_believe_there_is_no_best(tmp_path: Path) -> None:
    built = build(tmp_path, *STAGES)
    rounds = built.workspace.train / "runs/0001/rounds.jsonl"
    rounds.write_text('{"round": 1, "step": 5, "pass_rate": null, "problems": ["below its floor"]}\n')
    judging = Page(render(collect(built.workspace))).sections["judging"]
    assert "pass rate on held-out phrasing: none, for no judging of it is believed" in judging
    assert "step 20 (5.250)" in judging


def test_the_lowest_loss_is_the_later_of_equals_and_none_before_training(tmp_path: Path) -> None:
    built = build(tmp_path, *STAGES)
    metrics = built.workspace.train / "runs/0001/metrics.jsonl"
    losses = [(0, 0.5), (10, 3.0), (15, 2.5), (20, 2.5), (25, 4.0)]
    metrics.write_text("".join(json.dumps({"step": step, "phrasing": loss}) + "\n" for step, loss in losses))
    assert collect(built.workspace).student.runs[0].best_loss == (20, 2.5)
    # of those whose checkpoints the run has, where it has any
    (metrics.parent / "checkpoints/step-000025").mkdir(parents=True)
    (metrics.parent / "checkpoints/step-000010").mkdir()
    assert collect(built.workspace).student.runs[0].best_loss == (10, 3.0)


def test_a_run_that_ended_early_says_why(tmp_path: Path) -> None:
    built = build(tmp_path, *STAGES)
    folder = built.workspace.train / "runs/0001"
    (folder / "orchestrate.json").write_text('{"ended": "no <b>higher</b> rate for 3 rounds"}')
    assert "ended early" not in Page(render(collect(built.workspace))).sections["judging"]  # it has done all its steps
    (folder / "run.json").write_text('{"run": "0001", "steps": 50}')
    page = Page(render(collect(built.workspace)))
    assert "The run ended early: no <b>higher</b> rate for 3 rounds" in page.sections["judging"]
    assert "Ended early: no <b>higher</b> rate for 3 rounds" in page.sections["training"]


def test_the_judges_own_page_is_linked_from_where_the_report_lies(tmp_path: Path) -> None:
    built = build(tmp_path, *STAGES)
    run = built.workspace.train / "runs/0001"
    assert "judged.html" not in render(collect(built.workspace))
    odd = run.rename(run.with_name("a b#%"))
    (odd / "judged.html").write_text("x")
    for folder, link in (
        (None, "train/runs/a%20b%23%25/judged.html"),
        (built.workspace.root / "pages", "../train/runs/a%20b%23%25/judged.html"),
    ):
        tags = Page(render(collect(built.workspace), folder)).tags
        assert [one["href"] for tag, one in tags if tag == "a" and not str(one["href"]).startswith("#")] == [link]


def test_the_page_loads_nothing_and_holds_the_plot(tmp_path: Path) -> None:
    text = render(collect(build(tmp_path, *STAGES, hostile=HOSTILE).workspace))
    page = Page(text)
    links = [value for _, attributes in page.tags for name, value in attributes.items() if name in ("src", "href")]
    assert links
    assert all(str(link).startswith(("#", "data:image/png;base64,")) for link in links)
    assert not {"script", "link", "iframe", "object", "form"} & {tag for tag, _ in page.tags}
    assert not [attributes for _, attributes in page.tags if any(name.startswith("on") for name in attributes)]
    assert page.count("img") == 1
    assert "url(" not in text
    assert "@import" not in text


def test_every_hostile_text_is_shown_as_text(tmp_path: Path) -> None:
    page = Page(render(collect(build(tmp_path, *STAGES, hostile=HOSTILE).workspace)))
    assert "script" not in {tag for tag, _ in page.tags}
    for section in ("corpus", "generation", "records", "rejects", "answers"):
        assert HOSTILE in page.sections[section], section


def test_control_characters_halves_of_pairs_and_long_texts_are_shown() -> None:
    assert shown("a\0b\x1b[0m\n\tc\r\nd") == "a␀b␛[0m\n\tc\nd"
    assert shown("x" * 7000).endswith("x … [1,000 more characters]")


def test_numbers_are_never_rounded_into_a_lie() -> None:
    assert (percent(0.0), percent(1.0), percent(None), percent(0.5)) == ("0.0 %", "100.0 %", "–", "50.0 %")
    assert (percent(0.0001), percent(0.9999)) == ("<0.1 %", ">99.9 %")
    assert percent(0.99996, 2) == ">99.99 %"
    assert percent(float("nan")) == "–"
    assert (interval(0.2, 0.31), interval(None, 0.3)) == ("20.0–31.0 %", "–")
    assert (seconds(1.24), seconds(60), seconds(600), seconds(7200)) == ("1.2 s", "60 s", "10 min", "2.0 h")


def _round(number: int, rate: float | None, split: str = "phrasing", **more: float) -> Round:
    return Round(number, 0, split, rate, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("rate", [0.0, 0.03, 0.1, 0.31, 0.47, 0.95, 1.0])
@pytest.mark.parametrize("count", [1, 2, 30])
def test_the_chart_keeps_within_its_frame(rate: float, count: int) -> None:
    ends = {"low": max(0, rate - 0.05), "high": min(1, rate + 0.05), "baseline": 0.5}
    splits = ("train", "phrasing", "unseen")
    drawn = chart([_round(number, rate, split, **ends) for number in range(count) for split in splits])
    assert drawn is not None
    assert [(line.split, line.kind) for line in drawn.lines] == [
        ("train", "rate"), ("phrasing", "baseline"), ("phrasing", "rate"), ("unseen", "rate")
    ]  # fmt: skip
    for line in drawn.lines:
        for point in line.points:
            assert drawn.left <= point.x <= drawn.right
            assert drawn.top <= point.high <= point.y <= point.low <= drawn.bottom
    assert 3 <= len(drawn.y_ticks) <= 8
    assert all(drawn.top - 0.01 <= y <= drawn.bottom for y, _ in drawn.y_ticks)
    assert 1 <= len(drawn.x_ticks) <= 12


def test_a_round_that_could_not_be_judged_says_why(tmp_path: Path) -> None:
    built = build(tmp_path, *STAGES)
    rounds = built.workspace.train / "runs/0001/rounds.jsonl"
    failed = {
        "round": 3,
        "step": 30,
        "split": "phrasing",
        "pass_rate": None,
        "seconds": {"train": 61.0},
        "error": "judge: <b>it died</b>",
    }
    rounds.write_text(rounds.read_text() + json.dumps(failed) + "\n")
    page = Page(render(collect(built.workspace)))
    assert "Not judged: judge: <b>it died</b>" in page.sections["judging"]
    assert "not judged" in page.sections["judging"]
    assert "61 s" in page.sections["judging"].partition("What judging costs")[2]


def test_rounds_in_which_nothing_was_scored_are_not_drawn_as_zero() -> None:
    assert chart([_round(1, None)]) is None
    drawn = chart([_round(1, None), _round(2, 0.4)])
    assert drawn is not None
    assert sum(len(line.points) for line in drawn.lines) == 1


# The command


def _app() -> typer.Typer:
    app = new_app("test")
    command.register(app)
    return app


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    def call(workspace: Path, *arguments: str) -> str:
        monkeypatch.chdir(workspace)
        monkeypatch.delenv("FACTORY_WORKSPACE", raising=False)
        result = CliRunner().invoke(_app(), ["report", *arguments])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.stdout

    return call


def test_the_command_writes_the_page_and_prints_its_path(tmp_path: Path, run: Callable[..., str]) -> None:
    root = build(tmp_path, *STAGES).workspace.root
    assert run(root) == f"{root / 'report.html'}\n"
    assert (root / "report.html").read_text().startswith("<!DOCTYPE html>")
    assert not list(root.glob(".tmp-*"))
    assert run(root, "--out", "pages/now.html") == f"{root / 'pages/now.html'}\n"
    assert (root / "pages/now.html").is_file()


def test_json_is_one_document(tmp_path: Path, run: Callable[..., str]) -> None:
    root = build(tmp_path, *STAGES).workspace.root
    document = json.loads(run(root, "--json"))
    assert document["path"] == str(root / "report.html")
    assert document["bytes"] == (root / "report.html").stat().st_size
    assert (document["items"], document["items_accepted"], document["items_rejected"]) == (12, 6, 6)
    assert (document["records"], document["articles"], document["run"]) == (8, 2, "0001")
    last = {"round": 2, "split": "unseen", "pass_rate": pytest.approx(0.15), "baseline": 0.04}
    assert {name: document["rounds"][-1][name] for name in last} == last


def test_a_folder_is_refused_as_the_page(tmp_path: Path, run: Callable[..., str]) -> None:
    root = build(tmp_path).workspace.root
    with pytest.raises(UsageError, match="folder"):
        run(root, "--out", str(tmp_path))


def test_half_a_surrogate_pair_does_not_stop_the_page(tmp_path: Path, run: Callable[..., str]) -> None:
    built = build(tmp_path, "corpus")
    built.store.put("train/runs/0001/rounds.jsonl", b'{"round": 1, "split": "\\ud800", "pass_rate": 0.5}\n')
    run(built.workspace.root)
    assert "\\ud800" in (built.workspace.root / "report.html").read_text()


def test_it_knows_nothing_of_the_other_rooms(tmp_path: Path) -> None:
    code = (
        "import sys, generator.commands.report, generator.report.collect, generator.report.page\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('trainer', 'judge', 'queue_workers', 'torch', 'matplotlib')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
