"""Withdrawing what was made, and taking that back: what is meant, how much of what is committed it withdraws, and what went
missing while a tombstone stood.

Guarantees: nothing that was committed is touched: a tombstone is one small blob, put or deleted whole, and taking it back
leaves every record as it was. What is counted is what `foundation.reader` leaves out, no more.
Cost: finding the shards that name an article or a snippet reads all of them (about 0.8 s a GB), those of the other kinds
are found by name; only what is found is parsed (10 µs a record).
"""

from __future__ import annotations

import contextlib
import difflib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, get_args

from pydantic import ValidationError

from foundation.corpus import BLOCKS, Corpus
from foundation.errors import Failure, UsageError
from foundation.reader import REJECTS, SHARDS, Kind, Manifest, Tombstone, is_withdrawn, read, tombstones
from foundation.records import Reject, Unit, item_id
from generator.sample import Rejects, find_snippets, kinds

if TYPE_CHECKING:
    from foundation.records import Snippet
    from foundation.store import Store
    from foundation.workspace import Workspace

Identity = tuple[Kind, str]  # what a tombstone names
_AND = "; "
_HEX = re.compile(r"[0-9a-f]{24}")
_ITEM = re.compile(rb'"item":\s*"([^"\\]*)"')
_NAMES: dict[str, tuple[re.Pattern[bytes], ...]] = {  # how a line names what it was made of, partners too
    "article": (re.compile(rb'article_id":\s*"([^"\\]*)"'),),
    "snippet": (re.compile(rb'snippet_id":\s*"([^"\\]*)"'), re.compile(rb'partner_id":\s*"([^"\\]*)"')),
    "fingerprint": (re.compile(rb'"fingerprint":\s*"([^"\\]*)"'),),
}


@dataclass(frozen=True)
class Target:
    """One thing that can be retired; `label` is how people know it."""

    kind: Kind
    value: str
    label: str

    @property
    def identity(self) -> Identity:
        return self.kind, self.value


@dataclass
class Toll:
    """Records and rejects by (prompt type, split); `each`: records by group, one that several name in all of them."""

    records: Counter[tuple[str, str]] = field(default_factory=Counter)
    rejects: Counter[tuple[str, str]] = field(default_factory=Counter)
    each: Counter[str] = field(default_factory=Counter)


@dataclass
class Lost:
    """Items of committed units that have neither record nor reject, by prompt type; and those that lacked their partner."""

    items: Counter[str] = field(default_factory=Counter)
    alone: Counter[str] = field(default_factory=Counter)


def stones_by_identity(store: Store) -> dict[Identity, Tombstone]:
    return {(stone.kind, stone.value): stone for stone in tombstones(store)}


