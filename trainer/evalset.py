"""Questions for the judge, as `EvalItem`s that carry all a judge may look at: held-out ones, and trained ones to compare.

Guarantees: chosen by a seeded hash, so the same records and seed give the same items, and a larger limit holds a smaller
one's; one item a contrastive pair, never both orderings; no held-out question that stands word for word in the train split
(windows overlap, so a question can leak), no trained one that is held out too, none twice among a split's items. What was
left out is counted by reason. `train/shuffled` is what is drawn from, so a trained question is one of the run's own share.
Cost: two passes over the records, the second for siblings: 9 µs a record for held-out questions, 14 with trained ones; and
one over the corpus. Memory: 1,000 records and five for each item wanted, 100 bytes a held-out question.
Misses: a record that was too long for the run's context, or of a type that the mix took in part, may be asked as a trained
one. A system message is left out of the question. Where four fifths of a split leaked, fewer items may be found than there are.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import msgspec
from pydantic import ValidationError

from foundation.console import progress
from foundation.corpus import Corpus
from foundation.ids import keyed_fraction, stable_id
from foundation.records import EvalItem, Record, Split
from trainer.measure import normalised
from trainer.mix import epoch_mix
from trainer.paths import SPLITS, TrainPaths
from trainer.shuffle import damaged, shuffle_meta, shuffled_lines

if TYPE_CHECKING:
    from foundation.tables import MixSettings
    from foundation.workspace import Workspace

ASKED = (("user", "assistant"), ("system", "user", "assistant"))  # records of one question and one answer
ROOM, SPARE = 5, 1000  # records drawn: so many for each item wanted, and these more
SIBLINGS = 8
TOLD = 500  # records between two strokes of the bar


@dataclass
class EvalCounts:
    """How many records of the split there were, how many items were chosen, and why the others were not.

    `many_turns`: not one question and one answer; `untrained`: of the train split, and the mix never takes its type;
    `paired`: the other ordering was taken; `leaked`: asked in training too (of the train split: held out too); `repeated`:
    asked by another item; `no_snippet`: its text is not in the corpus; `over_limit`: not needed.
    """

    records: int = 0
    chosen: int = 0
    many_turns: int = 0
    untrained: int = 0
    paired: int = 0
    leaked: int = 0
    repeated: int = 0
    no_snippet: int = 0
    over_limit: int = 0

    def figures(self) -> dict[str, int]:
        return asdict(self)

    def close(self) -> None:
        """What is none of the others was not needed."""
        figures = self.figures()
        self.over_limit = figures.pop("records") - sum(figures.values()) + self.over_limit


Chosen = dict[Split, tuple[list[EvalItem], EvalCounts]]


def eval_items(workspace: Workspace, split: Split, limit: int, seed: int) -> tuple[list[EvalItem], EvalCounts]:
    """`eval_sets` of one split."""
    return eval_sets(workspace, [split], limit, seed)[split]


def eval_sets(workspace: Workspace, splits: Sequence[Split], limit: int, seed: int) -> Chosen:
    """Of each split at most `limit` items, in the order of their hashes, and the counts.

    Raises `UsageError` before the first `trainer shuffle`. An empty split gives no items.
    """
    paths = TrainPaths.of(workspace)
    draws = {split: _Draw(seed, ROOM * limit + SPARE) for split in splits}
    sizes = shuffle_meta(paths).records
    total = sum(sizes.values()) + sum(
        size for split, size in sizes.items() if split == "train" or _looked_at(split, splits)
    )
    with progress("records looked at", total) as bar:
        read = _Reader(paths, bar.advance)
        held_out = _held_out(read, draws)
        leaked = _trained(read, draws, held_out, workspace.settings.mix)
        wanted = {id_ for draw in draws.values() for row in draw.rows.values() for id_ in _snippets(row)}
        texts = _snippet_texts(workspace, wanted)
        chosen = {
            split: draw.choose(split, limit, texts, set() if split == "train" else leaked)
            for split, draw in draws.items()
        }
        siblings = _siblings(read, [pair for pairs in chosen.values() for pair in pairs], seed)
    return {
        split: ([item.model_copy(update={"siblings": siblings[item.id]}) for item, _ in pairs], draws[split].counts)
        for split, pairs in chosen.items()
    }


class _Turn(msgspec.Struct, gc=False):
    role: str
    content: str


class _Row(msgspec.Struct, gc=False):
    """Of a record, what an item is made of; the other fields are passed over."""

    id: str
    prompt_type: str
    family: str
    snippet_id: str
    article_id: str
    title: str
    messages: list[_Turn]
    pair_id: str = ""
    partner_id: str = ""

    @property
    def asks(self) -> bool:
        return tuple(turn.role for turn in self.messages) in ASKED

    @property
    def question(self) -> str:
        return self.messages[-2].content


class _Reader:
    """Reads the splits' records; `told` hears of them, a few hundred at a time."""

    def __init__(self, paths: TrainPaths, told: Callable[[int], None]) -> None:
        self.paths, self.told = paths, told
        self._decode = msgspec.json.Decoder(_Row).decode

    def __call__(self, split: Split) -> Iterator[_Row]:
        number = 0
        for number, (path, line) in enumerate(shuffled_lines(self.paths, split), 1):
            if number % TOLD == 0:
                self.told(TOLD)
            try:
                yield self._decode(line)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                try:
                    record = Record.model_validate_json(line)  # which takes a byte order mark, and other liberties
                except ValidationError as error:
                    raise damaged(path) from error
                yield msgspec.convert(record.model_dump(mode="json"), _Row)
        self.told(number % TOLD)


