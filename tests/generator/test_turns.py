"""What a record is made of: which turns are trained on, in which order options stand, and which second snippet is beside the first."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

from foundation.ids import stable_id
from foundation.prompt_type import FieldSpec, Options, output_schema
from foundation.records import Snippet, SplitPolicy
from generator.gates import Gates
from generator.render import Source, render_records
from generator.teachers.base import TeacherRequest
from tests.generator.prompt_files import ASKED, NUMBERED, PEOPLE, USER, armies, people_of, small, snippet
from tests.generator.scripted import ScriptedTeacher, everyone, records_of, rejects_of, run

OTHER = "Kliment Voroshilov"


def test_a_mistake_to_be_mended_is_in_the_record_and_not_trained_on(warm_gates: Gates) -> None:
    mended = small(
        {"question": {}, "mistake": {}, "correction": {}, "answer": {}},
        [
            ("system", "You are careful."),
            ASKED,
            ("assistant", "{{ mistake }}", "untrained"),
            ("user", "{{ correction }}"),
            ("assistant", "{{ answer }}"),
        ],
    )
    (text,) = armies(1)
    name = "Georgy Zhukov Aba"

    (outcome,) = run(
        everyone(
            {
                "question": "Who led an army?",
                "mistake": "It was Kliment Voroshilov.",
                "correction": "Are you sure?",
                "answer": f"I was wrong: it was {name}.",
            }
        ),
        mended,
        [text],
        warm_gates,
    )

    (record,) = outcome.records
    assert [one.role for one in record.messages] == ["system", "user", "assistant", "user", "assistant"]
    assert record.supervised == (4,)


def test_every_answer_of_a_longer_talk_is_trained_on(warm_gates: Gates) -> None:
    talk = small(
        {"q": {}, "a": {}, "r": {}, "b": {}},
        [("user", "{{ q }}"), ("assistant", "{{ a }}"), ("user", "{{ r }}"), ("assistant", "{{ b }}")],
    )

    (outcome,) = run(
        everyone({"q": "Who led?", "a": "Some people.", "r": "And what?", "b": "They led armies."}),
        talk,
        armies(1),
        warm_gates,
    )

    assert outcome.records[0].supervised == (1, 3)


EVENTS = tuple(f"event_{number}" for number in range(1, 5))
ORDER = small(
    {"question": {}, **dict.fromkeys(EVENTS, FieldSpec())},
    [
        ("user", "{{ question }}\n{% for one in options %}\n{{ letters[loop.index0] }}) {{ one }}\n{% endfor %}"),
        ("assistant", "{{ placed | join(', ') }}"),
    ],
    options=Options(fields=EVENTS, order="shuffled"),
)


def test_fields_in_their_true_order_are_shuffled_and_placed_tells_where_each_went() -> None:
    # given four events that the teacher writes in their order
    text = Source(armies(1)[0])
    said_ = {"question": "In which order?", **{name: f"text {name}" for name in EVENTS}}

    # when many are rendered
    records = [render_records(ORDER, text, said_, stable_id("made-up", n))[0] for n in range(480)]

    # then reading the letters of the answer in turn gives the true order, and every order comes about as often
    for record in records:
        lines = dict(line.split(") ") for line in record.messages[0].content.splitlines()[1:])
        assert list(lines) == list("ABCD")
        assert [lines[letter] for letter in record.messages[1].content.split(", ")] == [said_[name] for name in EVENTS]
    orders = Counter(record.messages[1].content for record in records)
    assert len(orders) == 24
    assert sum((count - 20) ** 2 / 20 for count in orders.values()) < 49.73  # 23 degrees of freedom, p = 0.001


def test_an_order_has_no_right_option_of_the_teachers(warm_gates: Gates) -> None:
    said_ = {
        "question": "In which order did it go?",
        **dict(zip(EVENTS, ("Snow fell", "Tanks froze", "Men fled", "Rain came"), strict=True)),
    }

    (outcome,) = run(everyone(said_), ORDER, armies(1), warm_gates)

    (record,) = outcome.records
    assert (record.right_at, record.pair_id) == (0, "")


def test_a_shuffle_is_drawn_anew_for_each_entry_of_an_item(warm_gates: Gates) -> None:
    # given one item that is asked about three people, and shows four options each time
    shuffled = small(
        {"question": {}, "option_1": {}, "option_2": {}, "right": NUMBERED},
        [("user", "{{ question }} {{ first }}, {{ second }}?"), ("assistant", "{{ right }}")],
        id="tests/shuffled",
        options=Options(fields=("option_1", "option_2"), right="right", order="shuffled"),
        phases=(PEOPLE,),
        each="people",
        user="Person: {{ each }}\n\n" + USER,
    )

    def fields(request: TeacherRequest) -> Any:
        if request.phase == "extract":
            return {"people": people_of(request.source.snippet)}
        person = request.values["each"]
        return {
            "question": f"Who led army {len(person)} of {person[-2:]},",
            "option_1": person,
            "option_2": OTHER,
            "right": "1",
        }

    outcomes = run(everyone(fields), shuffled, armies(30), warm_gates)

    records = records_of(outcomes)
    assert len(records) == 90
    assert {len({record.ordering for record in outcome.records}) for outcome in outcomes} == {1, 2}
    first = sum(record.ordering == "right_1" for record in records)
    assert 45 - 16 < first < 45 + 16  # more than three standard deviations; the draw is fixed
    assert {record.right_at for record in records} == {1}
    assert {record.pair_id for record in records} == {""}


def test_a_choice_is_an_enum_and_a_list_of_objects_has_its_keys_in_the_schema() -> None:
    schema = output_schema(
        {
            "right": NUMBERED,
            "faq": FieldSpec(type="list", keys=("question", "answer"), min=2, max=9, items_min=3, items_max=4),
        }
    )

    assert schema["required"] == ["right", "faq"]
    assert schema["properties"]["right"] == {"type": "string", "enum": ["1", "2"]}
    text = {"type": "string", "minLength": 2, "maxLength": 9}
    assert schema["properties"]["faq"] == {
        "type": "array",
        "minItems": 3,
        "maxItems": 4,
        "items": {
            "type": "object",
            "properties": {"question": text, "answer": text},
            "required": ["question", "answer"],
            "additionalProperties": False,
        },
    }
    assert schema["additionalProperties"] is False


# Partners


BESIDE = small(
    {"question": {}, "answer": {}},
    [ASKED, ("assistant", "{{ answer }}")],
    id="tests/beside",
    partner="other-article",
    user="Both name {{ entity }}.\n\n" + USER + "\n\n<second-passage>\n{{ partner }}\n</second-passage>",
)
HALVES = SplitPolicy(key="tests", unseen=0, phrasing=0.5)


def _two(number: int) -> tuple[Snippet, Snippet]:
    one = snippet(f"Georgy Zhukov led army {number}.", number=number)
    other = snippet(f"Ivan Konev relieved Georgy Zhukov in {1900 + number}.", title="Berlin", number=number)
    return one, other.model_copy(update={"article_id": "other"})


def test_an_item_without_a_partner_is_counted_and_not_asked_about(warm_gates: Gates) -> None:
    one, other = _two(1)
    teacher = ScriptedTeacher(everyone({"question": "Who came later?", "answer": "Ivan Konev, in 1901."}))

    outcomes = run(teacher, BESIDE, [Source(one), Source(other, one, "Zhukov")], warm_gates)

    assert [(one.gate, one.code, one.phase) for one in rejects_of(outcomes)] == [("partner", "none", "source")]
    assert [request.source.snippet.id for request in teacher.asked[0]] == [other.id]
    assert len(outcomes) == 2


def test_a_record_carries_its_partner_and_may_answer_from_it(warm_gates: Gates) -> None:
    # given an answer whose facts stand in the partner alone
    one, other = _two(7)
    teacher = ScriptedTeacher(everyone({"question": "Who came later?", "answer": "Ivan Konev, in 1907."}))

    (outcome,) = run(teacher, BESIDE, [Source(one, other, "Georgy Zhukov")], warm_gates)

    (record,) = outcome.records
    assert (record.snippet_id, record.article_id) == (one.id, one.article_id)
    assert (record.partner_id, record.partner_article_id) == (other.id, "other")
    asked = teacher.asked[0][0].chat.messages[1].content
    assert asked.startswith("Both name Georgy Zhukov.")
    assert asked.endswith(f"<second-passage>\n{other.text}\n</second-passage>")


def test_a_pair_of_snippets_is_held_out_as_one_whichever_is_asked_about(warm_gates: Gates) -> None:
    # given forty pairs, each looked at from both sides
    policy = HALVES
    splits = []
    for number in range(40):
        one, other = _two(number)
        sources = [Source(one, other, "Georgy Zhukov"), Source(other, one, "Georgy Zhukov")]
        fields = ({"question": f"Who led {n}?", "answer": "Georgy Zhukov."} for n in (1, 2))
        outcomes = run(everyone(lambda _, fields=fields: next(fields)), BESIDE, sources, warm_gates, policy=policy)
        splits.append(tuple(record.split for record in records_of(outcomes)))

    # then both have the same split, and both splits come
    assert set(splits) == {("train", "train"), ("phrasing", "phrasing")}


def test_the_same_answer_without_its_partner_is_not_grounded(warm_gates: Gates) -> None:
    one, other = _two(7)
    alone = replace(Source(one, other, "Georgy Zhukov"), partner=one)

    (outcome,) = run(
        everyone({"question": "Who came later?", "answer": "Ivan Konev, in 1907."}), BESIDE, [alone], warm_gates
    )

    assert [one.gate for one in outcome.rejects] == ["grounded"]
