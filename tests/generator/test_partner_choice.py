"""Partners: who may stand beside a snippet, on which side of the held-out line, and how the choice moves from round to round."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from foundation.corpus import Corpus
from foundation.reader import Tombstone
from foundation.records import Article, Snippet, SplitPolicy
from foundation.store import LocalStore
from foundation.workspace import Workspace
from generator.ingest.windows import snippets
from generator.partners import Kind, Partner, choose, names_in

NOBODY = SplitPolicy(key="tests", unseen=0, phrasing=0)
HALF = SplitPolicy(key="tests", unseen=0.5, phrasing=0)
KINDS: tuple[Kind, ...] = ("same-article", "other-article")


def article(title: str, sentences: Sequence[str], window: int = 2, stride: int = 1) -> list[Snippet]:
    """Overlapping windows over some sentences."""
    made = Article(id=Article.make_id("tests", title), title=title, text=" ".join(sentences), source="tests")
    return snippets(made, sentences, window, stride)


def corpus_of(folder: Path, *blocks: list[Snippet]) -> Corpus:
    corpus = Corpus(LocalStore(folder))
    for number, block in enumerate(blocks, 1):
        corpus.store.put(*corpus.block_file(number, block))
    return corpus


@pytest.fixture(scope="module")
def wwii(wwii_workspace: Path) -> Corpus:
    return Corpus(Workspace(wwii_workspace).store)


def pairs(corpus: Corpus, kind: Kind, round_: int = 0, policy: SplitPolicy = NOBODY) -> list[tuple[Snippet, Partner]]:
    chosen = choose(kind, corpus.blocks(), corpus, policy, round_)
    found = [pair for block in chosen for pair in zip(corpus.snippets(block), chosen[block], strict=True)]
    return [(snippet, partner) for snippet, partner in found if partner is not None]


def snippet_of(corpus: Corpus, partner: Partner) -> Snippet:
    """The snippet a partner points at, found by its place."""
    return corpus.snippets(partner.block)[partner.index]


def test_a_partner_in_the_same_article_shares_no_sentence(wwii: Corpus) -> None:
    found = pairs(wwii, "same-article")

    assert len(found) >= 200
    for snippet, partner in found:
        other = snippet_of(wwii, partner)
        assert other.id == partner.snippet_id != snippet.id
        assert other.article_id == snippet.article_id
        assert not set(other.sentences) & set(snippet.sentences)
        assert partner.entity == ""


def test_a_partner_in_another_article_names_the_same_entity(wwii: Corpus) -> None:
    found = pairs(wwii, "other-article")

    assert len(found) >= 150
    for snippet, partner in found:
        other = snippet_of(wwii, partner)
        assert other.id == partner.snippet_id
        assert other.article_id != snippet.article_id
        assert len(partner.entity) >= 4
        assert partner.entity in snippet.text
        assert partner.entity in other.text
        assert not (partner.entity in snippet.title and partner.entity in other.title)


def test_both_articles_stand_on_one_side_of_the_held_out_line(wwii: Corpus) -> None:
    # given a policy that holds out every second article
    found = pairs(wwii, "other-article", policy=HALF)
    sides = [
        (HALF.split(snippet.article_id, snippet.id, "cross/x"), HALF.split(other.article_id, other.id, "cross/x"))
        for snippet, partner in found
        if (other := snippet_of(wwii, partner))
    ]

    # then there are pairs on both sides, and none across
    assert {one for one, _ in sides} == {"unseen", "train"}
    assert all(one == other for one, other in sides)


@pytest.mark.parametrize("kind", KINDS)
def test_the_choice_is_the_same_again_and_whatever_else_is_asked_for(kind: Kind, tmp_path: Path) -> None:
    # given two blocks over which one long article lies
    long = article("Paris", [f"In {year} the city of Paris met Victor Hugo for the time {year}." for year in range(40)])
    rest = article(
        "Guernsey", [f"In {year} the island was the home of Victor Hugo in year {year}." for year in range(20)]
    )
    corpus = corpus_of(tmp_path, long[:30], long[30:] + rest)

    both = choose(kind, corpus.blocks(), corpus, NOBODY, 0)

    # then a block gives the same alone, and in another order
    for block in corpus.blocks():
        assert choose(kind, [block], corpus, NOBODY, 0) == {block: both[block]}
    assert choose(kind, corpus.blocks()[::-1], corpus, NOBODY, 0) == both
    assert any(partner and partner.block != corpus.blocks()[0] for partner in both[corpus.blocks()[0]])


@pytest.mark.parametrize(("kind", "share"), [("same-article", 1.0), ("other-article", 0.9)])
def test_rounds_differ_wherever_there_is_a_choice(kind: Kind, share: float, wwii: Corpus) -> None:
    rounds = [{snippet.id: partner for snippet, partner in pairs(wwii, kind, round_)} for round_ in range(3)]

    assert rounds[0].keys() == rounds[1].keys() == rounds[2].keys()
    for one, other in ((0, 1), (1, 2)):
        moved = [rounds[one][id_].snippet_id != rounds[other][id_].snippet_id for id_ in rounds[one]]
        assert sum(moved) / len(moved) >= share


def test_more_rounds_than_candidates_begin_again(tmp_path: Path) -> None:
    # given three windows that do not overlap: two candidates for each
    corpus = corpus_of(tmp_path, article("Rome", [f"Sentence number {n} is about Rome." for n in range(6)], 2, 2))
    (block,) = corpus.blocks()

    turns = [choose("same-article", [block], corpus, NOBODY, round_)[block] for round_ in range(4)]

    assert turns[0] == turns[2] != turns[1] == turns[3]


@pytest.mark.parametrize("kind", KINDS)
def test_a_snippet_without_a_candidate_has_none_in_its_place(kind: Kind, tmp_path: Path) -> None:
    # given an article of two overlapping windows, in which nobody else is named
    lonely = article("Moss", ["It grows on stones.", "It is green.", "It needs water."])
    others = [
        article(title, [f"In May the painter Claude Monet saw {title}, year {n}." for n in range(4)])
        for title in ("Rouen", "Giverny")
    ]
    corpus = corpus_of(tmp_path, lonely + others[0] + others[1])
    (block,) = corpus.blocks()

    chosen = choose(kind, [block], corpus, NOBODY, 0)[block]

    assert len(chosen) == Corpus.count(block)
    assert chosen[: len(lonely)] == [None] * len(lonely)
    if kind == "same-article":
        assert chosen[len(lonely)] is not None
    else:
        assert {partner.entity for partner in chosen[len(lonely) :] if partner} == {"Claude Monet"}


def test_the_rarest_shared_name_is_taken_first(tmp_path: Path) -> None:
    # given a name in three articles and a rarer one in two
    both = "In that year the composer Clara Schumann met Joseph Joachim in town {}."
    one = "In that year the pianist Clara Schumann played in town {}."
    corpus = corpus_of(
        tmp_path,
        article("Leipzig", [both.format(n) for n in range(2)], 2, 2)
        + article("Hanover", [both.format(n) for n in range(2, 4)], 2, 2)
        + article("Vienna", [one.format(n) for n in range(4, 6)], 2, 2),
    )
    (block,) = corpus.blocks()

    entities = [
        [partner.entity for partner in choose("other-article", [block], corpus, NOBODY, round_)[block] if partner]
        for round_ in range(2)
    ]

    # then the later round goes on to the commoner one, and to the third article
    assert entities == [["Joseph Joachim", "Joseph Joachim", "Clara Schumann"], ["Clara Schumann"] * 3]


def test_a_name_that_both_titles_hold_binds_nothing(tmp_path: Path) -> None:
    corpus = corpus_of(
        tmp_path,
        article("Geography of New Caledonia", [f"The reef of New Caledonia has {n} gaps." for n in range(2)]),
        article("History of New Caledonia", [f"The coast of New Caledonia had {n} ports." for n in range(2)]),
    )

    assert pairs(corpus, "other-article") == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", ["snippet", "article"])
def test_retired_text_is_nobodys_partner(kind: Kind, what: str, tmp_path: Path) -> None:
    # given three articles on one man, and all windows of the second, or one of the first, withdrawn
    one = article("Ulm", [f"In youth the man Albert Einstein lived there in {n}." for n in range(6)], 2, 2)
    other = article("Bern", [f"At work the man Albert Einstein stayed there in {n}." for n in range(6)], 2, 2)
    third = article("Zurich", [f"As a student the man Albert Einstein slept there in {n}." for n in range(6)], 2, 2)
    corpus = corpus_of(tmp_path, one + other + third)
    dead = {one[1].id} if what == "snippet" else {snippet.id for snippet in other}
    value = one[1].id if what == "snippet" else other[0].article_id
    stone = Tombstone.model_validate({"kind": what, "value": value})
    corpus.store.put(stone.name, stone.model_dump_json().encode())

    taken = {partner.snippet_id for round_ in range(6) for _, partner in pairs(corpus, kind, round_)}

    assert taken
    assert not taken & dead


@pytest.mark.parametrize(
    ("sentence", "names"),
    [
        ("Later General Douglas MacArthur left for Australia.", {"Douglas MacArthur", "Australia"}),
        ("The men of the 1st Armored Division crossed the Rhine in March.", {"Rhine"}),
        ("It was seen by German troops, by Apollo 8 and by the Leonardo da Vinci.", {"Leonardo da Vinci"}),
        ("On Monday the Prime Minister met British envoys in Washington D.C. in May.", {"Washington D.C."}),
        ("Nobody spoke of the Second World War or the Bank of England.", {"Second World War", "Bank of England"}),
        ("there the Berlin radio spoke", set()),
    ],
)
def test_names_are_what_has_capitals_inside_a_sentence(sentence: str, names: set[str]) -> None:
    assert {name for name, inside in names_in(sentence) if inside} == names
