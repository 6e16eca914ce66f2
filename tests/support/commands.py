"""Run the project's own commands as a user does: real processes, their output and exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

MODULES = {"factory": "generator.cli", "trainer": "trainer.cli", "judge": "judge.cli"}
REPOSITORY = Path(__file__).resolve().parents[2]


def run(
    *command: str, cwd: Path, code: int = 0, timeout: float = 300, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `factory …`, `trainer …` or `judge …` in `cwd`; fails the test, with all output, if the exit code is another."""
    argv = [sys.executable, "-c", f"from {MODULES[command[0]]} import main; main()", *command[1:]]
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "PYTHONPATH": path, **(env or {})}
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=timeout, env=environment)
    assert done.returncode == code, (
        f"{' '.join(command)} ended with {done.returncode}\n--- out\n{done.stdout[-4000:]}\n--- err\n{done.stderr[-4000:]}"
    )
    return done


def run_json(*command: str, cwd: Path, timeout: float = 300, env: dict[str, str] | None = None) -> Any:
    """Run with `--json` and return the one document on standard output."""
    return json.loads(run(*command, "--json", cwd=cwd, timeout=timeout, env=env).stdout)


def shard_records(workspace: Path) -> list[dict[str, Any]]:
    """Every committed record, as plain JSON."""
    return [
        json.loads(line)
        for shard in sorted(workspace.glob("shards/*/*/*.jsonl"))
        for line in shard.read_bytes().splitlines()
    ]


def reject_lines(workspace: Path) -> list[dict[str, Any]]:
    """Every kept reject, as plain JSON."""
    return [
        json.loads(line)
        for file in sorted(workspace.glob("rejects/*/*/*.jsonl"))
        for line in file.read_bytes().splitlines()
    ]
