"""Contrastive questions of the rules teacher: features that stand in the text, options of one kind, and pairs that balance."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from random import Random
from typing import Any

import pytest

from foundation.records import Snippet
from generator.catalogue import load_catalogue
from generator.gates import Gates
from generator.gates.fields import plain_words
from generator.teachers.rules import RulesTeacher
from generator.teachers.rules.contrastive import MAKERS, MOST
from generator.teachers.rules.task import Declined, Library, Task
from generator.teachers.rules.wrong import kinds_of
from tests.generator.prompt_files import snippet
from tests.generator.scripted import run

PLURALS = {"person": "people", "place": "places", "event": "events", "date": "dates", "number": "numbers"}
KINDS = sorted(PLURALS)
UNIT = 16
EVENT = re.compile(r"Battle|Siege|Operation|Treaty|Conference|War|Campaign|Raid|Invasion|Offensive|Uprising|Pact")

Asked = tuple[Library, Snippet, str, dict[str, Any]]


def task_of(library: Library, text: Snippet, kind: str, round_: int = 0, each: str = "") -> Task:
    """One call: the extract phase, or with `each` the one that asks about a feature."""
    return Task(
        library,
        library.readings[text.id],
        f"contrastive/{kind}",
        round_,
        Random(f"{text.id} {round_} {each}"),
        phase="ask" if each else "extract",
        values={"each": each} if each else {},
    )


def features(library: Library, text: Snippet, kind: str, round_: int = 0) -> list[str]:
    """What the first phase lists; nothing where it declines."""
    try:
        fields = MAKERS[f"contrastive/{kind}"](task_of(library, text, kind, round_))
    except Declined:
        return []
    listed = fields[PLURALS[kind]]
    assert isinstance(listed, list)
    return [str(entry) for entry in listed]


def ask(library: Library, text: Snippet, kind: str, feature: str, round_: int = 0) -> dict[str, Any]:
    return dict(MAKERS[f"contrastive/{kind}"](task_of(library, text, kind, round_, feature)))


def asked_of(texts: Sequence[Snippet], kind: str, round_: int = 0) -> list[Asked]:
    """Everything asked of some snippets, unit by unit, as the line would."""
    found = []
    for start in range(0, len(texts), UNIT):
        unit = texts[start : start + UNIT]
        library = library_of(tuple(unit))
        for text in unit:
            for feature in features(library, text, kind, round_):
                found.append((library, text, feature, ask(library, text, kind, feature, round_)))
    return found


@cache
def library_of(unit: tuple[Snippet, ...]) -> Library:
    return Library(unit)


def options(fields: dict[str, Any]) -> tuple[str, str]:
    """The right option, and the wrong one."""
    both = fields["option_1"], fields["option_2"]
    return both if fields["right"] == "1" else both[::-1]


def one(text: str, kind: str, feature: str) -> dict[str, Any]:
    """What is asked about one feature of one small text. Raises `Declined`."""
    made = snippet(text)
    library = Library([made])
    assert feature in features(library, made, kind), features(library, made, kind)
    return ask(library, made, kind, feature)


@pytest.mark.parametrize("kind", KINDS)
def test_every_feature_stands_in_the_text_once_and_can_be_asked_about(kind: str, wwii_snippets: list[Snippet]) -> None:
    for round_ in range(2):
        for _, text, feature, fields in asked_of(wwii_snippets, kind, round_):
            # given what the first phase listed, then the second phase had an answer (or `asked_of` had raised)
            assert feature in text.text
            assert feature in fields["option_1"] or feature in fields["option_2"] or kind == "person"
        library = library_of(tuple(wwii_snippets[:UNIT]))
        for text in wwii_snippets[:UNIT]:
            listed = features(library, text, kind, round_)
            assert len(listed) == len(set(listed)) <= MOST


@pytest.mark.parametrize("kind", KINDS)
def test_the_stem_names_neither_option_and_the_answer_only_the_right_one(
    kind: str, wwii_snippets: list[Snippet]
) -> None:
    asked = asked_of(wwii_snippets, kind)

    assert asked
    for _, _, _, fields in asked:
        right, wrong = options(fields)
        last = right.rpartition(" ")[2] if kind == "person" else right
        assert plain_words(last.removeprefix("the ")) in plain_words(fields["answer"]), fields
        assert plain_words(wrong.removeprefix("the ")) not in plain_words(fields["answer"]), fields
        assert plain_words(right.removeprefix("the ")) not in plain_words(fields["stem"]), fields
        assert plain_words(wrong.removeprefix("the ")) not in plain_words(fields["stem"]), fields
        assert not fields["stem"].endswith("?")


def test_both_dates_are_written_just_as_exactly(wwii_snippets: list[Snippet]) -> None:
    def shape(date: str) -> str:
        return re.sub(r"\d+", "9", re.sub(r"[A-Z][a-z]+", "M", date))

    for _, _, _, fields in asked_of(wwii_snippets, "date"):
        right, wrong = options(fields)
        assert shape(right) == shape(wrong)
        assert abs(int(right[-4:]) - int(wrong[-4:])) <= 20


def test_both_numbers_are_of_one_size_and_manner(wwii_snippets: list[Snippet]) -> None:
    for _, _, _, fields in asked_of(wwii_snippets, "number"):
        right, wrong = (int(option.replace(",", "")) for option in options(fields))
        assert 0.3 <= wrong / right <= 3
        assert right != wrong


def test_both_events_are_of_one_sort(wwii_snippets: list[Snippet]) -> None:
    for _, _, _, fields in asked_of(wwii_snippets, "event"):
        right, wrong = (EVENT.search(option) for option in options(fields))
        assert right
        assert wrong
        assert right.group() == wrong.group()
        assert options(fields)[0].startswith("the ") == options(fields)[1].startswith("the ")


def test_both_people_are_people_and_both_places_of_one_kind(wwii_snippets: list[Snippet]) -> None:
    for library, text, _, fields in asked_of(wwii_snippets, "person"):
        assert all(library.lexicon.person(name, text.article_id) or " " in name for name in options(fields))
    for library, _, _, fields in asked_of(wwii_snippets, "place"):
        right, wrong = (kinds_of(library).of_place(name) for name in options(fields))
        assert right == wrong != ""


def test_the_teacher_puts_the_right_option_first_as_often_as_second(wwii_snippets: list[Snippet]) -> None:
    places = Counter(
        fields["right"] for kind in ("person", "date") for _, _, _, fields in asked_of(wwii_snippets, kind)
    )

    # then neither place has more than 55 % of several hundred
    assert sum(places.values()) >= 400
    assert max(places.values()) / sum(places.values()) <= 0.55


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_again_gives_the_same_and_another_round_other_words(kind: str, wwii_snippets: list[Snippet]) -> None:
    first, again, later = (asked_of(wwii_snippets, kind, round_) for round_ in (0, 0, 1))

    assert [fields for *_, fields in first] == [fields for *_, fields in again]
    before = {(text.id, feature): fields for _, text, feature, fields in first}
    both = [(before[text.id, feature], fields) for _, text, feature, fields in later if (text.id, feature) in before]
    assert sum(one_ != other for one_, other in both) / len(both) >= 0.7


@pytest.mark.parametrize("kind", KINDS)
def test_a_feature_that_nothing_can_be_asked_about_is_declined_by_name(kind: str, wwii_snippets: list[Snippet]) -> None:
    library = library_of(tuple(wwii_snippets[:UNIT]))

    with pytest.raises(Declined, match="Nowhereville"):
        ask(library, wwii_snippets[0], kind, "Nowhereville")


@pytest.mark.parametrize(
    ("text", "stem"),
    [
        ("Japan lost 290 aircraft, five midget submarines and 64 men in the raid.", "how many aircraft did Japan lose"),
        (
            "About 290 sailors were killed in the first attack on Malta.",
            "how many sailors were killed in the first attack on Malta",
        ),
        (
            "The division had 290 tanks in the north of Poland.",
            "how many tanks did the division have in the north of Poland",
        ),
    ],
)
def test_what_is_counted_becomes_a_question(text: str, stem: str) -> None:
    fields = one(f"{text} Nothing else was told of the loss of Japan.", "number", "290")

    assert stem in fields["stem"][0].lower() + fields["stem"][1:] or stem in fields["stem"]


@pytest.mark.parametrize(
    "text",
    [
        "Fewer than 290 sailors were killed in the first attack on Malta.",
        "The commander of 290 tanks in Poland ordered the attack on Warsaw.",
        "The ships carried 290 or 300 sailors in the first attack on Malta.",
    ],
)
def test_a_number_that_another_could_stand_for_is_not_asked_about(text: str) -> None:
    made = snippet(f"{text} Nothing else was told of it.")

    assert features(Library([made]), made, "number") == []


def test_a_number_above_a_bound_is_set_beside_a_smaller_one() -> None:
    # given that "more than 800" could as well be 1,200
    fields = one("More than 800 sailors were killed in the first attack on Malta. It was told later.", "number", "800")

    right, wrong = options(fields)
    assert int(wrong) < int(right) == 800


def test_a_place_that_may_belong_to_another_noun_is_not_asked_about() -> None:
    made = snippet(
        "The government ordered the commander of the troops at Narvik to leave in May 1940. "
        "British sailors landed at Tromsø in June 1940. Norwegian soldiers landed at Bodø in May 1940. "
        "The king arrived at Narvik in April 1940. Nothing was told of British or Norwegian soldiers."
    )
    library = Library([made])

    stems = {feature: ask(library, made, "place", feature)["stem"] for feature in features(library, made, "place")}

    assert stems
    assert not any("government" in stem for stem in stems.values())
    assert any("where did British sailors land in June 1940" in stem for stem in stems.values())


@pytest.mark.parametrize(
    ("kind", "pairs"), [("person", 165), ("place", 16), ("event", 12), ("date", 140), ("number", 25)]
)
def test_through_the_line_half_of_the_records_have_the_right_option_first(
    kind: str, pairs: int, wwii_snippets: list[Snippet], warm_gates: Gates
) -> None:
    prompt_type = load_catalogue()[f"contrastive/{kind}"]

    outcomes = [
        outcome
        for start in range(0, len(wwii_snippets), UNIT)
        for outcome in run(
            RulesTeacher(), prompt_type, wwii_snippets[start : start + UNIT], warm_gates, around=wwii_snippets
        )
    ]

    # then each pair has both orders, so that exactly half of the records begin with the right option
    records = [record for outcome in outcomes for record in outcome.records]
    orders: dict[str, set[str]] = {}
    for record in records:
        orders.setdefault(record.pair_id, set()).add(record.ordering)
    assert len(orders) >= pairs
    assert all(found == {"right_first", "wrong_first"} for found in orders.values())
    assert 2 * sum(record.ordering == "right_first" for record in records) == len(records) == 2 * len(orders)

    # and every item ended in records or rejects, and next to nothing that was made was refused
    assert len(outcomes) == len(wwii_snippets)
    assert all(outcome.records or outcome.rejects for outcome in outcomes)
    expected = ("declined", "asked-already", "duplicate")  # two windows of an article share half of their sentences
    rejects = [reject for outcome in outcomes for reject in outcome.rejects]
    refused = [reject for reject in rejects if reject.code not in expected and reject.gate not in expected]
    assert len(refused) <= 0.03 * len(orders), [(reject.phase, reject.gate, reject.reason) for reject in refused]
