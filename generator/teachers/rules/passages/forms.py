"""Questions whose form asks for more than names: what happened, why, who, when and where, keywords and headings.

Guarantees: "why" only where the passage speaks of a reason, and of a clause only where it stands in its sentence or the next one;
"who" only of people the passage names in full; "when and where" only where it has a date and a place; otherwise declined. Cost: about 0.2 ms a question.
"""

from __future__ import annotations

import re
from collections import Counter

from generator.teachers.rules import words
from generator.teachers.rules.lexicon import bare_title
from generator.teachers.rules.passages import form_phrases as phrases
from generator.teachers.rules.passages.names import (
    bare,
    inside,
    is_narrative,
    is_someone,
    joined,
    keys_of,
    last_name,
    life,
    story,
    subject,
    time_of,
    year_of,
)
from generator.teachers.rules.reading import Sentence, main_part
from generator.teachers.rules.statements import PRONOUN, Fields, inverted, single
from generator.teachers.rules.task import Declined, Task

_REASON = re.compile(
    r"\b(?:because|so that|in order to|owing to|due to|as a result|therefore|thus|in the hope|in the belief|for fear|fear(?:ed|ing)|"
    r"hop(?:ed|ing)|reasons?|intended|meant to|wanted|aim(?:ed)?|believ(?:ed|ing)|led to|forced|too (?:few|little|late|slow|weak|far|"
    r"small|heavy)|lack(?:ed|ing)? |short(?:age)? of|unable|could not|persuaded|convinced|threat(?:ened)?|to (?:prevent|avoid|protect|"
    r"stop|keep|cut|draw|block|secure|deny|save|stem|ensure|allow|give|gain|replace))\b"
)
_PLAIN_REASON = re.compile(
    r"\b(?:because|so that|in order to|owing to|due to|as a result|therefore|in the hope|in the belief|for fear|fear(?:ed|ing)|hoped|"
    r"reasons?|intended|meant to|wanted|believed|too (?:few|little|late|slow|weak|far|small|heavy)|lacked|lack of|shortage|unable)\b"
)
_TELLS_WHY = re.compile(
    r",? (?:because|so that|in order to|owing to|due to|as a result|thus|in the hope|in the belief|for fear|fearing|hoping|believing|"
    r"since|as|to (?:prevent|avoid|protect|stop|keep|cut|draw|block|secure|deny|save|stem|ensure|allow|give|gain|replace))\b"
)
_ADVERBS = frozenset("soon later then also first finally now eventually still already even only".split())
_JOINS = frozenset("as if when while although though because since for with that what how whether".split())

# How long a field may be, where names can make it longer; the prompt files say the same.
LIMITS = {"bare-topic": 160, "terse-keywords": 110, "search-query": 140}

KEYWORDS = 7  # words in a row of keywords, where the names allow it


def happened(task: Task) -> Fields:
    """What happened, to whom and when."""
    if not is_narrative(task):
        raise Declined("no events")
    return {"question": _opened(_filled(task, task.pick(phrases.HAPPENED)))}


def bare_topic(task: Task) -> Fields:
    """A heading."""
    return {"question": _fitting(_opened(_filled(task, task.pick(phrases.BARE))), "bare-topic")}


def why(task: Task) -> Fields:
    """Why something was done or happened, of a sentence that gives its reason, or whose next one does; else why names mattered."""
    for sentence in task.rotate(task.sentences()):
        clause = _asked_why(task, sentence)
        if clause is not None:
            but = [mention.name for mention in sentence.mentions]
            named = any(m.text in clause and not task.is_topic(m.name) for m in sentence.of("person", "place", "thing"))
            phrase = task.pick([phrase for phrase in phrases.WHY if named or "{k}" in phrase])
            keys = joined(keys_of(task, but=but)) if "{k}" in phrase else ""
            return {"question": phrase.format(c=clause, k=keys)}
    if not is_narrative(task) or not any(_REASON.search(sentence.text) for sentence in task.reading.sentences):
        raise Declined("no reason for anything")
    return {"question": _filled(task, task.pick(phrases.WHY_NAMES))}


def _asked_why(task: Task, sentence: Sentence) -> str | None:
    """A clause turned to follow "why", or None. What tells the reason is cut off."""
    clause = sentence.clause
    if clause is None or PRONOUN.search(clause.subject):
        return None
    if clause.subject.rpartition(" ")[2] in _ADVERBS or clause.subject.partition(" ")[0].lower() in _JOINS:
        return None
    body = main_part(clause.rest)
    found = _TELLS_WHY.search(f" {body}")
    body = f" {body}"[: found.start()].strip() if found else body
    person = clause.subject if clause.person else task.inside(clause.subject)
    if person is None or not _whole(body) or not _has_reason(task, sentence, f"{clause.subject} {clause.verb} {body}"):
        return None
    turned = inverted(clause.verb, person, body)
    if turned is None:
        return None
    return f" {turned}" if task.names_topic(turned) else f", {inside(task)}, {turned}"


