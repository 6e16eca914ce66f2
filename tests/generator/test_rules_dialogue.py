"""The rules teacher's conversations: turns hang together, and nothing false is trained on."""

from __future__ import annotations

import json
import re

import pytest

from foundation.records import Snippet
from generator.catalogue import load_catalogue
from generator.gates import Gates
from generator.pipeline import Outcome
from generator.teachers.rules.dialogue import MAKERS, WHEN_WAS_THAT
from tests.generator.prompt_files import snippet
from tests.generator.test_rules import accepted, replies

SHARES = {
    "clarifying-question": 0.75,
    "correction-by-the-user": 0.85,
    "follow-up-chain": 0.25,
    "tutor-and-pupil": 0.6,
}
"""The share of the project's own snippets that must give an accepted record."""
TRAINED = {
    "clarifying-question": (1, 3),
    "correction-by-the-user": (3,),
    "follow-up-chain": (1, 3, 5),
    "tutor-and-pupil": (1, 3, 5),
}
NAME = re.compile(r"\b[A-Z][\w-]+")


@pytest.fixture(scope="module")
def outcomes(wwii_snippets: list[Snippet], warm_gates: Gates) -> dict[str, list[Outcome]]:
    """What the gates let through of each type, over the project's own corpus."""
    return {id_: accepted(load_catalogue()[id_], wwii_snippets, warm_gates) for id_ in MAKERS}


def made(id_: str, texts: list[Snippet], round_: int = 0) -> list[tuple[Snippet, dict[str, str]]]:
    pairs = zip(texts, replies(load_catalogue()[id_], texts, round_), strict=True)
    return [(text, json.loads(reply.text)) for text, reply in pairs if reply.finish == "stop"]


def words(text: str) -> list[str]:
    return re.findall(r"[\w'-]+", text)


def test_it_says_what_it_makes() -> None:
    assert set(MAKERS) == {f"dialogue/{name}" for name in SHARES}


@pytest.mark.parametrize("name", sorted(SHARES))
def test_a_fair_share_gives_an_accepted_record_of_turns_by_turns(
    name: str, outcomes: dict[str, list[Outcome]], wwii_snippets: list[Snippet]
) -> None:
    found = outcomes[f"dialogue/{name}"]

    assert len(found) / len(wwii_snippets) >= SHARES[name]
    for outcome in found:
        (record,) = outcome.records
        roles = [message.role for message in record.messages]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        assert record.supervised == TRAINED[name]


@pytest.mark.parametrize("id_", sorted(MAKERS))
def test_another_round_talks_otherwise(id_: str, wwii_snippets: list[Snippet]) -> None:
    first, second = ({text.id: fields for text, fields in made(id_, wwii_snippets, round_)} for round_ in (0, 1))

    both = first.keys() & second.keys()
    assert sum(first[key] != second[key] for key in both) / len(both) >= 0.9


def test_a_mistake_is_wrong_in_one_name_or_date_and_is_put_right(wwii_snippets: list[Snippet]) -> None:
    for text, fields in made("dialogue/correction-by-the-user", wwii_snippets):
        mistaken = [word.casefold() for word in words(fields["mistake"])]
        told = max(text.sentences, key=lambda one: len(set(words(fields["answer"])) & set(words(one))))

        # then only a name (with its title) or a date of the mistake does not stand in the sentence
        odd = [word for word in mistaken if word not in words(told.casefold())]
        assert 1 <= len(set(odd) - {"on", "in"}) <= 6, (told, fields)
        # and what the user gives for it does, or is the full name of somebody in it
        assert set(words(fields["correction"])) & set(words(told)) - {"it", "was", "I", "on", "in"}, (told, fields)
        assert fields["mistake"] not in fields["answer"]


def test_the_user_names_what_is_right_and_the_answer_says_so(wwii_snippets: list[Snippet]) -> None:
    texts = [text for text in wwii_snippets if text.title == "Battle of Midway"]

    for text, fields in made("dialogue/correction-by-the-user", texts):
        years = set(re.findall(r"\d{4}", fields["answer"].split("not ")[0]))
        assert years <= set(re.findall(r"\d{4}", text.text))


def test_each_follow_up_takes_up_the_conversation(wwii_snippets: list[Snippet]) -> None:
    for _, fields in made("dialogue/follow-up-chain", wwii_snippets):
        before = fields["answer_1"]
        for number in (2, 3):
            question, answer = fields[f"question_{number}"], fields[f"answer_{number}"]
            if question in WHEN_WAS_THAT:
                previous, said = (set(words(text.casefold())) for text in (fields[f"answer_{number - 1}"], answer))
                assert re.search(r"\d{4}", answer) and len(previous & said) >= 0.7 * len(previous), fields
            else:
                named = [name for name in NAME.findall(question)[1:] if name in before]
                assert named, fields
            before += f" {answer}"
        answers = [fields[f"answer_{number}"] for number in (1, 2, 3)]
        assert len(set(answers)) == 3


def test_a_clarifying_question_offers_what_the_user_then_means(wwii_snippets: list[Snippet]) -> None:
    for text, fields in made("dialogue/clarifying-question", wwii_snippets):
        names = [name for name in NAME.findall(fields["meant"].split(". ")[0]) if name in fields["back"]]
        question = fields["meant"].partition(". ")[2]
        assert fields["back"].rstrip().endswith("?")
        assert names and any(name in question for name in names), fields
        assert all(number in text.text for number in re.findall(r"\d+", fields["answer"]))


def test_the_pupil_says_what_the_tutor_has_told_and_the_tutor_tells_what_the_pupil_does_not_know(
    wwii_snippets: list[Snippet],
) -> None:
    for _, fields in made("dialogue/tutor-and-pupil", wwii_snippets):
        said = [word for word in NAME.findall(fields["reply_1"]) if word not in ("It", "That", "On", "In")]
        assert fields["lesson"].endswith("?") and fields["feedback"].endswith("?")
        assert any(word in fields["lesson"] for word in said) or re.findall(r"\d{4}", fields["reply_1"])
        assert not re.search(r"[?.] [a-z]", fields["feedback"])


def test_a_passage_on_one_fact_makes_no_conversation() -> None:
    text = snippet("Ivan Konev led the Kalinin Front. It was cold. They froze.")

    for id_ in ("dialogue/follow-up-chain", "dialogue/tutor-and-pupil"):
        assert replies(load_catalogue()[id_], [text])[0].finish == "declined"
