"""The gates: what each refuses, in which field, and what it is known to let through."""

from __future__ import annotations

import json
import os
import unicodedata
from typing import Any

import pytest

from foundation.prompt_type import FieldSpec, Phase, PromptType
from foundation.records import ChatReply, GateResult
from generator.gates import Gates
from generator.gates.chain import Call
from generator.gates.cjk import CJK, check_cjk
from generator.gates.grounded import Grounds
from generator.gates.language import LanguageGate
from generator.gates.schema import parse_fields
from generator.render import Source
from tests.generator.prompt_files import ANSWERED, PASSAGE, TWO, small, snippet

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


TEXT = "Georgy Zhukov led the front in the winter of 1941. Ivan Konev came later. Snow fell. Tanks froze."


def answer(fields: Any, finish: Any = "stop", detail: str = "") -> ChatReply:
    text = fields if isinstance(fields, str) else json.dumps(fields)
    return ChatReply(id="item", text=text, finish=finish, detail=detail)


def call(prompt_type: PromptType, phase: Phase | None = None, text: str = TEXT) -> Call:
    """The last call of a type, or another, over a short passage."""
    source = Source(snippet(text))
    return Call(prompt_type, phase or prompt_type.chain[-1], source, Grounds.of(text, source.snippet.title))


def judge(gates: Gates, prompt_type: PromptType, fields: Any) -> GateResult:
    return gates.check_reply(call(prompt_type), answer(fields))[0]


LISTING = small(
    {"subject": FieldSpec(min=3, max=40), "facts": FieldSpec(type="list", min=2, max=60, items_min=2, items_max=3)},
    [("user", "{{ subject }}"), ("assistant", "{{ facts }}")],
)
"""A string and a list, so that every shape of field is judged."""
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

    assert (result.gate, result.code, result.field) == ("cjk", "cjk", "question")
    assert result.reason == "U+9577 at character 10"


@pytest.mark.parametrize("character", ["中", "あ", "ア", "한", "ㄅ", "ꀀ", "。", "Ａ", "\u3000", "\U00020000"])
@pytest.mark.parametrize("where", ["subject", "facts[0]", "facts[1]"])
def test_one_cjk_character_in_any_field_rejects(warm_gates: Gates, character: str, where: str) -> None:
    # given a good reply with one character put at the end of one field
    fields = json.loads(json.dumps(GOOD))
    if where == "subject":
        fields["subject"] += character
    else:
        fields["facts"][int(where[6])] += character

    # when it is judged, escaped as JSON and not
    results = [judge(warm_gates, LISTING, json.dumps(fields, ensure_ascii=flag)) for flag in (True, False)]

    # then it is refused there
    assert {(result.gate, result.code, result.field) for result in results} == {("cjk", "cjk", where)}


@pytest.mark.parametrize(
    ("finish", "detail", "gate", "code", "reason"),
    [
        ("length", "length", "finish", "length", "cut off at max_tokens"),
        ("error", "HTTP 500", "teacher", "error", "HTTP 500"),
        ("declined", "no person", "teacher", "declined", "no person"),
        ("declined", "", "teacher", "declined", "no reason given"),
    ],
)
def test_a_reply_that_did_not_end_by_itself_is_rejected_however_good(
    warm_gates: Gates, finish: str, detail: str, gate: str, code: str, reason: str
) -> None:
    result, fields = warm_gates.check_reply(call(LISTING), answer(GOOD, finish, detail))

    assert (result.gate, result.code, result.reason, fields) == (gate, code, reason, {})


@pytest.mark.parametrize(
    ("text", "code", "field"),
    [
        ('{"subject": "the win', "invalid-json", ""),
        ("", "invalid-json", ""),
        ('```json\n{"subject": "x"}\n```', "invalid-json", ""),
        ("[1]", "not-an-object", ""),
        ({"subject": "the winter"}, "missing-field", "facts"),
        ({**GOOD, "extra": "x"}, "unknown-field", "extra"),
        ({**GOOD, "subject": 5}, "wrong-type", "subject"),
        ({**GOOD, "subject": " a  "}, "too-short", "subject"),
        ({**GOOD, "subject": "a" * 41}, "too-long", "subject"),
        ({**GOOD, "facts": "Snow fell."}, "wrong-type", "facts"),
        ({**GOOD, "facts": ["Snow fell."]}, "too-few-items", "facts"),
        ({**GOOD, "facts": ["Snow fell."] * 4}, "too-many-items", "facts"),
        ({**GOOD, "facts": ["Snow fell.", None]}, "wrong-type", "facts"),
        ({**GOOD, "facts": ["Snow fell.", " "]}, "too-short", "facts"),
        ('{"subject": "\\ud800 winter", "facts": ["Snow.", "Ice."]}', "invalid-json", ""),
    ],
)
def test_a_reply_that_does_not_fit_its_schema_is_rejected(warm_gates: Gates, text: Any, code: str, field: str) -> None:
    result, fields = warm_gates.check_reply(call(LISTING), answer(text))

    assert (result.gate, result.code, result.field, fields) == ("schema", code, field, {})
    assert result.reason


