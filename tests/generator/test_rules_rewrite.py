"""The rules teacher's retellings: fewer words or another order, and never another fact."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from foundation.records import Snippet
from generator.catalogue import load_catalogue
from generator.gates import Gates
from generator.pipeline import Outcome
from generator.teachers.rules.rewrite import MAKERS
from generator.teachers.rules.telling import span_of, terse
from tests.generator.prompt_files import snippet
from tests.generator.test_rules import accepted, replies

SHARES = {"bullet-points": 0.65, "chronological": 0.18, "lecture-notes": 0.7, "telegram": 0.9}
"""The share of the project's own snippets that must give an accepted record."""
SHOWN = ("rewrite/bullet-points", "rewrite/chronological", "rewrite/telegram")
DROPPED = re.compile(r"\b(?:the|an?|on|in|was|were|being|and|which|who)\b|\W", re.IGNORECASE)


@pytest.fixture(scope="module")
def outcomes(wwii_snippets: list[Snippet], warm_gates: Gates) -> dict[str, list[Outcome]]:
    """What the gates let through of each type, over the project's own corpus."""
    return {id_: accepted(load_catalogue()[id_], wwii_snippets, warm_gates) for id_ in MAKERS}


def made(id_: str, texts: list[Snippet], round_: int = 0) -> list[tuple[Snippet, dict[str, Any]]]:
    pairs = zip(texts, replies(load_catalogue()[id_], texts, round_), strict=True)
    return [(text, json.loads(reply.text)) for text, reply in pairs if reply.finish == "stop"]


def declined(id_: str, text: Snippet) -> bool:
    return replies(load_catalogue()[id_], [text])[0].finish == "declined"


def bare(text: str) -> list[str]:
    """The words that no telegram drops, in lower case and in their order."""
    return [word.casefold() for word in re.findall(r"[\w'-]+", text) if not DROPPED.fullmatch(word)]


@pytest.mark.parametrize("name", sorted(SHARES))
def test_a_fair_share_of_the_own_corpus_gives_an_accepted_record(
    name: str, outcomes: dict[str, list[Outcome]], wwii_snippets: list[Snippet]
) -> None:
    share = len(outcomes[f"rewrite/{name}"]) / len(wwii_snippets)

    assert share >= SHARES[name]


def test_it_says_what_it_makes() -> None:
    assert set(MAKERS) == {f"rewrite/{name}" for name in SHARES}


@pytest.mark.parametrize("id_", sorted(MAKERS))
def test_another_round_writes_otherwise(id_: str, wwii_snippets: list[Snippet]) -> None:
    first, second = ({text.id: fields for text, fields in made(id_, wwii_snippets, round_)} for round_ in (0, 1))

    both = first.keys() & second.keys()
    assert sum(first[key] != second[key] for key in both) / len(both) >= 0.75  # eight wordings of the request


@pytest.mark.parametrize("id_", SHOWN)
def test_the_user_shows_the_passage_unchanged_below_the_request(
    id_: str, outcomes: dict[str, list[Outcome]], wwii_snippets: list[Snippet]
) -> None:
    texts = {text.id: text.text for text in wwii_snippets}

    for outcome in outcomes[id_]:
        record = outcome.records[0]
        request, _, shown = record.messages[0].content.partition("\n\n")
        assert request[-1] in ":?" and shown == texts[record.snippet_id]
        assert record.supervised == (1,)


def test_a_telegram_keeps_every_word_that_tells_something(wwii_snippets: list[Snippet]) -> None:
    # given the words of a passage without articles, helping verbs and the prepositions of dates
    found = made("rewrite/telegram", wwii_snippets)

    # then a telegram has them all, numbers and names and negations too, and in their order
    assert len(found) >= 200
    for text, fields in found:
        assert bare(" ".join(fields["lines"])) == bare(text.text), text.title


def test_a_telegram_is_shorter_and_its_phrases_are_parted_by_stop(outcomes: dict[str, list[Outcome]]) -> None:
    for outcome in outcomes["rewrite/telegram"]:
        asked, sent = (message.content for message in outcome.records[0].messages)
        passage = asked.partition("\n\n")[2]
        assert sent.endswith(" STOP") and 3 <= sent.count(" STOP") <= 14
        assert len(sent.replace(" STOP", "").split()) < 0.95 * len(passage.split())


