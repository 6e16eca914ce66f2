"""`--metrics-port`: what the factory does, as Prometheus text (format 0.0.4) on loopback.

Guarantees: a process of its own, so the one that forks workers has no thread; it dies with its parent, however that dies;
it listens on 127.0.0.1 alone, answers GET /metrics and nothing else, one request at a time; a port in use is told before
anything starts. What is not known is left out, never 0. Counters of what is committed are the ledger's: they outlive a
restart, and go back only if shards are taken away.
Cost: 16 MB, 40 at 400,000 committed units; a scrape takes 2 to 8 ms, and at times what reading plan and ledger anew does.
"""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any, get_args

from foundation.errors import FactoryError, UsageError
from foundation.processes import die_with_parent
from queue_workers.snapshot import State
from queue_workers.view import Counts, View, look

if TYPE_CHECKING:
    from foundation.workspace import Workspace

HOST = "127.0.0.1"
CONTENT = "text/plain; version=0.0.4; charset=utf-8"
STATES = (*get_args(State), "stopped")
PATIENCE = 5.0  # seconds a client may take to send its request, and the process to end
SIGNALS = (signal.SIGTERM, signal.SIGINT)
_fork = multiprocessing.get_context("fork")
_Samples = Iterable[tuple[dict[str, str], float | None]]


@contextlib.contextmanager
def serve_metrics(workspace: Workspace, port: int) -> Iterator[int]:
    """Serve until the context ends; the port (of the system's choosing if it was 0). Raises `UsageError`.

    Enter it before anything else is forked or started: the child inherits what is open.
    """
    try:
        server = _Server((HOST, port), _Handler)
    except (OSError, OverflowError) as error:
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        raise UsageError(
            f"no metrics on port {port}: {'another process listens on it' if taken else error}",
            where=f"{HOST}:{port}",
            mend="name another --metrics-port, or leave it out",
        ) from error
    server.workspace, server.counts = workspace, Counts(workspace)
    process = _fork.Process(target=_live, args=(server, os.getpid()), name="metrics", daemon=True)
    # A signal that came before the child's own handlers are set would be heard by the parent's, in the wrong process.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        server.socket.close()  # the child's now
    try:
        yield server.server_port
    finally:
        process.terminate()
        process.join(PATIENCE)
        if process.is_alive():
            process.kill()
            process.join()


def _live(server: _Server, parent: int) -> None:
    die_with_parent(signal.SIGKILL)
    if os.getppid() != parent:  # it died before we asked
        os._exit(1)
    os.setpgid(0, 0)  # Ctrl-C is the parent's
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    try:
        server.serve_forever()
    finally:
        os._exit(1)


class _Server(HTTPServer):
    allow_reuse_address = True  # a restart needs no wait for connections in TIME_WAIT
    workspace: Workspace
    counts: Counts

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news; anything else is, and the next scrape is answered all the same."""
        error = sys.exc_info()[1]
        if not isinstance(error, ConnectionError | TimeoutError):
            print(f"metrics: {type(error).__name__}: {error}", file=sys.stderr, flush=True)


class _Handler(BaseHTTPRequestHandler):
    timeout = PATIENCE  # of a client that says nothing, so it holds nobody up for long
    server: _Server
    server_version, sys_version = "factory", ""

    def do_GET(self) -> None:
        if self.path.partition("?")[0] != "/metrics":
            self._answer(404, "only /metrics is here\n", "text/plain; charset=utf-8")
            return
        try:
            text = render(look(self.server.workspace, self.server.counts))
        except (FactoryError, OSError) as error:
            self._answer(503, f"{error}\n", "text/plain; charset=utf-8")
            return
        self._answer(200, text, CONTENT)

    def _answer(self, code: int, text: str, content: str) -> None:
        body = text.encode("utf-8", "replace")
        self.send_response(code)
        self.send_header("Content-Type", content)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Scrapes are no news."""


@dataclass(frozen=True)
class _Family:
    """One metric: its samples are labels and a value; None is left out, and a family without any too."""

    name: str
    kind: str
    help: str
    samples: _Samples

    def lines(self) -> Iterator[str]:
        samples = [(labels, value) for labels, value in self.samples if value is not None]
        if samples:
            yield f"# HELP {self.name} {_escaped(self.help)}"
            yield f"# TYPE {self.name} {self.kind}"
        for labels, value in samples:
            inner = ",".join(f'{key}="{_escaped(text, quote=True)}"' for key, text in labels.items())
            yield f"{self.name}{f'{{{inner}}}' if inner else ''} {value!r}"


def render(view: View) -> str:
    """The whole page. Names end in their base unit; what only counts up ends in `_total`."""
    families = (*_work(view), *_speed(view), *_engine(view), *_machine(view))
    return "\n".join(line for family in families for line in family.lines()) + "\n"


def _gauge(name: str, help_: str, samples: _Samples | float | None) -> _Family:
    return _Family(f"factory_{name}", "gauge", help_, _samples(samples))


def _counter(name: str, help_: str, samples: _Samples | float | None) -> _Family:
    return _Family(f"factory_{name}_total", "counter", help_, _samples(samples))


def _samples(samples: _Samples | float | None) -> _Samples:
    return [({}, samples)] if samples is None or isinstance(samples, int | float) else samples


