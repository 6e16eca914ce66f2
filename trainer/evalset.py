"""Held-out questions for the judge, as `EvalItem`s that carry all a judge may look at.

Guarantees: chosen by a seeded hash, so the same records and seed give the same items, and a larger limit holds a smaller
one's; one item a contrastive pair, never both orderings; no question that stands word for word in the train split or
twice among the items (windows overlap, so a question can leak). What was left out is counted by reason.
Cost: one pass over the train split (about 5 µs a record) and one over the corpus; memory: the held-out records.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from foundation.corpus import Corpus
from foundation.ids import keyed_fraction, stable_id
from foundation.records import EvalItem, Record, Split
from trainer.paths import TrainPaths
from trainer.shuffle import shuffled_examples, shuffled_records

if TYPE_CHECKING:
    from foundation.workspace import Workspace

ASKED = (("user", "assistant"), ("system", "user", "assistant"))  # records of one question and one answer


@dataclass
class EvalCounts:
    """How many held-out records there were, how many items were chosen, and why the others were not.

    `many_turns`: not one question and one answer; `paired`: the other ordering was taken; `leaked`: asked in training too;
    `repeated`: asked by another item; `no_snippet`: its text is not in the corpus; `over_limit`: fit, but not needed.
    """

    records: int = 0
    chosen: int = 0
    many_turns: int = 0
    paired: int = 0
    leaked: int = 0
    repeated: int = 0
    no_snippet: int = 0
    over_limit: int = 0

    def figures(self) -> dict[str, int]:
        return asdict(self)


def eval_items(workspace: Workspace, split: Split, limit: int, seed: int) -> tuple[list[EvalItem], EvalCounts]:
    """At most `limit` items of a held-out split, in the order of their hashes, and the counts.

    Raises `UsageError` before the first `trainer shuffle`. An empty split gives no items.
    """
    paths = TrainPaths.of(workspace)
    counts = EvalCounts()
    candidates: dict[str, Record] = {}  # by pair, or by record where there is none
    for record in shuffled_records(paths, split):
        counts.records += 1
        if tuple(message.role for message in record.messages) not in ASKED:
            counts.many_turns += 1
            continue
        key = record.pair_id or record.id
        if key in candidates:
            counts.paired += 1
            record = min(record, candidates[key], key=lambda other: _rank(seed, other.id))
        candidates[key] = record
    leaked = _asked_in_training(paths, {_words(_question(record)) for record in candidates.values()})
    wanted = {id_ for record in candidates.values() for id_ in (record.snippet_id, record.partner_id) if id_}
    texts = _snippet_texts(workspace, wanted)
    items: dict[str, EvalItem] = {}
    for record in sorted(candidates.values(), key=lambda record: _rank(seed, record.pair_id or record.id)):
        question = _words(_question(record))
        if question in leaked:
            counts.leaked += 1
        elif record.snippet_id not in texts or (record.partner_id and record.partner_id not in texts):
            counts.no_snippet += 1
        elif question in items:
            counts.repeated += 1
        elif len(items) >= limit:
            counts.over_limit += 1
        else:
            items[question] = _item(record, texts)
    counts.chosen = len(items)
    return list(items.values()), counts


def _rank(seed: int, identity: str) -> float:
    return keyed_fraction(f"evalset {seed}", identity)


def _question(record: Record) -> str:
    return record.messages[-2].content


def _words(question: str) -> str:
    """Questions that differ only in case or white space are the same."""
    return " ".join(question.casefold().split())


def _asked_in_training(paths: TrainPaths, questions: set[str]) -> set[str]:
    """Those of `questions` that some user turn of the train split asks too."""
    if not questions:
        return set()
    return {question for question in _train_questions(paths) if question in questions}


def _train_questions(paths: TrainPaths) -> Iterator[str]:
    for example in shuffled_examples(paths, "train"):
        for role, content in example.messages:
            if role == "user":
                yield _words(content)


def _snippet_texts(workspace: Workspace, wanted: set[str]) -> dict[str, str]:
    if not wanted:
        return {}
    return {snippet.id: snippet.text for snippet in Corpus(workspace.store).all_snippets() if snippet.id in wanted}


def _item(record: Record, texts: dict[str, str]) -> EvalItem:
    ids = (record.snippet_id, record.partner_id) if record.partner_id else (record.snippet_id,)
    return EvalItem(
        id=stable_id("eval", record.id),
        record_id=record.id,
        split=record.split,
        prompt_type=record.prompt_type,
        family=record.family,
        article_id=record.article_id,
        title=record.title,
        snippet="\n\n".join(texts[id_] for id_ in ids),
        question=_question(record),
        reference=record.messages[-1].content,
    )
