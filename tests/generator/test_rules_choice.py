"""Choices: one right option that the fact bears out, and a place for it that owes nothing to the teacher."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache
from itertools import pairwise

import pytest

from foundation.records import Record, Snippet, item_id
from generator.catalogue import load_catalogue
from generator.gates import Gates
from generator.render import Source, render_records
from generator.teachers.rules.choice import MAKERS
from generator.teachers.rules.dated import in_order, span_of
from tests.generator.prompt_files import snippet
from tests.generator.test_rules import accepted, fields_of
from tests.support.golden import read

LEAST = {
    "choice/two-options": 0.9,
    "choice/four-options": 0.9,
    "choice/odd-one-out": 0.03,
    "choice/match-pairs": 0.18,
    "choice/order-of-events": 0.04,
}
"""The share of the project's own snippets that must end in an accepted record, at least: what is not certain is declined."""

CHOICES = (*sorted(MAKERS), "choice/best-title")
WITH_RIGHT = ("choice/two-options", "choice/four-options")
CRITICAL = {1: 10.83, 2: 13.82, 3: 16.27}
"""Chi-square by degrees of freedom: a fair shuffle goes beyond it once in a thousand runs. This run is always the same."""


def chi_square(counts: Mapping[str, int], kinds: int) -> float:
    expected = sum(counts.values()) / kinds
    return sum((count - expected) ** 2 for count in counts.values()) / expected + expected * (kinds - len(counts))


def golden(id_: str) -> dict[str, str]:
    """The reply of the type's golden example."""
    reply: dict[str, str] = read(id_)["replies"]["ask"]
    return reply


Made = list[tuple[Snippet, dict[str, str]]]


@pytest.fixture(scope="module")
def made(wwii_snippets: list[Snippet]) -> Callable[..., Made]:
    """What the teacher writes for a type in a round, gates aside."""
    return cache(lambda id_, round_=0: fields_of(load_catalogue()[id_], wwii_snippets, round_))


@pytest.fixture(scope="module")
def records(wwii_snippets: list[Snippet], warm_gates: Gates) -> Callable[[str], list[Record]]:
    """The records of a type over the project's own corpus, through the real gates."""

    def run(id_: str) -> list[Record]:
        outcomes = accepted(load_catalogue()[id_], wwii_snippets, warm_gates)
        return [record for outcome in outcomes for record in outcome.records]

    return cache(run)


@pytest.mark.parametrize("id_", sorted(MAKERS))
def test_enough_snippets_give_an_accepted_record(
    id_: str, wwii_snippets: list[Snippet], records: Callable[[str], list[Record]]
) -> None:
    assert len(records(id_)) / len(wwii_snippets) >= LEAST[id_]


@pytest.mark.parametrize("id_", CHOICES)
def test_every_option_lands_everywhere_alike(id_: str, wwii_snippets: list[Snippet]) -> None:
    # given one reply, and the items of four rounds over the corpus
    prompt_type, fields = load_catalogue()[id_], golden(id_)
    assert prompt_type.options is not None
    count = len(prompt_type.options.fields)
    items = [item_id(text.id, prompt_type.fingerprint, round_) for text in wwii_snippets for round_ in range(4)]

    # when each is rendered, whichever option the teacher calls right
    for right in prompt_type.fields[prompt_type.options.right].values if prompt_type.options.right else ("",):
        reply = fields | ({prompt_type.options.right: right} if right else {})
        orders = Counter(
            render_records(prompt_type, Source(wwii_snippets[0]), reply, item)[0].ordering for item in items
        )

        # then the right one (or the first) stands at each place as often as chance has it
        assert len(orders) == count
        assert chi_square(orders, count) < CRITICAL[count - 1], orders


@pytest.mark.parametrize("id_", WITH_RIGHT)
def test_over_a_real_run_the_right_letter_is_uniform_and_the_teachers_own_place_is_kept(
    id_: str, made: Callable[..., Made], records: Callable[[str], list[Record]]
) -> None:
    places = {text.id: int(fields["right"]) for text, fields in made(id_)}
    run = records(id_)
    count = 2 if id_ == "choice/two-options" else 4

    letters = Counter(record.messages[-1].content[0] for record in run)

    assert chi_square(letters, count) < CRITICAL[count - 1], letters
    assert set(letters) == set("ABCD"[:count])
    assert all(record.right_at == places[record.snippet_id] for record in run)
    assert chi_square(Counter(str(record.right_at) for record in run), count) < CRITICAL[count - 1]


@pytest.mark.parametrize("id_", [*WITH_RIGHT, "choice/odd-one-out"])
def test_the_letter_of_the_answer_is_the_right_options(
    id_: str, made: Callable[..., Made], records: Callable[[str], list[Record]]
) -> None:
    right = {text.id: fields[f"option_{fields['right']}"] for text, fields in made(id_)}

    for record in records(id_):
        asked, answer = record.messages[-2].content, record.messages[-1].content
        assert f"\n{answer[0]}) {right[record.snippet_id]}\n" in f"{asked}\n", record
        assert answer.startswith(f"{answer[0]}) {right[record.snippet_id]}. ")


