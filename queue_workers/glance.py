"""A look at the queue that wakes nothing: how deep it is, without starting a Redis only to ask.

Guarantees: the workspace's own Redis is asked if it runs; if it was stopped in order, what it held then is told, which is
what it will hold when it is started again; if it was killed, the answer is that nobody knows. Nothing is written by
looking. A Redis elsewhere (`queue.url`) is simply asked.
Cost: a few ms, and the import of RQ (0.1 s) if a Redis answers; no import and one small file if none runs.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from pydantic import Field, ValidationError

from foundation.errors import Failure
from foundation.records import Contract
from foundation.store import replace_file

if TYPE_CHECKING:
    from redis import Redis

    from foundation.workspace import Workspace

FILE = "queue.json"  # in the workspace's run/, from an orderly stop of its Redis to its next start


class Glance(Contract):
    """The queue at a moment. `running`: a Redis answered just now; `known`: the counts mean something; `failed`: units set
    aside, by prompt type; `error`: why a Redis that should answer does not."""

    time: float
    running: bool = False
    known: bool = True
    high: int = 0
    normal: int = 0
    low: int = 0
    in_flight: int = 0
    paused: bool = False
    failed: dict[str, int] = Field(default_factory=dict)
    error: str = ""


def glance(workspace: Workspace) -> Glance:
    """The queue now, or as it was put to sleep."""
    if workspace.settings.queue.url.get_secret_value():
        return _elsewhere(workspace)
    if workspace.socket("redis.sock").exists():
        awake = _own(workspace)
        if awake:
            return awake
    with contextlib.suppress(OSError, ValidationError):
        return Glance.model_validate_json((workspace.run / FILE).read_bytes())
    return Glance(time=time.time(), known=False)


def remember(workspace: Workspace, client: Redis) -> None:
    """Keep what the queue holds, for as long as no Redis runs. The caller stops it next, and nobody else uses it."""
    try:
        seen = _ask(workspace, client).model_copy(update={"running": False})
        replace_file(workspace.run / FILE, seen.model_dump_json().encode())
    except (Failure, OSError):  # not worth the stop: then nobody knows
        forget(workspace)


def forget(workspace: Workspace) -> None:
    """Drop what was kept. The caller starts a Redis next."""
    with contextlib.suppress(OSError):
        (workspace.run / FILE).unlink()


def _own(workspace: Workspace) -> Glance | None:
    """The workspace's own Redis, asked; None if nobody listens: it was stopped meanwhile, or killed and left its socket."""
    from redis.exceptions import BusyLoadingError, ConnectionError

    from queue_workers.redis_client import clear_errors, connect

    try:
        with connect(workspace) as client, clear_errors(""):
            try:
                client.ping()
            except BusyLoadingError:
                raise
            except ConnectionError:
                return None
            return _ask(workspace, client)
    except Failure as failure:
        return Glance(time=time.time(), known=False, error=str(failure))


def _elsewhere(workspace: Workspace) -> Glance:
    from queue_workers.redis_client import clear_errors
    from queue_workers.redis_server import redis_connection

    try:
        with redis_connection(workspace) as client, clear_errors(workspace.settings.queue.url.get_secret_value()):
            return _ask(workspace, client)
    except Failure as failure:  # its text has no password in it
        return Glance(time=time.time(), known=False, error=str(failure))


def _ask(workspace: Workspace, client: Redis) -> Glance:
    from queue_workers.plan import QUEUE, queue_name
    from queue_workers.rq_queue import RqQueue

    if not workspace.store.exists(QUEUE):  # nothing was ever queued
        return Glance(time=time.time(), running=True)
    queue = RqQueue(client, queue_name(workspace.store), workspace.settings.queue)
    depth = queue.depth()
    failed: dict[str, int] = {}
    for row in queue.failures():
        failed[row.unit.prompt_type] = failed.get(row.unit.prompt_type, 0) + 1
    return Glance(
        time=time.time(),
        running=True,
        high=depth.high,
        normal=depth.normal,
        low=depth.low,
        in_flight=depth.in_flight,
        paused=depth.paused,
        failed=failed,
    )
