"""Gates over several fields of one reply: options that can be swapped cleanly, and the checks a prompt type names.

Guarantees: pure functions of the fields; compares without regard to case and punctuation. Cost: a few µs a reply.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from itertools import combinations
from typing import Any

from foundation.prompt_type import PromptType
from foundation.records import GateResult

BLANK = "____"
_BLANKS = re.compile(r"_+")
_WORD = re.compile(r"\w+")


def plain_words(text: str) -> str:
    """A text as its words, lower case, one space around each."""
    return f" {' '.join(_WORD.findall(text.casefold()))} "


def clash(one: str, other: str) -> bool:
    """Whether two options are the same, or one stands inside the other, word by word."""
    first, second = plain_words(one), plain_words(other)
    return first in second or second in first


def check_options(prompt_type: PromptType, fields: Mapping[str, Any]) -> GateResult:
    """Reject options that are the same or of which one stands inside another: their order would not matter, or mislead."""
    if prompt_type.options is None:
        return GateResult.accept()
    for one, other in combinations(prompt_type.options.fields, 2):
        if plain_words(fields[one]) == plain_words(fields[other]):
            return GateResult.reject("options", "the same option twice", other)
        if clash(fields[one], fields[other]):
            return GateResult.reject("options", "one option inside another", other)
    return GateResult.accept()


def check_blank(fields: Mapping[str, Any]) -> GateResult:
    """Reject unless exactly one field has the blank `____` (four underscores), and has it once."""
    blanks = [
        (name, found) for name, value in fields.items() if isinstance(value, str) for found in _BLANKS.findall(value)
    ]
    if len(blanks) != 1:
        return GateResult.reject("blank", f"{len(blanks)} blanks where one is wanted", blanks[-1][0] if blanks else "")
    name, found = blanks[0]
    return (
        GateResult.accept() if found == BLANK else GateResult.reject("blank", "the blank is not four underscores", name)
    )


CHECKS: dict[str, Callable[[Mapping[str, Any]], GateResult]] = {"blank": check_blank}
"""What a prompt type may name under `checks`."""
