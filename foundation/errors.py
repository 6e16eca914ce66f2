"""The two ways a command ends badly, each with one message a user can act on.

Guarantees: every error that reaches a user says what happened, where, and the mend; exit 2 for wrong use (`UsageError`),
1 for failure (`Failure`). Cost: standard library only, so raising one never drags a heavy import in.
"""

from __future__ import annotations

import errno


class FactoryError(Exception):
    """Base of both. `what` happened, `where` (file, line, URL, id), and the `mend` the user can apply."""

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", mend: str = "") -> None:
        super().__init__(what)
        self.what, self.where, self.mend = what, where, mend

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.mend:
            lines.append(f"  mend:  {self.mend}")
        return "\n".join(lines)


class UsageError(FactoryError):
    """The command, its arguments or its configuration are wrong. Exit 2."""

    exit_code = 2


class Failure(FactoryError):
    """The command was right, but something it needs failed. Exit 1."""

    exit_code = 1


class Unavailable(Failure):
    """A server that is not there now and may come back: worth waiting for, and nobody's fault but its own."""


def from_os_error(error: OSError) -> Failure:
    """Turn the operating system's refusals that a user can mend into one clear `Failure`."""
    where = str(error.filename or "")
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return Failure(
            "the disk is full; nothing was half-written, and what was committed is safe",
            where=where,
            mend="free some space, then run the same command again: it goes on where it stopped",
        )
    if error.errno == errno.EROFS:
        return Failure(
            "this file system is mounted read-only: nothing was written",
            where=where,
            mend="mount it for writing (`mount -o remount,rw`; after an error, look at `dmesg`), or work on a copy elsewhere",
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return Failure(
            f"not allowed to write or read: {error.strerror}", where=where, mend="check the owner and mode of that path"
        )
    return Failure(
        f"the operating system refused: {error.strerror or error}", where=where, mend="see --debug for the traceback"
    )
