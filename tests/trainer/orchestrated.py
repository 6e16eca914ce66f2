"""What the tests of orchestrated runs share: a workspace that is ready, the command as a process, what it left."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from foundation.ids import stable_id
from foundation.workspace import Workspace
from tests.support.commands import REPOSITORY
from tests.trainer.small_run import packed_workspace

SETTINGS = "\n[orchestrate]\nrounds = 2\n\n[judge]\nanswers = 3\ncanaries = 8\n"


def packed(folder: Path) -> Path:
    """A workspace with packs, to be copied; eight steps in all."""
    packed_workspace(folder, 2, epochs=1.0, evaluate_every=4, checkpoint_every=2)
    with open(folder / "factory.toml", "a", encoding="utf-8") as file:
        file.write(SETTINGS)
    return folder


def copied(packed: Path, folder: Path) -> Workspace:
    subprocess.run(["cp", "-a", str(packed), str(folder)], check=True)  # links of the packs included
    return Workspace(folder)


def weights(workspace: Workspace, name: str = "main") -> str:
    """The newest checkpoint's name and what is in it."""
    newest = sorted((workspace.train / "runs" / name / "checkpoints").glob("step-*"))[-1]
    return newest.name + hashlib.sha256((newest / "model.safetensors").read_bytes()).hexdigest()


def rounds(workspace: Workspace, name: str = "main") -> list[dict[str, Any]]:
    """The judgings of a run, without what they cost."""
    lines = (workspace.train / "runs" / name / "rounds.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "seconds"} for line in lines]


def start(workspace: Workspace, name: str = "main", *options: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "trainer.cli", "run", "--orchestrate", "--run", name, "--json", *options]
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]))
    return subprocess.Popen(
        argv,
        cwd=workspace.root,
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def until(condition: Callable[[], object], process: subprocess.Popen[str], seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def marks(workspace: Workspace, name: str = "main") -> list[str]:
    """What the processes of a run's stages are marked with: in turn, and beside the training."""
    return [stable_id("orchestrate", str(workspace.root), name, *more) for more in ((), ("judge",))]
