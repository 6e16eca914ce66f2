"""Workspaces to look at: planned units, and the snapshot that a running command would write."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

from foundation.workspace import Workspace
from generator.catalogue import select
from queue_workers import plan, snapshot
from queue_workers.identity import began
from queue_workers.snapshot import GpuUse, Snapshot, TeacherUse
from tests.queue_workers.conftest import add_block

GPU = GpuUse(name='Card "A"\\B', used=12 * 2**30, total=16 * 2**30, busy=0.97, watts=281.5)
TEACHER = TeacherUse(
    name="vllm Qwen3", state="well", running=96, waiting=4, limit=48, queries=1000, hits=640, restarts=2
)


def plan_units(workspace: Workspace, snippets: int = 128, types: Sequence[str] = ("wh/when", "wh/who")) -> plan.Plan:
    """Plan a block of `snippets` for some prompt types; nothing is queued. Those two have units of 64."""
    block, chosen = add_block(workspace, snippets), select(types)
    new = plan.draft(plan.load_plan(workspace.store), chosen, [block], round_=0, priority="normal")
    plan.add(workspace.store, new, chosen, workspace.settings.split)
    return new


def say_running(workspace: Workspace, pid: int | None = None, **fields: Any) -> Snapshot:
    """Write the snapshot of `factory run` as process `pid` (this one) would."""
    pid, now = pid or os.getpid(), time.time()
    given = {"command": "run", "since": now - 3600, "written": now, "state": "working", "workers": 3, **fields}
    made = Snapshot(pid=pid, began=began(pid), **given)
    snapshot.write(workspace, made)
    return made
