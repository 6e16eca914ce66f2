"""The rules teacher's `wh` and `cloze` families: real shares through the real gates, and what marks each kind of question."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from random import Random

import pytest

from foundation.prompt_type import PromptType
from foundation.records import Snippet
from generator.catalogue import load_catalogue
from generator.gates import Gates
from generator.teachers.rules import cloze, wh
from generator.teachers.rules.facts import hidden
from generator.teachers.rules.lexicon import dates_of
from generator.teachers.rules.task import Library, Task
from tests.generator.prompt_files import snippet
from tests.generator.test_rules import accepted, fields_of, replies

SHARES = {  # of the wwii snippets; few of them give a reason, a means or a length of time at all
    "wh/who": 0.80,
    "wh/what": 0.17,
    "wh/when": 0.72,
    "wh/where": 0.20,
    "wh/why": 0.10,
    "wh/how": 0.03,
    "wh/which": 0.24,
    "wh/how-many": 0.17,
    "wh/how-long": 0.05,
    "wh/whose": 0.20,
    "cloze/entity": 0.95,
    "cloze/date": 0.85,
    "cloze/number": 0.50,
    "cloze/key-phrase": 0.20,
}
OPENINGS = {
    "wh/who": r"\b(?:[Ww]ho|[Ww]hich person|[Nn]ame of the person)\b",
    "wh/what": r"\b[Ww]hat\b",
    "wh/when": r"\b(?:[Ww]hen|[Oo]n which date|[Ii]n which (?:year|month))\b",
    "wh/where": r"\b(?:[Ww]here|[Ii]n what place)\b",
    "wh/why": r"\b(?:[Ww]hy|[Ff]or what reason)\b",
    "wh/how": r"\b(?:[Hh]ow|[Ii]n what way|[Bb]y what means)\b(?! (?:many|much|long|far))",
    "wh/which": r"\b[Ww]hich\b",
    "wh/how-many": r"\b[Hh]ow many\b",
    "wh/how-long": r"\b[Hh]ow long\b",
    "wh/whose": r"\b[Ww]hose\b",
}
# What an answer must have that its question has not.
TOLD: dict[str, Callable[[str, str], bool]] = {
    "wh/when": lambda q, a: any(a[start:end] not in q for start, end in dates_of(a)),
    "wh/where": lambda q, a: bool(set(re.findall(r"\b[A-Z]\w+", a)) - set(re.findall(r"\b[A-Z]\w+", q))),
    "wh/which": lambda q, a: bool(
        set(re.findall(r"\b[A-Z]\w*|\b\d\w*", a)) - set(re.findall(r"\b[A-Z]\w*|\b\d\w*", q))
    ),
    "wh/how-many": lambda q, a: bool(numbers(a) - numbers(q)),
    "wh/how-long": lambda q, a: bool(
        re.search(r"\b(?:minute|hour|day|week|month|year|decade|centur)", a)
        or (re.search(r"\bfrom\b", a) and len(dates_of(a)) > len(dates_of(q)))
    ),
    "wh/why": lambda q, a: bool(re.search(r"\b(?:because|in order to|so that|due to|owing to|to [a-z]+)\b", a)),
    "wh/how": lambda q, a: bool(re.search(r"\b(?:by|using|with the help|through|of|in)\b", a)),
    "wh/whose": lambda q, a: bool(re.search(r"['’]s? |\bunder\b", a)),
}
NUMBER_WORDS = (
    "two three four five six seven eight nine ten eleven twelve fifteen twenty thirty forty fifty million".split()
)


def numbers(text: str) -> set[str]:
    return set(re.findall(r"\d[\d,]*", text)) | {word for word in NUMBER_WORDS if word in text.lower().split()}


def types(*families: str) -> dict[str, PromptType]:
    return {id_: found for id_, found in load_catalogue().items() if found.family in families}


@pytest.mark.parametrize("id_", sorted(SHARES))
def test_a_real_share_of_the_own_corpus_passes_the_gates(
    id_: str, wwii_snippets: list[Snippet], warm_gates: Gates
) -> None:
    found = accepted(load_catalogue()[id_], wwii_snippets, warm_gates)

    assert len(found) / len(wwii_snippets) >= SHARES[id_]


def test_both_families_are_made_whole() -> None:
    assert set(wh.MAKERS) | set(cloze.MAKERS) == set(types("wh", "cloze")) == set(SHARES)


@pytest.mark.parametrize("id_", sorted(OPENINGS))
def test_a_question_asks_what_its_type_says(id_: str, wwii_snippets: list[Snippet]) -> None:
    for _, fields in fields_of(load_catalogue()[id_], wwii_snippets):
        question = fields["question"]

        # given its own question word, it is one sentence in good order
        assert re.search(OPENINGS[id_], question), question
        assert question.endswith("?") and question[0].isupper(), question
        assert not re.search(r" [,.?]|,,|,\?|\?.*\?|\bdid \w+ed\b|\b(?:and|of|the|a)\?$", question), question
        if id_ not in ("wh/who", "wh/when"):
            assert not re.search(r"\b(?:it|they|them)\b", question.replace("did it take", "")), question


@pytest.mark.parametrize("id_", sorted(OPENINGS))
def test_an_answer_is_a_full_sentence_of_the_snippet(id_: str, wwii_snippets: list[Snippet]) -> None:
    for text, fields in fields_of(load_catalogue()[id_], wwii_snippets):
        answer = fields["answer"]
        assert answer.endswith(".") and answer[0].isupper() and len(answer.split()) >= 4, answer

        # given the words that a surname made whole, a title or "It was ... who" adds, all others stand in one sentence
        plain = re.sub(r"^It was [^,]*? who ", "", answer)
        said = [word for word in re.findall(r"\w+", plain) if not word[0].isupper() and word != "von"]
        assert any(all(word in re.findall(r"\w+", s.lower()) for word in said) for s in text.sentences), (answer, text)


@pytest.mark.parametrize("id_", sorted(TOLD))
def test_an_answer_tells_what_the_question_leaves_out(id_: str, wwii_snippets: list[Snippet]) -> None:
    for _, fields in fields_of(load_catalogue()[id_], wwii_snippets):
        assert TOLD[id_](fields["question"], fields["answer"]), fields


def test_who_and_whose_never_name_the_one_asked_for(wwii_snippets: list[Snippet]) -> None:
    for id_ in ("wh/who", "wh/whose"):
        for _, fields in fields_of(load_catalogue()[id_], wwii_snippets):
            # given an answer with a name that its question lacks, somebody was asked for
            named = set(re.findall(r"\b[A-Z][\w-]+", fields["answer"])) - {"It", "In", "On", "The", "At", "After"}
            assert named - set(re.findall(r"\b[A-Z][\w-]+", fields["question"])), fields


@pytest.mark.parametrize("id_", sorted(cloze.MAKERS))
def test_a_blank_filled_gives_back_the_sentence(id_: str, wwii_snippets: list[Snippet]) -> None:
    for text, fields in fields_of(load_catalogue()[id_], wwii_snippets):
        sentence, answer = fields["sentence"], fields["answer"]

        assert len(re.findall("_+", sentence)) == 1 and "____" in sentence, sentence
        assert not re.search(rf"\b{re.escape(answer)}\b", sentence, re.IGNORECASE), fields

        # when it is filled again, its end stands in the snippet as it stood
        filled = re.sub(r" \(Subject: .*\)$", "", sentence.replace("____", answer))
        assert any(filled.lower().endswith(whole.lower()) or whole == filled for whole in text.sentences), fields


def test_what_is_left_out_is_of_the_kind_asked_for(wwii_snippets: list[Snippet]) -> None:
    made = types("cloze")
    for _, fields in fields_of(made["cloze/date"], wwii_snippets):
        assert dates_of(f"in {fields['answer']}"), fields
    for _, fields in fields_of(made["cloze/number"], wwii_snippets):
        assert numbers(fields["answer"].lower()), fields
        assert re.search(r"____ [A-Za-z]", fields["sentence"]), fields
    for _, fields in fields_of(made["cloze/key-phrase"], wwii_snippets):
        assert 2 <= len(fields["answer"].split()) <= 7, fields
        assert fields["answer"] == fields["answer"].lower(), fields


@pytest.mark.parametrize("id_", sorted(SHARES))
def test_another_round_asks_in_another_way(id_: str, wwii_snippets: list[Snippet]) -> None:
    first, second = (replies(load_catalogue()[id_], wwii_snippets, round_) for round_ in (0, 1))

    both = [(a.text, b.text) for a, b in zip(first, second, strict=True) if a.finish == b.finish == "stop"]
    assert len(both) >= 5
    assert sum(a != b for a, b in both) / len(both) >= 0.7


@pytest.mark.parametrize(
    ("id_", "text", "question", "answer"),
    [
        ("wh/where", "Admiral Erik Lund landed the Third Brigade at Torvik on 3 May 1941.", "land the Third Brigade", "Torvik"),
        ("wh/why", "Admiral Erik Lund left Torvik on 3 May 1941 because his fuel was low.", "leave Torvik", "because his fuel"),
        ("wh/how", "Admiral Erik Lund took Torvik in May 1941 by landing behind its harbour.", "take Torvik", "by landing"),
        ("wh/how-many", "Admiral Erik Lund lost 41 ships in the fight for Torvik.", "ships did Admiral Erik Lund lose", "41"),
        ("wh/how-long", "Admiral Erik Lund held the town of Torvik for three weeks.", "hold the town of Torvik", "three weeks"),
        ("wh/whose", "Admiral Erik Lund's ships attacked Torvik on 3 May 1941.", "ships attacked Torvik", "Lund"),
        ("wh/what", "Admiral Erik Lund sank a large floating dock at Torvik on 3 May 1941.", "sink at Torvik", "floating dock"),
        ("wh/which", "Admiral Erik Lund sank the cruiser Hekla near Torvik on 3 May 1941.", "cruiser did Admiral", "Hekla"),
    ],
)  # fmt: skip
def test_a_plain_sentence_gives_the_question_one_would_ask(id_: str, text: str, question: str, answer: str) -> None:
    # given a sentence, and others that make its names known
    known = "Admiral Erik Lund met General Otto Berg. A fleet lay at Torvik. Men lived in Torvik. Berg led the Third Brigade."
    given = snippet(f"{text} {known}")

    ((_, fields),) = fields_of(load_catalogue()[id_], [given])

    assert question in fields["question"]
    assert answer in fields["answer"] and answer not in fields["question"]


@pytest.mark.parametrize(
    ("id_", "text"),
    [
        ("wh/why", "Admiral Erik Lund ordered the Third Brigade to attack Torvik."),  # an order has no reason in it
        ("wh/how-long", "Admiral Erik Lund sailed for Torvik after two days of rain."),
        ("wh/how-many", "Admiral Erik Lund was born in Torvik 41 days before the war."),
        ("wh/where", "Admiral Erik Lund believed in the plan that Berg had made at Torvik."),
        ("wh/whose", "The ships attacked Torvik on 3 May 1941."),
        ("wh/which", "Admiral Erik Lund sank Hekla near Torvik."),
        ("wh/how", "Admiral Erik Lund came to Torvik in the evening by the harbour."),
        ("wh/when", "Admiral Erik Lund wrote that Torvik would not fall in 1941."),  # the year is in what he wrote
        ("cloze/number", "Admiral Erik Lund reached Torvik on 3 May 1941 with Panzer 41."),
    ],
)
def test_what_is_not_certain_is_declined(id_: str, text: str) -> None:
    (reply,) = replies(load_catalogue()[id_], [snippet(f"{text} Admiral Erik Lund met Otto Berg. It lay in Torvik.")])

    assert (reply.finish, reply.text) == ("declined", "")
    assert reply.detail.startswith("no sentence")


def test_a_question_hides_names_and_numbers_but_not_small_words() -> None:
    given = snippet("Snow fell on Torvik. Tanks froze.")
    library = Library([given])
    task = Task(library, library.readings[given.id], "wh/where", 0, Random(1))

    assert hidden(task, "where did the fleet land", "in the Bay of Torvik")
    assert not hidden(task, "where did the Torvik fleet land", "in the Bay of Torvik")
    assert not hidden(task, "how many of 41 ships were lost", "41")


def test_replies_are_json_objects_of_two_strings(wwii_snippets: list[Snippet]) -> None:
    for id_, prompt_type in types("wh", "cloze").items():
        for reply in replies(prompt_type, wwii_snippets[:16]):
            if reply.finish == "stop":
                assert {type(value) for value in json.loads(reply.text).values()} == {str}, id_
                assert set(json.loads(reply.text)) == set(prompt_type.fields), id_
