"""Fixtures of the fault tests."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from foundation.workspace import Workspace
from tests.support.faults import clear, make_workspace, workspaces

Recovery = Callable[[str], AbstractContextManager[None]]


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    """Fifteen blocks of four snippets planned for four prompt types: 60 units; leases and heartbeats are short."""
    made = make_workspace(tmp_path / "w", blocks=15)
    yield made
    clear(made)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Workspace]]:
    """Makes workspaces of other shapes: see `workspaces`."""
    with workspaces(tmp_path) as make_one:
        yield make_one


@pytest.fixture
def recovery(request: pytest.FixtureRequest) -> Recovery:
    """`with recovery("the fault"): ...` times what follows the fault until work goes on; it is printed, never asserted."""

    @contextmanager
    def timed(fault: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        seconds = time.monotonic() - began
        print(f"recovered from {fault} in {seconds:.2f} s")
        request.node.user_properties.append(("recovery", (fault, seconds)))

    return timed
