"""A random draw of what is committed: records, or the rejects that belong to them, with the text they were made of.

Guarantees: every record that stands (every reject of an attempt that was committed) has the same chance; none twice; what
a tombstone names is never drawn; the same seed over the same shards draws the same.
How: a shard is drawn by its bytes and kept with a chance of its lines over its bytes, which leaves it a chance by its lines
alone; then one line of it. So a few dozen shards are read, however many there are. What little is asked for in a rare
shape, or is little in all, is found by one pass over all of them instead.
Cost: a look at the size of every shard (1.5 µs), some three shards read a record, one line of each parsed; the corpus is
searched for the snippets (1 ms a MB). A pass costs about 1.5 s a GB.
"""

from __future__ import annotations

import heapq
import json
import os
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from foundation.corpus import BLOCKS, Corpus
from foundation.parse import refuse_other_version
from foundation.reader import REJECTS, SHARDS, attempts_of, committed_rejects, identities, is_withdrawn, tombstones
from foundation.records import Record, Reject, Snippet
from generator.gates.common_words import FUNCTION

if TYPE_CHECKING:
    from foundation.records import Contract
    from foundation.store import Store
    from foundation.workspace import Workspace

Output = Record | Reject
SMALL = 8 << 20  # bytes that are rather read whole
SPARSE = 4  # shards there must be for each record asked for: of fewer all are read at once
TRIES = 30  # shards drawn for each record asked for, before they are all read instead
RUN = 4  # words that stand together in both texts: by then they were copied, whatever they are
_WORD = re.compile(r"\w+(?:['’.,-]\w+)*")
_ID = re.compile(rb'"id":\s*"([^"\\]+)"')


@dataclass(frozen=True)
class Filter:
    """What is asked for. `code` goes with `gate`, and both with rejects; an empty string is any."""

    rejects: bool = False
    split: str = ""
    gate: str = ""
    code: str = ""

    def takes(self, output: Output) -> bool:
        """Whether it is that."""
        if self.split and output.split != self.split:
            return False
        if isinstance(output, Reject):
            return self.gate in ("", output.gate) and self.code in ("", output.code)
        return True

    def seen_in(self, line: bytes) -> bool:
        """Whether a line may be that: a look at its bytes spares the parsing of most that are not."""
        return all(pattern.search(line) for pattern in self._patterns())

    def _patterns(self) -> list[re.Pattern[bytes]]:
        wanted = {"split": self.split, "gate": self.gate, "code": self.code}
        return [_said(key, value) for key, value in wanted.items() if value]


@cache
def _said(key: str, value: str) -> re.Pattern[bytes]:
    said = json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogateescape")
    return re.compile(rb'"' + key.encode() + rb'":\s*' + re.escape(said))


@dataclass(frozen=True)
class Shown:
    """One drawn output, with the snippet and the partner it was made of; None where the corpus has no such text."""

    output: Output
    snippet: Snippet | None
    partner: Snippet | None


@dataclass
class Draw:
    """What came of a draw. `files`: how many there were to draw from; `broken` lines were met and passed over."""

    outputs: list[Output] = field(default_factory=list)
    files: int = 0
    broken: int = 0


def kinds(workspace: Workspace, *, rejects: bool) -> list[str]:
    """The prompt types of which shards (or rejects) lie here, in order."""
    root = workspace.root / (REJECTS if rejects else SHARDS)
    if not root.is_dir():
        return []
    return sorted(f"{one.parent.name}/{one.name}" for one in root.glob("*/*") if one.is_dir())


def draw(workspace: Workspace, types: Sequence[str], count: int, wanted: Filter, seed: str) -> Draw:
    """At most `count` of what these prompt types have between them."""
    chance = random.Random(seed)
    source = _Source(workspace, types, wanted)
    result = Draw(files=len(source.names))
    if source.bytes > SMALL and len(source.names) > SPARSE * count:
        result.outputs = source.some(count, chance)
    if len(result.outputs) < count:
        result.outputs = source.scan(count, chance)
    result.broken = source.broken
    return result


