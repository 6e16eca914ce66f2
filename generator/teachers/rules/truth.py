"""The `truth` family: statements that are true, or false in exactly one point; questions that take something false for granted.

Guarantees: a false statement is a true sentence of the snippet with one value exchanged for another of its kind, and its
correction is that sentence. Cost: 0.1 to 0.5 ms an item.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from generator.teachers.rules import words
from generator.teachers.rules.passages.names import is_event, is_narrative, subject
from generator.teachers.rules.reading import Kind, Sentence, first_clause
from generator.teachers.rules.sound import in_context, leans_on_subject, sound, whole
from generator.teachers.rules.statements import (
    PRONOUN,
    Asked,
    Fields,
    ended,
    people,
    stated,
    when_clause,
)
from generator.teachers.rules.task import Declined, Task
from generator.teachers.rules.unanswerable import not_answerable
from generator.teachers.rules.wrong import Swap, exchangeable, rivals, swapped, titled_here, with_title

WORD = {"person": "name", "thing": "name", "date": "date", "number": "figure", "place": "place"}

# Words that turn a fact round: only such as cannot be true at once.
_OPPOSITES = (
    *(("north", "south"), ("east", "west"), ("northeast", "southwest"), ("northwest", "southeast")),
    *(("largest", "smallest"), ("strongest", "weakest"), ("highest", "lowest"), ("oldest", "youngest")),
    *(("longest", "shortest"), ("heavier", "lighter"), ("faster", "slower"), ("increased", "decreased")),
    *(("accepted", "rejected"), ("failed to", "managed to"), ("refused to", "agreed to"), ("won", "lost")),
    *(("shortly after", "shortly before"), ("more than", "fewer than"), ("more than", "less than")),
)
_TURNED = {one: other for pair in _OPPOSITES for one, other in (pair, pair[::-1])} | {
    "soon after": "shortly before",
    **{
        f"{unit} {one}": f"{unit} {other}"
        for unit in ("days", "weeks", "months", "years", "hours", "minutes")
        for one, other in (("after", "before"), ("before", "after"))
    },
}
_SOME_OF = re.compile(r"\b(?:include[sd]?|including|such as|for example|among(?:st)?|one of|some of|many of)\b")
_NO_PERSON = re.compile(
    r" (?:was|is|were|are) (?:the|an?) (?:[\w'’-]+ ){0,3}(?:organi[sz]ation|company|movement|group|party|union|federation|newspaper|"
    r"magazine|city|town|band|ship|language|school|project|film|book)\b"
)
_BROKEN = re.compile(r"[ ,](?:among|of|in|to|for|with|by|at|on|from|and|or|the|an?|one|some|most|all)$")
_MEASURE = r"kilomet|miles|met(?:re|er)s|years|days|hours|months|weeks|tons|tonnes|pounds|dollars|percent|per cent|feet|%|million|half"


def _must_follow(word: str) -> str:
    """What must stand behind a word for its opposite to make the fact false, and to read well."""
    if word.startswith(("north", "south", "east", "west")):
        return r"of\b"
    if word in ("won", "lost"):
        return r"the (?:war|battle|election|match|game|final|case|race)\b"
    return r"\d" if word.endswith(" than") else ""


_TURN = re.compile(
    rf"(?<![\w-])(?:{'|'.join(f'{word} (?={_must_follow(word)})' for word in sorted(_TURNED, key=len, reverse=True))})"
)


def true_statement(task: Task) -> Fields:
    """A sentence, or its first clause; the explanation adds what was left out, or what else is said of a name in it."""
    candidates = [
        sentence
        for sentence in task.sentences()
        if sentence.mentions and len(sentence.text) <= 240 and whole(task, sentence)
    ]
    for sentence in task.rotate(candidates):
        statement = _first_statement(sentence) if task.rng.random() < 0.6 else sentence.text
        if statement != sentence.text:
            return {"statement": placed(task, statement), "explanation": sentence.text}
        more = _said_further(task, sentence)
        if more and task.rng.random() < 0.8:
            return {"statement": placed(task, statement), "explanation": f"{sentence.text} {more}"}
        inner = task.inside(sentence.text)
        echoes = [f"That is right: {inner}", f"Indeed, {inner}"] if inner else []
        return {"statement": placed(task, statement), "explanation": task.pick((sentence.text, *echoes))}
    raise Declined("no sentence that stands alone and names anything")


_COMMON = re.compile(
    r"(?<=, )(?:Histor|Civil|Politic|Music|Physic|Mathematic|Technic|Techn|Librar|Academic|Guard)ians?\b"
)  # no demonyms
_BROAD = re.compile(r"^(?:On the subject of|With regard to|In the context of|In the story of) ")


def placed(task: Task, statement: str) -> str:
    """A statement with its subject in front where it names little, or speaks of "the plan" that only its subject tells."""
    text = stated(task, statement).replace(f" {task.reading.topic}, ", f" {subject(task)}, ", 1)
    if text == statement and leans_on_subject(statement) and not task.names_topic(statement):
        inner = task.inside(statement)
        text = in_context(task, inner) if inner else statement
    text = _COMMON.sub(lambda found: found.group().lower(), text)
    if not _BROAD.match(text):
        return text
    opening = "In the history of" if is_event(task) or is_narrative(task) else "In connection with"
    return f"{opening} {_BROAD.sub('', text)}"


def _first_statement(sentence: Sentence) -> str:
    """A sentence's first main clause as a sentence; all of it where what follows may be the end of a list."""
    clause = sentence.clause
    short = first_clause(clause.rest) if clause and not clause.lead else ""
    if clause is None or not 25 < len(short) < len(clause.rest):
        return sentence.text
    following = clause.rest[len(short) :].split()[1:9]
    if not any(words.is_past(word) or word in words.AUXILIARIES for word in following):
        return sentence.text
    return ended(f"{clause.subject} {clause.verb} {short}")