class Names:
    """Finds what a person means. Each method raises `UsageError` for what is nothing here, unless a tombstone names it."""

    def __init__(self, workspace: Workspace, standing: Set[Identity]) -> None:
        self.workspace, self.standing = workspace, standing
        self._titles: dict[str, tuple[str, str]] = {}

    def article(self, name: str) -> Target:
        """By id, or by title where one article alone has it."""
        titles = self.titles()
        if name in titles or ("article", name) in self.standing:
            return Target("article", name, self.label("article", name))
        found = [id_ for id_, (title, _) in titles.items() if title == name]
        found = found or [id_ for id_, (title, _) in titles.items() if title.casefold() == name.casefold()]
        if len(found) == 1:
            return Target("article", found[0], self.label("article", found[0]))
        if found:
            each = "; ".join(f"{id_} ({titles[id_][0]}, of {titles[id_][1]})" for id_ in sorted(found))
            raise UsageError(f"{len(found)} articles are called {name}", where=each, mend="name one by its id")
        near = difflib.get_close_matches(name, sorted({title for title, _ in titles.values()}), n=3, cutoff=0.5)
        mend = f"did you mean {' or '.join(map(repr, near))}" if near else "titles are written as in the input"
        raise UsageError(f"no article of that title or id: {name}", where="the corpus", mend=mend)

    def snippet(self, name: str) -> Target:
        if ("snippet", name) not in self.standing and not find_snippets(
            self.workspace.store, lambda ids: ids & {name}, 1
        ):
            raise UsageError(f"no such snippet: {name}", where="the corpus", mend="`factory sample` shows their ids")
        return Target("snippet", name, f"snippet {name}")

    def prompt_types(self, name: str) -> list[Target]:
        """One by its id, or those of a family; of the catalogue, or of what was ever planned, committed or retired here."""
        from generator.catalogue import load_catalogue, select

        known = {*load_catalogue(own=self.workspace.prompts), *self._planned_types().values()}
        known |= {*kinds(self.workspace, rejects=False)} | {
            value for kind, value in self.standing if kind == "prompt_type"
        }
        ids = sorted(one for one in known if name in (one, one.partition("/")[0]))
        if not ids:
            ids = [one.id for one in select([name], self.workspace.prompts)]  # raises, with the nearest names
        return [Target("prompt_type", one, f"prompt type {one}") for one in ids]

    def fingerprint(self, name: str) -> Target:
        from generator.catalogue import load_catalogue

        known = {one.fingerprint: one.id for one in load_catalogue(own=self.workspace.prompts).values()}
        known |= self._planned_types()
        if name not in known and ("fingerprint", name) not in self.standing:
            mend = "`factory prompts show ID` says it, records too"
            raise UsageError(f"no prompt type has that fingerprint: {name}", mend=mend)
        return Target("fingerprint", name, f"fingerprint {name}{f' of {known[name]}' if name in known else ''}")

    def unit(self, name: str) -> Target:
        """Any id of the right shape: a unit that never gets done has no shard either."""
        if not _HEX.fullmatch(name) and ("unit", name) not in self.standing:
            raise UsageError(f"not the id of a unit: {name}", mend="`factory sample` and `factory failures` show them")
        return Target("unit", name, f"unit {name}")

    def label(self, kind: Kind, value: str) -> str:
        """How people know what a tombstone names."""
        if kind == "article":
            title, source = self.titles().get(value, ("", ""))
            return f'article "{title}" of {source} ({value})' if title else f"article {value}"
        return f"{kind.replace('_', ' ')} {value}"

    def titles(self) -> dict[str, tuple[str, str]]:
        """(title, source) of every article by its id; read once."""
        if not self._titles:
            corpus = Corpus(self.workspace.store)
            self._titles = {one.id: (one.title, one.source) for one in corpus.articles()}
            if not self._titles:  # blocks without a log of articles
                self._titles = {one.article_id: (one.title, one.source) for one in corpus.all_snippets()}
        return self._titles

    def _planned_types(self) -> dict[str, str]:
        """Ids of the prompt types that were ever planned, by fingerprint."""
        store = self.workspace.store
        return {_stem(name): str(json.loads(store.get(name))["id"]) for name in store.list("prompt_types")}


def count(
    store: Store,
    groups: Mapping[str, Set[Identity]],
    others: Set[Identity] = frozenset(),
    advance: Callable[[int], None] = lambda _: None,
) -> Toll:
    """What tombstones of these identities withdraw, and `others` do not; `advance` is told of every file looked at."""
    mine = frozenset().union(*groups.values())
    toll = Toll()
    if not mine:
        return toll
    before = tuple(Tombstone(kind=kind, value=value) for kind, value in sorted(others))
    names = list(_naming(store, SHARDS, mine, advance))
    for record in read(store, Manifest(shards=(), tombstones=before), names=names):
        if is_withdrawn(record, mine):
            toll.records[record.prompt_type, record.split] += 1
            toll.each.update(name for name, group in groups.items() if is_withdrawn(record, group))
    rejects = Rejects(store)
    for name in _naming(store, REJECTS, mine, advance):
        data = store.get(name)
        for reject in _rejects(data) if rejects.are_committed(name, data) else ():
            if is_withdrawn(reject, mine) and not is_withdrawn(reject, others):
                toll.rejects[reject.prompt_type, reject.split] += 1
    return toll


def _naming(store: Store, root: str, wanted: Set[Identity], advance: Callable[[int], None]) -> Iterator[str]:
    """Shards (or files of rejects) that may hold what `wanted` names."""
    values = {kind: {value.encode() for other, value in wanted if other == kind} for kind in get_args(Kind)}
    types, units = ({value.decode() for value in values[kind]} for kind in ("prompt_type", "unit"))
    searched = [(pattern, values[kind]) for kind, patterns in _NAMES.items() if values[kind] for pattern in patterns]
    for name in store.list(root):
        advance(1)
        if name.removeprefix(f"{root}/").rpartition("/")[0] in types or _stem(name) in units:
            yield name
        elif searched:
            data = store.get(name)
            if any(not mine.isdisjoint(pattern.findall(data)) for pattern, mine in searched):
                yield name