class _Source:
    """The files of some prompt types, to draw from."""

    def __init__(self, workspace: Workspace, types: Sequence[str], wanted: Filter) -> None:
        self.store, self.wanted = workspace.store, wanted
        self.kind: type[Record] | type[Reject] = Reject if wanted.rejects else Record
        self.withdrawn = identities(tombstones(self.store))
        self.rejects = Rejects(self.store)
        self.names: list[str] = []
        sizes: list[int] = []
        for type_ in types:
            for name, size in _sizes(workspace, f"{REJECTS if wanted.rejects else SHARDS}/{type_}"):
                self.names.append(name)
                sizes.append(size)
        self.sums = list(accumulate(sizes))
        self.bytes = self.sums[-1] if sizes else 0
        self.broken = 0

    def some(self, count: int, chance: random.Random) -> list[Output]:
        """`count` outputs from shards drawn at random; fewer if they are too rare to be met that way."""
        found: dict[str, Output] = {}
        shortest = _shortest(self.kind)
        for _ in range(TRIES * count):
            if len(found) == count:
                break
            # The sum of bytes before a shard leaves out those without a line.
            name = chance.choices(self.names, cum_weights=self.sums)[0]
            data = self._get(name)
            lines = [line for line in data.splitlines() if self.wanted.seen_in(line)]
            if not lines or chance.random() * len(data) >= shortest * len(lines) or not self._is_committed(name, data):
                continue
            output = self._parse(chance.choice(lines), name)
            if output:
                found.setdefault(output.id, output)
        return list(found.values())

    def scan(self, count: int, chance: random.Random) -> list[Output]:
        """`count` outputs, or all there are, by one pass over every shard: those that drew the lowest numbers."""
        self.broken = 0
        kept: list[tuple[float, Output]] = []  # a heap, the highest number first
        for name in self.names:
            data = self._get(name)
            if not self.wanted.seen_in(data) or not self._is_committed(name, data):
                continue
            for line in data.splitlines():
                rank = -chance.random()
                if (len(kept) < count or rank > kept[0][0]) and (output := self._parse(line, name)):
                    (heapq.heappush if len(kept) < count else heapq.heapreplace)(kept, (rank, output))
        return [output for _, output in sorted(kept, key=lambda entry: -entry[0])]

    def _parse(self, line: bytes, name: str) -> Output | None:
        """What stands on a line; None if it is broken, withdrawn or not asked for."""
        try:
            output = self.kind.model_validate_json(line)
        except ValidationError as error:
            refuse_other_version(self.kind, line, name, error)
            self.broken += 1
            return None
        withdrawn = bool(self.withdrawn) and is_withdrawn(output, self.withdrawn)
        return None if withdrawn or not self.wanted.takes(output) else output

    def _is_committed(self, name: str, data: bytes) -> bool:
        return self.kind is Record or self.rejects.are_committed(name, data)

    def _get(self, name: str) -> bytes:
        try:
            return self.store.get(name)
        except FileNotFoundError:  # of an attempt that another one overtook meanwhile
            return b""


