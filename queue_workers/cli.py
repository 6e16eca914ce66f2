"""The queue's commands of `factory`, gathered. Cost: nothing heavy is imported until a command runs."""

from __future__ import annotations

import typer

from queue_workers.commands import care, control, plan, status, work


def register(app: typer.Typer) -> None:
    """Add every command of this room."""
    for module in (plan, control, work, status, care):
        module.register(app)
