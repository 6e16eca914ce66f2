"""One contract for every store: a name is put whole or not at all, once or not again, and listed in a fixed order.

A backend joins by a line in `BACKENDS`: how another writer opens the same store, and whether writers are threads or
processes. Nothing here asks for a rename, for an empty folder that stays, or for more than the last put to be seen.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.dummy
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from foundation.errors import UsageError
from foundation.reader import SHARDS
from foundation.store import LocalStore, Store
from foundation.store_memory import MemoryStore

RACERS = 8
MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Backend:
    """`open` gives a racer its own hold of the one store; `racing` makes racers, as `multiprocessing` does."""

    open: Callable[[], Store]
    racing: Any

    def race(self, *bodies: Callable[..., Any]) -> list[Any]:
        """Run every body at once, each with the store as its own opened it; what they returned, in the bodies' order."""
        barrier, told = self.racing.Barrier(len(bodies)), self.racing.Queue()

        def run(number: int) -> None:
            store = self.open()
            barrier.wait(20)
            try:
                told.put((number, bodies[number](store)))
            except BaseException as error:
                told.put((number, error))

        racers = [self.racing.Process(target=run, args=(number,)) for number in range(len(bodies))]
        for racer in racers:
            racer.start()
        results = dict(told.get(timeout=60) for _ in racers)
        for racer in racers:
            racer.join()
        for result in results.values():
            if isinstance(result, BaseException):
                raise result
        return [results[number] for number in range(len(bodies))]


def _local(folder: Path) -> Backend:
    return Backend(lambda: LocalStore(folder), multiprocessing.get_context("fork"))


def _memory(_: Path) -> Backend:
    store = MemoryStore()
    return Backend(lambda: store, multiprocessing.dummy)


BACKENDS: dict[str, Callable[[Path], Backend]] = {"local": _local, "memory": _memory}


@pytest.fixture(params=list(BACKENDS))
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    return BACKENDS[request.param](tmp_path / "store")


@pytest.fixture
def store(backend: Backend) -> Store:
    return backend.open()


def test_what_was_put_is_what_is_got(store: Store) -> None:
    store.put("a/one.json", b"1")
    assert store.exists("a/one.json")
    assert store.get("a/one.json") == b"1"
    store.put("a/one.json", b"2")
    assert store.get("a/one.json") == b"2"


def test_an_empty_blob_is_a_blob(store: Store) -> None:
    # A unit whose every item was rejected commits one.
    assert store.put_once("shards/wh/who/unit.jsonl", b"")
    assert not store.put_once("shards/wh/who/unit.jsonl", b"late")
    assert store.exists("shards/wh/who/unit.jsonl")
    assert store.get("shards/wh/who/unit.jsonl") == b""
    assert list(store.list("shards")) == ["shards/wh/who/unit.jsonl"]


def test_any_bytes_come_back_as_they_were(store: Store) -> None:
    data = bytes(range(256)) * 3 + b"\r\n\n\r" + "naïve — 東京 𝔘".encode()
    store.put("bytes", data)
    assert store.get("bytes") == data


def test_a_big_blob(store: Store) -> None:
    data = random.Random(1).randbytes(32 * MEGABYTE)
    assert store.put_once("big/blob", data)
    assert store.get("big/blob") == data


def test_a_missing_name(store: Store) -> None:
    store.put("a/one", b"1")
    for name in ("two", "a/two", "b/one"):
        assert not store.exists(name)
        with pytest.raises(FileNotFoundError):
            store.get(name)
    assert not store.exists("a")  # a folder is no blob
    assert not store.exists("a/one/below")  # nor is a blob a folder


def test_put_once_keeps_the_first(store: Store) -> None:
    assert store.put_once("x.jsonl", b"first")
    assert not store.put_once("x.jsonl", b"second")
    assert not store.put_once("x.jsonl", b"first")  # nor is the same once more news
    assert store.get("x.jsonl") == b"first"


