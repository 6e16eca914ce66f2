"""A workspace: a folder with a `factory.toml`, found from the current folder upwards, as git does.

Guarantees: one place for every path below it; `init` never overwrites; one writer at a time per named lock.
Cost: opening one reads only `factory.toml`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.errors import Failure, UsageError
from foundation.store import LocalStore

if TYPE_CHECKING:
    from foundation.settings import Settings

FILE = "factory.toml"


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

    @property
    def train(self) -> Path:
        """Everything the trainer and the judge make: tokenizer, packs, runs, answers, verdicts."""
        return self.root / "train"

    @property
    def cache(self) -> Path:
        """What can be deleted at any time and is made again."""
        return self._made("cache")

    @property
    def run(self) -> Path:
        """Sockets, pids and locks of what runs now; readable by this user alone."""
        return self._made("run", 0o700)

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
        """Hold `name` for this process: released by its death, however it dies. Raises `Failure` if held and not `wait`."""
        with open(self.run / f"{name}.lock", "a+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError as error:
                file.seek(0)
                holder = file.read().strip() or "another process"
                raise Failure(
                    f"{name} is held by {holder}", where=str(self.root), mend="wait for it, or end it"
                ) from error
            file.truncate(0)
            file.write(f"pid {os.getpid()}")
            file.flush()
            yield

    def _made(self, name: str, mode: int = 0o755) -> Path:
        path = self.root / name
        path.mkdir(mode=mode, parents=True, exist_ok=True)
        return path
