"""How many contexts a device holds at once: found by trying, not by guessing.

Guarantees: the number that is found was tried, and its step left the memory free that was asked for. Weights are as before,
since nothing here takes an optimizer's step; gradients are whatever the tries left, so the caller clears them.
Cost: some five steps on a GPU, each of one forward and backward, those that run out of memory included; none on a CPU.
What a step needs is all but straight in the number of contexts, so a line through two tries comes close to the answer.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from foundation.errors import Failure

if TYPE_CHECKING:
    import torch

CPU_TOKENS = 8192  # at once on a CPU: more is no faster there
BY_LINE = 6  # tries after which no line is trusted any more: from then on the search doubles and halves


class Card(Protocol):
    """What the search needs of a GPU; this is the whole surface."""

    def room(self) -> int:
        """Bytes of the card that this process could ever have: what others hold is not among them."""

    def peak(self, contexts: int) -> int | None:
        """Bytes this process had at most in a step of that many contexts; None if it ran out of memory."""


@dataclass
class CudaCard:
    """A real GPU, and the step that is tried on it."""

    step: Callable[[int], None]
    device: torch.device

    def room(self) -> int:
        import torch

        free, _ = torch.cuda.mem_get_info(self.device)
        return int(free + torch.cuda.memory_reserved(self.device))

    def peak(self, contexts: int) -> int | None:
        import torch

        self.clear()
        if not self._stepped(contexts):
            self.clear()
            return None
        torch.cuda.synchronize(self.device)
        return int(torch.cuda.max_memory_reserved(self.device))

    def clear(self) -> None:
        """Give back what is held for reuse, so that one try does not live on another's blocks."""
        import torch

        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self.device)

    def _stepped(self, contexts: int) -> bool:
        try:
            self.step(contexts)
        except RuntimeError as error:  # its frames hold the tensors: they must be gone before memory is given back
            if not out_of_memory(error):
                raise
            return False
        return True


def out_of_memory(error: BaseException) -> bool:
    """Whether that is a GPU's "no more memory", as torch's allocator, CUDA or cuBLAS has it."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError)
        and any(words in str(error) for words in ("CUDA error: out of memory", "_ALLOC_FAILED"))
    )


def choose(
    step: Callable[[int], None],
    *,
    batch: int,
    context: int,
    device: torch.device,
    leave: int,
    reserve: int = 0,
) -> int:
    """The physical batch: how many of a step's `batch` contexts of `context` tokens go through the model at once.

    `step(n)` is one forward and backward of n contexts; it leaves the gradients where they are, so that they count.
    On a GPU, the most that leaves `leave` bytes free, with `reserve` more for what training will hold and does not yet
    (an optimizer's moments); on a CPU, as many as make 8,192 tokens. Then evened out: of 120 with room for 50, 40.
    Raises `Failure` if one context does not fit.
    """
    if device.type != "cuda":
        return even(batch, max(1, CPU_TOKENS // context))
    card = CudaCard(step, device)
    card.peak(1)  # what a first step alone makes (gradients, handles, work spaces) is there from the next one on
    room = card.room() - leave - reserve
    most = largest(card, batch, room)
    card.clear()
    if not most:
        raise too_small(card.peak(1), context, room, leave)
    return even(batch, most)


def even(batch: int, most: int) -> int:
    """The smallest physical batch that takes as few passes as `most` would."""
    return math.ceil(batch / math.ceil(batch / min(batch, most)))


def largest(card: Card, limit: int, room: int) -> int:
    """The most contexts, up to `limit`, whose step has its peak within `room` bytes; 0 if one does not.

    Grows until one does not fit, then closes in between the two, by the line through what fitted as long as that helps.
    """
    fitted: dict[int, int] = {}  # peak of each number that was tried and fits
    low, high, guess, tries = 0, limit + 1, 1, 0  # `low` fits; `high` does not, or is past the limit
    while high - low > 1:
        peak = card.peak(guess)
        tries += 1
        if peak is not None and peak <= room:
            low, fitted[guess] = guess, peak
        else:
            high = guess
        blind = 2 * low if high > limit else (low + high) // 2
        line = _by_line(fitted, room) if tries <= BY_LINE else None
        guess = min(high - 1, max(low + 1, blind if line is None else line))
    return low


def _by_line(peaks: dict[int, int], room: int) -> int | None:
    """Where the line through the two largest numbers meets the room; None where there is no such line."""
    known = sorted(peaks)[-2:]
    if len(known) < 2 or peaks[known[1]] <= peaks[known[0]]:
        return None
    each = (peaks[known[1]] - peaks[known[0]]) / (known[1] - known[0])
    return known[1] + int((room - peaks[known[1]]) / each)


def too_small(peak: int | None, context: int, room: int, leave: int) -> Failure:
    """What to tell somebody whose card cannot hold one context."""
    needs = f"needs {peak / 2**30:.1f} GB" if peak else "needs more than there is"
    return Failure(
        f"not even one context of {context:,} tokens fits this GPU: it {needs}, "
        f"and {max(0, room) / 2**30:.1f} GB are there with {leave / 2**30:.1f} GB left free",
        where="train.physical_batch = 0 (--batch auto)",
        mend="set train.recompute = true, take a smaller preset (`trainer params` says what fits), a shorter context, "
        "or leave less free (--leave-vram)",
    )
