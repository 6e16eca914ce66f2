"""All that can be known of a factory from outside: what `factory status` and the metrics tell.

Guarantees: looking changes nothing but the index of counts, which is a cache: no Redis is started, nothing is locked for
long, and what is not known is None, not 0. Units that are committed while one looks may be counted twice for a moment,
never in neither place.
Cost: the plan and the ledger (see there), which `Counts` reads anew only as often as keeps it under 5 % of one core, and
which are not compared with the shards while a command at work here does so; the rest some 10 ms. Seen is what runs on this machine, what is queued, and what any machine committed.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from foundation.log import last_events
from queue_workers import snapshot
from queue_workers.glance import Glance, glance
from queue_workers.gpus import Gpus
from queue_workers.ledger import Totals, open_ledger
from queue_workers.meter import Used, read_used
from queue_workers.snapshot import GpuUse, Snapshot, TeacherUse

if TYPE_CHECKING:
    from foundation.workspace import Workspace

SHARE = 20  # a count that took t seconds is not repeated for SHARE * t
SILENT = 30.0  # seconds without a snapshot, which is due every two, after which something is wrong


@dataclass(frozen=True)
class Kind:
    """One prompt type: units and items planned, what is done of it, units set aside, whether it is paused."""

    planned: int = 0
    planned_items: int = 0
    done: Totals = field(default_factory=Totals)
    failed: int = 0
    paused: bool = False

    @property
    def left(self) -> int:
        """Units to do."""
        return max(0, self.planned - self.done.units - self.failed)

    @property
    def items_left(self) -> float:
        """Items in them: units are counted, since text that was retired meanwhile yields no item."""
        return self.left * self.planned_items / self.planned if self.planned else 0.0


@dataclass(frozen=True)
class View:
    """The factory at `time`. `free` and `min_free` are bytes of disk; `paused_for` seconds, at least; `holder` has the GPU."""

    time: float
    kinds: dict[str, Kind]
    totals: Totals
    queue: Glance
    snapshots: list[Snapshot] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    gpus: tuple[GpuUse, ...] = ()
    used: Used = field(default_factory=Used)
    paused: bool = False
    paused_for: float = 0.0
    holder: str = ""
    free: int = 0
    min_free: int = 0

    @property
    def planned(self) -> int:
        return sum(kind.planned for kind in self.kinds.values())

    @property
    def left(self) -> int:
        return sum(kind.left for kind in self.kinds.values())

    @property
    def paused_units(self) -> int:
        """Units that wait because they, or all, are paused."""
        return sum(kind.left for kind in self.kinds.values() if self.paused or kind.paused)

    @property
    def known(self) -> bool:
        """Whether the counts of the queue mean something; where nothing is planned, nothing is queued."""
        return self.queue.known or not self.planned

    @property
    def state(self) -> str:
        """What the process that runs longest here does; `stopped` if none runs."""
        return self.snapshots[0].state if self.snapshots else "stopped"

    @property
    def teacher(self) -> TeacherUse | None:
        return next((one.teacher for one in self.snapshots if one.teacher.state != "none"), None)

    def rate(self, of: str) -> float:
        """`records`, `items` or `tokens` a second, of all that runs here."""
        return float(sum(getattr(one, f"{of}_per_second") for one in self.snapshots))

    @property
    def eta(self) -> float | None:
        """Seconds until what is planned and not paused is done; None where nobody can know."""
        items = sum(kind.items_left for kind in self.kinds.values() if not kind.paused)
        if self.paused or not self.rate("items"):
            return None if items or self.paused else 0.0
        return items / self.rate("items")

    def wrong(self) -> list[str]:
        """What keeps it from working, or asks for a hand; the gravest first. Nothing if all is well."""
        return [*self._not_running(), *self._troubles(), *self._left_over()]

    def _not_running(self) -> list[str]:
        if self.snapshots or not self.left:
            return []
        since = ""
        with contextlib.suppress(ValueError, IndexError, TypeError):
            last = datetime.fromisoformat(self.events[-1]["time"]).timestamp()
            since = f" since {moment(last)}"
        return [f"nothing runs here{since}, and {self.left:,} units are left: `factory run`"]

    def _troubles(self) -> list[str]:
        found = []
        if self.paused:
            found.append(f"paused for {duration(self.paused_for)}: `factory resume`")
        elif self.paused_units:
            names = ", ".join(name for name, kind in self.kinds.items() if kind.paused)
            found.append(f"paused for {duration(self.paused_for)}: {names} ({self.paused_units:,} units)")
        for one in self.snapshots:
            if self.time - one.written > SILENT:
                silence = duration(self.time - one.written)
                found.append(f"factory {one.command}, pid {one.pid}, has said nothing for {silence}: it may be stopped")
            elif one.state == "waiting" and one.reason:
                found.append(f"waiting: {one.reason}")
            if one.teacher.name and one.teacher.state in ("dead", "hung"):  # else it never was there: it is waited for
                found.append(f"the teacher {one.teacher.name} is {one.teacher.state}")
        if self.queue.error:
            found.append(self.queue.error)
        elif self.snapshots and not self.queue.running:
            found.append(
                "Redis cannot be seen, though workers run: if run/ was deleted, end them by kill PID and start again"
            )
        if self.free < self.min_free:
            found.append(f"the disk has {self.free / 1e6:,.0f} MB free, and {self.min_free / 1e6:,.0f} are asked for")
        if self.holder and not self.snapshots:
            found.append(f"the device is held by {self.holder}")
        return found

    def _left_over(self) -> list[str]:
        found = []
        failed = sum(self.queue.failed.values())
        if failed:
            found.append(f"{failed:,} units were set aside after repeated failures: `factory failures`")
        if self.totals.broken:
            found.append(
                f"lines of shards or rejects that cannot be read: {self.totals.broken:,}; `factory report` names the files. Delete "
                "such a shard, and `factory reconcile` queues its unit again"
            )
        return found

    def complaints(self) -> list[dict[str, Any]]:
        """The last warnings and errors of the event log's newest day, oldest first."""
        return [event for event in self.events if event["level"] in ("warning", "error")][-5:]


