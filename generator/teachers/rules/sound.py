"""Whether a question or a statement can be understood and answered by itself: checks that several families share.

Guarantees: only declines: "the town" that an earlier sentence named, a second clause that ran into the question, a
question cut before what it needs, a time that belongs to something else in it. Cost: a few regular expressions.
"""

from __future__ import annotations

import re

from generator.teachers.rules import words
from generator.teachers.rules.reading import Sentence
from generator.teachers.rules.statements import Asked
from generator.teachers.rules.task import Task

_SPOT = re.compile(
    r"\b[Tt]he (?:(?:small|large|old|main|same|whole|little|northern|southern|eastern|western) )?"
    r"(?P<noun>town|city|village|bridge|hill|building|fortress|fort|airfield|ridge|harbour|harbor|port|river|island|lake|"
    r"mountain|canal|castle|church|county|district|region|province|heights|bunker|camp)\b"
    r"(?!['’-]| (?:of|at|in|on|near|over|across|called|named|where|that|which|between|around|to)\b| [A-Z])"
)
_SETTLED = frozenset(("town", "city", "village", "island", "river", "lake", "county", "region", "province"))
_REFERS = re.compile(
    r"\b[Tt]he (?:plan|operation|landings?|attack|assault|invasion|offensive|campaign|garrison|advance|evacuation|siege|project|"
    r"survivors|day|bill|raid|fighting|battle|order|mission|law|programme|program|treaty|talks|test|expedition|company|film|"
    r"album|book|novel|song|series|team|club|school|election|party|fleet|invaders|defenders|ship|law|act|government|army|navy|"
    r"front|state|country|nation|city|town|island|enemy|bridge|harbour|river)\b(?!['’-]| (?:of|that|which|who)\b| [A-Z])"
)
_SECOND = re.compile(
    r" and (?:[Tt]he |an? )?(?:[A-Z][\w.'’-]*|[a-z]+ [A-Z][\w.'’-]*)(?: [A-Z][\w.'’-]*)* (?P<verb>[a-z]+)"
)
_TIMED = re.compile(r" (?:until|since|only after|only when|every year|each year)\b|\bfrom the (?:early|late|mid)\b")
_NEEDS_MORE = re.compile(r"(?: who| whose| which| that| where| to)\b")
_LATE = re.compile(r"^(?:when|on which date|in which (?:year|month)) had\b")
_SHORT_OF = re.compile(r"\b(?:an?|the) [a-z]+(?: [a-z]+)?$")


def dangling(task: Task, sentence: Sentence, text: str = "") -> bool:
    """Whether a text speaks of "the town" or "the bridge" that nothing in it, nor its subject, tells."""
    text = text or sentence.text
    for found in _SPOT.finditer(text):
        before = text[: found.start()]
        named = any(mention.name in before or mention.text in before for mention in sentence.of("place", "thing"))
        last = task.reading.topic.rpartition(" ")[2]
        subject = found["noun"] in _SETTLED and (last in task.library.lexicon.places or " " not in task.reading.topic)
        if not named and not subject:
            return True
    return False


def leans_on_subject(text: str) -> bool:
    """Whether a text speaks of "the plan" or "the garrison", which its subject in front of it would tell."""
    return bool(_REFERS.search(text))


def sound(task: Task, asked: Asked) -> bool:
    """Whether a question on one fact reads as one, and has one answer."""
    question = asked.question
    if question.lstrip().startswith((",", "____")) or dangling(task, asked.sentence, question):
        return False
    if ": ____" in question or re.search(r" ,|\(\s*\)|: \d+ (?:in|ordered|were)\b", question):
        return False
    second = _SECOND.search(question)
    if second and (words.is_past(second["verb"]) or second["verb"] in ("was", "were", "had")):
        return False  # "reported to Nimitz and Kinkaid reported to MacArthur"
    if asked.right.kind == "date" and (_TIMED.search(question) or _LATE.match(question)):
        return False
    return not _cut(asked)


def _cut(asked: Asked) -> bool:
    """Whether the sentence goes on, right behind where the question ends, with what tells one such thing from another."""
    end = _SHORT_OF.search(asked.question)
    if end is None:
        return False
    at = asked.sentence.text.find(end.group())
    return at >= 0 and bool(_NEEDS_MORE.match(asked.sentence.text, at + len(end.group())))