def test_put_once_after_a_delete_is_the_first_again(store: Store) -> None:
    assert store.put_once("x", b"first")
    store.delete("x")
    assert store.put_once("x", b"second")
    assert store.get("x") == b"second"


def test_put_once_does_not_replace_what_put_has_put(store: Store) -> None:
    store.put("x", b"put")
    assert not store.put_once("x", b"once")
    assert store.get("x") == b"put"


def test_delete_can_be_said_again(store: Store) -> None:
    store.put("a/one", b"1")
    store.delete("a/one")
    assert not store.exists("a/one")
    assert list(store.list()) == []
    with pytest.raises(FileNotFoundError):
        store.get("a/one")
    store.delete("a/one")
    store.delete("never/there")


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/../b", "a/..", "./a", "/etc/passwd", "a//b", "a/", "a\0b"])
def test_a_name_that_leads_elsewhere_is_refused(store: Store, name: str) -> None:
    store.put("a/b", b"1")
    for act in (
        lambda: store.put(name, b""),
        lambda: store.put_once(name, b""),
        lambda: store.get(name),
        lambda: store.exists(name),
        lambda: store.delete(name),
    ):
        with pytest.raises(UsageError):
            act()
    if name not in ("", "a/"):  # as a prefix these are right: everything, and the folder a
        with pytest.raises(UsageError):
            list(store.list(name))
    assert list(store.list()) == ["a/b"]


@pytest.mark.parametrize(
    "name", ["naïve/Zürich.jsonl", "東京/日本.json", "é", "a b/c d", "…/...x", "q?a=1&b#c%20", "x" * 200]
)
def test_names_of_any_script(store: Store, name: str) -> None:
    assert store.put_once(name, b"1")
    assert store.get(name) == b"1"
    assert list(store.list()) == [name]
    store.delete(name)
    assert list(store.list()) == []


def test_names_that_look_alike_are_two(store: Store) -> None:
    names = ["caf\u00e9", "cafe\u0301", "A", "a"]  # composed and not; upper case and lower
    for name in names:
        assert store.put_once(name, name.encode())
    assert sorted(store.list()) == sorted(names)
    assert [store.get(name).decode() for name in names] == names


def test_a_prefix_is_a_folder_and_not_the_beginning_of_a_name(store: Store) -> None:
    for name in ("a/one", "a/b/two", "ab/three", "a.json", "b"):
        store.put(name, b"")
    assert sorted(store.list("a")) == ["a/b/two", "a/one"]
    assert list(store.list("a/")) == list(store.list("a"))
    assert list(store.list("a/b")) == ["a/b/two"]
    assert list(store.list("missing")) == []
    assert list(store.list("a/one")) == []  # a blob is no folder
    assert sorted(store.list()) == ["a.json", "a/b/two", "a/one", "ab/three", "b"]


def test_names_of_a_folder_come_in_order_every_time(store: Store) -> None:
    # Plans are read by their numbers, blocks by theirs, and an epoch pins shards in the order they are listed.
    names = [f"{folder}/{number:06d}.jsonl" for folder in ("z", "a", "m/n") for number in (10, 2, 33, 1)]
    for name in names:
        store.put(name, b"")
    listed = list(store.list())
    assert listed == list(store.list())
    for folder in ("a", "m/n", "z"):
        within = [name for name in listed if name.rpartition("/")[0] == folder]
        assert within == sorted(within) == list(store.list(folder))


def test_many_names(store: Store) -> None:
    # More than one page of any listing.
    names = {f"shards/wh/who/{number:04x}.jsonl" for number in range(2500)}
    for name in names:
        store.put_once(name, name.encode())
    listed = list(store.list("shards/wh"))
    assert len(listed) == len(names)
    assert set(listed) == names
    for name in listed[::50]:
        store.delete(name)
    assert sum(1 for _ in store.list(SHARDS)) == len(names) - 50


