"""Wikitext to plain paragraphs.

Guarantees: tables, references, galleries, files, categories, headings and sections of sources and links are gone;
what a sentence lost in the middle is marked (`HOLE`); any text in gives text out, however broken its markup.
Cost: about 0.5 s a MB of wikitext, nearly all of it mwparserfromhell's parser.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import mwparserfromhell
from mwparserfromhell.nodes import Argument, Comment, ExternalLink, Heading, HTMLEntity, Tag, Template, Text, Wikilink
from mwparserfromhell.wikicode import Wikicode

from generator.ingest.page import GONE, HOLE, is_apparatus
from generator.ingest.templates import shown

_LIST = "\ue002"  # private use: a list item begins here

_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_REFERENCE = re.compile(
    r"<ref\b[^<>]*/>|<ref\b[^<>]*>.*?</ref\s*>|<references\b[^<>]*>(?:.*?</references\s*>)?", re.DOTALL | re.IGNORECASE
)
_BLOCK = re.compile(
    r"<(gallery|imagemap|timeline|source|syntaxhighlight|pre|score|graph|templatedata|math|chem|ce|hiero|poem|table|mapframe)\b[^<>]*(?<!/)>"
    r".*?</\1\s*>",
    re.DOTALL | re.IGNORECASE,
)
_SWITCH = re.compile(r"__[A-Z]+__")
_TABLE_OPENS = re.compile(r"^[\s:*#]*\{\|")
_TABLE_CLOSES = re.compile(r"^\s*\|\}(?!\})")
_QUOTES = re.compile(r"'{2,}")
_LANGUAGE_LINK = re.compile(r":?(?:[a-z]{2,3}|simple|[a-z]{2,3}-[a-z-]+):", re.IGNORECASE)

_HIDDEN_TAGS = frozenset(
    [
        "ref",
        "references",
        "gallery",
        "table",
        "tr",
        "td",
        "th",
        "caption",
        "style",
        "script",
        "imagemap",
        "timeline",
        "inputbox",
        "section",
        "templatestyles",
    ]
)
_BLOCK_TAGS = frozenset(["p", "div", "blockquote", "center", "li", "ul", "ol", "dl"])
_RAISED = str.maketrans("0123456789+-−n", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻ⁿ")
_LOWERED = str.maketrans("0123456789+-−n", "₀₁₂₃₄₅₆₇₈₉₊₋₋ₙ")
_INDEX = re.compile(r"[0-9+\-−n]+")


def prose(wikitext: str, hidden_namespaces: Iterable[str] = ("file", "image", "category")) -> str:
    """Paragraphs parted by blank lines. `hidden_namespaces` (lower case): links into them show a file or nothing.

    Raises `mwparserfromhell.parser.ParserError` where the parser itself gives up.
    """
    text = _COMMENT.sub("", wikitext)
    text = _REFERENCE.sub(GONE, text)
    text = _BLOCK.sub(HOLE, text)
    text = _SWITCH.sub("", text)
    text = _without_tables(text)
    renderer = _Renderer(frozenset(hidden_namespaces))
    return _paragraphs(renderer.article(mwparserfromhell.parse(text)))


def _without_tables(text: str) -> str:
    """Cut `{| … |}`, nested ones too. A table never closed ends at the next heading, so the article behind it stays."""
    if "{|" not in text:
        return text
    kept, depth = [], 0
    for line in text.split("\n"):
        if _TABLE_OPENS.match(line):
            depth += 1
        elif depth and _TABLE_CLOSES.match(line):
            depth -= 1
            line = _TABLE_CLOSES.sub("", line)
        elif depth and line.startswith("==") and line.rstrip().endswith("=="):
            depth = 0
        if not depth:
            kept.append(line)
    return "\n".join(kept)


class _Renderer:
    def __init__(self, hidden_namespaces: frozenset[str]) -> None:
        self.hidden = hidden_namespaces

    def article(self, code: Wikicode) -> str:
        """The whole page without its headings and without the dropped sections."""
        pieces, dropped = [], 0  # the level of the section being dropped; 0: none
        for node in code.nodes:
            if isinstance(node, Heading):
                if not dropped or node.level <= dropped:
                    dropped = node.level if is_apparatus(self.text(node.title).replace(GONE, "")) else 0
                pieces.append("\n\n")
            elif not dropped:
                pieces.append(self.node(node))
        return "".join(pieces)

    def text(self, code: Wikicode | None) -> str:
        return "".join(self.node(node) for node in code.nodes) if code is not None else ""

    def node(self, node: object) -> str:
        if isinstance(node, Text):
            return str(node.value)
        if isinstance(node, Wikilink):
            return self.link(node)
        if isinstance(node, Template):
            return self.template(node)
        if isinstance(node, Tag):
            return self.tag(node)
        if isinstance(node, HTMLEntity):
            return str(node.normalize())
        if isinstance(node, ExternalLink):
            if not node.brackets:
                return str(node.url)
            return self.text(node.title) or GONE
        if isinstance(node, Heading):  # inside a tag or an argument
            return "\n\n"
        return "" if isinstance(node, Comment) else HOLE if isinstance(node, Argument) else str(node)

    def link(self, node: Wikilink) -> str:
        target = str(node.title).strip()
        prefix = target.partition(":")[0].strip().lower() if ":" in target else ""
        if prefix in self.hidden:
            return ""
        if node.text is None:
            return "" if _LANGUAGE_LINK.match(target) else self.text(node.title).lstrip(":")
        return self.text(node.text)

    def template(self, node: Template) -> str:
        positional, named = [], {}
        for parameter in node.params:
            value, key = self.text(parameter.value), str(parameter.name).strip().lower()
            if parameter.showkey and not key.isdigit():
                named[key] = value
            else:
                positional.append(value)
        return shown(str(node.name), positional, named)

    def tag(self, node: Tag) -> str:
        name = str(node.tag).strip().lower()
        if name in ("li", "dd", "dt") and node.wiki_markup:
            return f"\n{_LIST}"
        if name in _HIDDEN_TAGS:
            return GONE
        if name == "br":
            return "\n\n"
        inner = self.text(node.contents)
        if name in ("sup", "sub"):
            table = _RAISED if name == "sup" else _LOWERED
            return inner.translate(table) if _INDEX.fullmatch(inner) else inner
        return f"\n\n{inner}\n\n" if name in _BLOCK_TAGS else inner


def _paragraphs(text: str) -> str:
    """Join the lines of a paragraph; list items stand alone; a line that only held templates is no line."""
    paragraphs: list[list[str]] = [[]]
    for line in _QUOTES.sub("", text).split("\n"):
        bare = line.replace(HOLE, "").replace(GONE, "").replace(_LIST, "").strip()
        if not bare:
            if not line.strip() or line.startswith(_LIST):
                paragraphs.append([])
        elif line.startswith(_LIST):
            paragraphs += [[line.replace(_LIST, "").strip()], []]
        else:
            paragraphs[-1].append(line.strip())
    return "\n\n".join(" ".join(lines) for lines in paragraphs if lines)
