"""Questions on two passages, by the rules teacher: what they say is in both, and which came first is true."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from foundation.corpus import Corpus
from foundation.records import Snippet, SplitPolicy
from foundation.workspace import Workspace
from generator.catalogue import load_catalogue
from generator.gates import Gates
from generator.gates.fields import plain_words
from generator.partners import Kind, choose
from generator.render import Source
from generator.teachers.rules import RulesTeacher
from generator.teachers.rules.cross import MAKERS
from generator.teachers.rules.task import Declined, Library, Task
from tests.generator.prompt_files import snippet
from tests.generator.scripted import run

POLICY = SplitPolicy(key="tests", unseen=0, phrasing=0)
IDS = sorted(MAKERS)
UNIT = 16


@dataclass(frozen=True)
class Asked:
    """What was asked of two passages."""

    own: Snippet
    partner: Snippet
    entity: str
    question: str
    answer: str


def kind_of(id_: str) -> Kind:
    partner = load_catalogue()[id_].partner
    assert partner is not None
    return partner


def task_of(id_: str, own: Snippet, partner: Snippet | None, library: Library, entity: str = "", seed: int = 0) -> Task:
    beside = library.readings[partner.id] if partner else None
    return Task(library, library.readings[own.id], id_, 0, Random(seed), partner=beside, entity=entity)


def fields_of(task: Task) -> tuple[str, str]:
    fields = MAKERS[task.prompt_type](task)
    return str(fields["question"]), str(fields["answer"])


@pytest.fixture(scope="module")
def sources(wwii_workspace: Path) -> dict[Kind, list[Source]]:
    """Every snippet of the project's own corpus, with its partner if it has one."""
    corpus = Corpus(Workspace(wwii_workspace).store)
    by_id = {one.id: one for one in corpus.all_snippets()}
    kinds: tuple[Kind, ...] = ("same-article", "other-article")
    return {
        kind: [
            Source(own, by_id[partner.snippet_id] if partner else None, partner.entity if partner else "")
            for block, partners in choose(kind, corpus.blocks(), corpus, POLICY, 0).items()
            for own, partner in zip(corpus.snippets(block), partners, strict=True)
        ]
        for kind in kinds
    }


@pytest.fixture(scope="module")
def asked(sources: dict[Kind, list[Source]]) -> dict[str, list[Asked]]:
    """All that is asked over the project's own corpus, unit by unit, by prompt type."""
    made: dict[str, list[Asked]] = {id_: [] for id_ in IDS}
    for id_ in IDS:
        found = [source for source in sources[kind_of(id_)] if source.partner]
        for start in range(0, len(found), UNIT):
            unit = found[start : start + UNIT]
            texts = [text for source in unit for text in (source.snippet, source.partner) if text]
            library = Library(list({text.id: text for text in texts}.values()))
            for source in unit:
                try:
                    said = fields_of(task_of(id_, source.snippet, source.partner, library, source.entity))
                except Declined:
                    continue
                assert source.partner is not None
                made[id_].append(Asked(source.snippet, source.partner, source.entity, *said))
    return made


def quotes(answer: str, text: Snippet) -> bool:
    """Whether a whole sentence of a snippet stands in an answer, but for its first letter."""
    return any(sentence[1:] in answer for sentence in text.sentences)


@pytest.mark.parametrize("id_", IDS)
def test_an_answer_holds_a_whole_sentence_of_each_passage(id_: str, asked: dict[str, list[Asked]]) -> None:
    assert len(asked[id_]) >= 20
    for one in asked[id_]:
        assert quotes(one.answer, one.own), one
        assert quotes(one.answer, one.partner), one


def test_two_articles_and_their_entity_are_named_in_the_question(asked: dict[str, list[Asked]]) -> None:
    for one in asked["cross/same-entity-in-two-articles"]:
        for name in (one.entity, one.own.title, one.partner.title):
            assert plain_words(name) in plain_words(one.question)
        assert one.answer.count(one.entity) >= 2


