"""Which of several attempts' rejects stand beside a shard without a record."""

from __future__ import annotations

import json

from foundation.reader import committed_rejects, most_items
from foundation.store_memory import MemoryStore


def rows(items: str, parts: int) -> bytes:
    return b"".join(json.dumps({"item": i, "phase": f"ask.{p}"}).encode() + b"\n" for i in items for p in range(parts))


def test_the_file_of_all_items_counts_and_not_a_longer_one_of_fewer() -> None:
    # given an attempt that died before its commit, in which one item of three passed and the others failed part by part
    store = MemoryStore()
    store.put("rejects/f/n/u.aaa.jsonl", rows("ab", 4))
    # and the one that was committed, in which nothing passed
    store.put("rejects/f/n/u.bbb.jsonl", rows("abc", 1))
    store.put("shards/f/n/u.jsonl", b"")
    lines = committed_rejects(store, "shards/f/n/u.jsonl", set(), lambda: list(store.list("rejects")))
    assert {json.loads(line)["item"] for line in lines} == {"a", "b", "c"}


def test_of_files_with_as_many_items_the_longest_counts_and_a_broken_line_tells_of_none() -> None:
    broken = [b"{torn", b"[1]", b"null", b"{}"]
    assert most_items([rows("ab", 1).splitlines(), rows("ab", 2).splitlines()]) == 1
    assert most_items([rows("ab", 1).splitlines(), [*rows("a", 1).splitlines(), *broken]]) == 0
    assert most_items([[]]) == 0
