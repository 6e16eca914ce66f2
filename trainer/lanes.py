"""On which devices an orchestrated run's stages go: training, and its judge in turn with it or beside it.

Guarantees: every device that a stage uses is held by this process while the lanes are open; a judge beside the training sees
its own GPU alone, or none. Cost: none beyond waiting for who has a device.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from foundation.console import say
from foundation.devices import hold_device
from foundation.errors import UsageError
from foundation.ids import stable_id
from foundation.processes import gpu_occupants, visible_gpus
from trainer.stages import Lane, Signals, end_leftovers

if TYPE_CHECKING:
    from foundation.workspace import Workspace


class Lanes:
    """`training` and `judge` are one lane unless the judge has a device of its own (`beside`: "cpu" or "cuda:N")."""

    def __init__(self, workspace: Workspace, run: str, signals: Signals, beside: str) -> None:
        self.workspace, self.beside = workspace, beside
        marks = [stable_id("orchestrate", str(workspace.root), run, *more) for more in ((), ("judge",))]
        self.training, judge = (Lane(mark, workspace.root, signals) for mark in marks)
        self.judge = judge if beside else self.training
        self._all = (self.training, judge)

    def end_leftovers(self) -> None:
        """End what a killed orchestrator left: a stage may still be writing its checkpoint."""
        for lane in self._all:
            end_leftovers(lane.mark)

    def hold(self, held: ExitStack, device: str) -> None:
        """Take the devices, as long as it takes, and say who else is on them. Raises `UsageError` if one is not there."""
        purpose = f"trainer run --orchestrate in {self.workspace.root}"
        gpus, sliced = visible_gpus(), "MIG-" in os.environ.get("CUDA_VISIBLE_DEVICES", "")
        judge_on_gpu = self.workspace.settings.judge.backend == "vllm" and not self.beside
        on_gpu = bool(gpus) and (device != "cpu" or judge_on_gpu)
        other = other_gpu(self.beside, gpus, training=on_gpu, sliced=sliced)
        wanted = {f"gpu-{gpus[0]}" if on_gpu else "cpu": (self.training, purpose)}
        if other is not None:
            wanted[f"gpu-{other}"] = (self.judge, f"{purpose}, its judge")
        for name in sorted(wanted):  # in one order, or two runs could wait for each other
            lane, who = wanted[name]
            lane.environment = held.enter_context(hold_device(who, ask=True, name=name)).environment
            lane.gpu = name != "cpu"
            lane.visible = None if sliced else name.removeprefix("gpu-")
        if self.beside and other is None:
            self.judge.environment = {"CUDA_VISIBLE_DEVICES": ""}
        elif other is not None:
            for lane in (self.training, self.judge):
                if lane.gpu:
                    lane.environment = {**lane.environment, **_chosen(lane.visible or "")}
        if on_gpu or other is not None:
            for gpu, pid, program, size in gpu_occupants():
                say(f"GPU {gpu} is also used by {program}, pid {pid}: {size / 2**30:.1f} GiB that are not ours")


def other_gpu(named: str, gpus: Sequence[int], *, training: bool = True, sliced: bool = False) -> int | None:
    """NVML's number of the GPU that the judge is to have beside the training; None if it is to have none of its own.

    `training`: whether that has the first one; `sliced`: whether only a slice of one is given to this process (MIG).
    """
    if not named.startswith("cuda:"):
        return None
    number, where = int(named.removeprefix("cuda:")), "--judge-device, or orchestrate.judge_device"
    if sliced:
        raise UsageError(
            f"the judge cannot have {named}: CUDA_VISIBLE_DEVICES names a slice of a GPU (MIG)",
            where=where,
            mend="judge on the cpu, or in turn with training: leave it out",
        )
    if number < len(gpus) and not (training and number == 0):
        return gpus[number]
    few = {0: "there is no GPU here", 1: "there is only one GPU here"}
    why = few.get(len(gpus), f"there are only {len(gpus)} GPUs here")
    if gpus and number == 0:
        why = "that is the training's own GPU"
    raise UsageError(
        f"the judge cannot have {named}: {why}",
        where=where,
        mend="name another GPU, cuda:1 being the second one; or cpu; or leave it out to judge in turn with training",
    )


def _chosen(gpu: str) -> dict[str, str]:
    """What makes a process see that GPU alone. Numbers are NVML's, which CUDA shares in this order only."""
    return {"CUDA_VISIBLE_DEVICES": gpu, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
