"""What a user sees when a command ends badly, as a real process."""

from __future__ import annotations

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