@pytest.mark.parametrize(
    ("sentence", "short"),
    [
        ("The Red Army took the town.", "Red Army took town"),
        ("Poland was attacked in September 1939.", "Poland was attacked September 1939"),
        ("The bridge was destroyed by British engineers.", "Bridge destroyed by British engineers"),
        ("The tanks were hidden in a wood.", "Tanks hidden in wood"),
        ("He was searching for the carriers.", "He was searching for carriers"),
        ("A few tanks used 20 tons a day.", "A few tanks used 20 tons a day"),
        (
            "The Senate approved it by 60 votes to 31 in March 1941.",
            "Senate approved it by 60 votes to 31 in March 1941",
        ),
        ("There were no survivors.", "There were no survivors"),
        ("The bill did not pass on 4 May 1940.", "Bill did not pass 4 May 1940"),
        ("Anthony Eden spoke in The Hague.", "Anthony Eden spoke in The Hague"),
    ],
)
def test_what_a_telegram_leaves_out(sentence: str, short: str) -> None:
    assert terse(sentence) == short


def test_a_chronological_text_rises_and_says_the_same(wwii_snippets: list[Snippet]) -> None:
    for text, fields in made("rewrite/chronological", wwii_snippets):
        fronted = re.findall(r"(?:^|\. )(?:On|In|During) [^,.]*?\b(\d{1,2} [A-Z][a-z]+ \d{4})\b", fields["text"])
        spans = [span_of(date) for date in fronted]
        assert None not in spans
        assert spans == sorted(span for span in spans if span), (text.title, fields["text"])
        assert sorted(re.findall(r"\w+", fields["text"].casefold())) == sorted(re.findall(r"\w+", text.text.casefold()))
        assert fields["text"] != text.text


def test_what_is_told_late_is_moved_to_its_time() -> None:
    text = snippet(
        "Soviet troops freed Klin on 15 December 1941. Frost had hardened the ground around Klin. "
        "Heinz Guderian entered Orel on 3 October 1941. The trams were still running in Orel. "
        "German troops entered Kalinin on 14 October 1941."
    )

    ((_, fields),) = made("rewrite/chronological", [text])

    assert fields["text"] == (
        "On 3 October 1941, Heinz Guderian entered Orel. The trams were still running in Orel. "
        "On 14 October 1941, German troops entered Kalinin. "
        "On 15 December 1941, Soviet troops freed Klin. Frost had hardened the ground around Klin."
    )


def test_a_sentence_without_a_date_that_may_lead_on_to_the_next_one_keeps_both_in_their_place() -> None:
    text = snippet(
        "Soviet troops freed Klin on 15 December 1941. Erich von Manstein had proposed the attack. "
        "Heinz Guderian entered Orel on 3 October 1941. The trams were still running in Orel. "
        "German troops entered Kalinin on 14 October 1941."
    )

    assert declined("rewrite/chronological", text)


def test_a_sentence_that_leans_on_the_one_before_is_not_moved_away_from_it() -> None:
    text = snippet(
        "Soviet troops freed Klin on 15 December 1941. He had entered Orel on 3 October 1941. "
        "German troops entered Kalinin on 14 October 1941."
    )

    assert declined("rewrite/chronological", text)


def test_points_stand_alone_and_keep_their_order(wwii_snippets: list[Snippet]) -> None:
    found = made("rewrite/bullet-points", wwii_snippets)

    assert {fields["points"][0].endswith(".") for _, fields in found} == {True, False}  # sentences, and notes
    for text, fields in found:
        assert not [one for one in fields["points"] if re.match(r"(?:He|She|It|They|This|Meanwhile|However)\b", one)]
        words = bare(text.text)
        at = 0
        for one in fields["points"]:
            starts = [place for place in range(at, len(words)) if words[place : place + len(bare(one))] == bare(one)]
            assert starts, (text.title, one)
            at = starts[0] + len(bare(one))


def test_lecture_notes_have_each_topic_once_and_tell_nothing_twice(wwii_snippets: list[Snippet]) -> None:
    for text, fields in made("rewrite/lecture-notes", wwii_snippets):
        topics = [entry["topic"] for entry in fields["notes"]]
        assert len(set(topics)) == len(topics) >= 3
        assert fields["remember"] in text.sentences
        for entry in fields["notes"]:
            for detail in entry["detail"].split("; "):
                assert " ".join(bare(detail)) in " ".join(bare(text.text)), (text.title, detail)
                assert " ".join(bare(detail)) not in " ".join(bare(fields["remember"]))


def test_sentences_that_lean_on_each_other_make_no_points() -> None:
    text = snippet("Ivan Konev came from Moscow. He led a front there. It was cold. They froze. This went on for days.")

    assert declined("rewrite/bullet-points", text)
