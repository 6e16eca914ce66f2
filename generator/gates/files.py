"""The gates over any file: JSON lines with text in any field, or plain lines.

Guarantees: one result a line, in order, blank lines included; the same code that judges a teacher's fields. A line that
begins with `{` and is not JSON is wrong input, not a reject. Cost: streams; one line is in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import orjson

from foundation.errors import UsageError
from foundation.records import GateResult
from generator.gates.chain import Gates


def check_lines(lines: Iterable[bytes], name: str, gates: Gates) -> Iterator[GateResult]:
    """A result for each line of a file called `name`. Raises `UsageError` naming file and line for one it cannot read."""
    for number, line in enumerate(lines, 1):
        where = f"{name}:{number}"
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise UsageError(
                f"this line is not UTF-8: {error.reason}", where=where, mend="save the file as UTF-8"
            ) from error
        if not text.strip():
            yield GateResult.reject("schema", "empty", "an empty line")
        elif text.lstrip().startswith("{"):
            yield _check_json(text, where, gates)
        else:
            yield gates.check_fields({"text": text})


def _check_json(text: str, where: str, gates: Gates) -> GateResult:
    try:
        values = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise UsageError(
            f"this line is not JSON: {error}", where=where, mend="one JSON object a line, or plain text"
        ) from error
    if not gates.has_text(values):
        raise UsageError(
            "this line has no text in it", where=where, mend='give it a field that is a string, such as {"text": "..."}'
        )
    return gates.check_fields(values)
