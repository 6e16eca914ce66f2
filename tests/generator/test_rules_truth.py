"""The rules teacher's statements to be judged: true ones are true, wrong ones are wrong in one thing of the right kind."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache

import pytest

from foundation.records import Snippet
from generator.catalogue import load_catalogue
from generator.gates import Gates
from generator.teachers.rules.lexicon import DATE
from generator.teachers.rules.truth import MAKERS
from generator.teachers.rules.unanswerable import PERSON, PLACE, SHIP, SUBJECT, UNIT
from generator.teachers.rules.wrong import scaled
from tests.generator.prompt_files import snippet
from tests.generator.test_rules import accepted, fields_of

Made = list[tuple[Snippet, dict[str, str]]]

LEAST = {
    "truth/true-statement": 0.9,
    "truth/false-with-correction": 0.93,
    "truth/wrong-entity": 0.85,
    "truth/wrong-date": 0.8,
    "truth/wrong-place": 0.25,
    "truth/wrong-number": 0.4,
    "truth/false-premise": 0.5,
    "truth/not-answerable": 0.9,
}
"""The share of the project's own snippets that must end in an accepted record, at least."""

PARTICLES = "von van de of the el le la en".split()
MONTHS = r"January|February|March|April|May|June|July|August|September|October|November|December"


def is_named(word: str) -> bool:
    return word[0].isupper() or word[0].isdigit() or word in PARTICLES


WRONG: dict[str, Callable[[str], object]] = {
    "truth/wrong-entity": is_named,
    "truth/wrong-place": lambda word: word[0].isupper() or word in PARTICLES,
    "truth/wrong-date": re.compile(rf"\d{{1,2}},?|\d{{4}}|{MONTHS}").fullmatch,
    "truth/wrong-number": re.compile(r"[\d,]+").fullmatch,
}
"""What holds of every word in which a wrong statement differs from the true sentence."""


@pytest.fixture(scope="module")
def made(wwii_snippets: list[Snippet]) -> Callable[..., Made]:
    """What the teacher writes for a type in a round, gates aside."""
    return cache(lambda id_, round_=0: fields_of(load_catalogue()[id_], wwii_snippets, round_))


def sentence_behind(text: Snippet, fact: str) -> str:
    """The sentence of the snippet with which a correction ends."""
    return next(sentence for sentence in text.sentences if fact.endswith(sentence))


def differences(true: str, false: str) -> Iterator[tuple[str, str]]:
    """For each way to take a false statement's own opening off: the words in which the rest differs, if it does so once."""
    right, whole = true.rstrip(".").split(), false.rstrip(".").split()
    openings = [0, *(at + 1 for at, word in enumerate(whole[:14]) if word.endswith(","))]
    for opening in openings:
        wrong = whole[opening:]
        start = 0
        while start < min(len(right), len(wrong)) and right[start].lower() == wrong[start].lower():
            start += 1
        end = 0
        while end < min(len(right), len(wrong)) - start and right[-1 - end].lower() == wrong[-1 - end].lower():
            end += 1
        yield " ".join(right[start : len(right) - end]), " ".join(wrong[start : len(wrong) - end])


@pytest.mark.parametrize("id_", sorted(MAKERS))
def test_enough_snippets_give_an_accepted_record(id_: str, wwii_snippets: list[Snippet], warm_gates: Gates) -> None:
    outcomes = accepted(load_catalogue()[id_], wwii_snippets, warm_gates)

    assert len(outcomes) / len(wwii_snippets) >= LEAST[id_]


@pytest.mark.parametrize("id_", sorted(WRONG))
def test_a_wrong_statement_differs_from_a_true_sentence_in_one_thing_of_its_kind(
    id_: str, made: Callable[..., Made]
) -> None:
    for text, fields in made(id_):
        true = sentence_behind(text, fields["fact"])

        found = [pair for pair in differences(true, fields["statement"]) if all(pair)]
        right, wrong = min(found, key=lambda pair: len(pair[0]) + len(pair[1]))

        assert len(f"{right} {wrong}".split()) <= 14, fields
        for said in (right, wrong):
            assert all(WRONG[id_](re.sub(r"['’]s$|[,.]$", "", word)) for word in said.split()), (said, fields)


def test_a_wrong_date_is_as_exact_as_the_right_one(made: Callable[..., Made]) -> None:
    for text, fields in made("truth/wrong-date"):
        true = sentence_behind(text, fields["fact"])
        forms = [
            [re.sub(r"\d+", "9", re.sub(r"[A-Z][a-z]+", "M", date)) for date in DATE.findall(said)]
            for said in (true, fields["statement"])
        ]

        assert set(forms[1]) >= set(forms[0]), fields


def test_no_true_sentence_of_the_article_is_called_false(
    made: Callable[..., Made], wwii_snippets: list[Snippet]
) -> None:
    # given what each article says
    said: dict[str, str] = {}
    for text in wwii_snippets:
        said[text.article_id] = said.get(text.article_id, "") + text.text.lower()

    # then no false statement stands in it
    for id_ in (*WRONG, "truth/false-with-correction"):
        for text, fields in made(id_):
            assert fields["statement"].lower() not in said[text.article_id], fields


