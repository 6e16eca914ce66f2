"""The gates on the calibration set: what they refuse of real English, and what other languages get through."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from foundation.records import GateResult, Snippet
from generator.gates.cjk import check_cjk
from generator.gates.english import LONG, MIN_WORDS, EnglishGate
from generator.gates.language import LanguageGate, has_letters
from generator.gates.shape import check_shape
from generator.gates.standalone import check_standalone

DATA = Path(__file__).parent.parent / "data" / "calibration"
MAIN = ("dutch", "french", "german", "italian", "mixed-chinese", "pinyin", "russian", "spanish")


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / name).read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def english() -> EnglishGate:
    gate = EnglishGate()
    gate.warm()
    return gate


@pytest.fixture(scope="module")
def script() -> LanguageGate:
    return LanguageGate()


def judge(texts: list[str], script: LanguageGate, english: EnglishGate) -> GateResult:
    """A record's texts as the chain judges them: what has no letters is judged with the others."""
    joined = "\n".join(texts)
    for text in texts:
        for result in (
            check_cjk(text),
            script.check(text if has_letters(text) else joined),
            english.check(text),
        ):
            if not result.ok:
                return result
    return GateResult.accept()


def test_the_english_set_is_as_large_and_as_mixed_as_its_readme_says() -> None:
    kinds = Counter(row["kind"] for row in rows("english.jsonl"))

    assert kinds == {"sentence": 520, "hard sentence": 80, "pair": 140, "key words, telegrams and lists": 20}


def test_at_most_one_in_two_hundred_of_real_english_is_refused(script: LanguageGate, english: EnglishGate) -> None:
    # given sentences and pairs of question and answer
    records = [[row["text"]] if "text" in row else [row["question"], row["answer"]] for row in rows("english.jsonl")]

    # when all three gates judge them
    refused = {texts[0]: result.code for texts in records if not (result := judge(texts, script, english)).ok}

    # then none is refused, where 3 of the 760 might be
    assert refused == {}
    assert len(records) == 760


def test_the_foreign_set_is_as_large_as_its_readme_says() -> None:
    texts = rows("foreign.jsonl")
    counts = Counter(row["language"] for row in texts)

    assert {counts[name] for name in MAIN} == {40}
    assert len(texts) == 396
    assert [row["text"] for row in texts if len(row["text"].split()) < 12 and row["language"] != "th"] == []


def test_nothing_of_the_foreign_set_is_let_through(script: LanguageGate, english: EnglishGate) -> None:
    passed = [row["text"] for row in rows("foreign.jsonl") if judge([row["text"]], script, english).ok]

    assert passed == []


def test_what_other_latin_script_is_refused_for_is_the_english_gate(script: LanguageGate, english: EnglishGate) -> None:
    """The two-language detector lets it pass: without this gate it would reach a shard."""
    latin = [row["text"] for row in rows("foreign.jsonl") if row["language"] in {*MAIN} - {"russian", "mixed-chinese"}]

    assert all(script.check(text).ok and english.check(text).code == "other-language" for text in latin)


@pytest.mark.parametrize("language", sorted({*MAIN} - {"mixed-chinese"}))
def test_a_foreign_half_of_a_passage_is_seen(english: EnglishGate, wwii_snippets: list[Snippet], language: str) -> None:
    # given English passages, each followed by five foreign sentences
    foreign = [row["text"] for row in rows("foreign.jsonl") if row["language"] == language]
    halves = [
        f"{snippet.text} {' '.join(foreign[start : start + 5])}"
        for start, snippet in zip(range(0, 35, 5), wwii_snippets, strict=False)
    ]

    # when they are judged, then all are refused
    assert all(len(text.split()) > LONG for text in halves)
    assert [text for text in halves if english.check(text).ok] == []


def test_the_passages_of_the_projects_corpus_pass(english: EnglishGate, wwii_snippets: list[Snippet]) -> None:
    assert [snippet.title for snippet in wwii_snippets if not english.check(snippet.text).ok] == []


