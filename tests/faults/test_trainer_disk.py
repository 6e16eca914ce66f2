"""A full disk under training: one clear message, the last good state kept, and the run goes on when there is room."""

from __future__ import annotations

import json
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from foundation.workspace import FILE, Workspace
from tests.faults.conftest import Recovery
from tests.faults.test_disk import MB, fill
from tests.faults.test_trainer_kills import RICH, Case, assert_unbroken, finish, make_case, start, step_of, wait_until
from trainer import checkpoint
from trainer.checkpoint import MODEL


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 240 MB: room for four checkpoints of the smallest preset and what is beside them."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=240m", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def settings(case: Case, **values: object) -> Case:
    """The case with other settings, among those that may change while a run is under way."""
    file = case.workspace.root / FILE
    for key, value in values.items():
        kept = [line for line in file.read_text().splitlines() if not line.startswith(f"{key} = ")]
        kept.insert(kept.index("[train]") + 1, f"{key} = {value}")
        file.write_text("\n".join(kept) + "\n")
    return Case(Workspace(case.workspace.root), case.steps, case.unbroken)


def whole(folder: Path) -> list[str]:
    """The names of what lies among a run's checkpoints; each has been checked."""
    paths = sorted((folder / "checkpoints").iterdir())
    for path in paths:
        checkpoint.read_state(path)
    return [path.name for path in paths]


def fails(case: Case, name: str, limit: Callable[[], None] | None = None) -> str:
    """Start it, let it fail with exit 1, and return its message."""
    process = start(case.workspace, name, limit)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1, err
    assert "Traceback" not in err
    assert "internal error" not in err
    return err[err.index("error:") :]


def test_a_full_disk_while_checkpointing(small_disk: Path, recovery: Recovery) -> None:
    case = make_case(small_disk / "w", 8, {**RICH, "physical_batch": 4})
    folder = case.run("full")
    process = start(case.workspace, "full")
    wait_until(lambda: step_of(folder) >= 4, process)
    ballast = fill(small_disk, leave=20 * MB)  # the lines of metrics still fit, a checkpoint does not
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1, err
    assert "the checkpoint of step 6 could not be written: No space left on device" in err
    assert str(folder / "checkpoints") in err
    assert "make room there, then run the same command again" in err
    assert "Traceback" not in err
    assert whole(folder) == ["step-000003"]
    assert "step 6 could not be written" in fails(case, "full")  # still no room: nothing is lost by trying
    assert whole(folder) == ["step-000003"]
    ballast.unlink()
    with recovery("a full disk under a checkpoint, room made, the command given again"):
        assert "going on from step 3" in finish(case, "full")
    assert_unbroken(case, "full")
    assert whole(folder) == ["step-000006", "step-000008"]


def test_a_full_disk_between_checkpoints(small_disk: Path) -> None:
    """The next line of metrics is what hits it: perhaps in its middle."""
    case = settings(make_case(small_disk / "w", 12, {**RICH, "physical_batch": 4}), checkpoint_every=2)
    folder = case.run("full")
    process = start(case.workspace, "full")
    wait_until(lambda: step_of(folder) >= 3, process)
    case = settings(case, checkpoint_every=100)
    process.kill()
    process.communicate()
    before = whole(folder)
    process = start(case.workspace, "full")
    wait_until(lambda: step_of(folder) >= 4, process)
    ballast = fill(small_disk)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1, err
    assert "No space left on device" in err
    assert "Traceback" not in err
    assert whole(folder) == before
    assert json.loads((folder / "run.json").read_text())["run"] == "full"
    said = fails(case, "full")  # it cannot even say what it is
    assert "No space left on device" in said
    assert "make room" in said
    assert whole(folder) == before
    ballast.unlink()
    finish(settings(case, checkpoint_every=3), "full")
    assert_unbroken(case, "full")


def _limited() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (4 * MB, resource.RLIM_INFINITY))


def test_a_quota_lets_small_files_through_and_refuses_the_weights(tmp_path: Path) -> None:
    case = make_case(tmp_path, 4, {"batch": 2, "keep": 1})
    said = fails(case, "limited", _limited)
    assert "the checkpoint of step 3 could not be written: File too large" in said
    assert "make room there" in said
    folder = case.run("limited")
    assert list((folder / "checkpoints").iterdir()) == []
    assert step_of(folder) == 3
    finish(case, "limited")
    assert_unbroken(case, "limited")
    assert (folder / "checkpoints/step-000004" / MODEL).stat().st_size > 4 * MB
