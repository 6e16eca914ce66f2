"""The factory's half of the line with the real engine: a tiny random Qwen3 writes gibberish, and the gates refuse it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import psutil
import pytest

from foundation.engine import has_vllm
from tests.support.commands import REPOSITORY, reject_lines, run, run_json, shard_records
from tests.support.tiny_qwen import TINY_ARGUMENTS, make_tiny_qwen3

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.xdist_group("vllm"),
    pytest.mark.skipif(not has_vllm(), reason="vLLM is not installed (make setup says why)"),
    pytest.mark.timeout(600),
]


def test_factory_work_with_a_managed_engine_accounts_for_every_item(tmp_path: Path) -> None:
    # given a workspace whose teacher is a random model
    model = make_tiny_qwen3(tmp_path / "model")
    workspace = tmp_path / "w"
    run("factory", "init", str(workspace), cwd=tmp_path)
    arguments = ", ".join(f'"{argument}"' for argument in TINY_ARGUMENTS)
    (workspace / "factory.toml").write_text(
        f'[teacher]\nbackend = "vllm"\nmodel = "{model}"\ncontext = 4096\nargs = [{arguments}]\nconcurrency = 16\n'
    )
    run("factory", "ingest", str(REPOSITORY / "examples/wwii/articles/winter-war.md"), cwd=workspace)
    kinds = ("cloze/entity", "qpt/formal", "qpt/student-before-an-exam", "qpt/tell-me-about")
    run("factory", "enqueue", *(word for kind in kinds for word in ("--prompt-type", kind)), cwd=workspace)
    # when a worker has run
    run("factory", "work", "--burst", cwd=workspace, timeout=500)
    # then every item is accounted for, every reject says why, and no server is left
    status = run_json("factory", "status", cwd=workspace)
    assert status["planned"] == status["committed"] > 0
    assert status["items"] == status["items_accepted"] + status["items_rejected"] > 0
    rejects = reject_lines(workspace)
    assert len(rejects) >= status["items_rejected"] > 0
    assert all(reject["gate"] and reject["reason"] for reject in rejects)
    assert len(Counter(reject["gate"] for reject in rejects)) >= 2
    for record in shard_records(workspace):
        assert record["teacher"].startswith("vllm:")
    servers = [
        process for process in psutil.process_iter(["cmdline"]) if str(model) in " ".join(process.info["cmdline"] or [])
    ]
    assert servers == []


def test_an_engine_that_cannot_load_fails_before_any_unit_is_leased(tmp_path: Path) -> None:
    workspace = tmp_path / "w"
    run("factory", "init", str(workspace), cwd=tmp_path)
    (tmp_path / "empty").mkdir()
    (workspace / "factory.toml").write_text(f'[teacher]\nbackend = "vllm"\nmodel = "{tmp_path / "empty"}"\n')
    run("factory", "ingest", str(REPOSITORY / "examples/wwii/articles/winter-war.md"), cwd=workspace)
    run("factory", "enqueue", "--prompt-type", "cloze/entity", cwd=workspace)
    done = run("factory", "work", "--burst", cwd=workspace, code=2)
    assert "vLLM server ended while it started" in done.stderr
    assert "Traceback" not in done.stderr
    status = run_json("factory", "status", cwd=workspace)
    assert status["committed"] == 0
    assert status["failed"] == 0
