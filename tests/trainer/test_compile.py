"""torch.compile: one compilation for all steps, the numbers of the plain model, and the same ones every time."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from tests.trainer.small_run import one_context, random_records
from trainer.layout import Batch
from trainer.model import Model
from trainer.shape import ModelConfig

GPT2 = {"norm": "layernorm", "positions": "learned", "activation": "gelu", "bias": True, "tied": False}
LLAMA: dict[str, Any] = {"qk_norm": True, "embedding_norm": True}
COMPILER = pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="needs a C++ compiler")


def model(recompute: bool = False, **choices: Any) -> Model:
    torch.manual_seed(0)
    config = ModelConfig(vocabulary=50, layers=2, width=32, heads=4, kv_heads=2, ffn=48, context=64, **choices)
    made = Model(config)
    made.recompute = recompute
    return made


def batches() -> list[Batch]:
    """Of one shape, and of different documents, supervised tokens and padding."""
    return [one_context(random_records(lengths)) for lengths in ((9, 1, 17, 2, 12), (30, 30), (5,) * 12, (64,))]


def losses_and_gradients(it: Model, narrow: bool) -> list[tuple[torch.Tensor, ...]]:
    found = []
    for batch in batches():
        it.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
            loss = it.loss(batch, "segments")
        loss.backward()
        found.append((loss.detach(), *(weight.grad.clone() for weight in it.parameters())))
    return found


@pytest.mark.parametrize(("choices", "recompute"), [(LLAMA, False), (GPT2, True)])
def test_all_steps_share_one_graph_without_a_break(
    choices: dict[str, Any], recompute: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traced and differentiated as for the real compiler, which is then left out: it would take half a minute."""
    torch._dynamo.reset()
    counter, real = CompileCounterWithBackend("aot_eager"), torch.compile
    monkeypatch.setattr(torch, "compile", lambda it, **how: real(it, backend=counter, **how))
    plain, compiled = model(**choices), model(recompute, **choices)
    compiled.use_compile()
    wanted, found = (losses_and_gradients(it, narrow=False) for it in (plain, compiled))
    assert counter.frame_count == 2  # the blocks, and the loss; each once
    for one, other in zip(wanted, found, strict=True):
        for x, y in zip(one, other, strict=True):
            torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-5)


def test_without_gradients_the_plain_model_answers() -> None:
    compiled, batch = model(), batches()[0]
    wanted = compiled.loss(batch, "segments")
    compiled.use_compile()
    with torch.no_grad():
        assert torch.equal(compiled.loss(batch, "segments"), wanted)


@COMPILER
@pytest.mark.slow
@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("choices", [LLAMA, GPT2])
def test_the_compiled_model_agrees_with_the_plain_one(choices: dict[str, Any], narrow: bool) -> None:
    torch._dynamo.reset()
    plain, compiled = model(**choices), model(**choices)
    compiled.use_compile()
    wanted, found = (losses_and_gradients(it, narrow) for it in (plain, compiled))
    for one, other in zip(wanted, found, strict=True):
        for x, y in zip(one, other, strict=True):
            near = 0.05 if narrow else 1e-4
            assert (x - y).abs().max() <= near * x.abs().max() + 1e-6


REPEATED = """
import hashlib, torch
from tests.trainer.test_compile import LLAMA, losses_and_gradients, model
torch.set_num_threads(2)
it = model(**LLAMA)
it.use_compile()
digest = hashlib.sha256()
for step in losses_and_gradients(it, narrow=True):
    for tensor in step:
        digest.update(tensor.numpy().tobytes())
print(digest.hexdigest())
"""


@COMPILER
@pytest.mark.slow
def test_a_compiled_run_is_repeated_to_the_last_bit_by_another_process() -> None:
    run = [sys.executable, "-c", REPEATED]
    told = {subprocess.run(run, capture_output=True, text=True, check=True).stdout for _ in range(3)}
    assert len(told) == 1
    assert len(told.pop().strip()) == 2 * hashlib.sha256().digest_size
