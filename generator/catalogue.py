"""The prompt catalogue: reads and checks `prompts/FAMILY/NAME.md`, and finds types by id or by family.

Guarantees: what loads is whole: keys and values are checked by `PromptType`, every template parses, uses only the
variables it is given, and every field reaches the record. Anything else is one `UsageError` that names file and line.
Cost: about 3 ms a file, once a process; nothing is compiled before it is rendered.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jinja2 import TemplateSyntaxError, meta, nodes
from jinja2.sandbox import SandboxedEnvironment
from pydantic import ValidationError

from foundation.errors import UsageError
from foundation.prompt_type import PromptType
from generator.gates.fields import CHECKS
from generator.render import OPTION_VARIABLES, TEACHER_VARIABLES, environment

FOLDER = Path(__file__).resolve().parent.parent / "prompts"
KEYS = tuple(name for name in PromptType.model_fields if name not in ("v", "system", "user", "turns"))
OTHER_FOLDERS = ("judge",)  # prompts that make no records
SECTIONS = ("system", "user", "record: system", "record: user", "record: assistant")
DELIMITED = re.compile(r"<passage>\s*\{\{\s*passage\s*\}\}\s*</passage>\s*\Z")
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class _Section:
    name: str
    text: str
    line: int
    """The file's line of the first line of `text`, counted from 1."""


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    front: yaml.MappingNode
    values: dict[str, Any]
    sections: tuple[_Section, ...]

    def line_of(self, keys: Sequence[Any]) -> int:
        """Line of a key of the front matter, or of the nearest thing around it that is there."""
        node: yaml.Node = self.front
        line = 1
        for key in keys:
            if isinstance(node, yaml.MappingNode):
                found = next((pair for pair in node.value if pair[0].value == str(key)), None)
                if found is None:
                    break
                line, node = found[0].start_mark.line + 2, found[1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
                node = node.value[key]
                line = node.start_mark.line + 2
            else:
                break
        return line

    def error(self, what: str, line: int, mend: str) -> UsageError:
        return UsageError(what, where=f"{self.path}:{line}", mend=mend)


def load_catalogue(folder: Path | None = None) -> dict[str, PromptType]:
    """Every prompt type of `folder` (default: the project's own), by id, in the order of their ids.

    Raises `UsageError` naming file and line for the first thing that is wrong.
    """
    return _load((folder or FOLDER).resolve())


@functools.lru_cache(maxsize=8)
def _load(folder: Path) -> dict[str, PromptType]:
    files = [_read(path) for path in sorted(folder.glob("*/*.md")) if path.parent.name not in OTHER_FOLDERS]
    if not files:
        raise UsageError("there are no prompt types here", where=str(folder), mend="put files at FAMILY/NAME.md")
    first: dict[Any, _File] = {}
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


def select(names: Sequence[str], folder: Path | None = None) -> list[PromptType]:
    """The types that `names` (ids or families) stand for, each once, in the order asked for.

    Raises `UsageError` with the nearest names for one that is neither.
    """
    catalogue = load_catalogue(folder)
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


def _read(path: Path) -> _File:
    """Split a file into its front matter, still with line marks, and its sections."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UsageError("a prompt file is not UTF-8", where=f"{path}:1", mend=str(error)) from error
    ends = [number for number, line in enumerate(lines) if line.rstrip() == "---"]
    if len(ends) < 2 or ends[0] != 0:
        raise UsageError(
            "a prompt file begins with front matter between two lines of ---",
            where=f"{path}:1",
            mend="see any file of prompts/",
        )
    try:
        node = yaml.compose("\n".join(lines[1 : ends[1]]), Loader=_Loader)
        values = yaml.load("\n".join(lines[1 : ends[1]]), Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        what = f"the front matter is not YAML: {getattr(error, 'problem', None) or error}"
        raise UsageError(what, where=f"{path}:{mark.line + 2 if mark else 1}", mend="mend the line it names") from error
    if not isinstance(node, yaml.MappingNode):
        raise UsageError("the front matter holds no keys", where=f"{path}:2", mend=f"give it {', '.join(KEYS)}")
    file = _File(path, node, values, tuple(_sections(path, lines, ends[1] + 1)))
    _refuse_repeated_keys(file, node)
    return file


def _refuse_repeated_keys(file: _File, node: yaml.Node) -> None:
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[str] = set()
    for key, value in node.value:
        if key.value in seen:
            raise file.error(f"the key {key.value!r} stands twice", key.start_mark.line + 2, "keep one of them")
        seen.add(key.value)
        _refuse_repeated_keys(file, value)


def _sections(path: Path, lines: list[str], start: int) -> Iterator[_Section]:
    heads = [number for number in range(start, len(lines)) if lines[number].startswith("# ")]
    for number in range(start, heads[0] if heads else len(lines)):
        if lines[number].strip():
            raise UsageError(
                "text before the first heading",
                where=f"{path}:{number + 1}",
                mend="put it below `# system` or `# user`",
            )
    for head, end in zip(heads, [*heads[1:], len(lines)], strict=True):
        name = lines[head][2:].strip()
        if name not in SECTIONS:
            raise UsageError(
                f"no such section: {name!r}", where=f"{path}:{head + 1}", mend=f"sections are {', '.join(SECTIONS)}"
            )
        first = head + 1
        while first < end and not lines[first].strip():
            first += 1
        text = "\n".join(lines[first:end]).rstrip()
        if not text:
            raise UsageError(
                f"the section {name!r} is empty",
                where=f"{path}:{head + 1}",
                mend="write its template below the heading",
            )
        yield _Section(name, text, first + 1)


def _prompt_type(file: _File) -> PromptType:
    """Check one file and make it a `PromptType`."""
    for key in file.values:
        if key not in KEYS:
            raise file.error(f"no such key: {key}", file.line_of([key]), _known(str(key), KEYS))
    try:
        prompt_type = PromptType(**file.values, **_templates(file))
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
        if check not in CHECKS:
            raise file.error(f"no such check: {check}", file.line_of(["checks", number]), _known(check, CHECKS))
    _check_options(file, prompt_type)
    _check_variables(file, prompt_type)
    return prompt_type


def _templates(file: _File) -> dict[str, Any]:
    named: dict[str, _Section] = {}
    turns = []
    for section in file.sections:
        if section.name.startswith("record: "):
            turns.append({"role": section.name.removeprefix("record: "), "template": section.text})
        elif section.name in named:
            raise file.error(f"the section {section.name!r} stands twice", section.line - 1, "keep one of them")
        else:
            named[section.name] = section
    roles = [turn["role"] for turn in turns]
    missing = [name for name in ("system", "user") if name not in named]
    missing += [f"record: {role}" for role in ("user", "assistant") if role not in roles]
    if missing:
        raise file.error(f"there is no section {missing[0]!r}", 1, f"add a line `# {missing[0]}` and its template")
    if roles[-1] != "assistant":
        raise file.error(
            "the record does not end with an assistant's turn",
            file.sections[-1].line,
            "add `# record: assistant` at the end",
        )
    return {"system": named["system"].text, "user": named["user"].text, "turns": turns}


def _explain(error: ValidationError, file: _File) -> UsageError:
    first = error.errors()[0]
    keys = [key for key in first["loc"] if key != "[key]"]
    line = file.line_of(keys)
    name = ".".join(str(key) for key in keys)
    if first["type"] == "extra_forbidden":
        return file.error(f"no such key: {name}", line, "take it out, or mend its spelling")
    if first["type"] == "missing":
        return file.error(f"the key {name!r} is missing", line, "add it to the front matter")
    return file.error(f"{name}: {first['msg']}", line, "give it a value of the kind it asks for")


def _check_options(file: _File, prompt_type: PromptType) -> None:
    options = prompt_type.options
    if options is None:
        return
    for number, name in enumerate(options.fields):
        line = file.line_of(["options", "fields", number])
        if name not in prompt_type.fields:
            raise file.error(f"the option {name!r} is no field", line, _known(name, prompt_type.fields))
        if prompt_type.fields[name].type != "string":
            raise file.error(f"the option {name!r} is not a string", line, "an option is one string")
    if options.order == "both" and len(options.fields) != 2:
        raise file.error(
            "`both` orderings need exactly two options",
            file.line_of(["options", "order"]),
            "use `shuffled`, or two options",
        )


def _check_variables(file: _File, prompt_type: PromptType) -> None:
    """Every template parses and uses what it may; `user` ends with the delimited passage; no field is written in vain."""
    env = environment()
    record = (*prompt_type.fields, *TEACHER_VARIABLES, *(OPTION_VARIABLES if prompt_type.options else ()))
    used: set[str] = set()
    last = 1
    for section in file.sections:
        if section.name == "system":
            _variables(file, section, env, ())
        elif section.name == "user":
            if "passage" not in _variables(file, section, env, TEACHER_VARIABLES):
                raise file.error(
                    "the template never uses the variable 'passage'",
                    section.line,
                    "end it with <passage>{{ passage }}</passage>",
                )
            if not DELIMITED.search(section.text):
                line = section.line + section.text.count("\n")
                raise file.error(
                    "the passage is not delimited, or not last", line, "end with <passage>, {{ passage }}, </passage>"
                )
        else:
            used |= _variables(file, section, env, record)
            last = section.line
    if prompt_type.options:
        if not ("options" in used or {"first", "second"} <= used):
            raise file.error(
                "the record never shows the options", last, "use {{ options }}, or {{ first }} and {{ second }}"
            )
        used |= set(prompt_type.options.fields)
    for name in prompt_type.fields:
        if name not in used:
            raise file.error(
                f"the field {name!r} is never used in the record",
                file.line_of(["fields", name]),
                "use it in a record's turn, or drop it",
            )


def _variables(file: _File, section: _Section, env: SandboxedEnvironment, allowed: Sequence[str]) -> set[str]:
    """The variables a template reads. Raises `UsageError` at the line of the first that it may not."""
    try:
        tree = env.parse(section.text)
    except TemplateSyntaxError as error:
        raise file.error(
            f"the template is wrong: {error.message}", section.line + error.lineno - 1, "mend the line it names"
        ) from error
    for node in tree.find_all((nodes.Filter, nodes.Test, nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)):
        name = getattr(node, "name", None)
        known = env.filters if isinstance(node, nodes.Filter) else env.tests if isinstance(node, nodes.Test) else {}
        if name not in known:
            kind = type(node).__name__.lower()
            raise file.error(
                f"the template uses an unknown {kind} {name or ''}".rstrip(),
                section.line + node.lineno - 1,
                "a template stands alone",
            )
    found = meta.find_undeclared_variables(tree)
    for unknown in sorted(found - set(allowed)):
        node = next(node for node in tree.find_all(nodes.Name) if node.name == unknown)
        raise file.error(
            f"unknown variable {unknown!r} in `{section.name}`",
            section.line + node.lineno - 1,
            _known(unknown, allowed),
        )
    return found


def _known(name: str, known: Any) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    listed = f"known here: {', '.join(known) or 'none'}"
    return f"did you mean {near[0]}? {listed}" if near else listed
