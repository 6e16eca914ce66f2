"""The loop: a run that was cut, killed or stopped is the run that was not, to the last bit."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from foundation.errors import Failure, UsageError
from foundation.workspace import FILE, Workspace
from tests.support.commands import REPOSITORY, run, run_json
from tests.trainer.small_run import (
    CPU,
    THREADS,
    make_workspace,
    pack_again,
    packed_workspace,
    train_run,
)
from trainer.checkpoint import MANIFEST, MODEL, OPTIMIZER, STATE
from trainer.loop import train
from trainer.metrics import Metric, read_metrics
from trainer.pack import pack
from trainer.plan import plan
from trainer.presets import recipe
from trainer.setup import choose_device
from trainer.trainer import Trainer


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Packs that no test changes; each test names runs of its own. One epoch is more than 8 steps."""
    return packed_workspace(tmp_path_factory.mktemp("ready"), 5, epochs=1.3, context=96)


@pytest.fixture(scope="module")
def unbroken(ready: Workspace) -> Path:
    """A run of 8 steps, never interrupted."""
    train_run(ready, "unbroken", until=8)
    return ready.train / "runs/unbroken"


def lines(folder: Path) -> list[Metric]:
    """The metrics, but for what a clock and the machine say."""
    timing = dict.fromkeys(("tokens_per_second", "seconds", "mfu", "memory"))
    return [metric.model_copy(update=timing) for metric in read_metrics(folder)]


def assert_same_run(folder: Path, other: Path, step: int) -> None:
    assert lines(folder) == lines(other)
    name = f"checkpoints/step-{step:06d}"
    for part in (MODEL, OPTIMIZER):
        one, two = load_file(folder / name / part), load_file(other / name / part)
        assert one.keys() == two.keys()
        assert all(torch.equal(one[key], two[key]) for key in one), part
    states = [json.loads((each / name / STATE).read_text()) for each in (folder, other)]
    for state in states:
        del state["digest"], state["run"]
    assert states[0] == states[1]


def test_it_learns_and_says_so(unbroken: Path) -> None:
    metrics = read_metrics(unbroken)
    assert [metric.step for metric in metrics] == [0, 1, 2, 3, 4, 4, 5, 6, 7, 8, 8]
    steps = [metric for metric in metrics if metric.loss is not None]
    looks = [metric for metric in metrics if metric.phrasing is not None]
    assert [metric.step for metric in steps] == list(range(1, 9))
    assert [metric.step for metric in looks] == [0, 4, 8]
    assert looks[0].phrasing > looks[1].phrasing > looks[2].phrasing > 0
    assert looks[0].unseen > looks[2].unseen
    assert steps[-1].loss < steps[0].loss
    for one, two in itertools.pairwise(steps):
        assert two.tokens > one.tokens
        assert two.supervised > one.supervised
    assert steps[-1].tokens_per_second > 0
    assert (unbroken / "loss.png").read_bytes()[:4] == b"\x89PNG"


def test_a_run_in_two_parts_is_the_run(ready: Workspace, unbroken: Path) -> None:
    first = train_run(ready, "parts", until=5)
    assert (first.step, first.stopped) == (5, "until")
    second = train_run(ready, "parts", until=8)
    assert (second.step, second.stopped) == (8, "until")
    assert_same_run(ready.train / "runs/parts", unbroken, 8)


