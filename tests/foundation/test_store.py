"""The store over a folder: whole or not at all, once or not again."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
from pathlib import Path

import pytest

from foundation.errors import UsageError
from foundation.store import TEMPORARY, LocalStore


def test_put_get_list_delete(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put("a/one.json", b"1")
    store.put("a/b/two.json", b"2")
    store.put("a/one.json", b"3")
    assert store.get("a/one.json") == b"3"
    assert list(store.list("a")) == ["a/b/two.json", "a/one.json"]
    store.delete("a/one.json")
    store.delete("a/one.json")
    assert not store.exists("a/one.json")
    assert list(store.list("missing")) == []
    with pytest.raises(FileNotFoundError):
        store.get("a/one.json")


def test_put_once_keeps_the_first(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    assert store.put_once("x.jsonl", b"first")
    assert not store.put_once("x.jsonl", b"second")
    assert store.get("x.jsonl") == b"first"


@pytest.mark.parametrize("name", ["", "../x", "a/../b", "/etc/passwd", "a//b", "."])
def test_names_stay_inside(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError):
        LocalStore(tmp_path).put(name, b"")


def _race(root: Path, barrier: object, wins: object, number: int) -> None:
    barrier.wait()  # type: ignore[attr-defined]
    if LocalStore(root).put_once("shards/unit.jsonl", f"writer {number}".encode() * 10_000):
        wins.put(number)  # type: ignore[attr-defined]


def test_of_eight_racing_writers_one_wins(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier, wins = context.Barrier(8), context.Queue()
    writers = [context.Process(target=_race, args=(tmp_path, barrier, wins, number)) for number in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(20)
    winner = wins.get(timeout=5)
    assert wins.empty()
    assert LocalStore(tmp_path).get("shards/unit.jsonl") == f"writer {winner}".encode() * 10_000
    assert [path.name for path in (tmp_path / "shards").iterdir()] == ["unit.jsonl"]


def _write_too_much(root: Path, outcome: object) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    try:
        LocalStore(root).put_once("big.jsonl", b"x" * 5000)
        outcome.put("no error")  # type: ignore[attr-defined]
    except OSError as error:
        outcome.put(os.strerror(error.errno or 0))  # type: ignore[attr-defined]


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    outcome = context.Queue()
    writer = context.Process(target=_write_too_much, args=(tmp_path, outcome))
    writer.start()
    assert outcome.get(timeout=20) == "File too large"
    writer.join(20)
    assert list(tmp_path.iterdir()) == []


def test_temporaries_are_never_listed(tmp_path: Path) -> None:
    (tmp_path / f"{TEMPORARY}left-by-a-crash").write_bytes(b"torn")
    store = LocalStore(tmp_path)
    store.put("whole", b"1")
    assert list(store.list()) == ["whole"]
