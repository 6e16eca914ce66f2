"""A full disk under training: one clear message, the last good state kept, and the run goes on when there is room."""

from __future__ import annotations

import json
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from foundation.workspace import FILE, Workspace
from tests.faults.conftest import Recovery
from tests.faults.test_disk import MB, fill
from tests.faults.test_trainer_kills import RICH, Case, assert_unbroken, finish, make_case, start, step_of, wait_until
from tests.support.disk import small_disk
from tests.trainer.small_run import packed_workspace
from trainer import checkpoint
from trainer.checkpoint import MODEL


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    """A workspace on a file system of 400 MB: room for a dozen checkpoints of the smallest preset."""
    with small_disk(tmp_path_factory.mktemp("small"), 400) as folder:
        yield make_case(folder / "w", 10, {**RICH, "physical_batch": 4})


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


def test_a_full_disk_while_checkpointing(case: Case, recovery: Recovery) -> None:
    folder = case.run("full")
    process = start(case.workspace, "full")
    wait_until(lambda: step_of(folder) >= 4, process)
    ballast = fill(case.workspace.root, leave=20 * MB)  # the lines of metrics still fit, a checkpoint does not
    _, err = process.communicate(timeout=120)
    ballast.unlink()
    assert process.returncode == 1, err
    assert "the checkpoint of step 6 could not be written: No space left on device" in err
    assert str(folder / "checkpoints") in err
    assert "make room there, then run the same command again" in err
    assert "Traceback" not in err
    assert whole(folder) == ["step-000003"]
    with recovery("a full disk under a checkpoint, room made, the command given again"):
        assert "going on from step 3" in finish(case, "full")
    assert_unbroken(case, "full")
    assert whole(folder) == ["step-000009", "step-000010"]


@pytest.mark.slow
def test_a_full_disk_between_checkpoints(case: Case) -> None:
    """The next line of metrics is what hits it, perhaps in its middle; and then it cannot even begin."""
    rare = settings(case, checkpoint_every=4)
    folder = case.run("lines")
    process = start(rare.workspace, "lines")
    wait_until(lambda: step_of(folder) >= 5, process)
    process.send_signal(signal.SIGSTOP)  # it would go on to another checkpoint while the disk is being filled
    kept, ballast = whole(folder), fill(case.workspace.root)
    assert kept
    process.send_signal(signal.SIGCONT)
    for _ in range(2):
        _, err = process.communicate(timeout=120)
        assert process.returncode == 1, err
        assert "No space left on device" in err
        assert "make room" in err
        assert "Traceback" not in err
        assert whole(folder) == kept
        process = start(rare.workspace, "lines")
    process.kill()
    process.communicate()
    ballast.unlink()
    case = settings(case, checkpoint_every=3)
    finish(case, "lines")
    assert_unbroken(case, "lines")


def _limited() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (4 * MB, resource.RLIM_INFINITY))


@pytest.mark.slow
def test_a_quota_lets_small_files_through_and_refuses_the_weights(tmp_path: Path) -> None:
    workspace = packed_workspace(tmp_path, 2, epochs=0.5, context=64, checkpoint_every=2, evaluate_every=100)
    folder = workspace.train / "runs/limited"
    process = start(workspace, "limited", _limited)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1, err
    assert "Traceback" not in err
    assert "the checkpoint of step 2 could not be written: File too large" in err
    assert "make room there" in err
    assert list((folder / "checkpoints").iterdir()) == []
    process = start(workspace, "limited")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert (Path(json.loads(out)["checkpoint"]) / MODEL).stat().st_size > 4 * MB
