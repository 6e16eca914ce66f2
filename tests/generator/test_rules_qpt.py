"""The rules teacher's questions that a whole passage answers: 28 registers and forms that differ, and ask for this passage alone."""

from __future__ import annotations

import asyncio
import json
import re
from random import Random

import pytest

from foundation.ids import seed_of
from foundation.records import ChatReply, Snippet, SplitPolicy, Unit, item_id
from generator.catalogue import load_catalogue
from generator.gates import Gates
from generator.pipeline import produce
from generator.render import Source, chat_request
from generator.teachers.base import TeacherRequest
from generator.teachers.rules import RulesTeacher, words
from generator.teachers.rules.passages import MAKERS, form_phrases, phrases
from generator.teachers.rules.passages.forms import LIMITS
from generator.teachers.rules.passages.slips import mistyped
from generator.teachers.rules.task import Library
from tests.generator.prompt_files import snippet

TYPES = sorted(MAKERS)
TEACHER = RulesTeacher()  # one, so that the corpus is read once
FORMS = {"what-happened": 0.9, "when-and-where": 0.85, "who-was": 0.85, "why-did": 0.4}
"""The share of snippets that each must serve at least; every other type serves 98 %."""

MARKS = {
    "formal": r"\A(?!.*(?:'s the|n't|!)).+[?.]\Z",
    "casual": r"'s |'m |n't |\ASo |\AOkay|\AMind |\AGot |\AHow do .* even|anyway|I can't|turn up in",
    "with-typos": r"\A[A-Z].*[?.]\Z",
    "lower-case": r"\A[^A-Z]+\Z",
    "terse-keywords": r"\A(?!.*\b(?:is|are|was|were|did|what|how|why)\b)[^?,]+\Z",
    "imperative": r"\A(?:Describe|Outline|Summarise|Give|Set out|Trace|Recount|Show|Discuss|Sketch|State|Write) [^?]+\.\Z",
    "conversational": r"\A[A-Z][^?]+\. .+[?.]\Z",
    "curious-child": r"[?!]\Z",
    "student-before-an-exam": r"exam|test|revis|revision|learn|by tomorrow|teacher says",
    "teacher": r"[Cc]lass|Let us|Think about|your own words|Today we|who remembers|answer|homework",
    "journalist": r"exactly|What|readers|Walk me|Take us|report on|How much",
    "historian": r"account|sequence|placed within|course of|bearing|reconstruct|developments|established|significance|extent|essential",
    "sceptic": r"doubt|really|convinced|hard to believe|believe|legend|truly|on trust|too neat",
    "non-native-english": r"explain me|role have|informations|did happened|How it comes|am interesting|good the part|Since two|say me|"
    r"did played|all people",
    "chat-slang": r"\b(?:idk|lol|pls|ngl|u|ppl|rn|tbh|abt|thx|fr|btw|w)\b",
    "polite-request": r"please|mind|grateful|trouble|kind|May I|Please|kindly|appreciate|Might I",
    "search-query": r"\A[^?!]*[^.?!]\Z",
    "forum-post": r"\A[^\n?]+[^\n.]\n[A-Z][^\n]+[?.]\Z",
    "voice-assistant": r"\A(?:Hey|Okay|Hi|Hello)\b",
    "e-mail": r"\A(?:Hello|Good|Dear)[^\n]*,\n[^\n]+[?.]\n(?:Kind|Many|Best|With|Thank|Yours)[a-z ]+\Z",
    "tell-me-about": r"[Tt]ell me (?:more )?(?:about|what you know about)",
    "explain": r"\b[Ee]xplain\b",
    "what-do-you-know": r"\b(?:you (?:happen to )?know|tell me of)\b",
    "what-happened": r"\b[Ww]hat (?:exactly )?happened\b",
    "why-did": r"\AWhy(?: did| was| were|, (?:in|during) .+?, (?:did|was|were|had)) .+\?\Z",
    "who-was": r"\AWho (?:was|were) [A-Z].+, and .+\?\Z",
    "when-and-where": r"(?i)(?=.*\b(?:when|dates|times)\b)(?=.*\b(?:where|places)\b).+\?\Z",
    "bare-topic": r"\A[^?!]+[^?!.]\Z",
}


@pytest.fixture(scope="module")
def made(wwii_snippets: list[Snippet]) -> dict[str, list[tuple[Snippet, str]]]:
    """What each type makes of the project's corpus, gates aside."""
    return {id_: questions(id_, wwii_snippets) for id_ in TYPES}


def replies(id_: str, texts: list[Snippet], round_: int = 0) -> list[ChatReply]:
    prompt_type = load_catalogue()[id_]
    requests = []
    for source in map(Source, texts):
        item = item_id(source.snippet.id, prompt_type.fingerprint, round_)
        chat = chat_request(prompt_type, source, item, seed_of(item))
        requests.append(TeacherRequest(chat, prompt_type, source, round_))

    async def ask() -> list[ChatReply]:
        return [reply async for reply in TEACHER.complete(requests)]

    return asyncio.run(ask())


