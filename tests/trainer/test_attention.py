"""Attention: each backend alone keeps its promises, and all of them agree."""

from __future__ import annotations

import pytest
import torch

from foundation.errors import UsageError
from trainer.attention import attend, choose_backend
from trainer.layout import Layout

LENGTHS = (7, 1, 20, 3, 1, 11, 40, 19)
BACKENDS = ("segments", "mask")


def tensors(
    lengths: tuple[int, ...] = LENGTHS, heads: int = 4, kv_heads: int = 4, dtype: torch.dtype = torch.float64
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    shapes = ((sum(lengths), count, 8) for count in (heads, kv_heads, kv_heads))
    q, k, v = (torch.randn(shape, generator=random, dtype=torch.float64).to(dtype).requires_grad_() for shape in shapes)
    return q, k, v


def by_hand(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, lengths: tuple[int, ...]) -> torch.Tensor:
    """The definition, one query at a time."""
    out, repeat = torch.zeros_like(q), q.shape[1] // k.shape[1]
    start = 0
    for length in lengths:
        for here in range(start, start + length):
            for head in range(q.shape[1]):
                keys, values = k[start : here + 1, head // repeat], v[start : here + 1, head // repeat]
                out[here, head] = (keys @ q[here, head] / q.shape[-1] ** 0.5).softmax(0) @ values
        start += length
    return out


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_it_is_the_definition(backend: str, kv_heads: int) -> None:
    q, k, v = tensors(kv_heads=kv_heads)
    out = attend(q, k, v, Layout.of(LENGTHS, 64), backend)
    assert out.shape == q.shape
    torch.testing.assert_close(out, by_hand(q.detach(), k.detach(), v.detach(), LENGTHS), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_segments_and_mask_agree_forward_and_backward(kv_heads: int) -> None:
    layout, results = Layout.of(LENGTHS, 64), []
    for backend in BACKENDS:
        q, k, v = tensors(kv_heads=kv_heads)
        out = attend(q, k, v, layout, backend)
        (out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)).sum().backward()
        results.append((out, q.grad, k.grad, v.grad))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_segments_in_bfloat16_are_as_near_as_bfloat16_allows(kv_heads: int) -> None:
    layout, results = Layout.of(LENGTHS, 64), []
    for dtype, backend in ((torch.bfloat16, "segments"), (torch.float64, "mask")):
        q, k, v = tensors(kv_heads=kv_heads, dtype=torch.bfloat16)
        q, k, v = (x.detach().to(dtype).requires_grad_() for x in (q, k, v))  # the same numbers in both
        out = attend(q, k, v, layout, backend)
        out.sum().backward()
        results.append([x.double() for x in (out, q.grad, k.grad, v.grad)])
    for one, other in zip(*results, strict=True):
        assert (one - other).abs().max() < 0.05 * other.abs().max().clamp(min=1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_gradient_crosses_a_document_or_goes_back_in_time(backend: str) -> None:
    q, k, v = tensors()
    layout = Layout.of(LENGTHS, 64)
    here = 32  # document 5 holds tokens 32 to 42
    assert sum(LENGTHS[:5]) == here
    attend(q, k, v, layout, backend)[here + 4].sum().backward()
    for x in (q, k, v):
        reached = x.grad.abs().sum((1, 2)) > 0
        assert not reached[:here].any()
        assert not reached[here + 5 :].any()
    assert (k.grad[here : here + 5].abs().sum((1, 2)) > 0).all()


def test_documents_of_one_token_look_at_themselves() -> None:
    q, k, v = tensors(lengths=(1,) * 9)
    for backend in BACKENDS:
        torch.testing.assert_close(attend(q, k, v, Layout.of((1,) * 9, 64), backend), v)


def test_a_layout_of_other_tokens_is_refused() -> None:
    q, k, v = tensors()
    with pytest.raises(ValueError, match="a layout of 8 tokens for 102"):
        attend(q, k, v, Layout.of((5, 3), 64), "segments")


def test_varlen_refuses_to_run_without_a_gpu() -> None:
    q, k, v = tensors()
    with pytest.raises(UsageError, match="varlen"):
        attend(q, k, v, Layout.of(LENGTHS, 64), "varlen")


def test_the_cpu_gets_segments() -> None:
    assert choose_backend(torch.device("cpu")) == "segments"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="varlen needs a CUDA GPU")
def test_varlen_agrees_with_mask_on_a_gpu() -> None:
    layout, results = Layout.of(LENGTHS, 64).to("cuda"), []
    for dtype, backend in ((torch.bfloat16, "varlen"), (torch.float32, "mask")):
        q, k, v = (x.detach().repeat(1, 1, 8) for x in tensors(dtype=torch.bfloat16))
        q, k, v = (x.to("cuda", dtype).requires_grad_() for x in (q, k, v))
        out = attend(q, k, v, layout, backend)
        out.sum().backward()
        results.append([x.double() for x in (out, q.grad, k.grad, v.grad)])
    for one, other in zip(*results, strict=True):
        assert (one - other).abs().max() < 0.05 * other.abs().max().clamp(min=1)
