"""The golden examples: one for every type of the catalogue, and the real pipeline takes each of them whole."""

from __future__ import annotations

import pytest

from generator.catalogue import load_catalogue
from generator.gates import Gates
from tests.support.golden import GOLDEN, messages, outcome_of, read

IDS = {
    f"{family}/{name}"
    for family, names in {
        "qpt": """formal casual with-typos lower-case terse-keywords imperative conversational curious-child
            student-before-an-exam teacher journalist historian sceptic non-native-english chat-slang polite-request
            search-query forum-post voice-assistant e-mail tell-me-about explain what-do-you-know what-happened why-did
            who-was when-and-where bare-topic""",
        "wh": "who what when where why how which how-many how-long whose",
        "truth": """true-statement false-with-correction wrong-entity wrong-date wrong-place wrong-number false-premise
            not-answerable""",
        "choice": "two-options four-options odd-one-out match-pairs order-of-events best-title",
        "cloze": "entity date number key-phrase",
        "rewrite": """academic journalistic chronological plain-english encyclopaedic for-a-child bullet-points
            one-sentence telegram lecture-notes""",
        "structure": "table timeline faq glossary key-facts cause-and-effect",
        "dialogue": "clarifying-question follow-up-chain tutor-and-pupil correction-by-the-user",
        "contrastive": "person place event date number",
        "cross": "related-entities compared-passages same-entity-in-two-articles",
    }.items()
    for name in names.split()
}


def test_the_catalogue_has_exactly_its_84_types() -> None:
    assert len(IDS) == 84
    assert set(load_catalogue()) == IDS


def test_every_type_has_one_golden_example_and_no_example_is_without_a_type() -> None:
    assert {str(path.relative_to(GOLDEN).with_suffix("")) for path in GOLDEN.rglob("*.json")} == IDS


@pytest.mark.parametrize("id_", sorted(IDS))
def test_the_pipeline_takes_a_golden_example_whole_and_makes_its_records(id_: str, warm_gates: Gates) -> None:
    # given what an excellent teacher would reply about a real passage
    prompt_type, golden = load_catalogue()[id_], read(id_)

    # when the real pipeline judges and renders it
    outcome = outcome_of(prompt_type, golden, warm_gates)

    # then no gate refuses any of it, and the records are those of the file, every option in its place
    assert [(reject.gate, reject.code, reject.reason) for reject in outcome.rejects] == []
    assert messages(outcome) == golden["records"]
    assert len(outcome.records) >= (2 if prompt_type.options and prompt_type.options.order == "both" else 1)


def test_every_call_of_a_chain_is_answered_by_its_example() -> None:
    for id_, prompt_type in load_catalogue().items():
        replies = read(id_)["replies"]
        assert list(replies) == [phase.name for phase in prompt_type.chain], id_
        if prompt_type.each:
            entries = replies[prompt_type.phases[-1].name][prompt_type.each]
            assert len(replies["ask"]) == len(entries) >= 1, id_
