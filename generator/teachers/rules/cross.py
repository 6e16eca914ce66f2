"""The `cross` family: two passages beside each other."""

from __future__ import annotations

from collections.abc import Callable

from generator.teachers.rules.statements import Fields
from generator.teachers.rules.task import Task

MAKERS: dict[str, Callable[[Task], Fields]] = {}
