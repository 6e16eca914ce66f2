"""The `qpt` family: questions that a whole passage answers, in 28 registers and forms.

Guarantees: a question names the article's subject and what in this passage its neighbours have least of, so that it
asks for this passage and no other. Declines where nothing in it can be named. Cost: about 0.2 ms a question.
"""

from __future__ import annotations

from collections.abc import Callable

from generator.teachers.rules.passages import forms, phrases
from generator.teachers.rules.passages.names import inside, is_narrative, joined, keys_of, story, subject
from generator.teachers.rules.passages.slips import mistyped
from generator.teachers.rules.statements import Fields
from generator.teachers.rules.task import Task

Maker = Callable[[Task], Fields]


def asker(choice: tuple[str, ...], *, opens: bool = True) -> Maker:
    """A maker that fills one of the phrases."""

    def make(task: Task) -> Fields:
        return {"question": fill(task, choose(task, choice), opens=opens)}

    return make


def choose(task: Task, choice: tuple[str, ...]) -> str:
    """One of the phrases; those that say that something happened are for passages that tell of events."""
    happens = is_narrative(task)
    return task.pick([phrase for phrase in choice if happens or "happened" not in phrase])


def fill(task: Task, phrase: str, *, opens: bool = True) -> str:
    """A phrase with its subject and what singles the passage out; `opens`: it begins a sentence."""
    text = phrase.format(t=subject(task), s=story(task), i=inside(task), k=joined(keys_of(task)))
    return text[0].upper() + text[1:] if opens else text


def _typed(task: Task) -> Fields:
    phrase = choose(task, phrases.PLAIN)
    return {"question": fill(task, mistyped(phrase, task.rng, _KNOWN, task.library.lexicon.lower))}


def _lower(task: Task) -> Fields:
    text = fill(task, choose(task, phrases.PLAIN)).lower()
    return {"question": text.rstrip("?.") if task.rng.random() < 0.5 else text}


def _slang(task: Task) -> Fields:
    text = fill(task, choose(task, phrases.SLANG), opens=False)
    return {"question": text.lower() if task.rng.random() < 0.6 else text}


def _conversation(task: Task) -> Fields:
    return {"question": fill(task, f"{task.pick(phrases.LEAD_INS)} {choose(task, phrases.FOLLOW_ON)}")}


def _post(task: Task) -> Fields:
    return {"question": fill(task, f"{task.pick(phrases.FORUM_TITLES)}\n{choose(task, phrases.FORUM_BODIES)}")}


def _mail(task: Task) -> Fields:
    body = choose(task, phrases.MAIL_BODIES)
    return {"question": fill(task, f"{task.pick(phrases.GREETINGS)}\n{body}\n{task.pick(phrases.SIGN_OFFS)}")}


_KNOWN = frozenset(word for phrase in phrases.PLAIN for word in phrase.lower().strip("?.").split())

MAKERS: dict[str, Maker] = {
    "qpt/formal": asker(phrases.FORMAL),
    "qpt/casual": asker(phrases.CASUAL),
    "qpt/with-typos": _typed,
    "qpt/lower-case": _lower,
    "qpt/terse-keywords": forms.keywords,
    "qpt/imperative": asker(phrases.IMPERATIVE),
    "qpt/conversational": _conversation,
    "qpt/curious-child": asker(phrases.CHILD),
    "qpt/student-before-an-exam": asker(phrases.STUDENT),
    "qpt/teacher": asker(phrases.TEACHER),
    "qpt/journalist": asker(phrases.JOURNALIST),
    "qpt/historian": asker(phrases.HISTORIAN),
    "qpt/sceptic": asker(phrases.SCEPTIC),
    "qpt/non-native-english": asker(phrases.LEARNER),
    "qpt/chat-slang": _slang,
    "qpt/polite-request": asker(phrases.POLITE),
    "qpt/search-query": forms.query,
    "qpt/forum-post": _post,
    "qpt/voice-assistant": asker(phrases.VOICE),
    "qpt/e-mail": _mail,
    "qpt/tell-me-about": asker(phrases.TELL),
    "qpt/explain": asker(phrases.EXPLAIN),
    "qpt/what-do-you-know": asker(phrases.KNOW),
    "qpt/what-happened": forms.happened,
    "qpt/why-did": forms.why,
    "qpt/who-was": forms.who,
    "qpt/when-and-where": forms.when_where,
    "qpt/bare-topic": forms.bare_topic,
}
