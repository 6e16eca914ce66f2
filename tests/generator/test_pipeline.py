"""The pipeline: every item ends in records or in one reject, whatever the teacher does."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from foundation.errors import Failure
from foundation.ids import stable_id
from foundation.prompt_type import PromptType
from foundation.records import ChatReply, Snippet, SplitPolicy, Unit, item_id
from generator.catalogue import load_catalogue
from generator.gates import Gates
from generator.pipeline import Outcome, produce
from generator.render import render_records
from generator.teachers.base import TeacherRequest
from tests.generator.prompt_files import GOOD, load_one, snippet
from tests.generator.scripted import Script, ScriptedTeacher, said

POLICY = SplitPolicy(key="tests", unseen=0.05, phrasing=0.02)
QUESTION = {"question": "What happened near Moscow in December 1941?"}
PAIR = {"stem": "Who led the front", "right": "Georgy Zhukov", "wrong": "Ivan Konev", "answer": "It was Georgy Zhukov."}


def snippets(count: int) -> list[Snippet]:
    return [snippet(f"Snow fell on day {number}. Tanks froze.", number=number) for number in range(count)]


def unit_of(prompt_type: PromptType, count: int, round_: int = 0) -> Unit:
    fingerprint = prompt_type.fingerprint
    id_ = Unit.make_id("000001", 0, count, fingerprint, round_)
    return Unit(
        id=id_, block="000001", start=0, stop=count, prompt_type=prompt_type.id, fingerprint=fingerprint, round=round_
    )


def run(
    script: Script, prompt_type: PromptType, texts: Sequence[Snippet], gates: Gates, attempt: str = "a1"
) -> list[Outcome]:
    async def collect() -> list[Outcome]:
        stream = produce(
            ScriptedTeacher(script),
            prompt_type,
            texts,
            unit=unit_of(prompt_type, len(texts)),
            policy=POLICY,
            attempt=attempt,
            gates=gates,
        )
        return [outcome async for outcome in stream]

    return asyncio.run(collect())


def everyone(fields: Any) -> Script:
    return lambda requests: [said(request, fields) for request in requests]


def test_every_item_is_accepted_or_rejected_with_its_reason(warm_gates: Gates) -> None:
    # given a teacher that fails in every way it can, in turn
    ways = [
        lambda request: said(request, QUESTION),
        lambda request: said(request, QUESTION, "length"),
        lambda request: said(request, "", "declined", "nothing to ask"),
        lambda request: said(request, "", "error", "HTTP 500"),
        lambda request: said(request, "not JSON"),
        lambda request: said(request, {"question": "莫斯科附近发生了什么事?"}),
        lambda request: said(request, {"question": "Что случилось под Москвой?"}),
    ]
    texts = snippets(35)

    # when a unit runs
    outcomes = run(
        lambda requests: [ways[number % 7](request) for number, request in enumerate(requests)],
        load_catalogue()["qpt/formal"],
        texts,
        warm_gates,
    )

    # then items = accepted + rejected, and each reject has its gate
    accepted = [outcome for outcome in outcomes if outcome.records]
    rejected = [outcome for outcome in outcomes if outcome.rejects]
    assert len({outcome.item for outcome in outcomes}) == len(outcomes) == len(accepted) + len(rejected) == 35
    assert not any(outcome.records and outcome.rejects for outcome in outcomes)
    gates = Counter(reject.gate for outcome in outcomes for reject in outcome.rejects)
    assert gates == {"finish": 5, "teacher": 10, "schema": 5, "cjk": 5, "language": 5}
    reasons = {reject.reason for outcome in outcomes for reject in outcome.rejects if reject.gate == "teacher"}
    assert reasons == {"declined: nothing to ask", "error: HTTP 500"}


def test_a_record_carries_its_provenance_and_trains_on_the_passage(warm_gates: Gates) -> None:
    prompt_type = load_catalogue()["qpt/formal"]
    (text,) = snippets(1)

    (outcome,) = run(everyone(QUESTION), prompt_type, [text], warm_gates)

    (record,) = outcome.records
    assert record.item == outcome.item == item_id(text.id, prompt_type.fingerprint, 0)
    assert [message.role for message in record.messages] == ["user", "assistant"]
    assert record.messages[1].content == text.text
    assert record.supervised == (1,)
    assert (record.family, record.teacher, record.attempt, record.usage.prompt_tokens) == ("qpt", "scripted:1", "a1", 7)
    assert record.split == POLICY.split(text.article_id, text.id, prompt_type.id)
    assert record.sampling == prompt_type.sampling
    assert (record.ordering, record.pair_id) == ("", "")


def test_ids_do_not_follow_the_output(warm_gates: Gates) -> None:
    prompt_type, texts = load_catalogue()["contrastive/person"], snippets(3)

    first = run(everyone(PAIR), prompt_type, texts, warm_gates, "a1")
    second = run(everyone({**PAIR, "answer": "General Georgy Zhukov did."}), prompt_type, texts, warm_gates, "a2")

    def ids(outcomes: list[Outcome]) -> list[str]:
        return [record.id for outcome in outcomes for record in outcome.records]

    assert ids(first) == ids(second)
    assert len(set(ids(first))) == 6


def test_a_pair_has_both_orderings_and_exactly_half_have_the_right_option_first(warm_gates: Gates) -> None:
    # given fifty items of a contrastive type
    outcomes = run(everyone(PAIR), load_catalogue()["contrastive/person"], snippets(50), warm_gates)

    # when their records are counted
    records = [record for outcome in outcomes for record in outcome.records]

    # then there are two to an item, under one pair id, and the right one stands first in exactly half
    assert Counter(record.ordering for record in records) == {"right_first": 50, "wrong_first": 50}
    assert all(len({record.pair_id for record in outcome.records}) == 1 for outcome in outcomes)
    assert len({record.pair_id for record in records}) == 50
    questions = Counter(record.messages[0].content for record in records)
    assert questions == {
        "Who led the front, Georgy Zhukov or Ivan Konev?": 50,
        "Who led the front, Ivan Konev or Georgy Zhukov?": 50,
    }
    assert {record.messages[1].content for record in records} == {"It was Georgy Zhukov."}


def test_a_pair_is_rejected_whole(warm_gates: Gates) -> None:
    (outcome,) = run(
        everyone({**PAIR, "wrong": "Zhukov"}), load_catalogue()["contrastive/person"], snippets(1), warm_gates
    )

    assert outcome.records == ()
    assert [(reject.gate, reject.field) for reject in outcome.rejects] == [("options", "wrong")]


def test_the_position_of_the_right_choice_is_uniform_and_repeatable() -> None:
    # given 4,000 items of a choice type
    prompt_type = load_catalogue()["choice/four-options"]
    fields: dict[str, Any] = {
        "question": "Who led?",
        "right": "R",
        "wrong_1": "X",
        "wrong_2": "Y",
        "wrong_3": "Z",
        "explanation": "R led.",
    }
    text = snippets(1)[0]
    items = [stable_id("item", number) for number in range(4000)]

    # when they are rendered, twice
    first = [render_records(prompt_type, text, fields, item)[0] for item in items]
    again = [render_records(prompt_type, text, fields, item)[0] for item in items]

    # then the same item has the same order, the letter names the right option, and no position is preferred
    assert first == again
    for record in first:
        letter = record.messages[1].content[0]
        assert f"\n{letter}) R" in record.messages[0].content
        assert record.ordering == f"right_{'ABCD'.index(letter) + 1}"
    counts = Counter(record.ordering for record in first)
    chi_square = sum((counts[f"right_{number}"] - 1000) ** 2 / 1000 for number in (1, 2, 3, 4))
    assert chi_square < 16.27  # 3 degrees of freedom, p = 0.001; the draw is fixed, so this cannot flap


def test_a_reply_that_comes_twice_or_for_nobody_counts_once(warm_gates: Gates) -> None:
    def script(requests: Sequence[TeacherRequest]) -> list[ChatReply]:
        replies = [said(request, QUESTION) for request in requests]
        return [*replies, replies[0], replies[1].model_copy(update={"id": "nobody"}), said(requests[0], "", "error")]

    outcomes = run(script, load_catalogue()["qpt/formal"], snippets(4), warm_gates)

    assert len(outcomes) == len({outcome.item for outcome in outcomes}) == 4
    assert all(outcome.records for outcome in outcomes)


def test_a_reply_that_never_comes_is_a_reject(warm_gates: Gates) -> None:
    outcomes = run(
        lambda requests: [said(requests[0], QUESTION)], load_catalogue()["qpt/formal"], snippets(3), warm_gates
    )

    reasons = [reject.reason for outcome in outcomes for reject in outcome.rejects]
    assert len(outcomes) == 3
    assert reasons == ["error: no reply came"] * 2


@pytest.mark.parametrize(
    "script", [lambda requests: [said(request, "", "error", "HTTP 503") for request in requests], lambda requests: []]
)
def test_a_unit_of_nothing_but_errors_fails_and_yields_nothing(warm_gates: Gates, script: Script) -> None:
    with pytest.raises(Failure, match="all 3 items"):
        run(script, load_catalogue()["qpt/formal"], snippets(3), warm_gates)


def test_a_unit_that_was_declined_whole_is_done(warm_gates: Gates) -> None:
    outcomes = run(
        lambda requests: [said(request, "", "declined", "no") for request in requests],
        load_catalogue()["qpt/formal"],
        snippets(3),
        warm_gates,
    )

    assert [len(outcome.rejects) for outcome in outcomes] == [1, 1, 1]


def test_a_teacher_that_raises_fails_the_unit_with_one_clear_error(warm_gates: Gates) -> None:
    def script(requests: Sequence[TeacherRequest]) -> list[ChatReply]:
        raise ConnectionResetError("gone")

    with pytest.raises(Failure, match="ConnectionResetError: gone"):
        run(script, load_catalogue()["qpt/formal"], snippets(3), warm_gates)


def test_a_passage_that_no_gate_saw_cannot_slip_into_a_record(warm_gates: Gates) -> None:
    (outcome,) = run(everyone(QUESTION), load_catalogue()["qpt/formal"], [snippet("Snow 雪 fell.")], warm_gates)

    assert [(reject.gate, reject.field) for reject in outcome.rejects] == [("cjk", "passage")]


@pytest.mark.parametrize("id_", ["qpt/formal", "truth/true-statement"])
def test_a_title_with_a_cjk_character_reaches_no_shard(warm_gates: Gates, id_: str) -> None:
    prompt_type = load_catalogue()[id_]
    fields = {name: "Snow fell on Moscow in December 1941." for name in prompt_type.fields}

    (outcome,) = run(everyone(fields), prompt_type, [snippet("Snow fell early.", title="Moscow 雪")], warm_gates)

    assert [(reject.gate, reject.field) for reject in outcome.rejects] == [("cjk", "title")]


def test_a_template_that_renders_empty_is_a_reject(tmp_path: Path, warm_gates: Gates) -> None:
    prompt_type = load_one(tmp_path, GOOD.replace("{{ answer }}", "{% if answer == 'x' %}{{ answer }}{% endif %}"))

    (outcome,) = run(
        everyone({"question": "Who led the front?", "answer": "Zhukov"}), prompt_type, snippets(1), warm_gates
    )

    assert [(reject.gate, reject.reason) for reject in outcome.rejects] == [
        ("render", "message 2 of the record is empty")
    ]
