"""`trainer run`.

Guarantees: an interrupted run ends well; it asks whoever holds its device for it and holds it until it ends.
Cost: torch is imported when it runs (about 2 s), never for `--help`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from foundation.console import emit_json, table
from trainer.commands.options import AS_JSON, DEVICE, RUN, Device

if TYPE_CHECKING:
    from foundation.workspace import Workspace


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("run")(run_command)


def run_command(
    run: str = RUN,
    until_step: int | None = typer.Option(
        None, min=1, help="Stop here, with a checkpoint; the schedule stays that of the whole run."
    ),
    fresh: bool = typer.Option(False, "--fresh", help="Forget this run's checkpoints and figures, and begin anew."),
    orchestrated: bool = typer.Option(
        False, "--orchestrate", help="Train, answer and judge in turn: train.rounds rounds, a process group a stage."
    ),
    device: Device = DEVICE,
    as_json: bool = AS_JSON,
) -> None:
    """Train, going on from the run's newest checkpoint if it has one; settings are in factory.toml, [train]."""
    from dataclasses import asdict

    from foundation.workspace import Workspace

    workspace = Workspace.find()
    if orchestrated:
        _orchestrate(workspace, run, until_step, fresh, device, as_json)
        return
    from foundation.devices import hold_device

    _check(workspace, run)
    with hold_device(f"trainer run in {workspace.root}", ask=True, name="cpu" if device == "cpu" else ""):
        from trainer.loop import train
        from trainer.setup import choose_device

        summary = train(workspace, run, choose_device(device), until=until_step, fresh=fresh)
    emit_json(asdict(summary)) if as_json else table(("run", ""), asdict(summary).items())


def _check(workspace: Workspace, run: str) -> None:
    """Nobody is asked for a device in vain: what stops a run is found before, as far as torch is not needed for it."""
    from trainer.pack import PackedData
    from trainer.paths import TrainPaths, run_folder
    from trainer.presets import model_config
    from trainer.tokenizer import tokenizer_sha

    run_folder(workspace, run)
    paths = TrainPaths.of(workspace)
    data = PackedData.open(paths.pack("train"), tokenizer_sha=tokenizer_sha(paths.tokenizer))
    model_config(workspace.settings.train.preset, data.meta.vocabulary, data.meta.context)
    with workspace.lock(f"train-{run}", wait=False):
        pass  # nobody else trains this run


def _orchestrate(
    workspace: Workspace, run: str, until_step: int | None, fresh: bool, device: Device, as_json: bool
) -> None:
    from foundation.errors import UsageError
    from trainer.orchestrate import orchestrate

    if until_step is not None:
        raise UsageError(
            "--until-step and --orchestrate exclude each other",
            where="the command line",
            mend="leave --until-step out: the rounds (train.rounds) cut the run",
        )
    summary = orchestrate(workspace, run=run, rounds=workspace.settings.train.rounds, device=device, fresh=fresh)
    if as_json:
        emit_json(summary)
        return
    keys = ("round", "split", "step", "pass_rate", "low", "high", "baseline", "unscored", "stop_rate", "error")
    table(keys, [[result[key] for key in keys] for result in summary["results"]], title=f"run {run}")
