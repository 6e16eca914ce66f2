"""Process groups end whole: children, grandchildren, and those that ignore TERM."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from foundation.errors import Failure
from foundation.processes import ProcessGroup, running, session_members

FAMILY = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"])
subprocess.Popen([sys.executable, "-c", "import os, time; os.setpgid(0, 0); time.sleep(60)"])
print("up", flush=True)
time.sleep(60)
"""


def _wait_for(condition, seconds: float = 15.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.02)


def test_end_leaves_no_member(tmp_path: Path) -> None:
    group = ProcessGroup([sys.executable, "-c", FAMILY], name="family", log=tmp_path / "log")
    _wait_for(lambda: len(session_members(group.session)) == 3 and "up" in group.tail())
    time.sleep(0.3)  # the child needs a moment to ignore TERM
    group.end(patience=0.5)
    assert session_members(group.session) == []
    assert not group.alive


def test_running_ends_the_group_when_the_body_fails(tmp_path: Path) -> None:
    group = ProcessGroup([sys.executable, "-c", "import time; time.sleep(60)"], name="sleeper", log=tmp_path / "log")
    with pytest.raises(RuntimeError), running(group):
        raise RuntimeError
    assert not group.alive


def test_a_killed_parent_takes_its_group_along(tmp_path: Path) -> None:
    script = (
        "import sys, time\nfrom foundation.processes import ProcessGroup\n"
        "group = ProcessGroup([sys.executable, '-c', 'import time; time.sleep(60)'], name='child')\n"
        "print(group.session, flush=True)\ntime.sleep(60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    assert parent.stdout is not None
    session = int(parent.stdout.readline())
    assert session_members(session)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait(10)
    _wait_for(lambda: not session_members(session))


def test_a_missing_program_is_a_failure() -> None:
    with pytest.raises(Failure, match="no such program"):
        ProcessGroup(["/no/such/program"], name="nothing")
