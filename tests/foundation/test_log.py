"""The event log: whole lines from many processes, a new file each day, and never an error for the work."""

from __future__ import annotations

import multiprocessing
import os
import resource
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from foundation import log
from foundation.log import PREFIX, TAIL, EventLog, last_events, read_events

_fork = multiprocessing.get_context("fork")


def today() -> str:
    return f"{PREFIX}{datetime.now(UTC):%Y-%m-%d}.jsonl"


def test_an_event_has_all_that_finds_it_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    EventLog(tmp_path, "run").event("committed", unit="u1", items=64)
    EventLog(tmp_path, "work").event("died", level="warning", tell="a worker ended", pid_of=7)
    first, second = read_events(tmp_path)
    assert (first["event"], first["level"], first["unit"], first["items"]) == ("committed", "info", "u1", 64)
    assert (first["command"], first["pid"]) == ("run", os.getpid())
    assert abs(datetime.fromisoformat(first["time"]) - datetime.now(UTC)) < timedelta(minutes=5)
    assert (second["level"], second["message"], second["pid_of"]) == ("warning", "a worker ended", 7)
    assert capsys.readouterr() == ("", "a worker ended\n")
    assert list(last_events(tmp_path)) == [first, second]


def test_several_processes_write_whole_lines(tmp_path: Path) -> None:
    def write(writer: int) -> None:
        events = EventLog(tmp_path, "work")
        for number in range(300):
            events.event("step", writer=writer, number=number, text="x" * (number * 37 % 9000))

    processes = [_fork.Process(target=write, args=(writer,)) for writer in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    rows = list(read_events(tmp_path))
    assert len(rows) == 1200
    lines = [line for path in tmp_path.iterdir() for line in path.read_bytes().split(b"\n") if line]
    assert len(lines) == 1200
    for writer in range(4):
        assert [row["number"] for row in rows if row["writer"] == writer] == list(range(300))


def test_a_torn_line_takes_no_other_with_it(tmp_path: Path) -> None:
    events = EventLog(tmp_path, "run")
    events.event("before")
    with open(tmp_path / today(), "ab") as file:
        file.write(b'{"time": "2026-')
    events.event("after")
    with open(tmp_path / today(), "ab") as file:
        file.write(b"\0\0\0\n[1]\n{}\n\xff\n")
    events.event("at last")
    assert [row["event"] for row in read_events(tmp_path)] == ["before", "after", "at last"]
    assert [row["event"] for row in last_events(tmp_path)] == ["before", "after", "at last"]


def test_each_day_has_a_file_and_the_last_one_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Night(datetime):
        moment = datetime(2026, 11, 20, 23, 59, 59, tzinfo=UTC)

        @classmethod
        def now(cls, tz: Any = None) -> Night:
            return cls.fromtimestamp(cls.moment.timestamp(), tz)

    monkeypatch.setattr(log, "datetime", Night)
    events = EventLog(tmp_path, "run")
    events.event("late")
    Night.moment += timedelta(seconds=2)
    events.event("early")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"{PREFIX}2026-11-20.jsonl",
        f"{PREFIX}2026-11-21.jsonl",
    ]
    assert [row["event"] for row in read_events(tmp_path)] == ["late", "early"]
    assert [row["event"] for row in last_events(tmp_path)] == ["early"]


def test_only_the_end_of_a_long_day_is_read(tmp_path: Path) -> None:
    events = EventLog(tmp_path, "run")
    for number in range(2000):
        events.event("step", number=number, text="x" * 60)
    assert (tmp_path / today()).stat().st_size > 3 * TAIL
    rows = last_events(tmp_path)
    assert [row["number"] for row in rows] == list(range(2000 - len(rows), 2000))
    assert 100 < len(rows) < 700


def test_nothing_yet_is_no_error(tmp_path: Path) -> None:
    assert last_events(tmp_path) == []
    assert last_events(tmp_path / "none") == []
    (tmp_path / today()).touch()
    assert last_events(tmp_path) == []


def test_whatever_a_field_holds_is_written(tmp_path: Path) -> None:
    EventLog(tmp_path, "run").event(
        "odd", path=tmp_path, big=2**70, broken=os.fsdecode(b"\xff"), error=ValueError("no"), keys={1: "one"}
    )
    (row,) = read_events(tmp_path)
    assert (row["path"], row["error"], row["keys"]) == (str(tmp_path), "no", {"1": "one"})
    assert row["big"] == pytest.approx(2**70)


def test_a_folder_that_was_cleared_away_is_made_again(tmp_path: Path) -> None:
    events = EventLog(tmp_path / "logs", "run")
    events.event("one")
    (tmp_path / "logs" / today()).unlink()
    (tmp_path / "logs").rmdir()
    events.event("two")
    assert [row["event"] for row in read_events(tmp_path / "logs")] == ["two"]


def test_a_full_disk_loses_events_and_nothing_else(tmp_path: Path) -> None:
    # given a process that may write no more than 500 bytes into a file
    def write() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
        events = EventLog(tmp_path, "run")
        for number in range(20):
            events.event("step", number=number, text="x" * 40)
        os._exit(7)

    # when it goes on all the same
    process = _fork.Process(target=write)
    process.start()
    process.join()
    # then it reached its end, and what comes after the torn line is whole
    assert process.exitcode == 7
    assert (tmp_path / today()).stat().st_size == 500
    EventLog(tmp_path, "run").event("room again")
    names = [row["event"] for row in read_events(tmp_path)]
    assert names[:2] == ["step", "step"]
    assert names[-1] == "room again"


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file in its place")
    EventLog(tmp_path / "logs", "run").event("lost")


def test_what_an_event_costs(tmp_path: Path) -> None:
    events = EventLog(tmp_path, "run")
    start = time.perf_counter()
    for number in range(1000):
        events.event("committed", unit="0" * 24, items=number)
    print(f"{(time.perf_counter() - start) * 1000:.0f} µs an event")
    assert len(list(read_events(tmp_path))) == 1000
