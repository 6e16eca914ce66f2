"""Repair, tidying and the faults that cost a sentence; wikitext and Markdown to prose."""

from __future__ import annotations

import pytest

from foundation.errors import UsageError
from generator.ingest import markdown, prose, wikitext
from generator.ingest.page import GONE, HOLE, is_apparatus
from generator.ingest.templates import shown


def test_mojibake_is_mended_and_counted() -> None:
    cleaned = prose.clean("The cafÃ© opened in the spring of 1921.")
    assert cleaned.repaired
    assert cleaned.text == "The café opened in the spring of 1921."


@pytest.mark.parametrize(
    "text",
    [
        "He said “no” and ‘never’ to them.",  # curly quotes
        "The sign read ＡＢＣ in those days.",  # full width stays visible
        "Write &amp;lt; and &eacute; for them.",  # entities that the text is about
        "The cafe\u0301 is decomposed on purpose.",  # no normal form is forced
    ],
)
def test_quotes_widths_entities_and_normal_forms_survive(text: str) -> None:
    assert prose.repair(text) == text
    assert not prose.clean(text).repaired


def test_full_width_text_reaches_the_cjk_check() -> None:
    assert prose.clean("The sign read ＡＢＣ in those days.").dropped == {"cjk": 1}
    assert prose.clean("The sign\u3000was painted over in 1950.").dropped == {"cjk": 1}


def test_line_ends_of_windows_are_no_repair() -> None:
    cleaned = prose.clean("The ship left at dawn.\r\nIt came back late.\r\n\r\nNobody saw it on that night.")
    assert not cleaned.repaired
    assert cleaned.paragraphs == (("The ship left at dawn.", "It came back late."), ("Nobody saw it on that night.",))


@pytest.mark.parametrize(
    ("sentence", "reason"),
    [
        ("The harbour was called 港 by the crew.", "cjk"),
        ("The town ( ) lies on the coast of the bay.", "hole"),
        ("The town (, 1942) lies on the coast of the bay.", "hole"),
        ("The town (; born 1942) lies on the coast.", "hole"),
        ("The ship was named , plural of another word.", "hole"),
        ("They took bread,, water and salt with them.", "hole"),
        ("The island lies north of .", "hole"),
        ("The commander of the fleet was named.", "hole"),
        ("However, the alphabet has only 13 letters.)", "hole"),
        (f"The hill is {HOLE} high at its peak.", "hole"),
        ("Year | ships | tons of coal.", "markup"),
        ("The {{broken template stands here.", "markup"),
        ("Find it at https://small.example/page today.", "markup"),
        ("It is Penguin, ISBN 0-14-022697-4, in paper.", "markup"),
        ("See also the other article about the coast.", "markup"),
        ("The wreck lies at 52°12′N in shallow water.", "markup"),
        ("Crane rails of the north wall", "fragment"),
        ("The provinces of the country are as follows:", "fragment"),
        ("and in the same year the bridge was finished.", "fragment"),
        ("He left.", "short"),
        ("The sea " + "rose and fell " * 80 + "again.", "long"),
    ],
)
def test_a_sentence_that_cannot_be_kept_has_its_reason(sentence: str, reason: str) -> None:
    assert prose.fault(sentence) == reason


@pytest.mark.parametrize(
    "sentence",
    [
        "The U.S. Army (1st Division) landed on 6 June 1944, at dawn.",
        'He said: "We hold the bridge."',
        "It rose by 2.5 million, e.g. in the cities…",
        "iPhones and pH values begin low.",
        "1944 was the worst of the years.",
        "(The bridge had fallen by then.)",
        "Is the water warmer than 20 °C in May?",
        "As a rule of thumb, it takes two days.",
        "“Hold the line,” said the general, and went.",
    ],
)
def test_a_good_sentence_is_kept(sentence: str) -> None:
    assert prose.fault(sentence) == ""


def test_ranks_do_not_end_a_sentence() -> None:
    cleaned = prose.clean("Lt. Gen. Browning met Maj. Gen. Urquhart. Lt. Cmdr. Roe and Pfc. Lee were there as well.")
    assert cleaned.sentences == (
        "Lt. Gen. Browning met Maj. Gen. Urquhart.",
        "Lt. Cmdr. Roe and Pfc. Lee were there as well.",
    )


