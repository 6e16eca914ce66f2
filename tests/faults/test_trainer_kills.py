"""Training, killed, stopped and cut: what it ends with is what an unbroken run ends with, to the last bit."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from foundation.workspace import FILE, Workspace
from tests.faults.conftest import Recovery
from tests.support.commands import REPOSITORY
from tests.trainer.small_run import THREADS, packed_workspace
from tests.trainer.test_checkpoint import save, state_of, trained
from trainer import checkpoint
from trainer.checkpoint import MODEL, OPTIMIZER, STATE
from trainer.interrupt import STOP

SEED = 20_000
MIX = "[mix]\nweights = { contrastive = 0.5 }\ncurriculum = [{ qa = 0.5 }, { qa = 2.0 }]\n"
PLAIN: dict[str, object] = {"batch": 2}
RICH: dict[str, object] = {
    "batch": 4, "physical_batch": 2, "optimizer": "muon", "schedule": "wsd", "warmup": 0.1,
    "weight_decay": [[0.0, 0.1], [0.5, 0.05]],
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A workspace, how many steps its runs have, and what one of them that was never interrupted ended with."""

    workspace: Workspace
    steps: int
    unbroken: Path

    def run(self, name: str) -> Path:
        return self.workspace.train / "runs" / name


def make_case(path: Path, steps: int, train: dict[str, object], mix: str = "") -> Case:
    """`steps` steps of a run of one epoch and a bit; checkpoints every third, looks at the held-out splits every seventh."""
    settings = {"context": 64, "checkpoint_every": 3, "evaluate_every": 7, "compile": "off", **train}
    workspace = packed_workspace(path, 3, **settings)
    (workspace.root / FILE).write_text((workspace.root / FILE).read_text() + mix)
    epochs = steps * int(str(train["batch"])) / dry_run(workspace)
    text = (workspace.root / FILE).read_text()
    (workspace.root / FILE).write_text(text.replace("[train]", f"[train]\nepochs = {epochs}", 1))
    workspace = Workspace(workspace.root)
    process = start(workspace, "unbroken")
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return Case(workspace, json.loads(out)["steps"], workspace.train / "runs/unbroken")


def dry_run(workspace: Workspace) -> int:
    """Contexts in one epoch."""
    from trainer.plan import plan

    return plan(Workspace(workspace.root), "dry").epochs.bounds[1]


