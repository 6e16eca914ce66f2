"""On which devices an orchestrated run's stages go: training, and its judge in turn with it or beside it.

Guarantees: every device that a stage uses is held by this process while the lanes are open; a judge beside the training sees
its own GPU alone, or none. Cost: none beyond waiting for who has a device.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from foundation.console import say
from foundation.devices import hold_device
from foundation.errors import UsageError
from foundation.ids import stable_id
from foundation.processes import gpu_memory_used, gpu_occupants, visible_gpus
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
        on_gpu = self.workspace.settings.judge.backend == "vllm" and not self.beside
        gpus = visible_gpus()
        other = other_gpu(self.beside, gpus)
        name = "cpu" if device == "cpu" and not on_gpu else ""
        self.training.environment = held.enter_context(hold_device(purpose, ask=True, name=name)).environment
        if other is not None:
            hold = held.enter_context(hold_device(f"{purpose}, its judge", ask=True, name=f"gpu-{other}"))
            self.judge.visible = str(other)
            self.judge.environment = {**hold.environment, **_chosen(self.judge.visible)}
            self.judge.gpu = gpu_memory_used(visible=self.judge.visible)
            self.training.visible = str(gpus[0])
            self.training.environment = {**self.training.environment, **_chosen(self.training.visible)}
        elif self.beside:
            self.judge.environment = {"CUDA_VISIBLE_DEVICES": ""}
        self.training.gpu = gpu_memory_used(visible=self.training.visible)
        for gpu, pid, program, size in gpu_occupants():
            say(
                f"GPU {gpu} is also used by {program or 'a process'}, pid {pid}: {size / 2**30:.1f} GiB that are not ours"
            )


def other_gpu(named: str, gpus: Sequence[int]) -> int | None:
    """NVML's number of the GPU that the judge is to have beside the training; None if it is to have none of its own."""
    if not named.startswith("cuda:"):
        return None
    number = int(named.removeprefix("cuda:"))
    if not 0 < number < len(gpus):
        few = {0: "there is no GPU here", 1: "there is only one GPU here"}
        why = (
            few.get(len(gpus), f"there are only {len(gpus)} GPUs here") if number else "that is the training's own GPU"
        )
        raise UsageError(
            f"the judge cannot have {named}: {why}",
            where="--judge-device, or orchestrate.judge_device",
            mend="name another GPU, cuda:1 being the second one; or cpu; or leave it out to judge in turn with training",
        )
    return gpus[number]


def _chosen(gpu: str) -> dict[str, str]:
    """What makes a process see that GPU alone. Numbers are NVML's, which CUDA shares in this order only."""
    return {"CUDA_VISIBLE_DEVICES": gpu, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
