"""`trainer export` and `trainer models`. Cost: `models` imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from foundation.console import emit_json, plain, say, table
from trainer.commands.options import AS_JSON, CHECKPOINT, RUN

if TYPE_CHECKING:
    from foundation.workspace import Workspace
    from trainer.export.archive import Entry

NAME = typer.Argument(..., metavar="NAME", help="A model of the archive.")
FORMS = "good, collapsed, or 'not-good: REASON'"


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command("export")(export_command)
    models = typer.Typer(help="The archive of exported models, each with an honest label.", rich_markup_mode=None)
    models.callback(invoke_without_command=True)(models_command)
    models.command("show")(show_command)
    models.command("label")(label_command)
    app.add_typer(models, name="models")


def export_command(
    format_: Literal["hf"] = typer.Option(
        "hf", "--format", help="hf: safetensors as transformers, vLLM and others load them."
    ),
    run: str = RUN,
    checkpoint: Path | None = CHECKPOINT,
    name: str = typer.Option("", "--name", help="Its name in the archive; default: RUN-STEP."),
    out: Path | None = typer.Option(
        None, "--out", metavar="DIR", help="Folder for it, not there yet; default: models/NAME in the workspace."
    ),
    dtype: Literal["float32", "bfloat16"] = typer.Option(
        "float32", "--dtype", help="Kind of its numbers; float32 is exact, bfloat16 half as large."
    ),
    label: str = typer.Option("", "--label", help=f"How good it is: {FORMS}."),
    as_json: bool = AS_JSON,
) -> None:
    """Write a checkpoint as a model that others load, with its card, and put it into the archive."""
    import time

    from foundation.workspace import Workspace
    from trainer.export.run import Wanted, export

    started = time.perf_counter()
    wanted = Wanted(run=run, checkpoint=checkpoint, name=name, out=out, dtype=dtype, label=label)
    folder, entry = export(Workspace.find(), wanted)
    seconds = round(time.perf_counter() - started, 2)
    if not entry.label:
        say(f"unlabelled: when you have looked at what it says, `trainer models label {entry.name}` with {FORMS}")
    result = {
        "name": entry.name,
        "label": entry.label or None,
        "format": format_,
        "layout": entry.layout,
        "dtype": entry.dtype,
        "run": entry.run,
        "step": entry.step,
        "parameters": entry.parameters,
        "bytes": entry.bytes,
        "seconds": seconds,
        "folder": str(folder),
    }
    emit_json(result) if as_json else table(("export", ""), result.items())


def models_command(context: typer.Context, as_json: bool = AS_JSON) -> None:
    """List every exported model: its label, where it comes from, how well it did."""
    if context.invoked_subcommand is not None:
        return
    from foundation.workspace import Workspace
    from trainer.export.archive import entries

    workspace = Workspace.find()
    found = list(entries(workspace))
    if as_json:
        emit_json([_document(workspace, one) for one in found])
        return
    if not found:
        say("the archive has no model yet: `trainer export` puts one there")
        return
    table(
        ("name", "label", "run", "step", "preset", "parameters", "train", "phrasing", "unseen", "judged right", "data",
         "tokenizer", "date"),
        [_row(workspace, one) for one in found],
    )  # fmt: skip


def show_command(name: str = NAME, as_json: bool = AS_JSON) -> None:
    """Show all that is known of one model, its config and settings too."""
    from foundation.workspace import Workspace
    from trainer.export.archive import entry

    workspace = Workspace.find()
    document = _document(workspace, entry(workspace, name))
    if as_json:
        emit_json(document)
        return
    flat = []
    for key, value in document.items():
        if isinstance(value, dict):
            flat += [(f"{key}.{inner}" if key != "settings" else inner, _text(it)) for inner, it in value.items()]
        elif isinstance(value, list):
            flat += [(f"{key} {number}", _text(it)) for number, it in enumerate(value, 1)]
        else:
            flat.append((key, _text(value)))
    table(("", ""), flat)


def label_command(
    name: str = NAME, label: str = typer.Argument(..., metavar="LABEL", help=f"{FORMS}."), as_json: bool = AS_JSON
) -> None:
    """Say how good a model is: good, collapsed, or 'not-good: REASON'."""
    from foundation.workspace import Workspace
    from trainer.export.archive import relabel

    workspace = Workspace.find()
    with workspace.lock("models"):
        entry = relabel(workspace, name, label)
    if as_json:
        emit_json(_document(workspace, entry))
    else:
        say(f"{entry.name}: {entry.label}")


def _document(workspace: Workspace, entry: Entry) -> dict[str, Any]:
    from foundation.splits import SPLIT_NAMES
    from trainer.export.archive import weights_folder
    from trainer.export.card import told

    folder = weights_folder(workspace, entry)
    judged = entry.judged()
    return {
        **entry.model_dump(mode="json", exclude={"v", "folder", "label"}),
        "label": entry.label or None,
        "pass_rate": judged.pass_rate if judged else None,
        "low": judged.low if judged else None,
        "high": judged.high if judged else None,
        "corrected": judged.corrected if judged else None,
        "judged": {split: told(entry.judging(split)) for split in SPLIT_NAMES},
        "folder": str(folder),
        "present": (folder / "config.json").is_file(),
    }


def _row(workspace: Workspace, entry: Entry) -> tuple[object, ...]:
    from trainer.export.archive import UNLABELLED, weights_folder
    from trainer.export.card import summed_up

    losses = entry.losses
    there = (weights_folder(workspace, entry) / "config.json").is_file()
    return (
        entry.name if there else f"{entry.name} (its folder is gone)",
        plain(entry.label) or UNLABELLED,
        entry.run,
        entry.step,
        entry.preset,
        entry.parameters,
        *("" if loss is None else f"{loss:.3f}" for loss in (losses.train, losses.phrasing, losses.unseen)),
        summed_up(entry),
        entry.data.manifest[:8],
        entry.tokenizer[:8],
        entry.date[:10],
    )


def _text(value: object) -> str:
    return "" if value is None else plain(str(value))