def _rejects(data: bytes) -> Iterator[Reject]:
    """Those that can be read."""
    for line in data.splitlines():
        with contextlib.suppress(ValidationError):
            yield Reject.model_validate_json(line)


def write(store: Store, target: Target, reason: str, standing: Tombstone | None) -> bool:
    """Put the tombstone. False if one stood there before, which stays.

    Where an edit withdrew the snippet already, this takes that one's place and says so: no later edit takes it back.
    """
    if standing is not None and of_an_edit(standing):
        stone = Tombstone(kind=target.kind, value=target.value, reason=_edited() + (reason or "retired"))
        store.put(stone.name, stone.model_dump_json().encode())
        return True
    stone = Tombstone(kind=target.kind, value=target.value, reason=reason)
    return store.put_once(stone.name, stone.model_dump_json().encode())


def take_back(store: Store, stone: Tombstone) -> None:
    """Delete a tombstone; where it took the place of an edit's, that one stands again."""
    if still_edited(stone):
        before = stone.model_copy(update={"reason": _edited().removesuffix(_AND)})
        store.put(before.name, before.model_dump_json().encode())
    else:
        store.delete(stone.name)


def still_edited(stone: Tombstone) -> bool:
    """Whether an edit of its article had withdrawn the snippet before this tombstone did."""
    return stone.kind == "snippet" and stone.reason.startswith(_edited())


def of_an_edit(stone: Tombstone) -> bool:
    """Whether an ingest made it, and may take it back."""
    return stone.kind == "snippet" and stone.reason == _edited().removesuffix(_AND)


def _edited() -> str:
    """How the reason begins of a tombstone that took the place of an edit's."""
    from generator.ingest.run import EDITED

    return EDITED + _AND


@dataclass(frozen=True, slots=True)
class _Cut:
    """A block as the plan cuts it for one prompt type's fingerprint and round; `left`: it was not cancelled."""

    block: str
    prompt_type: str
    fingerprint: str
    round: int
    unit: int
    partners: str
    left: bool

    def units(self, size: int) -> Iterator[Unit]:
        for start in range(0, size, self.unit):
            stop = min(start + self.unit, size)
            id_ = Unit.make_id(self.block, start, stop, self.fingerprint, self.round)
            yield Unit(
                id=id_,
                block=self.block,
                start=start,
                stop=stop,
                prompt_type=self.prompt_type,
                fingerprint=self.fingerprint,
                round=self.round,
            )


def _cuts(store: Store) -> list[_Cut]:
    """Every block that was ever planned, once for a fingerprint and round. Raises `Failure` if the plan is damaged."""
    found: dict[tuple[str, int, str], _Cut] = {}
    for name in store.list("plan"):
        for number, line in enumerate(store.get(name).splitlines() if name.endswith(".jsonl") else (), 1):
            try:
                row = json.loads(line)
                for block in row["blocks"]:
                    key = row["fingerprint"], row["round"], block
                    if row.get("cancel"):
                        if key in found:
                            found[key] = replace(found[key], left=False)
                    elif key not in found or not found[key].left:
                        values = row["prompt_type"], *key[:2], row["unit"], row.get("partners", "")
                        found[key] = _Cut(block, *values, left=True)
            except (ValueError, KeyError, TypeError) as error:
                where, mend = f"{name}:{number}", "restore plan/ from a copy"
                raise Failure("the plan is damaged", where=where, mend=mend) from error
    return list(found.values())


def units_left(store: Store, targets: Sequence[Target]) -> Counter[str]:
    """Planned units of retired prompt types (or of one fingerprint) that are not committed, by prompt type."""
    mine = {target.identity for target in targets}
    left: Counter[str] = Counter()
    committed: dict[str, set[str]] = {}
    for cut in _cuts(store):
        named = ("prompt_type", cut.prompt_type) in mine or ("fingerprint", cut.fingerprint) in mine
        if cut.left and named:
            done = committed.setdefault(cut.prompt_type, {*map(_stem, store.list(f"{SHARDS}/{cut.prompt_type}"))})
            left[cut.prompt_type] += sum(unit.id not in done for unit in cut.units(Corpus.count(cut.block)))
    return left


