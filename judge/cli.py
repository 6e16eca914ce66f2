"""The `judge` command. Cost: nothing heavy is imported before a command needs it, so `judge --help` answers at once."""

from __future__ import annotations

from foundation.console import new_app, run_app


def main() -> None:
    """Entry point of the console script."""
    from judge.commands import agree, calibrate, report, run

    app = new_app(
        "Reads a student's answers and says PASS, FAIL or UNSCORED, with the reason; and how far to believe it."
    )
    for module in (run, report, calibrate, agree):
        module.register(app)
    run_app(app)


if __name__ == "__main__":
    main()
