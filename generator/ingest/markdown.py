"""Markdown to plain paragraphs, and the YAML front matter before it.

Guarantees: headings, tables, code blocks, images, HTML and sections of sources are gone; links and emphasis leave their
words; each list item is a paragraph of its own. Cost: about 0.3 s a MB.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any

from foundation.errors import UsageError
from generator.ingest.page import GONE, HOLE, is_apparatus

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

_FENCE = re.compile(r"---[ \t]*\n(.*?)^(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)
_FOOTNOTE = re.compile(r"\[\^[^\]\s]+\](?!:)")
_FOOTNOTE_TEXT = re.compile(r"^\[\^[^\]\s]+\]:.*(?:\n[ \t]+\S.*)*", re.MULTILINE)


def front_matter(text: str, where: str) -> tuple[dict[str, Any], str]:
    """The front matter (empty if there is none) and the text behind it. Raises `UsageError` that names file and line."""
    found = _FENCE.match(text)
    if not found:
        return {}, text
    import yaml

    try:
        values = yaml.safe_load(found.group(1)) or {}
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 2}" if mark else ""
        raise UsageError(
            "the front matter is not valid YAML",
            where=f"{where}{line}",
            mend="mend that line, or put the value in quotes",
        ) from error
    if not isinstance(values, dict):
        raise UsageError(
            "the front matter is not `key: value` lines",
            where=f"{where}:2",
            mend="write `title: …` there, or take it out",
        )
    return values, text[found.end() :]


def prose(text: str) -> tuple[str, str]:
    """The first level-1 heading (or nothing), and the paragraphs parted by blank lines."""
    text = _FOOTNOTE.sub(GONE, _FOOTNOTE_TEXT.sub("", text))
    title, paragraphs = "", []
    dropped = depth = 0  # level of the section being dropped; how deep inside a table
    heading: Token | None = None
    for token in _parser().parse(text):
        if token.type == "heading_open":
            heading = token
        elif token.type in ("table_open", "table_close"):
            depth += token.nesting
        elif token.type == "inline" and heading is not None:
            level, words = int(heading.tag[1:]), _words(token)
            title = title or (words if level == 1 else "")
            if not dropped or level <= dropped:
                dropped = level if is_apparatus(words) else 0
            heading = None
        elif token.type == "inline" and not dropped and not depth:
            paragraphs.append(_words(token))
    return title.replace(GONE, ""), "\n\n".join(paragraphs)


def _words(token: Token) -> str:
    pieces = []
    for child in token.children or ():
        if child.type in ("text", "code_inline"):
            pieces.append(child.content)
        elif child.type in ("softbreak", "hardbreak"):
            pieces.append(" ")
        elif child.type == "image":
            pieces.append(GONE)
        elif child.type not in _MARKS:
            pieces.append(HOLE)
    return "".join(pieces)


_MARKS = frozenset(
    [
        "em_open",
        "em_close",
        "strong_open",
        "strong_close",
        "link_open",
        "link_close",
        "s_open",
        "s_close",
        "html_inline",
        "text_special",
    ]
)


@functools.cache
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark").enable(["table", "strikethrough"])