@pytest.mark.parametrize(
    "text",
    [
        "Georgy Zhukov (Russian: Георгий Константинович Жуков) led the front.",
        "The name Apollo (Greek: Ἀπόλλων) is older than the city of Troy itself.",
        "The angle α is twice the angle β in every such triangle of the plane.",
        "The town of Przemyśl, Łódź, Göteborg, Çanakkale and Reykjavík are in five countries.",
        "Marian Rejewski, Jerzy Różycki, Henryk Zygalski, Gwido Langer, Maksymilian Ciężki, Antoni Palluth",
        "1939, 1940, 1941, 1942, 1943, 1944, 1945, 1946, 1947, 1948, 1949, 1950",
        "",
    ],
)
def test_names_of_other_scripts_and_lists_of_names_pass(english: EnglishGate, text: str) -> None:
    assert english.check(text).ok


@pytest.mark.parametrize(
    "text",
    [
        "Георгий Жуков",
        "Led by Георгий Константинович Жуков",
        "The order read: Ни шагу назад, товарищи бойцы и командиры, and it was obeyed on every front of the war.",
        "Ο στρατηγός",
        "The 𝐛𝐚𝐭𝐭𝐥𝐞 of 𝐊𝐮𝐫𝐬𝐤 𝐰𝐚𝐬 𝐟𝐨𝐮𝐠𝐡𝐭 𝐢𝐧 𝟏𝟗𝟒𝟑",
    ],
)
def test_more_of_another_script_than_a_quoted_name_is_refused(english: EnglishGate, text: str) -> None:
    result = english.check(text, "answer")

    assert (result.gate, result.code, result.field) == ("english", "other-script", "answer")


def test_the_reason_names_the_language(english: EnglishGate) -> None:
    result = english.check("La bataille de France commença le dix mai et dura six semaines.", "question")

    assert (result.gate, result.code, result.field) == ("english", "other-language", "question")
    assert result.reason.startswith("reads as French")


def test_known_limit_a_short_foreign_text_passes(english: EnglishGate) -> None:
    text = "La bataille de France dura six semaines"

    assert len(text.split()) < MIN_WORDS
    assert english.check(text).ok


def test_known_limit_a_search_for_foreign_names_in_lower_case_is_refused(english: EnglishGate) -> None:
    """One common English word in ten is not enough to tell it from a text in another language."""
    assert not english.check("leningrad ladoga shlisselburg sinyavino iskra volkhov meretskov govorov zhdanov").ok


def test_a_whole_article_is_judged_by_its_greater_part(english: EnglishGate, wwii_snippets: list[Snippet]) -> None:
    # given an English article, and one of short French sentences, each too short to be judged alone
    article = " ".join(snippet.text for snippet in wwii_snippets[:6:2])
    french = "Il pleut sur la ville. Le chien dort. Nous partons demain matin. Elle ne vient pas. " * 12

    # when and then
    assert all(english.check(sentence).ok for sentence in french.split(". "))
    assert english.check_whole(f"{article} {french[:200]}").ok
    assert not english.check_whole(french).ok


def test_the_gate_works_in_a_forked_child(english: EnglishGate) -> None:
    child = os.fork()
    if child == 0:
        fine = english.check("Ships lost by Japan: Akagi, Kaga, Soryu, Hiryu, Mikuma sunk.").ok
        bad = english.check("La bataille de France commença le dix mai et dura six semaines.").ok
        os._exit(0 if fine and not bad else 1)

    assert os.waitpid(child, 0)[1] == 0


def test_shape_and_standalone_refuse_one_line_of_the_english_set_and_that_one_leans() -> None:
    lines = [
        text for row in rows("english.jsonl") for name in ("text", "question", "answer") if (text := row.get(name))
    ]

    assert [text for text in lines if not check_shape(text).ok] == []
    assert [check_standalone(text).reason for text in lines if not check_standalone(text).ok] == ["'cited above'"]
    assert len(lines) == 900
