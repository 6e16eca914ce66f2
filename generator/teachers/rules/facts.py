"""Facts that a question can turn on: a place, a reason, a means, a number, a length of time, an owner, a thing.

Guarantees: each is one part of one sentence that stands alone, taken out whole; the question is the rest of the main
clause, in the order of a question, and never says what was taken out. Where the grammar is not certain there is no fact.
Cost: about 0.1 ms a snippet and kind.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from generator.teachers.rules import words
from generator.teachers.rules.lexicon import DATE
from generator.teachers.rules.reading import Clause, Mention, Sentence, main_part
from generator.teachers.rules.statements import PRONOUN, ended, inverted
from generator.teachers.rules.task import Task

NUMBER_WORDS = (
    "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen eighteen twenty thirty forty "
    "fifty sixty seventy eighty ninety"
).split()
COUNT = rf"(?:\d{{1,3}}(?:,\d{{3}})+|\d{{1,3}}|{'|'.join(NUMBER_WORDS)})(?: (?:hundred|thousand|million|billion))?"
ABOUT = r"(?:about|around|roughly|nearly|almost|over|more than|fewer than|less than|at least|at most|up to|some|only|just|close to|another) "
SPAN = rf"(?:{ABOUT}|a further )?(?:{COUNT}|a|an|one)(?: and a half)? (?:minute|hour|day|night|week|month|year|decade|centur(?:y|ie))s?"

_PLACE_BEFORE = re.compile(
    r"(?:^|(?<= ))(?:in|at|near|outside|off|on|In|At|Near|Outside|Off|On) (?:the )?(?:(?:northern|southern|eastern|western|central|"
    r"nearby|neutral|occupied|unoccupied) )?(?:(?:\w+ )?(?:city|town|port|village|island|coast|desert|mouth|region|province|centre|center|heart|"
    r"outskirts|forests?|hills|mountains|north|south|east|west|suburbs?|parts?|area|peninsula|valley|waters|streets|skies|state|county|"
    r"middle|capital|middle) of (?:the )?)?$"
)
_NO_PLACE = re.compile(
    r"\b(?:interested|engaged|believed|resulted|succeeded|participated|involved|interest|confidence|decline|invested|performance) $"
)
_FOR = re.compile(rf" for (?P<span>{SPAN})\b(?! (?:of|ago|old|after|before|later|and|or)\b|-)")
_FROM_TO = re.compile(rf" (?P<span>[Ff]rom (?:about )?(?:{DATE.pattern}) (?:until|to|till) (?:{DATE.pattern}))")
_WITHIN = re.compile(rf" (?:within|in) (?P<span>{SPAN})$")
_LASTED = re.compile(rf"(?P<span>(?:for )?{SPAN})\b(?:$|,| and\b| from\b| until\b| in\b| with\b|;)")
_BECAUSE = re.compile(
    r",? (?P<reason>(?:because(?: of)?|in order to|so that|due to|owing to|in an attempt to|as a result of) .+)$"
)
_PURPOSE = re.compile(
    r" (?P<reason>to (?:protect|prevent|avoid|stop|force|draw|mark|block|hold|cut|support|divert|delay|keep|escape|save|relieve|"
    r"reinforce|deceive|cover|defend|guard|improve|reduce|increase|raise|encourage|celebrate|commemorate|honour|honor|attract|"
    r"ensure|secure|restore|replace|study|promote|pay|fund|accommodate|create|provide|meet|make|seize|capture|rescue|bring|find|destroy|"
    r"break|reach|build|gain|strengthen|investigate|negotiate|discuss|warn|persuade|begin|become|obtain|oppose|resist|win|search|"
    r"fight|attack|take|give|show|let|allow|help|clear|lure|trap|test|train|work|teach|pursue|open|deal|link|carry) .+)$"
)
_TAKES_TO = frozenset(
    """ordered told asked wanted tried began decided agreed planned hoped allowed forced attempted refused failed managed continued
    had seemed appeared led urged persuaded enabled caused required expected intended invited instructed permitted got proved
    needed sought promised threatened directed helped encouraged wished started ceased offered demanded voted vowed learned
    stimulated tricked motivated tempted prompted drove challenged trained elected assigned lobbied begged conspired sufficed competed
    proceeded hastened frustrated placed combined afforded deserved authorized authorised entitled convinced chose tended struggled came belonged inspired compelled pressed was were""".split()
)
_NOUN_TO = re.compile(
    r"\b(?:order|orders|attempts?|chance|plans?|permission|time|efforts?|ability|right|decision|way|ways|fight|able|enough|first|"
    r"last|only|proposals?|power|authority|ready|refusal|need|opportunity|going|due|as|how|what|where|reason|duty|likely|"
    r"bound|used|means|failure|offer|request|too \w+|campaign|struggle|willing|aims?|close|next|tendency|demand|pressure|"
    r"(?:first|last|only|second) [\w-]+(?: [\w-]+)?)$|\b(?:bid|calls?|hopes?|desire|contest|attempts?|agreement|ability|tendency|"
    r"inability|proposal|permission|refusal|way|began)\b"
)
_DONE_TO = re.compile(
    r"(?:built|sent|created|established|founded|set up|formed|introduced|constructed|erected|organi[sz]ed|held)\b"
)
_MEANS = re.compile(
    r",? (?P<means>by (?!(?:evening|morning|spring)\b)[a-z]+ing\b .+|(?:with the (?:help|aid)|by means|through the use) of .+|"
    r"by (?:air|sea|rail|train|ship|boat|parachute|glider|truck|aircraft|submarine|telegram|radio)\b(?! that).*|(?<!were )(?<!was )(?<!based )using .+)$"
)
_DEATH = re.compile(
    r"(?P<means>(?:of|from) (?!(?:the|his|her) (?:death|wounds)).+|by (?:suicide|drowning).*|in an? .+)$"
)


@dataclass(frozen=True, slots=True)
class Fact:
    """What to ask behind the question word, without a question mark; what answers it; where it stands."""

    question: str
    answer: str
    sentence: Sentence


def turned(task: Task, clause: Clause, body: str, asking: str, *, lead: bool = True) -> str | None:
    """A question of a clause with the rest `body`: "why did the ships leave Malta in May"; None where it would be no English."""
    if PRONOUN.search(clause.lead) or re.search(r"\bit$", clause.subject):
        return None
    subject = clause.subject if clause.person else task.inside(clause.subject)
    body = body.strip(" ,")
    if subject is None or not sound(body):
        return None
    question = inverted(clause.verb, subject, body)
    if question is None:
        return None
    return placed(clause if lead else None, f"{asking} {question}")


def placed(clause: Clause | None, asked: str) -> str | None:
    """A question with the clause's lead: at its end where it is a short one, else in front."""
    if clause is not None and clause.lead:
        opening = f"{clause.lead[0].lower()}{clause.lead[1:]}"
        short = clause.lead.split(" ", 1)[0] in ("In", "On", "At", "During", "After", "Before", "Near", "From", "By")
        asked = f"{asked} {opening}" if short and len(opening) < 40 and "," not in asked else f"{opening}, {asked}"
    return asked if len(asked) <= 220 else None