def _whole(body: str) -> bool:
    """Whether what follows the verb can end a question: not cut in a list, nor before what it leads to."""
    last = body.rpartition(" ")[2]
    return (
        12 <= len(body) <= 120
        and single(body)
        and not PRONOUN.search(body)
        and last not in words.FUNCTION_WORDS
        and not last.endswith("ing")
        and (", " not in body or " and " in body)
        and not re.search(r"\bthe (?:town|city|village|bridge|hill|island|division|regiment|building)$", body)
    )


def _has_reason(task: Task, sentence: Sentence, asked: str) -> bool:
    """Whether a sentence gives a reason besides what is asked, or the next one plainly does."""
    if _REASON.search(sentence.text.replace(asked, "")):
        return True
    following = task.reading.sentences[task.reading.sentences.index(sentence) + 1 :][:1]
    clause = sentence.clause
    doer = clause.subject.rpartition(" ")[2] if clause else ""
    of_it = re.compile(rf"(?:He|She|They|It|This)\b|(?:\w+ ){{0,3}}{re.escape(doer)}\b")
    return any(_PLAIN_REASON.search(near.text) and of_it.match(near.text) for near in following)


def who(task: Task) -> Fields:
    """Who somebody was: the subject, if it is a person, or one or two people of whom the passage tells."""
    if life(task):
        return {"question": task.pick(phrases.WHO_TOPIC).format(t=subject(task), k=joined(keys_of(task)))}
    people = _people(task)
    if not people or (people.most_common(1)[0][1] < 2 and len(people) < 2):
        raise Declined("nobody of whom the passage tells enough")
    central = [name for name, count in people.items() if count > 1]
    names = task.rotate(central or list(people))
    two = len(people) > 1 and (not central or task.rng.random() < 0.4)
    second = next((name for name in task.rotate(list(people)) if name != names[0]), "") if two else ""
    phrase = task.pick(phrases.WHO_TWO if second else phrases.WHO)
    other = ""
    if "{o}" in phrase:
        taken = [*people, *(last_name(name) for name in people)]
        other = keys_of(task, "place", "thing", but=taken)[0]
    return {
        "question": phrase.format(
            t=subject(task), s=story(task), i=inside(task), p=names[0], q=second, l=last_name(names[0]), o=other
        )
    }


def _people(task: Task) -> Counter[str]:
    """People named in full, with the number of sentences that name them."""
    found: Counter[str] = Counter()
    for sentence in task.reading.sentences:
        named = dict.fromkeys(m.name for m in sentence.of("person"))  # no set: its order differs between processes
        found.update(name for name in named if is_someone(name) and not task.is_topic(name))
    return found


def when_where(task: Task) -> Fields:
    """When and where; of people and things, since the places and dates are the answer."""
    sentences = task.reading.sentences
    if not is_narrative(task):
        raise Declined("no events")
    if not any(sentence.of("date") for sentence in sentences) or not any(
        sentence.of("place") for sentence in sentences
    ):
        raise Declined("no date, or no place")
    try:
        keys = joined(keys_of(task, "person"))
        choice: tuple[str, ...] = phrases.WHEN_WHERE
    except Declined:  # a ridge or a plan takes no part in anything
        keys = joined(keys_of(task, "person", "thing"))
        choice = phrases.WHEN_WHERE_NEUTRAL
    return {"question": task.pick(choice).format(t=subject(task), s=story(task), k=keys)}


def keywords(task: Task) -> Fields:
    """Keywords in a line."""
    return {"question": _fitting(_listed(task, phrases.KEYWORDS), "terse-keywords")}


def query(task: Task) -> Fields:
    """What one types into a search engine."""
    happens = is_narrative(task)
    choice = tuple(phrase for phrase in phrases.QUERY if happens or "happened" not in phrase)
    return {"question": _fitting(_listed(task, choice), "search-query")}


def _fitting(text: str, kind: str) -> str:
    if len(text) > LIMITS[kind]:
        raise Declined(f"names too long for {kind}")
    return text


def _listed(task: Task, choice: tuple[str, ...]) -> str:
    """Names in a row, so ordered that no word follows itself: not "Siege of Leningrad Leningrad Front".

    Keywords are few: whether a long row of names is English is hard to tell.
    """
    title, year = bare_title(task.reading.snippet.title), year_of(task)
    year = "" if year in title else year
    for phrase in task.rng.sample(choice, len(choice)):
        if not year and "{y}" in phrase:
            continue
        keys = [bare(name) for name in keys_of(task, most=2 if "{k}" in phrase else 3)]
        topic = bare(subject(task)) if re.search(r"\b(?:into|in|of|with) \{T\}", phrase) else title
        noun = task.pick(phrases.KEYWORD_NOUNS)
        least = len(keys) if "{k}" in phrase else 1
        for count in range(len(keys), least - 1, -1):
            text = phrase.format(T=topic, x=" ".join(keys[:count]), k=joined(keys), y=year, n=noun)
            if (count > least and len(text.split()) > KEYWORDS) or re.search(r"\b(\w+) \1\b", text):
                continue
            return text
    raise Declined("names that cannot stand in a row")


def _filled(task: Task, phrase: str) -> str:
    return phrase.format(t=subject(task), s=story(task), i=inside(task), w=time_of(task), k=joined(keys_of(task)))


def _opened(text: str) -> str:
    return text[0].upper() + text[1:]
