"""A folder that is replaced as a whole: whoever is killed, what was there before is there still."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from trainer.paths import new_folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.resolve().iterdir()}


KILLED = """
import os, sys
from pathlib import Path
from trainer.paths import new_folder
with new_folder(Path(sys.argv[1])) as folder:
    (folder / "half").write_text("half")
    os.kill(os.getpid(), 9)
"""


def test_a_killed_writer_leaves_the_former_folder_and_is_swept_up_after(tmp_path: Path) -> None:
    target = tmp_path / "target"
    with new_folder(target) as folder:
        (folder / "whole").write_text("first")

    here = Path(__file__).parents[2]
    ended = subprocess.run([sys.executable, "-c", KILLED, str(target)], cwd=here, check=False)

    assert ended.returncode == -signal.SIGKILL
    assert contents(target) == {"whole": b"first"}
    assert len(list(tmp_path.iterdir())) == 3  # the link, its folder, and what the killed one left
    with new_folder(target) as folder:
        (folder / "whole").write_text("second")
    assert contents(target) == {"whole": b"second"}
    assert len(list(tmp_path.iterdir())) == 2


def test_a_link_that_became_a_folder_is_replaced_too(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "old").write_text("old")
    with new_folder(target) as folder:
        (folder / "new").write_text("new")
    assert contents(target) == {"new": b"new"}
    assert len(list(tmp_path.iterdir())) == 2


MOVED_ASIDE = """
import os, sys
from pathlib import Path
from trainer.paths import new_folder
os.replace = lambda *names: os.kill(os.getpid(), 9)
with new_folder(Path(sys.argv[1])) as folder:
    (folder / "new").write_text("new")
"""


def test_a_folder_that_was_moved_aside_by_a_killed_writer_comes_back(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "old").write_text("old")

    here = Path(__file__).parents[2]
    ended = subprocess.run([sys.executable, "-c", MOVED_ASIDE, str(target)], cwd=here, check=False)

    assert ended.returncode == -signal.SIGKILL
    with pytest.raises(ZeroDivisionError), new_folder(target):
        raise ZeroDivisionError  # the next writer fails
    assert contents(target) == {"old": b"old"}
    assert len(list(tmp_path.iterdir())) == 1
