"""The `vllm` grader on the real engine: a random model cannot judge, and the judge says so."""

from __future__ import annotations

import json
from pathlib import Path

import psutil
import pytest

from foundation.engine import has_vllm
from foundation.records import Verdict
from tests.judge.cases import CASES, make_answer, make_item
from tests.support.commands import run
from tests.support.tiny_qwen import TINY_ARGUMENTS, make_tiny_qwen3

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.xdist_group("vllm"),
    pytest.mark.skipif(not has_vllm(), reason="vLLM is not installed (make setup says why)"),
    pytest.mark.timeout(600),
]

ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}


def _servers(model: Path) -> list[psutil.Process]:
    return [
        process for process in psutil.process_iter(["cmdline"]) if str(model) in " ".join(process.info["cmdline"] or [])
    ]


def test_a_model_that_cannot_judge_leaves_every_answer_unscored(tmp_path: Path) -> None:
    # given answers that only a model could grade, and a model of random weights
    model = make_tiny_qwen3(tmp_path / "model")
    arguments = ", ".join(f'"{argument}"' for argument in TINY_ARGUMENTS)
    (tmp_path / "factory.toml").write_text(
        f'[judge]\nbackend = "vllm"\nmodel = "{model}"\ncontext = 8192\nmax_tokens = 48\nconcurrency = 16\nargs = [{arguments}]\n'
    )
    rows = [
        make_answer(make_item(case.question, case.reference, id=f"i{number}", article_id=f"a{number % 5}"), case.answer)
        for number, case in enumerate(case for case in CASES if case.verdict == "PASS")
    ][:24]
    (tmp_path / "answers.jsonl").write_text("".join(row.model_dump_json() + "\n" for row in rows))
    # when it judges
    command = ("judge", "run", "--answers", "answers.jsonl", "--out", "v.jsonl", "--json")
    done = run(*command, cwd=tmp_path, timeout=500, env=ENVIRONMENT)
    # then nothing is scored, that is said, and no process of the engine is left
    summary = json.loads(done.stdout)
    assert summary["counts"] == {"PASS": 0, "FAIL": 0, "UNSCORED": 24}
    assert summary["baseline"]["counts"]["UNSCORED"] == 24
    assert summary["pass_rate"] is None
    assert set(summary["reasons"]["UNSCORED"]) <= {"parse", "length"}
    assert "no answer could be scored, so there is no pass rate" in done.stderr
    verdicts = [Verdict.model_validate_json(line) for line in (tmp_path / "v.jsonl").read_bytes().splitlines()]
    assert {verdict.grader for verdict in verdicts} == {f"vllm:{model}"}
    assert all(verdict.explanation for verdict in verdicts)
    assert _servers(model) == []
    # and when it runs again, no engine is started
    again = run(*command, cwd=tmp_path, timeout=30, env=ENVIRONMENT)
    assert "starting vLLM" not in again.stderr
    assert json.loads(again.stdout)["graded"] == 0


def test_a_model_that_cannot_be_loaded_is_wrong_use(tmp_path: Path) -> None:
    missing = tmp_path / "empty"
    missing.mkdir()
    (tmp_path / "factory.toml").write_text(f'[judge]\nbackend = "vllm"\nmodel = "{missing}"\n')
    item = make_item("When did the Winter War begin?", "On 30 November 1939.")
    (tmp_path / "answers.jsonl").write_text(make_answer(item, "In 1939.").model_dump_json() + "\n")
    command = ("judge", "run", "--answers", "answers.jsonl", "--out", "v.jsonl")
    done = run(*command, cwd=tmp_path, code=2, timeout=300, env=ENVIRONMENT)
    assert "vLLM server ended while it started" in done.stderr
    assert "judge.model" in done.stderr
    assert not (tmp_path / "v.jsonl").exists()
    assert _servers(missing) == []
