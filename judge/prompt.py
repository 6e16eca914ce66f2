"""The language-model grader's prompt: `prompts/judge/grade.md` filled in, with all that is judged kept in its place.

Guarantees: nothing in an item or an answer can close its markers (they carry a mark made from the content), open a chat
tag, pretend to think, or leave a verdict-shaped line. Cost: about 50 µs an answer; the file is read once a process.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import SandboxedEnvironment

from foundation.errors import UsageError
from foundation.ids import stable_id
from foundation.records import Answer, Message, messages_of

FILE = Path(__file__).resolve().parent.parent / "prompts" / "judge" / "grade.md"
VARIABLES = ("title", "passage", "question", "reference", "answer", "mark")

_TAG = re.compile(r"<(?=\s*(?:\||/?\s*think\b))", re.IGNORECASE)
_MARKER = re.compile(r"<{2,}|>{2,}")
_VERDICT = re.compile(r"\b(verdict)(?=\W*[:：=\-])", re.IGNORECASE)


@functools.cache
def prompt_text(file: Path = FILE) -> str:
    """The prompt file, whole: what the fingerprint is made of. Raises `UsageError` if it is missing."""
    try:
        return file.read_text("utf-8")
    except FileNotFoundError as error:
        raise UsageError("the judge's prompt is missing", where=str(file), mend="install the project again") from error


def messages(answer: Answer, file: Path = FILE) -> tuple[Message, ...]:
    """What the grader is asked about one answer."""
    system, user = _sections(prompt_text(file), file)
    item = answer.item
    values = {
        "title": item.title,
        "passage": item.snippet,
        "question": item.question,
        "reference": item.reference,
        "answer": answer.text,
    }
    values = {name: defang(text) for name, text in values.items()} | {
        "mark": stable_id("mark", item.id, answer.text)[:8]
    }
    try:
        return messages_of([("system", system), ("user", _template(user).render(values))])
    except TemplateError as error:
        raise UsageError(
            f"the judge's prompt is wrong: {error}", where=str(file), mend=f"it may use {', '.join(VARIABLES)}"
        ) from error


def defang(text: str) -> str:
    """`text` as it can be shown to a grader: still readable, no longer able to act."""
    text = _MARKER.sub(lambda found: " ".join(found.group()), text)
    text = _TAG.sub("< ", text)
    return _VERDICT.sub(r"\1 (the student's word)", text).strip()


@functools.lru_cache(maxsize=4)
def _template(text: str):  # type: ignore[no-untyped-def]  # jinja2.Template
    environment = SandboxedEnvironment(undefined=StrictUndefined, autoescape=False)
    environment.globals.clear()
    return environment.from_string(text)


@functools.lru_cache(maxsize=4)
def _sections(text: str, file: Path) -> tuple[str, str]:
    head, divider, user = text.partition("\n# user\n")
    opening, _, system = head.partition("# system\n")
    if not divider or opening.strip() or not system.strip():
        raise UsageError("the judge's prompt lacks a section", where=str(file), mend="it has `# system`, then `# user`")
    return system.strip(), user.strip()
