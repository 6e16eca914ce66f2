"""One prompt file as it stands on disk: front matter with the line of each key, and its sections.

Guarantees: what cannot be read is one `UsageError` that names file and line. Knows nothing of what the keys mean.
Cost: about 3 ms a file, nearly all of it YAML.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from foundation.errors import UsageError
from foundation.prompt_type import PromptType

KEYS = tuple(name for name in PromptType.model_fields if name not in ("v", "system", "user", "turns"))
UNTRAINED = "record: assistant, untrained"
SECTIONS = ("system", "user", "record: system", "record: user", "record: assistant", UNTRAINED)
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class Section:
    name: str
    text: str
    line: int
    """The file's line of the first line of `text`, counted from 1."""


@dataclass(frozen=True, slots=True)
class PromptFile:
    path: Path
    front: yaml.MappingNode
    values: dict[str, Any]
    sections: tuple[Section, ...]

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


def read_file(path: Path) -> PromptFile:
    """Split a file into its front matter, still with line marks, and its sections."""
    try:
        lines = path.read_text("utf-8-sig").splitlines()
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
    file = PromptFile(path, node, values, tuple(sections_of(path, lines, ends[1] + 1, known)))
    _refuse_repeated_keys(file, node)
    return file


def _refuse_repeated_keys(file: PromptFile, node: yaml.Node) -> None:
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[str] = set()
    for key, value in node.value:
        if key.value in seen:
            raise file.error(f"the key {key.value!r} stands twice", key.start_mark.line + 2, "keep one of them")
        seen.add(key.value)
        _refuse_repeated_keys(file, value)


def sections_of(path: Path, lines: list[str], start: int, known: Sequence[str]) -> Iterator[Section]:
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
        yield Section(name, text, first + 1)


def nearest(name: str, known: Any) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    listed = f"known here: {', '.join(known) or 'none'}"
    return f"did you mean {near[0]}? {listed}" if near else listed
