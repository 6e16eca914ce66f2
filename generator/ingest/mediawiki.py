"""MediaWiki `pages-articles` exports, plain or bz2, read as a stream.

Guarantees: one page in memory at a time; redirects, disambiguation pages and lists are passed over by name; an export
that ends in the middle raises `Failure` with the last title read, it never looks like a short one.
Cost: about 11 MB/s of XML for pages passed over, 2 MB/s for pages kept; memory stays flat, whatever the export's size.
"""

from __future__ import annotations

import bz2
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING
from urllib.parse import quote
from xml.etree.ElementTree import ParseError

from foundation.errors import Failure, UsageError
from generator.ingest.page import Page, Skip

if TYPE_CHECKING:
    import mwxml

ARTICLES = 0  # the namespace
_HIDDEN = (6, 14)  # File and Category: a link into them shows no text
_LIST = re.compile(r"(?:Lists?|Index|Outline) of ")
_DISAMBIGUATION = re.compile(
    r"\{\{\s*(?:[\w ()/-]*\bdisambig(?:uation)?(?:[- ]\w+)?|dab|dis|hndis|hndab|geodis|mathdab|numberdis|roaddis|schooldis|hospitaldis"
    r"|airport disambig|call sign disambig|surname|given name|set index article|shipindex|sia)\s*[|}]|__DISAMBIG__",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class _Site:
    """The collection's name, the URL its pages stand under, and the namespaces whose links show no text."""

    name: str
    base: str
    hidden: frozenset[str]


def read(path: Path, take: Callable[[str], bool], source: str) -> Iterator[Page | Skip]:
    """Pages of the article namespace whose title `take` wants. `source` serves where the export does not name its own."""
    for found in _stream(path, take, source):
        yield found if isinstance(found, Skip) else _page(*found)


def _stream(path: Path, take: Callable[[str], bool], source: str) -> Iterator[Skip | tuple[_Site, str, str]]:
    """Pages passed over by what stands before their text, and site, title and wikitext of the others."""
    last, site = "", None
    try:
        with _open(path) as file:
            dump, clear = _dump(file)
            site = _site(dump, source)
            for page in dump.pages:
                last = page.title
                # pages-articles holds the newest revision alone
                yield _skip(page, take) or (site, page.title, next((revision.text for revision in page), None) or "")
                clear()
    except (ParseError, EOFError, AssertionError, ValueError, TypeError, OSError, _malformed()) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        if site is None and not isinstance(error, EOFError):
            raise UsageError(
                "this is no MediaWiki export", where=str(path), mend="name a `pages-articles` export, .xml or .xml.bz2"
            ) from error
        begun = f"the last page begun is {last!r}" if last else "it has no whole page"
        raise Failure(
            f"the export ends in the middle or is damaged: {begun}; nothing was written",
            where=str(path),
            mend="copy or download the file again, and compare its checksum",
        ) from error


def _open(path: Path) -> IO[bytes]:
    return bz2.open(path, "rb") if path.suffix.lower() == ".bz2" else open(path, "rb")


def _malformed() -> type[Exception]:
    from mwxml.errors import MalformedXML

    return MalformedXML  # type: ignore[no-any-return]


def _dump(file: IO[bytes]) -> tuple[mwxml.Dump, Callable[[], None]]:
    """The export, and a call that forgets the pages read: the parser keeps each as an empty element, gigabytes in a full dump."""
    import mwxml
    from mwxml.element_iterator import ElementIterator

    root = ElementIterator.from_file(file)
    if root.tag != "mediawiki":
        raise ValueError(f"the root element is <{root.tag}>")
    return mwxml.Dump.from_element(root), root.element.clear


def _site(dump: mwxml.Dump, source: str) -> _Site:
    site = dump.site_info
    base = site.base.rpartition("/")[0] + "/" if site.base else ""
    hidden = {space.name.lower() for space in site.namespaces or () if space.id in _HIDDEN and space.name}
    return _Site(site.dbname or source, base, frozenset(hidden | {"file", "image", "category"}))


def _skip(page: mwxml.Page, take: Callable[[str], bool]) -> Skip | None:
    if page.namespace != ARTICLES:
        return Skip(page.title, "not an article")
    if not take(page.title):
        return Skip(page.title, "not in titles")
    if page.redirect:
        return Skip(page.title, "redirect", page.redirect)
    if _LIST.match(page.title):
        return Skip(page.title, "list")
    return Skip(page.title, "disambiguation") if page.title.endswith("(disambiguation)") else None


def _page(site: _Site, title: str, wikitext: str) -> Page | Skip:
    from mwparserfromhell.parser import ParserError

    from generator.ingest.wikitext import prose

    if wikitext[:200].lstrip().upper().startswith("#REDIRECT"):  # old exports say so in the text alone
        return Skip(title, "redirect")
    if _DISAMBIGUATION.search(wikitext):
        return Skip(title, "disambiguation")
    try:
        text = prose(wikitext, site.hidden)
    except (ParserError, RecursionError):
        return Skip(title, "unreadable markup")
    url = site.base + quote(title.replace(" ", "_"), safe="/:,()'!") if site.base else ""
    return Page(title, text, site.name, url, "CC BY-SA" if site.name.endswith("wiki") else "")
