"""Held-out questions: repeatable, never leaked from training, one a contrastive pair, what is left out counted."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable

import pytest

from foundation.corpus import BLOCKS, Corpus, jsonl
from foundation.errors import UsageError
from foundation.reader import read
from foundation.records import Record
from foundation.workspace import FILE, Workspace
from trainer.evalset import eval_items, eval_sets
from trainer.paths import SPLITS
from trainer.shuffle import shuffle


@pytest.fixture
def shuffled(workspace: Workspace) -> Workspace:
    shuffle(workspace, 1)
    return workspace


def add(workspace: Workspace, *records: Record) -> None:
    workspace.store.put("shards/qa/first-day/more.jsonl", jsonl(records))
    shuffle(workspace, 1)


def test_an_item_carries_all_a_judge_may_look_at(shuffled: Workspace) -> None:
    items, counts = eval_items(shuffled, "phrasing", 1000, 1)
    records = {record.id: record for record in read(shuffled.store)}
    snippets = {snippet.id: snippet.text for snippet in Corpus(shuffled.store).all_snippets()}
    assert counts.chosen == len(items) > 20
    assert len({item.id for item in items}) == len(items)
    for item in items:
        record = records[item.record_id]
        assert (item.split, record.split) == ("phrasing", "phrasing")
        assert (item.question, item.reference) == (record.messages[0].content, record.messages[1].content)
        assert item.snippet == snippets[record.snippet_id]
        assert (item.prompt_type, item.family, item.article_id, item.title) == (
            record.prompt_type,
            record.family,
            record.article_id,
            record.title,
        )


def test_of_a_contrastive_pair_one_ordering_is_asked(shuffled: Workspace) -> None:
    items, counts = eval_items(shuffled, "unseen", 1000, 1)
    records = {record.id: record for record in read(shuffled.store)}
    pairs = Counter(records[item.record_id].pair_id for item in items if records[item.record_id].pair_id)
    assert len(pairs) == counts.paired == 12
    assert set(pairs.values()) == {1}
    assert {records[item.record_id].ordering for item in items} == {"", "ab", "ba"}
    assert counts.records == counts.paired + counts.chosen == 48


def test_the_choice_is_the_seeds_and_grows_with_the_limit(shuffled: Workspace) -> None:
    ten, counts = eval_items(shuffled, "unseen", 10, 1)
    assert len(ten) == 10
    assert counts.over_limit == 26
    assert eval_items(shuffled, "unseen", 10, 1)[0] == ten
    assert eval_items(shuffled, "unseen", 20, 1)[0][:10] == ten
    assert eval_items(shuffled, "unseen", 10, 2)[0] != ten
    shuffle(shuffled, 99)  # the order of the files does not matter
    assert eval_items(shuffled, "unseen", 10, 1)[0] == ten


def test_a_question_asked_in_training_is_not_asked(shuffled: Workspace, record_of: Callable[..., Record]) -> None:
    items, _ = eval_items(shuffled, "phrasing", 1000, 1)
    leaked = items[3]
    snippet = next(Corpus(shuffled.store).all_snippets())
    turns = [("user", "Hello."), ("assistant", "Yes?"), ("user", f"  {leaked.question.upper()} "), ("assistant", "No.")]
    add(shuffled, record_of(snippet, turns, prompt_type="qa/leak", supervised=(1, 3)))

    after, counts = eval_items(shuffled, "phrasing", 1000, 1)

    assert counts.leaked == 1
    assert [item.id for item in after] == [item.id for item in items if item.id != leaked.id]


def test_no_question_is_asked_twice(shuffled: Workspace, record_of: Callable[..., Record]) -> None:
    items, _ = eval_items(shuffled, "phrasing", 1000, 1)
    snippet = next(Corpus(shuffled.store).all_snippets())
    pairs = [("user", items[0].question), ("assistant", "Something else.")]
    add(shuffled, record_of(snippet, pairs, prompt_type="qa/again", split="phrasing"))
    after, counts = eval_items(shuffled, "phrasing", 1000, 1)
    assert (counts.repeated, len(after)) == (1, len(items))


def test_a_system_message_is_allowed_and_many_turns_are_counted(
    shuffled: Workspace, record_of: Callable[..., Record]
) -> None:
    snippet = next(Corpus(shuffled.store).all_snippets())
    system = [("system", "Be brief."), ("user", "What comes first?"), ("assistant", "Monday.")]
    many = [("user", "A?"), ("assistant", "B."), ("user", "C?"), ("assistant", "D.")]
    add(
        shuffled,
        record_of(snippet, system, prompt_type="qa/system", split="unseen", supervised=(2,)),
        record_of(snippet, many, prompt_type="qa/many", split="unseen", supervised=(1, 3)),
    )
    items, counts = eval_items(shuffled, "unseen", 1000, 1)
    assert counts.many_turns == 1
    asked = {item.question: item.reference for item in items}
    assert asked["What comes first?"] == "Monday."
    assert "C?" not in asked


def test_an_item_without_its_snippet_is_left_out_and_counted(shuffled: Workspace) -> None:
    (name,) = list(shuffled.store.list(BLOCKS))
    rows = [snippet for snippet in Corpus(shuffled.store).all_snippets() if snippet.index != 0]
    shuffled.store.put(name, jsonl(rows))
    items, counts = eval_items(shuffled, "unseen", 1000, 1)
    assert counts.no_snippet == 3
    assert len(items) == 33


def test_trained_questions_are_those_of_the_train_split(shuffled: Workspace) -> None:
    items, counts = eval_items(shuffled, "train", 30, 1)
    records = {record.id: record for record in read(shuffled.store)}
    assert counts.records == sum(record.split == "train" for record in records.values())
    assert len(items) == counts.chosen == 30
    pairs = [pair for item in items if (pair := records[item.record_id].pair_id)]
    assert len(pairs) == len(set(pairs)) > 3
    for item in items:
        record = records[item.record_id]
        assert item.split == record.split == "train"
        assert (item.question, item.reference) == (record.messages[0].content, record.messages[1].content)
    assert eval_items(shuffled, "train", 40, 1)[0][:30] == items
    assert eval_items(shuffled, "train", 30, 2)[0] != items
    shuffle(shuffled, 99)
    assert eval_items(shuffled, "train", 30, 1)[0] == items


def test_a_question_that_is_held_out_too_is_not_asked_as_a_trained_one(
    shuffled: Workspace, record_of: Callable[..., Record]
) -> None:
    items, before = eval_items(shuffled, "train", 1000, 1)
    gone = next(item for item in items if item.family == "qa")
    snippet = next(Corpus(shuffled.store).all_snippets())
    pairs = [("user", gone.question.lower()), ("assistant", "Something else.")]
    add(shuffled, record_of(snippet, pairs, prompt_type="qa/leak", split="unseen"))
    after, counts = eval_items(shuffled, "train", 1000, 1)
    assert (counts.leaked, before.leaked) == (1, 0)
    assert [item.question for item in after] == [item.question for item in items if item.id != gone.id]


def test_splits_together_are_as_each_alone(shuffled: Workspace) -> None:
    together = eval_sets(shuffled, ["unseen", "train", "phrasing"], 20, 1)
    assert list(together) == ["unseen", "train", "phrasing"]
    for split in SPLITS:
        assert together[split] == eval_items(shuffled, split, 20, 1)


def test_what_was_never_trained_on_is_not_asked_as_trained(shuffled: Workspace) -> None:
    """Neither what the share left out nor what the mix gives no weight."""
    shuffle(shuffled, 1, share=0.3)
    _, counts = eval_items(shuffled, "train", 1000, 1)
    everything = sum(record.split == "train" for record in read(shuffled.store))
    assert counts.records < everything / 2
    settings = (shuffled.root / FILE).read_text()
    (shuffled.root / FILE).write_text(settings + "[mix]\nweights = {qpt = 0.0}\n")
    items, counts = eval_items(Workspace(shuffled.root), "train", 1000, 1)
    assert {item.family for item in items} == {"qa", "contrastive"}
    assert counts.untrained > 0
    assert counts.records == sum(counts.figures().values()) - counts.records


def test_few_are_chosen_of_many_as_if_all_were_held(shuffled: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for a few records only, those with the lowest hashes are drawn all the same."""
    whole, _ = eval_items(shuffled, "train", 1000, 1)
    monkeypatch.setattr("trainer.evalset.SPARE", 0)
    few, counts = eval_items(shuffled, "train", 4, 1)
    assert few == whole[:4]
    assert counts.records == sum(counts.figures().values()) - counts.records


