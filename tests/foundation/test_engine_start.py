"""A managed server that does not start: what its log says, told in one message with a mend. No engine is started here."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from foundation.engine import EngineConfig, _set_aside, _start_error
from foundation.errors import Failure, UsageError
from foundation.processes import ProcessGroup
from foundation.profiles import PROFILES


# Lines as servers write them: of the empty folder above, and from the source of vLLM 0.32.
@pytest.mark.parametrize(
    ("line", "kind", "mend"),
    [
        (
            "ValueError: User-specified max_model_len (99999) is greater than the derived max_model_len",
            UsageError,
            "context",
        ),
        ("api_server.py: error: unrecognized arguments: --no-such", UsageError, "teacher.args"),
        ("OSError: x is not a local folder and is not a valid model identifier", UsageError, "teacher.model"),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", Failure, "nvidia-smi"),
        ("ValueError: No available memory for the cache blocks.", Failure, "nvidia-smi"),
        ("ValueError: Free memory on device (3.1/15.6 GiB) on startup is less than desired", Failure, "nvidia-smi"),
        ("ImportError: Arctic Inference is required for suffix decoding.", UsageError, "arctic-inference"),
        ("RuntimeError: something new", Failure, "read that log"),
    ],
)
def test_a_start_that_can_never_succeed_is_told_from_one_that_may(
    tmp_path: Path, line: str, kind: type[Exception], mend: str
) -> None:
    group = ProcessGroup([sys.executable, "-c", f"print({line!r})"], name="server", log=tmp_path / "log")
    group.wait(30)
    error = _start_error(group, EngineConfig("m", "a test"), on_gpu=True)
    assert type(error) is kind
    assert mend in error.mend
    assert line.rpartition("Error: ")[2].rpartition("error: ")[2] in str(error)


def _ended(log: Path, text: str, code: str = "") -> ProcessGroup:
    """A process that wrote `text` into its log and ended."""
    group = ProcessGroup([sys.executable, "-c", f"print({text!r}, flush=True); {code}"], name="server", log=log)
    group.wait(30)
    return group


HEARD = (
    "(EngineCore pid=7) torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 22.0 GiB\n"
    "(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above."
)


@pytest.mark.parametrize(
    ("profile", "mend"),
    [
        ("80gb", 'teacher.profile = "24gb" (Qwen/Qwen3-8B-FP8)'),
        ("24gb", 'teacher.profile = "16gb" (Qwen/Qwen3-4B-Instruct-2507)'),
        ("16gb", "else a smaller model or context"),
    ],
)
def test_out_of_memory_on_a_gpu_is_one_message_with_the_smaller_profile(
    tmp_path: Path, profile: str, mend: str
) -> None:
    config = EngineConfig("m", "a test", profile=PROFILES[profile])
    error = _start_error(_ended(tmp_path / "log", HEARD), config, on_gpu=True)
    assert type(error) is Failure
    assert error.what.startswith("the vLLM server ran out of memory while it started: OutOfMemoryError: CUDA out of")
    assert "root cause" not in str(error), "hearsay, where the cause stands above it"
    assert mend in error.mend
    assert error.where == str(tmp_path / "log")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Loading safetensors", "import os; os.kill(os.getpid(), 9)"),  # the server itself
        ("RuntimeError: Engine core initialization failed. Failed core proc(s): {'EngineCore_DP0': -9}", ""),
        ("RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes", ""),
    ],
)
def test_what_the_kernel_killed_ran_out_of_memory(tmp_path: Path, text: str, code: str) -> None:
    error = _start_error(_ended(tmp_path / "log", text, code), EngineConfig("m", "a test"), on_gpu=False)
    assert type(error) is Failure
    assert "out of memory" in error.what
    assert "VLLM_CPU_KVCACHE_SPACE" in error.mend
    assert "nvidia-smi" not in error.mend


def test_an_old_complaint_makes_no_new_start_wrong_use(tmp_path: Path) -> None:
    log = tmp_path / "vllm.log"
    for text in ("oldest", "Repository Not Found\n"):
        _set_aside(log)
        log.write_text(text)
    killed = ProcessGroup([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"], name="server", log=log)
    killed.wait(30)
    assert type(_start_error(killed, EngineConfig("m", "a test"), on_gpu=True)) is Failure
    _set_aside(log)
    assert [path.name for path in tmp_path.iterdir()] == ["vllm.1.log"]
    assert (tmp_path / "vllm.1.log").read_text() == "Repository Not Found\n"
