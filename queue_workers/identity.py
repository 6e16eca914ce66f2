"""Who a worker is, so that another process on this host can tell that it died.

Guarantees: a pid alone is never trusted: it counts with the host, the pid namespace and the time the process began, so
a reused pid or a container with the same host name is not mistaken. Cost: one small file of /proc a question. Linux.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path


def began(pid: int) -> str:
    """When a process began, in the kernel's ticks since boot; empty if it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def alive(pid: int, beginning: str) -> bool:
    """Whether the process that began then still runs."""
    return beginning != "" and began(pid) == beginning


def _host() -> str:
    return f"{socket.gethostname()}/{os.stat('/proc/self/ns/pid').st_ino}"


def worker_name(queue: str) -> str:
    """This process as a worker of `queue`: `QUEUE:HOST/NAMESPACE:PID:BEGINNING`."""
    return f"{queue}:{_host()}:{os.getpid()}:{began(os.getpid())}"


def died_here(name: str) -> bool:
    """Whether `name` is a worker of this host that runs no more. False for one on another host: only its silence tells."""
    parts = name.rsplit(":", 3)
    if len(parts) != 4 or parts[1] != _host() or not parts[2].isdigit():
        return False
    return not alive(int(parts[2]), parts[3])