def sound(body: str) -> bool:
    """Whether what follows the verb reads as one piece: no torn list, no pronoun that may point elsewhere."""
    torn = (
        r"[;:()]|, \w+$|\b(?:it|they|them|and|or|of|the|a|an|such|as|among|including|that|which)$|\b(?:it|them|they)\b"
    )
    return len(body) <= 150 and not re.search(torn, body)


def stated(clause: Clause, body: str) -> str:
    """The clause as a sentence of its own, its lead in front."""
    text = f"{clause.lead}, {{}}" if clause.lead else "{}"
    subject = clause.subject
    if clause.lead and re.match(r"(?:The|A|An|Some|Many|All|About|More|Two|Three|Four|Five|Six|Ten) ", subject):
        subject = subject[0].lower() + subject[1:]
    return ended(text.format(f"{subject} {clause.verb} {body}"))


_LINK = re.compile(
    r"(?:For (?:example|instance)|In (?:fact|addition|particular|contrast|turn|response|general|short|reality|theory)|At (?:first|last)|"
    r"By contrast|As a result|Over time|On average|In the end|In the meantime|From there|As well)\b"
)


def clauses(task: Task) -> Iterator[tuple[Sentence, Clause]]:
    for sentence in task.sentences():
        clause = sentence.clause
        if clause and not _LINK.match(clause.lead) and not clause.subject.endswith((" of", " and")):
            yield sentence, clause


