"""What every test gets: locks on devices of its own session, so that no test meets a user's run, or another session's.

And after the tests: how long the project took to recover from each fault, as a table and as JSON lines.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator

import pytest

from foundation.devices import FOLDER

if "PYTEST_XDIST_WORKER" in os.environ:  # torch's threads of several processes would wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# Started by nohup, or in the background of a script, these tests would pass "ignored" on to every command they start, which
# then could not hear Ctrl-C. A handler, unlike that, is not passed on.
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, lambda *_: None)):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, handler)
RECOVERY = "recovery"  # the property that tests/faults sets: (fault, seconds)


@pytest.fixture(scope="session", autouse=True)
def own_locks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A folder of locks for this process (each of xdist's has its own) and for all that it starts."""
    os.environ[FOLDER] = str(tmp_path_factory.mktemp("devices"))
    yield
    del os.environ[FOLDER]


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One engine at a time: two that load at once on two cores are too slow for anyone's patience."""
    for item in items:
        if item.get_closest_marker("vllm"):
            item.add_marker(pytest.mark.xdist_group("vllm"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the recoveries, and write them to QPT_RECOVERY (default: recovery.jsonl in pytest's cache)."""
    rows = [
        value
        for reports in terminalreporter.stats.values()
        for report in reports
        for name, value in getattr(report, "user_properties", ())
        if name == RECOVERY and report.when == "call"
    ]
    if not rows:
        return
    cache = getattr(terminalreporter.config, "cache", None)
    path = os.environ.get("QPT_RECOVERY") or str(cache.mkdir("faults") / "recovery.jsonl" if cache else os.devnull)
    terminalreporter.write_sep("-", f"recovery from faults, in seconds ({path})")
    with open(path, "w", encoding="utf-8") as file:
        for fault, seconds in sorted(rows):
            terminalreporter.write_line(f"{seconds:8.2f}  {fault}")
            file.write(json.dumps({"fault": fault, "seconds": round(seconds, 3)}) + "\n")
