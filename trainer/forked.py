"""Tasks over forked processes: what came of them, in order, whoever did which.

Guarantees: each task is done once; results come in the order of the tasks, and of several that failed the first one's error
is raised here; a process that dies is an error, never a wait; none outlives this one, however it ends. With one process
nothing is forked. Cost: some 5 ms and 3 MB a process; each takes the next task when it is free, by a pipe they share.
"""

from __future__ import annotations

import gc
import os
import signal
import struct
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol, TypeVar

from foundation.errors import FactoryError, Failure
from foundation.processes import die_with_parent

Result = TypeVar("Result", covariant=True)
NEXT = struct.Struct("<I")
MOST = 8_000  # tasks: their numbers wait in one pipe, which holds 64 KB


class Worker(Protocol[Result]):
    """What one process does: any number of tasks, then `finish`."""

    def do(self, task: int) -> Result: ...
    def finish(self) -> None: ...


def in_order(tasks: int, make: Callable[[int], Worker[Result]], processes: int) -> Iterator[Result]:
    """The result of each task from 0 on, by workers that `make` makes of their number. At most `MOST` tasks."""
    if processes < 2 or tasks < 2:
        worker = make(0)
        for task in range(tasks):
            yield worker.do(task)
        worker.finish()
        return
    if tasks > MOST:
        raise ValueError(f"{tasks} tasks are more than {MOST}")
    queue, feed = os.pipe()
    os.write(feed, b"".join(map(NEXT.pack, range(tasks))))
    os.close(feed)
    children, pipes = [], []
    context = get_context("fork")
    try:
        for number in range(processes):
            mine, its = context.Pipe(duplex=False)
            child = context.Process(target=_child, args=(its, os.getpid(), queue, make, number), daemon=True)
            child.start()
            its.close()
            pipes.append(mine)
            children.append(child)
        yield from _collected(tasks, pipes)
    finally:
        os.close(queue)
        for child in children:
            child.terminate()
            child.join()
        for pipe in pipes:
            pipe.close()


def _collected(tasks: int, pipes: list[Connection]) -> Iterator[Any]:
    waiting: dict[int, Any] = {}
    next_, running = 0, list(pipes)
    while running:
        ready: list[Any] = wait(running)
        for pipe in ready:
            try:
                task, found = pipe.recv()
            except (EOFError, OSError):
                raise Failure(
                    "a process that took part died", mend="see whether memory ran out; then give the same command again"
                ) from None
            if task is None:  # it has finished
                running.remove(pipe)
            else:
                waiting[task] = found
        while next_ in waiting:
            found = waiting.pop(next_)
            if isinstance(found, _Broke):
                raise found.error
            next_ += 1
            yield found
    if waiting:  # what failed is the end of a process
        raise waiting[min(waiting)].error


class _Broke:
    """What a process could not go on with, in a form that survives pickling: an error of ours would lose its parts."""

    def __init__(self, error: Exception) -> None:
        self.ours = (type(error), error.what, error.where, error.mend) if isinstance(error, FactoryError) else None
        self.system = (error.errno, error.strerror, error.filename) if isinstance(error, OSError) else None
        self.text = f"{type(error).__name__}: {error}"

    @property
    def error(self) -> Exception:
        if self.ours:
            kind, what, where, mend = self.ours
            return kind(what, where=where, mend=mend)
        return OSError(*self.system) if self.system else RuntimeError(self.text)


def _child(pipe: Connection, parent: int, queue: int, make: Callable[[int], Worker[Any]], number: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's affair: it ends us
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    die_with_parent(signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)  # it died before we could ask to die with it
    gc.disable()  # records are made and dropped by the thousand, and none is in a cycle
    task = MOST  # of an error that belongs to no task
    try:
        worker = make(number)
        while data := os.read(queue, NEXT.size):
            (task,) = NEXT.unpack(data)
            pipe.send((task, worker.do(task)))
        task = MOST
        worker.finish()
    except MemoryError:
        os._exit(1)  # the parent says what that means
    except Exception as error:
        pipe.send((task, _Broke(error)))
    pipe.send((None, None))
