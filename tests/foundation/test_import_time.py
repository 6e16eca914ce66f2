"""The front door stays quick because nothing heavy is imported to answer --help: modules are checked, not seconds."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = (
    "torch",
    "vllm",
    "transformers",
    "boto3",
    "matplotlib",
    "numpy",
    "aiohttp",
    "lingua",
    "redis",
    "rq",
    "pydantic_settings",
    "jinja2",
)


@pytest.mark.parametrize("module", ["generator.cli", "trainer.cli", "judge.cli"])
def test_help_imports_nothing_heavy(module: str) -> None:
    script = (
        f"import sys; sys.argv = ['x', '--help']\nfrom {module} import main\n"
        f"try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code\n"
        f"print('HEAVY', sorted(name for name in {HEAVY!r} if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout
    assert done.stdout.splitlines()[-1] == "HEAVY []"
