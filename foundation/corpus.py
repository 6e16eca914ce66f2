"""The corpus in a workspace: append-only logs of articles and of snippets, in blocks of up to 256.

Guarantees: a block never changes once written; its name carries its number and the hash of its snippets' ids, so a
unit that names a block means the same text for ever; retiring text is a tombstone, not an edit.
Cost: one file a block; a block is read whole (about 200 KB), the last few stay in memory.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from foundation.errors import Failure
from foundation.ids import stable_id
from foundation.parse import parse
from foundation.records import Article, Snippet

if TYPE_CHECKING:
    from foundation.records import Contract
    from foundation.store import Store

BLOCK = 256
ARTICLES = "corpus/articles"
BLOCKS = "corpus/blocks"


def jsonl(rows: Iterable[Contract]) -> bytes:
    """Contracts as JSON lines."""
    return b"".join(row.model_dump_json(exclude_defaults=False).encode() + b"\n" for row in rows)


class Corpus:
    """Reads and appends blocks of snippets and articles in a store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._block = functools.lru_cache(maxsize=8)(self._read_block)

    def blocks(self) -> list[str]:
        """Names of the blocks (`000001-HASH-COUNT`), in the order they were sealed."""
        return [name.rpartition("/")[2].removesuffix(".jsonl") for name in self.store.list(BLOCKS)]

    @staticmethod
    def count(block: str) -> int:
        """How many snippets a block holds: it stands in its name, so planning reads no block."""
        return int(block.rpartition("-")[2])

    def snippets(self, block: str) -> tuple[Snippet, ...]:
        """The snippets of one block, in order. Raises `Failure` if the block is missing."""
        return self._block(block)

    def part(self, block: str, start: int, stop: int) -> tuple[Snippet, ...]:
        """`snippets(block)[start:stop]` for who needs no more: the other lines are not parsed, and nothing is remembered."""
        return self._parsed(block, self._lines(block)[start:stop])

    def all_snippets(self) -> Iterator[Snippet]:
        for block in self.blocks():
            yield from self.snippets(block)

    def articles(self) -> Iterator[Article]:
        """Every article once, in its latest version. Reads the log twice; in memory is one file of it, and the ids."""
        latest: dict[str, tuple[str, int]] = {}
        for name in self.store.list(ARTICLES):
            for number, line in enumerate(self.store.get(name).splitlines()):
                latest[json.loads(line)["id"]] = (name, number)
        for name in self.store.list(ARTICLES):
            for number, line in enumerate(self.store.get(name).splitlines()):
                if latest[json.loads(line)["id"]] == (name, number):
                    yield parse(Article, line, f"{name}:{number + 1}")

    def block_file(self, number: int, snippets: list[Snippet]) -> tuple[str, bytes]:
        """Name and bytes of block `number`; the caller puts it (ingest puts all of them at its end)."""
        digest = stable_id("block", *(snippet.id for snippet in snippets))[:12]
        return f"{BLOCKS}/{number:06d}-{digest}-{len(snippets)}.jsonl", jsonl(snippets)

    def _read_block(self, block: str) -> tuple[Snippet, ...]:
        return self._parsed(block, self._lines(block))

    def _parsed(self, block: str, lines: list[bytes]) -> tuple[Snippet, ...]:
        return tuple(parse(Snippet, line, f"{BLOCKS}/{block}.jsonl") for line in lines)

    def _lines(self, block: str) -> list[bytes]:
        try:
            data = self.store.get(f"{BLOCKS}/{block}.jsonl")
        except FileNotFoundError as error:
            raise Failure(
                "a planned block of snippets is missing",
                where=f"{BLOCKS}/{block}.jsonl",
                mend="restore corpus/ from a copy",
            ) from error
        return data.splitlines()
