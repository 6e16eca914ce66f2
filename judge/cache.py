"""Verdicts that were made once: one SQLite file a workspace, by the fingerprint of all that can change a verdict.

Guarantees: a verdict is in the file when `put` returns, so a judge killed by any signal loses none; a machine that loses
its power loses at most the last `SYNC` seconds. Any number of judges may use the file at once. A file that is damaged,
or another program's, is refused and left as it is. To forget all verdicts, delete the file (and those with -wal and -shm
behind its name) while no judge runs: they are asked for again, and nothing else is lost.
Cost: 36 µs of CPU a verdict kept, 5 µs one looked up. Grows by the explanation and 230 bytes a verdict: 0.3 KB of the rules
grader's, 0.5 to 2 KB of a language model's, so 1 to 2 MB for a round of 600 questions. Nothing is ever dropped from it.
Misses: two machines that share the workspace over a network file system; SQLite's log of writes is for one machine.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from foundation.errors import Failure
from foundation.records import Verdict

FILE = "verdicts.sqlite"
SYNC = 5.0  # seconds between two fsyncs
PATIENCE = 30.0  # seconds a judge waits for another one that writes
APPLICATION = 0x51505456  # "QPTV": what tells this file from another program's
VERSION = 1
_TABLE = "create table verdicts (fingerprint text primary key, verdict text not null)"


class Cache:
    """An open cache. `open_cache` makes one."""

    def __init__(self, path: Path, database: sqlite3.Connection) -> None:
        self.path = path
        self._database = database
        self._synced = time.monotonic()

    def find(self, fingerprints: Iterable[str]) -> dict[str, Verdict]:
        """Those of the verdicts that are known. Raises `Failure` if the file cannot be read."""
        found = {}
        with _told(self.path):
            for fingerprint in fingerprints:
                row = self._database.execute(
                    "select verdict from verdicts where fingerprint = ?", (fingerprint,)
                ).fetchone()
                if row:
                    found[fingerprint] = _verdict(self.path, row[0])
        return found

    def put(self, verdict: Verdict) -> None:
        """Keep one. Raises `Failure` if it cannot be written."""
        with _told(self.path):
            self._database.execute(
                "insert or replace into verdicts values (?, ?)", (verdict.fingerprint, verdict.model_dump_json())
            )
            if time.monotonic() - self._synced > SYNC:
                self._database.execute("pragma wal_checkpoint(passive)").fetchall()
                self._synced = time.monotonic()


@contextlib.contextmanager
def open_cache(folder: Path) -> Iterator[Cache]:
    """The cache of a workspace's `train` folder; made if there is none. Raises `Failure` if it cannot be used."""
    path = folder / FILE
    folder.mkdir(parents=True, exist_ok=True)
    with _told(path), contextlib.closing(_connect(path)) as database:
        yield Cache(path, database)


def cache_files(folder: Path) -> set[Path]:
    """Where the cache of a workspace's `train` folder is, with SQLite's own files beside it, there or not."""
    return {(folder / f"{FILE}{end}").resolve() for end in ("", "-wal", "-shm", "-journal")}


def known(folder: Path, fingerprints: Iterable[str]) -> dict[str, Verdict]:
    """Those of the verdicts that are known; nothing is made where there is no cache yet, or nothing can be written."""
    path = folder / FILE
    if not path.exists():
        return {}
    if os.access(folder, os.W_OK) and os.access(path, os.W_OK):
        with open_cache(folder) as cache:
            return cache.find(fingerprints)
    with _told(path), contextlib.closing(_read_only(path)) as database:
        return {} if _empty(path, database) else Cache(path, database).find(fingerprints)


def _read_only(path: Path) -> sqlite3.Connection:
    # SQLite cannot read a log of writes without a file of its own beside it; without a log it must be told there is none.
    path = path.resolve()
    log = path.with_name(f"{path.name}-wal")
    how = "" if log.exists() and log.stat().st_size else "&immutable=1"
    return sqlite3.connect(f"{path.as_uri()}?mode=ro{how}", uri=True, timeout=PATIENCE, isolation_level=None)


def _connect(path: Path) -> sqlite3.Connection:
    # Every statement is a transaction of its own: what is put is kept, and no judge waits for another one's.
    database = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None)
    try:
        database.execute("begin")
        _empty(path, database)  # before anything is changed in a file that may be another program's
        database.execute("commit")
        _wal(database)
        database.execute("pragma synchronous = normal")
        database.execute("begin immediate")  # of two judges that find no table, one makes it
        if _empty(path, database):
            database.execute(f"pragma application_id = {APPLICATION}")
            database.execute(f"pragma user_version = {VERSION}")
            database.execute(_TABLE)
        database.execute("commit")
    except BaseException:
        database.close()
        raise
    return database


def _empty(path: Path, database: sqlite3.Connection) -> bool:
    """Whether the file is new, within a transaction. Raises `Failure` if it is neither that nor a cache of verdicts."""
    marks = tuple(database.execute(f"pragma {name}").fetchone()[0] for name in ("application_id", "user_version"))
    if marks == (APPLICATION, VERSION):
        return False
    if any(marks) or database.execute("select count(*) from sqlite_master").fetchone()[0]:
        raise _unusable(path, "it is a database, but not this version's cache of verdicts")
    return True


def _wal(database: sqlite3.Connection) -> None:
    """Turn the log of writes on. SQLite does not wait where two try at once, so this does."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            database.execute("pragma journal_mode = wal").fetchone()
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(0.05)


def _verdict(path: Path, text: str) -> Verdict:
    try:
        return Verdict.model_validate_json(text)
    except ValueError as error:
        raise _unusable(path, "it holds something that is no verdict") from error


def _unusable(path: Path, why: str) -> Failure:
    return Failure(
        f"the cache of verdicts cannot be used: {why}",
        where=str(path),
        mend="move that file away, or delete it: its verdicts are asked for again, nothing else is lost",
    )


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """SQLite's refusals as messages that a user can act on."""
    try:
        yield
    except sqlite3.Error as error:
        raise _failure(path, error) from error


def _failure(path: Path, error: sqlite3.Error) -> Failure:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return Failure(
            "the disk is full; the verdicts made so far are kept",
            where=str(path),
            mend="free some space, then run the same command again: it goes on where it stopped",
        )
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return Failure(
            f"the cache of verdicts cannot be written: {error}",
            where=str(path),
            mend="see that the workspace can be written; what was judged before is untouched",
        )
    if code == sqlite3.SQLITE_BUSY:
        return Failure(
            f"another process has held the cache of verdicts for {PATIENCE:.0f} s",
            where=str(path),
            mend="end it, or wait for it, then run the same command again: it goes on where it stopped",
        )
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return _unusable(path, f"it is damaged, or no such file at all ({error})")
    return Failure(
        f"the cache of verdicts cannot be used: {error}",
        where=str(path),
        mend="look at the disk (`dmesg`), then run the same command again: it goes on where it stopped",
    )
