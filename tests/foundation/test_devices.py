"""Locks on devices between real processes: refused, asked for, handed over, and free again however a process dies."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from foundation import devices
from foundation.devices import FOLDER, MARK, STAGE, device_holder, device_name, device_wanted_by, hold_device
from foundation.errors import Failure
from foundation.processes import choose_gpus, marked, session_members

REPOSITORY = Path(__file__).parents[2]

# Holds until its standard input ends; `give`: hands over to whoever asks; `fork`: leaves a fork and a child behind.
HOLDER = """
import os, subprocess, sys, time
from foundation.devices import hold_device
purpose, ask, manner = sys.argv[1], sys.argv[2] == "ask", sys.argv[3]
with hold_device(purpose, ask=ask, name="cpu") as hold:
    if manner == "fork":
        if not (fork := os.fork()):
            time.sleep(60)
            os._exit(0)
        child = subprocess.Popen(["sleep", "60"], start_new_session=True)
        left = subprocess.Popen(["sleep", "60"], start_new_session=True, env={**os.environ, **hold.environment})
        print(fork, child.pid, left.pid, flush=True)
    print("held", time.monotonic(), flush=True)
    if manner == "give":
        while not hold.wanted():
            time.sleep(0.02)
        print("asked by", hold.wanted(), flush=True)
        time.sleep(1)  # it drains: longer than an asker tries before it says that it waits
    else:
        sys.stdin.read()
print("let go", time.monotonic(), flush=True)
"""


class Other:
    """Another process that wants, or holds, the device `cpu`."""

    def __init__(self, purpose: str, *, ask: bool = False, manner: str = "keep") -> None:
        command = [sys.executable, "-c", HOLDER, purpose, "ask" if ask else "take", manner]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY
        )

    @property
    def who(self) -> str:
        return f"{self.process.args[3]}, pid {self.process.pid}"  # type: ignore[index]

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def held(self) -> float:
        """When it got the device."""
        word, _, at = self.line().partition(" ")
        assert word == "held", self.process.communicate()
        return float(at)

    def end(self) -> tuple[str, str]:
        """Let it go; its output."""
        return self.process.communicate(timeout=60)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(30)


@pytest.fixture
def others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Other]]:
    """Start other processes, in a folder of locks of this test's own."""
    monkeypatch.setenv(FOLDER, str(tmp_path / "qpt"))
    started: list[Other] = []

    def start(purpose: str, **how: object) -> Other:
        started.append(Other(purpose, **how))  # type: ignore[arg-type]
        return started[-1]

    yield start
    for other in started:
        if other.process.poll() is None:
            other.kill()
        other.process.communicate()


def _until(condition: Callable[[], object]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.02)


def _free() -> bool:
    return device_holder("cpu") == ""


def test_a_device_that_is_held_is_refused_naming_the_holder(others: Callable[..., Other]) -> None:
    assert _free()
    holder = others("factory run")
    holder.held()
    assert device_holder("cpu") == holder.who
    with pytest.raises(Failure, match=f"held by factory run, pid {holder.process.pid}") as caught, _held("trainer run"):
        pytest.fail("two held one device")
    assert "factory stop" in caught.value.mend
    with _held("another", "e"):
        assert device_holder("e") == f"another, pid {os.getpid()}"
    holder.end()
    with _held("trainer run") as hold:
        assert hold.wanted() == ""
    assert _free()


def test_an_asker_gets_it_when_the_holder_hands_over_and_nobody_comes_in_between(others: Callable[..., Other]) -> None:
    holder = others("factory run", manner="give")
    holder.held()
    asker = others("trainer run", ask=True)
    asker.held()
    assert holder.line() == f"asked by {asker.who}"
    assert holder.line().startswith("let go")
    # the holder comes back too soon: the asker has it
    with pytest.raises(Failure, match=f"held by trainer run, pid {asker.process.pid}"), _held("factory run"):
        pytest.fail("two held one device")
    _, said = asker.end()
    assert f"the CPU is held by {holder.who}: asked it to hand over, waiting" in said
    assert said.count("waiting") == 1
    assert said.count("is ours now") == 1
    assert device_wanted_by("cpu") == ""


