"""The `trainer` command. Cost: nothing heavy is imported before a command needs it."""

from __future__ import annotations

import os
from typing import NoReturn

from foundation.console import new_app, run_app


def main() -> NoReturn:
    """Run the command line."""
    # Before torch is loaded: with libgomp's default, each of its threads spins for milliseconds at every barrier, and one
    # busy neighbour on the machine makes training fifteen times slower. A short spin costs nothing when it is quiet.
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    from trainer import commands_data, commands_run

    app = new_app("From committed records to a small model: shuffle, tokenizer, pack, run, answer, chat.")
    commands_data.register(app)
    commands_run.register(app)
    run_app(app)


if __name__ == "__main__":
    main()