def test_siblings_are_other_answers_on_the_same_snippet(shuffled: Workspace, record_of: Callable[..., Record]) -> None:
    snippet = next(Corpus(shuffled.store).all_snippets())
    add(
        shuffled,
        *(
            record_of(snippet, [("user", f"What {number}?"), ("assistant", text)], prompt_type=f"more/{number}")
            for number, text in enumerate(["The same.", "the SAME", "Another.", "...", *map("Nr {}".format, range(7))])
        ),
    )
    records = {record.id: record for record in read(shuffled.store)}
    sets = eval_sets(shuffled, SPLITS, 1000, 1)
    items = [item for items, _ in sets.values() for item in items]
    of_snippet: dict[str, list[Record]] = defaultdict(list)
    for record in records.values():
        of_snippet[record.snippet_id].append(record)
    for item in items:
        record = records[item.record_id]
        others = {it.messages[1].content for it in of_snippet[record.snippet_id] if it.id != record.id}
        assert others >= set(item.siblings)
        assert item.reference not in item.siblings
        assert len(item.siblings) == len(set(map(str.casefold, item.siblings))) <= 8
    crowded = [item for item in items if records[item.record_id].snippet_id == snippet.id]
    assert {len(item.siblings) for item in crowded} == {8}
    (same,) = [item for item in crowded if item.question in ("What 0?", "What 1?")][:1]
    assert not {"The same.", "the SAME", "..."} & set(same.siblings)
    quiet = next(item for item in items if item.family == "qa" and item.snippet != snippet.text)
    assert len(quiet.siblings) == 2, "the description and the pair's one answer, given twice"
    shuffle(shuffled, 99)
    assert eval_sets(shuffled, SPLITS, 1000, 1) == sets, "in a stable order"


def test_before_the_first_shuffle_it_says_so(workspace: Workspace) -> None:
    with pytest.raises(UsageError, match="trainer shuffle"):
        eval_items(workspace, "unseen", 10, 1)
