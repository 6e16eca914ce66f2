"""Guards against steps that would spoil a run: a loss that is not a number, or one far off what it has been.

Guarantees: a function of the losses and norms it was shown, kept in every checkpoint, so a resumed run decides as the
unbroken one did. A bad step is left out; three in a row take the weights back to the last checkpoint, and the run goes on
with the data that follows; if the numbers are still none after that, it ends. A higher loss that lasts is taken for the new
normal: data change (a curriculum), and the guard must not starve a run of them. Cost: nothing.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from typing import Literal

HISTORY = 64  # steps that "what it has been" means
ENOUGH = 20  # steps before anything can be called far off
FAR = 10.0  # robust deviations above the median, and at least one nat, that make a spike of a loss ...
STEEP = 4.0  # ... whose gradient is also this many times as long as the median one
IN_A_ROW = 3  # bad steps after which skipping is not enough

Decision = Literal["take", "skip", "roll back", "give up"]


class Guard:
    """Judges each step before it is taken. `skipped` counts those left out since the run began."""

    def __init__(self) -> None:
        self.skipped = 0
        self._row = 0
        self._rolled_back = 0  # times in a row, with no step taken between
        self._losses: deque[float] = deque(maxlen=HISTORY)
        self._norms: deque[float] = deque(maxlen=HISTORY)

    def judge(self, loss: float, norm: float) -> Decision:
        """What to do with a step of this loss and this gradient's norm, before clipping."""
        finite = math.isfinite(loss) and math.isfinite(norm)
        if finite and not self._spike(loss, norm):
            self._losses.append(loss)
            self._norms.append(norm)
            self._row = self._rolled_back = 0
            return "take"
        self.skipped += 1
        self._row += 1
        if self._row < IN_A_ROW:
            return "skip"
        self._row = 0
        self._losses.clear()
        self._norms.clear()
        self._rolled_back += 1
        return "roll back" if self._rolled_back == 1 or finite else "give up"

    def _spike(self, loss: float, norm: float) -> bool:
        if len(self._losses) < ENOUGH:
            return False
        middle = statistics.median(self._losses)
        spread = 1.4826 * statistics.median(abs(value - middle) for value in self._losses)
        return loss > middle + max(1.0, FAR * spread) and norm > STEEP * statistics.median(self._norms)

    def forget(self) -> None:
        """What comes now is other data: nothing before says what is far off."""
        self._losses.clear()
        self._norms.clear()

    def state(self) -> tuple[float, ...]:
        """All it knows but `skipped`, as numbers."""
        return (float(self._row), float(self._rolled_back), *self._losses, *self._norms)

    def restore(self, state: tuple[float, ...], skipped: int) -> None:
        """Know again what `state()` said; nothing if it is empty."""
        self.skipped = skipped
        self._row, self._rolled_back = (int(state[0]), int(state[1])) if state else (0, 0)
        half = (len(state) - 2) // 2
        self._losses = deque(state[2 : 2 + half], maxlen=HISTORY)
        self._norms = deque(state[2 + half :], maxlen=HISTORY)
