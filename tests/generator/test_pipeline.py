"""The pipeline: every item ends in records or in rejects, whatever the teacher does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from foundation.errors import Failure
from foundation.ids import stable_id
from foundation.prompt_type import FieldSpec, Options
from foundation.records import ChatReply, Snippet, item_id
from generator.catalogue import load_catalogue
from generator.gates import Gates
from generator.pipeline import Outcome
from generator.render import Source, render_records
from generator.teachers.base import TeacherRequest
from tests.generator.prompt_files import ANSWERED, GOOD, PASSAGE, TWO, load_one, small, snippet
from tests.generator.scripted import POLICY, Script, everyone, records_of, rejects_of, run, said

PAIR = {
    "option_1": "Georgy Zhukov",
    "option_2": "Ivan Konev",
    "right": "1",
    "answer": "It was Georgy Zhukov.",
}


def snippets(count: int) -> list[Snippet]:
    return [snippet(f"Georgy Zhukov led the front on day {n}. Tanks froze.", number=n) for n in range(count)]


def question(request: TeacherRequest) -> dict[str, Any]:
    """A question that no other item of the unit gets."""
    return {"question": f"What happened near Moscow on day {request.source.snippet.index} of that winter?"}


def pair(request: TeacherRequest, **changed: Any) -> dict[str, Any]:
    return {"stem": f"Who led the front on day {request.source.snippet.index}", **PAIR, **changed}


WAYS: list[tuple[tuple[str, str], Callable[[TeacherRequest], ChatReply]]] = [
    (("", ""), lambda request: said(request, question(request))),
    (("finish", "length"), lambda request: said(request, question(request), "length")),
    (("teacher", "declined"), lambda request: said(request, "", "declined", "nothing to ask")),
    (("teacher", "error"), lambda request: said(request, "", "error", "HTTP 500")),
    (("schema", "invalid-json"), lambda request: said(request, "not JSON")),
    (("shape", "refusal"), lambda request: said(request, {"question": "I'm sorry, but I can't answer that."})),
    (("standalone", "leaning"), lambda request: said(request, {"question": "What does the passage say of snow?"})),
    (("cjk", "cjk"), lambda request: said(request, {"question": "莫斯科附近发生了什么事?"})),
    (("language", "confidence"), lambda request: said(request, {"question": "Что случилось под Москвой?"})),
]


def test_every_item_is_accepted_or_rejected_with_its_gate_and_code(warm_gates: Gates) -> None:
    # given a teacher that fails in every way it can, in turn
    outcomes = run(
        lambda requests: [WAYS[number % len(WAYS)][1](request) for number, request in enumerate(requests)],
        PASSAGE,
        snippets(5 * len(WAYS)),
        warm_gates,
    )

    # then items = accepted + rejected, and each reject is counted under its own name
    accepted = [outcome for outcome in outcomes if outcome.records]
    assert len({outcome.item for outcome in outcomes}) == len(outcomes) == 5 * len(WAYS)
    assert not any(outcome.records and outcome.rejects for outcome in outcomes)
    assert len(accepted) == 5
    rejects = rejects_of(outcomes)
    assert Counter((one.gate, one.code) for one in rejects) == {name: 5 for name, _ in WAYS[1:]}
    assert {one.phase for one in rejects} == {"ask"}
    assert len({one.id for one in rejects}) == len(rejects)
    reasons = {one.reason for one in rejects if one.gate == "teacher"}
    assert reasons == {"nothing to ask", "HTTP 500"}


def test_a_record_carries_its_provenance_and_trains_on_the_passage(warm_gates: Gates) -> None:
    (text,) = snippets(1)

    (outcome,) = run(everyone(question), PASSAGE, [text], warm_gates)

    (record,) = outcome.records
    assert record.item == outcome.item == item_id(text.id, PASSAGE.fingerprint, 0)
    assert [message.role for message in record.messages] == ["user", "assistant"]
    assert record.messages[1].content == text.text
    assert record.supervised == (1,)
    assert (record.family, record.teacher, record.attempt) == ("tests", "scripted:1", "a1")
    assert (record.usage.prompt_tokens, record.phase) == (7, "ask")
    assert record.split == POLICY.split(text.article_id, text.id, PASSAGE.id)
    assert record.sampling == PASSAGE.sampling
    assert (record.ordering, record.pair_id, record.right_at, record.partner_id) == ("", "", 0, "")


def test_a_reject_keeps_the_raw_reply_and_its_cost(warm_gates: Gates) -> None:
    (outcome,) = run(lambda requests: [said(requests[0], "not JSON", tokens=11)], PASSAGE, snippets(1), warm_gates)

    (reject,) = outcome.rejects
    assert (reject.text, reject.usage.prompt_tokens, reject.attempt) == ("not JSON", 11, "a1")


def test_ids_do_not_follow_the_output(warm_gates: Gates) -> None:
    texts = snippets(3)

    first = run(everyone(pair), TWO, texts, warm_gates, "a1")
    second = run(
        everyone(lambda one: pair(one, answer="Georgy Zhukov did.", option_2="Ivan Panfilov")),
        TWO,
        texts,
        warm_gates,
        "a2",
    )

    def ids(outcomes: list[Outcome]) -> list[tuple[str, str]]:
        return [(record.id, record.pair_id) for record in records_of(outcomes)]

    assert ids(first) == ids(second)
    assert len(set(ids(first))) == 6


def test_a_pair_has_both_orderings_and_exactly_half_have_the_right_option_first(warm_gates: Gates) -> None:
    # given fifty items, and a teacher that puts the right option second in a third of them
    def fields(request: TeacherRequest) -> dict[str, Any]:
        if request.source.snippet.index % 3:
            return pair(request)
        return pair(request, option_1="Ivan Konev", option_2="Georgy Zhukov", right="2")

    outcomes = run(everyone(fields), TWO, snippets(50), warm_gates)

    # then there are two records to an item, under one pair id, and the right one stands first in exactly half
    records = records_of(outcomes)
    assert Counter(record.ordering for record in records) == {"right_first": 50, "wrong_first": 50}
    assert all(len({record.pair_id for record in outcome.records}) == 1 for outcome in outcomes)
    assert len({record.pair_id for record in records}) == 50
    assert not {record.pair_id for record in records} & {record.id for record in records}
    for record in records:
        options = ("Georgy Zhukov", "Ivan Konev")
        first, second = options if record.ordering == "right_first" else options[::-1]
        assert record.messages[0].content.endswith(f", {first} or {second}?")
    assert {record.messages[1].content for record in records} == {"It was Georgy Zhukov."}
    # and what the teacher itself did is kept
    assert Counter(record.right_at for record in records) == {1: 66, 2: 34}


def test_a_pair_is_rejected_whole(warm_gates: Gates) -> None:
    (outcome,) = run(everyone(lambda one: pair(one, option_2="Zhukov")), TWO, snippets(1), warm_gates)

    assert outcome.records == ()
    assert [(one.gate, one.code, one.field) for one in outcome.rejects] == [("options", "inside-another", "option_2")]


NAMES = ("option_1", "option_2", "option_3", "option_4")
FOUR = small(
    {
        "question": {},
        **dict.fromkeys(NAMES, FieldSpec()),
        "right": FieldSpec(type="choice", values=("1", "2", "3", "4")),
    },
    [
        ("user", "{{ question }}\n{% for one in options %}\n{{ letters[loop.index0] }}) {{ one }}\n{% endfor %}"),
        ("assistant", "{{ right_letter }}) {{ right }}"),
    ],
    options=Options(fields=NAMES, right="right", order="shuffled"),
)


@pytest.mark.parametrize("always", ["1", "3", "4", "in turn"])
def test_the_position_of_the_right_choice_is_uniform_whatever_the_teachers_own(always: str) -> None:
    # given 2,000 items of a choice type, and a teacher with a habit
    text = Source(snippets(1)[0])
    options = dict(zip(NAMES, ("W", "X", "Y", "Z"), strict=True))
    asked = [(stable_id("made-up", n), str(n % 4 + 1) if always == "in turn" else always) for n in range(2000)]

    # when they are rendered, twice
    def render() -> list[Any]:
        return [
            render_records(FOUR, text, {"question": "Who led?", **options, "right": right}, item)[0]
            for item, right in asked
        ]

    first = render()

    # then the same item has the same order, the letter names the right option, and no position is preferred
    assert first == render()
    for (_, right), record in zip(asked, first, strict=True):
        letter = record.messages[1].content[0]
        assert f"\n{letter}) {'WXYZ'[int(right) - 1]}" in record.messages[0].content
        assert record.messages[1].content == f"{letter}) {'WXYZ'[int(right) - 1]}"
        assert record.ordering == f"right_{'ABCD'.index(letter) + 1}"
    counts = Counter(record.ordering for record in first)
    chi_square = sum((counts[f"right_{number}"] - 500) ** 2 / 500 for number in (1, 2, 3, 4))
    assert chi_square < 16.27  # 3 degrees of freedom, p = 0.001; the draw is fixed, so this cannot flap


def test_a_question_asked_before_in_the_unit_is_a_duplicate(warm_gates: Gates) -> None:
    outcomes = run(everyone({"question": "What happened near Moscow?"}), PASSAGE, snippets(4), warm_gates)

    assert len(records_of(outcomes)) == 1
    assert [(one.gate, one.code) for one in rejects_of(outcomes)] == [("duplicate", "exact")] * 3


def test_an_answer_may_name_what_stands_in_its_article_and_nothing_else(warm_gates: Gates) -> None:
    # given two snippets of one article, and answers from the other one, and from nowhere
    texts = [snippet("Georgy Zhukov led the front.", number=0), snippet("Snow fell in October 1941.", number=1)]
    answers = ["It began in October 1941.", "It was led by Ivan Konev."]

    outcomes = run(
        everyone(lambda one: {"question": "When and where?", "answer": answers[one.source.snippet.index]}),
        ANSWERED,
        texts,
        warm_gates,
    )

    # then the first is grounded, and the second is not
    assert [bool(outcome.records) for outcome in outcomes] == [True, False]
    assert [(one.gate, one.code, one.field) for one in rejects_of(outcomes)] == [("grounded", "name", "answer")]


def test_a_reply_that_comes_twice_or_for_nobody_counts_once(warm_gates: Gates) -> None:
    def script(requests: Sequence[TeacherRequest]) -> list[ChatReply]:
        replies = [said(request, question(request)) for request in requests]
        return [*replies, replies[0], replies[1].model_copy(update={"id": "nobody"}), said(requests[0], "", "error")]

    outcomes = run(script, PASSAGE, snippets(4), warm_gates)

    assert len(outcomes) == len({outcome.item for outcome in outcomes}) == 4
    assert all(outcome.records for outcome in outcomes)


def test_a_reply_that_never_comes_is_a_reject(warm_gates: Gates) -> None:
    outcomes = run(lambda requests: [said(requests[0], question(requests[0]))], PASSAGE, snippets(3), warm_gates)

    assert len(outcomes) == 3
    assert [(one.gate, one.code, one.reason) for one in rejects_of(outcomes)] == [
        ("teacher", "error", "no reply came")
    ] * 2


@pytest.mark.parametrize(
    "script", [lambda requests: [said(request, "", "error", "HTTP 503") for request in requests], lambda requests: []]
)
def test_a_unit_of_nothing_but_errors_fails_and_yields_nothing(warm_gates: Gates, script: Script) -> None:
    with pytest.raises(Failure, match="all 3 items"):
        run(script, PASSAGE, snippets(3), warm_gates)


def test_a_unit_that_was_declined_whole_is_done(warm_gates: Gates) -> None:
    outcomes = run(
        lambda requests: [said(request, "", "declined", "no") for request in requests],
        PASSAGE,
        snippets(3),
        warm_gates,
    )

    assert [len(outcome.rejects) for outcome in outcomes] == [1, 1, 1]


def test_a_teacher_that_raises_fails_the_unit_with_one_clear_error(warm_gates: Gates) -> None:
    def script(requests: Sequence[TeacherRequest]) -> list[ChatReply]:
        raise ConnectionResetError("gone")

    with pytest.raises(Failure, match="ConnectionResetError: gone"):
        run(script, PASSAGE, snippets(3), warm_gates)


def test_a_passage_that_no_gate_saw_cannot_slip_into_a_record(warm_gates: Gates) -> None:
    (outcome,) = run(everyone(question), PASSAGE, [snippet("Snow 雪 fell.")], warm_gates)

    assert [(one.gate, one.phase, one.field) for one in outcome.rejects] == [("cjk", "source", "passage")]


@pytest.mark.parametrize("id_", ["qpt/formal", "truth/true-statement"])
def test_a_title_with_a_cjk_character_reaches_no_shard(warm_gates: Gates, id_: str) -> None:
    prompt_type = load_catalogue()[id_]
    fields = {name: "Snow fell on Moscow in December 1941." for name in prompt_type.fields}

    (outcome,) = run(everyone(fields), prompt_type, [snippet("Snow fell early.", title="Moscow 雪")], warm_gates)

    assert [(one.gate, one.field) for one in outcome.rejects] == [("cjk", "title")]


def test_a_template_that_renders_empty_is_a_reject(tmp_path: Path, warm_gates: Gates) -> None:
    prompt_type = load_one(tmp_path, GOOD.replace("{{ answer }}", "{% if answer == 'x' %}{{ answer }}{% endif %}"))

    (outcome,) = run(
        everyone({"question": "Who led the front?", "answer": "Zhukov"}), prompt_type, snippets(1), warm_gates
    )

    assert [(one.gate, one.code, one.reason) for one in outcome.rejects] == [
        ("render", "empty", "message 2 of the record is empty")
    ]