def _said_further(task: Task, sentence: Sentence) -> str:
    """Another sentence on a person or thing that this one names; empty if there is none."""
    named = {mention.name for mention in sentence.of("person", "thing") if not task.is_topic(mention.name)}
    for other in task.rotate(task.sentences()):
        shared = any(mention.name in named for mention in other.of("person", "thing"))
        if shared and other.text != sentence.text and len(other.text) + len(sentence.text) < 490:
            return other.text
    return ""


def false_statement(task: Task) -> Fields:
    """A fact turned round where a word allows it, else with another name, place, date or number in it."""
    turned = [found for one in task.sentences() if whole(task, one) and (found := _turned(one))]
    ways: list[Callable[[], Iterator[Swap]]] = [lambda: iter(task.rotate(turned)), lambda: _swaps(task)]
    if task.rng.random() < 0.5:
        ways.reverse()
    for way in ways:
        for swap in way():
            return {"statement": placed(task, swap.false), "correction": _lead(task, swap) + swap.sentence.text}
    raise Declined("no fact that can be turned round, and no name, date or number that another could take the place of")


def wrong(*kinds: Kind) -> Callable[[Task], Fields]:
    """A maker of statements that are wrong in one value of one of `kinds`."""

    def make(task: Task) -> Fields:
        for swap in _swaps(task, *kinds):
            return {"fact": _lead(task, swap) + swap.sentence.text, "statement": placed(task, swap.false)}
        raise Declined(f"no {WORD[kinds[0]]} that another could surely not take the place of")

    return make


def false_premise(task: Task) -> Fields:
    """A question on who or when, with another person, date, place or number in what it takes for granted."""
    ways = [lambda: _wrong_actor(task), lambda: _wrong_detail(task)]
    if (task.rng.randrange(2) + task.round) % 2:
        ways.reverse()
    for way in ways:
        for question, answer in way():
            if _BROKEN.search(question):
                continue
            return {"question": in_context(task, question + "?"), "answer": answer}
    raise Declined("no question on who or when that another name, date or number would make wrong")


def _turned(sentence: Sentence) -> Swap | None:
    """A sentence with one word turned into its opposite, if it has one such word."""
    found = list(_TURN.finditer(sentence.text))
    if len(found) != 1 or len(sentence.text) > 220 or not sentence.mentions:
        return None
    word, after = found[0].group().rstrip(), sentence.text[found[0].end() :]
    other = _TURNED.get(word)
    if word == "more than":
        other = "less than" if re.match(rf"[\d,.]+ (?:{_MEASURE})", after) else "fewer than"
    if other is None:
        return None
    false = f"{sentence.text[: found[0].start()]}{other} {after}"
    return Swap("", sentence, word, other, false)


