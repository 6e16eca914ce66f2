"""The gates: what each refuses, in which field, and what it is known to let through."""

from __future__ import annotations

import json
import os
import unicodedata
from typing import Any

import pytest

from foundation.errors import UsageError
from foundation.prompt_type import FieldSpec, PromptType, Turn
from foundation.records import ChatReply
from generator.catalogue import load_catalogue
from generator.gates import Gates
from generator.gates.cjk import CJK, check_cjk
from generator.gates.files import check_lines
from generator.gates.language import LanguageGate
from tests.generator.prompt_files import snippet

CJK_NAMES = (
    "CJK UNIFIED",
    "CJK COMPATIBILITY",
    "CJK RADICAL",
    "KANGXI RADICAL",
    "CJK STROKE",
    "HIRAGANA",
    "KATAKANA",
    "HENTAIGANA",
    "HANGUL",
    "BOPOMOFO",
    "YI SYLLABLE",
    "YI RADICAL",
    "IDEOGRAPH",
    "FULLWIDTH",
    "HALFWIDTH",
    "TANGUT",
    "KHITAN",
    "NUSHU",
)


def answer(fields: Any, finish: Any = "stop") -> ChatReply:
    return ChatReply(id="item", text=fields if isinstance(fields, str) else json.dumps(fields), finish=finish)


@pytest.fixture
def listing() -> PromptType:
    """A string and a list, so that every shape of field is judged."""
    return PromptType(
        id="structure/key-facts",
        version=1,
        summary="",
        fields={
            "subject": FieldSpec(min=3, max=40),
            "facts": FieldSpec(type="list", min=2, max=60, items_min=2, items_max=3),
        },
        system="s",
        user="u",
        turns=(Turn(role="user", template="{{ subject }}"), Turn(role="assistant", template="{{ facts }}")),
    )


GOOD = {"subject": "the winter", "facts": ["Snow fell.", "Tanks froze."]}


def test_the_cjk_ranges_hold_every_character_named_so() -> None:
    missed = [
        hex(code)
        for code in range(0x110000)
        if any(name in unicodedata.name(chr(code), "") for name in CJK_NAMES) and not CJK.match(chr(code))
    ]

    assert missed == []


def test_the_cjk_ranges_hold_the_whole_punctuation_and_width_blocks() -> None:
    assert all(CJK.match(chr(code)) for code in range(0x3000, 0x3040))
    assert all(CJK.match(chr(code)) for code in range(0xFF00, 0xFFF0))


@pytest.mark.parametrize(
    "text", ["", "plain", "Göring, Łódź", "Москва", "“quoted” – 5 µm, 20 °C, ½", "Αθήνα", "שלום", "🙂", "हिन्दी"]
)
def test_other_scripts_are_not_cjk(text: str) -> None:
    assert check_cjk(text).ok


def test_the_first_cjk_character_is_named_with_its_place() -> None:
    result = check_cjk("Battle of 長沙", "question")

    assert (result.gate, result.reason, result.field) == ("cjk", "U+9577 at character 10", "question")


@pytest.mark.parametrize("character", ["中", "あ", "ア", "한", "ㄅ", "ꀀ", "。", "Ａ", "\u3000", "\U00020000"])
@pytest.mark.parametrize("where", ["subject", "facts[0]", "facts[1]"])
def test_one_cjk_character_in_any_field_rejects(
    listing: PromptType, warm_gates: Gates, character: str, where: str
) -> None:
    # given a good reply with one character put at the end of one field
    fields = json.loads(json.dumps(GOOD))
    if where == "subject":
        fields["subject"] += character
    else:
        fields["facts"][int(where[6])] += character

    # when it is judged, escaped as JSON and not
    results = [
        warm_gates.check_reply(listing, answer(json.dumps(fields, ensure_ascii=flag)))[0] for flag in (True, False)
    ]

    # then it is refused there
    assert {(result.gate, result.field) for result in results} == {("cjk", where)}


@pytest.mark.parametrize(("finish", "gate"), [("length", "finish"), ("error", "teacher"), ("declined", "teacher")])
def test_a_reply_that_did_not_end_by_itself_is_rejected_however_good(
    listing: PromptType, warm_gates: Gates, finish: str, gate: str
) -> None:
    result, fields = warm_gates.check_reply(listing, answer(GOOD, finish))

    assert (result.ok, result.gate, fields) == (False, gate, {})
    assert result.reason.startswith(finish)


