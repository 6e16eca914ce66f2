"""Imports run one way between the rooms; only a cli.py may look across (docs/design.md)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
MAY_IMPORT = {
    "foundation": set(),
    "generator": {"foundation"},
    "queue_workers": {"foundation", "generator"},
    "trainer": {"foundation"},
    "judge": {"foundation"},
}


def _imported_rooms(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names & MAY_IMPORT.keys()


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_imports_run_one_way(room: str) -> None:
    files = [path for path in (REPOSITORY / room).rglob("*.py") if path.name != "cli.py"]
    assert files
    across = {str(path.relative_to(REPOSITORY)): _imported_rooms(path) - MAY_IMPORT[room] - {room} for path in files}
    assert {path: rooms for path, rooms in across.items() if rooms} == {}
