"""Questions that a passage surely does not answer: asked of what it names, on a matter for which it has not one word.

Guarantees: for each question there is a pattern of all the words an answer would need; the question is asked only where
nothing in the whole passage fits that pattern. What is said nearby is a sentence of the passage on the same name.
Cost: a few regular expressions over one passage, about 0.1 ms.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from generator.teachers.rules.reading import Mention, Sentence
from generator.teachers.rules.statements import Fields, inverted
from generator.teachers.rules.task import Declined, Task
from generator.teachers.rules.wrong import titled_here

_TIME = re.compile(
    r"\d{4}|\b(?:January|February|March|April|May|June|July|August|September|October|November|December|spring|summer|autumn|winter|"
    r"century|\w+day|days?|weeks?|months?|years?|night|morning|evening|dawn|noon|hours?|today|decade)\b"
)


@dataclass(frozen=True, slots=True)
class Gap:
    """A question on `{n}`, the same as a clause behind "does not say", and the words of any answer."""

    question: str
    missing: str
    words: re.Pattern[str]


def _gap(question: str, missing: str, words: str) -> Gap:
    return Gap(question, missing, re.compile(rf"\b(?:{words})", re.IGNORECASE))


PERSON = (
    _gap("In which year was {n} born?", "in which year {n} was born", r"born|birth|aged?\b|old\b|years?-old|\(\d{4}"),
    _gap("Where was {n} born?", "where {n} was born", r"born|birth|native|grew up|raised|hometown|son of|daughter of"),
    _gap(
        "How old was {n} at that time?",
        "how old {n} was",
        r"born|birth|aged?\b|old\b|young|years?-old|\(\d{4}|teen|thirties|forties|fifties",
    ),
    _gap(
        "When did {n} die?",
        "when {n} died",
        r"die[sd]?\b|death|dead|dying|kill|shot|execut|hang|buri|funeral|murder|assassin|suicide|lost (?:his|her) li|fell\b|surviv|drown|\(\d{4}",
    ),
    _gap("To whom was {n} married?", "to whom {n} was married", r"marri|wife|husband|widow|wed\b|wedding|spouse|bride"),
    _gap(
        "Where did {n} go to school?",
        "where {n} went to school",
        r"school|college|academy|universit|educat|studie|studied|graduat|cadet|student|pupil|taught|train",
    ),
    _gap(
        "What did {n} do after retiring?",
        "what {n} did after retiring",
        r"retir|resign|memoir|later (?:life|years)|pension|stepped down",
    ),
    _gap(
        "How many children did {n} have?",
        "how many children {n} had",
        r"child|son|daughter|father|mother|parent|family|heir",
    ),
)
UNIT = (
    _gap(
        "Who commanded the {n}?",
        "who commanded the {n}",
        r"command|led|lead|general|admiral|marshal|colonel|major|captain|commodore|brigadier|lieutenant|under|head|chief|\w+'s",
    ),
    _gap(
        "How many men served in the {n}?",
        "how many men served in the {n}",
        r"\d[\d,]* (?!\w+ \d{4})|men\b|soldiers|troops|strength|strong|thousand|hundred|million|dozen",
    ),
    _gap(
        "When was the {n} founded?",
        "when the {n} was founded",
        r"found|form|rais|creat|establish|set up|organi[sz]|activat|built|new\b",
    ),
)
SHIP = (
    _gap(
        "How many men served aboard the {n}?",
        "how many men served aboard the {n}",
        r"crew|men\b|sailors|complement|aboard|on board|hands\b|survivors",
    ),
    _gap("How long was the {n}?", "how long the {n} was", r"long\b|length|feet|foot|metres|meters|yards"),
    _gap(
        "In which year was the {n} launched?",
        "in which year the {n} was launched",
        r"launch|built|laid down|commission|new\b|complet",
    ),
    _gap("How fast could the {n} go?", "how fast the {n} could go", r"speed|knots|fast|slow|miles an hour|mph"),
    _gap("Where was the {n} built?", "where the {n} was built", r"built|build|yard|dockyard|shipyard|construct"),
)
PLACE = (
    _gap(
        "How many people lived in {n} at that time?",
        "how many people lived in {n}",
        r"population|inhabitants|people|residents|lived|living|civilians|souls|thousand|million|citizens|houses",
    ),
    _gap(
        "Who was the mayor of {n}?",
        "who the mayor of {n} was",
        r"mayor|burgomaster|governor|council|city government|administ",
    ),
    _gap(
        "How far is {n} from the sea?",
        "how far {n} is from the sea",
        r"sea|coast|port|harbou?r|miles|kilomet|shore|beach|ocean|bay",
    ),
)
SUBJECT = (
    _gap(
        "How much did {n} cost?",
        "how much {n} cost",
        r"cost|dollar|pounds|£|\$|price|paid|pay|spen[dt]|money|budget|million|billion|worth|expens",
    ),
    _gap(
        "How many people lost their lives in {n}?",
        "how many people lost their lives in {n}",
        r"kill|dead|death|die[sd]?\b|dying|casualt|loss|lost|lives|perish|drown|wounded|fatal|fell\b|victims|toll|surviv",
    ),
)
_LASTING = frozenset(  # asked of what lasts, "in which year" reads oddly
    """was were had believed thought knew wanted argued hoped said felt considered held lived remained included contained consisted used
    liked loved meant needed owned seemed stood wished feared expected tended belonged resembled claimed""".split()
)
_EVENT = re.compile(
    r"\b(?:Battle|Siege|War|Campaign|campaign|Operation|Raid|Uprising|landings|invasion|attack|Attack)\b"
)
_SHIP_BEFORE = re.compile(r"\b(?:carrier|cruiser|battleship|destroyer|submarine|liner|tanker|flagship|ship) (?:the )?$")
_UNIT_NAME = re.compile(
    r"\b(?:Army|Corps|Division|Brigade|Regiment|Battalion|Squadron|Fleet|Flotilla|Group)\b(?: \d+)?$"
)
_TOWN_BEFORE = re.compile(r"\b(?:city|town|village|port) of $|\b[Aa]t $")


def not_answerable(task: Task) -> Fields:
    """A question on a name of the passage, on its subject, or on when something was; they take turns by item and round."""
    passage = task.reading.snippet.text
    ways = [_asked_of_names, _asked_of_names, _asked_of_subject, _undated]
    turn = (task.rng.randrange(4) + task.round) % 4
    for way in (*ways[turn:], *ways[:turn]):
        for question, missing, nearby in way(task, passage):
            return {"question": question[0].upper() + question[1:], "missing": missing, "nearby": nearby}
    raise Declined("nothing that the passage surely leaves open")


def _asked_of_names(task: Task, passage: str) -> Iterator[tuple[str, str, str]]:
    found: dict[str, tuple[tuple[Gap, ...], str, str]] = {}
    for sentence in task.sentences():
        if re.search(r"\b(?:it|they|them|this)\b", sentence.text):
            continue  # what is said nearby must be plain by itself
        for mention in sentence.mentions:
            if mention.name in found or task.is_topic(mention.name) or len(sentence.mentions) > 5:
                continue
            gaps = _gaps(sentence, mention)
            if gaps:
                name = titled_here(task, mention) if mention.kind == "person" else mention.name
                found[mention.name] = gaps, name, sentence.text
    for gaps, name, nearby in task.rotate(found.values()):
        for gap in task.rng.sample(gaps, len(gaps)):
            if not gap.words.search(passage):
                phrases = (gap.question, gap.missing)
                if re.match(r"[A-Z]{1,4}-?\d", name):  # "U-110", a submarine, and no "the"
                    phrases = (gap.question.replace("the {n}", "{n}"), gap.missing.replace("the {n}", "{n}"))
                yield phrases[0].format(n=name), phrases[1].format(n=name), nearby


def _gaps(sentence: Sentence, mention: Mention) -> tuple[Gap, ...]:
    before = sentence.text[: mention.start]
    if mention.kind == "person" and " " in mention.name:
        return PERSON
    if mention.kind == "thing" and _UNIT_NAME.search(mention.name) and mention.the:
        return UNIT
    if mention.kind == "thing" and _SHIP_BEFORE.search(before) and " " not in mention.name:
        return SHIP
    return (
        PLACE
        if mention.kind == "place"
        and _TOWN_BEFORE.search(before)
        and " " not in mention.name
        and sentence.text[mention.end] not in "'’"
        else ()
    )


def _asked_of_subject(task: Task, passage: str) -> Iterator[tuple[str, str, str]]:
    topic = task.reading.topic
    facts = [sentence.text for sentence in task.sentences() if sentence.mentions and task.names_topic(sentence.text)]
    if not _EVENT.search(topic) or not facts:
        return
    for gap in SUBJECT:
        if not gap.words.search(passage):
            yield gap.question.format(n=topic), gap.missing.format(n=topic), task.pick(facts)


def _undated(task: Task, passage: str) -> Iterator[tuple[str, str, str]]:
    """When something happened, of a passage without one word on time."""
    if _TIME.search(passage):
        return
    for sentence in task.sentences():
        clause = sentence.clause
        if clause is None or clause.lead or clause.verb in _LASTING or len(clause.main) > 120 or not sentence.mentions:
            continue
        subject = clause.subject if clause.person else task.inside(clause.subject)
        if subject:
            turned = inverted(clause.verb, subject, clause.main)
            if turned:
                yield f"In which year {turned}?", f"in which year {subject} {clause.verb} {clause.main}", sentence.text