def test_lines_behind_the_checkpoint_are_dropped(ready: Workspace, unbroken: Path) -> None:
    """As after a power cut: the log is ahead of the checkpoint, and its last line is torn."""
    train_run(ready, "ahead", until=5)
    folder = ready.train / "runs/ahead"
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"step": 6, "epoch": 0.1, "tokens": 1, "supervised": 1, "loss": 99.0}\n{"step": 7, "epo')
    train_run(ready, "ahead", until=8)
    assert_same_run(folder, unbroken, 8)


def start(ready: Workspace, name: str, *more: str) -> subprocess.Popen[str]:
    """A run in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", "from trainer.cli import main; main()", "run", "--run", name, *more],
        cwd=ready.root,
        env={**os.environ, **THREADS, "PYTHONPATH": str(REPOSITORY), "FACTORY_TRAIN__CHECKPOINT_EVERY": "3"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_step(folder: Path, step: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not any(metric.step >= step for metric in read_metrics(folder)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_second_process_on_one_run_is_refused(ready: Workspace) -> None:
    process = start(ready, "taken")
    wait_for_step(ready.train / "runs/taken", 1, process)
    with pytest.raises(Failure, match=f"train-taken is held by pid {process.pid}"):
        train_run(ready, "taken")
    process.terminate()
    process.communicate()


def test_the_whole_schedule_ends_where_epochs_say(ready: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACTORY_TRAIN__EPOCHS", "0.17")
    workspace = Workspace(ready.root)
    planned, settings = plan(workspace, "whole"), recipe(workspace.settings.train)
    summary = train_run(workspace, "whole")
    assert (summary.step, summary.stopped) == (-(-planned.epochs.contexts // 2), "end")
    last = [metric for metric in read_metrics(planned.folder) if metric.loss is not None][-1]
    assert last.epoch == pytest.approx(planned.epochs.epoch_at(planned.epochs.contexts), abs=1e-5)
    assert last.epoch == pytest.approx(0.17, abs=0.02)
    assert last.learning_rate == pytest.approx(settings.learning_rate * settings.min_learning_rate)
    again = train_run(workspace, "whole")
    assert (again.step, again.loss, again.checkpoint) == (summary.step, None, summary.checkpoint)


def test_fresh_forgets(ready: Workspace) -> None:
    train_run(ready, "forgetful", until=3)
    summary = train_run(ready, "forgetful", until=2, fresh=True)
    assert summary.step == 2
    assert [metric.step for metric in read_metrics(ready.train / "runs/forgetful")] == [0, 1, 2]


def bad_steps(monkeypatch: pytest.MonkeyPatch, *steps: int) -> None:
    """From now on the losses of these steps are no numbers."""
    gradient = Trainer._gradient

    def spoilt(self: Trainer, *arguments: Any) -> tuple[float, float]:
        loss, norm = gradient(self, *arguments)
        return (float("nan"), norm) if self.step + 1 in steps else (loss, norm)

    monkeypatch.setattr(Trainer, "_gradient", spoilt)


def test_bad_steps_are_left_out_and_the_run_is_one_however_it_is_cut(
    ready: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FACTORY_TRAIN__CHECKPOINT_EVERY", "3")
    bad_steps(monkeypatch, 2, 4, 5, 6)  # the last of which takes the weights back
    workspace = Workspace(ready.root)
    train_run(workspace, "bad", until=8)
    said = capsys.readouterr().err
    assert "step 2 has a loss of nan" in said
    assert "the weights are those of step 3 again" in said
    metrics = lines(ready.train / "runs/bad")
    assert [metric.skipped for metric in metrics if metric.step > 0 and not metric.phrasing] == [
        None,
        1,
        1,
        2,
        3,
        4,
        4,
        4,
    ]
    for until in (1, 2, 5, 6, 8):
        train_run(workspace, "bad-in-parts", until=until)
    assert lines(ready.train / "runs/bad-in-parts") == metrics
    assert_same_run(ready.train / "runs/bad-in-parts", ready.train / "runs/bad", 8)


def test_the_weights_go_back_where_they_would_have_gone_without_the_cuts(
    ready: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stops leave checkpoints of their own, nearer than the ones that an unbroken run has."""
    for key, value in (("CHECKPOINT_EVERY", "4"), ("KEEP", "1"), ("EVALUATE_EVERY", "100")):
        monkeypatch.setenv(f"FACTORY_TRAIN__{key}", value)
    bad_steps(monkeypatch, 6, 7, 8)
    workspace = Workspace(ready.root)
    train_run(workspace, "back", until=9)
    for until in (5, 7, 9):
        train_run(workspace, "back-in-parts", until=until)
    assert capsys.readouterr().err.count("the weights are those of step 4 again") == 2
    assert_same_run(ready.train / "runs/back-in-parts", ready.train / "runs/back", 9)


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("LEARNING_RATE", "0.5", "train.learning_rate was 0.003 .* is 0.5 now"),
        ("EPOCHS", "3", "train.epochs was 1.3 .* is 3.0 now"),
        ("PRESET", "smoke-10m", "train.preset was demo .* is smoke-10m now"),
    ],
)
def test_a_run_of_other_settings_is_not_gone_on_with(
    ready: Workspace, monkeypatch: pytest.MonkeyPatch, key: str, value: str, named: str
) -> None:
    train_run(ready, f"other-{key}", until=1)
    monkeypatch.setenv(f"FACTORY_TRAIN__{key}", value)
    with pytest.raises(UsageError, match=named):
        train_run(Workspace(ready.root), f"other-{key}")


