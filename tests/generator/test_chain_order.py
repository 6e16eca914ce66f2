"""Chains of calls: what every phase is judged by, and what the order and the number of its replies must not change."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from foundation.prompt_type import FieldSpec, Phase, PromptType, Turn
from foundation.records import ChatReply, Unit
from generator.catalogue import load_catalogue
from generator.gates import Gates
from generator.pipeline import Outcome, produce
from generator.render import Source
from generator.teachers.base import TeacherRequest
from tests.generator.prompt_files import snippet
from tests.generator.scripted import POLICY, Script, ScriptedTeacher, everyone, records_of, rejects_of, run, unit_of

TEXTS = (
    "Chester Nimitz commanded the fleet that waited near the islands. Joseph Rochefort led the men who broke the code.",
    "Chester Nimitz read the messages each morning. Raymond Spruance took over the carriers before the battle.",
)
BOTH = "Chester Nimitz commanded the fleet that waited near the islands, and read his messages each morning."
ANSWER = {
    "stem": "Who commanded the fleet that waited near the islands?",
    "option_1": "Chester Nimitz",
    "option_2": "William Halsey",
    "right": "1",
    "answer": "Chester Nimitz commanded the fleet.",
}


def asked_in_two_calls() -> PromptType:
    """A type whose question comes from a first call, and its answer from a second one."""
    ask = load_catalogue()["qpt/formal"]
    draft = Phase(
        name="draft",
        fields={"question": FieldSpec(), "years": FieldSpec(type="list", items_min=0)},
        system="Write a question.",
        user="<passage>\n{{ passage }}\n</passage>",
    )
    turns = (
        Turn(role="user", template="{{ question }} {{ years | join(' ') }}"),
        Turn(role="assistant", template="{{ answer }}"),
    )
    values = {**ask.model_dump(), "phases": (draft,), "fields": {"answer": FieldSpec()}, "turns": turns}
    return PromptType.model_validate(values)


def drafted(**fields: object) -> Script:
    def fill(request: TeacherRequest) -> dict[str, object]:
        if request.phase != "draft":
            return {"answer": "Chester Nimitz commanded the fleet."}
        return {"question": "Who commanded the fleet near the islands?", "years": [], **fields}

    return everyone(fill)


def people(requests: Sequence[TeacherRequest]) -> list[ChatReply]:
    named = ["Chester Nimitz", "Joseph Rochefort", "Raymond Spruance"]
    script = everyone(lambda one: {"people": named} if one.phase == "extract" else ANSWER)
    return list(script(requests))


def test_a_question_of_an_earlier_call_must_stand_alone(warm_gates: Gates) -> None:
    kind = asked_in_two_calls()
    assert len(records_of(run(drafted(), kind, [snippet(TEXTS[0])], warm_gates))) == 1
    (reject,) = rejects_of(
        run(drafted(question="What does the passage say of Chester Nimitz?"), kind, [snippet(TEXTS[0])], warm_gates)
    )
    assert (reject.phase, reject.gate) == ("draft", "standalone")


def test_figures_of_an_earlier_call_are_scanned_for_cjk_though_they_have_no_language(warm_gates: Gates) -> None:
    # full-width digits are no letters
    kind = load_catalogue()["contrastive/date"]
    found = run(
        everyone({"dates": ["１９４２"]}), kind, [snippet("In １９４２ the fleet sailed. It came back.")], warm_gates
    )
    (reject,) = rejects_of(found)
    assert (reject.phase, reject.gate) == ("extract", "cjk")


def test_the_names_that_a_record_shows_are_judged_like_its_passage(warm_gates: Gates) -> None:
    kind = load_catalogue()["cross/same-entity-in-two-articles"]
    turns = (Turn(role="user", template="Of {{ entity }}, in {{ partner_title }}: {{ question }}"), kind.turns[-1])
    kind = PromptType.model_validate({**kind.model_dump(), "turns": turns})
    script = everyone({"question": "What is told of Chester Nimitz?", "answer": BOTH})
    one, other = snippet(TEXTS[0]), snippet(TEXTS[1], "Chester Nimitz")
    assert len(records_of(run(script, kind, [Source(one, other, "Nimitz")], warm_gates))) == 1
    for title, entity, gate in (
        ("中途岛", "Nimitz", "cjk"),
        ("Midway", "尼米兹", "cjk"),
        ("Мидуэй", "Nimitz", "language"),
    ):
        source = Source(one, snippet(TEXTS[1], title), entity)
        (reject,) = rejects_of(run(script, kind, [source], warm_gates))
        assert (reject.phase, reject.gate) == ("source", gate)


def test_which_snippet_a_shared_name_is_asked_of_owes_nothing_to_the_order_of_replies(warm_gates: Gates) -> None:
    kind = load_catalogue()["contrastive/person"]
    sources = [snippet(text, number=number) for number, text in enumerate(TEXTS)]
    asked = []
    for script in (people, lambda requests: people(requests)[::-1]):
        teacher = ScriptedTeacher(script)
        run(teacher, kind, sources, warm_gates)
        asked.append([one.chat.id for one in teacher.asked[-1]])
    assert asked[0] == asked[1]
    assert len(asked[0]) == 3


def test_every_reply_is_heard_of_though_the_first_outcome_comes_after_a_whole_phase(warm_gates: Gates) -> None:
    kind = load_catalogue()["contrastive/person"]
    sources = [Source(snippet(text, number=number)) for number, text in enumerate(TEXTS)]
    unit: Unit = unit_of(kind, len(sources))
    heard: list[int] = []
    outcomes: list[Outcome] = []

    async def collect() -> None:
        stream = produce(
            ScriptedTeacher(people),
            kind,
            sources,
            unit=unit,
            policy=POLICY,
            attempt="a1",
            gates=warm_gates,
            heard=lambda: heard.append(len(outcomes)),
        )
        async for outcome in stream:
            outcomes.append(outcome)

    asyncio.run(collect())
    assert len(heard) == 2 + 3  # the two first calls, and one for each of three names
    assert heard[:3] == [0, 0, 0]
