"""`trainer params`. Cost: no torch is imported."""

from __future__ import annotations

import typer

from foundation.console import emit_json, say, table
from trainer.commands.options import AS_JSON


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("params")(params_command)


def params_command(
    name: str = typer.Argument("", metavar="[PRESET]", help="One preset; default: all of them."),
    as_json: bool = AS_JSON,
) -> None:
    """Print how many parameters a preset has."""
    from trainer.presets import PRESETS, preset

    if as_json:
        rows = [{"preset": one, "parameters": preset(one).parameters} for one in ([name] if name else PRESETS)]
        emit_json(rows[0] if name else rows)
        return
    shapes = [(one, preset(one)) for one in ([name] if name else PRESETS)]
    table(
        ("preset", "parameters", "vocabulary", "layers", "width", "heads", "ffn"),
        [
            (
                one,
                it.parameters,
                it.config.vocabulary,
                it.config.layers,
                it.config.width,
                it.config.heads,
                it.config.ffn,
            )
            for one, it in shapes
        ],
    )
    if any(it.any_vocabulary for _, it in shapes):
        say("demo takes the size of the tokenizer as its vocabulary")