CHOICE = {"right": FieldSpec(type="choice", values=("1", "2"))}
OBJECTS = {"faq": FieldSpec(type="list", keys=("question", "answer"), min=2, max=20, items_max=2)}
PAIR = {"question": "Who?", "answer": "Zhukov"}


@pytest.mark.parametrize(
    ("specs", "fields", "code"),
    [
        (CHOICE, {"right": "2"}, ""),
        (CHOICE, {"right": "3"}, "wrong-type"),
        (CHOICE, {"right": 2}, "wrong-type"),
        (CHOICE, {"right": ["1"]}, "wrong-type"),
        (CHOICE, {"right": " 1"}, "wrong-type"),
        (OBJECTS, {"faq": [PAIR, PAIR]}, ""),
        (OBJECTS, {"faq": []}, "too-few-items"),
        (OBJECTS, {"faq": [PAIR] * 3}, "too-many-items"),
        (OBJECTS, {"faq": ["Who?"]}, "wrong-type"),
        (OBJECTS, {"faq": [{"question": "Who?"}]}, "wrong-type"),
        (OBJECTS, {"faq": [{**PAIR, "more": "x"}]}, "wrong-type"),
        (OBJECTS, {"faq": [{**PAIR, "answer": None}]}, "wrong-type"),
        (OBJECTS, {"faq": [PAIR, {**PAIR, "answer": "a"}]}, "too-short"),
        (OBJECTS, {"faq": [{**PAIR, "answer": "a" * 21}]}, "too-long"),
    ],
)
def test_choices_and_lists_of_objects_are_taken_at_their_word(
    specs: dict[str, FieldSpec], fields: dict[str, Any], code: str
) -> None:
    result, found = parse_fields(specs, json.dumps(fields))

    assert (result.gate, result.code) == ("schema" if code else "", code)
    assert found == ({} if code else fields)


def test_a_good_reply_passes_with_its_fields_unchanged(warm_gates: Gates) -> None:
    result, fields = warm_gates.check_reply(call(LISTING), answer(GOOD))

    assert result.ok
    assert fields == GOOD


FAULTS: list[tuple[dict[str, str], tuple[str, str, str]]] = [
    ({"question": "Who led the front?" * 200}, ("schema", "too-long", "question")),
    ({"question": "I'm sorry, but I can't answer that."}, ("shape", "refusal", "question")),
    ({"question": "What does the passage say of snow?"}, ("standalone", "leaning", "question")),
    ({"answer": "It was Georgy Zhukov 朱."}, ("cjk", "cjk", "answer")),
    ({"answer": "Георгий Жуков"}, ("language", "confidence", "answer")),
    (
        {"answer": "Il a dirigé le front pendant tout le dernier hiver et les chars ont gelé dans la neige."},
        ("english", "other-language", "answer"),
    ),
    ({"answer": "It was Vasily Sokolovsky."}, ("grounded", "name", "answer")),
    ({"answer": "It began in 1939."}, ("grounded", "number", "answer")),
    ({"answer": "It began in May 1941."}, ("grounded", "date", "answer")),
    ({}, ("", "", "")),
]


@pytest.mark.parametrize(("changed", "verdict"), FAULTS, ids=[verdict[0] or "good" for _, verdict in FAULTS])
def test_every_gate_of_the_chain_refuses_what_is_its_own(
    warm_gates: Gates, changed: dict[str, str], verdict: tuple[str, str, str]
) -> None:
    fields = {"question": "Who led the front?", "answer": "It was Georgy Zhukov."}

    result = judge(warm_gates, ANSWERED, {**fields, **changed})

    assert (result.gate, result.code, result.field) == verdict


def test_the_first_gate_of_the_chain_gives_the_reason(warm_gates: Gates) -> None:
    # given a reply with every fault at once, mended one after another
    faults = [
        ("Georgy Zhukov. " * 12 + "What does the passage say of Ивана 朱?", "shape"),
        ("What does the passage say of Ивана 朱?", "standalone"),
        ("What did he say of Ивана 朱?", "cjk"),
        ("Иван", "language"),
    ]

    gates = [judge(warm_gates, ANSWERED, {"question": text, "answer": "In 1939."}).gate for text, _ in faults]

    assert gates == [gate for _, gate in faults]


def test_a_question_beside_its_passage_may_speak_of_it(warm_gates: Gates) -> None:
    beside = small(
        {"question": {}, "answer": {}},
        [("user", "{{ passage }}\n\n{{ question }}"), ("assistant", "{{ answer }}")],
    )
    fields = {"question": "What does the passage say of snow?", "answer": "Snow fell."}

    assert judge(warm_gates, beside, fields).ok
    assert judge(warm_gates, ANSWERED, fields).gate == "standalone"


