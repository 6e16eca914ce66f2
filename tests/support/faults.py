"""What the fault tests share: small workspaces, the project's commands as processes that can be killed, and the one
check that follows every fault. Nothing here stands in for a part of the project.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from foundation.corpus import Corpus
from foundation.log import read_events
from foundation.reader import committed_rejects
from foundation.records import Record, Reject, Snippet, Unit, item_id
from foundation.store import TEMPORARY
from foundation.workspace import Workspace
from generator.catalogue import load_catalogue, select
from queue_workers import plan, redis_server
from queue_workers.ledger import open_ledger
from queue_workers.plan import load_plan, queue_name
from queue_workers.redis_server import redis_connection
from queue_workers.rq_queue import RqQueue
from tests.support.commands import REPOSITORY

SHORT = "[queue]\nlease = 20\nheartbeat = 4\n"  # so that a test need not wait for the real ones
RULES = '[teacher]\nbackend = "rules"\n'
TYPES = ("wh/who", "cloze/entity", "qpt/tell-me-about", "wh/when")  # the last one rejects every sixth item or so

NAMES = ("Harald Brecht", "Anna Lindqvist", "Tomas Vereen", "Ilse Marran", "Peter Oswin", "Clara Duval")
PLACES = ("Tarvik", "Osmark", "Lindhaven", "Brenna", "Kolmar", "Esterwick")
_watched: dict[psutil.Popen, Workspace] = {}  # the commands that run now
EVENTS = (
    "General {name} defended {place} against the siege from March {year} until the relief came.",
    "Admiral {name} commanded the squadron that left {place} on {day} May {year}.",
    "The Treaty of {place} was signed by {name} on {day} June {year}.",
    "In {year} the government moved {count} workers from {place} to the northern yards.",
    "{name} wrote {count} letters about the campaign of {year} while he lived in {place}.",
    "The bridge at {place} was destroyed by engineers under {name} in {year}.",
)


def snippet(number: int) -> Snippet:
    """Five plain sentences, different for each number."""
    draw = random.Random(number)
    sentences = [
        draw.choice(EVENTS).format(
            name=draw.choice(NAMES),
            place=draw.choice(PLACES),
            year=draw.randint(1900, 1950),
            day=draw.randint(1, 28),
            count=draw.randint(100, 9999),
        )
        for _ in range(4)
    ]
    sentences.append(f"The archive of Tarvik keeps {number + 2} papers about the campaign.")
    text = " ".join(sentences)
    return Snippet(
        id=Snippet.make_id(text),
        article_id=f"article-{number // 20}",
        title=f"The Osmark campaign {number // 20}",
        source="made-up",
        index=number % 20,
        sentences=tuple(sentences),
        text=text,
    )


def make_workspace(
    root: Path, *, blocks: int, size: int = 4, types: Sequence[str] = TYPES, settings: str = "", planned: bool = True
) -> Workspace:
    """A workspace of `blocks` blocks of `size` snippets, planned for `types`: a unit is a block, and nothing is queued."""
    workspace = Workspace.init(root)
    others = ", ".join(f'"{name}" = 0' for name in load_catalogue() if name not in types)
    table = f"[plan]\nweights = {{ {others} }}\n"  # or `factory run` would take the other prompt types up as well
    (workspace.root / "factory.toml").write_text((settings or f"{RULES}{SHORT}[work]\nworkers = 2\n") + table)
    corpus = Corpus(workspace.store)
    for number in range(blocks):
        name, data = corpus.block_file(number + 1, [snippet(size * number + one) for one in range(size)])
        workspace.store.put(name, data)
    if planned:
        chosen = select(types)
        with workspace.lock("plan"):
            new = plan.draft(load_plan(workspace.store), chosen, corpus.blocks(), round_=0, priority="normal")
            plan.add(workspace.store, new, chosen, workspace.settings.split)
    return workspace


@contextlib.contextmanager
def factory(
    workspace: Workspace, *command: str, prelude: str = "", limit: Callable[[], None] | None = None
) -> Iterator[psutil.Popen]:
    """`factory COMMAND` as a process of its own; its whole tree is killed when the context ends.

    `prelude` is Python run in it first (to act out another host, or a death at one line); `limit` runs before the start.
    """
    argv = [sys.executable, "-c", f"{prelude}\nfrom generator.cli import main; main()", *command]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    with open(output(workspace), "ab") as log:
        process = psutil.Popen(
            argv, cwd=workspace.root, env=environment, stdout=log, stderr=log, preexec_fn=limit, start_new_session=True
        )
        _watched[process] = workspace
        try:
            yield process
        finally:
            del _watched[process]
            kill_tree(process)
            process.wait(20)


def output(workspace: Workspace) -> Path:
    """Where the commands of this workspace write."""
    return workspace.root.with_name(f"{workspace.root.name}.out")


def finish(workspace: Workspace, *command: str, code: int = 0, seconds: float = 200) -> None:
    """Run a command to its end, which must be that one."""
    with factory(workspace, *command) as process:
        ended(process, workspace, code=code, seconds=seconds)


def ended(process: psutil.Popen, workspace: Workspace, *, code: int = 0, seconds: float = 200) -> None:
    """Wait for a process to end by itself, with that exit code."""
    try:
        got = process.wait(seconds)
    except psutil.TimeoutExpired:
        got = "no end"
    assert got == code, f"exit code {got} instead of {code}\n{output(workspace).read_text()[-4000:]}"


def dies_at(place: str, *, after: bool = False, when: str = "True", nth: int = 0) -> str:
    """A prelude that ends the process by SIGKILL as it calls `module:attribute` (or as that returns).

    `when` is an expression over the call's arguments `a` (positional) and `k` (by name); `nth` counts the calls.
    """
    module, _, attribute = place.partition(":")
    owner, _, name = attribute.rpartition(".")
    die = f"if {when} and (not {nth} or len(calls) == {nth}): os.kill(os.getpid(), signal.SIGKILL)"
    body = ["result = original(*a, **k)", die, "return result"] if after else [die, "return original(*a, **k)"]
    return "\n".join(
        [
            "import os, signal, importlib",
            f"owner, calls = importlib.import_module({module!r}), []",
            f"owner = owner.{owner}" if owner else "",
            f"original = owner.{name}",
            "def dying(*a, **k):",
            "    calls.append(1)",
            *(f"    {line}" for line in body),
            f"owner.{name} = dying",
        ]
    )


def kill_tree(process: psutil.Process) -> list[psutil.Process]:
    """SIGKILL for a process and all its descendants; who that was."""
    with contextlib.suppress(psutil.NoSuchProcess):
        tree = [process, *process.children(recursive=True)]
        for one in tree:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        return tree
    return []


def signal_tree(process: psutil.Process, number: int) -> None:
    """Send a signal to a process and all its descendants."""
    for one in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            one.send_signal(number)


def gone(processes: Collection[psutil.Process]) -> bool:
    for one in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if one.is_running() and one.status() != psutil.STATUS_ZOMBIE:
                return False
    return True


def processes_of(workspace: Workspace) -> list[psutil.Process]:
    """Every process that runs in the workspace's folder or names it."""
    root, found = str(workspace.root), []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            inside = process.cwd() == root or process.cwd().startswith(f"{root}/")
            if process.pid != os.getpid() and (inside or root in " ".join(process.cmdline())) and not gone([process]):
                found.append(process)
    return found


