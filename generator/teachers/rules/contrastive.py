"""The `contrastive` family: two of a kind, one of them right. First the features a question can turn on, then one for each.

Guarantees: a feature stands in the snippet as it is listed, once; with the same library, the second phase declines
nothing that the first one listed. The wrong option is of the right one's kind and stands neither in the
sentence that answers nor in the stem. The right one is the first option as often as the second, by the item's own seed.
Cost: about 0.5 ms a call: the table of what can be asked is made anew for each, and is the same for both phases.
"""

from __future__ import annotations

import functools
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from random import Random

from foundation.ids import seed_of
from generator.gates.fields import clash, plain_words
from generator.teachers.rules import facts
from generator.teachers.rules.lexicon import DEMONYM, looks_personal, split_title
from generator.teachers.rules.reading import Clause, Kind, Mention, Sentence
from generator.teachers.rules.statements import PRONOUN, Fields, dates, ended, inverted, people, single, titled
from generator.teachers.rules.task import Declined, Library, Task, trailing
from generator.teachers.rules.words import AUXILIARIES, FUNCTION_WORDS, TITLES, base_form, is_participle
from generator.teachers.rules.wrong import exchangeable, kinds_of, rivals, scaled

MOST = 6  # features of one snippet
LONGEST = 170  # characters of a stem without its context

_PREPOSITION = re.compile(
    r"\b(?:of|in|at|to|for|on|from|with|by|and|that|into|over|under|against|near|towards?|between)\b"
)
_FOLLOWS = re.compile(
    r"(?:$|,| (?:on|in|during|after|before|until|from|for|with|by|to|at|as|under|where|when|while)\b)"
)
_ABOUT = (
    r"(?:(?:about|some|around|nearly|almost|over|more than|at least|up to|only|roughly|fewer than|less than|approximately|an"
    r" estimated|a total of|as many as|well over|just|just over|another) )?"
)
_QUALIFIER = re.compile(_ABOUT, re.IGNORECASE)
_NEXT = "|".join(sorted(FUNCTION_WORDS - {"it", "he", "she", "they", "we", "you"}))
_COUNTED = re.compile(
    r" (?P<noun>(?:[A-Za-z][\w-]* ){0,3}?(?:[a-z-]+[a-rt-z]s|men|women|people|children|aircraft|troops|personnel|crew))"
    rf"(?: of (?:[a-z-]+ ){{0,2}}?[a-z-]+)?(?=$|,| (?:{_NEXT})\b)"
)
_NOBODY = frozenset(
    "Center Centre Space Laboratory Observatory Library Gallery Hospital Prison Programme Confederate".split()
)
_BOUND = re.compile(
    r"\b(?:(?:more than|over|at least)|(?P<below>fewer than|less than|under|at most|up to|almost|nearly|only|just)) $",
    re.IGNORECASE,
)
_EVENT = re.compile(
    r"\b(Battle|Siege|Operation|Treaty|Conference|War|Campaign|Revolution|Uprising|Raid|Offensive|Rebellion|Revolt|Expedition|"
    r"Invasion|Armistice|Crisis|Election|Pact|Convention|Mutiny|Massacre|Summit|Games|Olympics|Championship|Cup)\b"
)


@dataclass(frozen=True, slots=True)
class Fact:
    """What one feature turns on: the stem as yet without its context, and answers that name the right option."""

    right: Mention
    stem: str
    sentence: Sentence
    answers: tuple[str, ...]

    @property
    def option(self) -> str:
        """The right option as it stands behind "or"."""
        return self.right.noun if self.right.kind == "thing" else self.right.name


def persons(task: Task) -> Iterator[Fact]:
    for asked in people(task):
        if task.is_topic(asked.right.text) or not one_bearer(task.library, asked.right):
            continue
        stem = task.pick(("who {}", "which of the two {}", "who was it that {}")).format(asked.question)
        right = titled(task, asked.right)
        answers = (asked.answer, asked.answer, ended(f"It was {right} who {asked.question}"))
        yield Fact(asked.right, stem, asked.sentence, answers)


def one_bearer(library: Library, person: Mention) -> bool:
    """Whether a surname by itself can mean but one person of the unit: not "Lincoln", with Mary and Thomas beside Abraham."""
    return " " in person.text or len(_bearers(library)[person.text]) < 2