def test_related_names_stand_in_one_passage_each_and_the_third_in_both(asked: dict[str, list[Asked]]) -> None:
    # given the three ways in which the question names them
    ways = (
        r"how are (?P<a>.+) and (?P<b>.+) connected through (?P<link>.+)\?",
        r"What links (?P<a>.+) and (?P<b>.+) by way of (?P<link>.+) in the history of",
        r"what did (?P<a>.+) and (?P<b>.+) both have to do with (?P<link>.+)\?",
    )
    for one in asked["cross/related-entities"]:
        (found,) = [match for way in ways if (match := re.search(way, one.question))]
        last = {name: found[name].removeprefix("the ").rpartition(" ")[2] for name in ("a", "b", "link")}
        texts = plain_words(one.own.text), plain_words(one.partner.text)

        # then each stands where it should, by its last word at least
        assert plain_words(last["a"]) in texts[0]
        assert plain_words(last["b"]) in texts[1]
        assert all(plain_words(last["link"]) in text for text in texts)


@pytest.mark.parametrize("seed", range(12))
def test_what_came_first_is_told_as_the_dates_have_it(seed: int) -> None:
    early = snippet(
        "Polish troops crossed the river Bug on 4 May 1939. It was told of Polish troops and of Norwegian soldiers.",
        number=1,
    )
    late = snippet(
        "Norwegian soldiers landed at the port of Bodø on 6 June 1940. It was told of Polish troops and of Norwegian soldiers.",
        number=2,
    )
    library = Library([early, late])

    question, answer = fields_of(task_of("cross/compared-passages", early, late, library, seed=seed))

    # then the answer fits whichever of the two was asked about, and tells the earlier one first
    first = (
        question.index("cross the river Bug") < question.index("before or after") if "did Polish" in question else False
    )
    assert re.search(r"\b(?:before|after)\b", answer, re.IGNORECASE)[0].lower() == ("before" if first else "after")  # type: ignore[index]
    assert answer.index("1939") < answer.index("1940")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            "Polish troops crossed the river Bug in 1939.",
            "Norwegian soldiers landed at the port of Bodø on 6 June 1939.",
        ),
        (
            "Polish troops crossed the river Bug on 4 May 1939.",
            "Norwegian soldiers landed at the port of Bodø on 4 May 1939.",
        ),
        (
            "Polish troops crossed the river Bug on 4 May 1939.",
            "Polish troops reached the river Bug on 6 May 1939.",
        ),
        ("Polish troops crossed the river Bug on 4 May 1939.", "Norwegian soldiers landed at the port of Bodø."),
    ],
)
def test_dates_that_leave_a_doubt_are_not_compared(one: str, other: str) -> None:
    texts = (
        snippet(f"{one} It was told of Polish troops and of Norwegian soldiers.", number=1),
        snippet(f"{other} It was told of Polish troops and of Norwegian soldiers.", number=2),
    )

    with pytest.raises(Declined, match="which was first"):
        fields_of(task_of("cross/compared-passages", *texts, Library(texts)))


@pytest.mark.parametrize("id_", IDS)
def test_a_snippet_without_a_partner_is_declined(id_: str) -> None:
    own = snippet(
        "Polish troops crossed the river Bug on 4 May 1939. It was told of Polish troops and of Norwegian soldiers."
    )

    with pytest.raises(Declined, match="no second passage"):
        fields_of(task_of(id_, own, None, Library([own])))


@pytest.mark.parametrize(
    ("id_", "share"),
    [
        ("cross/related-entities", 0.08),
        ("cross/compared-passages", 0.3),
        ("cross/same-entity-in-two-articles", 0.4),
    ],
)
def test_the_gates_accept_what_is_made(
    id_: str, share: float, sources: dict[Kind, list[Source]], warm_gates: Gates
) -> None:
    prompt_type = load_catalogue()[id_]
    found = sources[kind_of(id_)]
    around = tuple(source.snippet for source in found)

    outcomes = [
        one
        for start in range(0, len(found), UNIT)
        for one in run(RulesTeacher(), prompt_type, found[start : start + UNIT], warm_gates, around=around)
    ]

    # then every item has its record or its reject, and what was made is nearly always fit to keep
    assert len(outcomes) == len(found)
    assert all(bool(one.records) != bool(one.rejects) for one in outcomes)
    refused = [reject for one in outcomes for reject in one.rejects if reject.gate not in ("teacher", "partner")]
    repeated = sum(reject.gate == "duplicate" for reject in refused)  # two windows that share both sentences
    kept = sum(bool(one.records) for one in outcomes)
    assert kept / len(found) >= share
    assert repeated <= 0.12 * kept
    assert len(refused) - repeated <= 0.03 * kept, [(reject.gate, reject.reason) for reject in refused]
