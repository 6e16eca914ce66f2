"""The book of an orchestrated run: its state and files on disk, and which of its checkpoints are kept for its judge.

Guarantees: the state is put in place whole before the lines that follow from it, and what a kill left undone in between is
made good when the book is opened; two threads may write. Cost: two small files a change; no torch is imported.
"""

from __future__ import annotations

import shutil
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from foundation.errors import UsageError
from foundation.store import LocalStore
from foundation.tables import OrchestrateSettings
from trainer.judgings import kept_steps
from trainer.metrics import ROUNDS, RoundPoint, best_judged, read_rounds
from trainer.paths import keep_judged
from trainer.round_state import JUDGED, STATE, State, Took, flat, read_state, round_ends


class Book:
    """`folder` is the run's; `state` what is in its orchestrate.json."""

    def __init__(self, run: str, folder: Path) -> None:
        self.run, self.folder = run, folder
        self.state = State(run=run, rounds=0, judge_every=0, steps=0, ends=())
        self.changing = threading.RLock()  # a judge beside the training records its word itself

    def open(self, steps: Callable[[], int], settings: OrchestrateSettings, *, fresh: bool) -> None:
        """Read the state, or make one for a run of `steps()`. Raises `UsageError` if the run was begun with other rounds."""
        for old in self.folder.parent.glob(f".{self.folder.name}.forgotten-*"):  # of one that was killed as it forgot
            shutil.rmtree(old, ignore_errors=True)
        found = None if fresh else read_state(self.folder / STATE)
        rounds, every = settings.rounds, settings.judge_every
        if found is None:
            planned, done = steps(), 0 if fresh else max(kept_steps(self.folder), default=0)
            ends = round_ends(planned, rounds, every, done)
            self.state = State(run=self.run, rounds=rounds, judge_every=every, steps=planned, ends=ends)
            return
        if (found.judge_every, found.judge_every or found.rounds) != (every, every or rounds):
            then, now = (_cut(one, other) for one, other in ((found.rounds, found.judge_every), (rounds, every)))
            raise UsageError(
                f"run {self.run} was begun with {then}, and is to have {now} now",
                where=str(self.folder / STATE),
                mend="set [orchestrate] back, name another run with --run, or begin this one anew with --fresh",
            )
        left = len(found.trained) < len(found.ends)
        self.state = found.model_copy(update={"ended": flat(found.points, settings.flat_rounds) if left else ""})
        if tuple(read_rounds(self.folder)) != self._sorted():  # killed between the state and its lines
            self.keep(points=self.state.points)
        self.pin()

    def forget(self) -> None:
        """Begin anew: what the run had is out of sight in one step, then removed."""
        if self.folder.exists():
            old = self.folder.with_name(f".{self.folder.name}.forgotten-{uuid.uuid4().hex}")
            self.folder.rename(old)
            self.folder.mkdir()
            shutil.rmtree(old, ignore_errors=True)
        self.keep()

    def keep(self, **changes: Any) -> None:
        """Put the new state in place, and rounds.jsonl after it."""
        with self.changing:
            self.state = self.state.model_copy(update=changes)
            store = LocalStore(self.folder)
            store.put(STATE, self.state.model_dump_json(indent=1).encode() + b"\n")
            if "points" in changes:
                store.put(ROUNDS, b"".join(point.model_dump_json().encode() + b"\n" for point in self._sorted()))

    def _sorted(self) -> tuple[RoundPoint, ...]:
        return tuple(sorted(self.state.points, key=lambda point: (point.round, JUDGED.index(point.split))))

    def pin(self) -> None:
        """Keep the checkpoint with the best pass rate, and those that no judging was tried on; the others may go."""
        best = best_judged(self.state.points)
        for number, trained in self.state.trained.items():
            waits = not self.state.unasked and not self.state.of(number)
            keep_judged(self.checkpoint(number), kept=waits or (best is not None and best.step == trained.step))

    def answered(self, number: int) -> Took:
        return self.state.answered.get(number, Took(seconds=0.0))

    def checkpoint(self, number: int) -> Path:
        return self.folder / "checkpoints" / self.state.trained[number].checkpoint

    def file(self, number: int, what: str) -> Path:
        return self.folder / "rounds" / str(number) / f"{what}.jsonl"


def _cut(rounds: int, judge_every: int) -> str:
    return f"a judging every {judge_every:,} steps" if judge_every else f"{rounds} rounds"
