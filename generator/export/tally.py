"""What an export holds, counted as its rows are written: the figures of the card and of `manifest.json`.

Memory: some 200 bytes an article; the rest does not grow with the records.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from foundation.corpus import Corpus
from foundation.errors import Failure
from foundation.records import Split
from generator.export.columns import NOT_STATED, Origin, row_of

if TYPE_CHECKING:
    from foundation.records import Record
    from foundation.store import Store

SPLITS: tuple[Split, ...] = ("train", "phrasing", "unseen")
_WEB = ("http://", "https://")


@dataclass
class Tally:
    """Rows by what they are. An article counts a row for each record that uses it, also as the second passage."""

    cells: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Rows by prompt type and split."""
    marks: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Marked rows by kind of duplicate and split."""
    teachers: Counter[str] = field(default_factory=Counter)
    versions: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Rows by prompt type and fingerprint."""
    rounds: Counter[int] = field(default_factory=Counter)
    articles: Counter[str] = field(default_factory=Counter)
    licenses: Counter[str] = field(default_factory=Counter)
    unlicensed: int = 0
    """Rows of which at least one article states no licence."""
    pairs: int = 0
    characters: int = 0
    example: dict[str, Any] | None = None

    def add(self, record: Record, row: dict[str, Any]) -> None:
        self.cells[record.prompt_type, record.split] += 1
        if row["duplicate"]:
            self.marks[row["duplicate"], record.split] += 1
        self.teachers[row["teacher"]] += 1
        self.versions[record.prompt_type, record.fingerprint] += 1
        self.rounds[record.round] += 1
        self.articles.update({record.article_id, record.partner_article_id} - {""})
        self.licenses[row["license"]] += 1
        self.unlicensed += not row["license"] or NOT_STATED in row["license"].split("; ")
        self.pairs += bool(record.pair_id)
        self.characters += sum(len(message.content) for message in record.messages)
        if self.example is None:
            self.example = row

    @property
    def rows(self) -> int:
        return self.cells.total()

    def of_split(self, split: str) -> int:
        return sum(count for (_, one), count in self.cells.items() if one == split)

    @property
    def types(self) -> list[str]:
        return sorted({prompt_type for prompt_type, _ in self.cells})

    def by_family(self) -> dict[str, Counter[str]]:
        """Rows of each family by split."""
        found: dict[str, Counter[str]] = {}
        for id_ in self.types:
            counts = found.setdefault(id_.partition("/")[0], Counter())
            counts.update({split: self.cells[id_, split] for split in SPLITS if self.cells[id_, split]})
        return found


class Origins:
    """The articles of an export, as the corpus has them now; of one that is not there, what its records say."""

    def __init__(self, store: Store, wanted: set[str]) -> None:
        self._found: dict[str, Origin] = {}
        try:
            for article in Corpus(store).articles() if wanted else ():
                if article.id in wanted:
                    url = article.url if article.url.startswith(_WEB) else ""  # no path of a machine
                    self._found[article.id] = Origin(article.title, article.source, url, article.license.strip())
        except (ValueError, KeyError, TypeError) as error:
            raise Failure(
                f"the log of articles is damaged: {error}",
                where="corpus/articles",
                mend="restore corpus/ from a copy, or ingest the articles again",
            ) from error

    def of(self, record: Record) -> Origin:
        found = self._found.get(record.article_id)
        if found is None:
            found = Origin(record.title, record.source, "", record.license.strip())
            self._found[record.article_id] = found
        return found

    def row(self, record: Record, duplicate: str, first: str) -> dict[str, Any]:
        """The record as a row."""
        return row_of(record, self.of(record), self.license_of(record), duplicate, first)

    def license_of(self, record: Record) -> str:
        """The licence of the record's article; with a second passage under another one, both."""
        own = self.of(record).license
        if not record.partner_article_id:
            return own
        partner = self.get(record.partner_article_id).license
        return own if partner == own else "; ".join(one or NOT_STATED for one in (own, partner))

    def get(self, article_id: str) -> Origin:
        return self._found.get(article_id) or Origin("", "", "", "")

    def lines(self, counts: Counter[str]) -> Iterable[bytes]:
        """`sources.jsonl`: every article that rows were made of, by source and title."""

        def key(id_: str) -> tuple[str, str, str]:
            return self.get(id_).source, self.get(id_).title, id_

        for id_ in sorted(counts, key=key):
            one = self.get(id_)
            yield orjson.dumps(
                {
                    "article_id": id_,
                    "title": one.title,
                    "url": one.url,
                    "source": one.source,
                    "license": one.license,
                    "records": counts[id_],
                },
                option=orjson.OPT_APPEND_NEWLINE,
            )

    def by_source(self, counts: Counter[str]) -> list[tuple[str, str, int, int]]:
        """Source, licence (as stated, else empty), articles, and uses of them by records."""
        articles: Counter[tuple[str, str]] = Counter()
        records: Counter[tuple[str, str]] = Counter()
        for id_, count in counts.items():
            one = self.get(id_)
            articles[one.source, one.license] += 1
            records[one.source, one.license] += count
        return [(*key, articles[key], records[key]) for key in sorted(articles)]
