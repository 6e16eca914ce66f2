"""The prompt catalogue: reads and checks `prompts/FAMILY/NAME.md`, and finds types by id or by family.

Guarantees: what loads is whole: keys and values are checked by `PromptType`, every template parses, uses only the
variables it is given, and every field is used. Anything else is one `UsageError` that names file and line.
Cost: about 4 ms a file, once a process; nothing is compiled before it is rendered.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from foundation.errors import UsageError
from foundation.prompt_type import ASK, PromptType
from generator.gates.fields import CHECK_NAMES
from generator.prompt_checks import check_fields, check_options, check_variables
from generator.prompt_file import KEYS, UNTRAINED, PromptFile, Section, nearest, read_file

FOLDER = Path(__file__).resolve().parent.parent / "prompts"
OTHER_FOLDERS = ("judge",)  # prompts that make no records


def load_catalogue(folder: Path | None = None, own: Path | None = None) -> dict[str, PromptType]:
    """Every prompt type of `folder` (default: the project's) and of a workspace's `own`, by id, in the order of their ids.

    One of `own` takes the place of the project's of the same id. Raises `UsageError` naming file and line for the first
    thing that is wrong.
    """
    found = _load((folder or FOLDER).resolve())
    if own is not None and files_of(own):
        found = dict(sorted((found | _load(own.resolve(), _stamps(own))).items()))
    return found


def _stamps(folder: Path) -> tuple[tuple[str, int], ...]:
    """What changes when a file of a workspace does, so that a long-running process reads it anew."""
    return tuple(sorted((str(path), path.stat().st_mtime_ns) for path in folder.glob("*/*.md")))


@functools.lru_cache(maxsize=8)
def _load(folder: Path, stamps: tuple[tuple[str, int], ...] = ()) -> dict[str, PromptType]:
    files = [read_file(path) for path in files_of(folder)]
    if not files:
        raise UsageError("there are no prompt types here", where=str(folder), mend="put files at FAMILY/NAME.md")
    first: dict[Any, PromptFile] = {}
    for file in files:
        id_ = file.values.get("id")
        if id_ is not None and id_ in first:
            other = first[id_]
            raise file.error(
                f"duplicate id {id_!r}",
                file.line_of(["id"]),
                f"it is taken by {other.path}:{other.line_of(['id'])}; give this one its own",
            )
        first[id_] = file
    types = [_prompt_type(file) for file in files]
    return {prompt_type.id: prompt_type for prompt_type in sorted(types, key=lambda prompt_type: prompt_type.id)}


def files_of(folder: Path) -> list[Path]:
    """The prompt files of a folder, in order; a README.md beside them is none."""
    found = sorted(folder.glob("*/*.md"))
    return [path for path in found if path.parent.name not in OTHER_FOLDERS and path.name != "README.md"]


def read_prompt_type(path: Path) -> PromptType:
    """One file. Raises `UsageError` naming file and line for the first thing that is wrong."""
    return _prompt_type(read_file(path))


def select(names: Sequence[str], own: Path | None = None) -> list[PromptType]:
    """The types that `names` (ids or families) stand for, each once, in the order asked for; `own` is a workspace's folder.

    Raises `UsageError` with the nearest names for one that is neither.
    """
    catalogue = load_catalogue(own=own)
    families = sorted({prompt_type.family for prompt_type in catalogue.values()})
    chosen: dict[str, PromptType] = {}
    for name in names:
        found = [prompt_type for prompt_type in catalogue.values() if name in (prompt_type.id, prompt_type.family)]
        if not found:
            near = difflib.get_close_matches(name, [*catalogue, *families], n=3, cutoff=0.4)
            mend = f"did you mean {' or '.join(near)}" if near else f"families here: {', '.join(families)}"
            raise UsageError(f"no such prompt type or family: {name}", mend=f"{mend}; `factory prompts list` shows all")
        chosen |= {prompt_type.id: prompt_type for prompt_type in found}
    return list(chosen.values())


def _prompt_type(file: PromptFile) -> PromptType:
    """Check one file and make it a `PromptType`."""
    for key in file.values:
        if key not in KEYS:
            raise file.error(f"no such key: {key}", file.line_of([key]), nearest(str(key), KEYS))
    try:
        prompt_type = PromptType(**(file.values | _templates(file)))
    except ValidationError as error:
        raise _explain(error, file) from error
    id_ = f"{file.path.parent.name}/{file.path.stem}"
    if prompt_type.id != id_:
        raise file.error(
            f"the id {prompt_type.id!r} does not match the file's path",
            file.line_of(["id"]),
            f"make it {id_}, or move the file",
        )
    for number, check in enumerate(prompt_type.checks):
        if check not in CHECK_NAMES:
            raise file.error(
                f"no such check: {check}", file.line_of(["checks", number]), nearest(check, sorted(CHECK_NAMES))
            )
    check_fields(file, prompt_type)
    check_options(file, prompt_type)
    check_variables(file, prompt_type)
    return prompt_type


def _templates(file: PromptFile) -> dict[str, Any]:
    """`system`, `user`, `turns` and `phases` as the sections have them."""
    named: dict[str, Section] = {}
    turns = []
    for section in file.sections:
        if section.name.startswith("record: "):
            role = section.name.removeprefix("record: ").partition(",")[0]
            turns.append({"role": role, "template": section.text, "trained": section.name != UNTRAINED})
        elif section.name in named:
            raise file.error(f"the section {section.name!r} stands twice", section.line - 1, "keep one of them")
        else:
            named[section.name] = section
    roles = [turn["role"] for turn in turns]
    phases = file.values.get("phases") or {}
    if not isinstance(phases, dict) or not all(isinstance(values, dict) for values in phases.values()):
        raise file.error("phases: not a table of tables", file.line_of(["phases"]), "phases: {extract: {fields: ...}}")
    if ASK in phases:
        raise file.error(
            "a phase called 'ask': so is the last call", file.line_of(["phases", ASK]), "name it otherwise"
        )
    wanted = ["system", "user", *(f"{name}: {part}" for name in phases for part in ("system", "user"))]
    missing = [name for name in wanted if name not in named]
    missing += [f"record: {role}" for role in ("user", "assistant") if role not in roles]
    if missing:
        raise file.error(f"there is no section {missing[0]!r}", 1, f"add a line `# {missing[0]}` and its template")
    if roles[-1] != "assistant" or not turns[-1]["trained"]:
        raise file.error(
            "the record does not end with an assistant's turn that is trained on",
            file.sections[-1].line,
            "add `# record: assistant` at the end",
        )
    return {
        "system": named["system"].text,
        "user": named["user"].text,
        "turns": turns,
        "phases": [
            {"name": name, **values, "system": named[f"{name}: system"].text, "user": named[f"{name}: user"].text}
            for name, values in phases.items()
        ],
    }


def _explain(error: ValidationError, file: PromptFile) -> UsageError:
    first = error.errors()[0]
    keys = [key for key in first["loc"] if key != "[key]"]
    line = file.line_of(keys)
    name = ".".join(str(key) for key in keys)
    if first["type"] == "extra_forbidden":
        return file.error(f"no such key: {name}", line, "take it out, or mend its spelling")
    if first["type"] == "missing":
        return file.error(f"the key {name!r} is missing", line, "add it to the front matter")
    return file.error(f"{name}: {first['msg']}", line, "give it a value of the kind it asks for")
