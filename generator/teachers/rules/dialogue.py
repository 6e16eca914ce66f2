"""The `dialogue` family: several turns on one passage.

Guarantees: every answer that is trained on is a sentence of the passage, or its main clause; only the mistake that the user
corrects is false, in one name or date. A turn that follows on takes up a name of the answer before it, or its date.
Cost: 0.1 to 1 ms an item; chains of turns cost the most.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from generator.teachers.rules.passages.names import keys_of, last_name, subject, with_article
from generator.teachers.rules.reading import Mention, Sentence, first_clause
from generator.teachers.rules.sound import dangling, in_context, sound
from generator.teachers.rules.statements import PRONOUN, Asked, Fields, dates, ended, people
from generator.teachers.rules.task import Declined, Task
from generator.teachers.rules.telling import Event, about, event_of
from generator.teachers.rules.wrong import rivals, with_title

VAGUE = (
    "I have a question about {t}.",
    "Can you help me with {t}?",
    "I'd like to know something about {t}.",
    "There is something about {t} that I can't remember.",
    "Do you know much about {t}?",
    "I am reading about {t} and I am stuck.",
    "Could I ask you something about {t}?",
    "Could you help me find something on {t}?",
)
BACK = (
    "Let me help. Is it about {a}, about {b}, or about something else?",
    "Of course. Which part do you mean: {a}, {b}, or another one?",
    "Of course. Are you thinking of {a} or of {b}?",
    "Sure. Do you want to know about {a}, {b}, or something else?",
    "What would you like to know: something about {a}, or rather about {b}?",
    "Certainly. There is a lot to tell, for example about {a} or {b}. What do you have in mind?",
)
MEANT = (
    "It is about {a}. {q}",
    "I mean {a}. {q}",
    "The part with {a}. {q}",
    "{A}, I think. {q}",
    "About {a}, please. {q}",
    "I was thinking of {a}. {q}",
)
WHEN_WAS_THAT = (
    "When was that?",
    "And when was that?",
    "When did that happen?",
    "What was the date of that?",
    "And the date?",
)
MORE = (
    "What else is known about {n}?",
    "Tell me more about {n}.",
    "And what else can you tell me about {n}?",
    "What more is there to say about {n}?",
    "What else is there to know about {n}?",
)
ELSE = (
    "What else did {n} do?",
    "And what else did {n} do?",
    "Is that all that {n} did?",
    "What more do we know of {n}?",
)
WRONG = (
    "I don't think that is right. It was {r}, not {w}.",
    "Are you sure? As far as I know it was {r}.",
    "That must be a mix-up: it was {r}, not {w}.",
    "No, not {w}. It was {r}.",
    "Hm, I have read that it was {r}.",
    "That can't be right, it was {r}.",
    "My notes say {b}, not {v}.",
)
AGREED = (
    "You are right. {a}",
    "You are right, thank you for the correction. {a}",
    "Yes, that was my mistake. {a}",
    "Indeed, it was {r}. {a}",
    "Thank you, you are right: it was {r}, not {w}. {a}",
    "That is correct, and I was wrong. {a}",
)
OPENINGS = (
    "I'd like to learn about {t}, above all about {k}.",
    "Can you teach me something about {t}? I have to know about {k}.",
    "We are doing {t} at school, and I don't know much about {k} yet.",
    "Please give me a short lesson on {t}, with {k}.",
    "Could you go through {t} with me? I'm not sure about {k}.",
    "I want to practise for my test on {t}. It will be about {k}.",
)
LESSONS = (
    "Let us begin with this: {s} Now you: {q}",
    "Gladly. {s} Can you tell me now: {q}",
    "Good. {s} Let me see what you remember: {q}",
    "With pleasure. {s} Now a question for you: {q}",
)
FEEDBACK = (
    "That is right. {s} Now something new: {q}",
    "Correct. {s} And do you know this: {q}",
    "Yes, exactly. {s} Now a harder question: {q}",
    "Well remembered. {s} Let us go on: {q}",
)
UNSURE = (
    "I don't remember.",
    "I'm not sure. Can you tell me?",
    "I don't know that one.",
    "No idea, I'm afraid.",
    "I would have to guess. What is the answer?",
)
CLOSINGS = (
    "The answer is {n}. {a}",
    "No matter, that is what we are here for. {a} So the answer is {n}.",
    "That one is hard. {a}",
    "It was {r}. {a}",
    "Then let me tell you. {a} Remember: it was {r}.",
)

_IT = re.compile(r"\b(?:it|they|them)\b")  # of what, only the sentences around it say


@dataclass(frozen=True, slots=True)
class Turn:
    """A question, its answer, and the sentence it is from; `dated`: the date has been told."""

    question: str
    answer: str
    sentence: Sentence
    dated: bool


def clarifying_question(task: Task) -> Fields:
    """The user names the subject only; asked back, the user names a part of it and asks."""
    for one in _asked(task):
        named = [
            with_article(mention.noun)
            for mention in one.sentence.of("person", "place", "thing")
            if mention is not one.right and mention.name in one.question and _can_stand(task, mention)
        ]
        for name in task.rotate(named):
            others = [
                key for key in _keys(task) if key not in one.sentence.text and key not in name and name not in key
            ]
            if not others:
                continue
            pair = (
                {"a": name, "b": task.pick(others)} if task.pick((True, False)) else {"a": task.pick(others), "b": name}
            )
            question = f"{one.question[0].upper()}{one.question[1:]}?"
            meant = task.pick(MEANT).format(a=name, A=f"{name[0].upper()}{name[1:]}", q=question)
            return {
                "vague": task.pick(VAGUE).format(t=subject(task)),
                "back": task.pick(BACK).format(**pair),
                "meant": meant,
                "answer": one.answer,
            }
    raise Declined("no question that names something besides its answer")


def follow_up_chain(task: Task) -> Fields:
    """A question on one fact; then its date, or what else is told of a name in the answer; then once more."""
    for opening in _openings(task):
        second = next(_following(task, [opening]), None)
        third = next(_following(task, [opening, second]), None) if second else None
        if second and third:
            turns = enumerate((opening, second, third), 1)
            return {
                key: value
                for number, turn in turns
                for key, value in ((f"question_{number}", turn.question), (f"answer_{number}", turn.answer))
            }
    raise Declined("no three facts that hang together")


def _openings(task: Task) -> Iterator[Turn]:
    for one in _asked(task):
        event = _event(task, one.sentence)
        if one.right.kind == "person" and event and event.text.startswith(_subject(one)):
            asked = first_clause(event.text[len(_subject(one)) :].strip(" ."))
            if len(asked) < 12 or asked.startswith(","):
                continue
            question = in_context(task, f"{task.pick(('who', 'who', 'which person'))} {asked}?")
            yield Turn(question, ended(f"{_named(one.right)} {asked}"), one.sentence, dated=False)
        else:
            dated = bool(one.sentence.of("date"))
            yield Turn(in_context(task, f"{one.question}?"), one.answer, one.sentence, dated)


def _subject(one: Asked) -> str:
    return one.sentence.clause.subject if one.sentence.clause else "\n"


def _following(task: Task, turns: list[Turn]) -> Iterator[Turn]:
    """What could be asked next: the date of the last answer, or more about a name in it."""
    last = turns[-1]
    event = _event(task, last.sentence)
    if event and event.fronted and not last.dated:
        yield Turn(task.pick(WHEN_WAS_THAT), event.fronted, last.sentence, dated=True)
    used = [turn.sentence for turn in turns]
    for told in (last.answer, *(turn.answer for turn in turns[:-1])):
        for sentence in task.rotate(task.sentences()):
            if sentence in used or len(sentence.text) > 300:
                continue
            for mention in task.rotate(sentence.of("person", "thing", "place")):
                known = re.search(rf"\b{re.escape(mention.name)}\b|\b{re.escape(mention.text)}\b", told)
                if known and _can_stand(task, mention) and not any(mention.name in turn.question for turn in turns[1:]):
                    yield _more(task, sentence, mention)


def _more(task: Task, sentence: Sentence, mention: Mention) -> Turn:
    clause = sentence.clause
    doer = clause is not None and clause.person is mention and clause.verb not in ("was", "were", "had")
    name = (
        last_name(mention.name) if mention.kind == "person" and task.pick((True, False)) else with_article(mention.noun)
    )
    event = _event(task, sentence)
    answer, dated = (event.text, False) if event and task.pick((True, False)) else (sentence.text, True)
    return Turn(task.pick(ELSE if doer else MORE).format(n=name), answer, sentence, dated)


def tutor_and_pupil(task: Task) -> Fields:
    """The tutor tells two facts and asks for one; tells another, and asks for one that the pupil does not know."""
    asked = [one for one in _asked(task) if len(one.question) <= 180]
    for first in asked:
        for other in asked:
            told = [
                one for one in _plain(task) if one not in (first.sentence, other.sentence) and not _tells(one, other)
            ]
            if other.sentence is first.sentence or not told or _tells(first.sentence, other):
                continue
            order = task.reading.sentences
            lesson = sorted((first.sentence, *told[1:2]), key=order.index)
            opening = about(task, task.pick(OPENINGS), [*lesson, told[0], other.sentence])
            right, short = _short(task, first), _short(task, other)
            fields = {
                "opening": opening or "",
                "lesson": task.pick(LESSONS).format(s=" ".join(s.text for s in lesson), q=_question(first.question)),
                "reply_1": task.pick((f"{right[0].upper()}{right[1:]}.", f"It was {right}.", f"That was {right}.")),
                "feedback": task.pick(FEEDBACK).format(s=told[0].text, q=_question(other.question)),
                "reply_2": task.pick(UNSURE),
                "closing": task.pick(CLOSINGS).format(r=short, n=other.right.name, a=other.sentence.text),
            }
            if opening and len(fields["lesson"]) <= 560 and len(fields["feedback"]) <= 480:
                return {**fields}
    raise Declined("fewer than two facts to ask about, and one to tell")


def _question(asked: str) -> str:
    return f"{asked}?"


def _plain(task: Task) -> list[Sentence]:
    return task.rotate(
        sentence
        for sentence in task.sentences()
        if sentence.mentions and len(sentence.text) <= 220 and not dangling(task, sentence)
    )


def _tells(sentence: Sentence, asked: Asked) -> bool:
    """Whether a sentence gives an answer away."""
    return asked.right.text in sentence.text


def _short(task: Task, asked: Asked) -> str:
    return _named(asked.right) if asked.right.kind == "person" else _dated(asked.right.name)


def _named(person: Mention) -> str:
    """A person with the title that stands in front of the name here; one from elsewhere may be a later one."""
    return f"{person.title} {person.name}".strip()


def _dated(date: str) -> str:
    """A date with its preposition, as an answer gives it: "on 4 June 1942", "in June 1942"."""
    day = re.search(r"\d", re.sub(r"\d{4}", "", date))
    return f"{'on' if day else 'in'} {date}"


def correction_by_the_user(task: Task) -> Fields:
    """A right question, an answer wrong in its name or date, and its correction."""
    for one in task.rotate([*people(task), *dates(task, plain=True)]):
        try:
            (wrong,) = rivals(task, one.right, f"{one.sentence.text} {one.question}", 1)
        except Declined:
            continue
        person = one.right.kind == "person"
        if _IT.search(one.question) or not sound(task, one):
            continue
        if person and (PRONOUN.search(one.question) or re.search(r", [A-Z]", one.question)):
            continue  # "her", said of another, may be wrong
        right = one.right.name if person else _dated(one.right.name)
        false = wrong if person else _dated(wrong)
        question = in_context(task, f"who {one.question}?" if person else f"{one.question}?")
        mistake = (
            ended(f"{with_title(task, wrong)} {one.question}") if person else one.answer.replace(one.right.text, wrong)
        )
        if mistake == one.answer or len(mistake) > 300:
            continue
        words = {"r": right, "w": false, "a": one.answer, "b": one.right.name, "v": wrong}
        return {
            "question": question,
            "mistake": mistake,
            "correction": task.pick(WRONG).format(**words),
            "answer": task.pick(AGREED).format(**words),
        }
    raise Declined("no fact with a name or date that another could take the place of")


def _asked(task: Task) -> list[Asked]:
    """Questions with "who" and "when", each whole, with the answer as a full sentence."""
    found = []
    for one in people(task):
        if not re.search(r", [A-Z]", one.question) and sound(task, one):
            found.append(Asked(f"who {one.question}", one.right, one.sentence, one.answer))
    found += [one for one in dates(task, plain=True) if sound(task, one)]
    return task.rotate(
        [one for one in found if not _IT.search(one.question) and ". " not in one.question.replace("St. ", "")]
    )


def _event(task: Task, sentence: Sentence) -> Event | None:
    return event_of(task, sentence, 0)


def _can_stand(task: Task, mention: Mention) -> bool:
    """Whether a name can be asked about by itself: it is not the subject, and no adjective or number."""
    return len(mention.name) > 3 and not task.is_topic(mention.name) and not re.search(r"\d{2,}", mention.name)


def _keys(task: Task) -> list[str]:
    try:
        return keys_of(task)
    except Declined:
        return []


MAKERS: dict[str, Callable[[Task], Fields]] = {
    "dialogue/clarifying-question": clarifying_question,
    "dialogue/correction-by-the-user": correction_by_the_user,
    "dialogue/follow-up-chain": follow_up_chain,
    "dialogue/tutor-and-pupil": tutor_and_pupil,
}
