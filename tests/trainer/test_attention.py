"""Attention: each backend alone keeps its promises, and all of them agree."""

from __future__ import annotations

import pytest
import torch

from foundation.errors import UsageError
from trainer.attention import attend, choose_backend
from trainer.attention_segments import plan, segments
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


def test_bounds_may_end_in_repeats_of_the_last() -> None:
    q, k, v = tensors()
    exact = torch.tensor([0, *torch.tensor(LENGTHS).cumsum(0)], dtype=torch.int32)
    padded = torch.cat((exact, exact[-1:].expand(9)))
    assert torch.equal(segments(q, k, v, exact), segments(q, k, v, padded))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("kv_heads", [4, 1])
def test_the_operator_keeps_torchs_contract(dtype: torch.dtype, kv_heads: int) -> None:
    """Its schema, its shapes without data, its gradient, and all of that under torch.compile's tracer."""
    torch.library.opcheck(segments, (*tensors(kv_heads=kv_heads, dtype=dtype), Layout.of(LENGTHS, 64).bounds))


def test_its_gradient_is_that_of_finite_differences() -> None:
    lengths = (3, 1, 5)
    bounds = Layout.of(lengths, 8).bounds
    inputs = [x.detach().clone().requires_grad_() for x in tensors(lengths, heads=2, kv_heads=1)]
    assert torch.autograd.gradcheck(lambda q, k, v: segments(q, k, v, bounds), inputs)


@pytest.mark.parametrize("n", [1, 15, 16, 17, 31, 33, 64, 100, 257, 300, 700])
def test_documents_around_every_size_they_are_filled_up_to(n: int) -> None:
    """Many of one length, a few of others: chunks of several, and one left over."""
    lengths = (n, 3, n, n, 5, n, n)
    results = []
    for backend in BACKENDS:
        q, k, v = tensors(lengths, heads=2, kv_heads=1, dtype=torch.float32)
        out = attend(q, k, v, Layout.of(lengths, 1024), backend)
        (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
        results.append((out, q.grad, k.grad, v.grad))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_every_token_has_one_slot_and_filling_holds_its_own_document() -> None:
    found = plan((0, 20, 20, 21, 90, 90), 4, 2, torch.device("cpu"))
    slots = sum(rows * length for _, rows, length in found.chunks)
    assert len(found.q_P) == len(found.k_P) == slots
    assert torch.equal(found.q_P[found.homes], torch.arange(90 * 4))
    assert torch.equal(found.k_P[found.homes].view(90, 4) % 2, torch.tensor([0, 0, 1, 1]).expand(90, 4))
    assert sorted([*found.homes.tolist(), *found.idle.tolist()]) == list(range(slots))
    for start, rows, length in found.chunks:
        tokens = found.q_P[start : start + rows * length].view(rows, length) // 4
        document = torch.bucketize(tokens, torch.tensor([20, 21]), right=True)
        assert (document == document[:, :1]).all()


def test_wider_queries_than_values_are_taken_in_the_type_of_the_values() -> None:
    """Autocast takes norms in float32, and with them queries and keys; the products stay narrow."""
    q, k, v = tensors(dtype=torch.bfloat16)
    layout = Layout.of(LENGTHS, 64)
    assert torch.equal(attend(q.float(), k.float(), v, layout, "segments"), attend(q, k, v, layout, "segments"))


def test_what_generation_left_behind_does_no_harm_to_training() -> None:
    """Plans and masks are remembered; those made without gradients serve with them."""
    lengths = (13, 50)
    layout = Layout.of(lengths, 64)
    with torch.inference_mode():
        attend(*tensors(lengths), layout, "segments")
    q, k, v = tensors(lengths)
    attend(q, k, v, layout, "segments").sum().backward()
    assert q.grad.isfinite().all()


def test_the_result_does_not_depend_on_threads_running_over_each_other() -> None:
    results, threads = [], torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        for _ in range(3):
            q, k, v = tensors(kv_heads=2, dtype=torch.bfloat16)
            out = attend(q, k, v, Layout.of(LENGTHS, 64), "segments")
            out.sum().backward()
            results.append((out, q.grad, k.grad, v.grad))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(one, two) for one, two in zip(results[0], other, strict=True))


@pytest.mark.parametrize("kv_heads", [32, 8])
@pytest.mark.skipif(not torch.cuda.is_available(), reason="varlen needs a CUDA GPU")
def test_varlen_and_segments_agree_with_mask_on_a_gpu(kv_heads: int) -> None:
    layout, results = Layout.of(LENGTHS, 64).to("cuda"), []
    for dtype, backend in ((torch.float32, "mask"), (torch.bfloat16, "varlen"), (torch.bfloat16, "segments")):
        q, k, v = (x.detach().repeat(1, 1, 8) for x in tensors(heads=32, kv_heads=kv_heads, dtype=torch.bfloat16))
        q, k, v = (x.to("cuda", dtype).requires_grad_() for x in (q, k, v))
        out = attend(q, k, v, layout, backend)
        out.sum().backward()
        results.append([x.double() for x in (out, q.grad, k.grad, v.grad)])
    for other in results[1:]:
        for wanted, found in zip(results[0], other, strict=True):
            assert (found - wanted).abs().max() < 0.05 * wanted.abs().max().clamp(min=1)