def test_while_somebody_asks_nobody_else_takes_it(
    others: Callable[..., Other], monkeypatch: pytest.MonkeyPatch
) -> None:
    with _held("factory run") as hold:
        asker = others("trainer run", ask=True)
        _until(hold.wanted)
        assert hold.wanted() == device_wanted_by("cpu") == asker.who
        os.kill(asker.process.pid, signal.SIGSTOP)  # it is slow to take what it was given
    with pytest.raises(Failure, match=f"asked for by trainer run, pid {asker.process.pid}"), _held("factory run"):
        pytest.fail("the asker was passed over")
    os.kill(asker.process.pid, signal.SIGCONT)
    asker.held()


def test_askers_stand_in_line(others: Callable[..., Other]) -> None:
    with _held("factory run") as hold:
        first = others("first", ask=True)
        _until(lambda: hold.wanted() == first.who)
        second = others("second", ask=True)
        assert second.process.stderr is not None
        assert f"asked for by {first.who} already: waiting in line" in second.process.stderr.readline()
    began = first.held()
    _until(lambda: device_wanted_by("cpu") == second.who)  # and the first one hears of the second
    first.end()
    assert second.held() > began


def test_a_killed_holder_holds_nothing_not_by_its_children_either(
    others: Callable[..., Other],
) -> None:
    holder = others("factory run", manner="fork")
    fork, child, left = map(int, holder.line().split())
    holder.held()
    asker = others("trainer run", ask=True)
    _until(lambda: device_wanted_by("cpu"))
    began = time.monotonic()
    try:
        holder.kill()
        print(f"\nthe asker has the device {asker.held() - began:.3f} s after its holder was killed")
        # what had been started on the device is gone; what had not is not touched
        _, said = asker.end()
        assert f"ending what a killed process left on the CPU: pids {left}" in said
        assert session_members(left) == []
        assert session_members(child) == [child]
        os.kill(fork, 0)
    finally:
        for pid in (fork, child):
            os.kill(pid, signal.SIGKILL)


def test_a_killed_asker_asks_for_nothing(others: Callable[..., Other]) -> None:
    with _held("factory run") as hold:
        asker = others("trainer run", ask=True)
        _until(hold.wanted)
        asker.kill()
        assert hold.wanted() == ""
    with _held("factory run"):
        pass  # and it can be had again


def test_ctrl_c_ends_the_waiting(others: Callable[..., Other]) -> None:
    with _held("factory run") as hold:
        asker = others("trainer run", ask=True)
        _until(hold.wanted)
        asker.process.send_signal(signal.SIGINT)
        _, said = asker.end()
        assert "KeyboardInterrupt" in said
        assert hold.wanted() == ""


def test_files_of_the_dead_and_cleared_files_are_no_hindrance(tmp_path: Path, others: Callable[..., Other]) -> None:
    folder = tmp_path / "qpt"
    folder.mkdir(mode=0o700)
    for name in ("cpu.lock", "cpu.wanted"):
        (folder / name).write_text("factory run, pid 1")
    assert (device_holder("cpu"), device_wanted_by("cpu")) == ("", "")
    with _held("one") as hold:
        (folder / "cpu.wanted").unlink()
        asker = others("two", ask=True)
        _until(hold.wanted)
    asker.held()
    assert device_holder("cpu") == asker.who


def test_looking_takes_it_from_nobody(others: Callable[..., Other]) -> None:
    """Who looks locks for a moment; who takes must not stumble over that."""
    watch = "import time\nfrom foundation.devices import *\nprint('up', flush=True)\nwhile True: device_holder('cpu'), device_wanted_by('cpu')"
    watcher = subprocess.Popen([sys.executable, "-c", watch], cwd=REPOSITORY, stdout=subprocess.PIPE)
    try:
        assert watcher.stdout is not None
        assert watcher.stdout.readline()
        for number in range(50):
            with _held(f"holder {number}"):
                pass
    finally:
        watcher.kill()
        watcher.communicate()


