"""The `cloze` family: a sentence with a name, a date, a number or a key phrase left out.

Guarantees: the sentence is one of the snippet's that stands alone, with its subject in front where it does not name it; what
is left out stood in it once, and is the answer as it stood. Cost: about 0.1 ms an exercise.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from generator.teachers.rules import facts, words
from generator.teachers.rules.reading import Sentence
from generator.teachers.rules.statements import Fields, with_subject
from generator.teachers.rules.task import Declined, Task, of_kind

Span = tuple[int, int]

LONGEST = 220  # characters of a sentence, so that its blank can be found at a glance

_NUMBER_WORD = "|".join(facts.NUMBER_WORDS)
_NUMBER = re.compile(
    rf"(?<![\w.,$£€%/-])(?<!\d )(?:\d{{1,3}}(?:,\d{{3}})+|\d{{1,3}}|(?i:{_NUMBER_WORD}))(?: (?:hundred|thousand|million|billion)\b)?"
    r"(?= (?P<noun>[a-z][\w-]*|[A-Z]\w+ [a-z]\w+))(?![\w-])"
)
_UNCOUNTED = frozenset("of or and to more other others in at on by percent per was were had is are am pm".split())
_PHRASE = re.compile(
    r"(?<= )(?:the|an?|its|their|his|with|without|by|into|against|through|of) (?P<phrase>(?!the |an? |its |their |his )[a-z][a-z-]+(?: [a-z][a-z-]+){1,3}(?: of(?: the| an?)?(?: [a-z][a-z-]+){1,2})?)"
    r"(?=[,.]| (?P<after>[\w-]+))"
)
_TIME = re.compile(
    r"\b(?:days?|weeks?|months?|years?|hours?|minutes?|nights?|morning|evening|afternoon|spring|summer|autumn|winter|time|end|"
    r"beginning|first|last|same|middle|part|number|rest|following|whole|end|start|early|late|next|war|battle|world|sides?|century)\b"
)
_VAGUE = frozenset(
    """new old great large small other many several good bad own main major important various certain better worse total single
    different most more least furthest best worst next""".split()
)
_NO_NOUN = frozenset(
    "west east north south open closed alone intact empty dead alive free home ready close full away".split()
)
_NO_DESCRIPTION = frozenset("now still soon short then ever never just even today too".split())


def cloze_entity(task: Task) -> Fields:
    candidates = [
        (sentence, (mention.start, mention.end))
        for sentence, mention in of_kind(task.sentences(), "person", "place", "thing")
        if len(sentence.text) <= LONGEST and len(sentence.mentions) > 1 and not task.is_topic(mention.text)
    ]
    return _exercise(task, candidates, "no sentence with a name to leave out")


def cloze_date(task: Task) -> Fields:
    candidates = [
        (sentence, (mention.start, mention.end))
        for sentence, mention in of_kind(task.sentences(), "date")
        if _fits(sentence)
        and len(sentence.of("date")) == 1
        and not re.match(r"s\b|[-–]|\)", sentence.text[mention.end :])
    ]
    return _exercise(task, candidates, "no sentence with one date to leave out")


def cloze_number(task: Task) -> Fields:
    candidates = [(s, span) for s in task.sentences() if _fits(s) for span in _numbers(s)]
    return _exercise(task, candidates, "no sentence with a number to leave out")


def cloze_key_phrase(task: Task) -> Fields:
    candidates = [(s, span) for s in task.sentences() if _fits(s) for span in _phrases(s)]
    return _exercise(task, candidates, "no sentence with a phrase that carries its fact")


def _fits(sentence: Sentence) -> bool:
    """Whether a sentence is short enough, and names something that tells what it is about."""
    return len(sentence.text) <= LONGEST and any(m.kind in ("person", "place", "thing") for m in sentence.mentions)


def _exercise(task: Task, candidates: list[tuple[Sentence, Span]], missing: str) -> Fields:
    for sentence, (start, end) in task.rotate(candidates):
        text, answer = sentence.text, sentence.text[start:end]
        blanked = with_subject(task, f"{text[:start]}____{text[end:]}")
        if not re.search(rf"\b{re.escape(answer)}\b", blanked, re.IGNORECASE) and "_" not in text:
            return {"sentence": blanked, "answer": answer}
    raise Declined(missing)


def _numbers(sentence: Sentence) -> Iterator[Span]:
    """Where counts stand, in figures or in words: behind each is what is counted, and none belongs to a name or a date."""
    taken = [mention for mention in sentence.mentions if mention.kind != "number"]
    for match in _NUMBER.finditer(sentence.text):
        inside = any(mention.start <= match.start() < mention.end for mention in taken)
        before = sentence.text[: match.start()].split()[-1:]
        named = bool(before) and before[0][0].isupper() and match.start() > len(before[0]) + 1
        ranged = re.search(r"\d(?:[-–]| to | and | or )$|\($", sentence.text[: match.start()])
        one_of = bool(ranged) or (
            bool(before) and before[0] in ("of", "no", "No", "number", "chapter", "section", "between", "from", "ratio")
        )
        if not inside and not named and not one_of and match["noun"].split()[0] not in _UNCOUNTED:
            yield match.span()


def _phrases(sentence: Sentence) -> Iterator[Span]:
    """Where a noun with what describes it stands: lower-case words between an article and the next phrase."""
    for match in _PHRASE.finditer(sentence.text):
        tokens = match["phrase"].split()
        if not _ends_phrase(tokens, match["after"]):
            continue
        phrase = match["phrase"]
        content = [word for word in tokens if word not in ("of", "the", "a", "an")]
        if len(content) < 2 or len(phrase) < 9 or _TIME.search(phrase):
            continue
        if (
            set(content) & (words.FUNCTION_WORDS | words.AUXILIARIES | _NO_DESCRIPTION)
            or content[0] in _VAGUE
            or content[0].endswith("est")
        ):
            continue
        if any(sentence.text.lower().count(word) > 1 for word in content if len(word) > 3):
            continue
        yield match.start("phrase"), match.start("phrase") + len(phrase)


def _ends_phrase(tokens: list[str], after: str | None) -> bool:
    """Whether the phrase ends where it was cut: on a noun, before a verb, a preposition or a stop."""
    last = tokens[-1]
    if (
        words.is_past(last)
        or last in _NO_NOUN
        or last.startswith("un")
        or last.endswith(("ing", "ly"))
        or last in words.FUNCTION_WORDS | words.AUXILIARIES
    ):
        return False
    if any(words.is_past(word) and word not in ("armed", "combined", "united") for word in tokens[1:]):
        return False
    return (
        after is None
        or after in words.FUNCTION_WORDS | words.AUXILIARIES
        or words.is_past(after)
        or after == "including"
    )


MAKERS: dict[str, Callable[[Task], Fields]] = {
    "cloze/entity": cloze_entity,
    "cloze/date": cloze_date,
    "cloze/number": cloze_number,
    "cloze/key-phrase": cloze_key_phrase,
}