def test_the_letters_of_ordered_events_and_of_pairs_lead_back_to_their_order(
    made: Callable[..., Made], records: Callable[[str], list[Record]]
) -> None:
    for id_, names in (("choice/order-of-events", "event_{}"), ("choice/match-pairs", "match_{}")):
        fields = {text.id: fields for text, fields in made(id_)}
        for record in records(id_):
            listed = dict(re.findall(r"^([A-D])\) (.+)$", record.messages[-2].content, re.MULTILINE))
            letters = re.findall(r"\b([A-D])\b", record.messages[-1].content.partition(".")[0])
            own = fields[record.snippet_id]

            assert [listed[letter] for letter in letters] == [own[names.format(at + 1)] for at in range(len(letters))]
            assert len(letters) == (4 if id_ == "choice/order-of-events" else 3)


@pytest.mark.parametrize("id_", WITH_RIGHT)
def test_the_right_option_stands_in_the_fact_and_no_wrong_one_does(id_: str, made: Callable[..., Made]) -> None:
    for text, fields in made(id_):
        options = {name: value for name, value in fields.items() if name.startswith("option_")}
        right = options.pop(f"option_{fields['right']}")

        assert right in fields["explanation"], fields
        for wrong in options.values():
            assert wrong not in fields["explanation"], fields
            assert wrong not in fields["question"], fields
        assert right not in fields["question"], fields
        assert fields["question"].endswith("?")
        assert any(fields["explanation"].rstrip(".").split()[-1] in sentence for sentence in text.sentences)


def test_events_stand_in_the_order_of_their_dates(made: Callable[..., Made]) -> None:
    for _, fields in made("choice/order-of-events"):
        events = [fields[f"event_{number}"] for number in range(1, 5)]
        assert len(set(events)) == 4
        assert not any(re.search(r"\b\d{4}\b", event) for event in events), fields

        # where the reason is each event with its date, the dates follow one another
        told = re.split(r"(?<=\d{4})\. ", fields["reason"].rstrip("."))
        if len(told) == 4 and all(part.startswith(event) for part, event in zip(told, events, strict=True)):
            spans = [span_of(re.sub(r"^.*?\b((?:\d{1,2} )?(?:[A-Z][a-z]+ )?\d{4})$", r"\1", part)) for part in told]
            assert all(one and other and one[1] < other[0] for one, other in pairwise(spans)), fields


def test_a_year_has_no_place_before_or_after_one_of_its_days() -> None:
    assert span_of("1942") == (1942 * 400, 1942 * 400 + 399)
    day, month, year = span_of("4 June 1942"), span_of("June 1942"), span_of("1942")
    assert day and month and year
    assert year[0] < month[0] < day[0] == day[1] < month[1] < year[1]
    assert span_of("4 June") is None
    assert span_of("June 4", "1942") == day
    assert in_order([], 4) == []


def test_fewer_than_four_certain_dates_are_declined() -> None:
    # given four events of which two share a day, and one is dated by the year that holds them all
    text = snippet(
        "Marshal Ivan Konev crossed the river Neisse on 16 April 1945. Marshal Georgy Zhukov attacked the Seelow Heights on "
        "16 April 1945. General Walther Wenck led the Twelfth Army west on 28 April 1945. The Red Army captured the city in 1945."
    )

    assert fields_of(load_catalogue()["choice/order-of-events"], [text]) == []


def test_both_halves_of_a_pair_come_from_one_sentence(made: Callable[..., Made]) -> None:
    seen = Counter[str]()
    for text, fields in made("choice/match-pairs"):
        for number in (1, 2, 3):
            item, match = fields[f"item_{number}"], fields[f"match_{number}"]
            is_date = bool(re.fullmatch(r"[\w ,]*\d{4}", match))
            key, part = (item.split()[-1], match) if is_date else (item.split()[-1], match.rpartition(" ")[0])
            seen["dates" if is_date else "deeds"] += 1

            assert any(key in one and part[:30] in one for one in text.sentences), fields
    assert min(seen.values()) >= 10, seen


def test_the_odd_one_is_odd_by_what_the_passage_says(made: Callable[..., Made]) -> None:
    kinds = Counter[str]()
    for round_ in range(3):
        for text, fields in made("choice/odd-one-out", round_):
            options = {name: value for name, value in fields.items() if name.startswith("option_")}
            odd = options.pop(f"option_{fields['right']}")
            dated = re.search(r"happened in (.+)\.$", fields["shared"])
            kinds["events" if dated else "people"] += 1

            assert fields["different"].startswith(odd), fields
            for item in options.values():
                said = [one for one in text.sentences if item.split()[-1] in one and item.split()[-2] in one]
                assert said, fields
                assert not dated or any(dated.group(1).split()[-1] in one for one in said), fields
            assert not dated or dated.group(1) not in fields["different"], fields
    assert min(kinds["events"], kinds["people"]) >= 3, kinds


@pytest.mark.parametrize("id_", sorted(MAKERS))
def test_another_round_asks_otherwise(id_: str, made: Callable[..., Made]) -> None:
    rounds = [{text.id: fields for text, fields in made(id_, round_)} for round_ in (0, 1)]

    both = [(rounds[0][key], rounds[1][key]) for key in rounds[0].keys() & rounds[1].keys()]

    assert len(both) >= 5
    assert sum(one != other for one, other in both) / len(both) >= 0.7
