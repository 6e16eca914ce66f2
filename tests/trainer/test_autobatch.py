"""How many contexts go through the model at once: found on a card that is only a simulation of one."""

from __future__ import annotations

import math

import pytest
import torch

from foundation.errors import Failure
from trainer.autobatch import choose, even, largest, out_of_memory, too_small

MB = 1 << 20


class SimulatedCard:
    """A simulation of a card: a step takes `base` bytes and `each` a context, bent by `bend`; more than `size` is too much.

    `tries` are the numbers of contexts it was asked to step.
    """

    def __init__(self, base: int, each: int, size: int, bend: float = 1.0, block: int = 2 * MB) -> None:
        self.base, self.each, self.size, self.bend, self.block = base, each, size, bend, block
        self.tries: list[int] = []

    def room(self) -> int:
        return self.size

    def peak(self, contexts: int) -> int | None:
        self.tries.append(contexts)
        bytes_ = self.needs(contexts)
        return None if bytes_ > self.size else bytes_

    def needs(self, contexts: int) -> int:
        """Whole blocks, as an allocator takes them."""
        return math.ceil((self.base + self.each * contexts**self.bend) / self.block) * self.block


@pytest.mark.parametrize("fitting", [1, 2, 3, 4, 7, 50, 119, 120, 5_000])
def test_it_finds_the_most_that_fit_in_few_tries(fitting: int) -> None:
    # given a card with room for so many contexts and a little more
    card = SimulatedCard(base=500 * MB, each=100 * MB, size=(500 + 100 * fitting + 60) * MB)
    # when a step has 120 contexts
    found = largest(card, 120, card.room())
    # then that many are found, each try is another one, and there are few
    assert found == min(fitting, 120)
    assert len(card.tries) == len(set(card.tries)) <= 6
    assert max(card.tries) <= 120


@pytest.mark.parametrize("bend", [0.5, 0.8, 1.3, 2.0])
@pytest.mark.parametrize("limit", [1, 5, 64, 1_000])
def test_it_finds_them_where_memory_is_no_straight_line(bend: float, limit: int) -> None:
    card = SimulatedCard(base=3_000 * MB, each=40 * MB, size=9_000 * MB, bend=bend)
    found = largest(card, limit, card.room())
    assert card.needs(found) <= card.size
    assert found == limit or card.needs(found + 1) > card.size
    assert len(card.tries) <= 6 + 2 * math.log2(limit + 1)


def test_room_that_is_to_stay_free_stays_free() -> None:
    # 60 contexts would run without running out of memory; 50 leave what is asked for
    card = SimulatedCard(base=0, each=100 * MB, size=6_000 * MB)
    found = largest(card, 120, card.room() - 1_000 * MB)
    assert found == 50
    assert card.needs(found) <= 5_000 * MB


def test_a_card_that_holds_none_says_so() -> None:
    assert largest(SimulatedCard(base=900 * MB, each=200 * MB, size=1_000 * MB), 120, 1_000 * MB) == 0
    said = str(too_small(1_100 * MB, 4096, 1_000 * MB, 1_024 * MB))
    assert "not even one context of 4,096 tokens fits" in said
    assert "needs 1.1 GB, and 1.0 GB are there with 1.0 GB left free" in said
    assert "train.recompute = true" in said
    assert "more than there is" in str(too_small(None, 4096, 1_000 * MB, 0))


def test_the_passes_of_a_step_are_about_as_full() -> None:
    assert even(120, 50) == 40  # 3 passes of 40, not 50, 50 and 20
    assert even(120, 119) == 60
    assert [even(batch, most) for batch, most in ((120, 120), (120, 500), (120, 1), (7, 3), (1, 1))] == [
        120,
        120,
        1,
        3,
        1,
    ]
    for batch in range(1, 130):
        for most in range(1, 130):
            physical = even(batch, most)
            assert physical <= most
            assert math.ceil(batch / physical) == math.ceil(batch / min(batch, most))


def test_a_cpu_takes_8192_tokens_at_once_and_tries_nothing() -> None:
    def never(_contexts: int) -> None:
        raise AssertionError("a step was tried on a CPU")

    def chosen(batch: int, context: int) -> int:
        return choose(never, batch=batch, context=context, device=torch.device("cpu"), leave=1 << 30)

    assert chosen(120, 1024) == 8
    assert chosen(2, 512) == 2
    assert chosen(120, 16_384) == 1
    assert chosen(20, 1024) == 7  # 7, 7 and 6, not 8, 8 and 4


def test_what_counts_as_out_of_memory() -> None:
    assert out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"))
    assert out_of_memory(RuntimeError("CUDA error: out of memory"))
    assert out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    assert not out_of_memory(RuntimeError("CUDA error: an illegal memory access was encountered"))
    assert not out_of_memory(ValueError("out of memory"))
    with pytest.raises(Failure):
        raise too_small(None, 1, 0, 0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here: the choice on a real card is not tested")
def test_on_a_real_card_the_choice_leaves_what_is_asked_for_and_weights_alone() -> None:
    device = torch.device("cuda")
    weight = torch.ones(1_000, 1_000, device=device, requires_grad=True)
    before = weight.detach().clone()

    def step(contexts: int) -> None:
        (torch.randn(contexts * 4_096, 1_000, device=device) @ weight).relu().sum().backward()

    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info(device)
    leave = free - (1 << 30)
    found = choose(step, batch=1_000, context=4_096, device=device, leave=leave)
    assert 1 < found < 1_000
    assert torch.equal(weight, before)
    step(found)
    assert torch.cuda.mem_get_info(device)[0] >= leave
