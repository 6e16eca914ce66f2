"""`benchmarks/trainer_gpu.py` where there is no GPU: its logic is tried on a CPU, and without a card it says so and ends well."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

from tests.support.commands import REPOSITORY

SCRIPT = "benchmarks/trainer_gpu.py"
# What a machine that has torch, numpy and pydantic may lack.
NOT_NEEDED = {"tokenizers", "typer", "rich", "orjson", "safetensors", "psutil", "matplotlib", "rq", "boto3", "lingua"}
ENDED = f"""
import runpy, sys
sys.argv = {[SCRIPT, "--device", "cpu", "--preset", "smoke-10m", "--small"]!r}
runpy.run_path({SCRIPT!r}, run_name="__main__")
print(*(sys.modules.keys() & {NOT_NEEDED!r}), file=sys.stderr)
"""


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [sys.executable, *arguments], cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=240
    )


def test_its_logic_runs_on_a_cpu_with_torch_numpy_and_pydantic_alone() -> None:
    done = bench("-c", ENDED)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == ""
    told = json.loads(done.stdout)
    assert told["device"] == "CPU"
    assert told["torch"] == torch.__version__
    (trained,) = told["training"]
    assert trained["useful_tokens_a_second"] > 0
    assert 0.5 < trained["filled"] <= 1
    assert trained["mfu"] is None, "a CPU has no peak to take a share of"
    assert trained["loss_first_last"][1] < trained["loss_first_last"][0]
    assert trained["estimate"]["tensors"] < trained["estimate"]["total"]
    (attention,) = told["attention"]
    assert attention["ratio"] == pytest.approx(
        attention["milliseconds"]["ours"] / attention["milliseconds"]["bare"], rel=0.01
    )
    (parity,) = told["parity"]
    for errors in parity["largest_error_over_largest_value"].values():
        assert 0 < max(errors.values()) < told["limits"]["parity"]
    assert not told["left_out"]
    assert told["missed"] is None, "limits are for a GPU"


def test_without_a_gpu_it_says_so_and_ends_well() -> None:
    done = bench(SCRIPT)
    assert done.returncode == 0
    assert "torch finds no CUDA GPU here, so nothing was measured" in done.stderr
    assert not done.stdout
