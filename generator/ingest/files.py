"""Which files are read, and by which reader: .txt, .md, .jsonl, .xml and .xml.bz2.

Guarantees: folders are read in the order of their names, hidden files left out, no file twice; whatever cannot be read
raises one `UsageError` that names the file and, where there is one, the line. Cost: a file is read whole, exports and
JSON lines as a stream.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from foundation.errors import UsageError
from generator.ingest import markdown
from generator.ingest.page import Page, Skip

SUFFIXES = (".txt", ".md", ".jsonl", ".xml", ".xml.bz2")
_TITLE_LENGTH = 120  # characters: a longer first line is prose
_WRAPPED = 120  # characters: a text without longer lines is taken as wrapped by hand
_ENCODING = "save the file as UTF-8, for example with `iconv -f latin1 -t utf-8`"


def find(paths: Iterable[Path]) -> list[Path]:
    """The files to read. Raises `UsageError` for a missing path, an unknown suffix or a folder with nothing to read."""
    found: dict[Path, Path] = {}  # by resolved path: the same file named twice is read once
    for path in paths:
        if path.is_dir():
            inside = list(_inside(path))
            if not inside:
                raise UsageError(
                    "no file to read in this folder", where=str(path), mend=f"readable are {', '.join(SUFFIXES)}"
                )
            for file in inside:
                found.setdefault(file.resolve(), file)
        elif not path.exists():
            raise UsageError("there is no such file or folder", where=str(path), mend="check the path")
        elif not _suffix(path):
            raise UsageError(
                f"this kind of file cannot be read: {path.name}",
                where=str(path),
                mend=f"readable are {', '.join(SUFFIXES)}",
            )
        else:
            found.setdefault(path.resolve(), path)
    return list(found.values())


def _inside(folder: Path) -> Iterator[Path]:
    for here, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (path for name in sorted(names) if not name.startswith(".") and _suffix(path := Path(here, name)))


def _suffix(path: Path) -> str:
    return next((suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)), "")


def read(path: Path, take: Callable[[str], bool], source: str) -> Iterator[Page | Skip]:
    """The pages of one file whose title `take` wants. `source` serves those that do not name their own."""
    suffix = _suffix(path)
    if suffix.startswith(".xml"):
        from generator.ingest import mediawiki

        return mediawiki.read(path, take, source)
    reader = {".txt": _text, ".md": _markdown, ".jsonl": _json_lines}[suffix]
    return (page if take(page.title) else Skip(page.title, "not in titles") for page in reader(path, source))


def _text(path: Path, source: str) -> Iterator[Page]:
    """The first line is the title if it is short and a blank line follows, else the file's name is."""
    title, blank, rest = _whole(path).lstrip("\n").partition("\n\n")
    if (
        not blank
        or "\n" in title.strip()
        or len(title) > _TITLE_LENGTH
        or title.rstrip().endswith((".", ",", ":", ";"))
    ):
        title, rest = path.stem, _whole(path)
    yield Page(title.strip(), _unwrapped(rest), source)


def _markdown(path: Path, source: str) -> Iterator[Page]:
    values, text = markdown.front_matter(_whole(path), str(path))
    heading, prose = markdown.prose(text)
    given = {
        key: str(values[key]).strip() for key in ("title", "source", "url", "license") if values.get(key) is not None
    }
    yield Page(
        given.get("title") or heading or path.stem,
        prose,
        given.get("source") or source,
        given.get("url", ""),
        given.get("license", ""),
    )


def _json_lines(path: Path, source: str) -> Iterator[Page]:
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            where = f"{path}:{number}"
            try:
                values = json.loads(line.decode("utf-8-sig"))
            except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
                raise UsageError(
                    f"this line is not valid JSON: {error}",
                    where=where,
                    mend="mend or remove that line; nothing was written",
                ) from error
            yield _json_page(values, source, where)


def _json_page(values: object, source: str, where: str) -> Page:
    mend = 'each line is {"title": "…", "text": "…"}, with "source", "url" and "license" if they are known'
    if not isinstance(values, dict):
        raise UsageError("this line is not a JSON object", where=where, mend=mend)
    for key in ("title", "text"):
        if not isinstance(values.get(key), str) or not values[key].strip():
            raise UsageError(f"this line has no {key}", where=where, mend=mend)
    rest = {key: values[key] for key in ("source", "url", "license") if values.get(key)}
    if wrong := next((key for key, value in rest.items() if not isinstance(value, str)), None):
        raise UsageError(f"{wrong} is not a string in this line", where=where, mend=mend)
    return Page(
        values["title"].strip(),
        _unwrapped(values["text"]),
        rest.get("source", source),
        rest.get("url", ""),
        rest.get("license", ""),
    )


def _whole(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"this file is not UTF-8: byte {error.start} is {error.object[error.start]:#04x}",
            where=str(path),
            mend=_ENCODING,
        ) from error


def _unwrapped(text: str) -> str:
    """Where lines are long, each is a paragraph; where all are short, blank lines part the paragraphs."""
    lines = text.replace("\r\n", "\n").split("\n")
    return "\n\n".join(lines) if any(len(line) > _WRAPPED for line in lines) else text
