"""Questions that a whole passage answers.

Guarantees: a question names the article's subject and what in this passage its neighbours have least of, so that it
asks for this passage and no other. Declines where nothing in it can be named. Cost: about 30 µs a question.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from generator.teachers.rules.statements import Fields
from generator.teachers.rules.task import Declined, Task

FORMAL = (
    "Could you give an account of {t}, with particular reference to {k}?",
    "What is known about {t}, and in particular about {k}?",
    "What should be said of {k} in a history of {t}?",
    "How would you describe {t} with regard to {k}?",
    "Would you kindly summarise what happened in connection with {k} in the history of {t}?",
    "What part do {k} play in the history of {t}?",
    "Please set out what is recorded of {k} in connection with {t}.",
    "In the study of {t}, what is of note concerning {k}?",
    "What does the record say about {k} where {t} is concerned?",
    "May I ask for an outline of {t} as it concerns {k}?",
)
STUDENT = (
    "I have an exam tomorrow on {t}. Can you go over {k} for me?",
    "My history test covers {t} and I keep forgetting the part about {k}. What do I need to know?",
    "I'm revising {t} tonight. What should I remember about {k}?",
    "Quick revision question on {t}: what do I have to know about {k}?",
    "We have a test on {t} tomorrow and I missed the lesson on {k}. Can you explain it?",
    "For my exam on {t}, how do {k} fit in?",
    "I need to learn {t} by tomorrow. Could you take me through {k}?",
    "If the exam asks about {k} in connection with {t}, what should I write?",
    "My teacher says {k} will come up in the test on {t}. What happened there?",
    "Help me study for my exam on {t}: what are the main points about {k}?",
)
TELL = (
    "Tell me about {k} in {t}.",
    "Tell me about {t}, especially {k}.",
    "Can you tell me about {k} in the story of {t}?",
    "I'd like you to tell me about {t} and how {k} come into it.",
    "Tell me about {k} and their place in {t}.",
    "Please tell me about {t}, and about {k} in particular.",
    "Could you tell me about {k} in connection with {t}?",
    "Tell me more about {t}, above all about {k}.",
    "I want you to tell me about {t}, starting with {k}.",
    "Tell me what you know about {k} in the history of {t}.",
)


def asker(phrases: tuple[str, ...]) -> Callable[[Task], Fields]:
    """A maker that fills one of `phrases`."""

    def make(task: Task) -> Fields:
        return {"question": fill(task, task.pick(phrases))}

    return make


def fill(task: Task, phrase: str, *, opens: bool = True) -> str:
    """A phrase with its subject and what singles the passage out; `opens`: it begins a sentence."""
    keys = keys_of(task)
    text = phrase.format(t=task.reading.topic, k=_joined(keys))
    return text[0].upper() + text[1:] if opens else text


def keys_of(task: Task) -> list[str]:
    """Two or three names that single this passage out: the rarest in the article, from different sentences."""
    counts = task.library.lexicon.counts
    ranked: dict[str, tuple[int, int]] = {}
    for number, sentence in enumerate(task.reading.sentences):
        for mention in sentence.of("person", "place", "thing"):
            if task.is_topic(mention.name) or not _nameable(mention.name):
                continue
            ranked.setdefault(mention.noun, (counts[mention.text], number))
    rare = sorted(ranked, key=lambda name: ranked[name])[:6]
    chosen: list[str] = []
    used: set[int] = set()
    for name in task.rotate(rare):
        apart = not any(name in other or other in name for other in chosen)
        if apart and ranked[name][1] not in used and len(chosen) < (3 if task.rng.random() < 0.4 else 2):
            chosen.append(name)
            used.add(ranked[name][1])
    if len(chosen) < 2:
        raise Declined("fewer than two names that single the passage out")
    return sorted(chosen, key=lambda name: ranked[name][1])


def _nameable(name: str) -> bool:
    return len(name) > 3 and not re.search(r"\d{2,}", name)


def _joined(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"


MAKERS: dict[str, Callable[[Task], Fields]] = {
    "qpt/formal": asker(FORMAL),
    "qpt/student-before-an-exam": asker(STUDENT),
    "qpt/tell-me-about": asker(TELL),
}
