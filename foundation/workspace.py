"""A workspace: a folder with a `factory.toml`, found from the current folder upwards, as git does.

Guarantees: one place for every path below it; `init` never overwrites; one writer at a time per named lock.
Cost: opening one reads only `factory.toml`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.console import say
from foundation.errors import Failure, UsageError
from foundation.store import LocalStore

if TYPE_CHECKING:
    from foundation.settings import Settings

FILE = "factory.toml"
QUIET = 5.0  # seconds a lock is waited for without a word
READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


class Workspace:
    """Paths, settings and store of one workspace."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    @classmethod
    def find(cls, start: Path | None = None) -> Workspace:
        """The workspace of `start` (default: `FACTORY_WORKSPACE`, else the current folder) or of a folder above it."""
        named = os.environ.get("FACTORY_WORKSPACE")
        here = (start or (Path(named) if named else Path.cwd())).resolve()
        for folder in (here, *here.parents):
            if (folder / FILE).is_file():
                found = cls(folder)
                found.settings  # noqa: B018  a wrong setting stops every command, not only the one that reads it
                return found
        raise UsageError(
            "this is not a workspace, nor is any folder above it",
            where=str(here),
            mend="make one with `factory init DIR`, then go into it (or set FACTORY_WORKSPACE)",
        )

    @classmethod
    def init(cls, folder: Path) -> Workspace:
        """Make a new workspace in `folder`. Raises `UsageError` if one is there already."""
        from foundation.settings import template

        if folder.exists() and not folder.is_dir():
            raise UsageError("that is a file, not a folder", where=str(folder), mend="name a folder, or a new one")
        folder.mkdir(parents=True, exist_ok=True)
        if not LocalStore(folder).put_once(FILE, template().encode()):
            raise UsageError(
                "there is a workspace here already", where=str(folder / FILE), mend="edit it, or name another folder"
            )
        return cls(folder)

    @cached_property
    def settings(self) -> Settings:
        from foundation.settings import load

        return load(self.root / FILE)

    @cached_property
    def store(self) -> LocalStore:
        return LocalStore(self.root)

    def check_store(self) -> None:
        """Raises `Failure` if this folder's file system could not keep what is committed: before any of it is paid for."""
        from foundation.reader import REJECTS, SHARDS

        for folder in (SHARDS, REJECTS):
            self.store.probe(folder)

    @property
    def prompts(self) -> Path:
        """The workspace's own prompt types, beside the project's; it need not be there."""
        return self.root / "prompts"

    @property
    def train(self) -> Path:
        """Everything the trainer and the judge make: tokenizer, packs, runs, answers, verdicts."""
        return self.root / "train"

    @property
    def cache(self) -> Path:
        """What can be deleted at any time and is made again."""
        return self._of_this_machine("cache", 0o755)

    @property
    def run(self) -> Path:
        """Sockets and pids of what runs now; readable by this user alone."""
        return self._of_this_machine("run", 0o700)

    @property
    def logs(self) -> Path:
        return self._made("logs")

    def socket(self, name: str) -> Path:
        """A path for a unix socket: in `run/`, or in a private temporary folder where that is too long (107 bytes)."""
        path = self.run / name
        if len(os.fsencode(path)) <= 100:
            return path
        from foundation.ids import stable_id

        folder = Path(tempfile.gettempdir()) / f"qpt-{os.getuid()}-{stable_id(str(self.root))}"
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.stat().st_uid != os.getuid():
            raise Failure(
                "the folder for the socket belongs to someone else",
                where=str(folder),
                mend="use a shorter workspace path",
            )
        return folder / name

    @contextlib.contextmanager
    def lock(self, name: str, *, wait: bool = True) -> Iterator[None]:
        """Hold `name` for this process: released by its death, however it dies. Raises `Failure` if held and not `wait`.

        Waiting has no end, since whoever holds it may be at a long work; after a few seconds one line says for whom.
        """
        with open(self._made("run", 0o700) / f"{name}.lock", "a+", encoding="utf-8") as file:

            def holder() -> str:
                file.seek(0)
                return file.read().strip() or "another process"

            until = time.monotonic() + (QUIET if wait else 0.0)
            while not _locked(file.fileno()):
                if not wait:
                    raise Failure(f"{name} is held by {holder()}", where=str(self.root), mend="wait for it, or end it")
                if time.monotonic() > until:
                    say(f"waiting: the lock on {name} in {self.root} is held by {holder()}")
                    fcntl.flock(file, fcntl.LOCK_EX)
                    break
                time.sleep(0.01)
            file.truncate(0)
            file.write(f"pid {os.getpid()}")
            file.flush()
            yield

    def _of_this_machine(self, name: str, mode: int) -> Path:
        """With a Redis elsewhere several machines may share the workspace: each has a folder of its own then, since another
        machine's pids mean nothing here, and SQLite's index is for one machine."""
        shared = self._made(name, mode)
        remote = self.settings.queue.url.get_secret_value()
        return self._made(f"{name}/{socket.gethostname()}", mode) if remote else shared

    def _made(self, name: str, mode: int = 0o755) -> Path:
        path = self.root / name
        try:
            path.mkdir(mode=mode, parents=True, exist_ok=True)
        except OSError as error:  # looking is possible where writing is not: whoever writes there is told
            if error.errno not in READ_ONLY:
                raise
        return path


def _locked(descriptor: int) -> bool:
    """Take the lock on an open file, if it is free."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
