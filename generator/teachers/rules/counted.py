"""What is counted, owned, named by its kind, or done to a thing: facts whose question word takes a noun with it.

Guarantees: as in facts.py: one part of one sentence that stands alone, taken out whole; the question never says it.
Cost: about 0.1 ms a snippet and kind.
"""

from __future__ import annotations

import re

from generator.teachers.rules.facts import ABOUT, COUNT, Fact, clauses, hidden, placed, sound, stated, turned
from generator.teachers.rules.lexicon import DEMONYM
from generator.teachers.rules.reading import Clause, Mention, Sentence
from generator.teachers.rules.statements import PRONOUN
from generator.teachers.rules.task import Task

_STOP = re.compile(
    r"(?: (?:in|on|at|to|from|against|during|across|over|with|for|into|near|after|before|under|through|by|until|since|as|onto|towards?|"
    r"between|within|without|off|behind|around|along|that|which|who|when|while|because|but|alongside|via|among|despite|throughout|"
    r"outside|inside|upon|out|up|down|back|away|where)\b|,| [-–—]|$)"
)
PEOPLE = re.compile(
    r"\b(?:men|women|troops|people|crews?|prisoners|president|general|commander|leader|officer|minister|king|son|wife|daughter|"
    r"child|children|father|mother|brother|sister|family|friend|friends|staff|man|woman|boy|girl|team|one|\w+(?:ers|ors|ists|ians|ees|men))\b"
)


def counts(task: Task) -> list[Fact]:
    """How many of something there were, at the head of the subject or right behind the verb."""
    found = []
    for sentence, clause in clauses(task):
        fact = _counted_subject(task, sentence, clause) or _counted_object(task, sentence, clause)
        if fact and not PRONOUN.search(clause.lead):
            found.append(fact)
    return task.rotate(found)


_COUNTED = re.compile(
    rf"(?i:{ABOUT}|a total of )?(?P<count>(?i:{COUNT})|an? (?:hundred|thousand|million|dozen)) (?P<noun>.+)"
)
_NOT_COUNTED = re.compile(
    r"^(?:percent|per cent|%|p\.|a\.|of\b|or\b|and\b|to\b|more\b|others?\b|inches\b|(?:January|February|March|April|May|June|July|August|"
    r"September|October|November|December)\b)|\b(?:days?|weeks?|months?|years?|hours?|minutes?|nights?|centur\w+|decades?)\b"
)


def _plural(noun: str) -> bool:
    """Whether a noun phrase can stand behind "how many"."""
    head = noun.split(" of ")[0].split(" ")[-1]
    return not _NOT_COUNTED.search(noun) and (
        (head.endswith("s") and not head.endswith("ss"))
        or head in ("men", "women", "people", "aircraft", "children", "troops")
    )


def _counted_subject(task: Task, sentence: Sentence, clause: Clause) -> Fact | None:
    match = _COUNTED.fullmatch(clause.subject)
    if match is None or not _plural(match["noun"]) or re.search(rf"\b{COUNT}\b", match["noun"]):
        return None
    body = clause.main
    question = placed(clause, f"how many {match['noun']} {clause.verb} {body}")
    if question is None or len(body) < 5 or not sound(body) or not hidden(task, question, match["count"]):
        return None
    return Fact(question, stated(clause, body), sentence)


def _counted_object(task: Task, sentence: Sentence, clause: Clause) -> Fact | None:
    main = clause.main
    stop = _STOP.search(main)
    phrase, rest = (main[: stop.start()], main[stop.start() :]) if stop else (main, "")
    match = _COUNTED.fullmatch(phrase)
    if match is None or clause.verb in ("was", "were") or not _plural(match["noun"]):
        return None
    if " and " in phrase or "," in rest:
        return None
    question = turned(task, clause, rest, f"how many {match['noun']}")
    if question is None or not hidden(task, question, match["count"]):
        return None
    return Fact(question, stated(clause, main), sentence)


def owners(task: Task) -> list[Fact]:
    """Whose somebody's thing was, and under whose command something was done."""
    found = []
    for sentence, clause in clauses(task):
        for mention in sentence.of("person"):
            if task.is_topic(mention.name) or sentence.text.count(mention.text) > 1:
                continue
            if fact := _owner(task, sentence, clause, mention) or _commander(task, sentence, clause, mention):
                found.append(fact)
    return task.rotate(found)


def _owner(task: Task, sentence: Sentence, clause: Clause, mention: Mention) -> Fact | None:
    name = f"{mention.title} {mention.text}".strip()
    own = re.compile(
        rf"{re.escape(name)}(?:['’]s|(?<=s)['’]) (?P<noun>[a-z][\w ]+|(?:\d+\w\w )?[A-Z]\w+ (?:Army|Fleet|Corps|Group|Division)\b[\w ]*)"
    )
    question: str | None
    if match := own.fullmatch(clause.subject):
        question = placed(clause, f"whose {match['noun']} {clause.verb} {clause.main}")
        if len(clause.main) < 6 or not sound(clause.main):
            return None
    elif match := own.match(clause.main):
        stop = _STOP.search(clause.main)
        phrase = clause.main[: stop.start()] if stop else clause.main
        match = own.fullmatch(phrase)
        question = turned(task, clause, clause.main[len(phrase) :], f"whose {match['noun']}") if match else None
    else:
        return None
    if question is None or match is None or " and " in match["noun"] or not hidden(task, question, mention.name):
        return None
    return Fact(question, _named(sentence, mention), sentence)


