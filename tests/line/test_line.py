"""The whole line at a small size, every command as a user types it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from foundation.records import Article
from foundation.settings import load
from tests.support.commands import REPOSITORY, reject_lines, run, run_json, shard_records

pytestmark = pytest.mark.xdist_group("line")  # its workspace takes a minute: made once
ARTICLES = REPOSITORY / "examples/wwii/articles"
TYPES = (
    *("choice/four-options", "cloze/entity", "contrastive/date", "contrastive/person", "qpt/formal"),
    *("qpt/student-before-an-exam", "qpt/tell-me-about", "structure/key-facts", "truth/false-with-correction"),
    *("truth/true-statement", "wh/when", "wh/who"),
)
ENQUEUE = ("enqueue", *(word for name in TYPES for word in ("--prompt-type", name)))


def _article_titles() -> list[str]:
    return [re.search(r"^title: (.*)$", path.read_text(), re.M).group(1).strip("\"'") for path in ARTICLES.glob("*.md")]  # type: ignore[union-attr]


def test_the_corpus_is_what_it_says() -> None:
    files = sorted(ARTICLES.glob("*.md"))
    assert len(files) >= 24
    for path in files:
        text = path.read_text()
        _, front, body = text.split("---\n", 2)
        assert "references:" in front, path.name
        assert len(body.split()) >= 500, path.name


def test_the_demo_holds_at_least_two_articles_out() -> None:
    from foundation.records import SplitPolicy

    settings = load(REPOSITORY / "examples/wwii/factory.toml")
    policy = SplitPolicy(**settings.split.model_dump())
    unseen = [
        title for title in _article_titles() if policy.split(Article.make_id("qpt-wwii", title), "s", "t") == "unseen"
    ]
    assert len(unseen) >= 2


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace that went from six articles to a judged model, with a student far too small to learn much."""
    folder = tmp_path_factory.mktemp("line")
    workspace = folder / "w"
    run("factory", "init", str(workspace), cwd=folder)
    (workspace / "factory.toml").write_text(
        '[split]\nkey = "line"\nunseen = 0.2\nphrasing = 0.2\n[teacher]\nbackend = "rules"\n'
        "[train]\nvocabulary = 1024\nepochs = 1.0\nbatch = 2\nevaluate_every = 20\ncheckpoint_every = 20\n[judge]\nanswers = 12\n"
    )
    files = [str(path) for path in sorted(ARTICLES.glob("*.md"))[:6]]
    run("factory", "ingest", *files, cwd=workspace)
    run("factory", *ENQUEUE, cwd=workspace)
    run("factory", "work", "--burst", cwd=workspace)
    run("trainer", "shuffle", cwd=workspace)
    run("trainer", "tokenizer", cwd=workspace)
    run("trainer", "pack", cwd=workspace)
    run("trainer", "run", "--orchestrate", cwd=workspace, timeout=280)
    run("factory", "report", cwd=workspace)
    return workspace


def test_every_item_is_accounted_for_and_every_id_is_unique(line: Path) -> None:
    status = run_json("factory", "status", cwd=line)
    assert status["planned"] == status["committed"] > 0
    assert status["queued"] == status["in_flight"] == status["failed"] == 0
    assert status["items"] == status["items_accepted"] + status["items_rejected"]
    records, rejects = shard_records(line), reject_lines(line)
    assert status["records"] == len(records)
    assert len({record["id"] for record in records}) == len(records)
    accepted = {record["item"] for record in records}
    # An item that is asked about entry by entry may have both; it is accepted.
    rejected = {reject["item"] for reject in rejects} - accepted
    parts = [reject for reject in rejects if reject["item"] in accepted]
    assert all("." in part["phase"] for part in parts)
    assert len(accepted) == status["items_accepted"]
    assert len(rejected) == status["items_rejected"]


def test_contrastive_pairs_are_balanced_by_construction(line: Path) -> None:
    pairs: dict[str, list[str]] = {}
    for record in shard_records(line):
        if record["family"] == "contrastive":
            pairs.setdefault(record["pair_id"], []).append(record["ordering"])
    assert pairs
    assert all(sorted(orderings) == ["right_first", "wrong_first"] for orderings in pairs.values())


def test_no_article_is_in_two_splits(line: Path) -> None:
    splits: dict[str, set[str]] = {}
    for record in shard_records(line):
        splits.setdefault(record["article_id"], set()).add(record["split"])
    assert {"unseen"} in splits.values()
    assert all("unseen" not in found or found == {"unseen"} for found in splits.values())


def test_two_rounds_were_trained_answered_and_judged(line: Path) -> None:
    (rounds,) = line.glob("train/runs/*/rounds.jsonl")
    lines = [json.loads(text) for text in rounds.read_text().splitlines()]
    assert {entry["round"] for entry in lines} == {1, 2}
    phrasing = [entry for entry in lines if entry["split"] == "phrasing"]
    assert len(phrasing) == 2
    assert all(entry["low"] <= entry["pass_rate"] <= entry["high"] for entry in phrasing)
    assert (rounds.parent / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_the_report_stands_alone_and_shows_every_part(line: Path) -> None:
    page = (line / "report.html").read_text()
    assert "<img" in page
    assert not re.search(r'(?:src|href)="https?://', page)
    for word in ("Corpus", "accept", "efficiency", "pass rate"):
        assert word.lower() in page.lower(), word


def test_chat_answers(line: Path) -> None:
    done = run("trainer", "chat", "-p", "Who commanded the army?", "--seed", "1", cwd=line)
    assert "<|im_end|>" not in done.stdout


def test_running_every_step_again_changes_nothing_committed(line: Path) -> None:
    before = {path: path.read_bytes() for path in line.glob("shards/*/*/*.jsonl")}
    blocks = sorted(line.glob("corpus/blocks/*"))
    run("factory", "ingest", str(ARTICLES), cwd=line)  # the other articles are new, these six are not
    run("factory", *ENQUEUE, "--limit", "1", cwd=line)
    run("factory", "work", "--burst", cwd=line)
    assert {path: path.read_bytes() for path in before} == before
    assert sorted(line.glob("corpus/blocks/*"))[: len(blocks)] == blocks


def test_nothing_is_left_running_or_half_written(line: Path) -> None:
    assert not [path for path in line.rglob(".tmp-*")]
    run("factory", "stop", cwd=line)
    assert not list(line.glob("run/*.sock"))