def hidden(task: Task, question: str, answer: str) -> bool:
    """Whether no name or number of the answer stands in the question, or in the subject that may open it."""
    said = f"{question} {task.reading.topic}".casefold()
    told = re.findall(r"[^\W\d_][\w'’-]*|\d[\d,]*", answer)
    names = [word.removesuffix("'s") for word in told if word[0].isupper() or word[0].isdigit()]
    return not any(
        re.search(rf"\b{re.escape(name.casefold())}\b", said) for name in names if len(name) > 2 or name.isdigit()
    )


def full_verb(clause: Clause, body: str) -> bool:
    """Whether the verb says that something was done: "was killed", and not "was a town"."""
    return clause.verb not in ("was", "were") or words.is_participle(body.split(" ", 1)[0])


def places(task: Task) -> list[Fact]:
    """What happened in one place."""
    found = []
    for sentence, clause in clauses(task):
        for mention in sentence.of("place"):
            if task.is_topic(mention.name):
                continue
            if fact := _place(task, sentence, clause, mention):
                found.append(fact)
    return task.rotate(found)


def _place(task: Task, sentence: Sentence, clause: Clause, mention: Mention) -> Fact | None:
    before = _PLACE_BEFORE.search(sentence.text[: mention.start])
    if before is None or _NO_PLACE.search(sentence.text[: before.start()]):
        return None
    end = mention.end
    if further := re.match(r", [A-Z]\w+(?=[,.]| (?:in|on|and|before|after)\b)", sentence.text[end:]):
        end += further.end()
    after = sentence.text[end:]
    phrase = sentence.text[before.start() : end]
    if re.match(r"['’-]|,? (?:and|or) |, [A-Z]| [A-Z(]", after):
        return None
    following = re.match(r" ([a-z][\w-]*)", after)
    if following and following.group(1) not in words.FUNCTION_WORDS and not following.group(1).endswith("ed"):
        return None
    if clause.lead == phrase:
        body, lead = clause.main, False
    else:
        main = clause.main
        if f" {phrase}" not in f" {main}":
            return None
        body = f" {main} ".replace(f" {phrase} ", " ", 1).replace(f" {phrase},", "" if "," in phrase else ",", 1)
        body, lead = re.sub(r"(?: ?,)+", ",", body).strip(), True
        inner = main.partition(phrase)[0]
        if "," in inner or re.search(
            r"\b(?:that|which|who|whom|whose|whereby|within|after|before|since|until|from|not|no|because|if)\b", inner
        ):
            return None  # in the middle of a clause or a time of its own
        if re.search(r"\b(?:to|from|at|of|near|on|in|into) (?:the )?[A-Z][\w ]*$", inner.rstrip()):
            return None  # "to Ladd Field in Alaska"
    named = len(sentence.mentions) > 1
    if len(body) < 6 or not named or not full_verb(clause, body) or body.endswith(("and", "or", "of")):
        return None
    question = turned(task, clause, body, "where", lead=lead)
    if (
        question is None
        or not hidden(task, question, phrase)
        or re.search(r"\b(?:in|at|near) (?:the )?(?!\w+ \d{4})[A-Z]|\band (?:on|in|at|near)\b", body)
    ):
        return None
    return Fact(question, stated(clause, clause.main), sentence)


