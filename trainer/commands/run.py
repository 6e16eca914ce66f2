"""`trainer run`.

Guarantees: an interrupted run ends well; it asks whoever holds its device for it and holds it until it ends.
Cost: torch is imported when it runs (about 2 s), never for `--help`.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import typer

from foundation.console import emit_json, say, table
from trainer.commands.options import AS_JSON, DEVICE, RUN, Device

if TYPE_CHECKING:
    from foundation.workspace import Workspace
    from trainer.loop import Summary
    from trainer.plan import Plan


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("run")(run_command)


def run_command(
    run: str = RUN,
    until_step: int | None = typer.Option(
        None, min=1, help="Stop here, with a checkpoint; the schedule stays that of the whole run."
    ),
    fresh: bool = typer.Option(False, "--fresh", help="Forget this run's checkpoints and figures, and begin anew."),
    batch: str = typer.Option(
        "",
        "--batch",
        metavar="N|auto",
        help="Contexts in memory at once; auto: as many as fit. The step stays as large.",
    ),
    leave_vram: str = typer.Option(
        "", "--leave-vram", metavar="SIZE", help="GPU memory that auto leaves free; default: train.leave_vram, 1G."
    ),
    orchestrated: bool = typer.Option(
        False,
        "--orchestrate",
        help="Train, answer and judge in turn, a process group a stage; see [orchestrate].",
    ),
    judge_every: int | None = typer.Option(
        None, "--judge-every", min=1, metavar="STEPS", help="Judge each so many steps, in place of orchestrate.rounds."
    ),
    judge_device: str | None = typer.Option(
        None, "--judge-device", metavar="cpu|cuda:N", help="Judge there, beside the training, which goes on meanwhile."
    ),
    dry_run: bool = typer.Option(False, "--dry-run", help="Say what would be trained, and train nothing."),
    device: Device = DEVICE,
    as_json: bool = AS_JSON,
) -> None:
    """Train, going on from the run's newest checkpoint if it has one; settings are in factory.toml, [train] and [mix].

    Ctrl-C, SIGTERM or a file STOP in the run's folder end it with a checkpoint; the same command goes on from there.
    """
    from foundation.workspace import Workspace
    from trainer.schedules import check_schedule

    physical, leave = _physical(batch), _leave(leave_vram)
    workspace = Workspace.find()
    if orchestrated:
        _excluded(dry_run, "--dry-run", "leave one of them out")
        _excluded(
            until_step is not None, "--until-step", "leave it out: the rounds cut the run; --judge-every sets them"
        )
        passed_on = [*(["--batch", batch] if batch else []), *(["--leave-vram", leave_vram] if leave_vram else [])]
        _orchestrate(
            workspace, run, passed_on, fresh, device, as_json, judge_every=judge_every, judge_device=judge_device
        )
        return
    for option, given in (("--judge-every", judge_every), ("--judge-device", judge_device)):
        _without(given, option)
    planned = _planned(workspace, run, batch, leave)  # nobody is asked for a device in vain
    check_schedule(planned.settings)
    if dry_run:
        _dry_run(planned, device, as_json)
        return
    with workspace.lock(f"train-{run}", wait=False):
        pass  # nobody else trains this run
    from foundation.devices import hold_device

    with hold_device(f"trainer run in {workspace.root}", ask=True, name="cpu" if device == "cpu" else ""):
        from trainer.loop import train
        from trainer.setup import choose_device

        torch_device = choose_device(device)
        planned = _planned(workspace, run, batch, leave)  # anew: after hours in line the packs may be others
        summary = train(
            workspace, planned, torch_device, until=until_step, fresh=fresh, physical=physical, anew=batch == "auto"
        )
    _show(summary, as_json)


def _show(summary: Summary, as_json: bool) -> None:
    if as_json:
        emit_json(asdict(summary))
        return
    losses = {
        key: f"{value:.4f}" for key in ("loss", "phrasing", "unseen") if (value := getattr(summary, key)) is not None
    }
    table(("run", ""), (asdict(summary) | losses).items())


def _excluded(given: bool, option: str, mend: str) -> None:
    from foundation.errors import UsageError

    if given:
        raise UsageError(f"{option} and --orchestrate exclude each other", where="the command line", mend=mend)


def _planned(workspace: Workspace, run: str, batch: str, leave: float | None) -> Plan:
    """The plan of a run, with what the command line says of memory."""
    from trainer.plan import plan

    planned = plan(workspace, run)
    said: dict[str, object] = {} if leave is None else {"leave_vram": leave}
    if batch == "auto":  # and forget what the settings or the last checkpoint say
        said["physical_batch"] = 0
    return replace(planned, settings=planned.settings.model_copy(update=said)) if said else planned


def _physical(batch: str) -> int:
    from foundation.errors import UsageError

    if batch in ("", "auto"):
        return 0
    if not batch.isdecimal() or not int(batch):
        raise UsageError(f"not a number of contexts: {batch!r}", where="--batch", mend="a number from 1 on, or auto")
    return int(batch)


def _leave(text: str) -> float | None:
    from foundation.quantities import size_bytes

    return size_bytes(text) / (1 << 30) if text else None


def _dry_run(planned: Plan, device: Device, as_json: bool) -> None:
    """What the run would be: shape, data, steps."""
    from trainer.loop import told
    from trainer.setup import choose_device, prepare

    setup = prepare(planned, choose_device(device))
    settings = planned.settings
    result = {
        "run": planned.run,
        "preset": settings.preset,
        "parameters": planned.config.parameters,
        "epochs": settings.epochs,
        "contexts": planned.epochs.contexts,
        "steps": planned.steps,
        "records_per_context": round(planned.records_per_context, 2),
        "records_per_step": round(planned.records_per_step, 1),
        "tokens_per_epoch": planned.epoch_tokens,
        "device": setup.device.type,
        "precision": setup.precision,
        "attention": setup.backend,
        "compiled": setup.compiled,
    }
    if as_json:
        emit_json(result)
        return
    say(told(setup, 0))
    table(("would train", ""), result.items())


def _without(given: object, option: str) -> None:
    from foundation.errors import UsageError

    if given is not None:
        raise UsageError(
            f"{option} is for a run that is judged on its way", where="the command line", mend="add --orchestrate"
        )


def _orchestrate(
    workspace: Workspace,
    run: str,
    passed_on: list[str],
    fresh: bool,
    device: Device,
    as_json: bool,
    **given: object,
) -> None:
    from pydantic import ValidationError

    from foundation.errors import UsageError
    from foundation.tables import OrchestrateSettings
    from trainer.orchestrate import orchestrate

    said = {key: value for key, value in given.items() if value is not None}
    try:
        settings = OrchestrateSettings(**{**workspace.settings.orchestrate.model_dump(), **said})
    except ValidationError as error:
        raise UsageError(
            f"not a device for the judge: {given['judge_device']!r}", where="--judge-device", mend="cpu, or cuda:1"
        ) from error
    summary = orchestrate(workspace, run=run, settings=settings, device=device, fresh=fresh, passed_on=passed_on)
    if as_json:
        emit_json(summary)
        return
    _show_rounds(summary)


def _show_rounds(summary: dict[str, Any]) -> None:
    """The rounds, what they cost, and which was the best."""
    from foundation.splits import SPLIT_NAMES
    from trainer import plot_text as text
    from trainer.judgings import by_round
    from trainer.metrics import RoundPoint

    points = [RoundPoint.model_validate(one) for one in summary["results"]]
    if not points:
        return
    rows = []
    for number, splits in by_round(points).items():
        first = next(iter(splits.values()))
        rates = [text.judged(splits[split]) if split in splits else "–" for split in SPLIT_NAMES]
        said = first.error.partition("\n")[0] or "; ".join(first.problems)
        rows.append([number, f"{first.step:,}", *rates, said])
    doubted = any(row[-1] for row in rows)
    headings = ("round", "step", *SPLIT_NAMES.values(), "not believed")
    table(
        headings[: None if doubted else -1],
        [row[: None if doubted else -1] for row in rows],
        title=f"run {summary['run']}",
    )
    _show_costs(summary["stages"]["seconds"], summary["stages"]["gpu_seconds"])
    best = summary["best"]
    if best:
        say(
            f"best by pass rate: round {best['round']}, step {best['step']:,}, {100 * best['pass_rate']:.1f} %; "
            "`--checkpoint best-judged` names it, `best` the one with the lowest loss on held-out phrasings"
        )


def _show_costs(stages: dict[str, float], gpu: dict[str, float]) -> None:
    whole = sum(stages.values())
    headings = ("stage", "seconds", "share", *(["GPU seconds"] if gpu else []))
    rows = [
        [
            stage,
            f"{seconds:,.1f}",
            f"{100 * seconds / whole:.0f} %" if whole else "–",
            *([gpu.get(stage, 0.0)] if gpu else []),
        ]
        for stage, seconds in stages.items()
    ]
    table(headings, rows, title="what it cost")