def accepted(id_: str, texts: list[Snippet], gates: Gates) -> int:
    """How many snippets give a record that every gate lets through."""
    prompt_type = load_catalogue()[id_]
    unit = Unit(id="u", block="b", start=0, stop=len(texts), prompt_type=id_, fingerprint=prompt_type.fingerprint)
    policy = SplitPolicy(key="tests", unseen=0.05, phrasing=0.02)

    async def collect() -> int:
        sources = [Source(text) for text in texts]
        stream = produce(TEACHER, prompt_type, sources, unit=unit, policy=policy, attempt="a", gates=gates)
        return sum([bool(outcome.records) async for outcome in stream])

    return asyncio.run(collect())


def questions(id_: str, texts: list[Snippet], round_: int = 0) -> list[tuple[Snippet, str]]:
    pairs = zip(texts, replies(id_, texts, round_), strict=True)
    return [(text, json.loads(reply.text)["question"]) for text, reply in pairs if reply.finish == "stop"]


def declined(id_: str, text: Snippet) -> str:
    reply = replies(id_, [text])[0]
    assert reply.finish == "declined"
    return reply.detail


def test_all_28_are_made() -> None:
    assert sorted(id_ for id_ in load_catalogue() if id_.startswith("qpt/")) == TYPES
    assert {id_.partition("/")[2] for id_ in TYPES} == set(MARKS)


@pytest.mark.parametrize("id_", TYPES)
def test_a_fair_share_of_the_own_corpus_gives_an_accepted_record(
    id_: str, wwii_snippets: list[Snippet], warm_gates: Gates
) -> None:
    share = accepted(id_, wwii_snippets, warm_gates) / len(wwii_snippets)

    assert share >= FORMS.get(id_.partition("/")[2], 0.98)


@pytest.mark.parametrize("id_", TYPES)
def test_each_register_bears_its_mark(id_: str, made: dict[str, list[tuple[Snippet, str]]]) -> None:
    mark = re.compile(MARKS[id_.partition("/")[2]], re.DOTALL if id_ == "qpt/formal" else 0)

    assert [text for _, text in made[id_] if not mark.search(text)] == []


@pytest.mark.parametrize("id_", TYPES)
def test_a_question_names_its_subject_and_something_of_its_passage(
    id_: str, made: dict[str, list[tuple[Snippet, str]]], wwii_snippets: list[Snippet]
) -> None:
    library = Library(wwii_snippets)
    odd = []
    for text, question in made[id_]:
        said = question.casefold()
        subject = [word for word in re.findall(r"\w+", text.title.casefold()) if len(word) > 3]
        names = [m.text for s in library.readings[text.id].sentences for m in s.of("person", "place", "thing")]
        singled = [name for name in names if name.casefold() in said and name.casefold() not in text.title.casefold()]
        if not singled or not all(word in said for word in subject):
            odd.append((text.title, question))

    assert odd == []


def test_nothing_is_left_to_be_filled_and_nothing_leans_on_the_page(
    made: dict[str, list[tuple[Snippet, str]]],
) -> None:
    leans = re.compile(r"[{}]|\b(?:the|this) (?:passage|text|article|snippet|author)\b|according to|\b(\w+) \1\b", re.I)

    assert [text for found in made.values() for _, text in found if leans.search(text)] == []


@pytest.mark.parametrize("id_", TYPES)
def test_another_round_asks_otherwise(
    id_: str, made: dict[str, list[tuple[Snippet, str]]], wwii_snippets: list[Snippet]
) -> None:
    first = {text.id: question for text, question in made[id_]}
    second = {text.id: question for text, question in questions(id_, wwii_snippets, 1)}

    both = first.keys() & second.keys()
    assert sum(first[key] != second[key] for key in both) / len(both) >= 0.95


def test_one_passage_is_asked_for_in_28_ways(made: dict[str, list[tuple[Snippet, str]]]) -> None:
    by_snippet: dict[str, list[str]] = {}
    for found in made.values():
        for text, question in found:
            by_snippet.setdefault(text.id, []).append(question.casefold())

    assert max(map(len, by_snippet.values())) == 28
    assert all(len(set(asked)) == len(asked) for asked in by_snippet.values())


def test_typing_slips_are_there_and_spare_names_and_numbers(
    made: dict[str, list[tuple[Snippet, str]]], wwii_snippets: list[Snippet]
) -> None:
    articles: dict[str, str] = {}
    for text in wwii_snippets:
        articles[text.article_id] = articles.get(text.article_id, "") + f"{text.title} {text.text} ".casefold()
    slipped = 0
    own = set(re.findall(r"\w+", " ".join(phrases.PLAIN).casefold())) | {"story", "during", "connection"}
    for text, question in made["qpt/with-typos"]:
        known = own | set(re.findall(r"\w+", articles[text.article_id]))
        slips = [word for word in re.findall(r"\b[a-z]+\b", question) if word not in known]

        # then at most three words are misspelled, and nearly always one at least (it may by chance be a word of the article)
        assert len(slips) <= 3
        slipped += bool(slips)
        # and each capitalised word and number is the article's own
        capitals = re.findall(r"(?<=[a-z,] )[A-Z][\w-]*|\d+", question)
        assert [word for word in capitals if word.casefold() not in articles[text.article_id]] == []
        assert all(word in question.casefold() for word in re.findall(r"\w+", text.title.casefold()))
    assert slipped / len(made["qpt/with-typos"]) > 0.97


