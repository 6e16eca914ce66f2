"""A client of the workspace's Redis, a look at what answers, and one clear message for each way it can refuse.

Guarantees: a password, and the URL it stands in, appears in no message, log, title or repr; no call hangs: a connection
is given up after 4 s, a silent one (packets that vanish) after 6 s, each is tried again, 30 s in all; a Redis that could
lose units or lacks a command is refused before it holds one. Cost: importing redis-py (0.1 s); a check is three round trips.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from foundation.errors import FactoryError, Failure, Unavailable, UsageError

if TYPE_CHECKING:
    from redis import Redis

    from foundation.workspace import Workspace

LEAST = (6, 2)  # RQ and our scripts want 5, users with rights 6; 6.2 is the oldest it is tested with
CONNECT_SECONDS = 4.0
SILENCE_SECONDS = 6.0  # no command blocks longer: `withdraw` of 400,000 units takes about a second
PROBE_SECONDS = 3.0
RIGHTS = "~rq:* ~qpt:* +@all -@dangerous +info"
_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_ELSEWHERE = "start it, mend queue.url, or empty queue.url to use the workspace's own Redis"
_PROBE = "for _, key in ipairs(KEYS) do redis.call('SET', key, 1, 'PX', 1) end return redis.call('TIME')"


def connect(workspace: Workspace) -> Redis:
    """A client and nothing else: for a worker process, inside a `redis_connection` of its parent. Connects when first used."""
    import redis
    from redis.backoff import ExponentialBackoff
    from redis.retry import Retry

    options: dict[str, Any] = {
        "socket_timeout": SILENCE_SECONDS,
        "socket_connect_timeout": CONNECT_SECONDS,
        "retry": Retry(ExponentialBackoff(cap=0.5, base=0.05), 1),
        "protocol": 2,  # to a Redis too old for 3 we want to talk long enough to tell it so
    }
    url = workspace.settings.queue.url.get_secret_value()
    if not url:
        return redis.Redis(unix_socket_path=str(workspace.socket("redis.sock")), **options)
    if not url.startswith("unix:"):
        options["socket_keepalive"] = True
    try:
        _check_files(url)
        client: Redis = redis.Redis.from_url(url, **options)
        client.connection_pool.make_connection()  # an option of the URL that it does not know shows only here
    except (ValueError, TypeError, redis.RedisError):  # its text may quote a part of the password
        raise UsageError(
            "queue.url is not a Redis URL",
            where=_where(url),
            mend="write redis://HOST:PORT/DB, rediss://... or unix:///PATH; percent-encode special characters of a password",
        ) from None
    return client


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


def check(client: Redis, url: str) -> None:
    """Raises `Failure` unless a Redis answers that keeps what it is told and lets us do what a queue needs."""
    with clear_errors(url, probe=True):
        info = client.info()
        _refuse(info, url)
        client.eval(_PROBE, 2, "rq:probe", "qpt:probe")


@contextlib.contextmanager
def clear_errors(url: str, *, probe: bool = False) -> Iterator[None]:
    """Turn whatever redis-py raises into one `Failure` (`Unavailable` where it may come back) without secrets.

    `probe`: if the words leave it open, ask the port whether it speaks TLS and takes our certificate (some seconds).
    """
    import redis

    try:
        yield
    except redis.RedisError as error:  # it wraps the network's; another OSError is the caller's own
        raise explain(error, url, probe=probe) from None


def away(error: Exception) -> bool:
    """Whether Redis is not there, or cannot do its work, but may again: worth another try."""
    import redis

    if isinstance(error, (redis.AuthenticationError, redis.exceptions.AuthorizationError)):
        return False
    if isinstance(error, redis.ResponseError):  # MISCONF: its disk is full
        return isinstance(error, redis.OutOfMemoryError) or str(error).startswith("MISCONF")
    return isinstance(error, (redis.ConnectionError, redis.TimeoutError, OSError))


@dataclass(frozen=True, slots=True)
class RedisState:
    """What `doctor` tells of a Redis. `memory` in bytes, `ahead` (its clock before ours) and `round_trip` in seconds."""

    address: str
    own: bool
    version: str
    policy: str
    append_only: bool
    memory: int
    ahead: float
    round_trip: float


def describe(workspace: Workspace, client: Redis | None = None) -> RedisState:
    """Look at the workspace's Redis, inside a `redis_connection`. Raises what `check` raises."""
    url = workspace.settings.queue.url.get_secret_value()
    with contextlib.ExitStack() as stack:
        client = client or stack.enter_context(connect(workspace))
        check(client, url)
        with clear_errors(url):
            info = client.info()
            began, clock = time.monotonic(), time.time()
            seconds, micros = client.time()
            took = time.monotonic() - began
    return RedisState(
        address=redacted(url) if url else str(workspace.socket("redis.sock")),
        own=not url,
        version=str(info["redis_version"]),
        policy=str(info["maxmemory_policy"]),
        append_only=bool(info["aof_enabled"]),
        memory=int(info["used_memory"]),
        ahead=round(seconds + micros / 1e6 - clock - took / 2, 3),
        round_trip=round(took, 6),
    )