def reasons(task: Task) -> list[Fact]:
    """What was done, and the reason that is given."""
    found = []
    for sentence, clause in clauses(task):
        match = _BECAUSE.search(clause.rest)
        passive = words.is_participle(clause.rest.split(" ", 1)[0])
        done = _DONE_TO.match(clause.rest) if clause.verb in ("was", "were") else None
        if match is None and (done or (clause.verb not in _TAKES_TO and not passive)):
            match = _PURPOSE.search(clause.rest)
            if match and (_NOUN_TO.search(clause.rest[: match.start()]) or _inner_to(clause.rest[: match.start()])):
                continue
        if match is None:
            continue
        body = clause.rest[: match.start()]
        if _whole(body) and len(body) >= 6 and not re.search(r"\b(?:no|that)\b", body):
            question = turned(task, clause, body, "why")
            if question:
                found.append(Fact(question, sentence.text, sentence))
    return task.rotate(found)


def _inner_to(body: str) -> bool:
    first, _, others = body.partition(" ")  # the first word may be "built", a participle that _DONE_TO let through
    return (
        any(word in _TAKES_TO - {"only", "was", "were"} for word in re.findall(r"[a-z]+", others or first))
        or " to be" in body
    )


def _whole(body: str) -> bool:
    """Whether what stands before a reason is one main clause and no more."""
    hedged = r"\b(?:partly|mainly|not|only|largely|probably|likely|possibly|perhaps|part|and|or|that|just|on the grounds\b.*)$"
    return main_part(body) == body and not re.search(hedged, body)


def means(task: Task) -> list[Fact]:
    """What was done, and how."""
    found = []
    for sentence, clause in clauses(task):
        match = _MEANS.search(clause.rest)
        died = _DEATH.match(clause.main) if clause.verb == "died" and clause.person else None
        told = re.search(r"\bthat\b", clause.rest) or re.match(r"(?:[Aa]bout|[Nn]early|[Mm]ore) ", clause.subject)
        if (
            (match is None and died is None)
            or told
            or clause.verb == "began"
            or re.search(r"\bin part$", clause.subject)
        ):
            continue
        body = clause.rest[: match.start()] if match else ""
        if died or (_whole(body) and len(body) >= 6 and full_verb(clause, body) and " that " not in body):
            question = turned(task, clause, body, "how")
            if question:
                found.append(Fact(question, sentence.text, sentence))
    return task.rotate(found)


def durations(task: Task) -> list[Fact]:
    """What took or lasted a stated time."""
    found = []
    for sentence, clause in clauses(task):
        if fact := _duration(task, sentence, clause):
            found.append(fact)
    return task.rotate(found)


def _duration(task: Task, sentence: Sentence, clause: Clause) -> Fact | None:
    main = clause.main
    question: str | None = None
    body = ""
    if clause.verb == "lasted" and (match := _LASTED.match(clause.rest) or _FROM_TO.match(f" {clause.rest}")):
        question = turned(task, clause, "", task.alternate(("how long", "for how long")))
    elif match := _FOR.search(main):
        body = main[: match.start()] + main[match.end() :]
        opening = task.alternate(("how long", "for how long"))
        question = turned(task, clause, body, opening) if full_verb(clause, body) else None
    elif clause.verb not in _NOT_LASTING and (match := _FROM_TO.search(f" {main}")):
        body = f" {main}"[: match.start()] + f" {main}"[match.end() :]
        opening = task.alternate(("how long", "for how long"))
        question = turned(task, clause, body, opening) if full_verb(clause, body) else None
    elif (match := _WITHIN.search(main)) and clause.verb not in _NOT_LASTING and not re.search(r"\bnot?\b", main):
        base, subject = words.base_form(clause.verb), task.inside(clause.subject)
        body = main[: match.start()]
        if base and subject and not clause.lead and len(body) > 5:
            question = f"how long did it take {subject} to {base} {body}"
    if question is None or match is None or (body and len(body.strip()) < 4):
        return None
    span = match["span"]
    after = sentence.text.partition(span)[2]
    if not hidden(task, question, span) or re.search(rf"\b{SPAN}\b|\bfrom (?:{DATE.pattern})", question):
        return None
    if re.match(r" (?:AD|BC|BCE|CE)\b", after):
        return None
    short = stated(clause, main)
    return Fact(question, short if span in short else sentence.text, sentence)


_NOT_LASTING = frozenset(
    """increased caused recovered grew fell declined rose decreased made was were had won lost became reached received died opened
    realized realised said led""".split()
)
