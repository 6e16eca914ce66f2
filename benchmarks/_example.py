"""A workspace of the example corpus with records of every prompt type, as the trainer's benchmarks start from. 40 s."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
STEPS = ("shuffle", "tokenizer", "pack")


def example_workspace(folder: Path, settings: str = "", upto: str = "pack") -> Path:
    """Make one in `folder`, with `settings` behind the version in its factory.toml, and train's data up to that step.

    Raises `SystemExit` if a command fails.
    """
    workspace = folder / "workspace"
    _command(folder, "generator", "init", str(workspace))
    (workspace / "factory.toml").write_text(f'version = 1\n[teacher]\nbackend = "rules"\n{settings}', "utf-8")
    _command(workspace, "generator", "ingest", str(REPOSITORY / "examples/wwii/articles"))
    _command(workspace, "generator", "enqueue", "--all")
    _command(workspace, "generator", "work", "--burst")
    for step in STEPS[: STEPS.index(upto) + 1]:
        _command(workspace, "trainer", step)
    return workspace


def _command(folder: Path, room: str, *arguments: str) -> None:
    argv = [sys.executable, "-c", f"from {room}.cli import main; main()", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{room} {' '.join(arguments)} ended with {done.returncode}:\n{done.stderr}")