def explain(error: Exception, url: str, *, probe: bool = False) -> FactoryError:
    """The one message for an error of redis-py or of the network. Redis's own words never hold a password, the URL may."""
    import redis

    where, text = _where(url), _words(error)
    if isinstance(error, (redis.AuthenticationError, redis.exceptions.AuthorizationError)):
        return _refused_login(text, where)
    if isinstance(error, redis.exceptions.NoPermissionError):
        mend = f"give its user what a queue needs: ACL SETUSER NAME {RIGHTS}"
        return Failure(f"Redis does not allow its user to do that: {text}", where=where, mend=mend)
    if isinstance(error, redis.ReadOnlyError):
        return Failure("this Redis is a read-only replica", where=where, mend="set queue.url to the one it copies")
    if isinstance(error, redis.OutOfMemoryError):
        mend = "raise its maxmemory, or withdraw what waits; nothing is lost"
        return Unavailable("Redis has no memory left and takes no more units", where=where, mend=mend)
    if isinstance(error, redis.BusyLoadingError):
        return Unavailable("Redis is still loading its data", where=where, mend="wait for it; nothing is lost")
    if any(word in text.upper() for word in ("CERTIFICATE", "[SSL", "TLSV1", "[X509", "PEM LIB")):
        return _refused_tls(text, url)
    if isinstance(error, redis.ResponseError) and not text.startswith("MISCONF"):
        return Failure(f"Redis refuses a command: {text}", where=where, mend="see `factory doctor`")
    if probe and "refused" not in text:
        found = _wrong_protocol(url) or _refused_certificate(url)
        if found:
            return found
    return Unavailable(f"Redis cannot be reached: {text}", where=where, mend=_ELSEWHERE)


def _refuse(info: dict[str, Any], url: str) -> None:
    where, version = _where(url), str(info["redis_version"])
    if tuple(int(part) for part in version.split(".")[:2]) < LEAST:
        least = ".".join(map(str, LEAST))
        raise Failure(
            f"this Redis is too old: {version}, and {least} is the least",
            where=where,
            mend=f"use Redis {least} or newer (Valkey too), or empty queue.url to use the workspace's own",
        )
    if info.get("redis_mode", "standalone") != "standalone":
        raise Failure(
            f"this Redis runs as a {info['redis_mode']}, which a queue cannot use",
            where=where,
            mend="use a single Redis: the queue is small, and is refilled from the plan if it is lost",
        )
    if info.get("role") == "slave":
        raise Failure(
            "this Redis is a replica: what it is told can vanish",
            where=where,
            mend=f"set queue.url to the one it copies: {info.get('master_host')}:{info.get('master_port')}",
        )
    policy = str(info.get("maxmemory_policy", "noeviction"))
    if int(info.get("maxmemory", 0)) and policy != "noeviction":
        raise Failure(
            f"this Redis may drop queued units when its memory is full (maxmemory-policy {policy})",
            where=where,
            mend="CONFIG SET maxmemory-policy noeviction, and keep it in its configuration file",
        )


def _refused_login(text: str, where: str) -> Failure:
    if "without any password" in text:
        what, mend = "Redis asks for no password, but the URL holds one", "take the password out of queue.url"
    elif "required" in text or "NOAUTH" in text:
        what, mend = "Redis asks for a password, and the URL holds none", "set FACTORY_QUEUE__URL to a URL with it"
    else:
        what, mend = "Redis refuses the user or the password", "set FACTORY_QUEUE__URL to a URL with the right ones"
    return Failure(what, where=where, mend=mend)


