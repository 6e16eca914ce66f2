"""Bad input to the trainer's commands: one message that says what, where and the mend, and nothing is destroyed by it."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from foundation.workspace import Workspace
from tests.faults.test_trainer_kills import start, step_of, wait_until
from tests.support.commands import REPOSITORY, run
from tests.trainer.small_run import THREADS, packed_workspace, train_run
from trainer import checkpoint
from trainer.checkpoint import MODEL, STATE


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Packs, and a run `main` of two steps with a checkpoint of each; tests leave both as they are."""
    workspace = packed_workspace(
        tmp_path_factory.mktemp("input"), 3, context=64, evaluate_every=100, checkpoint_every=1, epochs=4.0
    )
    train_run(workspace, "main", until=2)
    return workspace


def content(folder: Path) -> dict[str, str]:
    """Every file's SHA-256, but for locks."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def refused(workspace: Workspace, *command: str, code: int, env: dict[str, str] | None = None) -> str:
    """The message of a command that ends with `code`; it left every file of the workspace as it was."""
    before = content(workspace.root)
    err = run("trainer", *command, cwd=workspace.root, code=code, env={**THREADS, **(env or {})}).stderr
    assert "Traceback" not in err
    assert "internal error" not in err
    assert err.count("error:") == 1
    assert "where:" in err
    assert "mend:" in err
    assert {name: sha for name, sha in content(workspace.root).items() if name in before} == before
    return err[err.index("error:") :]


def changed(path: Path, text: str) -> str:
    """Put `text` into a file; returns what was there."""
    before = path.read_text()
    path.write_text(text)
    return before


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"FACTORY_TRAIN__LEARNING_RATE": "0.5"}, "train.learning_rate was 0.003 when run main began, and is 0.5 now"),
        ({"FACTORY_MIX__WEIGHTS": '{"qa": 2}'}, 'mix.weights was {} when run main began, and is {"qa": 2.0} now'),
    ],
)
def test_a_checkpoint_of_another_config(ready: Workspace, environment: dict[str, str], named: str) -> None:
    said = refused(ready, "run", code=2, env=environment)
    assert named in said
    assert "step 2 of run main" in said
    assert "--fresh" in said


def test_a_tokenizer_that_does_not_match_the_data(ready: Workspace) -> None:
    tokenizer = ready.train / "tokenizer.json"
    before = changed(tokenizer, tokenizer.read_text() + "\n")
    try:
        said = refused(ready, "run", code=2)
    finally:
        tokenizer.write_text(before)
    assert "the packs were made with another tokenizer" in said
    assert "train" in said
    assert "`trainer pack`" in said


def test_no_packs(ready: Workspace) -> None:
    packs = ready.train / "packs"
    packs.rename(packs.with_name("away"))
    try:
        said = refused(ready, "run", code=2)
    finally:
        packs.with_name("away").rename(packs)
    assert "there are no packs here" in said
    assert "`trainer pack`" in said


@pytest.mark.parametrize("name", ["tokens.bin", "mask.bin", "records.npy", "meta.json"])
def test_packs_that_are_torn(ready: Workspace, name: str) -> None:
    path = ready.train / "packs/train" / name
    before = path.read_bytes()
    path.write_bytes(before[: len(before) // 2])
    try:
        said = refused(ready, "run", code=1)
    finally:
        path.write_bytes(before)
    assert "the packs are damaged" in said
    assert "`trainer pack`" in said


def test_a_context_longer_than_the_positions(tmp_path: Path) -> None:
    workspace = packed_workspace(tmp_path, 2, context=8192)
    said = refused(workspace, "run", code=2, env={"FACTORY_TRAIN__PRESET": "wwii-183m"})
    assert "a context of 8,192 tokens, and the preset wwii-183m has learned 4,096 positions" in said
    assert "train.context" in said
    assert "set it to 4096 or less, then run `trainer pack` again" in said


def test_packs_with_nothing_to_learn_from(ready: Workspace) -> None:
    """All answers masked out: packs of before the packer refused it, or made by hand."""
    meta = (ready.train / "packs/train/meta.json").resolve()
    mask = meta.with_name("mask.bin")
    bytes_before, row = mask.read_bytes(), json.loads(meta.read_text())
    before = changed(meta, json.dumps(row | {"supervised": 0}))
    mask.write_bytes(bytes(len(bytes_before)))
    try:
        said = refused(ready, "run", "--run", "masked", code=2)
    finally:
        meta.write_text(before)
        mask.write_bytes(bytes_before)
    assert "nothing to learn from" in said


def test_a_context_without_an_answer_is_a_step_without_a_gradient(tmp_path: Path) -> None:
    """A pack that is masked out whole, among others that are not: no step on it divides by nothing."""
    workspace = packed_workspace(tmp_path, 2, batch=1, context=64, evaluate_every=100, epochs=1.0)
    folder = (workspace.train / "packs/train").resolve()
    (folder / "mask.bin").write_bytes(bytes((folder / "mask.bin").stat().st_size))
    summary = train_run(workspace, "masked", until=3)
    assert (summary.step, summary.loss, summary.skipped) == (3, 0.0, 0)


def test_a_broken_line_and_a_record_without_an_answer(tmp_path: Path) -> None:
    workspace = packed_workspace(tmp_path, 2, context=64)
    shard = min(workspace.root.glob("shards/*/*/*.jsonl"))
    lines = shard.read_text().splitlines(keepends=True)
    dumb = json.loads(lines[1]) | {"supervised": []}
    shard.write_text("".join([lines[0][:40] + "\n", json.dumps(dumb) + "\n", *lines[2:]]))
    before = content(workspace.root / "shards")
    said = run("trainer", "shuffle", cwd=workspace.root).stderr
    assert f"{shard.relative_to(workspace.root)}:1" in said
    assert "broken" in said
    assert dumb["id"] in said or f"{shard.relative_to(workspace.root)}:2" in said
    assert "answer" in said
    assert content(workspace.root / "shards") == before
    run("trainer", "pack", cwd=workspace.root)


@pytest.mark.parametrize("name", [MODEL, STATE])
def test_a_corrupt_checkpoint_that_is_named(ready: Workspace, name: str, tmp_path: Path) -> None:
    path = ready.train / "runs/main/checkpoints/step-000002" / name
    before = path.read_bytes()
    harmed = bytearray(before)
    harmed[len(harmed) // 2] ^= 4
    path.unlink()
    path.write_bytes(harmed)
    try:
        command = ("answer", "--checkpoint", str(path.parent), "--out", str(tmp_path / "answers.jsonl"))
        said = refused(ready, *command, code=1)
    finally:
        path.unlink()
        path.write_bytes(before)
    assert f"{name} is not what was written" in said or f"{name} cannot be read" in said
    assert str(path.parent) in said
    assert "the checkpoint before it" in said
    assert not (tmp_path / "answers.jsonl").exists()


def test_a_run_whose_checkpoints_are_all_damaged_does_not_begin_anew_by_itself(ready: Workspace) -> None:
    paths = [ready.train / f"runs/main/checkpoints/step-00000{step}" / MODEL for step in (1, 2)]
    kept = [path.read_bytes() for path in paths]
    for path in paths:
        os.truncate(path, 100)
    try:
        said = refused(ready, "run", code=1)
    finally:
        for path, data in zip(paths, kept, strict=True):
            path.write_bytes(data)
    assert "none of the 2 checkpoints of this run is whole" in said
    assert "--fresh" in said


def limited(ready: Workspace, name: str, megabytes: int, **settings: object) -> str:
    """What a run says that may have so much memory and no more, and for which that is not enough."""
    more = {f"FACTORY_TRAIN__{key.upper()}": str(value) for key, value in settings.items()}
    process = subprocess.Popen(
        [sys.executable, "-c", "from trainer.cli import main; main()", "run", "--run", name],
        cwd=ready.root,
        env={**os.environ, **THREADS, "PYTHONPATH": str(REPOSITORY), **more},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20)),
    )
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1, err
    assert "Traceback" not in err
    assert f"run {name}" in err
    return err


def test_out_of_memory_at_step_one(ready: Workspace) -> None:
    said = limited(ready, "greedy", 1800, batch=300, physical_batch=300)
    assert "out of memory in step 1, with 300 contexts at once" in said
    assert "a smaller --batch" in said


def test_a_model_that_does_not_fit_into_memory(ready: Workspace) -> None:
    said = limited(ready, "huge", 1536, preset="ladder-1b", context=64)
    assert "out of memory before the first step" in said
    assert "smaller preset" in said


@pytest.mark.slow
def test_out_of_memory_later_on(ready: Workspace) -> None:
    """From one moment to the next the process may have no more than it has."""
    folder = ready.train / "runs/later"
    process = start(ready, "later")
    wait_until(lambda: step_of(folder) >= 3, process)
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(0.1)
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[0])
    resource.prlimit(process.pid, resource.RLIMIT_AS, (pages * resource.getpagesize(), resource.RLIM_INFINITY))
    os.kill(process.pid, signal.SIGCONT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1, err
    assert "Traceback" not in err
    assert "out of memory in step" in err
    found = checkpoint.latest(folder / "checkpoints")
    assert found is not None
    assert found[1].step >= 2
    assert train_run(ready, "later", until=found[1].step + 1).step == found[1].step + 1
