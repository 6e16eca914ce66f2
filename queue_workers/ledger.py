"""The ledger: what is committed, and how many items and records that is.

Guarantees: the shards are the ledger; the SQLite index beside them (`cache/index.sqlite`) only remembers counts, follows
the shards in both directions (new ones are read, vanished ones forgotten), and is made anew when it is missing, broken
or of another version. An item is accepted if it has a record, else rejected if the attempt that was committed rejected it.
Cost: a folder of shards whose stamp is that of the last look is not listed; else 2 µs a shard, and for each new one a read
of it and its rejects (3 µs a line). Sums are kept by prompt type, so asking for them costs nothing.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import orjson

from foundation.console import progress
from foundation.errors import Failure
from foundation.reader import REJECTS, SHARDS, committed_rejects
from foundation.records import Unit
from queue_workers.controls import load_controls, settle
from queue_workers.plan import Plan, append, draft_adoption
from queue_workers.protocol import PRIORITIES, Priority, Queue

if TYPE_CHECKING:
    from foundation.store import Store

VERSION = 2  # of the index; another one is made anew
BATCH = 500  # shards read between two commits of the index: what a killed rebuild loses
SHOWN = 2000  # shards to read from which on a progress bar is shown
_Listed = dict[str, dict[str, list[str]]]  # files of rejects by folder, then by unit
_T = TypeVar("_T")
_COUNTS = ("items", "accepted", "rejected", "records", "tokens", "broken")
_COLUMNS = ", ".join(f"{name} integer not null" for name in _COUNTS)
_TABLES = f"""
create table if not exists units (
    prompt_type text not null, unit text not null, {_COLUMNS}, primary key (prompt_type, unit)
) without rowid;
create table if not exists sums (prompt_type text primary key, units integer not null, {_COLUMNS}) without rowid;
create table if not exists folders (name text primary key, stamp text not null) without rowid;
"""
_DROP = "drop table if exists units; drop table if exists sums; drop table if exists folders;"
_ADD = f"""
insert into sums values (?, ?{", ?" * len(_COUNTS)}) on conflict (prompt_type) do update set
units = units + excluded.units, {", ".join(f"{name} = {name} + excluded.{name}" for name in _COUNTS)}
"""


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over committed units. `tokens` are the teacher's, of prompts and completions; `broken` are unreadable lines."""

    units: int = 0
    items: int = 0
    accepted: int = 0
    rejected: int = 0
    records: int = 0
    tokens: int = 0
    broken: int = 0

    def __add__(self, other: Totals) -> Totals:
        return Totals(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))

    def __sub__(self, other: Totals) -> Totals:
        return Totals(*(getattr(self, name) - getattr(other, name) for name in self.__slots__))


@dataclass(frozen=True, slots=True)
class Account:
    """The plan beside what is committed: `planned` = `committed` + `left`, in units and in items; `beyond` was never planned.

    `yielded` are the items of the committed units of the plan that have a record or a reject: as many as were planned of
    them, but for text that was retired before they ran.
    """

    planned: int
    committed: int
    left: int
    beyond: int
    items_planned: int
    items_committed: int
    items_left: int
    items_yielded: int