def wait_for(condition: Callable[[], object], seconds: float = 120, what: str = "it") -> None:
    """Wait until `condition` holds. The bound is for a test that would never end, not for how long it may take.

    A command that meanwhile ended with an error fails the test at once.
    """
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"{what} did not come about in {seconds:g} s"
        for process, workspace in _watched.items():
            assert (process.poll() or 0) <= 0, f"{what} did not come about\n{output(workspace).read_text()[-4000:]}"
        time.sleep(0.01)


def committed(workspace: Workspace) -> list[Path]:
    return [path for path in workspace.root.glob("shards/*/*/*.jsonl") if not path.name.startswith(TEMPORARY)]


def redis_pid(workspace: Workspace) -> int:
    """The pid of the workspace's own Redis; 0 if none answers."""
    with redis.Redis(unix_socket_path=str(workspace.socket("redis.sock")), retry=Retry(NoBackoff(), 0)) as client:
        try:
            return int(client.info("server")["process_id"])
        except redis.RedisError:
            return 0


def kill_redis(workspace: Workspace) -> None:
    """SIGKILL for the workspace's own Redis."""
    process = psutil.Process(redis_pid(workspace))
    process.kill()
    wait_for(lambda: gone([process]), what="the end of Redis")


@contextlib.contextmanager
def queue_of(workspace: Workspace) -> Iterator[RqQueue]:
    with redis_connection(workspace) as redis:
        yield RqQueue(redis, queue_name(workspace.store), workspace.settings.queue)


