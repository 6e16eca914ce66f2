"""The lock of a folder of prompt files: which version of which type had which fingerprint, in `versions.json` beside them.

Guarantees: an entry that is there is never changed here, only new ones are added; the file is put whole or not at all.
It is what tells a template that changed from one whose version was raised. Cost: one small file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from foundation.errors import UsageError
from foundation.prompt_type import PromptType
from foundation.store import replace_file

FILE = "versions.json"
Lock = dict[str, dict[int, str]]
"""By id, then by version: the fingerprint."""


def read_lock(folder: Path) -> Lock:
    """The lock of a folder; empty if there is none. Raises `UsageError` for a file that is no lock."""
    path = folder / FILE
    try:
        found = json.loads(path.read_text("utf-8"))
        return {id_: {int(version): str(mark) for version, mark in marks.items()} for id_, marks in found.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, AttributeError) as error:
        what = f"the lock of the prompt types cannot be read: {error}"
        raise UsageError(what, where=str(path), mend='it holds {"FAMILY/NAME": {"1": "fingerprint"}}') from error


def add_to_lock(folder: Path, prompt_types: Iterable[PromptType]) -> list[PromptType]:
    """Record the versions that the lock does not have. Returns those that were recorded."""
    lock = read_lock(folder)
    new = [one for one in prompt_types if one.version not in lock.get(one.id, {})]
    for one in new:
        lock.setdefault(one.id, {})[one.version] = one.fingerprint
    if new:
        text = json.dumps({id_: dict(sorted(lock[id_].items())) for id_ in sorted(lock)}, indent=1)
        replace_file(folder / FILE, text.encode() + b"\n")
    return new


def line_in_lock(folder: Path, id_: str) -> int:
    """The line of the lock where a type stands."""
    lines = (folder / FILE).read_text("utf-8").splitlines()
    return next((number for number, line in enumerate(lines, 1) if f'"{id_}"' in line), 1)


def fault(lock: Lock, prompt_type: PromptType) -> tuple[str, str, str] | None:
    """What is wrong with a type's version: a code, what it is, and the mend."""
    marks = lock.get(prompt_type.id)
    version = prompt_type.version
    if not marks:
        return None
    last = max(marks)
    if version < last:
        return "version-lowered", f"the version went down from {last} to {version}", f"make it {last + 1}"
    if version > last + 1:
        return "version-skipped", f"the version went up from {last} to {version}", f"make it {last + 1}"
    if marks.get(version, prompt_type.fingerprint) != prompt_type.fingerprint:
        what = f"it changed, and is still version {version}"
        return "changed", what, f"raise `version` to {version + 1}, or put back what version {version} was"
    return None
