"""The `cross` family: two passages beside each other.

Guarantees: an answer is made of sentences of both passages, each of which stands alone; which of two events was first is
asked only where their dates leave no doubt, and two names are called related only where both stand beside a third one.
Cost: about 1 ms an item, most of it reading the two snippets.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product

from generator.gates.fields import plain_words
from generator.teachers.rules import words
from generator.teachers.rules.contrastive import one_bearer
from generator.teachers.rules.lexicon import followed_by_noun
from generator.teachers.rules.reading import Mention, Reading, Sentence
from generator.teachers.rules.statements import Fields, when_clause
from generator.teachers.rules.task import Declined, Task
from generator.teachers.rules.telling import span_of

LONGEST = 230  # characters of a sentence in an answer

_OPENING = re.compile(r"(?:when|in which year|in which month|on which date) ")
# What may stand before a name that takes no article: not "his Third Army", nor "the only Victoria Cross".
_BARE = re.compile(
    r"(?:^|[,(]|\b(?:of|in|at|to|and|or|by|with|from|for|on|against|near|through|into|called|named|as)) $"
)
_NO_EVENT = re.compile(r"\b(?:before|after|until|since|had|than|while|when)\b")
_TOLD = (
    "What do {a} and {b} have to do with {e}?",
    "What is told of {e} in the stories of {a} and {b}?",
    "How does {e} come into both {a} and {b}?",
    "What is the place of {e} in the history of {a}, and in that of {b}?",
    "Where does one meet {e} in the history of {a}, and where in that of {b}?",
    "In what way does {e} belong to the story of {a}, and to that of {b}?",
    "What connects {e} with {a}, and what with {b}?",
    "Both {a} and {b} have something to do with {e}. What is it?",
)
_RELATED = (
    "In the story of {t}, how are {a} and {b} connected through {e}?",
    "What links {a} and {b} by way of {e} in the history of {t}?",
    "With regard to {t}, what did {a} and {b} both have to do with {e}?",
)


def _partner(task: Task) -> Reading:
    if task.partner is None:
        raise Declined("no second passage")
    return task.partner


def _beside(task: Task, reading: Reading) -> Task:
    """The same task, read from the other passage."""
    return replace(task, reading=reading)


@dataclass(frozen=True, slots=True)
class _Dated:
    """What happened, as a question's clause ("did X land at Y") and as a plain one ("X landed at Y"), and when."""

    asked: str
    plain: str
    sentence: Sentence
    first: tuple[int, int, int]
    last: tuple[int, int, int]


def _dated(task: Task) -> list[_Dated]:
    found = []
    for sentence in task.sentences():
        asked, clause = when_clause(task, sentence), sentence.clause
        if asked is None or clause is None or sentence.when is None or len(sentence.text) > LONGEST:
            continue
        span = span_of(sentence.when.text)
        opening = _OPENING.match(asked.question)  # another opening is a clause of its own: "in Norway, when did ..."
        fronted = re.match(rf"{re.escape(sentence.when.text)}, ", asked.answer, re.IGNORECASE)
        if span and opening and fronted:
            turned, plain = asked.question[opening.end() :], asked.answer[fronted.end() :].rstrip(".")
            state = clause.verb in ("was", "were") and not words.is_participle(clause.rest.split(" ", 1)[0])
            named = re.search(r"[A-Z]", plain) and not re.match(r"\d|one\b", plain, re.IGNORECASE)
            loose = re.match(r" [A-Z]", sentence.text[sentence.when.end :])  # "on the 2013 Index"
            if len(turned) <= 130 and named and not (state or loose or "," in plain or _NO_EVENT.search(plain)):
                found.append(_Dated(turned, plain, sentence, *span))
    return task.rotate(found)


def compared(task: Task) -> Fields:
    """Whether one event came before or after another, one of each passage."""
    other = _beside(task, _partner(task))
    for one, two in task.rotate(product(_dated(task), _dated(other))):
        sure = one.last < two.first or two.last < one.first
        if not sure or _share(one.plain, two.plain):
            continue
        asked, told = (one, two) if task.rng.random() < 0.5 else (two, one)
        before = asked.last < told.first
        early, late = (asked, told) if before else (told, asked)
        question = task.in_context(f"{asked.asked} before or after {told.plain}?")
        word = "before" if before else "after"
        lead = task.pick((f"{word.capitalize()}.", f"{word.capitalize()} that.", f"It was {word} that."))
        return {"question": question, "answer": f"{lead} {early.sentence.text} {late.sentence.text}"}
    raise Declined("no two events, one of each passage, whose dates tell which was first")


