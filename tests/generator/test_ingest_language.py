"""A corpus in another language: left out and counted, or one message if there is nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from foundation.corpus import Corpus
from foundation.errors import Failure
from foundation.workspace import Workspace
from generator.ingest import prose
from generator.ingest.run import ingest

DATA = Path(__file__).parent.parent / "data" / "calibration" / "foreign.jsonl"
ENGLISH = "The keeper lit the lamp of the tower every evening at dusk. " * 12
SHORT_FRENCH = "Il pleut sur la ville. Le chien dort. Nous partons demain matin. Elle ne vient pas. " * 6


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.init(tmp_path / "work")


def foreign(language: str, count: int = 12) -> list[str]:
    texts = (json.loads(line) for line in DATA.read_text("utf-8").splitlines())
    return [row["text"] for row in texts if row["language"] == language and row["text"][-1] in ".?"][:count]


@pytest.mark.parametrize("language", ["french", "german", "spanish", "italian", "dutch", "pinyin", "russian", "polish"])
def test_a_foreign_corpus_ends_in_one_message_and_writes_nothing(
    workspace: Workspace, tmp_path: Path, language: str
) -> None:
    (tmp_path / "one.txt").write_text(" ".join(foreign(language)), "utf-8")

    with pytest.raises(Failure) as caught:
        ingest(workspace, [tmp_path / "one.txt"])

    assert "1 not English" in caught.value.what
    assert "in English" in caught.value.mend
    assert list(Corpus(workspace.store).articles()) == []


def test_a_french_article_of_short_sentences_is_foreign_too(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text(SHORT_FRENCH, "utf-8")

    with pytest.raises(Failure, match="1 not English"):
        ingest(workspace, [tmp_path / "one.txt"])


def test_among_english_articles_a_foreign_one_is_skipped_and_counted(workspace: Workspace, tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "lamp.txt").write_text(ENGLISH, "utf-8")
    (folder / "france.txt").write_text(" ".join(foreign("french")), "utf-8")

    summary = ingest(workspace, [folder])

    assert (summary.read, summary.new, summary.skipped) == (2, 1, {"not English": 1})
    assert [article.title for article in Corpus(workspace.store).articles()] == ["lamp"]


def test_a_foreign_sentence_in_an_english_article_is_dropped_and_counted(workspace: Workspace, tmp_path: Path) -> None:
    french = foreign("french", 1)[0]
    (tmp_path / "lamp.txt").write_text(f"{ENGLISH}{french} {ENGLISH}", "utf-8")

    summary = ingest(workspace, [tmp_path / "lamp.txt"])

    assert (summary.new, summary.dropped) == (1, {"not English": 1})
    assert french not in next(iter(Corpus(workspace.store).articles())).text


def test_no_sentence_of_the_projects_corpus_is_dropped_for_its_language() -> None:
    folder = Path(__file__).resolve().parents[2] / "examples" / "wwii" / "articles"
    dropped = [prose.clean(path.read_text("utf-8")).dropped for path in sorted(folder.glob("*.md"))]

    assert len(dropped) == 26
    assert sum(counts[prose.NOT_ENGLISH] for counts in dropped) == 0
