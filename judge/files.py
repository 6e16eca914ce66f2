"""The files of a judging: answers in, verdicts and a summary out.

Guarantees: a file that is not what it should be is refused by name, line and field. Cost: about 15 µs a line.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from foundation.console import plain
from foundation.errors import UsageError
from foundation.records import Answer, Contract, EvalItem, Verdict

Row = TypeVar("Row", bound=Contract)


@dataclass(frozen=True)
class Files:
    """What a run writes, all named after `out`. `shuffled`: verdicts on answers to other questions, the baseline.
    `canaries`: answers of known worth, with their verdicts."""

    out: Path

    @property
    def shuffled(self) -> Path:
        return self.out.with_name(f"{self.out.name}.shuffled.jsonl")

    @property
    def canaries(self) -> Path:
        return self.out.with_name(f"{self.out.name}.canaries.jsonl")

    @property
    def summary(self) -> Path:
        return self.out.with_name(f"{self.out.name}.summary.json")

    @property
    def lock(self) -> Path:
        """There only while a judge writes the others."""
        return self.out.with_name(f"{self.out.name}.lock")


def read_answers(path: Path) -> tuple[list[Answer], str]:
    """The answers of a JSONL file and its SHA-256. Raises `UsageError` that names file, line and field.

    One question may have several answers; a row that stands twice would count twice, and is refused, as are two questions
    under one id.
    """
    data = _content(path, "answers", "make one with `trainer answer --out FILE`")
    answers = _rows(data, path, Answer, "answer", "write the file again with `trainer answer`")
    if not answers:
        raise UsageError(
            "the file holds no answer", where=str(path), mend="is the split empty? `trainer answer` says so"
        )
    _check_items(answers, path)
    return answers, hashlib.sha256(data).hexdigest()


def read_verdicts(path: Path) -> list[Verdict]:
    """The verdicts of a JSONL file. Raises `UsageError` that names file, line and field."""
    data = _content(path, "verdicts", "make one with `judge run --out FILE`")
    return _rows(data, path, Verdict, "verdict", "write the file again with `judge run`")


def read_summary(out: Path) -> dict[str, Any]:
    """The summary beside the verdicts `out`. Raises `UsageError` if there is none that can be read."""
    path = Files(out).summary
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UsageError(
            "these verdicts have no summary beside them",
            where=str(path),
            mend="run `judge run` again: it ends with one",
        ) from error
    if not isinstance(found, dict):
        raise UsageError("this is no summary of a judging", where=str(path), mend="run `judge run` again")
    return found


def _content(path: Path, what: str, mend: str) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise UsageError(f"there is no such file of {what}", where=str(path), mend=mend) from error


def _check_items(answers: Sequence[Answer], path: Path) -> None:
    """What is known of a question by its id must be one thing: votes, canaries and reports go by it."""
    first: dict[str, EvalItem] = {}
    for answer in answers:
        item = answer.item
        known = first.setdefault(item.id, item)
        if known is item or known == item:
            continue
        fields = (name for name in EvalItem.model_fields if name != "siblings")
        other = next((name for name in fields if getattr(known, name) != getattr(item, name)), "")
        if other:
            raise UsageError(
                f"the item {plain(item.id)} stands here twice with two values of {other}",
                where=str(path),
                mend="these are answers of two states of the data: write them again with `trainer answer`",
            )
    seen: dict[tuple[str, str, str], int] = {}
    for number, answer in enumerate(answers, 1):
        before = seen.setdefault((answer.item.id, answer.text, answer.checkpoint), number)
        if before != number:
            raise UsageError(
                f"one answer stands here twice, as number {before:,} and {number:,}: it would count twice",
                where=str(path),
                mend="leave one of them out, or write the file again with `trainer answer`",
            )


def _rows(data: bytes, path: Path, kind: type[Row], what: str, mend: str) -> list[Row]:
    rows = []
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip():
            continue
        try:
            rows.append(kind.model_validate_json(line))
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            said = f"field {field}: {first['msg']}" if field else first["msg"]
            raise UsageError(f"this line is no {what}: {said}", where=f"{path}:{number}", mend=mend) from error
    return rows
