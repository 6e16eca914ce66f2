"""Who pays for what the teacher fails: the unit, or nobody.

Guarantees: a unit is charged only if the teacher did others after it failed this one, so a teacher that fails all it is
asked uses up no unit, however long; a unit that it cannot do is charged each further time. `charging` charges all: the
way out of a command that is to end. Cost: one page of memory that the forked workers share, without a file or a lock.
"""

from __future__ import annotations

import mmap

from foundation.records import Unit

PLACES = 500  # suspects known at a time; of more, the newest are


class Blame:
    """The parent tells it what it hears; the workers, forked later, ask it."""

    def __init__(self, *, charging: bool = False) -> None:
        self._words = memoryview(mmap.mmap(-1, 8 * (PLACES + 1))).cast("q")
        self._next = 0
        self.failed: set[str] = set()  # units it failed since it did one
        self.in_a_row = 0
        self._words[0] = int(charging)

    def charges(self, unit: Unit) -> bool:
        """Whether this unit pays for the failure it just had."""
        return bool(self._words[0]) or hash(unit.id) in self._words[1:].tolist()

    def charge_all(self) -> None:
        self._words[0] = 1

    def did(self, unit: Unit) -> None:
        """The teacher did this one: what it failed before is suspect now."""
        words = self._words[1:].tolist()
        for id_ in self.failed - {unit.id}:
            if hash(id_) not in words:
                self._words[1 + self._next % PLACES] = hash(id_)
                self._next += 1
        if hash(unit.id) in words:
            self._words[1 + words.index(hash(unit.id))] = 0
        self.failed.clear()
        self.in_a_row = 0

    def fails(self, unit: Unit) -> None:
        self.failed.add(unit.id)
        self.in_a_row += 1