@functools.lru_cache(maxsize=8)
def _bearers(library: Library) -> defaultdict[str, set[str]]:
    """By surname, the full names that have it."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for run in library.lexicon.counts:
        name = split_title(run)[1]
        if " " in name and looks_personal(name):
            found[name.rpartition(" ")[2]].add(name)
    return found


def days(task: Task) -> Iterator[Fact]:
    for asked in dates(task, plain=True):
        if len(re.findall(r"\d{4}", asked.sentence.text)) == 1:
            yield Fact(asked.right, asked.question, asked.sentence, (asked.sentence.text, asked.answer))


def places(task: Task) -> Iterator[Fact]:
    for sentence, clause, mention in _named(task, "place"):
        for stem in (
            *_as_subject(clause, mention, "which of the two"),
            *_as_object(task, clause, mention, "which of the two"),
            *_behind(task, clause, mention, r"in|at|near|outside", "where"),
        ):
            yield Fact(mention, stem, sentence, (sentence.text,))
    yield from _asked_where(task)


def _asked_where(task: Task) -> Iterator[Fact]:
    """What the `wh` family asks of a place, where it can belong to nothing but the verb."""
    for fact in facts.places(task):
        out = [mention for mention in fact.sentence.of("place") if mention.text not in fact.question]
        if len(out) != 1 or not _free(fact.sentence, out[0]):
            continue
        before, after = fact.sentence.text[: out[0].start], fact.sentence.text[out[0].end :]
        if len(_PREPOSITION.findall(before)) < 3 and not re.match(r" to [a-z]", after):
            yield Fact(out[0], fact.question, fact.sentence, (fact.sentence.text,))


def events(task: Task) -> Iterator[Fact]:
    for sentence, clause, mention in _named(task, "thing"):
        head = _EVENT.search(mention.name)
        if head is None or len(mention.name) == len(head.group()):
            continue
        which = f"which {head.group().lower()}"
        for stem in (
            *_as_subject(clause, mention, which),
            *_as_object(task, clause, mention, which),
            *_behind(task, clause, mention, r"in|at|during|after|before", which),
        ):
            yield Fact(mention, stem, sentence, (sentence.text,))


def numbers(task: Task) -> Iterator[Fact]:
    for sentence, clause, mention in _named(task, "number"):
        for stem in (*_counted_subject(clause, mention), *_counted_object(task, clause, mention)):
            yield Fact(mention, stem, sentence, (sentence.text,))


def _named(task: Task, kind: Kind) -> Iterator[tuple[Sentence, Clause, Mention]]:
    """Mentions of a kind in sentences with one clear clause, each where another name could stand as well."""
    found = []
    for sentence in task.sentences():
        clause = sentence.clause
        if clause is None or len(sentence.text) > 260 or PRONOUN.search(clause.lead):
            continue
        for mention in sentence.mentions:
            if mention.kind == kind and _free(sentence, mention):
                found.append((sentence, clause, mention))
    yield from task.rotate(found)


def _free(sentence: Sentence, mention: Mention) -> bool:
    """Whether a mention stands once, and nothing beside it describes it further."""
    before, after = sentence.text[: mention.start], sentence.text[mention.end :]
    if mention.kind == "number" and _QUALIFIER.fullmatch(before):  # what opens a sentence has a capital, as names have
        return sentence.text.count(mention.text) == 1 < len(mention.text)
    if mention.kind == "number":
        return exchangeable(sentence, mention)
    once = sentence.text.count(mention.text) == 1
    return once and not before.endswith("-") and not re.match(r"[-'’/]| \(| and [A-Z]|, [A-Z]", after)


def _as_subject(clause: Clause, mention: Mention, asks: str) -> Iterator[str]:
    """ "Which of the two surrendered on 27 September": what is asked for takes the place of the subject."""
    if clause.subject.removeprefix("The ").removeprefix("the ") == mention.text:
        phrase = f"{clause.verb} {clause.main}{trailing(clause)}"
        if single(phrase) and mention.text not in phrase and not re.search(r"\b(?:they|their|them)\b", phrase):
            yield f"{asks} {phrase}"


def _as_object(task: Task, clause: Clause, mention: Mention, asks: str) -> Iterator[str]:
    """ "Which of the two did the Germans capture on 21 June"."""
    body = clause.main
    found = re.match(rf"(?:the )?{re.escape(mention.text)}", body)
    subject = _subject(task, clause)
    if found is None or subject is None or clause.verb in AUXILIARIES or not _FOLLOWS.match(body, found.end()):
        return
    turned = inverted(clause.verb, subject, body[found.end() :].strip(" ,"))
    if turned:
        yield f"{_leading(clause)}{asks} {turned}"


def _behind(task: Task, clause: Clause, mention: Mention, prepositions: str, asks: str) -> Iterator[str]:
    """ "Where did the division land on 9 April"; "in which battle did the ship sink"."""
    phrase = rf"(?P<prep>{prepositions}) (?:the )?{re.escape(mention.text)}"
    subject = _subject(task, clause)
    if subject is None:
        return
    in_lead = re.fullmatch(phrase, clause.lead, re.IGNORECASE)
    body = clause.main
    if in_lead:
        turned, prep, lead = inverted(clause.verb, subject, body), in_lead["prep"].lower(), ""
    else:
        found = re.search(rf"(?:^|(?<= )){phrase}", body)
        if found is None or not _FOLLOWS.match(body, found.end()):
            return
        before, after = body[: found.start()].strip(), body[found.end() :].strip(" ,")
        tokens = before.split()
        passive = clause.verb in ("was", "were")
        stray = _PREPOSITION.search(before) or any(token.endswith("ing") for token in tokens)
        stray = stray or bool(tokens and not passive and is_participle(tokens[-1]))  # "the men taken at Saratoga"
        if len(tokens) > 6 or stray or (passive and not (tokens and is_participle(tokens[0]))):
            return  # the place may belong to a noun before it: "the commander of the troops in Norway"
        turned, prep, lead = (
            inverted(clause.verb, subject, f"{before} {after}".strip()),
            found["prep"],
            _leading(clause),
        )
    if turned and mention.text not in turned:
        opening = asks if asks == "where" else f"{prep} {asks}"
        yield f"{lead}{opening} {turned}"


def _counted_subject(clause: Clause, mention: Mention) -> Iterator[str]:
    """ "How many people were killed in the raid"."""
    about = _QUALIFIER.match(clause.subject)
    if about and clause.subject.startswith(mention.text, about.end()):
        rest = clause.subject[about.end() + len(mention.text) :]
        counted = _COUNTED.fullmatch(rest) or re.fullmatch(r" (?:[A-Za-z][\w-]* ){0,3}[a-z-]+", rest)
        phrase = f"{clause.verb} {_to_comma(clause.main)}{trailing(clause)}"
        if counted and single(phrase):
            yield f"how many{rest} {phrase}"


def _counted_object(task: Task, clause: Clause, mention: Mention) -> Iterator[str]:
    """ "How many tanks did the division lose at Kursk"."""
    body, subject = clause.main, _subject(task, clause)
    about = _QUALIFIER.match(body)
    if subject is None or about is None or not body.startswith(mention.text, about.end()):
        return
    if clause.verb in AUXILIARIES and clause.verb != "had":
        return
    counted = _COUNTED.match(body, about.end() + len(mention.text))
    base = "have" if clause.verb == "had" else base_form(clause.verb)
    if counted is None or base is None or re.match(r" (?:and|or|to|of)\b", body[counted.end() :]):
        return
    tail = _to_comma(body[counted.end() :])  # "29 aircraft, five submarines and 64 men"
    yield f"{_leading(clause)}how many {counted.group().strip()} did {subject} {base}{tail}"


def _to_comma(text: str) -> str:
    """What stands before the first comma that is none of a number's."""
    return re.split(r",(?!\d)", text, maxsplit=1)[0]