def same_entity(task: Task) -> Fields:
    """What two articles tell of a name that both have."""
    other = _beside(task, _partner(task))
    for one, two in task.rotate(product(_naming(task, task.entity), _naming(other, task.entity))):
        nouns = {_noun(sentence, task.entity) for sentence in (one, two)}
        first, second = _with_subject(task, one), _with_subject(other, two)
        if len(nouns) == 1 and first and second:
            question = task.pick(_TOLD).format(a=task.reading.topic, b=other.reading.topic, e=nouns.pop())
            return {"question": question, "answer": f"{first} {second}"}
    raise Declined("no sentence on the name that stands alone in each passage")


def related(task: Task) -> Fields:
    """Two names, one of each passage, that stand beside the same third one."""
    other = _beside(task, _partner(task))
    seen = plain_words(task.reading.snippet.text), plain_words(other.reading.snippet.text)
    for one, two in task.rotate(product(_telling(task), _telling(other))):
        links = _names(task, two)
        own = [mention for mention in _names(task, one).values() if plain_words(mention.text) not in seen[1]]
        others = [mention for mention in links.values() if plain_words(mention.text) not in seen[0]]
        for name, a, b in task.rotate(product(sorted(links.keys() & _names(task, one).keys()), own, others)):
            link = links[name]
            if "person" not in (link.kind, a.kind, b.kind):
                continue  # that two places are both told of beside a third says little
            if _share(a.name, link.name) or _share(b.name, link.name) or _share(a.name, b.name):
                continue
            question = task.pick(_RELATED).format(t=task.reading.topic, a=a.noun, b=b.noun, e=link.noun)
            lead = task.pick((f"Both had to do with {link.noun}.", f"What they had in common was {link.noun}."))
            return {"question": question, "answer": f"{lead} {one.text} {two.text}"}
    raise Declined("no name that binds one of the first passage to one of the second")


def _telling(task: Task) -> list[Sentence]:
    return [s for s in task.sentences() if len(s.text) <= LONGEST and 1 < len(s.of("person", "place", "thing")) < 6]


def _names(task: Task, sentence: Sentence) -> dict[str, Mention]:
    """Names of a sentence that a question can turn on: known from more than it, and no part of the article's subject."""
    counts = task.library.lexicon.counts
    found = {}
    for mention in sentence.of("person", "place", "thing"):
        before, after = sentence.text[: mention.start], sentence.text[mention.end :]
        bare = mention.kind == "person" or mention.the or _BARE.search(before)
        fits = sum(map(str.isalpha, mention.name)) > 3 and mention.name.split(" ")[0].lower() not in words.AUXILIARIES
        own = task.is_topic(mention.name) or task.is_topic(mention.text)
        known = mention.kind == "person" or counts[mention.text] > 1
        part = re.search(r"\d|^\w-[a-z]|-elect\b", mention.name) or re.match(r" of (?:the )?[A-Z]|[–-]", after)
        sure = mention.kind != "person" or one_bearer(task.library, mention)
        if bare and fits and known and sure and not own and not part:
            found[mention.name] = mention
    return found


def _naming(task: Task, name: str) -> list[Sentence]:
    """Short sentences with a name in them that is more than another noun's adjective."""
    whole = re.compile(rf"(?<![\w-]){re.escape(name)}(?![\w-]| [A-Z])")
    return [
        sentence
        for sentence in task.sentences()
        if len(sentence.text) <= LONGEST
        and (found := whole.search(sentence.text))
        and not followed_by_noun(sentence.text[found.end() : found.end() + 40])
    ]


def _noun(sentence: Sentence, name: str) -> str:
    """A name with the article that it has in a sentence."""
    found = re.search(rf"\b[Tt]he {re.escape(name)}(?![\w-]| [A-Z])", sentence.text)
    return f"the {name}" if found else name


def _with_subject(task: Task, sentence: Sentence) -> str | None:
    """A sentence, begun with its article's subject where it does not name it; None where that would read badly."""
    if task.names_topic(sentence.text):
        return sentence.text
    inner = task.inside(sentence.text)
    return task.in_context(inner) if inner else None


def _share(one: str, other: str) -> bool:
    """Whether two texts have a longer word in common: then they may be about the same."""
    return bool(set(re.findall(r"\w{5,}", one.casefold())) & set(re.findall(r"\w{5,}", other.casefold())))


MAKERS: dict[str, Callable[[Task], Fields]] = {
    "cross/related-entities": related,
    "cross/compared-passages": compared,
    "cross/same-entity-in-two-articles": same_entity,
}
