"""The chain of gates, in its one order; `factory check` and the pipeline run the same code.

Order: finish reason -> JSON and schema -> CJK -> lingua -> options -> the checks the prompt type names.
Guarantees: the first gate that refuses gives its name, a reason and the field; nothing is edited; every field is looked
at raw, and so is a passage that the record shows.
Cost: a few µs, and 0.45 µs of lingua for each character of each field. Verdicts on passages are remembered.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

from foundation.prompt_type import PromptType
from foundation.records import ChatReply, GateResult, Snippet
from generator.gates.cjk import check_cjk
from generator.gates.fields import CHECKS, check_options
from generator.gates.language import LanguageGate, has_letters
from generator.gates.schema import check_finish, parse_fields


class Gates:
    """One per process. Call `warm()` before a fork, so that children share the loaded detector."""

    def __init__(self) -> None:
        self._language = LanguageGate()
        # One snippet is judged once for all the prompt types that show it.
        self._check_source = functools.lru_cache(maxsize=4096)(self._check_text)

    def warm(self) -> None:
        """Load what is loaded lazily."""
        self._language.warm()

    def check_reply(self, prompt_type: PromptType, reply: ChatReply) -> tuple[GateResult, dict[str, Any]]:
        """Judge one reply. The fields are empty if it was rejected before they could be read."""
        result = check_finish(reply)
        if not result.ok:
            return result, {}
        result, fields = parse_fields(prompt_type, reply.text)
        if result.ok:
            result = self.check_fields(fields)
        if result.ok:
            result = check_options(prompt_type, fields)
        for name in prompt_type.checks:
            if result.ok:
                result = CHECKS[name](fields)
        return result, fields

    def check_fields(self, fields: Mapping[str, Any]) -> GateResult:
        """CJK and language over every string in `fields`, at any depth; values that are not text are passed over.

        A text without letters has no language: it is judged together with its record, all texts joined.
        """
        texts = list(_texts(fields, ""))
        for name, text in texts:
            result = check_cjk(text, name)
            if not result.ok:
                return result
        bare = ""
        for name, text in texts:
            if not has_letters(text):
                bare = bare or name
                continue
            result = self._language.check(text, name)
            if not result.ok:
                return result
        if bare or not texts:
            return self._language.check("\n".join(text for _, text in texts), bare)
        return GateResult.accept()

    @staticmethod
    def has_text(fields: Mapping[str, Any]) -> bool:
        """Whether `check_fields` would find any string to judge."""
        return next(_texts(fields, ""), None) is not None

    def check_source(self, snippet: Snippet) -> GateResult:
        """Judge the passage of a record that shows it. It was checked at ingest; this makes it sure."""
        return self._check_source(snippet.text, "passage")

    def _check_text(self, text: str, field: str) -> GateResult:
        return self.check_fields({field: text})


def _texts(value: Any, name: str) -> Iterator[tuple[str, str]]:
    """Every string in a JSON value, with its path: `facts[2]`, `messages[0].content`."""
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, Mapping):
        for key, entry in value.items():
            yield from _texts(entry, f"{name}.{key}" if name else str(key))
    elif isinstance(value, (list, tuple)):
        for number, entry in enumerate(value):
            yield from _texts(entry, f"{name}[{number}]")
