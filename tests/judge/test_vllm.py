"""The `vllm` grader on the real engine: a random model cannot judge, and the judge says so."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from foundation.engine import has_vllm
from foundation.records import Verdict
from tests.judge.cases import CASES, make_answer, make_item
from tests.support.commands import REPOSITORY, run
from tests.support.tiny_qwen import TINY_ARGUMENTS, make_tiny_qwen3

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.xdist_group("vllm"),
    pytest.mark.skipif(not has_vllm(), reason="vLLM is not installed (make setup says why)"),
    pytest.mark.timeout(600),
]

ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
COMMAND = ("judge", "run", "--answers", "answers.jsonl", "--out", "v.jsonl", "--json")


def _servers(model: Path) -> list[psutil.Process]:
    return [
        process for process in psutil.process_iter(["cmdline"]) if str(model) in " ".join(process.info["cmdline"] or [])
    ]


def _process_of(model: Path, name: str) -> psutil.Process:
    """The server itself, or the child of it that runs the model."""
    server = next(process for process in _servers(model) if "vllm.entrypoints" in " ".join(process.cmdline()))
    if name == "api_server":
        return server
    return next(child for child in server.children(recursive=True) if name in " ".join(child.cmdline()))


def _kept(cache: Path) -> int:
    """Verdicts that the cache holds."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{cache}?mode=ro", uri=True)) as database:
            return int(database.execute("select count(*) from verdicts").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


def _settings(folder: Path, model: Path, *more: str) -> None:
    arguments = ", ".join(f'"{argument}"' for argument in TINY_ARGUMENTS)
    lines = ["[judge]", 'backend = "vllm"', f'model = "{model}"', "context = 8192", "concurrency = 16", "canaries = 8"]
    (folder / "factory.toml").write_text("\n".join([*lines, f"args = [{arguments}]", *more]) + "\n")


def _answers(folder: Path, count: int) -> None:
    """Answers that only a model could grade."""
    passed = [case for case in CASES if case.verdict == "PASS"]
    rows = [
        make_answer(make_item(case.question, case.reference, id=f"i{number}", article_id=f"a{number % 5}"), case.answer)
        for number, case in enumerate(itertools.islice(itertools.cycle(passed), count))
    ]
    (folder / "answers.jsonl").write_text("".join(row.model_dump_json() + "\n" for row in rows))


def test_a_model_that_cannot_judge_leaves_every_answer_unscored(tmp_path: Path) -> None:
    # given answers that only a model could grade, and a model of random weights
    model = make_tiny_qwen3(tmp_path / "model")
    _settings(tmp_path, model, "max_tokens = 48")
    _answers(tmp_path, 24)
    # when it judges
    done = run(*COMMAND, cwd=tmp_path, timeout=500, env=ENVIRONMENT)
    # then nothing is scored, that is said, and no process of the engine is left
    summary = json.loads(done.stdout)
    assert summary["counts"] == {"PASS": 0, "FAIL": 0, "UNSCORED": 24}
    assert summary["baseline"]["counts"]["UNSCORED"] == 24
    assert summary["pass_rate"] is None
    assert summary["refused"]
    assert not summary["valid"]
    assert summary["problems"]
    # and its canaries are no better: what a rule settles aside, none is scored, and no class is believed
    for kind, found in summary["canaries"]["classes"].items():
        if kind not in ("colon", "opener"):
            assert found["unscored"] == found["n"], kind
            assert not found["ok"], kind
    assert sum(found["unscored"] for found in summary["canaries"]["classes"].values()) > 20
    assert summary["canaries"]["tpr"]["pass_rate"] is None
    assert summary["flips"]["rate"] is None
    assert set(summary["reasons"]["UNSCORED"]) <= {"parse", "length"}
    assert "no answer could be scored, so there is no pass rate" in done.stderr
    verdicts = [Verdict.model_validate_json(line) for line in (tmp_path / "v.jsonl").read_bytes().splitlines()]
    assert {verdict.grader for verdict in verdicts} == {f"vllm:{model}"}
    assert all(verdict.explanation for verdict in verdicts)
    assert _servers(model) == []
    # and when it runs again, no engine is started
    again = run(*COMMAND, cwd=tmp_path, timeout=30, env=ENVIRONMENT)
    assert "starting vLLM" not in again.stderr
    assert json.loads(again.stdout)["graded"] == 0


@pytest.mark.slow
def test_a_model_that_cannot_be_loaded_is_wrong_use(tmp_path: Path) -> None:
    # given a model whose weights broke off in a download
    model = make_tiny_qwen3(tmp_path / "model")
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:20_000])
    _settings(tmp_path, model)
    _answers(tmp_path, 1)
    # when it is to judge
    done = run(*COMMAND, cwd=tmp_path, code=2, timeout=300, env=ENVIRONMENT)
    # then it says what is wrong, and leaves nothing
    assert "vLLM server ended while it started" in done.stderr
    assert "a file of judge.model is damaged" in done.stderr
    assert not (tmp_path / "v.jsonl").exists()
    assert _servers(model) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("victim", "number", "words"),
    [
        ("api_server", signal.SIGKILL, "the vLLM server ended (killed by signal 9)"),
        ("EngineCore", signal.SIGKILL, "the vLLM server ended"),
        ("EngineCore", signal.SIGSTOP, "the vLLM server hangs: no token for"),
    ],
)
def test_an_engine_lost_in_the_middle_ends_the_run_and_the_next_one_goes_on(
    tmp_path: Path, victim: str, number: signal.Signals, words: str
) -> None:
    # given a judge at work
    model = make_tiny_qwen3(tmp_path / "model")
    _settings(tmp_path, model, "max_tokens = 150", "[work]", "hung_after = 40")
    _answers(tmp_path, 60)
    argv = [sys.executable, "-c", "from judge.cli import main; main()", *COMMAND[1:]]
    environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(argv, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as process:
        cache = tmp_path / "train" / "verdicts.sqlite"
        until = time.monotonic() + 240
        while _kept(cache) < 20:
            assert time.monotonic() < until
            assert process.poll() is None, process.stderr and process.stderr.read()
            time.sleep(0.1)
        # when its engine dies, or does nothing any more
        _process_of(model, victim).send_signal(number)
        _, err = process.communicate(timeout=180)
    # then the run fails and says why, leaves no process, and keeps what was judged
    assert process.returncode == 1, err
    assert words in err
    assert "what was judged is kept" in err
    assert "Traceback" not in err
    assert _servers(model) == []
    kept = _kept(cache)
    assert kept >= 20
    assert not (tmp_path / "v.jsonl").exists()
    # and the same command goes on
    again = json.loads(run(*COMMAND, cwd=tmp_path, timeout=500, env=ENVIRONMENT).stdout)
    assert again["reused"] == kept
    assert again["counts"]["UNSCORED"] == 60
