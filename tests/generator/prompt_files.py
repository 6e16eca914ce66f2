"""Makers of small prompt files and snippets for the tests of this folder."""

from __future__ import annotations

from pathlib import Path

from foundation.prompt_type import PromptType
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
