"""The rules teacher's lists and tables: dates rise, cells fit their header, and what is said stands in the passage."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from foundation.records import Snippet
from generator.catalogue import load_catalogue
from generator.gates import Gates
from generator.pipeline import Outcome
from generator.teachers.rules.structure import MAKERS
from generator.teachers.rules.words import MONTHS
from tests.generator.prompt_files import snippet
from tests.generator.test_rules import accepted, replies

SHARES = {"faq": 0.6, "key-facts": 0.95, "table": 0.3, "timeline": 0.45}
"""The share of the project's own snippets that must give an accepted record."""

Made = list[tuple[Snippet, dict[str, Any]]]


@pytest.fixture(scope="module")
def outcomes(wwii_snippets: list[Snippet], warm_gates: Gates) -> dict[str, list[Outcome]]:
    """What the gates let through of each type, over the project's own corpus."""
    return {id_: accepted(load_catalogue()[id_], wwii_snippets, warm_gates) for id_ in MAKERS}


def made(id_: str, texts: list[Snippet], round_: int = 0) -> Made:
    pairs = zip(texts, replies(load_catalogue()[id_], texts, round_), strict=True)
    return [(text, json.loads(reply.text)) for text, reply in pairs if reply.finish == "stop"]


def declined(id_: str, text: Snippet) -> bool:
    return replies(load_catalogue()[id_], [text])[0].finish == "declined"


def first_day(date: str) -> tuple[int, int, int]:
    """Year, month and day, read in a way of the test's own; what is not given is 0."""
    year = re.search(r"\d{4}", date)
    month = next((number for number, name in enumerate(MONTHS, 1) if name in date), 0)
    day = re.search(r"\b\d{1,2}\b", date)
    assert year is not None, date
    return int(year.group()), month, int(day.group()) if day else 0


@pytest.mark.parametrize("name", sorted(SHARES))
def test_a_fair_share_of_the_own_corpus_gives_an_accepted_record(
    name: str, outcomes: dict[str, list[Outcome]], wwii_snippets: list[Snippet]
) -> None:
    share = len(outcomes[f"structure/{name}"]) / len(wwii_snippets)

    assert share >= SHARES[name]


def test_it_says_what_it_makes() -> None:
    assert set(MAKERS) == {f"structure/{name}" for name in SHARES}


@pytest.mark.parametrize("id_", sorted(MAKERS))
def test_another_round_writes_otherwise(id_: str, wwii_snippets: list[Snippet]) -> None:
    first, second = ({text.id: fields for text, fields in made(id_, wwii_snippets, round_)} for round_ in (0, 1))

    both = first.keys() & second.keys()
    assert sum(first[key] != second[key] for key in both) / len(both) >= 0.9


def test_a_timeline_rises_and_each_date_stands_in_the_passage_but_not_in_its_event(
    wwii_snippets: list[Snippet],
) -> None:
    for text, fields in made("structure/timeline", wwii_snippets):
        dates = [entry["date"] for entry in fields["timeline"]]

        assert [first_day(date)[:2] for date in dates] == sorted(first_day(date)[:2] for date in dates), text.title
        exact = [first_day(date) for date in dates if first_day(date)[2]]
        assert exact == sorted(exact), text.title
        for entry in fields["timeline"]:
            assert entry["date"].casefold() in text.text.casefold()
            assert entry["date"] not in entry["event"]


def test_an_event_that_is_told_late_comes_first_in_the_timeline() -> None:
    text = snippet(
        "Georgy Zhukov attacked with the Western Front on 6 December 1941. "
        "On 3 October 1941, Heinz Guderian entered Orel with his tanks. "
        "Joseph Stalin reviewed a parade on Red Square on 7 November 1941."
    )

    ((_, fields),) = made("structure/timeline", [text])

    assert [entry["date"] for entry in fields["timeline"]] == ["3 October 1941", "7 November 1941", "6 December 1941"]


@pytest.mark.parametrize(
    "sentence",
    [
        "Erich von Manstein planned to attack Kursk from the south in June 1943.",
        "Tamon Yamaguchi died with his flagship Hiryu, which sank on 5 June 1942.",
        "The Red Army broke the German line, and Kiev fell on 6 November 1943.",
        "Allied commanders expected the landing in Norway in April 1940.",
        "Japan lost the initiative that it had won at Pearl Harbor in December 1941.",
    ],
)
def test_a_date_that_may_not_be_the_main_verbs_makes_no_event(sentence: str) -> None:
    # given one event that is dated for sure, and one sentence whose date belongs to something else
    sure = "Georgy Zhukov attacked with the Western Front on 6 December 1941."

    # then there are not two events, and no timeline
    assert declined("structure/timeline", snippet(f"{sure} {sentence}"))


def test_a_month_and_a_day_in_it_are_not_put_in_order() -> None:
    text = snippet(
        "Georgy Zhukov attacked with the Western Front on 6 December 1941. "
        "Heinz Guderian lost the command of his tanks in December 1941."
    )

    assert declined("structure/timeline", text)


def test_every_row_of_a_table_has_as_many_cells_as_its_header(outcomes: dict[str, list[Outcome]]) -> None:
    for outcome in outcomes["structure/table"]:
        lines = outcome.records[0].messages[1].content.splitlines()
        cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
        assert set(cells[1]) == {"---"}
        assert {len(row) for row in cells} == {3}
        assert all(cell for row in cells for cell in row)
        assert len(cells) >= 4


def test_a_tables_questions_are_answered_by_two_of_its_rows(wwii_snippets: list[Snippet]) -> None:
    for text, fields in made("structure/table", wwii_snippets):
        rows = fields["rows"]
        assert [first_day(row["first"])[:2] for row in rows] == sorted(first_day(row["first"])[:2] for row in rows)
        told = []
        for number in (1, 2):
            answer = fields[f"answer_{number}"]
            told.append(
                {i for i, row in enumerate(rows) if row["second"][1:] in answer or row["second"].split()[-1] in answer}
            )
        assert all(told), (text.title, fields)
        assert fields["question_1"] != fields["question_2"]
        assert len(told[0] | told[1]) >= 2, (text.title, fields)


def test_an_faq_asks_each_thing_once_and_gives_each_answer_from_the_passage(wwii_snippets: list[Snippet]) -> None:
    for text, fields in made("structure/faq", wwii_snippets):
        questions = [entry["question"] for entry in fields["faq"]]
        assert len(set(questions)) == len(questions) >= 3
        for entry in fields["faq"]:
            assert re.fullmatch(r"[A-Z].+[^.]\?", entry["question"])
            assert set(re.findall(r"\d+", entry["answer"])) <= set(re.findall(r"\d+", text.text))
            assert entry["answer"].endswith(".") and entry["answer"].count(". ") <= 1


def test_key_facts_keep_the_order_of_the_passage(wwii_snippets: list[Snippet]) -> None:
    for text, fields in made("structure/key-facts", wwii_snippets):
        places = [text.sentences.index(fact) for fact in fields["facts"]]
        assert places == sorted(places) and 3 <= len(set(places)) <= 6


def test_a_passage_without_dates_is_declined() -> None:
    text = snippet("Ivan Konev commanded the Kalinin Front. Georgy Zhukov led the Western Front. It was cold.")

    assert declined("structure/timeline", text) and declined("structure/table", text)
