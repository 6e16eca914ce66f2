"""Questions of the `wh` family: who, what, when, where, why, how, which, how many, how long and whose.

Guarantees: the answer is one or two full sentences that hold the fact, the question never says it. Declines where the
snippet states no such fact in a clause that is certain. Cost: about 0.1 ms a question.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from generator.teachers.rules import counted, facts, words
from generator.teachers.rules.facts import Fact
from generator.teachers.rules.statements import Fields, dates, ended, people, titled
from generator.teachers.rules.task import Declined, Task


def who(task: Task) -> Fields:
    for asked in people(task, topic=True):
        verb_phrase = asked.question
        form = task.pick(
            ("who {}", "who {}", "which person {}", "what is the name of the person who {}", "who was it that {}")
        )
        question = form.format(verb_phrase) + "?"
        topical = task.is_topic(asked.right.name)  # then its subject would be the answer
        question = question[0].upper() + question[1:] if topical else task.in_context(question)
        short = ended(f"{titled(task, asked.right)} {verb_phrase}")
        answer = task.pick((asked.answer, short, ended(f"It was {titled(task, asked.right)} who {verb_phrase}")))
        return {"question": question, "answer": answer}
    raise Declined("no sentence says what one named person did")


def when(task: Task) -> Fields:
    for asked in dates(task):
        question = task.in_context(asked.question + "?")
        return {"question": question, "answer": task.pick((asked.sentence.text, asked.answer))}
    raise Declined("no sentence puts one event at one date")


def what(task: Task) -> Fields:
    for sentence, clause, phrase, rest in counted.objects(task):
        named = re.search(r"[A-Z]|\d", rest) or (clause.person and re.search(r"\d{4}", clause.lead))
        if not _thing(phrase) or len(rest) < 8 or not named or clause.verb in _OF_PEOPLE:
            continue
        if re.match(r"(?:that|which|who|whose|of)\b", rest) or (rest.startswith("to ") and clause.verb not in _MOVES):
            continue
        question = facts.turned(task, clause, rest, "what")
        if question and facts.hidden(task, question, phrase):
            return _asked(task, Fact(question, facts.stated(clause, clause.main), sentence))
    raise Declined("no sentence says what one thing was that something was done to")


_OF_PEOPLE = frozenset(
    """dismissed appointed met told ordered killed replaced married asked promoted persuaded joined succeeded said became reached
    entered took made gave fought played won left felt lay stood remained seemed proved cost spent called named""".split()
)

_MOVES = frozenset("sent moved brought returned transferred carried shipped delivered used".split())


def _thing(phrase: str) -> bool:
    """Whether an object can stand behind "what": a thing of two words and more that is no person, place or number."""
    return bool(
        re.match(r"(?:the|a|an|no|new|large|heavy|special|several|many) [a-z]", phrase)
        and (len(phrase.split()) >= 3 or len(phrase.split()[-1]) >= 8)
        and not words.is_past(phrase.split()[-1])
        and not re.fullmatch(r"the (?:operation|invasion|campaign|offensive|landings|assault)", phrase)
        and not counted.PEOPLE.search(phrase)
        and not re.search(r"\b(?:and|or|his|her|its|their|it|them)\b", phrase)
    )


def asker(
    find: Callable[[Task], list[Fact]], missing: str, opening: str = "", others: Sequence[str] = ()
) -> Callable[[Task], Fields]:
    """A maker of questions on the facts that `find` finds; `others` may stand in the place of the question's `opening`."""

    def make(task: Task) -> Fields:
        for fact in find(task):
            question = fact.question
            if others and question.startswith(f"{opening} ") and " die" not in question:
                question = task.alternate((opening, *others)) + question[len(opening) :]
            return _asked(task, Fact(question, fact.answer, fact.sentence))
        raise Declined(missing)

    return make


def _asked(task: Task, fact: Fact) -> Fields:
    answer = task.pick((fact.sentence.text, fact.answer))
    return {"question": task.in_context(fact.question + "?"), "answer": answer}


MAKERS: dict[str, Callable[[Task], Fields]] = {
    "wh/who": who,
    "wh/what": what,
    "wh/when": when,
    "wh/where": asker(facts.places, "no sentence puts one event in one place", "where", ("in what place",)),
    "wh/why": asker(facts.reasons, "no sentence gives a reason", "why", ("for what reason",)),
    "wh/how": asker(facts.means, "no sentence says by what means", "how", ("in what way", "by what means")),
    "wh/which": asker(counted.chosen, "no sentence turns on one of a kind"),
    "wh/how-many": asker(counted.counts, "no sentence counts one thing"),
    "wh/how-long": asker(facts.durations, "no sentence says how long something took"),
    "wh/whose": asker(counted.owners, "no sentence turns on what belonged to one person"),
}