def _refused_tls(text: str, url: str) -> FactoryError:
    upper, where, given = text.upper(), _where(url), dict(parse_qsl(urlsplit(url).query))
    if "HOSTNAME MISMATCH" in upper or "IP ADDRESS MISMATCH" in upper:
        host = urlsplit(url).hostname
        return Failure(
            f"the certificate of Redis is not for the name {host}",
            where=where,
            mend="write the name that is in its certificate, or have one made with this name",
        )
    if "CERTIFICATE_VERIFY_FAILED" in upper:
        reason = text.partition("verify failed:")[2].partition("(")[0].strip(" .")
        return Failure(
            f"the certificate of Redis is not trusted: {reason}",
            where=where,
            mend="add ?ssl_ca_certs=/PATH/ca.pem to the URL: the certificate of the authority that signed it",
        )
    if "CERTIFICATE_REQUIRED" in upper or "HANDSHAKE_FAILURE" in upper or "UNKNOWN_CA" in upper:
        has = "does not trust our certificate" if "ssl_certfile" in given else "asks for a certificate of ours"
        mend = "add ssl_certfile=/PATH/client.pem&ssl_keyfile=/PATH/client.key, signed by an authority it trusts"
        return Failure(f"Redis {has}", where=where, mend=mend)
    wrong = _wrong_protocol(url)
    if wrong:
        return wrong
    mend = "check ssl_ca_certs, ssl_certfile and ssl_keyfile: PEM files, and the key that belongs to the certificate"
    return Failure(f"no secure connection to Redis: {text}", where=where, mend=mend)


def _wrong_protocol(url: str) -> Failure | None:
    """Whether the port speaks TLS where the URL does not, or the reverse: asked of the port itself, without a secret."""
    parts = urlsplit(url)
    if parts.scheme not in ("redis", "rediss") or not parts.hostname:
        return None
    address = (parts.hostname, parts.port or 6379)
    try:
        with socket.create_connection(address, PROBE_SECONDS) as plain:
            plain.settimeout(PROBE_SECONDS)
            if parts.scheme == "rediss":
                plain.sendall(b"PING\r\n")
                if plain.recv(1) in (b"+", b"-"):
                    what, mend = "this Redis speaks no TLS on that port", "write redis://, or the port where it does"
                    return Failure(what, where=_where(url), mend=mend)
                return None
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            with context.wrap_socket(plain):
                what, mend = "this Redis speaks TLS on that port", "write rediss:// instead of redis://"
                return Failure(what, where=_where(url), mend=mend)
    except OSError:
        return None


def _refused_certificate(url: str) -> FactoryError | None:
    """What a port says of our certificate: with TLS 1.3 only after the handshake, when redis-py may be writing already."""
    parts = urlsplit(url)
    if parts.scheme != "rediss" or not parts.hostname:
        return None
    given = dict(parse_qsl(parts.query))
    try:
        context = ssl.create_default_context(cafile=given.get("ssl_ca_certs"))
        if "ssl_certfile" in given:
            context.load_cert_chain(given["ssl_certfile"], given.get("ssl_keyfile"), given.get("ssl_password"))
        with (
            socket.create_connection((parts.hostname, parts.port or 6379), PROBE_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=parts.hostname) as secure,
        ):
            secure.recv(1)
    except ssl.SSLError as error:
        return _refused_tls(_words(error), url)
    except OSError:
        return None
    return None


def _check_files(url: str) -> None:
    """Raises `UsageError` for a certificate or key of the URL that cannot be read: TLS would name no file."""
    for name, path in parse_qsl(urlsplit(url).query):
        if name in _FILES and not os.access(path, os.R_OK):
            raise UsageError(
                f"{name} of queue.url cannot be read",
                where=path,
                mend="give the absolute path of a PEM file that this user can read",
            )


def _words(error: Exception) -> str:
    """What went wrong, in the operating system's words where it has some."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def _where(url: str) -> str:
    return f"queue.url = {redacted(url)}" if url else "the workspace's own Redis"
