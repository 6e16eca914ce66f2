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
from foundation.prompt_type import ASK, FieldSpec, PromptType
from generator.gates.fields import CHECK_NAMES
from generator.render import OPTION_VARIABLES, PARTNER_VARIABLES, TEACHER_VARIABLES, environment

FOLDER = Path(__file__).resolve().parent.parent / "prompts"
KEYS = tuple(name for name in PromptType.model_fields if name not in ("v", "system", "user", "turns"))
OTHER_FOLDERS = ("judge",)  # prompts that make no records
UNTRAINED = "record: assistant, untrained"
SECTIONS = ("system", "user", "record: system", "record: user", "record: assistant", UNTRAINED)
_PASSAGE = r"<passage>\s*\{\{\s*passage\s*\}\}\s*</passage>\s*"
_PARTNER = r"<second-passage>\s*\{\{\s*partner\s*\}\}\s*</second-passage>\s*"
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


def load_catalogue(folder: Path | None = None, own: Path | None = None) -> dict[str, PromptType]:
    """Every prompt type of `folder` (default: the project's) and of a workspace's `own`, by id, in the order of their ids.

    One of `own` takes the place of the project's of the same id. Raises `UsageError` naming file and line for the first
    thing that is wrong.
    """
    found = _load((folder or FOLDER).resolve())
    if own is not None and any(own.glob("*/*.md")):
        found = dict(sorted((found | _load(own.resolve(), _stamps(own))).items()))
    return found


def _stamps(folder: Path) -> tuple[tuple[str, int], ...]:
    """What changes when a file of a workspace does, so that a long-running process reads it anew."""
    return tuple(sorted((str(path), path.stat().st_mtime_ns) for path in folder.glob("*/*.md")))


@functools.lru_cache(maxsize=8)
def _load(folder: Path, stamps: tuple[tuple[str, int], ...] = ()) -> dict[str, PromptType]:
    files = [_read(path) for path in files_of(folder)]
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


def files_of(folder: Path) -> list[Path]:
    """The prompt files of a folder, in order."""
    return [path for path in sorted(folder.glob("*/*.md")) if path.parent.name not in OTHER_FOLDERS]


def read_prompt_type(path: Path) -> PromptType:
    """One file. Raises `UsageError` naming file and line for the first thing that is wrong."""
    return _prompt_type(_read(path))


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
    phases = values.get("phases")
    known = (
        *SECTIONS,
        *(
            f"{name}: {part}"
            for name in (phases or () if isinstance(phases, dict) else ())
            for part in ("system", "user")
        ),
    )
    file = _File(path, node, values, tuple(_sections(path, lines, ends[1] + 1, known)))
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


def _sections(path: Path, lines: list[str], start: int, known: Sequence[str]) -> Iterator[_Section]:
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
        if name not in known:
            raise UsageError(
                f"no such section: {name!r}", where=f"{path}:{head + 1}", mend=f"sections are {', '.join(known)}"
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
                f"no such check: {check}", file.line_of(["checks", number]), _known(check, sorted(CHECK_NAMES))
            )
    _check_fields(file, prompt_type)
    _check_options(file, prompt_type)
    _check_variables(file, prompt_type)
    return prompt_type


def _templates(file: _File) -> dict[str, Any]:
    """`system`, `user`, `turns` and `phases` as the sections have them."""
    named: dict[str, _Section] = {}
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


