"""`factory teacher tune`: what it tries, what it keeps, and what it leaves alone."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import psutil
import pytest

from foundation.corpus import Corpus
from foundation.engine import has_vllm
from foundation.errors import FactoryError, UsageError
from foundation.profiles import PROFILES, server_arguments, with_flag
from foundation.records import SplitPolicy
from foundation.tables import TeacherSettings
from foundation.workspace import Workspace
from generator.catalogue import select
from generator.commands.teacher import _enough, _nothing
from generator.tune import Candidate, Dimension, Trial, Tuner, Units, Verdict
from generator.tune_steps import BEFORE, dimensions, edited, first_steps, hidden_by, most_at_once, write
from tests.support.commands import REPOSITORY, run, run_json
from tests.support.fault_server import FaultServer, fault_server, reply
from tests.support.tiny_qwen import TINY_ARGUMENTS, make_tiny_qwen3

POLICY = SplitPolicy(key="tests", unseen=0.05, phrasing=0.02)
TYPE = "qpt/formal"
ANSWER = json.dumps({"question": "What does the passage tell of the winter war, and of those who fought it?"})
Behaviour = Callable[[FaultServer, dict[str, Any]], Coroutine[Any, Any, Any]]


def _workspace(folder: Path, teacher: str) -> Path:
    run("factory", "init", "w", cwd=folder)
    run("factory", "ingest", str(REPOSITORY / "examples/wwii/articles/winter-war.md"), cwd=folder / "w")
    (folder / "w" / "factory.toml").write_text(teacher)
    return folder / "w"


def _as_fast_as_it_is_asked() -> Behaviour:
    """Every reply takes as long, however many are asked for at once."""

    async def behave(_: FaultServer, body: dict[str, Any]) -> Any:
        await asyncio.sleep(0.2)  # much more than what a busy machine adds to it
        return reply(ANSWER)

    return behave


def _slower_the_more_are_asked() -> Behaviour:
    """Twice as many at once take four times as long: more is always worse."""
    flying = 0

    async def behave(_: FaultServer, body: dict[str, Any]) -> Any:
        nonlocal flying
        flying += 1
        try:
            await asyncio.sleep(0.01 * flying**2)
            return reply(ANSWER)
        finally:
            flying -= 1

    return behave


FILE = """# mine
[work]
workers = 1  # one is enough
[teacher]
# the server in the cellar
backend = "openai"
base_url = "{url}"
model = "m"
api_key = "k-secret"
concurrency = {concurrency}  # a guess
timeout = 30.0
"""


@pytest.mark.slow
def test_more_in_flight_is_kept_while_it_helps_and_written_with_all_else_as_it_was(tmp_path: Path) -> None:
    # given a server that is as fast as it is asked, and a workspace that asks for one reply at a time
    with fault_server(_as_fast_as_it_is_asked()) as server:
        text = FILE.format(url=server.url, concurrency=1)
        workspace = _workspace(tmp_path, text)
        (workspace / "factory.toml").chmod(0o600)
        # when it is tuned, with a variable in the environment that will overrule the file; again, if it said, as it
        # must, that this machine was too busy to tell
        for _ in range(3):
            done = run_json(
                *("factory", "teacher", "tune", "--minutes", "0.4", "--prompt-type", TYPE),
                cwd=workspace,
                env={"FACTORY_TEACHER__CONCURRENCY": "1"},
            )
            if not done["too_busy"]:
                break
    # then it doubled as long as that helped; the one value is changed, and all else of the file is as it was
    assert done["changed"] and done["concurrency"] in (2, 4, 8, 16, 32, 64)
    after = (workspace / "factory.toml").read_text()
    assert after == text.replace("concurrency = 1 ", f"concurrency = {done['concurrency']} ")
    assert (workspace / f"factory.toml{BEFORE}").read_text() == text
    assert stat.S_IMODE((workspace / "factory.toml").stat().st_mode) == 0o600
    assert stat.S_IMODE((workspace / f"factory.toml{BEFORE}").stat().st_mode) == 0o600
    assert done["hidden_by"] == ["FACTORY_TEACHER__CONCURRENCY"]
    assert done["trials"][0]["candidate"] == "as it is" and done["trials"][-1]["candidate"] == "as it is, once more"
    # and no record was made
    assert not list(workspace.glob("shards/**/*.jsonl"))


def test_what_is_best_already_is_left_alone(tmp_path: Path) -> None:
    with fault_server(_slower_the_more_are_asked()) as server:
        text = FILE.format(url=server.url, concurrency=1)
        workspace = _workspace(tmp_path, text)
        done = run("factory", "teacher", "tune", "--minutes", "0.1", "--prompt-type", TYPE, cwd=workspace)
    assert "factory.toml was not changed" in done.stdout
    assert (workspace / "factory.toml").read_text() == text
    assert not (workspace / f"factory.toml{BEFORE}").exists()
    assert done.stderr.index("about") < done.stderr.index("trying as it is"), "it says what it will do before it does"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_tuning_that_is_ended_changes_nothing(tmp_path: Path, number: int) -> None:
    with fault_server(_as_fast_as_it_is_asked()) as server:
        text = FILE.format(url=server.url, concurrency=1)
        workspace = _workspace(tmp_path, text)
        command = [sys.executable, "-c", "from generator.cli import main; main()"]
        command += ["teacher", "tune", "--minutes", "5", "--prompt-type", TYPE]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        process = subprocess.Popen(command, cwd=workspace, env=environment, stderr=subprocess.PIPE, text=True)
        until = time.monotonic() + 60
        while not server.calls and time.monotonic() < until:
            time.sleep(0.05)
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
    assert process.returncode == (130 if number == signal.SIGINT else -number)
    assert "Traceback" not in said
    assert (workspace / "factory.toml").read_text() == text
    assert not (workspace / f"factory.toml{BEFORE}").exists()


def test_prompt_types_of_which_nothing_can_be_asked_end_it_with_a_word(tmp_path: Path) -> None:
    # a corpus of one article has no other one to set beside it
    with fault_server(_as_fast_as_it_is_asked()) as server:
        workspace = _workspace(tmp_path, FILE.format(url=server.url, concurrency=1))
        types = ("--prompt-type", "cross/same-entity-in-two-articles")
        failed = run("factory", "teacher", "tune", "--minutes", "0.1", *types, cwd=workspace, code=1, timeout=60)
    assert "none reached the teacher" in failed.stderr
    assert server.calls == []


def test_rules_have_nothing_to_tune_and_a_dry_run_asks_nothing(tmp_path: Path) -> None:
    workspace = _workspace(tmp_path, '[teacher]\nbackend = "rules"\n')
    refused = run("factory", "teacher", "tune", cwd=workspace, code=2)
    assert "nothing to tune" in refused.stderr
    # a server that is not there is not asked either
    env = {"FACTORY_TEACHER__BACKEND": "openai", "FACTORY_TEACHER__BASE_URL": "http://127.0.0.1:9/v1"}
    env |= {"FACTORY_TEACHER__MODEL": "m", "FACTORY_TEACHER__CONCURRENCY": "64"}
    planned = run_json("factory", "teacher", "tune", "--dry-run", "--prompt-type", TYPE, cwd=workspace, env=env)
    assert planned["candidates"] == ["as it is", "concurrency 128", "concurrency 32"]
    bounded = run_json("factory", "teacher", "tune", "--dry-run", "--prompt-type", "wh", cwd=workspace, env=env)
    assert bounded["candidates"] == ["as it is", "concurrency 32"]
    away = run("factory", "teacher", "tune", "--minutes", "0.1", "--prompt-type", TYPE, cwd=workspace, code=1, env=env)
    assert "cannot be reached" in away.stderr


def test_a_candidate_for_the_engine_changes_its_flag_alone() -> None:
    profile = PROFILES["16gb"]
    settings = TeacherSettings(
        backend="vllm", profile="16gb", args=["--seed=1", "--max_num_seqs=20", "--dtype", "half"]
    )
    base = Candidate("as it is", settings.concurrency, tuple(settings.args))
    steps = first_steps(base, dimensions("vllm", settings, profile))
    assert steps[:4] == ["concurrency 128", "concurrency 32", "--max-num-seqs 40", "--max-num-seqs 10"]
    assert "no speculative decoding" in steps and "--max-num-batched-tokens 8192" in steps
    tried = dimensions("vllm", settings, profile)[1].up(base)
    assert tried is not None and tried.args == ("--seed=1", "--dtype", "half", "--max-num-seqs", "40")
    # and without drafts the server gets none, though the profile has them
    drafts = dimensions("vllm", settings, profile)[2]
    off = drafts.up(base)
    assert off is not None and drafts.up(off) is None, "it is tried once"
    given = server_arguments(profile, settings.model_copy(update={"args": list(off.args)}))
    assert not any("speculative" in part for part in given)


def test_a_profile_without_drafts_tries_them_and_takes_them_out_again() -> None:
    settings = TeacherSettings(backend="vllm", profile="cpu")
    steps = dimensions("vllm", settings, PROFILES["cpu"])
    assert [one.name for one in steps] == ["concurrency", "sequences in a batch", "speculative decoding"]
    on = steps[2].up(Candidate("as it is", 64))
    assert on is not None and on.args[0] == "--speculative-config" and json.loads(on.args[1])["method"] == "ngram"
    assert with_flag((*on.args, "-sc.method", "x", "--seed", "-1"), "speculative-config", None) == ("--seed", "-1")


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("", '[teacher]\nconcurrency = 8\nargs = ["--x", "1"]\n'),
        ("teacher.concurrency = 64 # dotted\n", 'teacher.concurrency = 8 # dotted\nteacher.args = ["--x", "1"]\n'),
        ("teacher = {concurrency = 64}\n", 'teacher = {concurrency = 8, args = ["--x", "1"]}\n'),
        (
            "# top\n[teacher]\nconcurrency = 64\nargs = [  # mine\n  \"--y\",\n]\n\n[work] # here\nworkers = 2\n",
            '# top\n[teacher]\nconcurrency = 8\nargs = ["--x", "1"]\n\n[work] # here\nworkers = 2\n',
        ),
    ],
)  # fmt: skip
def test_every_way_to_write_the_table_is_edited_in_place(text: str, after: str) -> None:
    found = edited(text, Candidate("", 8, ("--x", "1")), TeacherSettings(), "factory.toml")
    assert tomllib.loads(found) == tomllib.loads(after)
    assert all(comment in found for comment in ("# top", "# here", "# dotted") if comment in text)


def test_an_unreadable_file_is_not_touched_and_says_what_to_write(tmp_path: Path) -> None:
    path = tmp_path / "factory.toml"
    path.write_text("[teacher\n")
    with pytest.raises(UsageError, match="cannot be edited") as caught:
        write(path, Candidate("", 8), TeacherSettings())
    assert "concurrency = 8" in caught.value.mend
    assert path.read_text() == "[teacher\n" and list(tmp_path.iterdir()) == [path]


def test_variables_that_overrule_are_named_and_others_are_not() -> None:
    environment = {"FACTORY_TEACHER__ARGS": "[]", "FACTORY_TEACHER__CONCURRENCY": "1"}
    assert hidden_by(environment, Candidate("", 8), TeacherSettings()) == ["FACTORY_TEACHER__CONCURRENCY"]
    assert hidden_by({}, Candidate("", 8, ("--x",)), TeacherSettings()) == []


class _ScriptedTuner(Tuner):
    """The search alone: what a trial gives is in a script, so nothing is timed."""

    def __init__(self, rates: dict[int, list[float]], base: int, accepted: dict[int, int]) -> None:
        self.base = Candidate("as it is", base)
        self.rates, self.accepted = rates, accepted
        self.trial, self.seconds = 1.0, 3600.0
        self._running = ()
        self.verdict = Verdict()

    def close(self) -> None: ...

    def _try(self, candidate: Candidate) -> Trial:
        rates = self.rates[candidate.concurrency]
        rate = rates.pop(0) if len(rates) > 1 else rates[0]
        if not rate:
            raise FactoryError("out of memory")
        trial = Trial(candidate, 1.0, 10, int(rate), 100, self.accepted.get(candidate.concurrency, 90))
        self._note(trial)
        return trial


DOUBLE = Dimension(
    "concurrency",
    lambda one: Candidate(f"{one.concurrency * 2}", one.concurrency * 2),
    lambda one: Candidate(f"{one.concurrency // 2}", one.concurrency // 2) if one.concurrency > 1 else None,
)


@pytest.mark.parametrize(
    ("rates", "accepted", "best"),
    [
        ({64: [1000], 128: [1500], 256: [2000], 512: [2000]}, {}, 256),  # up as long as it helps
        ({64: [1000], 128: [900], 32: [1200], 16: [1000]}, {}, 32),  # else down
        ({64: [1000], 128: [1020], 32: [1000]}, {}, None),  # 2 % is noise
        (
            {64: [1000, 1100], 128: [1120], 256: [5000], 32: [900]},
            {},
            None,
        ),  # 9.5 % apart: 6.7 % more is noise, at once
        ({64: [1000, 1000, 1200], 128: [1150], 256: [1150]}, {}, None),  # undone: it differs by more itself in the end
        ({64: [1000, 1000, 1200], 128: [1150], 256: [2000], 512: [2000]}, {}, 256),  # the next step makes up for it
        ({64: [1000, 1000, 1200], 128: [2000], 256: [2300], 512: [0]}, {}, 128),  # only the second is undone
        ({64: [1000, 1000, 1500], 128: [2000], 256: [2000]}, {}, None),  # too busy to tell, as it turns out
        ({64: [1000], 128: [0], 32: [1200], 16: [1000]}, {}, 32),  # one that does not start is passed over
        ({64: [1000], 128: [2000], 32: [900]}, {128: 40}, None),  # fast and spoilt
    ],
)
def test_what_wins_must_win_by_more_than_noise(
    rates: dict[int, list[float]], accepted: dict[int, int], best: int | None
) -> None:
    verdict = _ScriptedTuner(rates, 64, accepted).run([DOUBLE])
    assert (verdict.best.concurrency if verdict.best else None) == best
    assert all(one.error == "out of memory" for one in verdict.trials if not one.rate)
    assert verdict.best is None or verdict.gain > verdict.noise


ON = Dimension("drafts", lambda one: None if one.args else Candidate("drafts", one.concurrency + 1, ("--drafts",)))


def test_what_was_put_on_top_of_an_undone_step_is_undone_with_it() -> None:
    """128 is 8 % better than the mean of what differs by 19 %; drafts were never measured without it."""
    rates: dict[int, list[float]] = {64: [1000, 1000, 1200], 128: [1150], 256: [1150], 129: [2000]}
    verdict = _ScriptedTuner(rates, 64, {}).run([DOUBLE, ON])
    assert verdict.best is None and verdict.undone == ["128", "drafts"]
    # while a step that counts stays, without the one that was put on top of it and does not
    rates = {64: [1000, 1000, 1200], 128: [2000], 256: [2000], 129: [2200]}
    verdict = _ScriptedTuner(rates, 64, {}).run([DOUBLE, ON])
    assert verdict.best == Candidate("128", 128) and verdict.undone == ["drafts"]


def test_a_machine_too_busy_to_tell_is_left_alone_at_once() -> None:
    verdict = _ScriptedTuner({64: [1000, 1400]}, 64, {}).run([DOUBLE])
    assert verdict.busy and verdict.best is None and len(verdict.trials) == 2
    assert "too busy to tell" in _nothing(verdict, None)


def test_want_of_time_is_not_told_as_a_finding() -> None:
    # given an engine whose start took all the time there was
    tuner = _ScriptedTuner({64: [1000]}, 64, {})
    tuner.seconds = 0.0
    verdict = tuner.run([DOUBLE])
    assert (verdict.others, verdict.skipped, verdict.best) == (0, ["128", "32"], None)
    # then it says that nothing else was tried, and the minutes it names are enough by its own count
    verdict.start = 90.0
    steps = dimensions("vllm", TeacherSettings(backend="vllm", profile="cpu"), PROFILES["cpu"])
    minutes = _enough(2.0, verdict, steps, managed=True)
    said = _nothing(verdict, minutes)
    assert "nothing else was tried" in said and f"--minutes {minutes} " in said
    assert 6 * 90 + 9 * 10 <= 60 * minutes <= 1800, "six starts, nine trials"
    assert "than noise" not in said


def test_no_more_is_tried_at_once_than_a_worker_can_ask() -> None:
    # a worker does one unit at a time: that bounds it, with entries where a type asks about each
    for names, most in ((["wh"], 64), (["wh/who", TYPE], 256), (["contrastive/person"], 96)):
        assert most_at_once(select(names)) == most
    settings = TeacherSettings(backend="openai")
    for now, steps in ((32, [64, 16]), (48, [64, 24]), (64, [32]), (1024, [32]), (1, [2])):
        planned = first_steps(Candidate("", now), dimensions("openai", settings, most=64))
        assert planned == [f"concurrency {one}" for one in steps], now


@pytest.mark.slow
@pytest.mark.vllm
@pytest.mark.xdist_group("vllm")
@pytest.mark.skipif(not has_vllm(), reason="vLLM is not installed (make setup says why)")
@pytest.mark.timeout(600)
def test_two_candidates_of_a_real_engine_are_measured_and_none_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("generator.tune.BUSY", float("inf"))  # other tests may keep this machine busy
    # given a random model, and beside the settings in force one that starts and one that cannot
    model = make_tiny_qwen3(tmp_path / "model")
    arguments = ", ".join(f'"{argument}"' for argument in TINY_ARGUMENTS)
    text = f'[teacher]\nbackend = "vllm"\nmodel = "{model}"\nargs = [{arguments}]\nconcurrency = 8\n'
    root = _workspace(tmp_path, text)
    workspace = Workspace(root)
    units = Units(select([TYPE]), Corpus(workspace.store), POLICY)
    base = workspace.settings.teacher
    broken = with_flag(base.args, "no-such-flag", "1")
    tuner = Tuner(workspace, units, POLICY, workers=1, seconds=600, trial=6.0)
    # when both are tried
    verdict = tuner.run(
        [
            Dimension("concurrency", lambda one: Candidate("2", 2, one.args) if one.concurrency == 8 else None),
            Dimension("broken", lambda one: Candidate("broken", one.concurrency, broken)),
        ]
    )
    # then the first has rates, the second is told and passed over, nothing is written, and no server is left
    first, two, failed = verdict.trials[0], verdict.trials[2], verdict.trials[3]
    assert min(first.tokens, first.calls, two.tokens, two.calls) > 0
    assert "unrecognized arguments" in failed.error
    assert (root / "factory.toml").read_text() == text
    servers = [one for one in psutil.process_iter(["cmdline"]) if str(model) in " ".join(one.info["cmdline"] or [])]
    assert servers == []
