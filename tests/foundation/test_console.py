"""What a user sees when a command ends badly, as a real process."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
SCRIPT = """
import sys
from foundation.console import new_app, run_app
from foundation.errors import Failure, UsageError
app = new_app("test")

@app.command()
def go(how: str) -> None:
    if how == "usage":
        raise UsageError("wrong word", where="here:3", mend="say it right")
    if how == "failure":
        raise Failure("it broke")
    if how == "disk":
        raise OSError(28, "No space left on device", "/w/x")
    if how == "bug":
        raise KeyError("oops")
    if how == "interrupt":
        raise KeyboardInterrupt
    print("fine")

@app.command()
def other() -> None:
    pass

run_app(app)
"""


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, cwd=REPOSITORY, timeout=60
    )


@pytest.mark.parametrize(
    ("how", "code", "text"),
    [
        ("usage", 2, "error: wrong word\n  where: here:3\n  mend:  say it right"),
        ("failure", 1, "error: it broke"),
        ("disk", 1, "the disk is full"),
        ("bug", 1, "internal error: KeyError"),
        ("interrupt", 130, ""),
    ],
)
def test_errors_are_one_message_and_a_code(how: str, code: int, text: str) -> None:
    done = _run("go", how)
    assert done.returncode == code
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("arguments", [("--debug", "go", "failure"), ("go", "failure", "--debug")])
def test_debug_shows_the_traceback_wherever_it_stands(arguments: tuple[str, ...]) -> None:
    done = _run(*arguments)
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_wrong_use_of_the_command_line_is_2() -> None:
    assert _run("nonsense").returncode == 2
    assert _run("go").returncode == 2
    assert _run("go", "well").returncode == 0


def _on_a_terminal(script: str) -> tuple[int, str]:
    """Exit code and output of a Python script whose standard output and error are a terminal of 80 x 24."""
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=slave, stdout=slave, stderr=slave, cwd=REPOSITORY, env=environment
    )
    os.close(slave)
    output = b""
    while True:
        try:
            chunk = os.read(master, 65536)
        except OSError:  # the last one that had it open is gone
            break
        if not chunk:
            break
        output += chunk
    os.close(master)
    return process.wait(60), output.decode("utf-8", "replace")


BAR = """
import os, threading, time
from foundation import console
console.REDRAW = 0.05
with console.progress("units", 500) as bar:
    for number in range(500):
        bar.advance(1, f"note {number} [of mine]")
        time.sleep(0.001)
    assert threading.active_count() == 1, threading.enumerate()
    assert len(os.listdir("/proc/self/task")) == 1
    console.say("a line between")
print("done")
"""


def test_a_bar_on_a_terminal_needs_no_thread() -> None:
    code, output = _on_a_terminal(BAR)
    assert code == 0, output
    assert "500/500" in output
    assert "note 499 [of mine]" in output
    assert "a line between" in output
    pictures = output.count("units")
    print(f"{pictures} pictures of 500 steps")
    assert 2 <= pictures < 250


LIVE = """
import os, time
from rich.text import Text
from foundation.console import live
with live() as draw:
    for number in range(3):
        draw(Text(f"picture {number}\\n" + "\\n".join(f"row {row}" for row in range(40))))
        assert len(os.listdir("/proc/self/task")) == 1
"""


def test_a_live_picture_is_redrawn_in_place_without_a_thread() -> None:
    code, output = _on_a_terminal(LIVE)
    assert code == 0, output
    assert [f"picture {number}" in output for number in range(3)] == [True] * 3
    assert "\x1b[1A" in output or "\x1b[2K" in output  # the cursor goes back up
    first = output.partition("picture 1")[0]
    assert "row 10" in first
    assert "row 30" not in first  # more than the terminal has room for is cut


def test_progress_without_a_terminal_is_lines() -> None:
    script = """
from foundation import console
console.SPEAK = 0
with console.progress("read", 3) as bar:
    bar.advance(2, "two")
    bar.advance(0)
    bar.advance(1)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=REPOSITORY, timeout=60)
    assert done.stdout == ""
    assert done.stderr.splitlines() == ["read: 2 of 3  two", "read: 3 of 3  two", "read: 3 of 3  two"]


def test_json_on_one_line_and_tables_without_headings() -> None:
    script = """
from foundation.console import emit_json, grid, show
emit_json({"a": [1, {"b": "ü"}]}, line=True)
show(grid(("", ""), [("units", 1234), ("state", "[paused]")]))
show(grid(("name", "count"), [("x", 1234567)]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=REPOSITORY, timeout=60)
    first, *rows = done.stdout.splitlines()
    assert json.loads(first) == {"a": [1, {"b": "ü"}]}
    assert [row.split() for row in rows] == [
        ["units", "1,234"],
        ["state", "[paused]"],
        ["name", "count"],
        ["x", "1,234,567"],
    ]
