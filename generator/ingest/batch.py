"""One ingest's additions to the corpus: kept aside in a folder until all input was read, then put in place.

Guarantees: nothing reaches the corpus before the input is read to its end. Blocks go first, then tombstones, the log of
articles last: an article in the log has all its snippets in blocks, so whatever a killed ingest did not finish, the
next one with the same input does, without doubles. Cost: every byte is written twice; two fsyncs a file.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.corpus import ARTICLES, BLOCKS, Corpus, jsonl
from foundation.ids import stable_id
from foundation.records import Article, Snippet
from generator.ingest.windows import Packer

if TYPE_CHECKING:
    from foundation.reader import Tombstone
    from foundation.workspace import Workspace

ARTICLES_PER_FILE = 1000
FOLDER = "ingest-"


class Batch:
    """Collects articles with their new snippets. With `dry`, counts blocks and writes nothing at all."""

    def __init__(self, workspace: Workspace, *, dry: bool = False) -> None:
        self.store = workspace.store
        self.corpus = Corpus(workspace.store)
        self.blocks = 0
        self._next = {folder: 1 + _last_number(workspace.store.list(folder)) for folder in (ARTICLES, BLOCKS)}
        self._packer = Packer()
        self._articles: list[Article] = []
        self._staged: dict[str, list[str]] = {ARTICLES: [], BLOCKS: []}
        self._folder: Path | None = None
        if not dry:
            for stale in workspace.cache.glob(f"{FOLDER}*"):  # of an ingest that was killed: its lock is ours now
                shutil.rmtree(stale, ignore_errors=True)
            self._folder = workspace.cache / f"{FOLDER}{uuid.uuid4().hex}"
            self._folder.mkdir()

    def add(self, article: Article, snippets: list[Snippet]) -> None:
        """One new or edited article, with those of its snippets that the corpus does not have."""
        for block in self._packer.add(snippets):
            self._seal(block)
        self._articles.append(article)
        if len(self._articles) == ARTICLES_PER_FILE:
            self._log_articles()

    def finish(self) -> None:
        """Seal what is open: nothing more will be added."""
        for block in self._packer.seal():
            self._seal(block)
        if self._articles:
            self._log_articles()

    def put(self, retired: Iterable[Tombstone], revived: Iterable[Tombstone]) -> None:
        """Put everything in place. Repeating it, in whole or in part, changes nothing."""
        self._put(BLOCKS)
        for stone in revived:
            self.store.delete(stone.name)
        for stone in retired:
            self.store.put_once(stone.name, stone.model_dump_json().encode())
        self._put(ARTICLES)

    def discard(self) -> None:
        """Remove the folder. Safe to call at any point."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _seal(self, block: list[Snippet]) -> None:
        name, data = self.corpus.block_file(self._next[BLOCKS], block)
        self.blocks += 1
        self._stage(BLOCKS, name, data)

    def _log_articles(self) -> None:
        digest = stable_id("articles", *(part for article in self._articles for part in (article.id, article.text)))[
            :12
        ]
        self._stage(ARTICLES, f"{ARTICLES}/{self._next[ARTICLES]:06d}-{digest}.jsonl", jsonl(self._articles))
        self._articles = []

    def _stage(self, kind: str, name: str, data: bytes) -> None:
        self._next[kind] += 1
        if self._folder is not None:
            (self._folder / name.replace("/", "+")).write_bytes(data)
            self._staged[kind].append(name)

    def _put(self, kind: str) -> None:
        for name in self._staged[kind]:
            assert self._folder is not None
            self.store.put_once(name, (self._folder / name.replace("/", "+")).read_bytes())


def _last_number(names: Iterable[str]) -> int:
    return max((int(name.rpartition("/")[2].partition("-")[0]) for name in names), default=0)