@dataclass
class _Draw:
    """The `room` records of a split with the lowest hashes, both of a pair having one."""

    seed: int
    room: int
    counts: EvalCounts = field(default_factory=EvalCounts)
    rows: dict[str, _Row] = field(default_factory=dict)
    _heap: list[tuple[float, str]] = field(default_factory=list)  # the highest hash on top

    def add(self, row: _Row) -> None:
        key = row.pair_id or row.id
        if (other := self.rows.get(key)) is not None:
            self.counts.paired += 1
            self.rows[key] = min(row, other, key=lambda one: _rank(self.seed, one.id))
            return
        entry = (-_rank(self.seed, key), key)
        if len(self._heap) < self.room:
            heapq.heappush(self._heap, entry)
            self.rows[key] = row
        elif entry > self._heap[0]:
            _, gone = heapq.heapreplace(self._heap, entry)
            del self.rows[gone]
            self.rows[key] = row

    def choose(self, split: Split, limit: int, texts: dict[str, str], leaked: set[str]) -> list[tuple[EvalItem, str]]:
        """Items with the ids of their snippets, the lowest hash first."""
        counts, items = self.counts, dict[str, tuple[EvalItem, str]]()
        for _, key in sorted(self._heap, reverse=True):
            row = self.rows[key]
            question = _words(row.question)
            if question in leaked:
                counts.leaked += 1
            elif not all(id_ in texts for id_ in _snippets(row)):
                counts.no_snippet += 1
            elif question in items:
                counts.repeated += 1
            elif len(items) < limit:
                items[question] = _item(row, split, texts), row.snippet_id
        counts.chosen = len(items)
        counts.close()
        return list(items.values())


def _rank(seed: int, identity: str) -> float:
    return keyed_fraction(f"evalset {seed}", identity)


def _words(question: str) -> str:
    """Questions that differ only in case or white space are the same."""
    return " ".join(question.casefold().split())


def _snippets(row: _Row) -> tuple[str, ...]:
    return (row.snippet_id, row.partner_id) if row.partner_id else (row.snippet_id,)


def _looked_at(split: str, asked: Collection[str]) -> bool:
    """Whether a held-out split's questions are of use: to be drawn, or to be kept out of the trained ones."""
    return split != "train" and (split in asked or "train" in asked)