def _check_fields(file: _File, prompt_type: PromptType) -> None:
    """Every choice has values, and no field of a chain has the name of another; `each` is a list of strings."""
    seen: dict[str, FieldSpec] = {}
    for phase in prompt_type.chain:
        keys = ["fields"] if phase.name == ASK else ["phases", phase.name, "fields"]
        for name, spec in phase.fields.items():
            line = file.line_of([*keys, name])
            if name in seen:
                raise file.error(f"the field {name!r} stands in two phases", line, "give one of them another name")
            if (spec.type == "choice") != bool(spec.values):
                raise file.error(
                    f"the field {name!r}: values belong to a choice", line, 'type: choice, values: ["1", "2"]'
                )
            if spec.keys and spec.type != "list":
                raise file.error(
                    f"the field {name!r}: keys belong to a list", line, "type: list, keys: [term, meaning]"
                )
            seen[name] = spec
    each = prompt_type.each
    if each:
        source = prompt_type.phases[-1].fields.get(each) if prompt_type.phases else None
        if source is None or source.type != "list" or source.keys:
            what = f"each: {each!r} is no list of strings of the phase before"
            raise file.error(what, file.line_of(["each"]), "name a list field of the last of `phases`")


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
    if options.right:
        line = file.line_of(["options", "right"])
        if options.right not in prompt_type.fields:
            raise file.error(f"`right`: {options.right!r} is no field", line, _known(options.right, prompt_type.fields))
        numbers = tuple(str(number) for number in range(1, len(options.fields) + 1))
        if prompt_type.fields[options.right].values != numbers:
            mend = f"type: choice, values: [{', '.join(numbers)}], each in quotes"
            raise file.error(f"the field {options.right!r} does not number the options", line, mend)


def _check_variables(file: _File, prompt_type: PromptType) -> None:
    """Every template parses and uses what it may; `user` ends with the delimited passage; no field is written in vain."""
    used = _check_calls(file, prompt_type)
    env = environment()
    source = (*TEACHER_VARIABLES, *(PARTNER_VARIABLES if prompt_type.partner else ()))
    fields = [name for phase in prompt_type.chain for name in phase.fields]
    record = (
        *fields,
        *source,
        *(OPTION_VARIABLES if prompt_type.options else ()),
        *(("each",) if prompt_type.each else ()),
    )
    shown: set[str] = set()
    last = 1
    for section in file.sections:
        if section.name.startswith("record: "):
            shown |= _variables(file, section, env, record)
            last = section.line
    if prompt_type.options:
        if not ("options" in shown or {"first", "second"} <= shown):
            raise file.error(
                "the record never shows the options", last, "use {{ options }}, or {{ first }} and {{ second }}"
            )
        used |= {*prompt_type.options.fields, prompt_type.options.right}
    for phase in prompt_type.chain:
        for name in phase.fields:
            if name not in used | shown:
                raise file.error(
                    f"the field {name!r} is never used in the record",
                    file.line_of(["fields", name]),
                    "use it in a record's turn, or drop it",
                )


def _check_calls(file: _File, prompt_type: PromptType) -> set[str]:
    """The templates of every call to the teacher; the variables they read."""
    env = environment()
    source = (*TEACHER_VARIABLES, *(PARTNER_VARIABLES if prompt_type.partner else ()))
    ending = re.compile(rf"{_PASSAGE}{_PARTNER if prompt_type.partner else ''}\Z")
    sections = {section.name: section for section in file.sections}
    earlier: list[str] = []
    used: set[str] = {prompt_type.each}
    for phase in prompt_type.chain:
        prefix = "" if phase.name == ASK else f"{phase.name}: "
        _variables(file, sections[f"{prefix}system"], env, ())
        section = sections[f"{prefix}user"]
        each = ("each",) if prompt_type.each and phase.name == ASK else ()
        found = _variables(file, section, env, (*source, *earlier, *each))
        for needed in ("passage", *each, *(("partner",) if prompt_type.partner else ())):
            if needed not in found:
                mend = (
                    "end it with <passage>{{ passage }}</passage>" if needed == "passage" else f"use {{{{ {needed} }}}}"
                )
                raise file.error(f"the template never uses the variable {needed!r}", section.line, mend)
        if not ending.search(section.text):
            line = section.line + section.text.count("\n")
            mend = "end with <passage>, {{ passage }}, </passage>"
            if prompt_type.partner:
                mend += ", then <second-passage>, {{ partner }}, </second-passage>"
            raise file.error("the passage is not delimited, or not last", line, mend)
        used |= found
        earlier += phase.fields
    return used


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
