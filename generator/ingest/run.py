"""One ingest from paths to blocks, with a count of everything it kept, dropped and passed over.

Guarantees: read as a stream, under the workspace's lock `ingest`; the corpus changes only after the last file was read
to its end; ingesting the same input again changes nothing. An article is known by source and title: the same text is
unchanged, another one is an edit, whose vanished snippets are withdrawn by tombstones.
Cost: about 2 s a MB of wikitext on one core; 200 bytes of memory a snippet already in the corpus.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundation.console import progress, say
from foundation.corpus import Corpus
from foundation.errors import Failure, UsageError
from foundation.ids import stable_id
from foundation.reader import EDITED, Tombstone, tombstones
from foundation.records import Article, Snippet
from generator.ingest import files, prose
from generator.ingest.batch import Batch
from generator.ingest.page import Page, Skip, Titles
from generator.ingest.windows import snippets

if TYPE_CHECKING:
    from foundation.workspace import Workspace

_NAMED = 10  # titles named in a warning


@dataclass
class Summary:
    """What one ingest did. `read` = new + edited + unchanged + the sum of `skipped`."""

    files: int = 0
    read: int = 0
    new: int = 0
    edited: int = 0
    unchanged: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    repaired: int = 0
    sentences: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    snippets: int = 0
    kept: int = 0
    duplicates: int = 0
    retired: int = 0
    blocks: int = 0
    titles_missing: list[str] = field(default_factory=list)
    dry_run: bool = False

    def document(self) -> dict[str, Any]:
        """The summary as JSON's own types; reasons with the highest count first."""
        return vars(self) | {"skipped": dict(self.skipped.most_common()), "dropped": dict(self.dropped.most_common())}


def ingest(
    workspace: Workspace,
    paths: Sequence[Path],
    *,
    titles: Path | None = None,
    source: str | None = None,
    dry_run: bool = False,
) -> Summary:
    """Read `paths` into the workspace's corpus. `source` names what does not name its own collection.

    Raises `UsageError` for input that cannot be read and `Failure` for a damaged export or one without a sentence.
    """
    if source is not None and (not source.strip() or "/" in source):
        raise UsageError(
            f"not a collection's name: {source!r}", mend="use a short stable name, such as enwiki; never a path"
        )
    found = files.find(paths)
    wanted = Titles.read(titles)
    with contextlib.nullcontext() if dry_run else workspace.lock("ingest", wait=False):
        run = _Run(workspace, wanted, dry_run)
        try:
            run.read(found, source or workspace.settings.corpus.source)
            run.finish(", ".join(str(path) for path in paths))
        finally:
            run.batch.discard()
    return run.summary


