"""What needs no grader: an answer that says nothing fails by rule, and a question without a reference cannot be scored.

Guarantees: the same for every grader, before any model is asked; the reference itself, and what holds more than the
question or an opener, never fails here, nor does an opener or a label that the reference or an option has too ("Analysis.",
"Answer: First"). Cost: about 0.2 ms for an answer of 100 words. Misses: an echo with words changed, and openers that are
not listed; both are left to the grader.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from foundation import words
from foundation.facts import read
from foundation.looping import looping
from judge import choices
from judge.outcome import Outcome

if TYPE_CHECKING:
    from foundation.records import Answer, EvalItem

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
    rf"[^\w<]*(?:(?P<tag>{_TAG})|(?:(?P<strong>{'|'.join((*_STRONG, _GREAT))})|(?P<weak>{'|'.join(_WEAK)}))(?![^\W_]))",
    re.IGNORECASE,
)
_ECHO_BEFORE = ("q", "question", "user", "the question", "the question is", "your question")
_FIXED = re.compile(r"\b(?:true or false|yes or no|right or wrong)\b", re.IGNORECASE)
_AFFIRMED = re.compile(r"\W*(?:yes|true|right|correct)\b", re.IGNORECASE)
# "A" is a label only with its colon: alone it is what "team ____" asks for.
_LABEL_END = re.compile(r"[:：][\W_]*$")
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
    if _echoes(text, answer.item):
        return Outcome("FAIL", "echo", "The answer is the question.")
    if opens_only(text) and not _may_answer(text, answer.item):
        return Outcome("FAIL", "opener", f"The answer opens and says no more: {text[:80]!r}.")
    loop = looping(text)
    if loop and not looping(answer.item.reference):
        return Outcome("FAIL", "looping", f"The answer repeats itself: {loop!r}.")
    return None


def _spoken(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.casefold())


def _echoes(text: str, item: EvalItem) -> bool:
    """Whether the words are the question's, said once or more, with at most a label before it and an empty answer behind.

    A label that the reference holds, or a last "A" without a colon, may be the answer itself: then it is no echo.
    """
    left = " ".join(_spoken(text))
    asked = " ".join(_spoken(item.question))
    if not asked or asked not in left:
        return False
    before, *rest = (part.strip() for part in left.split(asked))
    if not (before in ("", *_ECHO_BEFORE) and all(part in (*_ECHO_AFTER, *_ECHO_BEFORE) for part in rest)):
        return False
    if rest[-1] == "a" and not _LABEL_END.search(text):
        return False
    labels = {word for part in (before, *rest) for word in part.split()} - {"a", "the", "is", "your"}
    return not labels & set(_spoken(item.reference)) or bool(rest[-1] and _LABEL_END.search(text))


def opens_only(text: str) -> bool:
    """Whether `text` is made of a model's openers ("Thought process:", "Sure! Here is the answer:") and nothing else."""
    units = _units(text)
    strong = any(unit["strong"] or unit["tag"] for unit in units)
    return strong and not any(char.isalnum() for char in text[units[-1].end() :])


def _may_answer(text: str, item: EvalItem) -> bool:
    """Whether openers may be the answer here: "Analysis." or "Answer: First" to a question whose reference says so.

    What ends in a colon is none. A strong opener must stand in the reference, or among the question's options, with all
    its words; one word of a weak one will do, and any weak one affirms what the reference affirms.
    """
    if _LABEL_END.search(text):
        return False
    fixed = _FIXED.findall(item.question)
    given = set[str]().union(*map(_forms, (item.reference, *choices.texts_of(item.question)[0], *fixed)))
    weak = ""
    for found in _units(text):
        own = _forms(found.group()) - words.FUNCTION - {"step"}
        if found["strong"] and own and own <= given:
            return True
        weak = found.group() if found["weak"] else ""
        if found["weak"] and own & given:
            return True
    return bool(weak and _AFFIRMED.match(item.reference))


def _forms(text: str) -> set[str]:
    """The words of `text`, numbers in their figures: "first" and "1st" are one."""
    forms = {token.form for token in read(text).tokens}
    return {str(words.ORDINALS[form]) if form in words.ORDINALS else form for form in forms}


def _units(text: str) -> list[re.Match[str]]:
    """The openers that `text` begins with, one after the other."""
    text = text.replace("’", "'")
    found: list[re.Match[str]] = []
    while unit := _UNIT.match(text, found[-1].end() if found else 0):
        found.append(unit)
    return found