def _subject(task: Task, clause: Clause) -> str | None:
    return clause.subject if clause.person else task.inside(clause.subject)


def _leading(clause: Clause) -> str:
    return f"{clause.lead[0].lower()}{clause.lead[1:]}, " if clause.lead else ""


def framed(task: Task, fact: Fact) -> str | None:
    """The stem as it is asked, its subject in front where that gives nothing away; None where it would read badly."""
    stem = fact.stem
    if len(stem) > LONGEST or re.search(r"[;:\"()]|[a-z]{2}\. ?[A-Z]", f"{stem}{fact.sentence.text[:-1]}"):
        return None
    if clash(fact.option, task.reading.topic) or task.is_topic(fact.right.name):
        if fact.right.kind == "place":
            return None  # what the article names beside it may lie inside it
        stem = stem[0].upper() + stem[1:]
        if len(re.findall(r"[A-Z]\w+|\d{4}", stem)) < 3:  # the word that asks, and two that tell what is asked about
            return None
    else:
        stem = task.in_context(stem)
    last = fact.right.name.rpartition(" ")[2] if fact.right.kind == "person" else fact.right.name
    return None if plain_words(last) in plain_words(stem) else stem


def wrong_for(task: Task, fact: Fact, stem: str) -> str | None:
    """Another option of the same kind, as it stands behind "or"."""
    text = f"{fact.sentence.text} {stem}"
    if fact.right.kind == "thing":
        return next(_other_events(task, fact, text), None)
    bound = _BOUND.search(fact.sentence.text[: fact.right.start])
    if bound:  # "more than 800 men" may be 1,200, and is not 600; below "fewer than 100" may be anything
        factors = [] if bound["below"] else task.rng.sample((0.4, 0.5, 0.6, 0.75), 4)
        return next((other for factor in factors if (other := scaled(fact.right.text, factor))), None)
    return next((name for name in _rivals(task, fact.right, text) if _alike(task, fact.right, name)), None)