class Rejects:
    """Tells files of rejects that count from those of attempts at a unit that another attempt committed.

    Lists a folder of rejects once, and only if a unit is met that has no record to tell its attempt.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._listed: dict[str, dict[str, list[str]]] = {}

    def of(self, prompt_type: str, unit: str) -> list[str]:
        """All files of rejects of a unit."""
        folder = f"{REJECTS}/{prompt_type}"
        if folder not in self._listed:
            self._listed[folder] = {}
            for name in self.store.list(folder):
                self._listed[folder].setdefault(name.rpartition("/")[2].partition(".")[0], []).append(name)
        return self._listed[folder].get(unit, [])

    def are_committed(self, name: str, data: bytes) -> bool:
        """Whether this file, with `data` in it, is that of the attempt which committed its unit."""
        stem, _, attempt = name.removesuffix(".jsonl").rpartition(".")
        shard = f"{stem.replace(REJECTS, SHARDS, 1)}.jsonl"
        try:
            attempts = attempts_of(self.store.get(shard))
        except FileNotFoundError:
            return False
        if attempts:
            return attempt in attempts
        folder, _, unit = stem.rpartition("/")
        several = self.of(folder.removeprefix(f"{REJECTS}/"), unit)
        return len(several) < 2 or committed_rejects(self.store, shard, set(), lambda: several) == data.splitlines()


@cache
def _shortest(kind: type[Contract]) -> int:
    """Bytes that no whole line of a contract is shorter than: its keys alone. `some` is exact because of it."""
    keys = {name: 0 for name, one in kind.model_fields.items() if one.is_required()}
    return len(json.dumps(keys, separators=(",", ":")))


def _sizes(workspace: Workspace, folder: str) -> Iterator[tuple[str, int]]:
    """The blobs of one folder with their sizes, in order."""
    path = workspace.root / folder
    if not path.is_dir():
        return
    with os.scandir(path) as entries:
        found = sorted((entry.name, entry.stat().st_size) for entry in entries if entry.name.endswith(".jsonl"))
    for name, size in found:
        if not name.startswith("."):
            yield f"{folder}/{name}", size


def with_texts(store: Store, outputs: Sequence[Output]) -> list[Shown]:
    """Each output with what it was made of. Reads the corpus until all of it is found."""
    ids = {id_ for one in outputs for id_ in (one.snippet_id, one.partner_id) if id_}
    texts = find_snippets(store, lambda block: block & ids, len(ids))
    return [Shown(one, texts.get(one.snippet_id), texts.get(one.partner_id)) for one in outputs]


def find_snippets(store: Store, choose: Callable[[set[str]], set[str]], count: int) -> dict[str, Snippet]:
    """The snippets that `choose` takes of each block's ids, by id, until there are `count`."""
    corpus, found = Corpus(store), dict[str, Snippet]()
    for block in corpus.blocks():
        if len(found) >= count:
            break
        ids = {id_.decode() for id_ in _ID.findall(store.get(f"{BLOCKS}/{block}.jsonl"))}
        if chosen := choose(ids):
            found |= {one.id: one for one in corpus.snippets(block) if one.id in chosen}
    return found


def document(shown: Shown) -> dict[str, Any]:
    """As JSON; `taken` are the places in the snippet's text that the output has word for word."""
    text = written(shown.output)
    return {
        "record" if isinstance(shown.output, Record) else "reject": shown.output.model_dump(mode="json"),
        "snippet": shown.snippet.model_dump(mode="json") if shown.snippet else None,
        "partner": shown.partner.model_dump(mode="json") if shown.partner else None,
        "taken": taken_from(shown.snippet.text, text) if shown.snippet else [],
        "taken_from_partner": taken_from(shown.partner.text, text) if shown.partner else [],
    }


def written(output: Output) -> str:
    """What is looked for in the snippet: the turns that are trained on, or all that a rejected output says."""
    if isinstance(output, Reject):
        return output.text
    return "\n".join(output.messages[index].content for index in output.supervised)


def taken_from(source: str, text: str) -> list[tuple[int, int]]:
    """Places (start, end) of `source`, in order, whose words stand in `text` in the same order; the longest runs there are.

    Words that say nothing by themselves count within a run of four or more alone.
    """
    words = list(_WORD.finditer(source))
    other = [match.group().casefold() for match in _WORD.finditer(text)]
    places: dict[str, list[int]] = {}
    for index, word in enumerate(other):
        places.setdefault(word, []).append(index)
    mine = [match.group().casefold() for match in words]
    found: list[tuple[int, int]] = []
    at = 0
    while at < len(mine):
        length = max((_common(mine, at, other, place) for place in places.get(mine[at], ())), default=0)
        first, last = at, at + length
        if length < RUN:
            while first < last and mine[first] in FUNCTION:
                first += 1
            while last > first and mine[last - 1] in FUNCTION:
                last -= 1
        if last > first:
            found.append((words[first].start(), words[last - 1].end()))
        at += max(1, length)
    return found


def _common(one: list[str], first: int, other: list[str], second: int) -> int:
    """How many words are the same from there on."""
    length = 0
    while first + length < len(one) and second + length < len(other) and one[first + length] == other[second + length]:
        length += 1
    return length