def test_a_bound_is_moved_only_to_where_it_is_false() -> None:
    # given bounds: "more than 300" is true of 500 as well as of "more than 200"
    text = snippet(
        "The garrison of Tobruk lost more than 300 tanks on the first day of the battle. "
        "General Erwin Rommel led fewer than 400 soldiers against Tobruk in the morning. "
        "At least 250 guns fired on Tobruk from the hills near the town."
    )
    falser = {"300": lambda value: value > 300, "400": lambda value: value < 400, "250": lambda value: value > 250}
    seen = set()

    for round_ in range(12):
        for _, fields in fields_of(load_catalogue()["truth/wrong-number"], [text], round_):
            ((right, wrong),) = [
                pair
                for pair in differences(sentence_behind(text, fields["fact"]), fields["statement"])
                if pair[0].isdigit()
            ][:1]
            assert falser[right](int(wrong)), fields
            seen.add(right)

    assert len(seen) >= 2


def test_a_place_is_not_exchanged_for_one_that_holds_it() -> None:
    # given a town, and the country it lies in, and no other town
    text = snippet(
        "Marshal Georgy Zhukov won a great victory near Moscow in the winter. Soviet troops had fought in Russia since the summer. "
        "The Russian winter stopped the tanks of General Heinz Guderian near Moscow."
    )

    assert fields_of(load_catalogue()["truth/wrong-place"], [text]) == []


@pytest.mark.parametrize(
    ("text", "factor", "expected"),
    [("1,200", 1.5, "1,800"), ("900", 2.5, "2,200"), ("24", 0.5, "12"), ("10", 1.1, ""), ("338,226", 0.5, "169,113")],
)
def test_another_number_is_as_round_as_the_right_one(text: str, factor: float, expected: str) -> None:
    assert scaled(text, factor) == expected


def test_a_fact_is_turned_round_by_one_word() -> None:
    # given a sentence with one word that has an opposite
    text = snippet("General Ivan Konev crossed the river Spree south of Berlin. Snow fell on the city.")

    found = [
        fields
        for round_ in range(8)
        for _, fields in fields_of(load_catalogue()["truth/false-with-correction"], [text], round_)
    ]

    assert any("Konev crossed the river Spree north of Berlin" in fields["statement"] for fields in found)
    assert all("south of Berlin" in fields["correction"] for fields in found)


def test_a_false_premise_is_named_and_set_right_first(made: Callable[..., Made]) -> None:
    for text, fields in made("truth/false-premise"):
        correction = fields["answer"].removesuffix(sentence_behind(text, fields["answer"])).strip()
        found = re.fullmatch(
            r"That was (?P<a>.+), not (?P<b>.+)\.|It was not (?P<c>.+) but (?P<d>.+)\.|The right number is (?P<e>.+), not (?P<f>.+)\.",
            correction,
        )

        assert found, fields
        right, wrong = (found["a"] or found["d"] or found["e"]), (found["b"] or found["c"] or found["f"])
        assert wrong in fields["question"], fields
        assert right not in fields["question"], fields
        assert right.split()[-1] in sentence_behind(text, fields["answer"]), fields


def test_what_is_asked_has_not_one_word_of_an_answer_in_the_passage(made: Callable[..., Made]) -> None:
    gaps = (*PERSON, *UNIT, *SHIP, *PLACE, *SUBJECT)
    for text, fields in made("truth/not-answerable"):
        asked = [gap for gap in gaps if re.fullmatch(re.escape(gap.missing).replace(r"\{n\}", ".+"), fields["missing"])]

        assert fields["nearby"] in text.sentences
        assert fields["question"].endswith("?")
        if fields["missing"].startswith("in which year") and not asked:
            assert not re.search(r"\d{4}", text.text), fields
        else:
            assert any(not gap.words.search(text.text) for gap in asked), fields


def test_nobody_asks_what_the_passage_answers() -> None:
    # given a passage on one general that tells his birth, death, age, marriage, school, children and old days
    text = snippet(
        "General Ivan Konev was born in 1897 and died at the age of 75. Ivan Konev went to an army school, married twice and "
        "had three children. Ivan Konev retired late and wrote his memoirs."
    )

    assert fields_of(load_catalogue()["truth/not-answerable"], [text]) == []


@pytest.mark.parametrize("id_", sorted(MAKERS))
def test_another_round_says_otherwise(id_: str, made: Callable[..., Made]) -> None:
    rounds = [{text.id: fields for text, fields in made(id_, round_)} for round_ in (0, 1)]

    both = [(rounds[0][key], rounds[1][key]) for key in rounds[0].keys() & rounds[1].keys()]

    assert len(both) >= 20
    assert sum(one != other for one, other in both) / len(both) >= 0.7
