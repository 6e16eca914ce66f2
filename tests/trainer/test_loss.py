"""The LM head and its loss: supervised positions alone, in pieces, and yet what the plain formula gives."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.layout import IGNORE
from trainer.loss import ROWS, head_loss, score, score_plainly

V, C = 37, 12


def inputs(n: int, supervised: float, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(n)
    hidden = torch.randn(n, C, generator=random, dtype=torch.float64).to(dtype).requires_grad_()
    head = torch.randn(V, C, generator=random, dtype=torch.float64).to(dtype).requires_grad_()
    targets = torch.randint(0, V, (n,), generator=random)
    targets[torch.rand(n, generator=random) >= supervised] = IGNORE
    return hidden, head, targets


def places(targets: Tensor) -> Tensor:
    return (targets != IGNORE).nonzero().squeeze(1)


def both(hidden: Tensor, head: Tensor, targets: Tensor, **how: object) -> list[tuple[Tensor, ...]]:
    """Loss and gradients of ours and of the definition."""
    found = []
    for ours in (True, False):
        h, w = (x.detach().clone().requires_grad_() for x in (hidden, head))
        if ours:
            loss = head_loss(h, w, targets, places(targets), **how)
        else:
            loss = F.cross_entropy((h @ w.T).to(h.dtype), targets, ignore_index=IGNORE, reduction="sum")
        (0.25 * loss).backward()
        found.append((loss.detach(), h.grad, w.grad))
    return found


@pytest.mark.parametrize("scored", [score, score_plainly])
@pytest.mark.parametrize(
    ("n", "supervised"), [(40, 0.5), (40, 1.0), (3 * ROWS["cpu"] + 5, 1.0), (ROWS["cpu"], 1.0), (1, 1.0)]
)
def test_it_is_the_definition(n: int, supervised: float, scored: object) -> None:
    ours, wanted = both(*inputs(n, supervised), score_=scored)
    for one, other in zip(ours, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-13)


def test_nothing_to_learn_from_is_a_loss_of_nothing() -> None:
    hidden, head, targets = inputs(20, 0.0)
    loss = head_loss(hidden, head, targets, places(targets))
    loss.backward()
    assert loss.item() == 0
    assert not hidden.grad.any() and not head.grad.any()


def test_positions_that_are_not_supervised_get_no_gradient_at_all() -> None:
    hidden, head, targets = inputs(50, 0.4)
    head_loss(hidden, head, targets, places(targets)).backward()
    assert torch.equal(hidden.grad.abs().sum(1) > 0, targets != IGNORE)


def test_without_gradients_it_only_counts() -> None:
    hidden, head, targets = inputs(50, 0.4)
    with torch.no_grad():
        loss = head_loss(hidden, head, targets, places(targets))
    assert not loss.requires_grad
    torch.testing.assert_close(loss, head_loss(hidden, head, targets, places(targets)).detach(), rtol=0, atol=0)


def test_under_autocast_the_products_are_bfloat16_and_the_loss_float32() -> None:
    hidden, head, targets = inputs(600, 0.7, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        loss = head_loss(hidden, head, targets, places(targets))
    loss.backward()
    assert (loss.dtype, hidden.grad.dtype, head.grad.dtype) == (torch.float32,) * 3
    _, wanted = both(hidden, head, targets)
    assert loss.item() == pytest.approx(wanted[0].item(), rel=2e-3)
    for one, other in ((hidden.grad, 4 * wanted[1]), (head.grad, 4 * wanted[2])):
        assert (one - other).abs().max() < 0.03 * other.abs().max()


def test_large_logits_overflow_nothing() -> None:
    hidden, head, targets = inputs(30, 1.0, torch.float32)
    loss = head_loss(hidden * 1e4, head, targets, places(targets))
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(hidden.grad).all()
