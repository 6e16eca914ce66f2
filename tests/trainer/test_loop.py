"""The loop: a run that was cut, killed or stopped is the run that was not, to the last bit."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from foundation.errors import Failure, UsageError
from foundation.workspace import FILE, Workspace
from tests.support.commands import REPOSITORY, run, run_json
from tests.trainer.small_run import CPU, THREADS, make_workspace, pack_again, packed_workspace
from trainer.checkpoint import MODEL, OPTIMIZER, STATE
from trainer.loop import Trainer, train
from trainer.metrics import Metric, read_metrics
from trainer.optim import learning_rate
from trainer.setup import choose_device, pack_order, prepare


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Packs that no test changes; each test names runs of its own. One epoch is more than 12 steps."""
    return packed_workspace(tmp_path_factory.mktemp("ready"), 5, epochs=1.3, context=96)


@pytest.fixture(scope="module")
def unbroken(ready: Workspace) -> Path:
    """A run of 12 steps, never interrupted."""
    train(ready, "unbroken", CPU, until=12)
    return ready.train / "runs/unbroken"


def lines(folder: Path) -> list[Metric]:
    return [metric.model_copy(update={"tokens_per_second": None}) for metric in read_metrics(folder)]


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
    assert [metric.step for metric in metrics] == list(range(13))
    assert metrics[0].loss is None
    assert metrics[0].phrasing > metrics[4].phrasing > metrics[12].phrasing > 0
    assert metrics[0].unseen > metrics[12].unseen
    assert [metric.step for metric in metrics if metric.phrasing is not None] == [0, 4, 8, 12]
    assert metrics[12].loss < metrics[1].loss
    for one, two in itertools.pairwise(metrics):
        assert two.tokens > one.tokens
        assert two.supervised > one.supervised
    assert metrics[12].tokens_per_second > 0
    assert (unbroken / "loss.png").read_bytes()[:4] == b"\x89PNG"


def test_a_run_in_two_parts_is_the_run(ready: Workspace, unbroken: Path) -> None:
    first = train(ready, "parts", CPU, until=6)
    assert (first.step, first.stopped) == (6, "until")
    second = train(ready, "parts", CPU, until=12)
    assert (second.step, second.stopped) == (12, "until")
    assert_same_run(ready.train / "runs/parts", unbroken, 12)


