"""Chains of calls: each is gated by itself, a list is asked about entry by entry, and what each call costs is counted once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from foundation.errors import Failure
from foundation.prompt_type import output_schema
from foundation.records import ChatReply, Record, Reject
from generator.gates import Gates
from generator.pipeline import Outcome
from generator.teachers.base import TeacherRequest
from tests.generator.prompt_files import ASKED, EACH, PEOPLE, USER, armies, people_of, small, snippet
from tests.generator.scripted import ScriptedTeacher, everyone, records_of, rejects_of, run, said

CHAIN = small(
    {"question": {}, "answer": {}},
    [ASKED, ("assistant", "{{ people | join(', ') }}: {{ answer }}")],
    id="tests/chain",
    phases=(PEOPLE,),
    user="People: {{ people | join(', ') }}\n\n" + USER,
)
OTHERS = ("Kliment Voroshilov", "Konstantin Rokossovsky")


def pair(person: str, **changed: Any) -> dict[str, Any]:
    wrong = {"option_1": "Kliment Voroshilov", "option_2": person, "right": "2"}
    return {"stem": f"Who led army {len(person)} of {person[-3:]}", **wrong, "answer": f"{person} led it.", **changed}


def by_phase(request: TeacherRequest) -> Any:
    """A good reply to either call."""
    if request.phase == "extract":
        return {"people": people_of(request.source.snippet)}
    return pair(request.values["each"])


# One call after another


def test_a_later_call_is_told_what_the_earlier_said(warm_gates: Gates) -> None:
    # given a chain of two calls
    fields: dict[str, Any] = {"question": "Who led the armies?", "answer": "They led them."}
    teacher = ScriptedTeacher(
        everyone(lambda one: {"people": people_of(one.source.snippet)} if one.phase == "extract" else fields)
    )

    (outcome,) = run(teacher, CHAIN, armies(1), warm_gates)

    # then each call has its own prompt, schema and id, and the second has the words of the first
    ((first,), (second,)) = teacher.asked
    assert (first.phase, second.phase) == ("extract", "ask")
    assert (first.chat.id, second.chat.id) == (f"{outcome.item}:extract", outcome.item)
    assert first.chat.seed != second.chat.seed
    assert first.chat.messages[0].content == PEOPLE.system
    assert first.chat.schema_ == output_schema(PEOPLE.fields)
    assert second.chat.schema_ == output_schema(CHAIN.fields)
    assert f"People: {', '.join(people_of(first.source.snippet))}" in second.chat.messages[1].content
    assert second.values == {"people": people_of(first.source.snippet)}
    # and the record may show both
    (record,) = outcome.records
    assert record.messages[-1].content == f"{', '.join(people_of(first.source.snippet))}: They led them."


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ({"people": ["Georgy Zhukov 朱"]}, ("cjk", "cjk", "people[0]")),
        ({"people": "Georgy Zhukov"}, ("schema", "wrong-type", "people")),
        ({"people": ["<think>Zhukov"]}, ("shape", "thinking", "people[0]")),
        ({"people": ["Георгий Жуков"]}, ("language", "confidence", "people[0]")),
    ],
)
def test_what_an_early_phase_refuses_is_asked_no_further(
    warm_gates: Gates, reply: Any, verdict: tuple[str, str, str]
) -> None:
    # given four items, of which the second says something bad in its first call
    def fields(request: TeacherRequest) -> Any:
        if request.phase == "extract":
            return reply if request.source.snippet.index == 1 else {"people": people_of(request.source.snippet)}
        return {"question": f"Who led army {request.source.snippet.index}?", "answer": "They did."}

    teacher = ScriptedTeacher(everyone(fields))
    outcomes = run(teacher, CHAIN, armies(4), warm_gates)

    # then its reject bears the phase, and nobody asked again
    (reject,) = rejects_of(outcomes)
    assert (reject.gate, reject.code, reject.field, reject.phase) == (*verdict, "extract")
    assert [request.source.snippet.index for request in teacher.asked[1]] == [0, 2, 3]
    assert len(records_of(outcomes)) == 3
    assert len({outcome.item for outcome in outcomes}) == 4


# One call an entry


def test_there_is_one_call_for_each_entry_and_a_pair_from_each(warm_gates: Gates) -> None:
    teacher = ScriptedTeacher(everyone(by_phase))

    outcomes = run(teacher, EACH, armies(5), warm_gates)

    # then each of the three people of each snippet was asked about, with a seed of its own
    entries = [request.values["each"] for request in teacher.asked[1]]
    assert entries == [name for request in teacher.asked[0] for name in people_of(request.source.snippet)]
    assert len({request.chat.seed for calls in teacher.asked for request in calls}) == 5 + 15
    assert len({request.chat.id for calls in teacher.asked for request in calls}) == 5 + 15
    assert all(f"Person: {one.values['each']}\n" in one.chat.messages[1].content for one in teacher.asked[1])
    # and made a pair: two records, one pair id, half of all with the right option first
    records = records_of(outcomes)
    assert rejects_of(outcomes) == []
    assert Counter(record.ordering for record in records) == {"right_first": 15, "wrong_first": 15}
    assert set(Counter(record.pair_id for record in records).values()) == {2}
    assert len({record.id for record in records}) == 30
    assert Counter(record.phase for record in records) == {"ask.1": 10, "ask.2": 10, "ask.3": 10}
    assert {record.right_at for record in records} == {2}


def test_entries_that_do_not_stand_in_the_passage_are_rejected_one_by_one(warm_gates: Gates) -> None:
    # given a list of which one entry is invented, and one is a part of a word
    (text,) = armies(1)
    found = ["Georgy Zhukov Aba", "Kliment Voroshilov", "Konev", "Zhuk"]

    teacher = ScriptedTeacher(everyone(lambda one: {"people": found} if one.phase == "extract" else by_phase(one)))
    (outcome,) = run(teacher, EACH, [text], warm_gates)

    # then those alone are refused, under the number of the entry, and the item is accepted
    rejects = [(one.gate, one.code, one.phase, one.field, one.text) for one in outcome.rejects]
    assert rejects == [
        ("features", "not-in-text", f"extract.{number}", "people", entry)
        for number, entry in ((2, "Kliment Voroshilov"), (4, "Zhuk"))
    ]
    assert [request.values["each"] for request in teacher.asked[1]] == ["Georgy Zhukov Aba", "Konev"]
    assert len({one.id for one in outcome.rejects}) == 2
    assert len(outcome.records) == 4


def test_an_entry_is_asked_about_once_in_a_unit(warm_gates: Gates) -> None:
    # given three snippets that name the same man, once in other letters, and one of them twice
    texts = [snippet(f"Georgy Zhukov led army {n}. Ivan Konev came.", number=n) for n in range(3)]
    lists = [["Georgy Zhukov"], ["Ivan Konev", " georgy  ZHUKOV."], ["Ivan Konev", "Georgy Zhukov"]]

    def fields(request: TeacherRequest) -> Any:
        if request.phase == "extract":
            return {"people": lists[request.source.snippet.index]}
        return pair(request.values["each"])

    teacher = ScriptedTeacher(everyone(fields))
    outcomes = run(teacher, EACH, texts, warm_gates)

    # then each name was asked about once, by the first item that has it
    assert [one.values["each"] for one in teacher.asked[1]] == ["Georgy Zhukov", "Ivan Konev"]
    by_item = {one.item: one for one in outcomes}
    assert len(by_item) == len(outcomes) == 3
    assert Counter((one.gate, one.code, one.phase) for one in rejects_of(outcomes)) == {
        ("features", "asked-already", "extract.1"): 1,
        ("features", "asked-already", "extract.2"): 2,
    }
    assert [len(one.records) for one in sorted(outcomes, key=lambda one: len(one.records))] == [0, 2, 2]


def test_a_passage_without_entries_is_a_reject_of_the_early_phase(warm_gates: Gates) -> None:
    teacher = ScriptedTeacher(everyone({"people": []}))

    (outcome,) = run(teacher, EACH, armies(1), warm_gates)

    assert [(one.gate, one.code, one.phase) for one in outcome.rejects] == [("features", "none", "extract")]
    assert outcome.rejects[0].usage.prompt_tokens == 7
    assert len(teacher.asked) == 1


def test_an_item_with_some_records_and_some_rejects_is_accepted_with_both(warm_gates: Gates) -> None:
    # given a second entry whose answer names nobody
    def fields(request: TeacherRequest) -> Any:
        bad = request.phase == "ask" and request.values["each"].startswith("Ivan")
        return pair(request.values["each"], answer="Nobody knows it.") if bad else by_phase(request)

    (outcome,) = run(everyone(fields), EACH, armies(1), warm_gates)

    assert [record.phase for record in outcome.records] == ["ask.1", "ask.1", "ask.3", "ask.3"]
    (reject,) = outcome.rejects
    assert (reject.gate, reject.code, reject.phase) == ("answer-names-right", "answer-without-right", "ask.2")


def test_ids_seeds_and_order_follow_the_place_of_an_entry_and_not_what_was_said(warm_gates: Gates) -> None:
    def other(request: TeacherRequest) -> Any:
        if request.phase == "extract":
            return {"people": people_of(request.source.snippet)[::-1]}
        return pair(request.values["each"], option_1="Konstantin Rokossovsky")

    runs = [
        run(everyone(fields), EACH, armies(2), warm_gates, attempt)
        for fields, attempt in ((by_phase, "a"), (other, "b"))
    ]

    first, second = ([(one.id, one.pair_id, one.seed) for one in records_of(outcomes)] for outcomes in runs)
    assert first == second
    assert len(set(first)) == 12
    texts = [[one.messages for one in records_of(outcomes)] for outcomes in runs]
    assert texts[0] != texts[1]


# What the calls cost


def _spent(outcomes: Sequence[Outcome]) -> int:
    """The prompt tokens of a unit: each call of an item once, though a pair of records shares it."""
    rows: list[Record | Reject] = [*records_of(outcomes), *rejects_of(outcomes)]
    return sum({(row.item, row.phase): row.usage.prompt_tokens for row in rows}.values())


def test_the_cost_of_every_call_is_counted_once(warm_gates: Gates) -> None:
    # given eight items: good ones, some with a bad entry, some with bad entries only, some that fail early, one without any
    def fields(request: TeacherRequest) -> Any:
        kind = request.source.snippet.index % 8
        if request.phase == "extract":
            early: dict[int, Any] = {
                1: "no JSON",
                2: {"people": []},
                3: {"people": list(OTHERS)},
                4: {"people": [OTHERS[0], *people_of(request.source.snippet)]},
            }
            return early.get(kind, {"people": people_of(request.source.snippet)})
        person = request.values["each"]
        if kind == 5 or (kind == 6 and person.startswith("Georgy")):
            return pair(person, answer="Nobody knows it.")
        return pair(person)

    reported: list[int] = []

    def script(requests: Sequence[TeacherRequest]) -> list[ChatReply]:
        replies = []
        for request in requests:
            tokens = 2 ** len(reported) % 1009 + len(reported)  # no two sums alike, so that none can stand for another
            reported.append(tokens)
            replies.append(said(request, fields(request), tokens=tokens))
        return replies

    outcomes = run(script, EACH, armies(16), warm_gates)

    # then what the records and rejects say they cost is what the teacher said
    assert len(outcomes) == 16
    assert {one.gate for one in rejects_of(outcomes)} == {"schema", "features", "answer-names-right"}
    assert _spent(outcomes) == sum(reported)
    # and both records of a pair say the same
    costs: dict[str, set[int]] = {}
    for record in records_of(outcomes):
        costs.setdefault(record.pair_id, set()).add(record.usage.prompt_tokens)
    assert {len(found) for found in costs.values()} == {1}


def test_a_chain_of_single_calls_counts_each_once(warm_gates: Gates) -> None:
    def fields(request: TeacherRequest) -> Any:
        if request.phase == "extract":
            return {"people": people_of(request.source.snippet)}
        answer = "They did." if request.source.snippet.index else "Vasily Sokolovsky did."
        return {"question": f"Who led army {request.source.snippet.index}?", "answer": answer}

    outcomes = run(everyone(fields), CHAIN, armies(2), warm_gates)

    (record,), (reject,) = records_of(outcomes), rejects_of(outcomes)
    assert (record.usage.prompt_tokens, reject.usage.prompt_tokens) == (14, 14)


# A teacher in trouble


def _error(request: TeacherRequest) -> ChatReply:
    return said(request, "", "error", "HTTP 500", tokens=0)


@pytest.mark.parametrize("prompt_type", [CHAIN, EACH], ids=lambda one: one.id)
def test_nothing_but_errors_in_the_first_phase_fails_the_unit(warm_gates: Gates, prompt_type: Any) -> None:
    teacher = ScriptedTeacher(lambda requests: [_error(request) for request in requests])

    with pytest.raises(Failure, match="all 3 items"):
        run(teacher, prompt_type, armies(3), warm_gates)

    assert len(teacher.asked) == 1


def test_errors_in_a_later_phase_are_rejects_for_the_teacher_has_worked(warm_gates: Gates) -> None:
    outcomes = run(
        lambda requests: [_error(one) if one.phase == "ask" else said(one, by_phase(one)) for one in requests],
        EACH,
        armies(2),
        warm_gates,
    )

    assert len(outcomes) == 2
    assert Counter((one.gate, one.code) for one in rejects_of(outcomes)) == {("teacher", "error"): 6}
    assert _spent(outcomes) == 14


def test_some_errors_in_the_first_phase_are_rejects_of_it(warm_gates: Gates) -> None:
    def script(requests: Sequence[TeacherRequest]) -> list[ChatReply]:
        failing = [one for one in requests if one.phase == "extract" and one.source.snippet.index < 2]
        return [*map(_error, failing), *(said(one, by_phase(one)) for one in requests if one not in failing)]

    outcomes = run(script, EACH, armies(3), warm_gates)

    assert [(one.gate, one.code, one.phase) for one in rejects_of(outcomes)] == [("teacher", "error", "extract")] * 2
    assert len(outcomes) == 3
    assert len(records_of(outcomes)) == 6


def test_a_reply_that_never_comes_in_a_later_phase_is_a_reject_of_it(warm_gates: Gates) -> None:
    teacher = ScriptedTeacher(
        lambda requests: [said(one, by_phase(one)) for one in requests if one.phase == "extract" or one is requests[1]]
    )

    (outcome,) = run(teacher, EACH, armies(1), warm_gates)

    assert [record.phase for record in outcome.records] == ["ask.2", "ask.2"]
    assert [(one.gate, one.reason, one.phase) for one in outcome.rejects] == [
        ("teacher", "no reply came", "ask.1"),
        ("teacher", "no reply came", "ask.3"),
    ]
    assert _spent([outcome]) == 14
