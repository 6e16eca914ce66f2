"""`factory prompts lint`: every problem of every prompt file, of the project's and of a workspace's own, with its line.

Guarantees: a file that does not load shows its first problem alone, and hides nothing of the others; errors are told from
warnings; nothing is written but by `record`, which only adds to the lock. Versions are held against the lock, and in a
workspace against what was planned there too.
Cost: about 6 ms a file, a third of a second for the whole catalogue.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from foundation.errors import UsageError
from foundation.prompt_type import PromptType
from generator import version_lock
from generator.catalogue import FOLDER, files_of, read_prompt_type
from generator.lint_checks import Finding, check_type
from generator.prompt_file import PromptFile, read_file

GOLDEN = FOLDER.parent / "tests" / "golden"  # in a source checkout alone


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, where, and what to do about it."""

    file: Path
    line: int
    id: str
    code: str
    what: str
    mend: str
    warning: bool = False

    def document(self) -> dict[str, object]:
        level = "warning" if self.warning else "error"
        shared = {"id": self.id, "code": self.code, "what": self.what, "mend": self.mend}
        return {"level": level, "file": str(self.file), "line": self.line, **shared}


@dataclass(slots=True)
class Report:
    """What was looked at. `sound` are the types without an error, by folder."""

    files: int = 0
    problems: list[Problem] = field(default_factory=list)
    sound: dict[Path, list[PromptType]] = field(default_factory=dict)

    @property
    def errors(self) -> list[Problem]:
        return [problem for problem in self.problems if not problem.warning]


def lint(names: Sequence[str] = (), own: Path | None = None, planned: Iterable[PromptType] = ()) -> Report:
    """Check the files that `names` stand for (ids, families, files, folders), or all of the project's and of `own`.

    `planned` are the types as the workspace of `own` planned them. Raises `UsageError` for a name that stands for nothing.
    """
    folders = [FOLDER, *([own] if own is not None and own.is_dir() and own.resolve() != FOLDER else [])]
    chosen = _chosen(names, folders)
    report = Report()
    for folder, wanted in chosen.items():
        lock = version_lock.read_lock(folder)
        before = {id_: dict(marks) for id_, marks in lock.items()}
        for one in planned if folder == own else ():
            before.setdefault(one.id, {}).setdefault(one.version, one.fingerprint)
        for path in wanted.files:
            report.files += 1
            _check_file(report, path, folder, lock, before)
        report.problems += _vanished(folder, lock, wanted.ids)
    return report


def record(report: Report) -> list[PromptType]:
    """Put the versions of the sound types that the locks do not have yet into them. Returns those types."""
    return [one for folder, types in report.sound.items() for one in version_lock.add_to_lock(folder, types)]


@dataclass(slots=True)
class _Wanted:
    """What was asked for in one folder: files, and ids that may be gone; `None` stands for all of them."""

    files: list[Path] = field(default_factory=list)
    ids: set[str] | None = field(default_factory=set)


def _chosen(names: Sequence[str], folders: Sequence[Path]) -> dict[Path, _Wanted]:
    if not names:
        return {folder: _Wanted(files_of(folder), None) for folder in folders}
    chosen: dict[Path, _Wanted] = {}
    for name in names:
        path = Path(name)
        if path.is_dir() and files_of(path):
            chosen[path.resolve()] = _Wanted(files_of(path.resolve()), None)
        elif path.suffix == ".md" and path.is_file():
            file = path.resolve()
            _add(chosen, file.parent.parent, file)
        else:
            _by_name(chosen, name, folders)
    return chosen


def _by_name(chosen: dict[Path, _Wanted], name: str, folders: Sequence[Path]) -> None:
    known: set[str] = set()
    found = False
    for folder in folders:
        files = {id_of(path): path for path in files_of(folder)}
        ids = {*files, *version_lock.read_lock(folder)}
        known |= ids | {id_.partition("/")[0] for id_ in ids}
        for id_ in sorted(ids):
            if name in (id_, id_.partition("/")[0]):
                found = True
                _add(chosen, folder, files.get(id_), id_)
    if not found:
        near = difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.4)
        mend = f"did you mean {' or '.join(near)}" if near else "`factory prompts list` shows all"
        raise UsageError(f"no such prompt type, family or file: {name}", mend=mend)


def _add(chosen: dict[Path, _Wanted], folder: Path, file: Path | None, id_: str = "") -> None:
    wanted = chosen.setdefault(folder, _Wanted())
    if file is not None and file not in wanted.files:
        wanted.files.append(file)
    if wanted.ids is not None and id_:
        wanted.ids.add(id_)


def id_of(path: Path) -> str:
    """The id that a file must have by its path."""
    return f"{path.parent.name}/{path.stem}"


def _check_file(report: Report, path: Path, folder: Path, lock: version_lock.Lock, before: version_lock.Lock) -> None:
    id_ = id_of(path)
    try:
        prompt_type = read_prompt_type(path)
    except UsageError as error:
        line = error.where.rpartition(":")[2]
        number = int(line) if line.isdigit() else 1
        report.problems.append(Problem(path, number, id_, "load", error.what, error.mend))
        return
    file = read_file(path)
    found = [*check_type(prompt_type), *_version(prompt_type, lock, before)]
    if folder == FOLDER and GOLDEN.is_dir() and not (GOLDEN / f"{id_}.json").is_file():
        mend = f"write {GOLDEN.name}/{id_}.json; tests/support/golden.py says how"
        found.append(Finding("golden", "there is no golden example of it", mend, ("id",)))
    problems = [Problem(path, _line(file, one), id_, one.code, one.what, one.mend, one.warning) for one in found]
    report.problems += sorted(problems, key=lambda problem: problem.line)
    if all(problem.warning for problem in problems):
        report.sound.setdefault(folder, []).append(prompt_type)


def _version(prompt_type: PromptType, lock: version_lock.Lock, before: version_lock.Lock) -> Iterator[Finding]:
    fault = version_lock.fault(before, prompt_type)
    if fault:
        yield Finding(*fault, keys=("version",))
    elif prompt_type.version not in lock.get(prompt_type.id, {}):
        what = f"version {prompt_type.version} is not in {version_lock.FILE} yet: a later change would go unseen"
        mend = "when it is as it shall be: `factory prompts lint --write`"
        yield Finding("not-recorded", what, mend, ("version",), warning=True)


def _vanished(folder: Path, lock: version_lock.Lock, ids: set[str] | None) -> Iterator[Problem]:
    """Types of the lock that have no file any more. One of a workspace's may give way to the project's again."""
    for id_ in lock:
        if folder != FOLDER and (FOLDER / f"{id_}.md").is_file():
            continue
        if (ids is None or id_ in ids) and not (folder / f"{id_}.md").is_file():
            mend = f"put {id_}.md back; if it shall go for good, take its line out of {version_lock.FILE}"
            line = version_lock.line_in_lock(folder, id_)
            what = f"the prompt type {id_} is gone"
            yield Problem(folder / version_lock.FILE, line, id_, "vanished", what, mend)


def _line(file: PromptFile, finding: Finding) -> int:
    """The line that a finding is about: where its section's text begins, or its key in the front matter."""
    if not finding.section:
        return file.line_of(finding.keys)
    return [section.line for section in file.sections if section.name == finding.section][finding.nth]