def start(workspace: Workspace, name: str, limit: Callable[[], None] | None = None) -> subprocess.Popen[str]:
    """`trainer run`, in a process and a group of its own, which calls `limit` first."""
    return subprocess.Popen(
        [sys.executable, "-c", "from trainer.cli import main; main()", "run", "--run", name, "--json"],
        cwd=workspace.root,
        env={**os.environ, **THREADS, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=limit,
    )


def step_of(folder: Path) -> int:
    """The last step whose line is whole."""
    try:
        content = (folder / "metrics.jsonl").read_bytes()
    except FileNotFoundError:
        return -1
    lines = content[: content.rfind(b"\n") + 1].splitlines()
    return int(json.loads(lines[-1])["step"]) if lines else -1


def wait_until(found: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Until it is so, or the process has ended."""
    deadline = time.monotonic() + 180
    while not found() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)


def kill(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def finish(case: Case, name: str) -> str:
    """Run it to its end; returns what it said."""
    process = start(case.workspace, name)
    _, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return err


def numbers(folder: Path) -> list[dict[str, Any]]:
    """Every line, but for what a clock or the machine says. Equal text of a float is equal bits."""
    timing = {"seconds", "tokens_per_second", "mfu", "memory"}
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in timing} for row in rows]


def assert_unbroken(case: Case, name: str) -> None:
    assert numbers(case.run(name)) == numbers(case.unbroken)
    here, there = (folder / f"checkpoints/step-{case.steps:06d}" for folder in (case.run(name), case.unbroken))
    for part in (MODEL, OPTIMIZER):
        assert (here / part).read_bytes() == (there / part).read_bytes(), part
    states = [json.loads((path / STATE).read_text()) for path in (here, there)]
    for state in states:
        del state["digest"], state["run"]
    assert states[0] == states[1]


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Twelve steps with everything that a step can have: accumulation, Muon, wsd, a mix and a curriculum."""
    return make_case(tmp_path_factory.mktemp("rich"), 12, RICH, MIX)


def act(case: Case, name: str, kills: int, seed: int) -> None:
    """SIGKILL at steps spread over the run, each a random moment after one; every fourth as a checkpoint is written."""
    draw, folder, done = random.Random(seed), case.run(name), 0
    while done < kills:
        process = start(case.workspace, name)
        mark = min(case.steps - 2, done * case.steps // kills)
        wait_until(lambda mark=mark: step_of(folder) >= mark, process)  # type: ignore[misc]
        if done % 4 == 3:
            wait_until(lambda: any((folder / "checkpoints").glob(".tmp-*")), process)
        time.sleep(draw.random() * 0.05)
        assert process.poll() is None, process.communicate()
        kill(process)
        done += 1
    assert "going on from step" in finish(case, name)


def test_three_kills(rich: Case, recovery: Recovery) -> None:
    with recovery("three kills of a training process"):
        act(rich, "killed", kills=3, seed=SEED)
    assert_unbroken(rich, "killed")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("train", "mix"), [(PLAIN, ""), (RICH, MIX)], ids=["plain", "rich"])
def test_twenty_kills(tmp_path: Path, train: dict[str, object], mix: str) -> None:
    case = make_case(tmp_path, 44, train, mix)
    act(case, "killed", kills=20, seed=SEED + len(mix))
    assert_unbroken(case, "killed")


def test_stops_are_obeyed_and_the_run_goes_on(rich: Case) -> None:
    folder = rich.run("stopped")
    for how, after in (("SIGTERM", 2), ("SIGINT", 5), (STOP, 8)):
        process = start(rich.workspace, folder.name)
        wait_until(lambda after=after: step_of(folder) >= after, process)  # type: ignore[misc]
        asked = time.monotonic()
        if how == STOP:
            (folder / STOP).touch()
        else:
            process.send_signal(signal.Signals[how])
        out, err = process.communicate(timeout=120)
        print(f"{how}: ended after {time.monotonic() - asked:.2f} s")
        assert process.returncode == 0, err
        assert "Traceback" not in err
        summary = json.loads(out)
        assert summary["stopped"] == ("stop" if how == STOP else "signal")
        assert after <= summary["step"] < rich.steps
        assert Path(summary["checkpoint"]).name == f"step-{summary['step']:06d}"
        assert checkpoint.read_state(Path(summary["checkpoint"])).step == summary["step"]
        assert not (folder / STOP).exists()
    finish(rich, folder.name)
    assert_unbroken(rich, folder.name)


@pytest.mark.slow
def test_a_torn_checkpoint_costs_the_steps_since_the_one_before(rich: Case) -> None:
    """As a machine that lost power leaves it, whatever its disk promised."""
    folder = rich.run("torn")
    process = start(rich.workspace, folder.name)
    wait_until(lambda: step_of(folder) >= 8, process)
    kill(process)
    before, torn = sorted((folder / "checkpoints").glob("step-*"))[-2:]
    os.truncate(torn / MODEL, (torn / MODEL).stat().st_size // 2)
    said = finish(rich, folder.name)
    assert f"passed over {torn.name}: {MODEL} is not what was written" in said
    assert f"going on from step {int(before.name.removeprefix('step-'))}" in said
    assert_unbroken(rich, folder.name)


def test_a_save_that_is_killed_anywhere_leaves_the_one_before_or_itself(tmp_path: Path) -> None:
    """A child that saves is killed at every so many calls it makes, from the first to the last."""
    folder = tmp_path / "checkpoints"
    for step in (1, 2):
        save(folder, step)
    whole = {step: checkpoint.read_state(folder / f"step-{step:06d}") for step in (1, 2)}
    calls = killed_at(tmp_path / "counted", 0)
    assert calls > 300
    ends = set()
    for number in range(1, calls, calls // 80):
        assert killed_at(folder, number) == -signal.SIGKILL
        found = checkpoint.latest(folder)
        assert found is not None
        state = found[1]
        ends.add(state.step)
        if state.step == 3:
            assert state.cursor == 12
            checkpoint.forget_after(folder, 2)
            save(folder, 2)
        else:
            assert state == whole[2]
            assert checkpoint.read_state(folder / "step-000001") == whole[1]
        for left in folder.glob("step-*"):
            assert checkpoint.read_state(left)
    assert ends == {2, 3}
    save(folder, 3)
    assert sorted(path.name for path in folder.iterdir()) == ["step-000002", "step-000003"]


def killed_at(folder: Path, number: int) -> int:
    """Save step 3 in a child that dies at its `number`th call; 0: it lives, and the number of its calls comes back."""
    model, optimizers = trained()
    state = state_of(model, 3)
    manifest = folder.parent / "source.json"
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        count = 0

        def note(_frame: object, event: str, _argument: object) -> None:
            nonlocal count
            count += event in ("call", "c_call")
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.setprofile(note)
        checkpoint.save(folder, model, optimizers, state, keep=2, manifest=manifest)
        sys.setprofile(None)
        os.write(writer, str(count).encode())
        os._exit(0)
    os.close(writer)
    with open(reader) as file:
        told = file.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code or int(told)
