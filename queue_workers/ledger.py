"""The ledger: what is committed, and how many items and records that is.

Guarantees: the shards are the ledger; the SQLite index beside them (`cache/index.sqlite`) only remembers counts, follows
the shards in both directions (new ones are read, vanished ones forgotten), and is made anew when it is missing, broken
or of another version. An item is accepted if it has a record, else rejected if the attempt that was committed rejected it.
Cost: listing the shards (about 1 µs each), and for each new one a read of it and its rejects (3 µs a line).
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from foundation.errors import Failure
from foundation.reader import REJECTS, SHARDS, committed_rejects
from foundation.records import Unit
from queue_workers.plan import Plan
from queue_workers.protocol import PRIORITIES, Priority, Queue

if TYPE_CHECKING:
    from foundation.store import Store

VERSION = 1  # of the index; another one is made anew
_Listed = dict[str, dict[str, list[str]]]  # files of rejects by folder, then by unit
_TABLE = """
create table if not exists units (
    unit text primary key, prompt_type text not null, items integer not null, accepted integer not null,
    rejected integer not null, records integer not null, tokens integer not null, broken integer not null
) without rowid
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


class Ledger:
    """Counts of what is committed in `store`. `refresh()` before asking."""

    def __init__(self, store: Store, file: Path) -> None:
        self.store, self.file = store, file
        self._database = self._open()

    def refresh(self) -> None:
        """Follow the shards: read the new ones, forget those that are gone."""
        names = {_unit_of(name): name for name in self.store.list(SHARDS)}
        known = {unit for (unit,) in self._database.execute("select unit from units")}
        gone = known - names.keys()
        with self._database:
            self._database.executemany("delete from units where unit = ?", ((unit,) for unit in gone))
        new = [name for unit, name in names.items() if unit not in known]
        if new:
            self._read(new)

    def add(self, unit: Unit) -> Totals:
        """Read one unit that was just committed; its counts."""
        self._read([unit.shard])
        return self._totals("where unit = ?", unit.id)

    def totals(self) -> Totals:
        return self._totals("")

    def by_prompt_type(self) -> dict[str, Totals]:
        columns = ", ".join(f"sum({name})" for name in Totals.__slots__[1:])
        rows = self._database.execute(f"select prompt_type, count(*), {columns} from units group by 1 order by 1")
        return {prompt_type: Totals(*counts) for prompt_type, *counts in rows}

    def _totals(self, where: str, *values: str) -> Totals:
        columns = ", ".join(f"coalesce(sum({name}), 0)" for name in Totals.__slots__[1:])
        return Totals(*self._database.execute(f"select count(*), {columns} from units {where}", values).fetchone())

    def close(self) -> None:
        self._database.close()

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connect()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):  # not broken: it cannot be read or written
                raise self._failure(error) from error
        for path in (self.file, Path(f"{self.file}-wal"), Path(f"{self.file}-shm")):
            path.unlink(missing_ok=True)
        return self._connect()

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(self.file, timeout=30)
        try:
            database.execute("pragma journal_mode = wal")
            database.execute("pragma synchronous = off")  # a cache: it may be lost, and is made again
            if database.execute("pragma user_version").fetchone()[0] != VERSION:
                database.execute("drop table if exists units")
                database.execute(f"pragma user_version = {VERSION}")
            database.execute(_TABLE)
        except BaseException:
            database.close()
            raise
        return database

    def _failure(self, error: sqlite3.Error) -> Failure:
        return Failure(
            f"the index of committed units cannot be used: {error}",
            where=str(self.file),
            mend="see that the workspace can be written and has room; the index itself may be deleted at any time",
        )

    def _read(self, shards: Iterable[str]) -> None:
        listed: _Listed = {}
        rows = (self._count(name, listed) for name in shards)
        try:
            with self._database:
                self._database.executemany("insert or replace into units values (?, ?, ?, ?, ?, ?, ?, ?)", rows)
        except sqlite3.OperationalError as error:
            raise self._failure(error) from error

    def _count(self, name: str, listed: _Listed) -> tuple[str | int, ...]:
        records, broken = _rows(self.store.get(name).splitlines())
        rejects, unreadable = self._rejects(name, {record["attempt"] for record in records}, listed)
        accepted = {record["item"] for record in records}
        rejected = {reject["item"] for reject in rejects} - accepted
        calls = {(row["item"], row["phase"]): row["usage"] for row in (*records, *rejects)}
        tokens = sum(usage["prompt_tokens"] + usage["completion_tokens"] for usage in calls.values())
        prompt_type = name.removeprefix(f"{SHARDS}/").rpartition("/")[0]
        counts = (
            len(accepted) + len(rejected),
            len(accepted),
            len(rejected),
            len(records),
            tokens,
            broken + unreadable,
        )
        return _unit_of(name), prompt_type, *counts

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
def open_ledger(store: Store, cache: Path) -> Iterator[Ledger]:
    """The workspace's ledger, refreshed."""
    ledger = Ledger(store, cache / "index.sqlite")
    try:
        ledger.refresh()
        yield ledger
    finally:
        ledger.close()


def remaining(plan: Plan, store: Store, priority: Priority | None = None) -> Iterator[Unit]:
    """Plan minus committed. The shards are listed when the first unit is drawn, not before."""
    committed = {_unit_of(name) for name in store.list(SHARDS)}
    for unit in plan.units(priority):
        if unit.id not in committed:
            yield unit


def reconcile(plan: Plan, store: Store, queue: Queue) -> int:
    """Queue exactly plan - committed - queued - in flight - set aside. How many that were.

    The queue looks at what it holds before it draws from `remaining`: a unit acked before that look is committed by then.
    """
    used = {line.priority for line in plan.lines}
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
