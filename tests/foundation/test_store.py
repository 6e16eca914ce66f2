"""What is a folder's own affair: temporary names and a full disk. What every store owes is in test_store_contract.py."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
from pathlib import Path

from foundation.store import TEMPORARY, LocalStore


def _race(root: Path, barrier: object, wins: object, number: int) -> None:
    barrier.wait()  # type: ignore[attr-defined]
    if LocalStore(root).put_once("shards/unit.jsonl", f"writer {number}".encode() * 10_000):
        wins.put(number)  # type: ignore[attr-defined]


def test_no_temporary_of_a_racing_writer_stays(tmp_path: Path) -> None:
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


def test_the_stamp_of_a_folder_at_rest_lasts_until_a_name_comes_or_goes(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    assert store.stamp("a") == store.stamp("a") is not None
    store.put("a/one", b"1")
    assert store.stamp("a") is None  # too young to tell from a change in the same tick
    os.utime(tmp_path / "a", (1_700_000_000, 1_700_000_000))
    stamp = store.stamp("a")
    assert stamp == store.stamp("a") is not None
    store.put("a/two", b"2")
    assert store.stamp("a") != stamp
    os.utime(tmp_path / "a", (1_700_000_100, 1_700_000_100))
    assert store.stamp("a") not in (None, stamp)
