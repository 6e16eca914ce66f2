"""One stage of an orchestrated run: a command in a process group of its own, heard, timed, and gone when it is over.

Guarantees: when `run_stage` returns or raises, no process that the stage started is alive, in its own session or in
another one (the judge's engine has one), and GPU memory is back where it was; leftovers are named, ended, and an error
if they cannot be. Stages of one `Lane` run one after another; two lanes know nothing of each other.
Cost: under 0.2 s beyond the command itself (`benchmarks/stage_switch.py`). Reads /proc, so: Linux.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from foundation.console import say
from foundation.devices import STAGE as MARK
from foundation.processes import (
    POLL,
    ProcessGroup,
    await_gpu_memory,
    end_marked,
    gpu_memory_used,
    gpu_processes,
    marked,
    running,
)
from trainer.interrupt import fall_silent, unheard

PATIENCE = 60.0  # seconds a stage gets to write its checkpoint, or to end its engine
GPU_LOOK, GPU_FIRST = 5.0, 1.0  # seconds between two questions which of its processes are on the GPU; to the first one
GPU_HELD = 256 * 2**20  # bytes above the baseline from which it counts as held, where NVML names no process
PACKAGES = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Ended:
    """How a stage ended. `document`: what it printed with `--json`; empty if it printed none.

    `gpu_seconds`: how long of it its processes held the GPU, to the 5 s between two looks; None without one.
    """

    code: int
    seconds: float
    document: dict[str, Any]
    log: Path
    gpu_seconds: float | None = None

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
    """The person, or the machine, asked for an end while a stage ran; the stage is gone. `seconds`: how long it ran."""

    def __init__(self, seconds: float = 0.0, gpu_seconds: float | None = None) -> None:
        super().__init__()
        self.seconds, self.gpu_seconds = seconds, gpu_seconds


@dataclass
class Signals:
    """SIGTERM, Ctrl-C and a `file` that appears, as something to look at. A second signal ends this process at once."""

    received: list[int] = field(default_factory=list)
    file: Path | None = None

    def stop(self) -> None:
        """Ask as a signal would."""
        self.received.append(0)

    def asked(self) -> bool:
        """Whether to stop; what was seen once stays so, though the stage may take the file away."""
        if not self.received and self.file is not None and self.file.exists():
            self.received.append(0)
        return bool(self.received)

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


@dataclass
class Lane:
    """Where stages run one after another. `mark` is in the environment of all they start, by which leftovers are found.

    `environment` is of what runs on the lane's device. `gpu`: whether its memory is watched, of the GPUs that `visible`
    chooses as CUDA_VISIBLE_DEVICES does (None: all of this process's).
    """

    mark: str
    folder: Path
    signals: Signals
    environment: Mapping[str, str] = field(default_factory=dict)
    gpu: bool = False
    visible: str | None = None

    def memory(self) -> list[int] | None:
        """Bytes in use on the lane's GPUs; None where it has none."""
        return gpu_memory_used(visible=self.visible) if self.gpu else None


def run_stage(lane: Lane, module: str, arguments: Sequence[str], *, name: str, log: Path) -> Ended:
    """Run `python -m module arguments` in the lane's folder to its end; its lines go to `log` and to standard error.

    Raises `Stopped` if that was asked for, `Failure` if the stage or its memory would not go away.
    """
    signals = lane.signals
    if signals.asked():
        raise Stopped
    environment = {
        **lane.environment,
        MARK: lane.mark,
        "FACTORY_WORKSPACE": str(lane.folder),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(PACKAGES), os.environ.get("PYTHONPATH", "")])),
    }
    log.unlink(missing_ok=True)
    # Of this stage, not of the run: over weeks other programs come and go, and the stage before gave all of its own back.
    before = lane.memory()
    began = time.monotonic()
    # -P: a folder of the workspace that is called like a package must not be taken for it
    argv = [sys.executable, "-P", "-m", module, *arguments]
    group = ProcessGroup(argv, name=name, log=log, env=environment, cwd=lane.folder)
    heard, watch = _Echo(log), _GpuWatch(lane, before)
    with running(group, PATIENCE):
        while group.alive and not signals.asked():
            if unheard():  # whoever read what is said is gone: that is no reason to end
                fall_silent()
            heard.pass_on()
            watch.look()
            time.sleep(POLL)
        if signals.received:
            say(f"ending {name} at a clean point; asked once more, this ends at once")
    heard.pass_on()
    held = watch.end()
    end_leftovers(lane.mark)
    await_gpu_memory(before, watch.ours, visible=lane.visible)
    seconds = round(time.monotonic() - began, 2)
    if signals.received:
        raise Stopped(seconds, held)
    return Ended(group.wait(), seconds, heard.document, log, held)


class _GpuWatch:
    """Which of a stage's processes are on the GPU, and for how long: looked at every few seconds, counted from look to look."""

    def __init__(self, lane: Lane, before: Sequence[int] | None) -> None:
        self.lane, self.before, self.ours = lane, before, set[int]()
        self.seconds, self.holding = 0.0, False
        self.looked = time.monotonic()
        self.next = self.looked + GPU_FIRST

    def look(self) -> None:
        now = time.monotonic()
        if self.before is None or now < self.next:
            return
        found = gpu_processes(marked(MARK, self.lane.mark), visible=self.lane.visible)
        self.ours |= found
        self.holding = bool(found) or (not self.ours and self._grown())
        self._count(now)
        self.next = now + GPU_LOOK

    def end(self) -> float | None:
        """Seconds that the GPU was held; None without one."""
        if self.before is None:
            return None
        self._count(time.monotonic())
        return round(self.seconds, 1)

    def _count(self, now: float) -> None:
        if self.holding:
            self.seconds += now - self.looked
        self.looked = now

    def _grown(self) -> bool:
        """In a container NVML names no pid of ours: then memory tells."""
        used = self.lane.memory() or []
        return any(now > then + GPU_HELD for now, then in zip(used, self.before or [], strict=False))


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
                    say(line)

    def _result(self, line: str) -> bool:
        if not line.startswith("{"):
            return False
        try:
            self.document = json.loads(line)
        except ValueError:
            return False
        return True


def end_leftovers(mark: str, patience: float = PATIENCE) -> None:
    """End what is left of the stages marked `mark`, naming it. Raises `Failure` if something cannot be ended."""
    end_marked(MARK, mark, "what is left of a stage", patience)
