"""Whether a question or a statement can be understood and answered by itself: checks that several families share.

Guarantees: only declines: "the town" that an earlier sentence named, a second clause that ran into the question, a
question cut before what it needs, a time that belongs to something else in it. Cost: a few regular expressions.
"""

from __future__ import annotations

import re

from generator.teachers.rules import words
from generator.teachers.rules.passages.names import is_event, is_narrative, subject
from generator.teachers.rules.reading import Sentence
from generator.teachers.rules.statements import Asked
from generator.teachers.rules.task import Task

_SPOT = re.compile(
    r"\b[Tt]he (?:(?:small|large|old|main|same|whole|little|northern|southern|eastern|western) )?"
    r"(?P<noun>town|city|village|bridge|hill|building|fortress|fort|airfield|ridge|harbour|harbor|port|river|island|lake|"
    r"mountain|canal|castle|church|county|district|region|province|heights|bunker|camp|"
    r"division|brigade|regiment|battalion|squadron|platoon|convoy)\b"
    r"(?!['’-]| (?:of|at|near|over|across|called|named|where|that|which|between|around)\b| [A-Z])"
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
_LISTED = re.compile(
    r", (?:[A-Z][\w'’-]+ ){2,}(?P<verb>[a-z]+)"
)  # "disappeared with U-47, Joachim Schepke died in U-100"
_OF_IT = re.compile(r"[^,;]*\b(?:much|most|part|all|some|half|rest|one|many|none) of (?:it|them)\b")
_TIMED = re.compile(r" (?:until|since|only after|only when|every year|each year)\b|\bfrom the (?:early|late|mid)\b")
_NEEDS_MORE = re.compile(r"(?: who| whose| which| that| where| to)\b")
_LATE = re.compile(r"^(?:when|on which date|in which (?:year|month)) had\b")
_SHORT_OF = re.compile(r"\b(?:an?|the) [a-z]+(?: [a-z]+)?$")


def dangling(task: Task, sentence: Sentence, text: str = "") -> bool:
    """Whether a text speaks of "the town" or "the bridge" that nothing in it, nor its subject, tells."""
    text = text or sentence.text
    for found in _SPOT.finditer(text):
        before = text[: found.start()]
        told = [one for one in sentence.mentions if one.kind == "place" or (one.kind == "thing" and one.the)]
        named = found["noun"].title() in before or any(one.name in before or one.text in before for one in told)
        last = task.reading.topic.rpartition(" ")[2]
        subject = found["noun"] in _SETTLED and (last in task.library.lexicon.places or " " not in task.reading.topic)
        if not named and not subject:
            return True
    return False


def leans_on_subject(text: str) -> bool:
    """Whether a text speaks of "the plan" or "the garrison", which its subject in front of it would tell."""
    return bool(_REFERS.search(text))


_VERB = re.compile(
    r"\b(?:was|were|is|are|be|has|have|had|did|does|do|can|could|may|might|will|would|should|must)\b|[a-z](?:ed|s)\b|n't\b"
)
_AUXILIARY = re.compile(r"\b(?:was|were|is|are|has|have|had)\b")
_TORN = re.compile(r"\.,|, (?:dates|lies|is|has) |[a-z]{3}\. [A-Z]|\b(?:was|were|did) one\b")
_TOLD = re.compile(r"\b(?:estimate|report|say|claim|state|find|show|believe|announce)\w* that (.*)$")
_WHOSE = re.compile(r"(?:[^,]*, )?(?:it|they|he|she|one) (?:was|were|is|are|had|has|[a-z]+ed)\b|[^,]*\d{4} one was\b")
_NO_VERB = re.compile(r"(?:Unknown|Between|About|Over|Approximately|Around|Some|[\d,.]+)\b")
_STORY = re.compile(r"^In the (?:story|history) of ")


def whole(task: Task, sentence: Sentence) -> bool:
    """Whether a sentence says something by itself: no item of a list without a verb, no "the town" of another sentence."""
    return (
        has_verb(sentence)
        and not _OF_IT.match(sentence.text)
        and not _WHOSE.match(sentence.text)
        and not re.search(r"[a-z]{3}\. [A-Z]", sentence.text)
        and sentence.text[0] not in "(“'"
        and not dangling(task, sentence)
    )


def has_verb(sentence: Sentence) -> bool:
    """Whether a sentence has a verb, as far as its words tell; "68 ordered in 1975" and "62 infantry vehicles" have none."""
    text = sentence.text
    past = any(words.is_past(word) for word in text.split()[1:])
    if _NO_VERB.match(text) and not _AUXILIARY.search(text):
        return sentence.clause is not None and not re.match(r"[\d,.]+ [a-z]+ed\b", text)
    return sentence.clause is not None or past or bool(_VERB.search(text))


def in_context(task: Task, text: str) -> str:
    """A text begun with its subject; what happened to nobody has no story: "in connection with alkanes"."""
    text = task.in_context(text).replace(f" {task.reading.topic}, ", f" {subject(task)}, ", 1)
    return text if is_event(task) or is_narrative(task) else _STORY.sub("In connection with ", text)


def sound(task: Task, asked: Asked) -> bool:
    """Whether a question on one fact reads as one, and has one answer."""
    question = asked.question
    if asked.right.kind == "person" and len(question) < 12:
        return False  # "who resigned"
    if question.lstrip().startswith((",", "____")) or dangling(task, asked.sentence, question):
        return False
    if ": ____" in question or re.search(r" ,|\(\s*\)|: \d+ (?:in|ordered|were)\b", question):
        return False
    if _TORN.search(question) or question.count("(") != question.count(")") or not has_verb(asked.sentence):
        return False
    told = _TOLD.search(question)
    if told and not (
        _AUXILIARY.search(told[1])
        or " would " in told[1]
        or " must " in told[1]
        or any(words.is_past(word) for word in told[1].split())
    ):
        return False  # "estimate that the prevalence among adults"
    second = _SECOND.search(question) or _LISTED.search(question)
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
