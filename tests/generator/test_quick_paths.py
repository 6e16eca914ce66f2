"""The quick path and the plain one say the same: lingua's known answers, templates of text alone, the search for figures."""

from __future__ import annotations

import json
import random
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from foundation.errors import UsageError
from foundation.prompt_type import PromptType
from foundation.records import Snippet
from generator.catalogue import load_catalogue
from generator.gates import numbers
from generator.gates.grounded import Grounds, check_grounded
from generator.gates.language import LATIN_ONLY, LanguageGate, has_letters
from generator.gates.numbers import read_figures
from generator.render import Source, chat_request, environment, render_records
from generator.render import compile_template as compiled

CALIBRATION = Path(__file__).parent.parent / "data" / "calibration"
LATIN = [char for char in map(chr, range(0x2100)) if LATIN_ONLY.fullmatch(char)]


def rows(name: str) -> list[str]:
    found = [json.loads(line) for line in (CALIBRATION / name).read_text("utf-8").splitlines()]
    return [text for row in found for text in row.values() if isinstance(text, str)]


@pytest.fixture(scope="module")
def gate() -> LanguageGate:
    gate = LanguageGate()
    gate.warm()
    return gate


def confidence(gate: LanguageGate, text: str) -> float:
    """Lingua's own word."""
    found: float = gate._detector.compute_language_confidence(text, gate._english)
    return found


class FakeDetector:
    """Stands in for a lingua that takes one letter for no English."""

    def __init__(self, doubted: str) -> None:
        self.doubted = doubted

    def compute_language_confidence(self, text: str, _: Any) -> float:
        return 0.5 if self.doubted in text else 1.0


def test_lingua_is_certain_of_whatever_is_accepted_without_asking_it(gate: LanguageGate) -> None:
    # given texts of any of the characters that are not asked about: few kinds or many, in long words or short
    rng = random.Random(1)
    texts = []
    for _ in range(8000):
        pool = [*rng.sample(LATIN, rng.randint(1, 12)), *" " * rng.randint(0, 4)]
        texts.append("".join(rng.choices(pool, k=rng.randint(1, 60))) + rng.choice("abzXYZ"))

    # when lingua is asked all the same, then it is certain
    assert len(LATIN) > 500
    assert [text for text in texts if confidence(gate, text) != 1.0] == []


def test_the_gate_says_what_lingua_says_of_every_calibrated_text(gate: LanguageGate) -> None:
    texts = [*rows("english.jsonl"), *rows("foreign.jsonl"), "1942", "", "–", "é", "µ", "Ω", "3.14 + 2 = 5.14", "ab 中"]

    assert len(texts) > 1000
    assert [text for text in texts if gate.check_source(text).ok != (confidence(gate, text) == 1.0)] == []
    assert not gate.check("1942").ok and not has_letters("1942")


@pytest.mark.parametrize("letter", ["q", "ß", "ǵ", "…"])
def test_a_lingua_that_says_otherwise_of_one_character_is_asked_about_every_text(letter: str) -> None:
    # given a detector that is not certain where that character stands
    gate = LanguageGate()
    gate.__dict__["_detector"] = FakeDetector(letter)

    # when texts of Latin letters are judged
    doubted, other = gate.check_source(f"The{letter} fleet sailed."), gate.check_source("The fleet sailed.")

    # then it has been asked
    assert not doubted.ok and other.ok


def test_the_words_of_figures_are_found_where_a_plain_search_finds_them(wwii_snippets: list[Snippet]) -> None:
    # given the plain expressions, which look behind every word boundary, and texts with figures anywhere
    some = "|".join(sorted(numbers.NUMBER_WORDS, key=len, reverse=True))
    plain = {
        numbers._opening(sorted(numbers.NUMBER_WORDS, key=len, reverse=True)): rf"\b(?:{some})",
        numbers._M: rf"\b(?:{'|'.join(numbers.MONTHS)}|(?:Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)\b\.?)",
    }
    words = [
        *numbers.NUMBER_WORDS,
        *numbers.MONTHS,
        "Sept.",
        "Mar",
        "x",
        "1942",
        "-",
        "and",
        "ten",
        "é",
        "_",
        "\n",
        "16 ",
    ]
    rng = random.Random(2)
    texts = ["".join(rng.choices([*words, " ", " "], k=20)) for _ in range(3000)] + [one.text for one in wwii_snippets]

    # when both are searched for, then they find the same
    for quick, slow in plain.items():
        for text in texts:
            assert [m.span() for m in re.finditer(quick, text)] == [m.span() for m in re.finditer(slow, text)], text


