"""How a run is asked to stop: signals and the file STOP."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from trainer.interrupt import STOP, Interrupted, interrupt, unheard


def test_nobody_asked(tmp_path: Path) -> None:
    with interrupt(tmp_path) as asked:
        assert asked.look() == ""
        asked.check()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_waits_for_a_point_where_nothing_is_lost(tmp_path: Path, number: signal.Signals) -> None:
    with interrupt(tmp_path) as asked:
        os.kill(os.getpid(), number)
        assert asked.look() == "signal"
        with pytest.raises(Interrupted):
            asked.check()


def test_with_everything_saved_a_signal_waits_for_nothing(tmp_path: Path) -> None:
    with interrupt(tmp_path) as asked:
        asked.unsaved = False
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), signal.SIGTERM)


class _Terminal(io.RawIOBase):
    """A slow one: the signal comes while a line is on its way to it."""

    signalled = False

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        if not self.signalled:
            self.signalled = True
            os.kill(os.getpid(), signal.SIGTERM)
        return len(data)


def test_a_signal_in_the_middle_of_a_line_is_heard_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python refuses the handler's own line then, with an error that would end the run without a checkpoint."""
    with interrupt(tmp_path) as asked:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", io.TextIOWrapper(io.BufferedWriter(_Terminal()), write_through=True))
            print("step 7", file=sys.stderr, flush=True)
        assert asked.look() == "signal"


def test_a_signal_is_heard_when_nobody_reads_what_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with interrupt(tmp_path) as asked, _nobody_reads(monkeypatch):
        assert unheard()
        os.kill(os.getpid(), signal.SIGINT)
        assert asked.look() == "signal"
        assert not unheard(), "it speaks to nobody now"
    assert not unheard()


@contextmanager
def _nobody_reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Standard error as it is after `| tee` has died."""
    read, write = os.pipe()
    os.close(read)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", io.TextIOWrapper(io.FileIO(write, "w"), write_through=True))
        yield


def test_a_second_signal_is_the_former_handlers(tmp_path: Path) -> None:
    with interrupt(tmp_path):
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_terminal_that_hangs_up_is_heard_once(tmp_path: Path) -> None:
    """It and its shell send a signal each, and the second must not end what the first asked for."""
    with interrupt(tmp_path) as asked:
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGHUP)
        assert asked.look() == "signal"
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL


def test_under_nohup_it_is_not_heard(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interrupt(tmp_path) as asked:
            os.kill(os.getpid(), signal.SIGHUP)
            assert asked.look() == ""
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_handlers_are_put_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with interrupt(tmp_path):
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_the_file_is_obeyed_and_taken_away(tmp_path: Path) -> None:
    with interrupt(tmp_path) as asked:
        (tmp_path / STOP).touch()
        assert asked.look() == "stop"
        asked.done()
    assert not (tmp_path / STOP).exists()


def test_a_file_from_before_the_run_is_no_wish(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / STOP).touch()
    with interrupt(tmp_path) as asked:
        assert asked.look() == ""
    assert "left from before this run" in capsys.readouterr().err


def test_a_signal_leaves_the_file_alone(tmp_path: Path) -> None:
    with interrupt(tmp_path) as asked:
        os.kill(os.getpid(), signal.SIGTERM)
        (tmp_path / STOP).touch()
        asked.done()
    assert (tmp_path / STOP).exists()
