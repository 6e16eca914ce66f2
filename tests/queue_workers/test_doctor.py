"""`factory doctor`: each check alone, made to find what it is there for; and the whole, which changes nothing."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from foundation.devices import device_name, hold_device
from foundation.errors import Failure
from foundation.store import TEMPORARY
from foundation.workspace import Workspace
from queue_workers import doctor, doctor_machine, service
from queue_workers.controls import change_controls
from queue_workers.doctor import Row, examine, run_checks
from queue_workers.plan import queue_name
from queue_workers.protocol import Ack
from queue_workers.redis_server import redis_connection
from queue_workers.rq_queue import RqQueue
from tests.queue_workers.conftest import make_units
from tests.support.commands import REPOSITORY, run
from tests.support.fault_server import fault_server, reply

COLOUR = json.dumps({"colour": "green"})
CHECKS = {"workspace", "disk", "Redis", "clock", "teacher", "GPU", "versions", "limits", "sleep", "session", "plan"}


@pytest.fixture(autouse=True)
def rules(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FACTORY_TEACHER__BACKEND", "rules")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def anew(workspace: Workspace, monkeypatch: pytest.MonkeyPatch, **settings: str) -> Workspace:
    """The same workspace, with settings of the environment (`teacher__model="m"`)."""
    assert workspace.settings  # read before the environment changes: the fixture's end goes by them
    for name, value in settings.items():
        monkeypatch.setenv(f"FACTORY_{name.upper()}", value)
    return Workspace(workspace.root)


def one(rows: Any, state: str) -> Row:
    (row,) = [row for row in rows if row.state == state]
    return row


def test_all_is_looked_at_quickly_and_nothing_is_changed(workspace: Workspace) -> None:
    began = time.monotonic()
    rows = examine(workspace)
    print(f"doctor took {time.monotonic() - began:.2f} s")
    assert {row.check for row in rows} == CHECKS
    assert [row for row in rows if row.state == "problem"] == []
    assert all(row.mend for row in rows if row.state != "ok")
    assert not list(workspace.root.rglob(f"{TEMPORARY}*")) and not workspace.socket("redis.sock").exists()
    assert {path.name for path in workspace.root.iterdir()} <= {
        "factory.toml",
        "run",
        "logs",
        "cache",
        "shards",
        "rejects",
    }


def test_a_check_that_fails_or_hangs_says_so_and_hides_no_other(workspace: Workspace) -> None:
    never = threading.Event()

    def broken(_: Workspace) -> list[Row]:
        raise ZeroDivisionError("by nothing")

    def refused(_: Workspace) -> list[Row]:
        raise Failure("it is away", where="here", mend="fetch it")

    def hung(_: Workspace) -> list[Row]:
        never.wait(60)
        return []

    checks = {"a": broken, "b": refused, "c": hung, "d": lambda _: [Row("d", "ok", "well")]}
    rows = run_checks(workspace, checks, give_up=1.0)
    never.set()
    assert [(row.check, row.state) for row in rows] == [
        ("a", "problem"),
        ("b", "problem"),
        ("c", "problem"),
        ("d", "ok"),
    ]
    assert "ZeroDivisionError: by nothing" in rows[0].found
    assert (rows[1].found, rows[1].mend) == ("it is away (here)", "fetch it")
    assert "did not end" in rows[2].found


def test_the_command_exits_by_what_it_found(workspace: Workspace) -> None:
    document = json.loads(run("factory", "doctor", "--json", cwd=workspace.root).stdout)
    assert document["problems"] == 0 and {row["check"] for row in document["checks"]} == CHECKS
    env = {"FACTORY_WORK__MIN_FREE": str(10**9)}
    out = run("factory", "doctor", cwd=workspace.root, code=1, env=env).stdout
    assert "work.min_free asks for" in out and "problem, disk: free some space" in out


def test_disk_warns_when_the_plan_will_not_fit(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    from queue_workers import forecast

    need = forecast.Forecast({"wh/who": forecast.Need(1e6, 0, 1e9)}, 10**9, 0, 1, None, 1)
    monkeypatch.setattr(forecast, "forecast", lambda _: need)
    assert "is not free" in one(doctor._disk(workspace), "warning").found


def test_a_redis_that_is_away_or_forgets_is_told_without_its_password(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "redis://:very-secret@127.0.0.1:1/0"
    rows = run_checks(anew(workspace, monkeypatch, queue__url=url), {"Redis": doctor._redis})
    assert "cannot be reached" in one(rows, "problem").found and "very-secret" not in repr(rows)


def test_clocks_that_differ_are_told() -> None:
    assert doctor._ahead(0.2).state == "ok"
    assert doctor._ahead(-60.0).state == "warning" and "60.000 s behind" in doctor._ahead(-60.0).found


def test_a_step_back_in_the_event_log_is_told(workspace: Workspace) -> None:
    times = ["2024-05-01T10:00:00.000+00:00", "2024-05-01T10:00:03.000+00:00", "2024-05-01T10:00:02.900+00:00"]
    log = workspace.logs / "factory-2024-05-01.jsonl"

    def write(*stamps: str) -> None:
        log.write_text("".join(json.dumps({"time": t, "level": "info", "event": "x"}) + "\n" for t in stamps))

    write(*times)
    assert all("set back" not in row.found for row in doctor_machine.clock(workspace) if row.state != "ok")
    write(*times, "2024-05-01T09:00:00.000+00:00", "2024-05-01T09:00:01.000+00:00")
    assert "3603 s at 2024-05-01 10:00 UTC" in one(doctor_machine.clock(workspace), "warning").found


def test_rules_are_said_to_be_no_language_model(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "not a language model" in one(doctor._teacher(workspace), "ok").found
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    auto = anew(workspace, monkeypatch, teacher__backend="auto")
    assert "auto, and no GPU" in one(doctor._teacher(auto), "ok").found
    assert not workspace.store.exists("plan/teacher.json")
    workspace.store.put("plan/teacher.json", b'{"backend": "vllm"}')
    row = one(run_checks(auto, {"teacher": doctor._teacher}), "problem")
    assert "chose vllm" in row.found and "mend the driver" in row.mend


@pytest.mark.parametrize(
    ("answer", "state", "words"),
    [
        (reply(COLOUR), "ok", "obeys a JSON schema"),
        (reply("Green as the summer hills"), "problem", "does not obey a JSON schema: 'Green as"),
        (reply('{"colour": "blue"}'), "problem", "does not obey"),
        ((400, "no such option"), "problem", "refused a tiny request: HTTP 400"),
        ((404, "no such model"), "problem", "refuses the request"),
        ("stall", "warning", "did not answer in 0.5 s"),
    ],
)
def test_a_server_is_asked_one_tiny_question(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, answer: Any, state: str, words: str
) -> None:
    monkeypatch.setattr(doctor, "ANSWER", 0.5 if answer == "stall" else 30.0)
    with fault_server(lambda *_: 5.0 if answer == "stall" else answer) as server:
        key = "very-secret"
        settings = {"teacher__backend": "openai", "teacher__model": "m", "teacher__base_url": server.url}
        settings |= {"teacher__api_key": key}
        rows = run_checks(anew(workspace, monkeypatch, **settings), {"teacher": doctor._teacher})
        assert words in one(rows, state).found and key not in repr(rows)
        (call,) = server.calls
        assert call["max_tokens"] <= 64 and call["response_format"]["type"] == "json_schema"


def test_a_server_that_is_away_is_a_problem(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"teacher__backend": "openai", "teacher__model": "m", "teacher__base_url": "http://127.0.0.1:1/v1"}
    away = anew(workspace, monkeypatch, **there)
    assert "cannot be reached" in one(run_checks(away, {"teacher": doctor._teacher}), "problem").found


def test_vllm_is_looked_at_without_loading_a_model(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    from foundation import engine

    monkeypatch.setattr(engine, "has_vllm", lambda: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    vllm = anew(workspace, monkeypatch, teacher__backend="vllm", teacher__model=str(workspace.root))
    assert one(doctor._teacher(vllm), "ok").found.endswith(f"{device_name()} is free")
    with hold_device("a training run"):
        assert f"held by a training run, pid {os.getpid()}" in one(doctor._teacher(vllm), "ok").found
    gone = anew(workspace, monkeypatch, teacher__model="/no/such/folder")
    assert "no such model folder" in one(doctor._teacher(gone), "problem").found
    monkeypatch.setattr(engine, "has_vllm", lambda: False)
    assert "not installed" in one(doctor._teacher(vllm), "problem").found
    assert "none is found" in one(doctor_machine.gpu(vllm), "warning").found


def test_versions_are_those_that_our_metadata_asks_for(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    (row,) = doctor_machine.versions(workspace)
    assert row.state != "problem" and "torch" in row.found and "rq" in row.found
    asked = ["rq>=99", "redis>=5", 'vllm>=99; extra == "vllm"', 'nothing-like-it>=1; python_version < "3"']
    monkeypatch.setattr(
        doctor_machine, "requires", lambda _: [*asked, "no-such-package>=1", 'boto9>=1; extra == "aws"']
    )
    found = one(doctor_machine.versions(workspace), "problem").found
    assert "rq" in found and ">=99 is asked for" in found and "redis" not in found
    monkeypatch.setattr(doctor_machine, "requires", lambda _: ["no-such-package>=1", 'boto9>=1; extra == "aws"'])
    missing = one(doctor_machine.versions(workspace), "warning")
    assert "no-such-package" in missing.found and "boto9" not in missing.found


@pytest.mark.parametrize(
    ("limit", "value", "words"),
    [(resource.RLIMIT_NOFILE, 100, "100 open files"), (resource.RLIMIT_FSIZE, 10**6, "no file may grow beyond 1.0 MB")],
)
def test_limits_that_are_too_low_are_a_problem(workspace: Workspace, limit: int, value: int, words: str) -> None:
    code = (
        "import resource, sys\nfrom pathlib import Path\nfrom foundation.workspace import Workspace\n"
        f"from queue_workers.doctor_machine import limits\nworkspace = Workspace(Path(sys.argv[1]))\nworkspace.settings\n"
        f"resource.setrlimit({limit}, ({value}, resource.getrlimit({limit})[1]))\nprint(limits(workspace)[0])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(workspace.root)], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert "problem" in done.stdout and words in done.stdout
    assert one(doctor_machine.limits(workspace), "ok")


def test_a_machine_that_may_sleep_is_a_warning(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    power = tmp_path / "state"
    monkeypatch.setattr(doctor_machine, "SYSTEMD", tmp_path)
    monkeypatch.setattr(doctor_machine, "POWER", power)
    monkeypatch.setattr("psutil.sensors_battery", lambda: None)
    assert one(doctor_machine.sleep(workspace), "ok")
    power.write_text("freeze mem disk\n")
    for answer, state in (("static", "warning"), ("masked", "ok")):
        monkeypatch.setattr(doctor_machine, "_systemctl", lambda *_, answer=answer: answer)
        row = one(doctor_machine.sleep(workspace), state)
    monkeypatch.setattr(doctor_machine, "_systemctl", lambda *_: "static")
    row = one(doctor_machine.sleep(workspace), "warning")
    assert "suspend.target" in row.found and "systemctl mask" in row.mend


def test_a_service_without_linger_and_a_file_that_others_read_are_told(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(doctor_machine, "LINGER", tmp_path)
    assert "no service is installed" in one(doctor_machine.session(workspace), "ok").found
    made = service.install(workspace)
    assert "end with the last logout" in one(doctor_machine.session(workspace), "warning").found
    (tmp_path / doctor_machine.getpass.getuser()).touch()
    assert "is installed" in one(doctor_machine.session(workspace), "ok").found
    made.path.write_text(made.text + "# by hand\n")
    assert "not what this version" in one(doctor_machine.session(workspace), "warning").found
    made.environment.parent.mkdir(parents=True)
    made.environment.write_text("X=1\n")
    made.environment.chmod(0o644)
    assert "others can read" in one(run_checks(workspace, {"session": doctor_machine.session}), "problem").found


def test_a_process_on_a_terminal_ends_with_it() -> None:
    """Real ones, on a real pseudo-terminal: plain, by nohup, in (what says it is) tmux; and one without a terminal."""
    code = "import signal, sys, time; {}; print('up', flush=True); time.sleep(60)"
    leader, terminal = os.openpty()
    ignoring = code.format("signal.signal(signal.SIGHUP, signal.SIG_IGN)")
    attach = f"import fcntl, termios; fcntl.ioctl({terminal}, termios.TIOCSCTTY, 0); "
    cases = [(attach + code.format("pass"), {}, True), (attach + ignoring, {}, False)]
    cases += [(attach + code.format("pass"), {"TMUX": "x"}, False), (code.format("pass"), {}, False)]
    clean = {name: value for name, value in os.environ.items() if name not in ("TMUX", "STY")}
    try:
        for text, more, ends in cases:
            child = subprocess.Popen(
                [sys.executable, "-c", text],
                stdout=subprocess.PIPE,
                env=clean | more,
                start_new_session=True,
                pass_fds=(terminal,),
            )
            try:
                assert child.stdout is not None and child.stdout.readline() == b"up\n"
                row = doctor_machine._ends_with_login(child.pid, "run")
                assert (row is not None) is ends, text
            finally:
                child.kill()
                child.wait()
                assert child.stdout is not None
                child.stdout.close()
    finally:
        os.close(leader)
        os.close(terminal)


def test_pauses_and_units_set_aside_are_told(workspace: Workspace) -> None:
    change_controls(workspace.store, paused_types=("wh/who",))
    with redis_connection(workspace) as redis:
        queue = RqQueue(redis, queue_name(workspace.store), workspace.settings.queue)
        queue.submit(make_units(1), "normal")
        failed = 0

        def fail(_: Any) -> Ack:
            nonlocal failed
            failed += 1
            return Ack("failed", "no good")

        until = time.monotonic() + 60
        queue.consume(fail, lambda: bool(queue.failures()) or time.monotonic() > until)
    rows = doctor._plan(workspace)
    told = " | ".join(row.found for row in rows if row.state == "warning")
    assert "paused since" in told and "wh/who" in told and "1 units were set aside" in told


def test_a_name_that_is_none_in_the_plan_table_is_a_problem(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = anew(workspace, monkeypatch, plan__weights='{"wh/whoo": 2}')
    assert "wh/whoo" in one(run_checks(wrong, {"plan": doctor._plan}), "problem").found