def test_a_run_of_other_packs_is_not_gone_on_with(tmp_path: Path) -> None:
    workspace = packed_workspace(tmp_path, 3)
    train_run(workspace, "main", until=1)
    shards = sorted((tmp_path / "shards").glob("*/*/*.jsonl"))
    shards[0].unlink()
    pack_again(workspace)
    with pytest.raises(UsageError, match=r"the (tokenizer|packs) (is|are) not .* that run main began with"):
        train_run(workspace, "main")


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path / "bare", 2)
    assert "trainer tokenizer" in run("trainer", "run", cwd=workspace.root, code=2).stderr
    workspace = packed_workspace(tmp_path / "packed", 2)
    tokenizer = workspace.train / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + "\n")
    error = run("trainer", "run", cwd=workspace.root, code=2).stderr
    assert "another tokenizer" in error
    assert "trainer pack" in error
    assert not (workspace.train / "runs").exists()


@pytest.mark.parametrize("name", ["../main", "", "a/b", ".hidden"])
def test_a_run_has_a_plain_name(ready: Workspace, name: str) -> None:
    with pytest.raises(UsageError, match="not a run's name"):
        train_run(ready, name)


def test_an_empty_held_out_split_has_no_loss(tmp_path: Path) -> None:
    workspace = packed_workspace(tmp_path, 3)
    for shard in (tmp_path / "shards").glob("*/*/*.jsonl"):
        shard.write_text(
            "".join(line for line in shard.read_text().splitlines(True) if '"split":"phrasing"' not in line)
        )
    pack_again(workspace)
    summary = train_run(workspace, "main", until=4)
    assert summary.phrasing is None
    assert summary.unseen is not None


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_refused(ready: Workspace) -> None:
    assert choose_device("auto") == CPU
    error = run("trainer", "run", "--device", "cuda", cwd=ready.root, code=2).stderr
    assert "torch finds none" in error
    assert "Traceback" not in error


def test_the_command_prints_one_document(ready: Workspace) -> None:
    summary = run_json("trainer", "run", "--run", "json", "--until-step", "2", cwd=ready.root)
    assert (summary["run"], summary["step"], summary["stopped"]) == ("json", 2, "until")
    assert (ready.root / FILE).exists()


def test_packs_made_anew_meanwhile_take_nothing_from_a_run(tmp_path: Path) -> None:
    """The files it reads and the manifest it pins are those it began with."""
    workspace = packed_workspace(tmp_path, 3, evaluate_every=100, checkpoint_every=2, epochs=4.0)
    planned = plan(workspace, "main")
    manifest = (workspace.train / "packs/manifest.json").read_bytes()
    train(workspace, planned, CPU, until=2)
    pack(workspace)
    assert not planned.data.folder.exists()
    train(workspace, planned, CPU, until=4)
    for step in (2, 4):
        path = planned.folder / f"checkpoints/step-{step:06d}"
        assert MANIFEST in json.loads((path / STATE).read_text())["files"]
        assert (path / MANIFEST).read_bytes() == manifest
