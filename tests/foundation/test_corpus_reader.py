"""The block log, and the one reader of shards with its tombstones and its manifest."""

from __future__ import annotations

from pathlib import Path

import pytest

from foundation.corpus import Corpus
from foundation.errors import Failure
from foundation.reader import ReadReport, Tombstone, pin, read
from foundation.records import Record, Sampling, Snippet, SplitPolicy, Unit, Usage, messages_of
from foundation.store import LocalStore


def _snippet(number: int) -> Snippet:
    text = f"Sentence {number} stands alone."
    return Snippet(
        id=Snippet.make_id(text),
        article_id=f"a{number % 3}",
        title="T",
        source="s",
        index=number,
        sentences=(text,),
        text=text,
    )


def _record(number: int, **changes: object) -> Record:
    values: dict[str, object] = {
        "id": f"r{number}",
        "item": f"i{number}",
        "unit": "u",
        "prompt_type": "wh/who",
        "fingerprint": "f",
        "family": "wh",
        "split": "train",
        "messages": messages_of([("user", "q"), ("assistant", "a")]),
        "supervised": (1,),
        "snippet_id": f"s{number}",
        "article_id": f"a{number % 3}",
        "title": "T",
        "source": "s",
        "teacher": "rules:1",
        "sampling": Sampling(),
        "seed": 1,
        "usage": Usage(),
        "round": 0,
        "attempt": "x",
    }
    return Record.model_validate({**values, **changes})


def _shard(store: LocalStore, name: str, records: list[Record], extra: bytes = b"") -> None:
    store.put(
        f"shards/wh/who/{name}.jsonl", b"".join(row.model_dump_json().encode() + b"\n" for row in records) + extra
    )


def test_a_block_names_its_number_hash_and_count(tmp_path: Path) -> None:
    corpus = Corpus(LocalStore(tmp_path))
    snippets = [_snippet(number) for number in range(5)]
    name, data = corpus.block_file(1, snippets)
    corpus.store.put_once(name, data)
    (block,) = corpus.blocks()
    assert Corpus.count(block) == 5
    assert corpus.snippets(block) == tuple(snippets)
    with pytest.raises(Failure, match="missing"):
        corpus.snippets("000009-abc-4")


def test_the_reader_applies_every_kind_of_tombstone(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    _shard(store, "u1", [_record(n) for n in range(9)])
    _shard(store, "u2", [_record(n, unit="u2") for n in range(20, 24)])
    for kind, value, left in [("article", "a0", 9), ("unit", "u2", 6), ("snippet", "s1", 5), ("fingerprint", "f", 0)]:
        stone = Tombstone(kind=kind, value=value)  # type: ignore[arg-type]
        store.put(stone.name, stone.model_dump_json().encode())
        report = ReadReport()
        assert len(list(read(store, report=report))) == left
        assert report.read + report.withdrawn == 13


def test_a_broken_line_is_named_and_counted_and_the_rest_is_read(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    _shard(store, "u1", [_record(0)], extra=b'{"id": "torn\n')
    _shard(store, "u2", [_record(1)])
    report = ReadReport()
    assert [record.id for record in read(store, report=report)] == ["r0", "r1"]
    assert report.broken_lines == 1
    assert report.broken[0].startswith("shards/wh/who/u1.jsonl:2:")


def test_a_pinned_manifest_does_not_see_what_came_later(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    _shard(store, "u1", [_record(0)])
    manifest = pin(store)
    _shard(store, "u2", [_record(1)])
    stone = Tombstone(kind="unit", value="u")
    store.put(stone.name, stone.model_dump_json().encode())
    assert [record.id for record in read(store, manifest)] == ["r0"]
    assert pin(store).fingerprint != manifest.fingerprint


def test_splits_hold_articles_whole_and_come_near_their_shares() -> None:
    policy = SplitPolicy(key="k", unseen=0.1, phrasing=0.05)
    splits = {(a, s): policy.split(f"a{a}", f"s{a}-{s}", "wh/who") for a in range(400) for s in range(20)}
    unseen = {a for (a, _), split in splits.items() if split == "unseen"}
    assert all((split == "unseen") == (a in unseen) for (a, _), split in splits.items())
    assert 20 < len(unseen) < 65
    rest = [split for (a, _), split in splits.items() if a not in unseen]
    assert 0.03 < rest.count("phrasing") / len(rest) < 0.07


def test_a_unit_is_named_by_what_it_does_and_by_nothing_else() -> None:
    first = Unit.make_id("b", 0, 64, "f", 0)
    assert first == Unit.make_id("b", 0, 64, "f", 0)
    assert len({first, *(Unit.make_id("b", 0, 64, "f", n) for n in (1, 2)), Unit.make_id("b", 64, 128, "f", 0)}) == 4