class Ledger:
    """Counts of what is committed in `store`. `refresh()` before asking."""

    def __init__(self, store: Store, file: Path) -> None:
        self.store, self.file = store, file
        self._database = self._open()

    def refresh(self) -> None:
        """Follow the shards: read the new ones, forget those that are gone. Shows its progress where that takes long."""
        self._mended(self._refresh)

    def clear(self) -> None:
        """Throw away what the index knows: the next `refresh` reads every shard anew."""
        self._mended(self._clear)

    def add(self, unit: Unit, attempt: str = "") -> Totals:
        """Read one unit that was just committed, most likely by `attempt`; its counts."""

        def add() -> Totals:
            counts = self._count(unit.shard, {}, attempt)
            self._write(unit.prompt_type, [(unit.id, *counts)])
            return Totals(1, *counts)

        return self._mended(add)

    def totals(self) -> Totals:
        return sum(self.by_prompt_type().values(), Totals())

    def by_prompt_type(self) -> dict[str, Totals]:
        rows = self._mended(lambda: self._database.execute("select * from sums where units > 0 order by 1").fetchall())
        return {prompt_type: Totals(*counts) for prompt_type, *counts in rows}

    def account(self, plan: Plan) -> Account:
        """The plan beside what is committed. Derives every unit: 7 µs each."""
        rows = self._mended(lambda: self._database.execute("select unit, items from units").fetchall())
        known: dict[str, int] = dict(rows)
        planned = committed = due = done = yielded = 0
        for unit in plan.units():
            items = unit.stop - unit.start
            planned, due = planned + 1, due + items
            found = known.pop(unit.id, None)
            if found is not None:
                committed, done, yielded = committed + 1, done + items, yielded + found
        return Account(planned, committed, planned - committed, len(known), due, done, due - done, yielded)

    def close(self) -> None:
        self._database.close()

    def _refresh(self) -> None:
        stamps = dict(self._database.execute("select name, stamp from folders"))
        folders = {f"{SHARDS}/{kind}" for (kind,) in self._database.execute("select prompt_type from sums")}
        # Shards stand at shards/FAMILY/NAME: where the upper two are as they were, no folder is new.
        upper = {SHARDS, *(folder.rpartition("/")[0] for folder in folders)}
        now = {name: self.store.stamp(name) for name in (*upper, *folders)}
        if all(now[name] == stamps.get(name, "") for name in upper):
            changed = [folder for folder in folders if now[folder] != stamps.get(folder, "")]
            names = {folder: list(self.store.list(folder)) for folder in changed}
        else:
            now, names = self._look(folders)
        self._follow(names)
        with self._database:
            self._database.executemany("delete from folders where name = ?", ((name,) for name in now))
            self._database.executemany(
                "insert or replace into folders values (?, ?)", ((name, stamp) for name, stamp in now.items() if stamp)
            )

    def _look(self, folders: set[str]) -> tuple[dict[str, str | None], dict[str, list[str]]]:
        """List every shard, by folder, and the stamps of all folders as they were before: what comes later shows next time."""
        while True:
            families = {folder.rpartition("/")[0] for folder in folders}
            now = {name: self.store.stamp(name) for name in (SHARDS, *families, *folders)}
            names: dict[str, list[str]] = {folder: [] for folder in folders}
            for name in self.store.list(SHARDS):
                if name.count("/") == 3:  # what else lies there is no shard
                    names.setdefault(name.rpartition("/")[0], []).append(name)
            if names.keys() <= folders:
                return now, names
            folders = set(names)

    def _follow(self, names: dict[str, list[str]]) -> None:
        """Make the index hold exactly these shards of these folders."""
        new: dict[str, list[str]] = {}
        for folder, shards in names.items():
            prompt_type = folder.removeprefix(f"{SHARDS}/")
            query = "select unit from units where prompt_type = ?"
            known = {unit for (unit,) in self._database.execute(query, (prompt_type,))}
            start = len(folder) + 1
            there = {name[start:].partition(".")[0]: name for name in shards}
            # One that another process just remembered may be younger than the listing: it is there.
            gone = {unit for unit in known - there.keys() if not self.store.exists(f"{folder}/{unit}.jsonl")}
            if gone:
                self._forget(prompt_type, gone)
            new[prompt_type] = [name for unit, name in there.items() if unit not in known]
        count = sum(map(len, new.values()))
        with progress("shards read", count) if count >= SHOWN else contextlib.nullcontext() as bar:
            for prompt_type, shards in new.items():
                listed: _Listed = {}
                for start in range(0, len(shards), BATCH):
                    batch = shards[start : start + BATCH]
                    self._write(prompt_type, [(_unit_of(name), *self._count(name, listed)) for name in batch])
                    if bar:
                        bar.advance(len(batch))

    def _write(self, prompt_type: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Remember some units, and add those that were not known to the sums."""
        marks = ", ?" * len(_COUNTS)
        with self._database:
            for row in rows:
                done = self._database.execute(f"insert or ignore into units values (?, ?{marks})", (prompt_type, *row))
                if done.rowcount:
                    self._database.execute(_ADD, (prompt_type, 1, *row[1:]))

    def _forget(self, prompt_type: str, units: Iterable[str]) -> None:
        query = f"delete from units where prompt_type = ? and unit = ? returning {', '.join(_COUNTS)}"
        with self._database:
            for unit in units:
                for counts in self._database.execute(query, (prompt_type, unit)).fetchall():
                    self._database.execute(_ADD, (prompt_type, -1, *(-count for count in counts)))

    def _mended(self, act: Callable[[], _T]) -> _T:
        """Do it; where the index turns out to be broken, make it anew and do it again."""
        try:
            try:
                return act()
            except sqlite3.OperationalError:  # not broken: it cannot be read or written
                raise
            except sqlite3.DatabaseError:
                self._database.close()
                self._remove()
                self._database = self._open()
                self._refresh()
                return act()
        except sqlite3.DatabaseError as error:
            raise self._failure(error) from error

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connect()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):  # not broken: it cannot be read or written
                raise self._failure(error) from error
        self._remove()
        return self._connect()

    def _remove(self) -> None:
        for path in (self.file, Path(f"{self.file}-wal"), Path(f"{self.file}-shm")):
            path.unlink(missing_ok=True)

    def _connect(self) -> sqlite3.Connection:
        database = self._database_file()
        try:
            database.execute("pragma journal_mode = wal")
            database.execute("pragma synchronous = off")  # a cache: it may be lost, and is made again
            if database.execute("pragma user_version").fetchone()[0] != VERSION:
                database.executescript(f"begin immediate; {_DROP} {_TABLES} pragma user_version = {VERSION}; commit;")
        except BaseException:
            database.close()
            raise
        return database

    def _database_file(self) -> sqlite3.Connection:
        """The index, or a copy of it in memory where nothing can be written: looking is possible there too."""
        if os.access(self.file.parent, os.W_OK):
            return sqlite3.connect(self.file, timeout=30)
        copy = sqlite3.connect(":memory:")
        try:
            with contextlib.closing(sqlite3.connect(f"{self.file.absolute().as_uri()}?immutable=1", uri=True)) as there:
                there.backup(copy)
        except sqlite3.Error:  # there is none, or it is broken
            copy.close()
            copy = sqlite3.connect(":memory:")
        return copy

    def _clear(self) -> None:
        # Not the file: another process may have it open, and would go on with one that is in no folder.
        self._database.executescript(f"begin immediate; {_DROP} {_TABLES} commit;")

    def _failure(self, error: sqlite3.Error) -> Failure:
        return Failure(
            f"the index of committed units cannot be used: {error}",
            where=str(self.file),
            mend="see that the workspace can be written and has room; the index itself may be deleted at any time",
        )

    def _count(self, name: str, listed: _Listed, attempt: str = "") -> tuple[int, ...]:
        """What `Totals` holds of one shard, but for the units. Where no record names its `attempt`, a guess may spare a listing."""
        records, broken = _rows(self.store.get(name).splitlines())
        attempts = {record["attempt"] for record in records} or ({attempt} if attempt else set())
        rejects, unreadable = self._rejects(name, attempts, listed)
        if not (records or rejects or unreadable) and attempt:
            rejects, unreadable = self._rejects(name, set(), listed)
        accepted = {record["item"] for record in records}
        rejected = {reject["item"] for reject in rejects} - accepted
        calls = {(row["item"], row["phase"]): row["usage"] for row in (*records, *rejects)}
        tokens = sum(usage["prompt_tokens"] + usage["completion_tokens"] for usage in calls.values())
        items = len(accepted) + len(rejected)
        return items, len(accepted), len(rejected), len(records), tokens, broken + unreadable

    def _rejects(self, shard: str, attempts: set[str], listed: _Listed) -> tuple[list[dict[str, Any]], int]:
        """The rejects of the attempt that was committed."""

        def files() -> list[str]:
            folder = shard.replace(SHARDS, REJECTS, 1).rpartition("/")[0]
            if folder not in listed:
                listed[folder] = {}
                for name in self.store.list(folder):
                    listed[folder].setdefault(_unit_of(name), []).append(name)
            return listed[folder].get(_unit_of(shard), [])

        return _rows(committed_rejects(self.store, shard, attempts, files))


@contextlib.contextmanager
def open_ledger(store: Store, cache: Path, *, rebuild: bool = False, refresh: bool = True) -> Iterator[Ledger]:
    """The workspace's ledger, refreshed, or made anew; without `refresh`, as whoever works here left it."""
    ledger = Ledger(store, cache / "index.sqlite")
    try:
        if rebuild:
            ledger.clear()
        if refresh:
            ledger.refresh()
        yield ledger
    finally:
        ledger.close()


def remaining(plan: Plan, store: Store, priority: Priority | None = None) -> Iterator[Unit]:
    """Plan minus committed minus paused, at the priorities that hold now. The shards are listed when the first unit is drawn."""
    allowed = plan.under(load_controls(store))
    done = committed(store)
    for unit in allowed.units(priority):
        if unit.id not in done:
            yield unit


def committed(store: Store) -> set[str]:
    """Ids of the units that are committed, as the shards say."""
    return {_unit_of(name) for name in store.list(SHARDS)}


def reconcile(plan: Plan, store: Store, queue: Queue) -> int:
    """Make the queue what plan, shards and controls say. How many units were queued.

    Those are exactly plan - committed - paused - queued - in flight - set aside; what was cancelled or changed its
    priority is taken out first. The caller holds the workspace's lock `plan`. The queue looks at what it holds before it
    draws from `remaining`: a unit acked before that look is committed by then.
    """
    settle(store, queue)
    if plan.cancelled:
        append(store, draft_adoption(plan, committed(store)))
    used = {line.priority for line in plan.under(load_controls(store)).lines}
    return sum(queue.submit(remaining(plan, store, priority), priority) for priority in PRIORITIES if priority in used)


def _unit_of(name: str) -> str:
    return name.rpartition("/")[2].partition(".")[0]


def _rows(lines: list[bytes]) -> tuple[list[dict[str, Any]], int]:
    """The JSON objects of some lines, and how many lines are none."""
    rows, broken = [], 0
    for line in lines:
        with contextlib.suppress(orjson.JSONDecodeError):
            row = orjson.loads(line)
            if isinstance(row, dict) and row.keys() >= {"item", "attempt", "phase", "usage"}:
                rows.append(row)
                continue
        broken += 1
    return rows, broken