def lost(store: Store, targets: Sequence[Target], others: Set[Identity], advance: Callable[[int], None]) -> Lost:
    """What units that ran while these tombstones stood do not have, though their text stands again without them."""
    mine = {target.identity for target in targets}
    searched = {value.encode() for kind, value in mine if kind in ("article", "snippet")}
    result, corpus, files = Lost(), Corpus(store), _Files(store)
    texts: dict[str, list[tuple[int, Snippet]]] = {}  # by block: what is withdrawn by itself, with its place
    for block in corpus.blocks() if searched else ():
        data = store.get(f"{BLOCKS}/{block}.jsonl")
        if any(value in data for value in searched):
            texts[block] = [(at, one) for at, one in enumerate(corpus.snippets(block)) if _names_text(one, mine)]
    dead = {snippet.id for found in texts.values() for _, snippet in found}
    for cut in _cuts(store):
        advance(1)
        kind = {("prompt_type", cut.prompt_type), ("fingerprint", cut.fingerprint)}
        if kind & others:
            continue
        units = list(cut.units(Corpus.count(cut.block)))
        whole = [unit for unit in units if kind & mine or ("unit", unit.id) in mine]
        chosen = _partners(store, cut) if cut.partners and dead else []
        for unit in units:
            places = range(unit.start, unit.stop)
            some = unit in whole or any(at in places for at, _ in texts.get(cut.block, ()))
            alone = [at for at in places if chosen and chosen[at] in dead]
            if not (some or alone) or ("unit", unit.id) in others or not files.is_committed(unit):
                continue
            snippets = corpus.snippets(cut.block)
            asked = places if unit in whole else [at for at, _ in texts.get(cut.block, ()) if at in places]
            for at in asked:
                if not _names_text(snippets[at], others):
                    result.items[unit.prompt_type] += _item(unit, snippets[at]) not in files.items(unit)
            for at in alone:
                result.alone[unit.prompt_type] += _item(unit, snippets[at]) in files.without_partner(unit)
    return result


def _item(unit: Unit, snippet: Snippet) -> str:
    return item_id(snippet.id, unit.fingerprint, unit.round)


def _names_text(snippet: Snippet, identities: Set[Identity]) -> bool:
    return ("snippet", snippet.id) in identities or ("article", snippet.article_id) in identities


def _partners(store: Store, cut: _Cut) -> list[str]:
    """The ids of the second snippets that were chosen for a block, in order; empty where there is none."""
    try:
        rows = json.loads(store.get(f"partners/{cut.partners}/{cut.block}.json"))
        return [row["snippet_id"] if row else "" for row in rows]
    except (FileNotFoundError, ValueError, KeyError, TypeError):  # whoever runs such a unit is told
        return []


class _Files:
    """What is committed of units, read once for each."""

    def __init__(self, store: Store) -> None:
        self.store, self.rejects = store, Rejects(store)
        self._read: tuple[str, set[str], set[str]] = ("", set(), set())

    def is_committed(self, unit: Unit) -> bool:
        return self.store.exists(unit.shard)

    def items(self, unit: Unit) -> set[str]:
        """Items with a record or a reject."""
        return self._of(unit)[1]

    def without_partner(self, unit: Unit) -> set[str]:
        """Items that were rejected because no partner stood beside them."""
        return self._of(unit)[2]

    def _of(self, unit: Unit) -> tuple[str, set[str], set[str]]:
        if self._read[0] != unit.id:
            items = {item.decode() for item in _ITEM.findall(self.store.get(unit.shard))}
            alone: set[str] = set()
            for name in self.rejects.of(unit.prompt_type, unit.id):
                data = self.store.get(name)
                if self.rejects.are_committed(name, data):
                    items |= {item.decode() for item in _ITEM.findall(data)}
                    alone = {one.item for one in _rejects(data) if (one.gate, one.code) == ("partner", "none")}
            self._read = unit.id, items, alone
        return self._read


def _stem(name: str) -> str:
    return name.rpartition("/")[2].partition(".")[0]