def test_an_early_phase_is_judged_for_shape_and_language_and_not_for_grounds(warm_gates: Gates) -> None:
    notes = Phase(name="extract", fields={"notes": FieldSpec(type="list", min=1, max=60)}, system="s", user="u")

    def code(*entries: str) -> str:
        return warm_gates.check_reply(call(ANSWERED, notes), answer({"notes": entries}))[0].code

    assert code("Vasily Sokolovsky", "the passage says 1939") == ""
    assert code("1941", "7") == "", "figures alone have no language, and are no fault before the last phase"
    assert code("Georgy Zhukov", "朱可夫") == "cjk"
    assert code("<think>a person") == "thinking"


def test_a_bare_year_passes_in_an_english_record_and_not_alone(warm_gates: Gates) -> None:
    assert warm_gates.check_fields({"question": "When did the battle of Stalingrad begin?", "answer": "1942"}).ok
    assert not warm_gates.check_fields({"text": "1942"}).ok
    assert not warm_gates.check_fields({"question": "?", "answer": "1942"}).ok


def test_other_scripts_are_rejected_by_language(warm_gates: Gates) -> None:
    result = warm_gates.check_fields({"question": "Who led the front?", "answer": "Георгий Жуков"})

    assert (result.gate, result.code, result.field) == ("language", "confidence", "answer")


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
    ("right", "wrong", "code"),
    [
        ("Ivan Konev", "ivan konev.", "same-option"),
        ("Ivan Konev", "Konev", "inside-another"),
        ("May 1940", "10 May 1940", "inside-another"),
        ("Konev", "Konevsky", ""),
        ("1941", "1942", ""),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_options_that_cannot_be_swapped_cleanly_are_rejected(
    warm_gates: Gates, right: str, wrong: str, code: str, turned: bool
) -> None:
    options = {"option_1": wrong, "option_2": right, "right": "2"} if turned else {"option_1": right, "option_2": wrong}
    fields = {"stem": "Whom does it name", "right": "1", "answer": f"It names {right}.", **options}

    result = judge(warm_gates, TWO, fields)

    assert (result.gate, result.code) == ("options" if code else "", code)


@pytest.mark.parametrize(
    ("sentence", "code"),
    [
        ("General ____ led the attack on the city.", ""),
        ("General Zhukov led the attack on the city.", "count"),
        ("General ____ led the attack on ____ that day.", "count"),
        ("General __________ led the attack on the city.", "form"),
    ],
)
def test_a_cloze_has_exactly_one_blank(warm_gates: Gates, sentence: str, code: str) -> None:
    cloze = small(
        {"sentence": {}, "answer": {}}, [("user", "{{ sentence }}"), ("assistant", "{{ answer }}")], checks=("blank",)
    )

    result = judge(warm_gates, cloze, {"sentence": sentence, "answer": "Zhukov"})

    assert (result.gate, result.code) == ("blank" if code else "", code)


def test_a_type_whose_task_is_to_be_wrong_may_repeat_the_mistake_and_make_no_other(warm_gates: Gates) -> None:
    wrong = small(
        {"question": {}, "answer": {}},
        [("user", "{{ question }}"), ("assistant", "{{ answer }}")],
        checks=("wrong-on-purpose",),
    )
    said = {"question": "Was it Kliment Voroshilov who led the front?", "answer": "No, not Voroshilov: Georgy Zhukov."}

    assert judge(warm_gates, wrong, said).ok
    assert judge(warm_gates, ANSWERED, said).gate == "grounded"
    assert judge(warm_gates, wrong, {**said, "answer": "No: it was Vasily Sokolovsky."}).gate == "grounded"


def test_a_mistake_that_is_mended_need_not_stand_in_the_text(warm_gates: Gates) -> None:
    mended = small(
        {"question": {}, "mistake": {}, "answer": {}},
        [
            ("user", "{{ question }}"),
            ("assistant", "{{ mistake }}", "untrained"),
            ("user", "Are you sure?"),
            ("assistant", "{{ answer }}"),
        ],
    )
    said = {"question": "Who led?", "mistake": "It was Kliment Voroshilov.", "answer": "It was Georgy Zhukov."}

    assert judge(warm_gates, mended, said).ok
    assert judge(warm_gates, mended, {**said, "answer": said["mistake"]}).field == "answer"


def test_a_passage_that_a_record_shows_is_judged_too(warm_gates: Gates) -> None:
    hostile, fine = Source(snippet("Snow 雪 fell early.")), Source(snippet("Snow fell early."))

    assert warm_gates.check_source(PASSAGE, fine).ok
    assert warm_gates.check_source(PASSAGE, hostile).field == "passage"
    assert warm_gates.check_source(ANSWERED, hostile).ok, "no record shows it"


def test_a_partner_that_a_record_shows_is_judged_too(warm_gates: Gates) -> None:
    both = small(
        {"question": {}},
        [("user", "{{ question }}"), ("assistant", "{{ passage }} {{ partner }}")],
        partner="same-article",
    )
    fine, hostile = snippet("Snow fell early."), snippet("Snow 雪 fell early.", number=1)

    assert warm_gates.check_source(both, Source(fine, fine)).ok
    assert warm_gates.check_source(both, Source(fine, hostile)).field == "partner"
