"""Readers: what becomes of each kind of file, and what is said of one that cannot be read."""

from __future__ import annotations

import bz2
from pathlib import Path

import pytest

from foundation.errors import Failure, UsageError
from generator.ingest import files, mediawiki, prose
from generator.ingest.page import Page, Skip, Titles

DATA = Path(__file__).parent.parent / "data" / "ingest"


def everything(title: str) -> bool:
    return True


def read(path: Path) -> list[Page | Skip]:
    return list(files.read(path, everything, "default"))


def test_text_takes_its_title_from_the_first_line() -> None:
    (page,) = read(DATA / "lighthouse.txt")
    assert isinstance(page, Page)
    assert (page.title, page.source) == ("The Lamp at Carrow Point", "default")
    cleaned = prose.clean(page.text)
    assert [len(paragraph) for paragraph in cleaned.paragraphs] == [3, 3, 3]
    assert cleaned.sentences[1] == "Its keeper was Jonas Reed, a former whaler who had lost two fingers in the Arctic."


def test_text_without_a_title_line_is_named_after_its_file(tmp_path: Path) -> None:
    path = tmp_path / "harbour.txt"
    path.write_text("The harbour was dug in 1802. It is shallow.\n\nBoats lie in it on their side.\n")
    (page,) = read(path)
    assert page.title == "harbour"
    assert isinstance(page, Page)
    assert page.text.startswith("The harbour was dug")


def test_long_lines_are_paragraphs(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("History\n" + "The town is old and its walls are thick. " * 5 + "\nThe gate stands open.")
    (page,) = read(path)
    assert isinstance(page, Page)
    assert page.text.split("\n\n")[0] == "History"


def test_markdown_keeps_its_front_matter_and_drops_the_rest() -> None:
    (page,) = read(DATA / "ropewalk.md")
    assert isinstance(page, Page)
    assert (page.title, page.source, page.license) == ("The Ropewalk of Stennet", "coast-notes", "CC0-1.0")
    cleaned = prose.clean(page.text)
    assert len(cleaned.sentences) == 8
    assert "four hundred yards on the river bank" in cleaned.text
    assert "The spinners walked backwards with the fibre at their waist." in cleaned.sentences
    for gone in ("heading", "tallow", "1800", "code that", "plan", "about a book", "footnote", "[^1]", "*", "http"):
        assert gone not in cleaned.text


def test_markdown_falls_back_to_its_heading_and_to_its_name(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# The Heading\n\nText is here.\n")
    (tmp_path / "b.md").write_text("---\nsource: s\ntitle: 1939\n---\nText is here.\n")
    (tmp_path / "c.md").write_text("Text is here.\n")
    assert [page.title for path in files.find([tmp_path]) for page in read(path)] == ["The Heading", "1939", "c"]


def test_json_lines_keep_what_they_say_of_themselves() -> None:
    salt, mill = read(DATA / "tales.jsonl")
    assert isinstance(salt, Page)
    assert isinstance(mill, Page)
    assert (salt.source, salt.license, salt.url) == ("default", "CC0-1.0", "https://small.example/salt")
    assert (mill.title, mill.source, mill.license) == ("The Blue Mill", "mill-notes", "")


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("{broken", "not valid JSON"),
        ('["a"]', "not a JSON object"),
        ('{"title": "a"}', "no text"),
        ('{"text": "a", "title": " "}', "no title"),
        ('{"title": "a", "text": "b", "source": 3}', "source is not a string"),
        ("\xff", "not valid JSON"),
    ],
)
def test_a_broken_json_line_is_named(tmp_path: Path, line: str, what: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"title": "a", "text": "b"}\n\n' + line.encode("latin-1") + b"\n")
    with pytest.raises(UsageError, match=what) as caught:
        read(path)
    assert caught.value.where == f"{path}:3"


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes("Das Café ist zu.".encode("latin-1"))
    with pytest.raises(UsageError, match="byte 7 is 0xe9") as caught:
        read(path)
    assert "iconv" in caught.value.mend


