"""What every reader hands on: pages, and word of the pages it passed over; and which titles are wanted.

Guarantees: `text` is paragraphs parted by blank lines, without markup; where a reader had to leave something out in
the middle of a sentence it puts `HOLE`, so that the sentence is dropped later and never asked about. Cost: none.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

from foundation.errors import UsageError

HOLE = "\ue000"  # private use: something visible stood here and could not be kept
GONE = "\ue001"  # private use: something stood here that a reader would not miss (a footnote, a maintenance tag)

_APPARATUS = re.compile(
    r"""see\ also | further\ reading | external\ links | works\ cited | endnotes | gallery | discography | filmography | publications
    |(?:cited\ in\ )?footnotes | notes(?:\ and\ .*)? | citations | (?:primary\ |secondary\ |online\ )?sources | (?:reference\ )?literature
    |(?:additional\ |general\ |secondary\ |cited\ )?references(?:\ and\ .*)? | (?:\w+\ )?bibliograph(?:y|ies) | (?:selected|list\ of)\ works""",
    re.VERBOSE | re.IGNORECASE,
)


def is_apparatus(heading: str) -> bool:
    """Is this section sources, links or lists of works, not prose about the subject? Such sections are dropped whole."""
    return bool(_APPARATUS.fullmatch(heading.strip().rstrip(":")))


@dataclass(frozen=True, slots=True)
class Page:
    """One document as read: not repaired, not yet split."""

    title: str
    text: str
    source: str
    url: str = ""
    license: str = ""


@dataclass(frozen=True, slots=True)
class Skip:
    """A page passed over; `reason` is a key of the summary, `target` where a redirect leads."""

    title: str
    reason: str
    target: str = ""


def normal_title(title: str) -> str:
    """A title as MediaWiki compares them: spaces for underscores, single, the first letter upper case."""
    title = " ".join(unicodedata.normalize("NFC", title).replace("_", " ").split())
    return title[:1].upper() + title[1:]


@dataclass
class Titles:
    """The curated titles of `--titles`; without a file every title is wanted."""

    wanted: frozenset[str] | None = None
    found: set[str] = field(default_factory=set)

    @classmethod
    def read(cls, path: Path | None) -> Titles:
        """One title a line; `#` begins a comment, underscores count as spaces. Raises `UsageError`."""
        if path is None:
            return cls()
        try:
            lines = path.read_text("utf-8-sig").splitlines()
        except FileNotFoundError:
            raise UsageError(
                "there is no such file of titles", where=str(path), mend="name a file with one title a line"
            ) from None
        except (UnicodeDecodeError, IsADirectoryError) as error:
            raise UsageError(
                "the file of titles cannot be read as text", where=str(path), mend="save it as UTF-8, one title a line"
            ) from error
        titles = (line.split(" #")[0].strip() for line in lines if not line.lstrip().startswith("#"))
        wanted = frozenset(normal_title(title) for title in titles if title)
        if not wanted:
            raise UsageError(
                "the file of titles names no title",
                where=str(path),
                mend="write one title a line, or leave --titles out",
            )
        return cls(wanted)

    def take(self, title: str) -> bool:
        """Is this title wanted? Remembers that it was seen."""
        if self.wanted is None:
            return True
        title = normal_title(title)
        if title not in self.wanted:
            return False
        self.found.add(title)
        return True

    def missing(self) -> list[str]:
        """Wanted titles that no file had, sorted."""
        return sorted((self.wanted or frozenset()) - self.found)