def test_days_are_looked_for_wherever_they_may_stand_before_a_month() -> None:
    rng = random.Random(3)
    words = [
        "16",
        "16th",
        "3rd",
        "1st",
        "twenty-first",
        "fourth",
        "of",
        "the",
        "on",
        "and",
        "to",
        "1942",
        "2.5",
        "٣",
        "\n",
        ",",
        "–",
    ]
    found = 0
    for _ in range(20000):
        text = "".join(
            word + rng.choice([" ", " ", " ", "", "\n", " \n"]) for word in rng.choices(words, k=rng.randint(1, 5))
        )
        if numbers._DAYS_BEFORE.search(text):
            found += 1
            assert numbers._ends_a_day(f"{text}July 1940", len(text)), text
    assert found > 1000


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("He left on 1942-06-04.", ((4, 6, 1942),)),
        ("He left on 03/04/1942.", ((3, 4, 1942), (4, 3, 1942))),
        ("He left on 3/14/1942.", ((14, 3, 1942),)),
    ],
)
def test_dates_in_figures_are_read_in_both_orders(text: str, values: tuple[Any, ...]) -> None:
    assert [figure.values for figure in read_figures(text)] == [values]


@pytest.mark.parametrize("text", ["a1942-06-04", "11942-06-04", "1942-06-041", "123/04/1942", "03/04/19423"])
def test_what_only_looks_like_a_date_is_none(text: str) -> None:
    assert "date" not in {figure.kind for figure in read_figures(text)}


@pytest.mark.parametrize("prompt_type", load_catalogue().values(), ids=lambda one: one.id)
def test_templates_read_as_jinja_has_them(prompt_type: PromptType) -> None:
    # given every template of a type, and a value for each variable
    sources = [turn.template for turn in prompt_type.turns] + [phase.user for phase in prompt_type.chain]
    values: dict[str, Any] = dict.fromkeys(
        ("title", "passage", "partner", "partner_title", "entity", "each", *prompt_type.fields), " a <b> {{ c }}\n"
    )
    for phase in prompt_type.phases:
        values |= dict.fromkeys(phase.fields, "x")
    values |= {"options": ["a", "b"], "right": "a", "letters": ["A", "B"], "right_letter": "A", "placed": ["A", "B"]}
    values |= {"first": "a", "second": "b"}
    lists = {
        name: [{"question": "q", "answer": "a"}] for name, spec in prompt_type.fields.items() if spec.type == "list"
    }

    # when they are rendered, then the text is Jinja's own, for text and for lists
    for source in sources:
        jinja = environment().from_string(source)
        for given in (values, values | lists):
            assert outcome(partial(compiled(source).render, given)) == outcome(partial(jinja.render, given))


def outcome(act: Any) -> str:
    try:
        return str(act())
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def test_a_variable_that_is_missing_is_still_an_error(wwii_snippets: list[Snippet]) -> None:
    prompt_type = load_catalogue()["qpt/formal"]

    with pytest.raises(UsageError, match="'question' is undefined"):
        render_records(prompt_type, Source(wwii_snippets[0]), {}, "item")
    asked = chat_request(prompt_type, Source(wwii_snippets[0]), "item", 1).messages[1].content
    assert asked == f"Subject: {wwii_snippets[0].title}\n\n<passage>\n{wwii_snippets[0].text}\n</passage>"


def test_grounds_of_several_texts_hold_what_any_of_them_holds() -> None:
    # given two texts that know different things
    sea = Grounds.of("The Bismarck sank on 27 May 1941 with 2,000 men under Fleet Admiral Lütjens.", "A ship")
    land = Grounds.of("The XIV Corps of the Royal Air Force had the Me-109 in the 1930s.", "A corps")
    both = Grounds.joined((sea, land))
    answers = [
        *("It sank in May 1941.", "It had 2,000 men.", "Lutjens led it.", "A Ship sank."),
        *("The RAF was there.", "It was the 14th corps.", "They flew the Me 109.", "It was so in the 1930s."),
    ]

    # when answers are held against each alone and against both
    told = [[check_grounded(answer, "a", ground).ok for answer in answers] for ground in (sea, land, both)]

    # then both know all of it, and each knows its own alone
    assert told == [[True] * 4 + [False] * 4, [False] * 4 + [True] * 4, [True] * 8]
    assert not check_grounded("The Hood sank in 1916.", "a", both).ok