def test_folders_are_read_in_order_and_no_file_twice(tmp_path: Path) -> None:
    for name in ("b/2.txt", "b/1.MD", "a.jsonl", ".hidden/x.txt", ".x.txt", "notes.pdf"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    found = files.find([tmp_path / "b" / "2.txt", tmp_path])
    assert [path.relative_to(tmp_path).as_posix() for path in found] == ["b/2.txt", "a.jsonl", "b/1.MD"]


def test_paths_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.pdf").write_text("x")
    for path, what in (
        (tmp_path / "none", "no such file"),
        (tmp_path / "x.pdf", "cannot be read"),
        (tmp_path, "no file to read"),
    ):
        with pytest.raises(UsageError, match=what) as caught:
            files.find([path])
        assert caught.value.where == str(path)
        assert caught.value.mend


def test_an_export_gives_its_articles_and_says_what_it_passed_over() -> None:
    pages = read(DATA / "export.xml")
    assert {page.title: page.reason for page in pages if isinstance(page, Skip)} == {
        "Old Mole": "redirect",
        "Talk:Stone Mole": "not an article",
        "Mole": "disambiguation",
        "Marsh (disambiguation)": "disambiguation",
        "List of piers": "list",
    }
    mole = next(page for page in pages if page.title == "Stone Mole")
    assert isinstance(mole, Page)
    assert (mole.source, mole.url, mole.license) == ("smallwiki", "https://small.example/wiki/Stone_Mole", "CC BY-SA")


def test_wikitext_becomes_prose() -> None:
    mole = next(page for page in read(DATA / "export.xml") if page.title == "Stone Mole")
    assert isinstance(mole, Page)
    cleaned = prose.clean(mole.text)
    assert cleaned.paragraphs == (
        (
            "The Stone Mole (begun in 1871) is a breakwater in the harbour of Fernhaven town.",
            "It is 640 m long and shelters the fishing fleet from the north wind.",
            "The builder was Ada Marsh, who had worked on three other piers.",
        ),
        (
            "Workers carried them on flat barges from the quarry at Dun Head.",
            "The concrete weighed about 10⁶ kilograms, and it was mixed with sea water (H₂O and salt).",
            "The crane was called Großer Arm by the men.",
        ),
        ("The north wall was finished in 1874.",),
        ("The south wall followed in 1876, after a winter of storms.",),
        (
            "The mole was repaired by Lt. Col. Brand in 1919 and has stood without damage since then.",
            "Visitors may walk on it from April to October, and the gate is closed at night.",
        ),
        (
            "The harbour today serves small boats and one ferry line.",
            "Its pilots still use the old lamp at the end of the mole.",
            "A museum in the former net store shows tools, plans and photographs from the time of the building.",
        ),
    )
    assert cleaned.dropped == {"hole": 2, "cjk": 1, "fragment": 1}


def test_a_packed_export_reads_the_same(tmp_path: Path) -> None:
    packed = tmp_path / "export.xml.bz2"
    packed.write_bytes(bz2.compress((DATA / "export.xml").read_bytes()))
    assert read(packed) == read(DATA / "export.xml")


def test_an_export_cut_in_its_first_bytes_is_no_short_one(tmp_path: Path) -> None:
    path = tmp_path / "cut.xml.bz2"
    path.write_bytes(bz2.compress((DATA / "export.xml").read_bytes())[:500])
    with pytest.raises(Failure, match="it has no whole page"):
        read(path)


@pytest.mark.parametrize("packed", [False, True])
def test_an_export_cut_in_the_middle_fails_with_its_last_title(tmp_path: Path, packed: bool) -> None:
    head, _, tail = (DATA / "export.xml").read_text().rpartition("  <page>")
    pages = [tail.replace("Fernhaven</title>", f"Fernhaven {number}</title>") for number in range(100)]
    whole = "  <page>".join([head, *(page.removesuffix("</mediawiki>\n") for page in pages)]).encode()
    path = tmp_path / ("cut.xml.bz2" if packed else "cut.xml")
    if packed:  # two streams, as real exports have many: the cut falls into the second
        path.write_bytes(bz2.compress(whole[:-700]) + bz2.compress(whole[-700:])[:-20])
    else:
        path.write_bytes(whole[:-700])
    with pytest.raises(Failure, match=r"the last page begun is 'Fernhaven 9\d'") as caught:
        read(path)
    assert caught.value.where == str(path)


@pytest.mark.parametrize("name", ["x.xml", "x.xml.bz2"])
@pytest.mark.parametrize("content", [b"not xml", b"<html><body>x</body></html>", b"<mediawiki><page/></mediawiki>"])
def test_what_is_no_export_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UsageError, match="no MediaWiki export"):
        read(path)


def test_titles_choose_from_an_export_and_the_missing_are_known(tmp_path: Path) -> None:
    path = tmp_path / "titles.txt"
    path.write_text("# curated\nstone_Mole\nOld Mole # a redirect\n\nNowhere\n")
    titles = Titles.read(path)
    pages = list(mediawiki.read(DATA / "export.xml", titles.take, "default"))
    assert [page.title for page in pages if isinstance(page, Page)] == ["Stone Mole"]
    assert [page.target for page in pages if isinstance(page, Skip) and page.reason == "redirect"] == ["Stone Mole"]
    assert titles.missing() == ["Nowhere"]


def test_a_file_of_titles_must_be_there_and_name_one(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("# nothing\n")
    for name, what in (("none.txt", "no such file of titles"), ("empty.txt", "names no title")):
        with pytest.raises(UsageError, match=what):
            Titles.read(tmp_path / name)
