"""A grader's reply to an outcome. Only generated text is read, and only its last verdict-shaped line decides.

Guarantees: what cannot be read is UNSCORED, never a FAIL and never a PASS. Thinking is not a verdict: with thinking that
never ended there is none. Cost: about 10 µs a reply.
"""

from __future__ import annotations

import re

from foundation.records import ChatReply
from judge.outcome import Outcome

EXPLANATION = 2000  # characters that are kept

_SHAPE = re.compile(
    r"^[\W_]*(?:(?:my|the|final|overall)\s+)*verdict\b[\W_]*?[:：=\-–—](.*)$", re.IGNORECASE | re.MULTILINE
)
_WORD = re.compile(r"[\s*_`\"'“”‘’.!()\[\]#>-]*(PASS|FAIL)(?:ED)?[\s*_`\"'“”‘’.!()\[\]#-]*", re.IGNORECASE)
_THOUGHT_ENDS = "</think>"
_THOUGHT_BEGINS = "<think>"


def parse(text: str) -> Outcome:
    """PASS or FAIL with the explanation before it, or UNSCORED(parse)."""
    thought, closed, rest = text.rpartition(_THOUGHT_ENDS)
    said = rest if closed else text
    if _THOUGHT_BEGINS in said:
        return Outcome("UNSCORED", "parse", "The grader did not stop thinking.")
    lines = list(_SHAPE.finditer(said))
    if not lines:
        return Outcome("UNSCORED", "parse", f"The grader gave no verdict. It wrote: {_shortened(said or thought)}")
    last = lines[-1]
    word = _WORD.fullmatch(last[1])
    if word is None:
        return Outcome("UNSCORED", "parse", f"The grader's verdict cannot be read: {_shortened(last[0])}")
    explanation = _shortened(said[: last.start()]) or _shortened(thought.replace(_THOUGHT_BEGINS, ""))
    return Outcome("PASS" if word[1].upper() == "PASS" else "FAIL", "", explanation)


def outcome(reply: ChatReply) -> Outcome:
    """The outcome of a reply that will not be asked for again."""
    if reply.finish == "length":
        if reply.detail not in ("", "length"):  # a server's filter, for one
            return Outcome("UNSCORED", "refusal", f"The grader's reply was ended by its server: {reply.detail}")
        return Outcome(
            "UNSCORED", "length", f"The grader's reply was cut off twice. It ends: {reply.text[-300:].strip()}"
        )
    if reply.finish != "stop":
        return Outcome("UNSCORED", "engine", f"The grader gave no reply: {reply.detail or reply.finish}")
    return parse(reply.text)


def _shortened(text: str) -> str:
    text = text.strip()
    return text if len(text) <= EXPLANATION else text[: EXPLANATION - 1].rstrip() + "…"