def _work(view: View) -> list[_Family]:
    queue, kinds = view.queue, view.kinds.items()
    waiting = {"high": queue.high, "normal": queue.normal, "low": queue.low} if view.known else {}
    items = [
        ({"prompt_type": name, "outcome": outcome}, value)
        for name, kind in kinds
        for outcome, value in (("accepted", kind.done.accepted), ("rejected", kind.done.rejected))
    ]
    return [
        _gauge("up", "Whether a factory run or factory work is at work in this workspace.", int(bool(view.snapshots))),
        _gauge(
            "state", "What it does: 1 for the state it is in.", [({"state": s}, int(s == view.state)) for s in STATES]
        ),
        _gauge("paused", "Whether everything is paused.", int(view.paused)),
        _gauge("problems", "How many things are wrong, as factory status tells them.", len(view.wrong())),
        _gauge("units_planned", "Units planned.", [({"prompt_type": n}, kind.planned) for n, kind in kinds]),
        _gauge(
            "units_left",
            "Units to do: neither committed nor set aside.",
            [({"prompt_type": n}, k.left) for n, k in kinds],
        ),
        _counter("units_committed", "Units committed.", [({"prompt_type": n}, kind.done.units) for n, kind in kinds]),
        _counter("items", "Items of committed units, by what came of them.", items),
        _counter("records", "Records committed.", [({"prompt_type": n}, kind.done.records) for n, kind in kinds]),
        _counter("tokens", "Tokens of the teacher, prompts and completions, in committed units.", view.totals.tokens),
        _gauge("queue_units", "Units that wait in the queue.", [({"priority": p}, n) for p, n in waiting.items()]),
        _gauge("units_in_flight", "Units out with a worker.", queue.in_flight if view.known else None),
        _gauge(
            "units_set_aside", "Units set aside after failures.", sum(queue.failed.values()) if view.known else None
        ),
    ]


def _speed(view: View) -> list[_Family]:
    ran = view.snapshots
    return [
        _gauge("records_per_second", "Records a second, over the last minutes of work.", view.rate("records")),
        _gauge("items_per_second", "Items a second, over the last minutes of work.", view.rate("items")),
        _gauge("tokens_per_second", "Tokens a second, over the last minutes of work.", view.rate("tokens")),
        _gauge("eta_seconds", "Seconds until what is planned is done; missing while nobody can know.", view.eta),
        _gauge("workers", "Worker processes.", sum(one.workers for one in ran)),
        _counter("worker_deaths", "Workers that ended by themselves.", sum(one.worker_deaths for one in ran)),
        _counter(
            "redis_restarts", "Times the queue's Redis was started again.", sum(one.redis_restarts for one in ran)
        ),
        _counter("handovers", "Times the device was handed to another.", sum(one.handovers for one in ran)),
    ]


def _engine(view: View) -> list[_Family]:
    teacher = view.teacher
    if teacher is None:
        return []
    requests = [({"state": "running"}, teacher.running), ({"state": "waiting"}, teacher.waiting)]
    looked_up = teacher.queries or None
    return [
        _gauge(
            "teacher_up", "Whether the teacher is well.", [({"teacher": teacher.name}, int(teacher.state == "well"))]
        ),
        _gauge("teacher_requests", "Requests in the teacher's server.", requests),
        _counter("teacher_restarts", "Times the teacher was started again.", teacher.restarts),
        _gauge("teacher_requests_limit", "Requests a worker may have in flight, as adapted.", teacher.limit or None),
        _gauge("prefix_cache_hit_ratio", "Share of prompt tokens that the prefix cache had.", teacher.hit_ratio),
        _counter("prefix_cache_queries", "Prompt tokens looked up in the prefix cache.", looked_up),
        _counter("prefix_cache_hits", "Prompt tokens that the prefix cache had.", looked_up and teacher.hits),
    ]


def _machine(view: View) -> list[_Family]:
    gpus = [({"gpu": str(number), "name": gpu.name}, gpu) for number, gpu in enumerate(view.gpus)]
    used = view.used
    return [
        _gauge("gpu_memory_used_bytes", "GPU memory in use.", [(labels, gpu.used) for labels, gpu in gpus]),
        _gauge("gpu_memory_total_bytes", "GPU memory there is.", [(labels, gpu.total) for labels, gpu in gpus]),
        _gauge(
            "gpu_busy_ratio", "Share of the last moment the GPU was busy.", [(labels, gpu.busy) for labels, gpu in gpus]
        ),
        _gauge("gpu_power_watts", "What the GPU draws.", [(labels, gpu.watts) for labels, gpu in gpus]),
        _counter("energy_joules", "Energy the GPUs drew while the factory was at work.", used.kwh * 3.6e6),
        _counter("money", "What it cost so far, by work.hourly_price and work.kwh_price.", used.money),
        _counter("work_seconds", "Time the factory was at work.", used.seconds),
        _gauge("disk_free_bytes", "Free space where the workspace lies.", view.free),
    ]


def _escaped(text: str, *, quote: bool = False) -> str:
    text = text.replace("\\", r"\\").replace("\n", r"\n")
    return text.replace('"', r"\"") if quote else text
