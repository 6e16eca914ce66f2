"""What the queue's commands share. Cost: nothing heavy is imported until a command runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from foundation.workspace import Workspace
    from queue_workers.rq_queue import RqQueue

JSON = typer.Option(False, "--json", help="Print one JSON document.")


def listed(names: list[str]) -> str:
    """Some prompt types, or how many they are."""
    return ", ".join(names) if len(names) <= 4 else f"{len(names)} prompt types"


@contextmanager
def open_queue(workspace: Workspace) -> Iterator[RqQueue]:
    """The workspace's queue, and its Redis for as long."""
    from queue_workers.plan import queue_name
    from queue_workers.redis_server import redis_connection
    from queue_workers.rq_queue import RqQueue

    with redis_connection(workspace) as redis:
        yield RqQueue(redis, queue_name(workspace.store), workspace.settings.queue)
