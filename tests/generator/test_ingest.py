"""Whole ingests: windows, blocks, edits, repeats, kills, and the command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from foundation.corpus import BLOCK, Corpus
from foundation.errors import Failure, UsageError
from foundation.reader import Tombstone, tombstones
from foundation.records import Article, Snippet
from foundation.store import LocalStore
from foundation.workspace import Workspace
from generator.ingest import windows
from generator.ingest.run import Summary, ingest

DATA = Path(__file__).parent.parent / "data" / "ingest"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.init(tmp_path / "work")


def article_text(name: str, sentences: int) -> str:
    return " ".join(f"Sentence number {number} of the article {name} is here." for number in range(sentences))


def write(folder: Path, name: str, sentences: int) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.txt"
    path.write_text(article_text(name, sentences))
    return path


def tree(workspace: Workspace) -> dict[str, bytes]:
    return {
        name: workspace.store.get(name) for folder in ("corpus", "tombstones") for name in workspace.store.list(folder)
    }


def ids(workspace: Workspace) -> list[str]:
    return [snippet.id for snippet in Corpus(workspace.store).all_snippets()]


def standing(workspace: Workspace) -> set[str]:
    """Ids of the snippets that no tombstone withdraws, themselves or with their article."""
    gone = {(stone.kind, stone.value) for stone in tombstones(workspace.store)}
    return {
        snippet.id
        for snippet in Corpus(workspace.store).all_snippets()
        if ("snippet", snippet.id) not in gone and ("article", snippet.article_id) not in gone
    }


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, []),
        (1, [(0, 1)]),
        (8, [(0, 8)]),
        (9, [(0, 8), (4, 9)]),
        (12, [(0, 8), (4, 12)]),
        (13, [(0, 8), (4, 12), (8, 13)]),
        (16, [(0, 8), (4, 12), (8, 16)]),
    ],
)
def test_the_last_window_is_kept_if_it_adds_a_sentence(count: int, expected: list[tuple[int, int]]) -> None:
    assert list(windows.spans(count, 8, 4)) == expected


def test_every_sentence_is_in_a_window_whatever_the_stride() -> None:
    for window, stride in ((8, 4), (3, 1), (5, 5)):
        for count in range(1, 40):
            covered = {place for start, end in windows.spans(count, window, stride) for place in range(start, end)}
            assert covered == set(range(count))


def blocks_of(sizes: list[int]) -> list[list[tuple[int, int]]]:
    def group(article: int, size: int) -> list[Snippet]:
        return [
            Snippet(
                id=f"{article}-{index}",
                article_id=str(article),
                title="",
                source="s",
                index=index,
                sentences=(),
                text="",
            )
            for index in range(size)
        ]

    packer = windows.Packer()
    blocks = [block for article, size in enumerate(sizes) for block in packer.add(group(article, size))]
    return [[(int(snippet.article_id), snippet.index) for snippet in block] for block in [*blocks, *packer.seal()]]


def test_an_article_that_fits_a_block_is_never_cut() -> None:
    sizes = [200, 56, 57, 100, 0, 256, 600, 90, 1]
    blocks = blocks_of(sizes)
    assert [place for block in blocks for place in block] == [
        (a, i) for a, size in enumerate(sizes) for i in range(size)
    ]
    assert all(0 < len(block) <= BLOCK for block in blocks)
    for article, size in enumerate(sizes):
        holding = sum(any(place[0] == article for place in block) for block in blocks)
        assert holding == (0 if not size else -(-size // BLOCK))


def test_an_ingest_writes_articles_and_snippets_as_designed(workspace: Workspace) -> None:
    summary = ingest(workspace, [DATA], source="mine")
    assert (summary.files, summary.read, summary.new, summary.blocks) == (4, 12, 6, 1)
    assert summary.skipped == {"redirect": 1, "not an article": 1, "disambiguation": 2, "list": 1, "stub": 1}
    assert summary.dropped["cjk"] == 1
    articles = {article.title: article for article in Corpus(workspace.store).articles()}
    assert {article.source for article in articles.values()} == {"smallwiki", "mine", "coast-notes", "mill-notes"}
    assert articles["Stone Mole"].id == Article.make_id("smallwiki", "Stone Mole")
    corpus = Corpus(workspace.store)
    snippets = list(corpus.all_snippets())
    assert len(snippets) == summary.snippets == sum(corpus.count(block) for block in corpus.blocks())
    for snippet in snippets:
        assert snippet.text == " ".join(snippet.sentences)
        assert 1 <= len(snippet.sentences) <= 8
        assert snippet.id == Snippet.make_id(snippet.text)
        article = articles[snippet.title]
        assert (snippet.article_id, snippet.license, snippet.source) == (article.id, article.license, article.source)
        assert all(sentence in article.text for sentence in snippet.sentences)
    lamp = [snippet for snippet in snippets if snippet.title == "The Lamp at Carrow Point"]
    assert [(snippet.index, len(snippet.sentences)) for snippet in lamp] == [(0, 8), (1, 5)]


def test_the_same_input_again_changes_nothing(workspace: Workspace) -> None:
    first = ingest(workspace, [DATA])
    before = tree(workspace)
    again = ingest(workspace, [DATA])
    assert tree(workspace) == before
    assert (again.new, again.unchanged, again.snippets, again.blocks) == (0, first.new, 0, 0)


def test_two_workspaces_get_the_same_bytes(workspace: Workspace, tmp_path: Path) -> None:
    other = Workspace.init(tmp_path / "other")
    ingest(workspace, [DATA])
    ingest(other, [DATA])
    assert tree(other) == tree(workspace)


def test_a_second_ingest_appends_blocks(workspace: Workspace, tmp_path: Path) -> None:
    ingest(workspace, [write(tmp_path / "in", "one", 20)])
    before = tree(workspace)
    ingest(workspace, [write(tmp_path / "in", "two", 20)])
    after = tree(workspace)
    assert before.items() <= after.items()
    assert [name.split("-")[0] for name in Corpus(workspace.store).blocks()] == ["000001", "000002"]
    assert len(list(Corpus(workspace.store).articles())) == 2


def test_text_seen_before_is_dropped_and_counted(workspace: Workspace, tmp_path: Path) -> None:
    text = article_text("one", 20)
    for name in ("one", "copy"):
        write(tmp_path / "in", name, 1).write_text(text)
    write(tmp_path / "in", "zlast", 1).write_text(text.replace("number 19", "number nineteen"))
    summary = ingest(workspace, [tmp_path / "in"])
    assert (summary.new, summary.snippets, summary.duplicates) == (3, 5, 4 + 3)
    assert len(set(ids(workspace))) == len(ids(workspace)) == 5


def test_an_edit_appends_and_retires(workspace: Workspace, tmp_path: Path) -> None:
    path = write(tmp_path / "in", "one", 20)
    ingest(workspace, [path])
    original, old = path.read_text(), set(ids(workspace))
    path.write_text(original.replace("number 19", "number nineteen"))
    summary = ingest(workspace, [path])
    assert (summary.edited, summary.snippets, summary.kept, summary.retired) == (1, 1, 3, 1)
    (latest,) = Corpus(workspace.store).articles()
    assert "nineteen" in latest.text
    assert len(standing(workspace)) == 4
    assert len(old & standing(workspace)) == 3
    # and back again: the old snippet stands once more, nothing is written twice
    path.write_text(original)
    back = ingest(workspace, [path])
    assert (back.edited, back.snippets, back.kept, back.retired) == (1, 0, 4, 1)
    assert standing(workspace) == old
    assert ingest(workspace, [path]).unchanged == 1


def test_an_edit_leaves_other_tombstones_alone(workspace: Workspace, tmp_path: Path) -> None:
    path = write(tmp_path / "in", "one", 20)
    ingest(workspace, [path])
    stone = Tombstone(kind="snippet", value=ids(workspace)[0], reason="wrong in fact")
    workspace.store.put(stone.name, stone.model_dump_json().encode())
    path.write_text(path.read_text() + " One more sentence is added to it.")
    ingest(workspace, [path])
    assert stone in tombstones(workspace.store)


def test_a_retired_article_retires_its_snippets(workspace: Workspace, tmp_path: Path) -> None:
    ingest(workspace, [write(tmp_path / "in", "one", 20), write(tmp_path / "in", "two", 20)])
    stone = Tombstone(kind="article", value=Article.make_id("corpus", "one"))
    workspace.store.put(stone.name, stone.model_dump_json().encode())
    left = [snippet for snippet in Corpus(workspace.store).all_snippets() if snippet.id in standing(workspace)]
    assert {snippet.title for snippet in left} == {"two"}


def test_the_second_page_of_one_title_is_passed_over(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = write(tmp_path / "a", "one", 20), write(tmp_path / "b", "one", 30)
    summary = ingest(workspace, [first, second])
    assert (summary.new, summary.skipped) == (1, {"repeated title": 1})
    assert "warning: 1 pages have the title of another one" in capsys.readouterr().err
    assert ingest(workspace, [first, second]).unchanged == 1


def test_a_dry_run_counts_and_writes_nothing(workspace: Workspace) -> None:
    before = sorted(workspace.root.rglob("*"))
    dry = ingest(workspace, [DATA], dry_run=True)
    assert sorted(workspace.root.rglob("*")) == before
    real = ingest(workspace, [DATA])
    assert vars(dry) | {"dry_run": False} == vars(real)


def test_a_damaged_file_among_good_ones_writes_nothing(workspace: Workspace, tmp_path: Path) -> None:
    cut = tmp_path / "cut.xml"
    cut.write_bytes((DATA / "export.xml").read_bytes()[:-700])
    with pytest.raises(Failure, match="Fernhaven"):
        ingest(workspace, [DATA / "lighthouse.txt", cut])
    assert tree(workspace) == {}
    assert list(workspace.cache.iterdir()) == []


def killed_at(workspace: Workspace, paths: list[Path], place: int) -> bool:
    """Ingest in a child process that dies, without any clean-up, before its `place`-th put. False: it got through."""
    child = os.fork()
    if child == 0:
        real, done = LocalStore.put_once, iter(range(place))

        def put_once(self: LocalStore, name: str, data: bytes) -> bool:
            if next(done, None) is None:
                os._exit(9)
            return real(self, name, data)

        LocalStore.put_once = put_once  # type: ignore[method-assign]
        code = 1
        try:
            ingest(workspace, paths)
            code = 0
        finally:
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 9)
    return status == 9


@pytest.fixture
def _small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("generator.ingest.batch.ARTICLES_PER_FILE", 2)
    monkeypatch.setattr("generator.ingest.windows.BLOCK", 10)


@pytest.mark.usefixtures("_small_files")
def test_an_ingest_killed_at_any_put_is_completed_by_the_next(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    paths = [write(folder, f"article-{number}", 13 + 7 * number) for number in range(5)]
    edited = tmp_path / "edited"
    shutil.copytree(folder, edited)
    for path in edited.iterdir():
        path.write_text(path.read_text().replace("number 3 ", "number three "))
    clean = Workspace.init(tmp_path / "clean")
    ingest(clean, paths)
    assert len(Corpus(clean.store).blocks()) > 3
    first = tree(clean)
    ingest(clean, [edited])
    whole = tree(clean)
    deaths = 0
    for place in range(100):
        workspace = Workspace.init(tmp_path / f"killed-{place}")
        died = killed_at(workspace, paths, place)
        if died:
            assert len(list(workspace.cache.glob("ingest-*"))) == 1  # what it left behind
            ingest(workspace, paths)
        assert tree(workspace) == first
        died_again = killed_at(workspace, [edited], place)
        ingest(workspace, [edited])
        assert tree(workspace) == whole
        assert list(workspace.cache.glob("ingest-*")) == []
        deaths += died + died_again
        if not died and not died_again:
            break
    assert deaths > 10


def test_one_ingest_at_a_time(workspace: Workspace) -> None:
    with workspace.lock("ingest"), pytest.raises(Failure, match="ingest is held by"):
        ingest(workspace, [DATA])


def test_input_without_an_article_says_why(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "lists.txt").write_text("apples\n\npears\n\n" + "plums and cherries " * 10)
    for name, what in (
        ("empty.txt", "1 no sentence"),
        ("empty.jsonl", "no article in it"),
        ("lists.txt", "dropped as fragment"),
    ):
        with pytest.raises(Failure, match=what) as caught:
            ingest(workspace, [tmp_path / name])
        assert caught.value.mend
    with pytest.raises(Failure, match="1 stub") as caught:
        ingest(workspace, [write(tmp_path / "in", "short", 3)])
    assert "corpus.min_words" in caught.value.mend
    assert tree(workspace) == {}


def test_a_path_is_no_source(workspace: Workspace) -> None:
    with pytest.raises(UsageError, match="not a collection's name"):
        ingest(workspace, [DATA], source="/data/wiki")


def test_settings_change_windows_and_stubs(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACTORY_CORPUS__WINDOW", "5")
    monkeypatch.setenv("FACTORY_CORPUS__STRIDE", "5")
    monkeypatch.setenv("FACTORY_CORPUS__MIN_WORDS", "10")
    summary = ingest(workspace, [write(tmp_path / "in", "one", 4), write(tmp_path / "in", "two", 11)])
    assert (summary.new, summary.snippets) == (2, 1 + 3)


def factory(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    program = (
        "from foundation.console import new_app, run_app\n"
        "from generator.commands import corpus\n"
        "app = new_app('test')\ncorpus.register(app)\nrun_app(app)\n"
    )
    root = Path(__file__).parents[2]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("FACTORY_")} | {
        "PYTHONPATH": str(root)
    }
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_line(tmp_path: Path) -> None:
    made = factory("init", "work", cwd=tmp_path)
    assert (made.returncode, made.stdout.strip()) == (0, str(tmp_path / "work"))
    work = tmp_path / "work"
    titles = tmp_path / "titles.txt"
    titles.write_text("Stone Mole\nNowhere at all\n")
    result = factory("ingest", str(DATA), "--titles", str(titles), "--json", cwd=work)
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert document.keys() == vars(Summary()).keys()
    assert (document["new"], document["titles_missing"]) == (1, ["Nowhere at all"])
    assert document["skipped"]["not in titles"] == 10
    assert "Nowhere at all" in result.stderr
    shown = factory("ingest", str(DATA), cwd=work)
    assert shown.returncode == 0
    assert "skipped: redirect" in shown.stdout
    assert "skipped" not in shown.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "what"),
    [
        (("ingest", "nowhere.txt"), 2, "no such file"),
        (("ingest", "factory.toml"), 2, "cannot be read"),
        (("ingest", "empty.txt"), 1, "no article"),
        (("ingest", "bad.jsonl"), 2, "bad.jsonl:2"),
        (("init", "."), 2, "there is a workspace here already"),
    ],
)
def test_bad_input_gives_one_message_and_its_exit_code(
    workspace: Workspace, arguments: tuple[str, ...], code: int, what: str
) -> None:
    (workspace.root / "empty.txt").write_text("")
    (workspace.root / "bad.jsonl").write_text('{"title": "a", "text": "b"}\n{"title"\n')
    result = factory(*arguments, cwd=workspace.root)
    assert result.returncode == code
    assert what in result.stderr
    assert "mend:" in result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert tree(workspace) == {}
