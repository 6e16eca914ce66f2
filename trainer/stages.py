"""One stage of an orchestrated run: a command in a process group of its own, heard, timed, and gone when it is over.

Guarantees: when `run_stage` returns or raises, no process that the stage started is alive, in its own session or in
another one (the judge's engine has one), and GPU memory is back where it was; leftovers are named, ended, and an error
if they cannot be. Cost: under 0.2 s beyond the command itself. Reads /proc, so: Linux.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from foundation.console import say
from foundation.errors import Failure
from foundation.processes import ProcessGroup, await_gpu_memory, running

MARK = "QPT_STAGE_OF"  # in the environment of every process of a run's stages, and of nothing else
PATIENCE = 60.0  # seconds a stage gets to write its checkpoint, or to end its engine
POLL = 0.05
PACKAGES = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Ended:
    """How a stage ended. `document`: what it printed with `--json`; empty if it printed none."""

    code: int
    seconds: float
    document: dict[str, Any]
    log: Path

    @property
    def complaint(self) -> str:
        """What it says went wrong; else how it ended."""
        text = self.log.read_text("utf-8", "replace") if self.log.exists() else ""
        _, said, error = ("\n" + text).rpartition("\nerror: ")
        if said:
            return error.strip()
        if self.code < 0:
            return f"killed by signal {-self.code}"
        return f"exit code {self.code}" if self.code else "ended by a signal"


class Stopped(Exception):
    """The person, or the machine, asked for an end while a stage ran; the stage is gone."""


@dataclass
class Signals:
    """SIGTERM and Ctrl-C as something to look at. A second one ends this process at once."""

    received: list[int] = field(default_factory=list)

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        def note(number: int, _frame: object) -> None:
            self.received.append(number)
            for one, handler in before.items():
                signal.signal(one, handler)

        before = {one: signal.signal(one, note) for one in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)


def run_stage(
    module: str,
    arguments: Sequence[str],
    *,
    name: str,
    mark: str,
    folder: Path,
    log: Path,
    signals: Signals,
    gpu: Sequence[int] | None,
) -> Ended:
    """Run `python -m module arguments` in `folder` to its end; its lines go to `log` and to standard error.

    Raises `Stopped` if a signal came, `Failure` if the stage or its memory would not go away.
    """
    if signals.received:
        raise Stopped
    environment = {
        MARK: mark,
        "FACTORY_WORKSPACE": str(folder),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(PACKAGES), os.environ.get("PYTHONPATH", "")])),
    }
    log.unlink(missing_ok=True)
    began = time.monotonic()
    # -P: a folder of the workspace that is called like a package must not be taken for it
    argv = [sys.executable, "-P", "-m", module, *arguments]
    group = ProcessGroup(argv, name=name, log=log, env=environment, cwd=folder)
    heard = _Echo(log)
    with running(group, PATIENCE):
        while group.alive and not signals.received:
            heard.pass_on()
            time.sleep(POLL)
        if signals.received:
            say(f"ending {name}")
    heard.pass_on()
    end_leftovers(mark)
    await_gpu_memory(gpu)
    if signals.received:
        raise Stopped
    return Ended(group.wait(), round(time.monotonic() - began, 2), heard.document, log)


class _Echo:
    """A log as it grows: lines go to standard error, but for the one JSON document, which is the stage's result."""

    def __init__(self, log: Path) -> None:
        self.log, self.offset = log, 0
        self.document: dict[str, Any] = {}

    def pass_on(self) -> None:
        with contextlib.suppress(FileNotFoundError), open(self.log, "rb") as file:
            file.seek(self.offset)
            whole = file.read()
            lines = whole[: whole.rfind(b"\n") + 1]
            self.offset += len(lines)
            for line in lines.decode("utf-8", "replace").splitlines():
                if not self._result(line):
                    print(line, file=sys.stderr, flush=True)

    def _result(self, line: str) -> bool:
        if not line.startswith("{"):
            return False
        try:
            self.document = json.loads(line)
        except ValueError:
            return False
        return True


def marked(mark: str) -> list[int]:
    """Pids of the living processes of the stages marked `mark`."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # gone meanwhile, or somebody else's
                if wanted in Path(f"/proc/{entry.name}/environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found


def end_leftovers(mark: str, patience: float = PATIENCE) -> None:
    """End what is left of the stages marked `mark`, naming it. Raises `Failure` if something cannot be ended."""
    left = marked(mark)
    if not left:
        return
    say(f"ending what is left of a stage: pids {', '.join(map(str, left))}")
    for number, seconds in ((signal.SIGTERM, patience), (signal.SIGKILL, 10.0)):
        for pid in marked(mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        if _wait(lambda: not marked(mark), seconds):
            return
    raise Failure(
        "a stage's processes could not be ended",
        where=f"pids {', '.join(map(str, marked(mark)))}",
        mend="`kill -9 PID`",
    )


def _wait(condition: Callable[[], bool], seconds: float) -> bool:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= until:
            return False
        time.sleep(POLL)
    return True