def test_names_may_be_deleted_and_put_while_they_are_listed(store: Store) -> None:
    names = [f"a/{number:03d}" for number in range(100)]
    for name in names:
        store.put(name, b"")
    seen = []
    for name in store.list("a"):
        seen.append(name)
        store.delete(name)
        store.put(f"b/{name}", b"")
    assert seen == names
    assert list(store.list("a")) == []


def test_equal_stamps_mean_equal_names(store: Store) -> None:
    # A store may have no stamps at all, or none for now.
    known: dict[str, list[str]] = {}
    for act in (
        lambda: None,
        lambda: store.put("a/one", b"1"),
        lambda: store.put("a/two", b"2"),
        lambda: store.put("b/three", b"3"),
        lambda: store.delete("a/two"),
        lambda: store.put_once("a/three", b"3"),
        lambda: store.delete("a/one"),
    ):
        act()
        stamp, names = store.stamp("a"), list(store.list("a"))
        assert stamp is None or known.setdefault(stamp, names) == names


@pytest.mark.parametrize("attempt", range(5))
def test_of_racing_writers_one_wins_and_its_blob_stands_whole(backend: Backend, attempt: int) -> None:
    def write(number: int) -> Callable[[Store], bool]:
        return lambda store: store.put_once("shards/unit.jsonl", f"writer {number}\n".encode() * 20_000)

    won = backend.race(*(write(number) for number in range(RACERS)))
    assert won.count(True) == 1
    after = backend.open()
    assert after.get("shards/unit.jsonl") == f"writer {won.index(True)}\n".encode() * 20_000
    assert list(after.list()) == ["shards/unit.jsonl"]


def test_racing_writers_of_many_names_put_each_once(backend: Backend) -> None:
    names = [f"shards/{number % 7}/{number}.jsonl" for number in range(60)]

    def write(number: int) -> Callable[[Store], list[str]]:
        return lambda store: [name for name in names if store.put_once(name, b"%d" % number)]

    won = backend.race(*(write(number) for number in range(4)))
    assert sorted(name for one in won for name in one) == sorted(names)
    store = backend.open()
    for number, mine in enumerate(won):
        assert all(store.get(name) == b"%d" % number for name in mine)


def test_a_reader_never_sees_a_part(backend: Backend) -> None:
    old, new = b"o" * MEGABYTE, b"n" * MEGABYTE
    backend.open().put("blob", old)

    def write(store: Store) -> int:
        for number in range(40):
            store.put("blob", (old, new)[number % 2])
        store.put("done", b"")
        return 0

    def read(store: Store) -> int:
        reads = 0
        while not store.exists("done"):
            data = store.get("blob")
            assert len(data) == MEGABYTE
            assert data in (old, new)
            assert set(store.list()) <= {"blob", "done"}  # and no name that is not a blob yet
            reads += 1
        return reads

    _, *reads = backend.race(write, read, read)
    assert sum(reads) > 0


def test_a_name_is_never_missing_while_it_is_replaced(backend: Backend) -> None:
    backend.open().put("split.json", b"0")

    def write(store: Store) -> bool:
        for number in range(200):
            store.put("split.json", b"%d" % number)
        return True

    def read(store: Store) -> bool:
        while store.get("split.json") != b"199":
            assert store.exists("split.json")
        return True

    assert all(backend.race(write, read))


def test_what_is_listed_can_be_read(backend: Backend) -> None:
    count = 120

    def write(store: Store) -> int:
        for number in range(count):
            assert store.put_once(f"shards/{number:04d}", b"whole" * 2000)
        return count

    def read(store: Store) -> int:
        seen: set[str] = set()
        while len(seen) < count:
            for name in set(store.list("shards")) - seen:
                assert store.get(name) == b"whole" * 2000
                seen.add(name)
        return len(seen)

    assert backend.race(write, read) == [count, count]