class Counts:
    """Plan and ledger of one workspace, read anew when they are asked for and it is time."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._next = 0.0
        self._kinds: dict[str, Kind] = {}
        self._totals = Totals()

    def get(self) -> tuple[dict[str, Kind], Totals]:
        """By prompt type what is planned and done, and the sum of what is done."""
        if time.monotonic() >= self._next:
            start = time.monotonic()
            self._read()
            end = time.monotonic()
            self._next = end + SHARE * (end - start)
        return self._kinds, self._totals

    def _read(self) -> None:
        from queue_workers.plan import Plan, load_plan

        units: dict[str, int] = {}
        items: dict[str, int] = {}
        for line in load_plan(self.workspace.store).lines:
            one = Plan((line,))
            units[line.prompt_type] = units.get(line.prompt_type, 0) + one.size
            items[line.prompt_type] = items.get(line.prompt_type, 0) + one.items
        self._totals, done = self._ledger()
        self._kinds = {
            name: Kind(units.get(name, 0), items.get(name, 0), done.get(name, Totals()))
            for name in sorted({*units, *done})
        }

    def _ledger(self) -> tuple[Totals, dict[str, Totals]]:
        """What is committed. Who works here follows the shards already, so they need not be listed again beside it."""
        at_work = [one for one in snapshot.read(self.workspace) if time.time() - one.written < SILENT]
        with open_ledger(self.workspace.store, self.workspace.cache, refresh=False) as ledger:
            totals = ledger.totals()
            if not at_work or totals.units < max(1, *(one.units for one in at_work)):  # or the index was deleted
                ledger.refresh()
                totals = ledger.totals()
            return totals, ledger.by_prompt_type()


def look(workspace: Workspace, counts: Counts) -> View:
    """The factory now. The queue is asked first: a unit on its way from there is found committed."""
    from dataclasses import replace

    queue = glance(workspace)
    kinds, totals = counts.get()
    paused, paused_types, paused_for = _controls(workspace)
    snapshots = snapshot.read(workspace)
    used = read_used(workspace)
    for one in snapshots:  # fresher than the file, which is written once a minute
        used = Used(max(used.seconds, one.hours * 3600), max(used.kwh, one.kwh), max(used.money, one.money))
    return View(
        time=time.time(),
        kinds={
            name: replace(kind, failed=queue.failed.get(name, 0), paused=name in paused_types)
            for name, kind in kinds.items()
        },
        totals=totals,
        queue=queue,
        snapshots=snapshots,
        events=last_events(workspace.logs),
        gpus=next((one.gpus for one in snapshots if one.gpus), ()) or _gpus(),
        used=used,
        paused=paused,
        paused_for=paused_for,
        holder=_holder() if workspace.settings.teacher.backend in ("auto", "vllm") else "",
        free=shutil.disk_usage(workspace.root).free,
        min_free=workspace.settings.work.min_free * 1_000_000,
    )


def _controls(workspace: Workspace) -> tuple[bool, tuple[str, ...], float]:
    """Whether all is paused, which prompt types are, and for how many seconds at least: since the last word on it."""
    from queue_workers.controls import CONTROLS, load_controls

    controls = load_controls(workspace.store)
    with contextlib.suppress(OSError):
        said = (workspace.root / CONTROLS).stat().st_mtime
        return controls.paused, controls.paused_types, max(0.0, time.time() - said)
    return controls.paused, controls.paused_types, 0.0


def _holder() -> str:
    from foundation.devices import device_holder
    from foundation.errors import Failure

    try:
        return device_holder()
    except Failure:  # the place for the locks is not ours: whoever takes the device says so
        return ""


def _gpus() -> tuple[GpuUse, ...]:
    gpus = Gpus()
    try:
        return gpus.look()
    finally:
        gpus.close()


def moment(seconds: float) -> str:
    """A time of this machine's clock, as a person reads it."""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M")


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `5 h 10 min`, `3 days 4 h`."""
    minutes, hours, days = int(seconds // 60), int(seconds // 3600), int(seconds // 86400)
    if days:
        return f"{days} day{'s' if days > 1 else ''} {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60:02d} min"
    return f"{minutes} min" if minutes else f"{int(seconds)} s"
