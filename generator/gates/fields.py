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


def check_options(prompt_type: PromptType, fields: Mapping[str, Any]) -> GateResult:
    """Reject options that are the same or of which one stands inside another: their order would not matter, or mislead."""
    if prompt_type.options is None:
        return GateResult.accept()
    words = {name: f" {' '.join(_WORD.findall(fields[name].casefold()))} " for name in prompt_type.options.fields}
    for (_, one), (name, other) in combinations(words.items(), 2):
        if one == other:
            return GateResult.reject("options", "the same option twice", name)
        if one in other or other in one:
            return GateResult.reject("options", "one option inside another", name)
    return GateResult.accept()


def check_blank(fields: Mapping[str, Any]) -> GateResult:
    """Reject unless exactly one field has the blank `____` (four underscores), and has it once."""
    blanks = [(name, found) for name, value in fields.items() if isinstance(value, str) for found in _BLANKS.findall(value)]
    if len(blanks) != 1:
        return GateResult.reject("blank", f"{len(blanks)} blanks where one is wanted", blanks[-1][0] if blanks else "")
    name, found = blanks[0]
    return GateResult.accept() if found == BLANK else GateResult.reject("blank", "the blank is not four underscores", name)


CHECKS: dict[str, Callable[[Mapping[str, Any]], GateResult]] = {"blank": check_blank}
"""What a prompt type may name under `checks`."""
