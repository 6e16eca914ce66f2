"""Raw text: documents of whole sentences that fit a context, of no article that is held out or withdrawn."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from foundation.corpus import Corpus
from foundation.errors import UsageError
from foundation.ids import stable_id
from foundation.reader import EDITED, Tombstone
from foundation.records import Article, SplitPolicy
from foundation.workspace import Workspace
from trainer.chatml import ENDOFTEXT
from trainer.layout import IGNORE
from trainer.pack import PackedData, pack
from trainer.paths import TrainPaths
from trainer.raw import RawReport, even_pieces, raw_articles, raw_documents
from trainer.shuffle import shuffle, shuffled_records
from trainer.tokenizer import load_tokenizer, record_texts, save_tokenizer, train_tokenizer

POLICY = SplitPolicy(key="k", unseen=0.4, phrasing=0)


@pytest.fixture
def ready(workspace: Workspace) -> Workspace:
    """A workspace with shuffled records and a tokenizer, whose plan holds some of the six articles out."""
    workspace.store.put("plan/split.json", POLICY.model_dump_json().encode())
    shuffle(workspace, 1)
    paths = TrainPaths.of(workspace)
    texts = record_texts(shuffled_records(paths, "train"))
    save_tokenizer(train_tokenizer(texts, workspace.settings.train.vocabulary), paths.tokenizer)
    return workspace


@pytest.fixture
def tokenizer(ready: Workspace) -> Tokenizer:
    return load_tokenizer(TrainPaths.of(ready).tokenizer)


def article(title: str, text: str) -> Article:
    return Article(id=stable_id(title), title=title, text=text, source="test")


def documents(tokenizer: Tokenizer, made: Article, context: int) -> list[str]:
    return [text for text, _ in raw_documents([made], tokenizer, context, RawReport())]


def titles(workspace: Workspace) -> set[str]:
    return {one.title for one in raw_articles(workspace, RawReport())}


def withdraw(workspace: Workspace, kind: str, value: str) -> None:
    stone = Tombstone(kind=kind, value=value)  # type: ignore[arg-type]
    workspace.store.put(stone.name, stone.model_dump_json().encode())


def test_articles_that_are_held_out_are_left_out(ready: Workspace) -> None:
    articles = list(Corpus(ready.store).articles())
    unseen = {one.title for one in articles if POLICY.is_unseen(one.id)}
    assert unseen
    assert titles(ready) == {one.title for one in articles} - unseen != set()


def test_before_anything_is_planned_the_settings_say_what_is_held_out(ready: Workspace) -> None:
    ready.store.delete("plan/split.json")
    policy = SplitPolicy(**ready.settings.split.model_dump())
    articles = list(Corpus(ready.store).articles())
    assert titles(ready) == {one.title for one in articles if not policy.is_unseen(one.id)}


@pytest.mark.parametrize("kind", ["article", "snippet"])
def test_a_withdrawn_article_or_one_with_a_withdrawn_snippet_is_left_out(ready: Workspace, kind: str) -> None:
    before = titles(ready)
    gone = next(one for one in Corpus(ready.store).all_snippets() if one.title in before)
    withdraw(ready, kind, gone.article_id if kind == "article" else gone.id)
    report = RawReport()
    assert {one.title for one in raw_articles(ready, report)} == before - {gone.title}
    assert (report.withdrawn, report.articles) == (1, len(before) - 1)


def test_an_edited_article_stays_as_it_stands_now_unless_someone_withdrew_it(ready: Workspace) -> None:
    before = titles(ready)
    first, second = list(
        {one.title: one for one in Corpus(ready.store).all_snippets() if one.title in before}.values()
    )[:2]
    for one, reason in ((first, EDITED), (second, f"{EDITED}; it is wrong")):
        stone = Tombstone(kind="snippet", value=one.id, reason=reason)
        ready.store.put(stone.name, stone.model_dump_json().encode())
    assert titles(ready) == before - {second.title}


@pytest.mark.parametrize("context", [60, 128, 1000])
def test_documents_are_whole_sentences_under_the_title_and_fit_the_context(tokenizer: Tokenizer, context: int) -> None:
    paragraphs = [[f"Sentence {row} of paragraph {part} has seven words." for row in range(5)] for part in range(4)]
    made = article("Some Title", "\n\n".join(" ".join(rows) for rows in paragraphs))
    found = list(raw_documents([made], tokenizer, context, RawReport()))
    sentences: list[str] = []
    for text, (ids, mask) in found:
        assert len(ids) <= context
        assert mask == [1] * len(ids)
        assert ids[-1] == tokenizer.token_to_id(ENDOFTEXT)
        assert tokenizer.decode(ids[:-1]) == text
        title, _, rest = text.partition("\n\n")
        assert title == "Some Title"
        sentences += [part.strip() + "." for part in rest.replace("\n\n", " ").split(".") if part]
    assert sentences == [row for rows in paragraphs for row in rows]
    if context == 1000:
        assert found[0][0] == f"Some Title\n\n{made.text}"


def test_a_long_article_becomes_documents_of_even_length(tokenizer: Tokenizer) -> None:
    made = article("Even", " ".join(f"This is sentence number {number} here." for number in range(60)))
    sizes = [len(ids) for _, (ids, _) in raw_documents([made], tokenizer, 128, RawReport())]
    assert len(sizes) > 3
    assert max(sizes) - min(sizes) < 40


def test_a_sentence_that_fits_no_context_is_left_out_and_counted(tokenizer: Tokenizer) -> None:
    report = RawReport()
    made = article("Long", f"A short one. The {'very ' * 200}long one. Another short one.")
    (found,) = raw_documents([made], tokenizer, 64, report)
    assert found[0] == "Long\n\nA short one. Another short one."
    assert report.long_sentences == 1


def test_every_sentence_is_in_a_document_or_counted(tokenizer: Tokenizer) -> None:
    rows = [f"Row{number} holds {'many ' * (number % 23)}words, zebra{number}." for number in range(60)]
    made, left_out = article("Rows", " ".join(rows)), 0
    for context in range(20, 60):
        report = RawReport()
        texts = [text for text, _ in raw_documents([made], tokenizer, context, report)]
        found = sum(f"zebra{number}." in text for text in texts for number in range(60))
        assert found + report.long_sentences == 60, context
        left_out += report.long_sentences
    assert left_out


@pytest.mark.parametrize("text", ["", " \n\n \n", "x" * 5000])
def test_an_article_with_nothing_that_fits_makes_no_document(tokenizer: Tokenizer, text: str) -> None:
    assert documents(tokenizer, article("Empty", text), 64) == []


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 30), max_size=80), st.integers(30, 100))
def test_pieces_hold_every_sentence_in_order_and_none_is_too_long(sizes: list[int], room: int) -> None:
    units = [(str(number), size) for number, size in enumerate(sizes)]
    pieces = even_pieces(units, room)
    assert [unit for piece in pieces for unit in piece] == units
    assert all(0 < sum(size for _, size in piece) <= room for piece in pieces)
    longest = max(sizes, default=0)
    assert len(pieces) <= 1 + sum(sizes) // max(
        1, room - longest + 1
    )  # no more than cutting where it is full would make


def test_packed_raw_text_is_counted_and_only_in_the_train_split(ready: Workspace) -> None:
    metas = {meta.split: meta for meta in pack(ready, raw=True)}
    train = metas["train"]
    data = PackedData.open(TrainPaths.of(ready).pack("train"))
    kind = data.meta.types.index("raw/article")
    numbers = np.flatnonzero(data.types == kind)
    assert data.meta.families[kind] == "raw"
    assert train.raw_documents == len(numbers) > 0
    assert train.raw_tokens == sum(len(data.record(number)[0]) for number in numbers)
    assert train.records == 206 + train.raw_documents
    assert metas["phrasing"].raw_documents == metas["unseen"].raw_documents == 0
    assert "raw/article" not in metas["unseen"].types


def test_the_texts_are_the_articles_and_every_token_but_the_first_is_a_target(
    ready: Workspace, tokenizer: Tokenizer
) -> None:
    pack(ready, raw=True)
    data = PackedData.open(TrainPaths.of(ready).pack("train"))
    kind = data.meta.types.index("raw/article")
    told: dict[str, list[str]] = defaultdict(list)
    for number in np.flatnonzero(data.types == kind).tolist():
        ids = data.record(number)[0].tolist()
        targets = data.batch([[number]]).targets_N.tolist()
        assert [target for target in targets if target != IGNORE] == ids[1:]
        title, _, text = tokenizer.decode(ids[:-1]).partition("\n\n")
        told[title] += text.split()
    wanted = {one.title: one.text.split() for one in raw_articles(ready, RawReport())}
    assert told == wanted


def test_raw_text_is_packed_by_itself_where_the_mix_asks_for_it(ready: Workspace) -> None:
    assert pack(ready)[0].raw_documents == 0
    with open(ready.root / "factory.toml", "a") as file:
        file.write("[mix]\ncurriculum = [{}, {raw = 0.1}]\n")
    assert pack(Workspace(ready.root))[0].raw_documents > 0
    assert pack(Workspace(ready.root), raw=False)[0].raw_documents == 0


def test_where_there_is_no_raw_text_the_former_packs_stay(ready: Workspace) -> None:
    pack(ready)
    before = TrainPaths.of(ready).packs.resolve()
    for one in Corpus(ready.store).articles():
        withdraw(ready, "article", one.id)
    with pytest.raises(UsageError, match=r"no raw text to pack: 0 articles are held out, 6 withdrawn(.|\n)*ingest"):
        pack(ready, raw=True)
    assert TrainPaths.of(ready).packs.resolve() == before
    assert before.exists()