def test_an_aside_keeps_its_whole_parts_and_loses_the_others() -> None:
    assert (
        prose.tidy(f"Oda Finch ({HOLE}; born 1 April 1847) was a merchant.")
        == "Oda Finch (born 1 April 1847) was a merchant."
    )
    assert prose.tidy(f"Fernhaven ({HOLE}, {HOLE}) is a town.") == "Fernhaven is a town."
    assert HOLE in prose.tidy(f"It is {HOLE} long.")


def test_footnotes_leave_no_trace() -> None:
    assert (
        prose.tidy(f"The pier{GONE} , built{GONE} in 1871{GONE}{GONE} .[12][3] It stands.")
        == "The pier, built in 1871. It stands."
    )
    assert prose.tidy("The array a[1] is set.") == "The array a[1] is set."


def test_a_label_is_no_paragraph() -> None:
    assert (
        prose.clean("The north wall.\n\nThe north wall was finished in 1874.").text
        == "The north wall was finished in 1874."
    )


@pytest.mark.parametrize(
    ("name", "positional", "named", "expected"),
    [
        ("convert", ["640", "m", "ft"], {}, "640 m"),
        ("Convert", ["5", "to", "10", "sqmi", "km2"], {"abbr": "on"}, "5 to 10 sq mi"),
        ("convert", ["640", "smoot"], {}, HOLE),
        ("lang", ["de", "Großer Arm"], {}, "Großer Arm"),
        ("As of", ["2014", "3"], {}, "As of March 2014"),
        ("as_of", ["2014"], {"lc": "y"}, "as of 2014"),
        ("HMS", ["Hood", "51"], {}, "HMS Hood"),
        ("ship", ["German battleship", "Bismarck"], {}, "German battleship Bismarck"),
        ("sclass", ["Fletcher", "destroyer"], {}, "Fletcher-class destroyer"),
        ("frac", ["1", "2"], {}, "1/2"),
        ("frac", ["3"], {}, "1/3"),
        ("citation needed", [], {"date": "May 2020"}, GONE),
        ("sfn", ["Marsh", "1880"], {}, GONE),
        ("flagicon", ["Norway"], {}, GONE),
        ("sic", [], {}, GONE),
        ("sic", ["recieved"], {}, "recieved"),
        ("seen by", ["x"], {}, HOLE),
        ("formatnum:9000", [], {}, HOLE),
        ("something else", ["x"], {}, HOLE),
        ("nowrap", [], {}, HOLE),
    ],
)
def test_templates_show_what_a_reader_sees_or_a_hole(
    name: str, positional: list[str], named: dict[str, str], expected: str
) -> None:
    assert shown(name, positional, named) == expected


def test_numbered_parameters_are_positional() -> None:
    assert wikitext.prose("The {{lang|1=de|2=Mole}} stands.") == "The Mole stands."


def test_a_table_never_closed_ends_at_the_next_heading() -> None:
    assert wikitext.prose("Before it.\n{| class=x\n| cell\n== Next ==\nAfter it.") == "Before it.\n\nAfter it."


def test_broken_markup_gives_text_and_no_error() -> None:
    for broken in (
        "{{open [[link ''''' <b>bold",
        "]]}}|}",
        "<ref>never closed",
        "{|\n{|\n|}",
        "[[File:x.png|thumb|a [[b]] c",
    ):
        assert isinstance(wikitext.prose(broken), str)


@pytest.mark.parametrize(
    "heading", ["References", "See also", "notes and references", "Selected bibliography:", "Primary sources"]
)
def test_sections_of_sources_are_known(heading: str) -> None:
    assert is_apparatus(heading)


@pytest.mark.parametrize(
    "heading", ["Energy sources", "Cultural references in film", "History", "Literature and the arts"]
)
def test_sections_about_the_subject_are_kept(heading: str) -> None:
    assert not is_apparatus(heading)


def test_markdown_becomes_prose() -> None:
    title, text = markdown.prose(
        "# Pier\n\nA *long* [pier](x.md) of `iron`\nand stone.\n\n- It is old.\n- It is 5 < 6 &amp; tall.\n\n> Quoted words.\n"
    )
    assert title == "Pier"
    assert text.split("\n\n") == [
        "A long pier of iron and stone.",
        "It is old.",
        "It is 5 < 6 & tall.",
        "Quoted words.",
    ]


def test_broken_front_matter_names_its_line() -> None:
    with pytest.raises(UsageError) as caught:
        markdown.front_matter("---\ntitle: A\nsource: [b\n---\nText.\n", "notes.md")
    assert caught.value.where.startswith("notes.md:")
    with pytest.raises(UsageError, match="front matter"):
        markdown.front_matter("---\n- a\n- b\n---\nText.\n", "notes.md")