def assert_all_is_there(
    workspace: Workspace, *, aside: Collection[str] = (), torn_log: bool = False, own_redis: bool = True
) -> None:
    """Every planned unit committed once and every item of it accounted for, nothing foreign, nothing twice, nothing
    half-written, nobody running. `aside`: ids of the units that must be set aside instead."""
    units = {unit.id: unit for unit in load_plan(workspace.store).units()}
    assert units
    shards = {path.stem: path for path in committed(workspace)}
    assert shards.keys() == units.keys() - set(aside)
    ids: Counter[str] = Counter()
    for id_, path in shards.items():
        ids.update(_check_unit(workspace, units[id_], path))
    assert [id_ for id_, count in ids.items() if count > 1] == []
    for path in workspace.root.glob("rejects/*/*/*.jsonl"):
        assert all(Reject.model_validate_json(line).unit in units for line in path.read_bytes().splitlines())
    _check_counts(workspace, set(aside), len(shards), ids.total())
    assert list(workspace.root.rglob(f"{TEMPORARY}*")) == []
    _check_words(workspace, torn_log)
    if own_redis:
        assert redis_server.stop(workspace)
    wait_for(lambda: not processes_of(workspace), 20, f"the end of {processes_of(workspace)}")


def _check_unit(workspace: Workspace, unit: Unit, path: Path) -> list[str]:
    """The ids of a unit's records, if each item has records or exactly one reject, of one attempt, and no other has."""
    assert path == workspace.root / unit.shard
    records = [Record.model_validate_json(line) for line in path.read_bytes().splitlines()]
    attempts = {record.attempt for record in records}
    assert len(attempts) <= 1
    folder = f"rejects/{unit.prompt_type}"
    listed = [name for name in workspace.store.list(folder) if name.startswith(f"{folder}/{unit.id}.")]
    lines = committed_rejects(workspace.store, unit.shard, attempts, lambda: listed)
    rejects = [Reject.model_validate_json(line) for line in lines]
    assert all(row.unit == unit.id for row in (*records, *rejects))
    snippets = Corpus(workspace.store).snippets(unit.block)[unit.start : unit.stop]
    items = Counter(item_id(snippet.id, unit.fingerprint, unit.round) for snippet in snippets)
    accounted = Counter({record.item for record in records}) + Counter(reject.item for reject in rejects)
    assert accounted == items
    return [record.id for record in records]


def _check_counts(workspace: Workspace, aside: set[str], shards: int, records: int) -> None:
    with open_ledger(workspace.store, workspace.cache) as ledger:
        totals = ledger.totals()
    assert (totals.units, totals.records, totals.broken) == (shards, records, 0)
    with queue_of(workspace) as queue:
        depth = queue.depth()
        assert (depth.queued, depth.in_flight) == (0, 0), _left(queue)
        assert {row.unit.id for row in queue.failures()} == aside
        assert all(row.error for row in queue.failures())


def _check_words(workspace: Workspace, torn_log: bool) -> None:
    """Every line of the event log parses, and no command showed a traceback."""
    if not torn_log:
        lines = sum(len(path.read_bytes().splitlines()) for path in workspace.logs.glob("factory-*.jsonl"))
        assert len(list(read_events(workspace.logs))) == lines
    text = output(workspace).read_text() if output(workspace).exists() else ""
    assert "Traceback" not in text, text[-4000:]
    assert "internal error" not in text, text[-4000:]


def end_with_sigterm(process: psutil.Popen, workspace: Workspace) -> None:
    """Ask a command to drain, and see it end well."""
    process.send_signal(signal.SIGTERM)
    ended(process, workspace)


def event_names(workspace: Workspace) -> list[str]:
    return [event["event"] for event in read_events(workspace.logs)]


def json_lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _left(queue: RqQueue) -> str:
    """What a queue that should be empty still holds, for the message of a failed test."""
    client, found = queue.redis, []
    for key in sorted(client.scan_iter("*")):
        kind = client.type(key)
        value: Any = kind
        if kind == b"zset":
            value = client.zrange(key, 0, -1, withscores=True)
        elif kind == b"list":
            value = client.lrange(key, 0, -1)
        elif kind == b"hash":
            value = {k: v for k, v in client.hgetall(key).items() if k not in (b"data", b"description")}
        found.append(f"{key.decode()}: {value} (ttl {client.ttl(key)})")
    return "\n".join(found)


@contextlib.contextmanager
def workspaces(folder: Path) -> Iterator[Callable[..., Workspace]]:
    """Makes workspaces in `folder` (the arguments are those of `make_workspace`, without a root), and leaves nothing running."""
    found: list[Workspace] = []

    def one(**options: Any) -> Workspace:
        found.append(make_workspace(folder / f"w{len(found)}", **options))
        return found[-1]

    yield one
    for workspace in found:
        clear(workspace)


def clear(workspace: Workspace) -> None:
    """Leave nothing running, whatever a failed test left."""
    for process in processes_of(workspace):
        kill_tree(process)
    redis_server.stop(workspace)


def free_port() -> int:
    """A TCP port of loopback that nobody has right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def printed(workspace: Workspace) -> dict[str, Any]:
    """The JSON document a command printed among its lines for the person."""
    lines = output(workspace).read_text().splitlines()
    found: dict[str, Any] = json.loads(next(line for line in lines if line.startswith("{")))
    return found