def test_a_folder_that_others_can_enter_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path / "qpt"))
    (tmp_path / "qpt").mkdir(mode=0o777)
    (tmp_path / "qpt").chmod(0o777)
    with pytest.raises(Failure, match="not this user's alone"), _held("x"):
        pytest.fail("locks where anybody can put them")
    (tmp_path / "qpt").rmdir()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "qpt").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Failure, match="not this user's alone"), _held("x"):
        pytest.fail("followed a link")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_another_users_file_or_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path / "qpt"))
    with _held("x"):
        pass
    os.chown(tmp_path / "qpt" / "cpu.lock", 12345, 12345)
    with pytest.raises(Failure, match="not this user's alone"), _held("x"):
        pytest.fail("locked another user's file")
    os.chown(tmp_path / "qpt", 12345, 12345)
    with pytest.raises(Failure, match="not this user's alone"), _held("x"):
        pytest.fail("locks where another user puts them")


def test_a_login_that_comes_or_goes_moves_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service has no runtime folder before the first login, and loses it after the last; a shell may have a TMPDIR."""
    monkeypatch.delenv(FOLDER)
    monkeypatch.setattr(devices.Path, "mkdir", lambda *_, **__: None)  # only looked at: it is the user's own
    monkeypatch.setattr(devices.Path, "lstat", lambda _: os.lstat(tmp_path))
    tmp_path.chmod(0o700)
    for name in ("XDG_RUNTIME_DIR", "TMPDIR", "TMP", "TEMP"):
        monkeypatch.setenv(name, str(tmp_path))
        assert devices._folder() == Path(f"/tmp/qpt-{os.getuid()}")
        monkeypatch.delenv(name)
        assert devices._folder() == Path(f"/tmp/qpt-{os.getuid()}")


def test_what_clears_old_files_away_passes_over_a_held_devices_folder(others: Callable[..., Other]) -> None:
    """systemd-tmpfiles passes over a folder that it cannot lock."""

    def clears() -> bool:
        descriptor = os.open(devices._folder(), os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(descriptor)
        return True

    assert clears()
    holder = others("trainer run")
    holder.held()
    assert not clears()
    with _held("two devices", "e"):
        holder.kill()
        assert not clears()
    assert clears()


def test_a_stage_holds_nothing_since_its_parent_does(
    others: Callable[..., Other], monkeypatch: pytest.MonkeyPatch
) -> None:
    others("trainer run --orchestrate").held()
    monkeypatch.setenv(STAGE, "a run")
    with _held("trainer run") as hold:
        assert hold.wanted() == ""
        assert hold.environment == {}


def test_a_fork_neither_holds_nor_hears(others: Callable[..., Other]) -> None:
    with _held("factory run") as hold:
        asker = others("trainer run", ask=True)
        _until(hold.wanted)
        child = os.fork()
        if not child:
            os._exit(0 if hold.wanted() == "" else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert hold.wanted() == asker.who


def test_the_device_is_the_first_visible_gpu() -> None:
    uuids = ["GPU-aaaa-1", "GPU-bbbb-2", "GPU-bbcc-3"]
    assert choose_gpus(None, uuids) == [0, 1, 2]
    assert choose_gpus("2,0", uuids) == [2, 0]
    assert choose_gpus("GPU-bbbb", uuids) == [1]
    assert choose_gpus("1,GPU-bb,0", uuids) == [1], "an entry that is not one GPU's ends the list"
    assert choose_gpus("", uuids) == choose_gpus("-1", uuids) == []
    assert choose_gpus("MIG-4242", uuids) == [0, 1, 2]
    assert device_name() == "cpu" or device_name().startswith("gpu-")
    assert marked(MARK, "no such mark") == []


def _held(purpose: str, name: str = "cpu"):  # type: ignore[no-untyped-def]
    return hold_device(purpose, name=name)
