"""What the GPUs do now, by NVML.

Guarantees: nothing here raises; no GPU, no driver or no library gives (), a value a GPU does not tell is None. Only GPUs
that `CUDA_VISIBLE_DEVICES` leaves visible are named. NVML makes no CUDA context, so it holds no memory of the GPU.
Cost: about 1 ms a GPU and look. The library stays open between looks; where there is none it is tried again once a minute.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from foundation.processes import choose_gpus
from queue_workers.snapshot import GpuUse

RETRY = 60.0  # seconds until NVML is tried again: a driver may come, or be exchanged


class Gpus:
    """One process's view of the GPUs. `look()` as often as you like, `close()` at the end."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._nvml: Any = None
        self._handles: list[Any] = []
        self._failed: float | None = None

    def look(self) -> tuple[GpuUse, ...]:
        if self._nvml is None and not self._open():
            return ()
        try:
            return tuple(self._use(handle) for handle in self._handles)
        except Exception:  # the GPU fell off the bus, or the driver went: pynvml raises a family of its own
            self.close()
            self._failed = self.clock()
            return ()

    def close(self) -> None:
        nvml, self._nvml, self._handles = self._nvml, None, []
        if nvml is not None:
            _or_none(nvml.nvmlShutdown)

    def _open(self) -> bool:
        if self._failed is not None and self.clock() - self._failed < RETRY:
            return False
        try:
            import pynvml

            pynvml.nvmlInit()
        except Exception:  # no library or no driver
            self._failed = self.clock()
            return False
        self._nvml = pynvml
        try:
            handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
            uuids = [_text(pynvml.nvmlDeviceGetUUID(handle)) for handle in handles]
        except Exception:
            self.close()
            self._failed = self.clock()
            return False
        self._handles = [handles[index] for index in choose_gpus(os.environ.get("CUDA_VISIBLE_DEVICES"), uuids)]
        return True

    def _use(self, handle: Any) -> GpuUse:
        nvml = self._nvml
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        busy = _or_none(lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100)
        watts = _or_none(lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1000)
        name = _text(nvml.nvmlDeviceGetName(handle))
        return GpuUse(name=name, used=int(memory.used), total=int(memory.total), busy=busy, watts=watts)


def _or_none(ask: Callable[[], Any]) -> Any:
    """What NVML answers; None where this GPU does not support the question (a MIG slice, an old card)."""
    try:
        return ask()
    except Exception:
        return None


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value  # bytes in older bindings