def test_a_slip_changes_a_phrase_and_no_place_in_it() -> None:
    for number in range(300):
        phrase = phrases.PLAIN[number % len(phrases.PLAIN)]

        slipped = mistyped(phrase, Random(number), {"there", "three"})

        assert slipped != phrase
        assert re.findall(r"\{\w\}", slipped) == re.findall(r"\{\w\}", phrase)
        changed = [(a, b) for a, b in zip(phrase.split(), slipped.split(), strict=True) if a != b]
        assert 1 <= len(changed) <= 3
        assert all(a[0] == b[0] and abs(len(a) - len(b)) <= 1 for a, b in changed)


def test_lower_case_spares_not_even_names(made: dict[str, list[tuple[Snippet, str]]]) -> None:
    texts = [question for _, question in made["qpt/lower-case"]]

    assert all(text == text.lower() for text in texts)
    assert any(text.endswith("?") for text in texts)
    assert any(not text.endswith("?") for text in texts)


def test_keywords_are_few_and_have_no_verb(made: dict[str, list[tuple[Snippet, str]]]) -> None:
    for _, text in made["qpt/terse-keywords"]:
        tail = re.findall(r"\b[a-z]+\b", text)
        assert not words.AUXILIARIES & set(tail)
        assert 3 <= len(text.split()) <= 20


def test_no_set_of_phrases_is_small() -> None:
    sets = {
        name: value
        for module in (phrases, form_phrases)
        for name, value in vars(module).items()
        if isinstance(value, tuple)
    }

    small = {name for name, value in sets.items() if len(set(value)) < 10}
    assert small <= {"GREETINGS", "SIGN_OFFS", "WHO_TOPIC"}
    assert len(form_phrases.WHO_TOPIC) >= 8


def test_what_the_rules_know_of_lengths_is_what_the_prompt_files_say() -> None:
    catalogue = load_catalogue()

    assert {name: catalogue[f"qpt/{name}"].fields["question"].max for name in LIMITS} == LIMITS


def test_a_form_declines_a_passage_that_cannot_answer_it() -> None:
    # given a passage in the present tense, about nobody, without dates or reasons
    plain = snippet(
        "The Amber Valley lies in the Northern Hills. It borders the Silver Lake. The Old Mill stands beside Stone Bridge. "
        "Farmers from Greenford and Whitby Hall sell apples there",
        title="Amber Valley",
    )

    # then whoever asks for people, times, reasons or events is told what is missing
    assert "nobody" in declined("qpt/who-was", plain)
    assert "no reason" in declined("qpt/why-did", plain)
    assert "no events" in declined("qpt/when-and-where", plain)
    assert "no events" in declined("qpt/what-happened", plain)


def test_a_passage_that_names_nothing_is_declined() -> None:
    nothing = snippet("The water rose during the night. Most of the houses stood empty. The rain stopped at dawn")

    assert {declined(id_, nothing) for id_ in TYPES if id_.partition("/")[2] not in FORMS} == {
        "fewer than two names that single the passage out"
    }


def test_why_asks_about_a_clause_and_does_not_tell_the_reason() -> None:
    text = snippet(
        "General Kurt Zeitzler ordered a retreat to the river because fuel was short. General Kurt Zeitzler informed Berlin on 3 "
        "January 1942. The Third Tank Army held Rzhev in the meantime",
        title="Battle of Moscow",
    )

    asked = [question for round_ in range(6) for _, question in questions("qpt/why-did", [text], round_)]

    about = [question for question in asked if "order a retreat to the river" in question]
    assert about
    assert not any("fuel" in question for question in asked)


def test_a_subject_that_is_a_common_noun_loses_its_capital() -> None:
    text = snippet(
        "In those days alchemy was taught in secret. Robert Boyle wrote about alchemy in London. Isaac Newton studied alchemy in "
        "Cambridge. Robert Boyle and Isaac Newton met in Oxford in 1675",
        title="Alchemy",
    )

    (_, question), *_ = questions("qpt/tell-me-about", [text])

    assert "alchemy" in question
    assert "Alchemy" not in question


def test_names_cut_apart_are_not_asked_about() -> None:
    text = snippet(
        "The American 1st and 29th Infantry Divisions landed near Vierville. Rear Admirals Daniel Callaghan and Norman Scott were "
        "killed off Savo Island. Rommel met Harold Alexander in Cairo. George Patton left Casablanca in November 1942",
        title="Operation Torch",
    )

    asked = [question for round_ in range(12) for _, question in questions("qpt/casual", [text], round_)]

    assert not any(
        re.search(r"American 1st|Rear Admirals|(?<!29th )Infantry Divisions", question) for question in asked
    )
    assert any("Patton" in question or "Casablanca" in question for question in asked)