def _rivals(task: Task, right: Mention, text: str) -> list[str]:
    """As many wrong names as there are, up to four."""
    for count in (4, 3, 2, 1):
        try:
            return rivals(task, right, text, count)
        except Declined:
            continue
    return []


def _alike(task: Task, right: Mention, name: str) -> bool:
    """Whether a name is fit to stand beside the right one, as far as the unit's words tell."""
    if right.kind == "person":
        words = name.split(" ")
        return not set(words) & _NOBODY and not set(words[1:]) & set(TITLES) and words[0] != task.reading.topic
    if right.kind != "place":
        return True
    people = [_has_people(task, place) for place in (name, right.name)]
    country = kinds_of(task.library).of_place(right.name) == "country"
    return name[:3] != right.name[:3] and people[0] == people[1] and (people[0] or not country)


def _has_people(task: Task, place: str) -> bool:
    """Whether the unit has a word for a country's people ("Italian" for "Italy"); a town inside it has none."""
    start = place[: 3 if len(place) < 6 else 4]
    return " " not in place and any(
        word.startswith(start) and word != place and DEMONYM.match(word) for word in task.library.lexicon.proper
    )


def _other_events(task: Task, fact: Fact, text: str) -> Iterator[str]:
    """Events of the same sort, the article's own first; what other articles of the unit are about is one of them."""
    head = _EVENT.search(fact.right.name)
    lexicon, topic = task.library.lexicon, task.reading.topic
    near = [other.noun for other in task.library.names(task.reading.snippet.article_id, fact.right)]
    far = [other.noun for other in task.library.names("", fact.right)]
    far += sorted({lexicon.topic(reading.snippet.title) for reading in task.library.readings.values()} - {topic})
    for names in (near, far):
        task.rng.shuffle(names)
    for name in (*near, *far):
        found = _EVENT.search(name)
        same = head and found and found.group() == head.group() and name.startswith("the ") == fact.right.the
        bare = name.removeprefix("the ")
        named = found and bare != found.group() and bare not in text
        if same and named and not clash(bare, fact.right.name) and not clash(bare, topic):
            yield name


_Facts = Callable[[Task], Iterable[Fact]]


def _askable(task: Task, find: _Facts) -> dict[str, list[tuple[Fact, str, str]]]:
    """By feature: what can be asked about it, with its stem and a wrong option."""
    snippet = task.reading.snippet
    task = replace(task, rng=Random(seed_of("facts", snippet.id, task.prompt_type, task.round)))  # one for both phases
    found: dict[str, list[tuple[Fact, str, str]]] = {}
    for fact in find(task):
        stem = framed(task, fact)
        wrong = wrong_for(task, fact, stem) if stem else None
        if stem and wrong and fact.right.text in snippet.text:
            found.setdefault(fact.right.text, []).append((fact, stem, wrong))
    return found


def maker(feature: str, find: _Facts) -> Callable[[Task], Fields]:
    """Both phases of one type: `extract` lists the features, `ask` takes one of them."""

    def make(task: Task) -> Fields:
        found = _askable(task, find)
        if task.phase == "extract":
            if not found:
                raise Declined(f"no fact that turns on one of two {feature}")
            return {feature: list(found)[:MOST]}
        asked = found.get(str(task.values["each"]))
        if not asked:
            raise Declined(f"no question that turns on {task.values['each']!r}")
        fact, stem, wrong = asked[task.round % len(asked)]
        options = [fact.option, wrong]
        right = task.rng.randrange(2)
        return {
            "stem": stem,
            "option_1": options[right],
            "option_2": options[1 - right],
            "right": str(right + 1),
            "answer": task.pick(fact.answers),
        }

    return make


MAKERS: dict[str, Callable[[Task], Fields]] = {
    "contrastive/person": maker("people", persons),
    "contrastive/place": maker("places", places),
    "contrastive/event": maker("events", events),
    "contrastive/date": maker("dates", days),
    "contrastive/number": maker("numbers", numbers),
}