def _held_out(read: _Reader, draws: dict[Split, _Draw]) -> set[str]:
    """Draw from the held-out splits that are asked for; the questions of those and, if train is asked for, of all."""
    questions: set[str] = set()
    for split in SPLITS:
        if not _looked_at(split, draws):
            continue
        draw = draws.get(split)
        for row in read(split):
            if draw:
                draw.counts.records += 1
            if not row.asks:
                if draw:
                    draw.counts.many_turns += 1
                continue
            questions.add(_words(row.question))
            if draw:
                draw.add(row)
    return questions


def _trained(read: _Reader, draws: dict[Split, _Draw], held_out: set[str], mix: MixSettings) -> set[str]:
    """Draw from the train split if it is asked for; those of `held_out` that some user turn of it asks too."""
    leaked: set[str] = set()
    draw, taken = draws.get("train"), _Taken(mix)
    for row in read("train"):
        leaked.update(
            asked for turn in row.messages if turn.role == "user" and (asked := _words(turn.content)) in held_out
        )
        if draw is None:
            continue
        draw.counts.records += 1
        if not row.asks:
            draw.counts.many_turns += 1
        elif not taken(row):
            draw.counts.untrained += 1
        elif _words(row.question) in leaked:
            draw.counts.leaked += 1
        else:
            draw.add(row)
    return leaked


class _Taken:
    """Whether the mix takes a record's type in any epoch."""

    def __init__(self, mix: MixSettings) -> None:
        self.mix = mix
        self.known: dict[tuple[str, str], bool] = {}

    def __call__(self, row: _Row) -> bool:
        kind = (row.prompt_type, row.family)
        if kind not in self.known:
            epochs = range(max(1, len(self.mix.curriculum)))
            mixes = [epoch_mix(self.mix, kind[:1], kind[1:], epoch) for epoch in epochs]
            self.known[kind] = any(mixed.weights[0] and mixed.raw < 1 for mixed in mixes)
        return self.known[kind]


class _Siblings:
    """Of one item, the answers of other records that have the lowest hashes, none twice."""

    def __init__(self, item: EvalItem) -> None:
        self.item, self.reference = item, normalised(item.reference)
        self._kept: dict[str, tuple[float, str]] = {}  # by the answer's normal form
        self._highest = 1.0  # a hash that is too high

    def add(self, rank: float, row: _Row) -> None:
        if rank >= self._highest or row.id == self.item.record_id:
            return
        text = row.messages[-1].content
        form = normalised(text)
        if not form or form == self.reference:
            return
        self._kept[form] = min((rank, text), self._kept.get(form, (rank, text)))
        if len(self._kept) > SIBLINGS:
            del self._kept[max(self._kept, key=lambda one: self._kept[one])]
        if len(self._kept) == SIBLINGS:
            self._highest = max(rank for rank, _ in self._kept.values())

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(text for _, text in sorted(self._kept.values()))


def _siblings(read: _Reader, items: Sequence[tuple[EvalItem, str]], seed: int) -> dict[str, tuple[str, ...]]:
    """By item, the answers of other records of its snippet, of any split."""
    found = [_Siblings(item) for item, _ in items]
    of_snippet: dict[str, list[_Siblings]] = defaultdict(list)
    for (_, snippet_id), siblings in zip(items, found, strict=True):
        of_snippet[snippet_id].append(siblings)
    for split in SPLITS if items else ():
        for row in read(split):
            if row.snippet_id in of_snippet and row.asks:
                rank = _rank(seed, row.id)
                for siblings in of_snippet[row.snippet_id]:
                    siblings.add(rank, row)
    return {siblings.item.id: siblings.texts for siblings in found}


def _snippet_texts(workspace: Workspace, wanted: set[str]) -> dict[str, str]:
    if not wanted:
        return {}
    return {snippet.id: snippet.text for snippet in Corpus(workspace.store).all_snippets() if snippet.id in wanted}


def _item(row: _Row, split: Split, texts: dict[str, str]) -> EvalItem:
    return EvalItem(
        id=stable_id("eval", row.id),
        record_id=row.id,
        split=split,
        prompt_type=row.prompt_type,
        family=row.family,
        article_id=row.article_id,
        title=row.title,
        snippet="\n\n".join(texts[id_] for id_ in _snippets(row)),
        question=row.question,
        reference=row.messages[-1].content,
    )
