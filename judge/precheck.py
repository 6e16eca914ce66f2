"""What needs no grader: an answer that says nothing fails by rule, and a question without a reference cannot be scored.

Guarantees: the same for every grader, before any model is asked; the reference itself, and what holds more than the
question or an opener, never fails here. Cost: about 0.1 ms for an answer of 100 words. Misses: an echo with words changed,
and openers that are not listed; both are left to the grader.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from foundation.looping import looping
from judge.outcome import Outcome

if TYPE_CHECKING:
    from foundation.records import Answer

# What a model writes before it answers. `_STRONG` says nothing by itself; `_WEAK` may stand beside it, but can be an
# answer alone ("Certainly." to "Did they?").
_THINK = r"think(?:ing)?(?: (?:about|through|on) (?:it|this|that|the question|this question))?"
_HOW = r"(?:,? ?(?:step[ -]by[ -]step|carefully|first|out loud|for a moment))*"
_STRONG = (
    r"step \d+(?=\W*$)",
    r"(?:the |my )?(?:thought|thinking|reasoning) process",
    r"(?:thoughts?|thinking|reasoning|analysis|explanation|response|assistant|answer|final answer|solution)(?=\W*(?:[:*>]|$))",
    r"(?:let me|let us|let's|i will|i'll|i need to|i should|i have to|we need to) " + _THINK + _HOW,
    r"(?:let me|let us|let's|i will|i'll) (?:answer|see|start|begin|break (?:it|this|that) down|work (?:it|this|that) out)"
    r"(?: (?:it|this|that|the question|this question))?" + _HOW,
    r"step[ -]by[ -]step",
    r"(?:ok|okay|alright|all right|well|right),? (?:so|then|let's see|let me see)",
    r"(?:so|now|first),? (?=let)",
    r"(?:here is|here's|here are|this is|below is) (?:the|my|an|your) (?:final |short |correct )?(?:answer|response|explanation)s?"
    r"(?: (?:to|for) (?:the|your|this) question)?",
    r"(?:the |my )(?:final |correct )?(?:answer|response)(?: (?:is|would be))?",
    r"to answer (?:the|your|this) question",
    r"h+m+",
)
_WEAK = (
    r"sure(?: thing)?",
    r"certainly",
    r"of course",
    r"absolutely",
    r"ok|okay|alright|well|so|right",
    r"first(?:ly)?",
)
_GREAT = r"(?:that is an?|that's an?|what an?)? ?(?:great|good|excellent|interesting) question"
_TAG = r"<[/|]*[a-z_]+[/|]*>"
_UNIT = re.compile(
    rf"[^\w<]*(?:(?P<tag>{_TAG})|(?:(?P<strong>{'|'.join((*_STRONG, _GREAT))})|(?:{'|'.join(_WEAK)}))(?![^\W_]))",
    re.IGNORECASE,
)
_ECHO_BEFORE = ("q", "question", "user", "the question", "the question is", "your question")
_ECHO_AFTER = ("", "a", "answer", "the answer", "the answer is", "assistant", "response")


def precheck(answer: Answer) -> Outcome | None:
    """The outcome that needs no grader, or None."""
    if not any(char.isalnum() for char in answer.item.reference):
        return Outcome("UNSCORED", "reference", "The reference answer is empty: there is nothing to compare with.")
    text = answer.text.strip()
    if not text:
        return Outcome("FAIL", "empty", "The answer is empty.")
    if not any(char.isalnum() for char in text):
        return Outcome("FAIL", "punctuation", "The answer holds no letter and no digit.")
    spoken = _spoken(text)
    if spoken == _spoken(answer.item.reference):
        return None  # whatever it looks like, it is the right answer
    if _echoes(spoken, _spoken(answer.item.question)):
        return Outcome("FAIL", "echo", "The answer is the question.")
    if opens_only(text):
        return Outcome("FAIL", "opener", f"The answer opens and says no more: {text[:80]!r}.")
    loop = looping(text)
    if loop:
        return Outcome("FAIL", "looping", f"The answer repeats itself: {loop!r}.")
    return None


def _spoken(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.casefold())


def _echoes(spoken: list[str], question: list[str]) -> bool:
    """Whether the words are the question's, said once or more, with at most a label before it and an empty answer behind."""
    left = " ".join(spoken)
    asked = " ".join(question)
    if not asked or asked not in left:
        return False
    before, *rest = left.split(asked)
    return before.strip() in ("", *_ECHO_BEFORE) and all(part.strip() in (*_ECHO_AFTER, *_ECHO_BEFORE) for part in rest)


def opens_only(text: str) -> bool:
    """Whether `text` is made of a model's openers ("Thought process:", "Sure! Here is the answer:") and nothing else."""
    text = text.replace("’", "'")
    at, strong = 0, False
    while found := _UNIT.match(text, at):
        at, strong = found.end(), strong or bool(found["strong"] or found["tag"])
    return strong and not any(char.isalnum() for char in text[at:])