def test_lines_behind_the_checkpoint_are_dropped(ready: Workspace, unbroken: Path) -> None:
    """As after a power cut: the log is ahead of the checkpoint, and its last line is torn."""
    train(ready, "ahead", CPU, until=5)
    folder = ready.train / "runs/ahead"
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"step": 6, "epoch": 0.1, "tokens": 1, "supervised": 1, "loss": 99.0}\n{"step": 7, "epo')
    train(ready, "ahead", CPU, until=12)
    assert_same_run(folder, unbroken, 12)


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


def test_a_killed_run_goes_on_as_if_nothing_had_been(ready: Workspace, unbroken: Path) -> None:
    folder = ready.train / "runs/killed"
    for step in (5, 8):
        process = start(ready, "killed", "--until-step", "12")
        wait_for_step(folder, step, process)
        process.kill()
        process.communicate()
    process = start(ready, "killed", "--until-step", "12")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "going on from step" in err
    assert_same_run(folder, unbroken, 12)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_well(ready: Workspace, unbroken: Path, number: signal.Signals) -> None:
    name = f"signal-{number.name}"
    folder = ready.train / "runs" / name
    process = start(ready, name, "--until-step", "12", "--json")
    wait_for_step(folder, 2, process)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    summary = json.loads(out)
    assert 2 <= summary["step"] <= 12
    assert Path(summary["checkpoint"]).name == f"step-{summary['step']:06d}"
    assert "Traceback" not in err
    train(ready, name, CPU, until=12)
    assert lines(folder) == lines(unbroken)


def test_a_second_process_on_one_run_is_refused(ready: Workspace) -> None:
    process = start(ready, "taken")
    wait_for_step(ready.train / "runs/taken", 1, process)
    with pytest.raises(Failure, match=f"train-taken is held by pid {process.pid}"):
        train(ready, "taken", CPU)
    process.terminate()
    process.communicate()


def test_the_whole_schedule_ends_where_epochs_say(ready: Workspace) -> None:
    setup = prepare(ready, "whole", CPU)
    summary = train(ready, "whole", CPU)
    contexts = -(-13 * len(setup.data) // 10)
    assert (summary.step, summary.stopped) == (-(-contexts // 2), "end")
    last = read_metrics(setup.folder)[-1]
    assert last.epoch == pytest.approx(contexts / len(setup.data), abs=1e-5)
    assert last.learning_rate == pytest.approx(
        ready.settings.train.learning_rate * ready.settings.train.min_learning_rate
    )
    again = train(ready, "whole", CPU)
    assert (again.step, again.loss, again.checkpoint) == (summary.step, None, summary.checkpoint)


def test_fresh_forgets(ready: Workspace) -> None:
    train(ready, "forgetful", CPU, until=3)
    summary = train(ready, "forgetful", CPU, until=2, fresh=True)
    assert summary.step == 2
    assert [metric.step for metric in read_metrics(ready.train / "runs/forgetful")] == [0, 1, 2]


def test_the_rate_is_set_before_the_step(ready: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(prepare(ready, "rate", CPU))
    seen: list[float] = []
    step = trainer.optimizer.step
    monkeypatch.setattr(
        trainer.optimizer, "step", lambda: (seen.append(trainer.optimizer.param_groups[0]["lr"]), step())
    )
    metrics = [trainer.train_step() for _ in range(3)]
    wanted = [learning_rate(number, trainer.setup.steps, ready.settings.train) for number in range(3)]
    assert seen == wanted == [metric.learning_rate for metric in metrics]
    assert len(set(wanted)) == 3


def test_a_loss_that_is_no_number_leaves_the_weights(ready: Workspace) -> None:
    trainer = Trainer(prepare(ready, "nan", CPU))
    with torch.no_grad():
        trainer.model.final_norm.weight.fill_(float("nan"))
    before = trainer.model.embedding.weight.clone()
    with pytest.raises(Failure, match="the loss of step 1 is nan"):
        trainer.train_step()
    assert torch.equal(trainer.model.embedding.weight, before)
    assert trainer.step == 0


def test_every_context_is_seen_once_an_epoch_in_another_order() -> None:
    orders = [pack_order(seed, epoch, 50) for seed in (1, 2) for epoch in (0, 1)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4
    assert pack_order(1, 0, 50) == orders[0]


def test_steps_go_through_the_epochs_context_by_context(ready: Workspace) -> None:
    trainer = Trainer(prepare(ready, "order", CPU))
    packs, settings, seen = len(trainer.setup.data), ready.settings.train, []
    while trainer.cursor < trainer.setup.contexts:
        seen += trainer._next_contexts()
        trainer.cursor = len(seen)
    orders = [*pack_order(settings.seed, 0, packs), *pack_order(settings.seed, 1, packs)]
    assert seen == orders[: trainer.setup.contexts]


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
    train(ready, f"other-{key}", CPU, until=1)
    monkeypatch.setenv(f"FACTORY_TRAIN__{key}", value)
    with pytest.raises(UsageError, match=named):
        train(Workspace(ready.root), f"other-{key}", CPU)


def test_a_run_of_other_packs_is_not_gone_on_with(tmp_path: Path) -> None:
    workspace = packed_workspace(tmp_path, 3)
    train(workspace, "main", CPU, until=1)
    shards = sorted((tmp_path / "shards").glob("*/*/*.jsonl"))
    shards[0].unlink()
    pack_again(workspace)
    with pytest.raises(UsageError, match=r"(tokenizer|packs) was .* when run main began"):
        train(workspace, "main", CPU)


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
        train(ready, name, CPU)


def test_an_empty_held_out_split_has_no_loss(tmp_path: Path) -> None:
    workspace = packed_workspace(tmp_path, 3)
    for shard in (tmp_path / "shards").glob("*/*/*.jsonl"):
        shard.write_text(
            "".join(line for line in shard.read_text().splitlines(True) if '"split":"phrasing"' not in line)
        )
    pack_again(workspace)
    summary = train(workspace, "main", CPU, until=4)
    assert summary.phrasing is None
    assert summary.unseen is not None


def test_a_full_disk_leaves_the_checkpoint_before(ready: Workspace) -> None:
    """A limit on the size of files stands for the disk: the checkpoint is what hits it first."""
    train(ready, "full", CPU, until=2)
    folder = ready.train / "runs/full/checkpoints"
    command = (
        f"ulimit -f 2000; exec {sys.executable} -c 'from trainer.cli import main; main()' run --run full --until-step 4"
    )
    environment = {**os.environ, **THREADS, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        ["bash", "-c", command], cwd=ready.root, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "mend:" in done.stderr
    assert [path.name for path in folder.iterdir()] == ["step-000002"]
    assert train(ready, "full", CPU, until=4).step == 4


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_refused(ready: Workspace) -> None:
    assert choose_device("auto") == CPU
    error = run("trainer", "run", "--device", "cuda", cwd=ready.root, code=2).stderr
    assert "torch finds none" in error
    assert "Traceback" not in error


def test_the_command_prints_one_document(ready: Workspace) -> None:
    summary = run_json("trainer", "run", "--run", "json", "--until-step", "2", cwd=ready.root)
    assert (summary["run"], summary["step"], summary["stopped"]) == ("json", 2, "until")
    assert run_json("trainer", "params", "smoke-10m", cwd=ready.root) == {
        "preset": "smoke-10m",
        "parameters": 10_096_896,
    }
    assert (ready.root / FILE).exists()
