"""The `trainer` command. Cost: nothing heavy is imported before a command needs it."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from foundation.console import new_app, run_app


def main() -> NoReturn:
    """Run the command line."""
    # Before torch is loaded: with libgomp's default, each of its threads spins for milliseconds at every barrier, and one
    # busy neighbour on the machine makes training fifteen times slower. A short spin costs nothing when it is quiet.
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    try:
        from trainer.commands import answer, eval, export, pack, params, run, shuffle, tokenizer, watch
    except KeyboardInterrupt:  # Ctrl-C before there is a command
        sys.exit(130)

    app = new_app("From committed records to a small model: shuffle, tokenizer, pack, run, answer, eval, chat.")
    for module in (shuffle, tokenizer, pack, params, run, watch, answer, eval, export):
        module.register(app)
    run_app(app)


if __name__ == "__main__":
    main()
