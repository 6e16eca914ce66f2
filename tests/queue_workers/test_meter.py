"""Rates that are right when it starts and after a pause, and totals of energy and money that outlive a restart."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from foundation.workspace import Workspace
from queue_workers import snapshot
from queue_workers.gpus import RETRY, Gpus
from queue_workers.ledger import Totals
from queue_workers.meter import SAVED, WINDOW, Meter, read_used
from queue_workers.snapshot import GpuUse, Snapshot

UNIT = Totals(units=1, items=10, accepted=8, rejected=2, records=12, tokens=1000)


class Clock:
    """A clock that moves when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class FakeNvml:
    """What pynvml offers, for two GPUs: there is none here. `lost` makes every question fail; MIG tells no use and no draw."""

    def __init__(self, *, lost: bool = False, mig: bool = False) -> None:
        self.lost, self.mig, self.opened, self.closed, self.watts = lost, mig, 0, 0, [100.0, 300.0]

    def nvmlInit(self) -> None:
        self._check()
        self.opened += 1

    def nvmlShutdown(self) -> None:
        self.closed += 1

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetUUID(self, handle: int) -> str:
        return f"GPU-{handle}aaa"

    def nvmlDeviceGetName(self, handle: int) -> bytes:
        return b"Card of a test"

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        self._check()
        return SimpleNamespace(used=4 * 2**30, total=16 * 2**30)

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:
        self._check(self.mig)
        return SimpleNamespace(gpu=87)

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:
        self._check(self.mig)
        return int(self.watts[handle] * 1000)

    def _check(self, wrong: bool = False) -> None:
        if self.lost or wrong:
            raise RuntimeError("NVML says no")


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same here as on a machine with a GPU, unless a test asks for one."""
    monkeypatch.setitem(sys.modules, "pynvml", None)  # an import of it fails


@pytest.fixture
def nvml(no_gpu: None, monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    fake = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return fake


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = Workspace.init(tmp_path / "w")
    (made.root / "factory.toml").write_text("[work]\nhourly_price = 2.0\nkwh_price = 0.5\n")
    return made


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_rate_is_right_from_the_first_seconds_on(workspace: Workspace, clock: Clock) -> None:
    meter = Meter(workspace, clock=clock)
    assert meter.rates() == (0, 0, 0)
    meter.add(UNIT)
    assert meter.rates() == (12, 10, 1000)  # of the first second, however little of it has gone by
    for _ in range(9):
        clock.now += 1
        meter.tick()
        meter.add(UNIT)
    clock.now += 1
    assert meter.rates() == pytest.approx((12, 10, 1000))
    assert meter.fields()["units"] == 10
    meter.close()


def test_a_rate_looks_back_five_minutes_and_no_further(workspace: Workspace, clock: Clock) -> None:
    meter = Meter(workspace, clock=clock)
    for second in range(3 * WINDOW):
        meter.add(UNIT if second < 2 * WINDOW else Totals(records=6, items=5, tokens=500))
        clock.now += 1
        meter.tick()
    assert meter.rates() == pytest.approx((6, 5, 500), rel=0.02)
    assert len(meter._buckets) <= WINDOW + 1
    clock.now += 10 * WINDOW  # it works, and nothing comes of it
    assert meter.rates() == (0, 0, 0)
    meter.close()


def test_a_pause_counts_for_nothing(workspace: Workspace, clock: Clock) -> None:
    meter = Meter(workspace, clock=clock)
    for _ in range(100):
        clock.now += 1
        meter.tick()
        meter.add(UNIT)
    before = meter.rates()
    meter.tick(working=False)
    for _ in range(3 * 24 * 60):
        clock.now += 60
        meter.tick(working=False)
    assert meter.rates() == (0, 0, 0)
    meter.tick(working=True)
    assert meter.rates() == pytest.approx(before)
    for _ in range(50):
        clock.now += 1
        meter.tick()
        meter.add(UNIT)
    assert meter.rates() == pytest.approx((12, 10, 1000), rel=0.02)
    meter.close()


def test_energy_and_money_are_summed_and_outlive_a_restart(workspace: Workspace, clock: Clock, nvml: FakeNvml) -> None:
    # given two cards that draw 400 W together
    meter = Meter(workspace, clock=clock)
    meter.tick()
    for _ in range(1800):
        clock.now += 2
        meter.tick()
    # then an hour is 0.4 kWh and costs 2.00 and 0.4 times 0.50
    assert read_used(workspace).kwh == pytest.approx(0.4, abs=0.4 * SAVED / 3600)  # a kill loses a minute at most
    meter.close()
    used = read_used(workspace)
    assert (used.seconds, used.kwh, used.money) == pytest.approx((3600, 0.4, 2.2))
    assert nvml.closed == 1
    # and the next run goes on from there, paused or not
    clock.now += 99_999
    nvml.watts = [0.0, 200.0]
    meter = Meter(workspace, clock=clock)
    meter.tick(working=False)
    clock.now += 3600
    meter.tick(working=False)
    fields = meter.fields()
    assert (fields["hours"], fields["kwh"], fields["money"]) == pytest.approx((2, 0.6, 4.3))
    meter.close()


def test_of_two_at_once_one_counts(workspace: Workspace, clock: Clock, nvml: FakeNvml) -> None:
    first, second = Meter(workspace, clock=clock), Meter(workspace, clock=clock)
    for _ in range(100):
        clock.now += 36
        first.tick()
        second.tick()
    first.close()
    assert read_used(workspace).kwh == pytest.approx(0.4)
    assert second.fields()["kwh"] == pytest.approx(0.4, rel=0.05)  # as last written
    # and the second takes over when the first has ended
    for _ in range(100):
        clock.now += 36
        second.tick()
    second.close()
    assert read_used(workspace).kwh == pytest.approx(0.8, rel=0.02)


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"seconds": "x", "kwh": 1, "money": 1}', "\0" * 50])
def test_a_broken_file_of_totals_is_begun_anew(workspace: Workspace, clock: Clock, text: str) -> None:
    (workspace.cache / "meter.json").write_text(text)
    meter = Meter(workspace, clock=clock)
    clock.now += 3600
    meter.close()
    assert json.loads((workspace.cache / "meter.json").read_text())["money"] == pytest.approx(2.0)


def test_the_fields_make_a_snapshot(workspace: Workspace, clock: Clock, nvml: FakeNvml) -> None:
    meter = Meter(workspace, clock=clock)
    meter.tick()
    meter.add(UNIT)
    made = Snapshot(**snapshot.mine(), command="run", since=1, written=2, state="working", **meter.fields())
    assert made.records == 12
    assert made.gpus[0] == GpuUse(name="Card of a test", used=4 * 2**30, total=16 * 2**30, busy=0.87, watts=100.0)
    assert Snapshot.model_validate_json(made.model_dump_json()) == made
    meter.close()


def test_without_a_gpu_there_is_none() -> None:
    assert Gpus().look() == ()


def test_only_visible_gpus_are_told(nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert [gpu.watts for gpu in Gpus().look()] == [300.0]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert Gpus().look() == ()


def test_what_a_gpu_does_not_tell_is_unknown(nvml: FakeNvml) -> None:
    nvml.mig = True
    assert [(gpu.busy, gpu.watts) for gpu in Gpus().look()] == [(None, None)] * 2


def test_a_gpu_that_is_lost_is_no_error_and_is_looked_for_again(nvml: FakeNvml, clock: Clock) -> None:
    gpus = Gpus(clock)
    assert len(gpus.look()) == len(gpus.look()) == 2
    assert nvml.opened == 1
    nvml.lost = True
    assert gpus.look() == ()
    nvml.lost = False
    assert gpus.look() == ()  # not at once
    clock.now += RETRY
    assert len(gpus.look()) == 2
    assert (nvml.opened, nvml.closed) == (2, 1)
