"""Small prompt files, prompt types and snippets for the tests of this folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from foundation.prompt_type import FieldSpec, Options, Phase, PromptType, Turn
from foundation.records import Snippet
from generator.catalogue import load_catalogue

GOOD = """---
id: wh/who
version: 1
summary: A question that asks who.
needs: [person]
fields:
  question: {min: 10, max: 300}
  answer: {min: 2, max: 300}
unit: 64
---

# system

Write a question.

# user

Subject: {{ title }}

<passage>
{{ passage }}
</passage>

# record: user

{{ question }}

# record: assistant

{{ answer }}
"""


USER = "Subject: {{ title }}\n\n<passage>\n{{ passage }}\n</passage>"


def small(fields: Any, turns: Any, **more: Any) -> PromptType:
    """A prompt type with these fields; `turns` are (role, template), or (role, template, "untrained")."""
    made = {name: spec if isinstance(spec, FieldSpec) else FieldSpec(**spec) for name, spec in fields.items()}
    values: dict[str, Any] = {
        "id": "tests/small",
        "version": 1,
        "summary": "",
        "system": "Write a question.",
        "user": USER,
    } | more
    return PromptType(
        fields=made,
        turns=tuple(Turn(role=role, template=text, trained=not rest) for role, text, *rest in turns),
        **values,
    )


ASKED = ("user", "{{ question }}")
PASSAGE = small({"question": {}}, [ASKED, ("assistant", "{{ passage }}")])
"""The passage is the answer."""
ANSWERED = small({"question": {}, "answer": {}}, [ASKED, ("assistant", "{{ answer }}")])
"""The teacher writes question and answer."""
NUMBERED = FieldSpec(type="choice", values=("1", "2"))
_PAIR: dict[str, Any] = {
    "fields": {"stem": {}, "option_1": {}, "option_2": {}, "right": NUMBERED, "answer": {}},
    "turns": [("user", "{{ stem }}, {{ first }} or {{ second }}?"), ("assistant", "{{ answer }}")],
    "options": Options(fields=("option_1", "option_2"), right="right", order="both"),
    "checks": ("answer-names-right",),
}
TWO = small(**_PAIR)
"""A question with two options, in both orders."""
PEOPLE = Phase(
    name="extract",
    fields={"people": FieldSpec(type="list", items_min=0, items_max=6, max=80)},
    system="List people.",
    user=USER,
)
EACH = small(**_PAIR, id="tests/each", phases=(PEOPLE,), each="people", user="Person: {{ each }}\n\n" + USER)
"""The same, once for each person of a list that the teacher makes first."""


def put(folder: Path, text: str = GOOD, id_: str = "wh/who") -> Path:
    """Write a prompt file where its id says, below `folder`."""
    path = folder / f"{id_}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


def load_one(folder: Path, text: str = GOOD) -> PromptType:
    """The prompt type of one file."""
    put(folder, text)
    return load_catalogue(folder)["wh/who"]


def snippet(text: str, title: str = "Battle of Moscow", number: int = 0) -> Snippet:
    """A snippet of one article whose sentences are split at full stops."""
    sentences = tuple(f"{sentence.strip()}." for sentence in text.rstrip(".").split(". "))
    return Snippet(
        id=Snippet.make_id(f"{number} {text}"),
        article_id="article",
        title=title,
        source="tests",
        index=number,
        sentences=sentences,
        text=text,
    )


TRIO = ("Georgy Zhukov", "Ivan Konev", "Semyon Timoshenko")


def armies(count: int) -> list[Snippet]:
    """Snippets of which each tells of three people of its own, so that no unit asks about one of them twice."""
    return [
        snippet(" ".join(f"{name} {_family(n)} led an army." for name in TRIO), number=n, title="Armies")
        for n in range(count)
    ]


def people_of(text: Snippet) -> list[str]:
    """The three people of one of `armies`."""
    return [f"{name} {_family(text.index)}" for name in TRIO]


def _family(number: int) -> str:
    return "Ab" + "".join("abcdefghij"[int(digit)] for digit in str(number))