@pytest.mark.parametrize(
    ("text", "reason", "field"),
    [
        ('{"subject": "the win', "invalid JSON", ""),
        ("", "invalid JSON", ""),
        ('```json\n{"subject": "x"}\n```', "invalid JSON", ""),
        ("[1]", "not a JSON object", ""),
        ({"subject": "the winter"}, "missing field", "facts"),
        ({**GOOD, "extra": "x"}, "unknown field", "extra"),
        ({**GOOD, "subject": 5}, "not a string", "subject"),
        ({**GOOD, "subject": " a  "}, "too short", "subject"),
        ({**GOOD, "subject": "a" * 41}, "too long", "subject"),
        ({**GOOD, "facts": "Snow fell."}, "not a list", "facts"),
        ({**GOOD, "facts": ["Snow fell."]}, "too few items", "facts"),
        ({**GOOD, "facts": ["Snow fell."] * 4}, "too many items", "facts"),
        ({**GOOD, "facts": ["Snow fell.", None]}, "not a string", "facts"),
        ('{"subject": "\\ud800 winter", "facts": ["Snow.", "Ice."]}', "invalid JSON", ""),
    ],
)
def test_a_reply_that_does_not_fit_its_schema_is_rejected(
    listing: PromptType, warm_gates: Gates, text: Any, reason: str, field: str
) -> None:
    result, _ = warm_gates.check_reply(listing, answer(text))

    assert (result.ok, result.gate, result.field) == (False, "schema", field)
    assert reason in result.reason


def test_a_good_reply_passes_with_its_fields_unchanged(listing: PromptType, warm_gates: Gates) -> None:
    result, fields = warm_gates.check_reply(listing, answer(GOOD))

    assert result.ok
    assert fields == GOOD


def test_a_bare_year_passes_in_an_english_record_and_not_alone(warm_gates: Gates) -> None:
    assert warm_gates.check_fields({"question": "When did the battle of Stalingrad begin?", "answer": "1942"}).ok
    assert not warm_gates.check_fields({"text": "1942"}).ok
    assert not warm_gates.check_fields({"question": "?", "answer": "1942"}).ok


def test_other_scripts_are_rejected_by_language(warm_gates: Gates) -> None:
    result = warm_gates.check_fields({"question": "Who led the front?", "answer": "Георгий Жуков"})

    assert (result.gate, result.field) == ("language", "answer")


def test_known_limit_lingua_of_two_languages_tells_scripts_apart_and_not_french() -> None:
    gate = LanguageGate()

    assert gate.check("La bataille de France commença le dix mai.").ok
    assert gate.check("中国 is here, and more English words follow it").ok  # why the CJK gate stands in front


def test_the_detector_works_in_a_forked_child(warm_gates: Gates) -> None:
    child = os.fork()
    if child == 0:
        fine = warm_gates.check_fields({"text": "Snow fell on the road to Moscow."}).ok
        os._exit(0 if fine and not warm_gates.check_fields({"text": "Снег"}).ok else 1)

    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize(
    ("right", "wrong", "reason"),
    [
        ("Ivan Konev", "ivan konev.", "the same option twice"),
        ("Ivan Konev", "Konev", "one option inside another"),
        ("May 1940", "10 May 1940", "one option inside another"),
        ("Konev", "Konevsky", ""),
        ("1940", "1941", ""),
    ],
)
def test_options_that_cannot_be_swapped_cleanly_are_rejected(
    warm_gates: Gates, right: str, wrong: str, reason: str
) -> None:
    prompt_type = load_catalogue()["contrastive/person"]
    fields = {"stem": "Who commanded the front", "right": right, "wrong": wrong, "answer": "It was the first of them."}

    result, _ = warm_gates.check_reply(prompt_type, answer(fields))

    assert result.reason == reason
    assert result.gate == ("options" if reason else "")


@pytest.mark.parametrize(
    ("sentence", "ok"),
    [
        ("General ____ led the attack on the city.", True),
        ("General Zhukov led the attack on the city.", False),
        ("General ____ led the attack on ____ that day.", False),
        ("General __________ led the attack on the city.", False),
    ],
)
def test_a_cloze_has_exactly_one_blank(warm_gates: Gates, sentence: str, ok: bool) -> None:
    result, _ = warm_gates.check_reply(
        load_catalogue()["cloze/entity"], answer({"sentence": sentence, "answer": "Zhukov"})
    )

    assert (result.ok, result.gate) == (ok, "" if ok else "blank")


def test_a_passage_that_a_record_shows_is_judged_too(warm_gates: Gates) -> None:
    assert warm_gates.check_source(snippet("Snow fell early.")).ok
    assert warm_gates.check_source(snippet("Snow 雪 fell early.")).field == "passage"


def test_a_file_is_judged_line_by_line_in_order(warm_gates: Gates) -> None:
    lines = [
        "\ufeffSnow fell.\r\n",
        '{"question": "When?", "answer": "1942"}\n',
        '{"text": "雪"}\n',
        "\n",
        '{"messages": [{"role": "user", "content": "Привет"}], "n": 3}\n',
        "1942",
    ]

    results = list(check_lines([line.encode() for line in lines], "f", warm_gates))

    assert [(result.ok, result.gate, result.field) for result in results] == [
        (True, "", ""),
        (True, "", ""),
        (False, "cjk", "text"),
        (False, "schema", ""),
        (False, "language", "messages[0].content"),
        (False, "language", "text"),
    ]


@pytest.mark.parametrize("line", [b'{"text": "a"', b'{"n": 1}', b"Snow \xff fell"])
def test_a_line_that_cannot_be_read_is_named(warm_gates: Gates, line: bytes) -> None:
    with pytest.raises(UsageError) as caught:
        list(check_lines([b"Snow fell.\n", line], "corpus.jsonl", warm_gates))

    assert caught.value.where == "corpus.jsonl:2"
