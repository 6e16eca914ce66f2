"""The gates over any file: records, JSON lines with text in any field, or plain lines.

Guarantees: one result a line, in order, blank lines included; the same code that judges a teacher's fields. A line that is a
record is judged as one: its questions must stand alone, and be asked once in the file's unit. What an answer may name is
known when it is made, and not here. A line that
begins with `{` and is not JSON is wrong input, not a reject. Cost: streams; one line is in memory.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

import orjson
from pydantic import ValidationError

from foundation.errors import UsageError
from foundation.prompt_type import PromptType
from foundation.records import GateResult, Record
from generator.gates.chain import Gates
from generator.gates.duplicate import Duplicates


def check_lines(
    lines: Iterable[bytes], name: str, gates: Gates, catalogue: Mapping[str, PromptType]
) -> Iterator[GateResult]:
    """A result for each line of a file called `name`. Raises `UsageError` naming file and line for one it cannot read."""
    units: defaultdict[tuple[str, str], Duplicates] = defaultdict(Duplicates)
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
            try:
                yield _check_json(text, where, gates, catalogue, units)
            except RecursionError:
                yield GateResult.reject("schema", "nested", "nested deeper than any record")
        else:
            yield gates.check_fields({"text": text})


def _check_json(
    text: str,
    where: str,
    gates: Gates,
    catalogue: Mapping[str, PromptType],
    units: Mapping[tuple[str, str], Duplicates],
) -> GateResult:
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
    try:
        record = Record.model_validate(values)
    except ValidationError:
        return gates.check_fields(values)
    result = gates.check_messages(record, catalogue.get(record.prompt_type))
    if result.ok:
        asked = "\n".join(message.content for message in record.messages if message.role == "user")
        result = units[record.unit, record.ordering].check(asked, "messages")
    return result
