"""The `factory` command. Heavy imports are made inside each command, so `factory --help` answers at once."""

from __future__ import annotations

from foundation.console import new_app, run_app
from generator.commands import corpus, estimate, export, prompts, report, retire, sample, stats, teacher
from queue_workers import cli as queue

app = new_app("From a corpus you trust to grounded training records.")
corpus.register(app)
prompts.register(app)
teacher.register(app)
estimate.register(app)
stats.register(app)
sample.register(app)
retire.register(app)
report.register(app)
export.register(app)
queue.register(app)


def main() -> None:
    """Entry point of the console script."""
    run_app(app)
