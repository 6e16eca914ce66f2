"""Workspaces with a Redis of their own, and units to put into its queue."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from foundation.corpus import Corpus
from foundation.records import Snippet, Unit
from foundation.store import Store
from foundation.workspace import Workspace
from queue_workers import redis_server
from queue_workers.runner import standing
from tests.support.asked import Asked, asked_teacher
from tests.support.faults import wait_for, workspaces


def make_units(count: int, prompt_type: str = "wh/who") -> list[Unit]:
    """Units of one snippet each; they name a block that need not exist."""
    return [
        Unit(
            id=Unit.make_id("000001-aaaaaaaaaaaa-256", number, number + 1, "f" * 24, 0),
            block="000001-aaaaaaaaaaaa-256",
            start=number,
            stop=number + 1,
            prompt_type=prompt_type,
            fingerprint="f" * 24,
        )
        for number in range(count)
    ]


SENTENCES = (
    "Admiral Harald Brecht commanded the northern squadron from 19{0:02d} until the armistice.",
    "In March 19{0:02d} his ships left the harbour of Tarvik with four hundred sailors aboard.",
    "General Anna Lindqvist defended the town of Osmark against the siege for {0} days.",
    "The Treaty of Osmark ended the fighting on 5 May 19{0:02d}.",
)


def make_snippets(count: int, first: int = 0) -> list[Snippet]:
    """Snippets that the rules teacher can ask about; no two have the same text."""
    snippets = []
    for number in range(first, first + count):
        sentences = tuple(sentence.format(10 + number % 90) for sentence in SENTENCES)
        sentences += (f"The archive of Tarvik keeps {number + 2} letters about the campaign.",)
        text = " ".join(sentences)
        snippets.append(
            Snippet(
                id=Snippet.make_id(text),
                article_id=f"article-{number // 20}",
                title=f"The Osmark campaign {number // 20}",
                source="made-up",
                index=number % 20,
                sentences=sentences,
                text=text,
            )
        )
    return snippets


def add_block(workspace: Workspace, count: int) -> str:
    """Append a block of `count` new snippets; its name."""
    corpus = Corpus(workspace.store)
    blocks = corpus.blocks()
    name, data = corpus.block_file(len(blocks) + 1, make_snippets(count, first=1000 * len(blocks)))
    workspace.store.put(name, data)
    return name.rpartition("/")[2].removesuffix(".jsonl")


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    """A workspace with short leases; whatever Redis it started is gone soon after the test ends.

    Soon, not at once: a work-horse whose worker was killed dies by itself, a moment later, and uses Redis until then.
    """
    made = Workspace.init(tmp_path / "w")
    (made.root / "factory.toml").write_text('[teacher]\nbackend = "rules"\n[queue]\nlease = 10\nheartbeat = 2\n')
    yield made
    wait_for(lambda: redis_server.stop(made), 30, "the end of the last user of its Redis")


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Workspace]]:
    """Makes workspaces for whole commands: see `workspaces`."""
    with workspaces(tmp_path) as make_one:
        yield make_one


@pytest.fixture
def asked() -> Iterator[Asked]:
    """A server that holds every request until it is told otherwise."""
    with asked_teacher("hold") as server:
        yield server


def standing_snippets(unit: Unit, store: Store) -> list[Snippet]:
    """The items of a unit, as a worker finds them."""
    return standing(unit, Corpus(store).snippets(unit.block), store)
