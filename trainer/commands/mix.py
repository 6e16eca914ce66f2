"""`trainer mix`: what a run would take of each family and prompt type, before it is begun.

Guarantees: reads the packs and writes nothing; the counts are those of the run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from foundation.console import emit_json, say, table
from trainer.commands.options import AS_JSON

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trainer.mix_report import MixedEpoch, MixReport, Part

SHOWN = 12  # prompt types of an epoch that are shown; --json has them all


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("mix")(mix_command)


def mix_command(as_json: bool = AS_JSON) -> None:
    """Show what the mix of factory.toml makes of the packs: records, tokens and shares in each epoch."""

    from foundation.workspace import Workspace
    from trainer.mix_report import mix_report
    from trainer.pack import PackedData
    from trainer.paths import TrainPaths
    from trainer.presets import recipe

    workspace = Workspace.find()
    data = PackedData.open(TrainPaths.of(workspace).pack("train"))
    report = mix_report(data, workspace.settings.mix, recipe(workspace.settings.train))
    if as_json:
        emit_json(report.document())
    else:
        _show(report)
    for line in report.warnings:
        say(line)


def _show(report: MixReport) -> None:
    headings = ("", "records", "tokens", "trained on", "raw text", "contexts", "steps")
    whole = ("the whole run", "", "", "", "", report.contexts, report.steps)
    table(headings, [*map(_row, report.epochs), whole], title=f"contexts of {report.context:,} tokens")
    print(
        f"{report.records_per_context:,.1f} records a context; a step of {report.batch} is {report.records_per_step:,.0f}"
    )
    for one in report.epochs:
        _show_parts(f"\n{one.name}, by family", one.families)
        taken = [part for part in one.types if part.taken]
        most = taken[:SHOWN]
        more = f" ({len(most)} of {len(taken)}; --json has all)" if len(most) < len(taken) else ""
        _show_parts(f"\n{one.name}, by prompt type{more}", most)


def _row(one: MixedEpoch) -> tuple[object, ...]:
    trained = f"{one.supervised / max(1, one.tokens):.1%}"
    return (one.name, one.records, one.tokens, trained, f"{one.raw:.1%}", one.contexts, one.steps)


def _show_parts(title: str, parts: Sequence[Part]) -> None:
    headings = ("", "packed", "taken", "times each", "tokens", "share")
    rows = [
        (part.name, part.packed, part.taken, f"{part.repeats:g}", part.tokens, f"{part.share:.1%}") for part in parts
    ]
    table(headings, rows, title=title)