def _swaps(task: Task, *kinds: Kind) -> Iterator[Swap]:
    """Sentences with one value exchanged, in this item's order."""
    wanted = kinds or ("person", "thing", "date", "number", "place")
    candidates = [
        (sentence, mention)
        for sentence in task.sentences()
        if len(sentence.text) <= 220 and whole(task, sentence)
        for mention in sentence.of(*wanted)
        if not task.is_topic(mention.name) and exchangeable(sentence, mention)
    ]
    for sentence, mention in task.rotate(candidates):
        before, after = sentence.text[: mention.start], sentence.text[mention.end :]
        if mention.kind == "person" and (PRONOUN.search(before) or _NO_PERSON.match(after)):
            continue
        if mention.kind in ("person", "thing", "place") and _SOME_OF.search(before):
            continue  # "included Avicenna": Aristotle may have been another of them
        found = swapped(task, sentence, mention)
        if found:
            yield found


def _lead(task: Task, swap: Swap) -> str:
    """What may stand before the correction: the right value by itself."""
    if not swap.kind:
        return ""
    word = WORD[swap.kind]
    return task.pick(
        ("", "", f"The right {word} is {swap.right}. ", f"The {word} should be {swap.right}, not {swap.wrong}. ")
    )


def _wrong_actor(task: Task) -> Iterator[tuple[str, str]]:
    """ "When did A do it?" where it was B."""
    for sentence in task.rotate(task.sentences()):
        clause = sentence.clause
        if clause is None or clause.person is None or sentence.when is None or task.is_topic(clause.person.name):
            continue
        asked = when_clause(task, sentence)
        if asked is None or asked.question.count(clause.subject) != 1 or not exchangeable(sentence, clause.person):
            continue
        if not sound(task, asked):
            continue
        if PRONOUN.search(asked.question):
            continue
        try:
            (name,) = rivals(task, clause.person, sentence.text, 1)
        except Declined:
            continue
        other = with_title(task, name)
        right = titled_here(task, clause.person)
        correction = task.pick((f"That was {right}, not {other}.", f"It was not {other} but {right}."))
        yield asked.question.replace(clause.subject, other), f"{correction} {sentence.text}"


def _wrong_detail(task: Task) -> Iterator[tuple[str, str]]:
    """ "Who did it in 1941?", "When did they lose 50 ships?" where the year or the number was another one."""
    found: list[tuple[str, Asked]] = [("who ", asked) for asked in people(task)]
    found += [("", asked) for sentence in task.sentences() if (asked := when_clause(task, sentence))]
    for opening, asked in task.rotate([one for one in found if sound(task, one[1])]):
        sentence = asked.sentence
        for mention in task.rotate(sentence.of("date", "number", "place")):
            question = asked.question
            if mention is asked.right or question.count(mention.text) != 1 or not exchangeable(sentence, mention):
                continue
            try:
                (wrong_one,) = rivals(task, mention, sentence.text, 1)
            except Declined:
                continue
            at = question.index(mention.text)
            swapped_question = question[:at] + wrong_one + question[at + len(mention.text) :]
            correction = _corrected(sentence, mention.kind, mention.start, mention.text, wrong_one)
            if correction:
                yield opening + swapped_question, f"{correction} {sentence.text}"


def _corrected(sentence: Sentence, kind: str, start: int, right: str, wrong_one: str) -> str:
    """The sentence that sets one value right; empty where it cannot be said simply."""
    if kind == "number":
        return f"The right number is {right}, not {wrong_one}."
    if kind == "date" and sentence.when:
        phrase = sentence.when.text[0].lower() + sentence.when.text[1:]
        return f"That was {phrase}, not {phrase.replace(right, wrong_one)}."
    before = re.search(r"\b(in|at|near|on|outside)( the)? $", sentence.text[:start])
    return f"That was {before.group()}{right}, not {before.group()}{wrong_one}." if before else ""


MAKERS: dict[str, Callable[[Task], Fields]] = {
    "truth/true-statement": true_statement,
    "truth/false-with-correction": false_statement,
    "truth/wrong-entity": wrong("person", "thing"),
    "truth/wrong-date": wrong("date"),
    "truth/wrong-place": wrong("place"),
    "truth/wrong-number": wrong("number"),
    "truth/false-premise": false_premise,
    "truth/not-answerable": not_answerable,
}
