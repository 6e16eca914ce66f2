"""The metrics as Prometheus reads them, over a real socket, from a process that dies with its parent."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from foundation.errors import UsageError
from foundation.workspace import Workspace
from queue_workers.identity import began
from queue_workers.metrics import CONTENT, HOST, serve_metrics
from queue_workers.redis_server import redis_connection
from tests.queue_workers.observed import GPU, TEACHER, plan_units, say_running
from tests.support.commands import REPOSITORY, run, run_json

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]
SAMPLE = re.compile(r'([a-z_][a-z0-9_]*)(?:\{((?:[a-z_]+="(?:[^"\\\n]|\\[\\"n])*",?)*)\})? (\S+)')
LABEL = re.compile(r'([a-z_]+)="((?:[^"\\]|\\.)*)"')


def get(port: int, path: str = "/metrics", method: str = "GET") -> tuple[int, str, str]:
    """Status, content type and text."""
    connection = http.client.HTTPConnection(HOST, port, timeout=30)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.headers["Content-Type"], answer.read().decode()
    finally:
        connection.close()


def read(text: str) -> Samples:
    """Parse the text format as strictly as its specification: each family once, HELP and TYPE first, no sample twice."""
    samples: Samples = {}
    kinds: dict[str, str] = {}
    helped, current = "", ""
    assert text.endswith("\n")
    for line in text.splitlines():
        if line.startswith("# HELP "):
            helped = line.split(" ", 3)[2]
            assert len(line.split(" ", 3)[3]) > 5
        elif line.startswith("# TYPE "):
            _, _, current, kind = line.split(" ")
            assert current == helped, "TYPE comes after its HELP"
            assert current not in kinds, f"{current} twice"
            assert kind in ("gauge", "counter")
            assert (kind == "counter") == current.endswith("_total")
            kinds[current] = kind
        else:
            found = SAMPLE.fullmatch(line)
            assert found, f"no sample: {line}"
            name, inner, value = found.groups()
            assert name == current, f"{name} stands with {current}"
            labels = tuple((key, re.sub(r"\\(.)", _unescaped, text)) for key, text in LABEL.findall(inner or ""))
            assert (name, labels) not in samples
            samples[name, labels] = float(value)
    return samples


def _unescaped(match: re.Match[str]) -> str:
    return {"\\": "\\", '"': '"', "n": "\n"}[match[1]]


def value(samples: Samples, name: str, /, **labels: str) -> float:
    return samples[f"factory_{name}", tuple(labels.items())]


def test_what_runs_is_told(workspace: Workspace) -> None:
    plan_units(workspace)
    with redis_connection(workspace):
        run("factory", "reconcile", cwd=workspace.root)
        say_running(
            workspace,
            **{"records_per_second": 7.5, "tokens_per_second": 900.0, "items_per_second": 6.4, "worker_deaths": 1},
            **{"teacher": TEACHER, "gpus": (GPU,), "kwh": 1.5, "money": 3.25, "hours": 10.0, "handovers": 4},
        )
        with serve_metrics(workspace, 0) as port:
            status, content, text = get(port)
    assert (status, content) == (200, CONTENT)
    samples = read(text)
    assert value(samples, "up") == 1
    assert value(samples, "state", state="working") == 1
    assert sum(number for (name, _), number in samples.items() if name == "factory_state") == 1
    assert (
        value(samples, "units_planned", prompt_type="wh/who") == value(samples, "units_left", prompt_type="wh/who") == 2
    )
    assert value(samples, "queue_units", priority="normal") == 4
    assert value(samples, "queue_units", priority="high") == 0
    assert value(samples, "units_in_flight") == value(samples, "units_set_aside") == 0
    assert value(samples, "records_total", prompt_type="wh/who") == 0
    assert value(samples, "items_total", prompt_type="wh/when", outcome="rejected") == 0
    assert value(samples, "records_per_second") == 7.5
    assert value(samples, "eta_seconds") == pytest.approx(256 / 6.4)
    assert value(samples, "teacher_requests", state="running") == 96
    assert value(samples, "teacher_restarts_total") == 2
    assert value(samples, "prefix_cache_hit_ratio") == 0.64
    assert value(samples, "prefix_cache_queries_total") == 1000
    assert value(samples, "prefix_cache_hits_total") == 640
    assert value(samples, "teacher_requests_limit") == 48
    assert value(samples, "gpu_memory_used_bytes", gpu="0", name='Card "A"\\B') == 12 * 2**30
    assert value(samples, "gpu_power_watts", gpu="0", name='Card "A"\\B') == 281.5
    assert value(samples, "energy_joules_total") == pytest.approx(1.5 * 3.6e6)
    assert value(samples, "money_total") == 3.25
    assert value(samples, "worker_deaths_total") == 1
    assert value(samples, "handovers_total") == 4


def test_prometheus_own_parser_reads_it(workspace: Workspace) -> None:
    parser = pytest.importorskip("prometheus_client.parser")
    say_running(workspace, teacher=TEACHER, gpus=(GPU,))
    with serve_metrics(workspace, 0) as port:
        text = get(port)[2]
    families = {family.name: family for family in parser.text_string_to_metric_families(text)}
    assert {sample.name for family in families.values() for sample in family.samples} == {
        name for name, _ in read(text)
    }
    (sample,) = families["factory_gpu_memory_used_bytes"].samples
    assert sample.labels == {"gpu": "0", "name": 'Card "A"\\B'}


def test_what_is_not_known_is_left_out(workspace: Workspace) -> None:
    plan_units(workspace)
    say_running(workspace)
    with serve_metrics(workspace, 0) as port:
        samples = read(get(port)[2])
    names = {name for name, _ in samples}
    assert not names & {
        "factory_queue_units",
        "factory_units_in_flight",
        "factory_teacher_up",
        "factory_gpu_power_watts",
    }
    assert "factory_eta_seconds" not in names  # no rate yet
    assert value(samples, "problems") > 0  # Redis does not run


def test_committed_work_is_counted_and_followed(workspace: Workspace) -> None:
    plan_units(workspace)
    with serve_metrics(workspace, 0) as port:
        before = read(get(port)[2])
        assert value(before, "up") == 0
        assert value(before, "state", state="stopped") == 1
        run("factory", "work", "--burst", cwd=workspace.root)
        status = run_json("factory", "status", cwd=workspace.root)
        until = time.monotonic() + 60
        while True:  # the ledger is read again when that is cheap enough
            samples = read(get(port)[2])
            counted = sum(number for (name, _), number in samples.items() if name == "factory_records_total")
            if counted == status["records"] > 0:
                break
            assert time.monotonic() < until, samples
            time.sleep(0.1)
    outcomes = {
        outcome: sum(
            number
            for (name, labels), number in samples.items()
            if name == "factory_items_total" and ("outcome", outcome) in labels
        )
        for outcome in ("accepted", "rejected")
    }
    assert outcomes == {"accepted": status["items_accepted"], "rejected": status["items_rejected"]}
    assert value(samples, "units_committed_total", prompt_type="wh/who") == 2


def test_only_get_and_only_that_path(workspace: Workspace) -> None:
    with serve_metrics(workspace, 0) as port:
        assert get(port, "/")[0] == get(port, "/metrics/x")[0] == get(port, "/../factory.toml")[0] == 404
        assert get(port, "/metrics?x=1")[0] == 200
        assert get(port, method="POST")[0] >= 400
        assert get(port, method="DELETE")[0] >= 400
        # and a client that says nothing, or goes away, keeps nobody from an answer
        with socket.create_connection((HOST, port)) as silent:
            with socket.create_connection((HOST, port)) as rude:
                rude.sendall(b"GET /metr")
            silent.sendall(b"GET")
            assert get(port)[0] == 200


def test_it_listens_on_loopback_alone(workspace: Workspace) -> None:
    with serve_metrics(workspace, 0) as port:
        listening = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
        found = [line.split()[1] for line in listening.splitlines() if f":{port:04X} " in line and " 0A " in line]
        assert found == [f"0100007F:{port:04X}"]


def test_a_port_in_use_is_told_before_anything_starts(workspace: Workspace) -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match="another process listens on it") as caught, serve_metrics(workspace, port):
            pytest.fail("it served")
    assert str(port) in str(caught.value)
    with serve_metrics(workspace, port):  # free again, at once
        pass
    with pytest.raises(UsageError), serve_metrics(workspace, 99_999):
        pytest.fail("it served")


def test_it_ends_with_its_context(workspace: Workspace) -> None:
    ports = []

    def fail() -> None:
        with serve_metrics(workspace, 0) as port:
            ports.append(port)
            assert get(port)[0] == 200
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with pytest.raises(ConnectionRefusedError):
        get(ports[0])


def test_it_dies_with_a_killed_parent_and_not_of_its_ctrl_c(workspace: Workspace) -> None:
    script = f"""
import signal, time
from multiprocessing import active_children
from pathlib import Path
from foundation.workspace import Workspace
from queue_workers.metrics import serve_metrics
with serve_metrics(Workspace(Path({str(workspace.root)!r})), 0) as port:
    print(port, active_children()[0].pid, flush=True)
    try:
        time.sleep(300)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        time.sleep(300)
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY, start_new_session=True
    )
    assert parent.stdout is not None
    try:
        port, pid = map(int, parent.stdout.readline().split())
        assert get(port)[0] == 200
        os.killpg(parent.pid, signal.SIGINT)  # what a terminal does
        assert parent.stdout.readline() == "interrupted\n"
        assert get(port)[0] == 200
    finally:
        parent.kill()
        parent.communicate()
    until = time.monotonic() + 30
    while began(pid):
        assert time.monotonic() < until, "it outlived its parent"
        time.sleep(0.02)
