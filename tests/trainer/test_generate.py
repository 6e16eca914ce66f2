"""Generation: the cache changes the speed and nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.trainer.saved_run import SHAPES, random_model
from tests.trainer.small_run import one_context, random_records, small_model
from trainer.attention import attend
from trainer.generate import Choose, generate, greedy, top_k_sampler
from trainer.layout import Layout
from trainer.model import Model

PROMPTS = [[5, 9, 3], [7], [1, 2, 3, 4, 5, 6, 7, 8], [40, 41], [9] * 20]
NEVER = 99  # no token of this vocabulary


def plain_logits(model: Model, tokens: list[int]) -> Tensor:
    """Logits after `tokens`, without a cache."""
    layout = Layout.of([len(tokens)], len(tokens))
    hidden = model.hidden(
        torch.tensor(tokens), torch.arange(len(tokens)), lambda _, q, k, v: attend(q, k, v, layout, "mask")
    )
    return model.logits(hidden[-1])


def collect(
    model: Model, prompts: list[list[int]], limit: int, stop: int = NEVER, choose: Choose = greedy
) -> list[list[int]]:
    written: list[list[int]] = [[] for _ in prompts]
    for row, token in generate(model, prompts, limit=limit, stop=stop, choose=choose):
        written[row].append(token)
    return written


@pytest.mark.parametrize("kind", SHAPES)
def test_logits_with_the_cache_are_those_without(kind: str) -> None:
    """Of every kind of model, for prompts of many lengths at once, and for one alone."""
    model = random_model(SHAPES[kind].model_copy(update={"vocabulary": 50, "context": 64}))
    check_cache(model, PROMPTS)
    check_cache(model, [PROMPTS[2]])
    check_cache(model, [[4, 5, 6], [7, 8, 9]])


def check_cache(model: Model, prompts: list[list[int]]) -> None:
    seen: list[Tensor] = []

    def watch(logits_BV: Tensor) -> Tensor:
        seen.append(logits_BV)
        return greedy(logits_BV)

    written = collect(model, prompts, 12, choose=watch)
    for row, prompt in enumerate(prompts):
        for place in range(12):
            with torch.no_grad():
                wanted = plain_logits(model, prompt + written[row][:place])
            torch.testing.assert_close(seen[place][row], wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))


def test_no_position_is_computed_twice() -> None:
    """One pass over the prompts, then one token a row: what was read stays in the cache, and the cache stays where it is."""
    model, sizes = small_model(dtype=torch.float32), []
    model.blocks[0].register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    list(generate(model, [PROMPTS[2], PROMPTS[4]], limit=10, stop=NEVER))
    assert sizes == [28, *[2] * 9]


def test_the_model_is_left_as_it_was() -> None:
    model = small_model(dtype=torch.float32)
    collect(model, PROMPTS, 5)
    loss = model.loss(one_context(random_records((9, 20))), "segments")
    loss.backward()
    assert model.embedding.weight.grad is not None


def test_a_batch_writes_what_each_row_writes_alone() -> None:
    model = small_model(dtype=torch.float32)
    together = collect(model, PROMPTS, 15)
    assert together == [collect(model, [prompt], 15)[0] for prompt in PROMPTS]
    assert len({tuple(one) for one in together}) > 1


def test_a_row_ends_with_the_stop_token_and_the_others_go_on() -> None:
    """Rows that end are dropped from the batch on the way; what is left must not be disturbed."""
    model = small_model(dtype=torch.float32, seed=3)
    free = collect(model, PROMPTS, 20)
    for stop in {token for row in free for token in row}:
        cut = [row[: row.index(stop) + 1] if stop in row else row for row in free]
        assert collect(model, PROMPTS, 20, stop) == cut


def test_the_positions_of_the_model_are_the_end() -> None:
    model = small_model(dtype=torch.float32)
    prompts = [[3] * 60, [4] * 64, [5] * 70, [6] * 30]
    assert [len(row) for row in collect(model, prompts, 10)] == [4, 0, 0, 10]
    assert [len(row) for row in collect(model, prompts, 100)] == [4, 0, 0, 34]


@pytest.mark.parametrize(("prompts", "limit"), [([], 5), ([[1] * 64], 5), ([[1]], 0)])
def test_nothing_to_do_gives_nothing(prompts: list[list[int]], limit: int) -> None:
    assert list(generate(small_model(), prompts, limit=limit, stop=NEVER)) == []


def test_sampling_is_of_the_k_likeliest_and_of_its_seed() -> None:
    logits = torch.linspace(0, 3, 50).repeat(400, 1)
    drawn = top_k_sampler(5, 1.0, seed=1)(logits)
    assert set(drawn.tolist()) == {45, 46, 47, 48, 49}
    assert torch.equal(drawn, top_k_sampler(5, 1.0, seed=1)(logits))
    assert not torch.equal(drawn, top_k_sampler(5, 1.0, seed=2)(logits))
    assert set(top_k_sampler(5, 0.001, seed=1)(logits).tolist()) == {49}
    assert set(top_k_sampler(1, 9.0, seed=1)(logits).tolist()) == {49}
    assert top_k_sampler(500, 1.0, seed=1)(logits).max() < 50