class _Run:
    def __init__(self, workspace: Workspace, wanted: Titles, dry_run: bool) -> None:
        self.settings = workspace.settings.corpus
        self.wanted = wanted
        self.summary = Summary(dry_run=dry_run)
        self.batch = Batch(workspace, dry=dry_run)
        corpus = Corpus(workspace.store)
        self.texts = {article.id: stable_id(article.text) for article in corpus.articles()}
        self.owners = {snippet.id: snippet.article_id for snippet in corpus.all_snippets()}
        self.stones = {stone.value: stone for stone in tombstones(workspace.store) if stone.kind == "snippet"}
        self.articles: set[str] = set()  # ids met in this run
        self.made: set[str] = set()  # snippets of the new and edited articles of this run, duplicates too
        self.edits: set[str] = set()
        self.redirects: list[str] = []
        self.repeated: list[str] = []

    def read(self, found: Sequence[Path], source: str) -> None:
        with progress("articles") as bar:
            for path in found:
                self.summary.files += 1
                for page in files.read(path, self.wanted.take, source):
                    self.summary.read += 1
                    if isinstance(page, Page):
                        self.take(page)
                    else:
                        self.skip(page)
                    bar.advance(1, page.title[:60])

    def skip(self, page: Skip) -> None:
        self.summary.skipped[page.reason] += 1
        if page.reason == "redirect" and self.wanted.wanted is not None:
            self.redirects.append(f"{page.title} (leads to {page.target})" if page.target else page.title)

    def take(self, page: Page) -> None:
        """Clean one page; log it if it is new or edited."""
        summary, cleaned = self.summary, prose.clean(page.text)
        title = prose.tidy(prose.repair(page.title))
        text = cleaned.text
        article = Article(
            id=Article.make_id(page.source, title),
            title=title,
            text=text,
            source=page.source,
            url=page.url,
            license=page.license,
        )
        if article.id in self.articles:
            self.repeated.append(title)
            return self.skip(Skip(title, "repeated title"))
        summary.repaired += cleaned.repaired
        summary.dropped += cleaned.dropped
        if cleaned.foreign:
            return self.skip(Skip(title, prose.NOT_ENGLISH))
        if not text or len(text.split()) < self.settings.min_words:
            return self.skip(Skip(title, "stub" if text else "no sentence"))
        self.articles.add(article.id)
        summary.sentences += len(cleaned.sentences)
        known, digest = self.texts.get(article.id), stable_id(text)
        if known == digest:
            summary.unchanged += 1
            return None
        if known is None:
            summary.new += 1
        else:
            summary.edited += 1
            self.edits.add(article.id)
        self.batch.add(article, list(self.fresh(article, cleaned.sentences)))
        return None

    def fresh(self, article: Article, sentences: Sequence[str]) -> Iterator[Snippet]:
        """The article's snippets that the corpus does not have yet; the others are counted."""
        for snippet in snippets(article, sentences, self.settings.window, self.settings.stride):
            if snippet.id in self.made:
                self.summary.duplicates += 1
            elif snippet.id not in self.owners:
                self.summary.snippets += 1
                yield snippet
            elif self.owners[snippet.id] == article.id:
                self.summary.kept += 1
            else:
                self.summary.duplicates += 1
            self.made.add(snippet.id)

    def finish(self, where: str) -> None:
        summary = self.summary
        summary.titles_missing = self.wanted.missing()
        self.warn()
        if not self.articles:
            raise self.nothing(where)
        self.batch.finish()
        summary.blocks = self.batch.blocks
        gone = (
            {snippet for snippet, owner in self.owners.items() if owner in self.edits} - self.made - self.stones.keys()
        )
        back = [stone for value, stone in self.stones.items() if value in self.made and stone.reason == EDITED]
        summary.retired = len(gone)
        if not summary.dry_run:
            self.batch.put((Tombstone(kind="snippet", value=value, reason=EDITED) for value in sorted(gone)), back)

    def warn(self) -> None:
        for what, titles in (
            ("titles were not found", self.summary.titles_missing),
            ("wanted titles are redirects; name the page they lead to", self.redirects),
            ("pages have the title of another one of the same source, and were passed over", self.repeated),
        ):
            if titles:
                more = f", and {len(titles) - _NAMED:,} more" if len(titles) > _NAMED else ""
                say(f"warning: {len(titles):,} {what}: {'; '.join(titles[:_NAMED])}{more}")

    def nothing(self, where: str) -> Failure:
        """The error for input without an article worth keeping; says what became of it."""
        skipped, dropped = self.summary.skipped, self.summary.dropped
        if not self.summary.read:
            return Failure("there is no article in it", where=where, mend="name files that have text in them")
        counts = [f"{count:,} {reason}" for reason, count in skipped.most_common()]
        counts += [f"{count:,} sentences dropped as {reason}" for reason, count in dropped.most_common()]
        if skipped[prose.NOT_ENGLISH] > skipped["stub"]:
            mend = "give it text in English: the factory makes records in English only"
        elif skipped["stub"]:
            mend = f"add longer articles, or lower corpus.min_words (now {self.settings.min_words}) in factory.toml"
        elif self.summary.titles_missing:
            mend = "check the titles: they must be written as in the input"
        else:
            mend = "name files with sentences in them: words, and a full stop at the end"
        return Failure(
            f"no article with a sentence to keep ({'; '.join(counts)}); nothing was written", where=where, mend=mend
        )