def _commander(task: Task, sentence: Sentence, clause: Clause, mention: Mention) -> Fact | None:
    name = f"{mention.title} {mention.text}".strip()
    under = re.search(rf" under {re.escape(name)}(?=$| (?!and\b|or\b|of\b)[a-z])", clause.subject)
    if under is None:
        return None
    subject = clause.subject[: under.start()] + clause.subject[under.end() :]
    bare = Clause(clause.lead, subject, clause.verb, clause.rest)
    question = turned(task, bare, clause.main, "under whose command")
    if question is None or not hidden(task, question, mention.name):
        return None
    return Fact(question, _named(sentence, mention), sentence)


def _named(sentence: Sentence, mention: Mention) -> str:
    return sentence.text[: mention.start] + mention.name + sentence.text[mention.end :]


def objects(task: Task) -> list[tuple[Sentence, Clause, str, str]]:
    """What somebody did something to: (sentence, clause, object, rest of the main clause behind it)."""
    found = []
    for sentence, clause in clauses(task):
        main = clause.main
        stop = _STOP.search(main)
        phrase, rest = (main[: stop.start()], main[stop.start() :]) if stop else (main, "")
        if clause.verb not in ("was", "were", "had") and phrase and not rest.startswith(","):
            found.append((sentence, clause, phrase, rest.strip()))
    return task.rotate(found)


def kind_of(name: str, before: str) -> tuple[str, str] | None:
    """The word for the kind of a named thing, and what of the text before it belongs to the phrase: ("British destroyer", ...)."""
    if match := re.search(rf"(?:^|(?<= ))[Tt]he (?P<kind>(?:[A-Z]\w+ )?(?:[a-z]+ )?(?:{_KINDS})) (?:of )?$", before):
        adjective = match["kind"].split(" ")[0]
        if adjective[0].islower() or DEMONYM.match(adjective):
            return match["kind"], match.group()
        return None
    tail = name.split(" ")[-1]
    if tail in _TAILS and len(name.split(" ")) > 1:
        first = name.split(" ")[0]
        people = f"{first} " if DEMONYM.match(first) and first not in ("Nazi",) else ""
        article = re.search(r"(?:^|(?<= ))[Tt]he (?P<people>[A-Z]\w+ )?$", before)
        if article and article["people"] and DEMONYM.match(article["people"].strip()):
            people = article["people"]
        return f"{people}{tail.lower()}", article.group() if article else ""
    head = name.split(" ")[0]
    if head in ("Operation", "Battle", "Lake", "Treaty", "University", "Mount") and len(name.split(" ")) > 1:
        article = re.search(r"(?:^|(?<= ))[Tt]he $", before)
        return {"Mount": "mountain"}.get(head, head.lower()), article.group() if article else ""
    return None


_KINDS = (
    "destroyer|cruiser|battleship|carrier|submarine|ship|steamer|tanker|liner|tank|aircraft|bomber|fighter|town|city|village|port|"
    "island|river|province|district|fortress|region|mountain|lake|newspaper|company|film|novel|book|album|song|magazine|operation|"
    "party|university|bridge|hill|railway|journal|language|tribe|goddess|god|poem|opera|play|kingdom|county|peninsula|airfield"
)
_TAILS = frozenset(
    """Division Army Corps Fleet Regiment Brigade Battalion Squadron University Museum Treaty Conference River Party Act Committee
    Commission Prize Bank Bridge Church Company Corporation Council Agreement Pact Convention Constitution Institute College
    Island Hospital Ministry Court League Parliament Airport Stadium Empire Dynasty""".split()
)


def chosen(task: Task) -> list[Fact]:
    """Which of a kind did something, or had something done to it."""
    found = []
    for sentence, clause in clauses(task):
        for mention in sentence.of("thing", "place"):
            if sentence.text.count(mention.text) > 1 or task.is_topic(mention.name):
                continue
            kind = kind_of(mention.text, sentence.text[: mention.start])
            if kind and (fact := _which(task, sentence, clause, mention, *kind)):
                found.append(fact)
    return task.rotate(found)


def _which(task: Task, sentence: Sentence, clause: Clause, mention: Mention, kind: str, before: str) -> Fact | None:
    phrase = f"{before}{mention.text}"
    main = clause.main
    if clause.subject == phrase and len(main) > 5:
        question = placed(clause, f"which {kind} {clause.verb} {main}")
        if not sound(main) or PRONOUN.search(clause.lead):
            return None
    elif main.startswith(phrase) and re.match(r"$| (?!and\b|or\b)[a-z]", main[len(phrase) :]):
        rest = main[len(phrase) :].strip()
        if len(rest) < 6 or not _STOP.match(f" {rest}") or clause.verb in ("was", "were", "had", "renamed", "named"):
            return None
        question = turned(task, clause, rest, f"which {kind}")
    else:
        return None
    name = re.sub(r"\b(?:Division|Army|Corps|Fleet|Operation|Battle|of|the)\b", "", mention.text)
    if question is None or len(question) > 200 or not hidden(task, question.replace(kind, "", 1), name):
        return None
    return Fact(question, stated(clause, main), sentence)
