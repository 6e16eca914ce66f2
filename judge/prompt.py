"""The language-model grader's prompts: files of `prompts/judge/` filled in, with all that is judged kept in its place.

Two files: `grade.md`, and `passage.md` for references of `LONG` words and more (a whole passage, a table, a list), where an
answer is weighed claim by claim instead of by the one fact that was asked for. A workspace's own `prompts/judge/NAME.md` takes
the place of the project's, each for itself. A file has the sections `# system`, the same for every answer, so that the server's
prefix cache serves it, and `# user`, a Jinja template that may use `VARIABLES`.
Guarantees: nothing in an item or an answer can close its markers (they carry a mark made from the content), open a chat
tag, pretend to think, or leave a verdict-shaped line. A wrong file is refused before any model is started. Two answers to one
question have the same prompt up to the student's text: the prefix cache serves that too.
Cost: 20 to 40 µs an answer; the files are read once a grader.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundation.errors import UsageError
from foundation.ids import stable_id
from foundation.records import Answer, Message, messages_of
from judge.parse import UNSEEN, WIDE

if TYPE_CHECKING:
    from jinja2 import Template

FOLDER = Path(__file__).resolve().parent.parent / "prompts" / "judge"
GRADE, PASSAGE = "grade.md", "passage.md"
# Words from which a reference is a passage, not a fact with its sentence around it. In the example's data the longest
# reference of a question has 37, the shortest of a passage 45.
LONG = 40
VARIABLES = ("title", "passage", "question", "reference", "answer", "mark", "source_mark")

# What opens or closes a turn or a thought for one family of models or another; HTML stays as it is.
_TAG = re.compile(
    r"<(?=\s*(?:\||/?\s*(?:think|thought|reasoning|start_of|end_of|(?:s|bos|eos|pad|unk|sys|turn\|?)\s*>|tool_)))"
    r"|\[(?=\s*/?\s*(?:think|inst|img|system_prompt|available_tools|tool_(?:calls|results|content))\s*\])",
    re.IGNORECASE,
)
_MARKER = re.compile(r"<{2,}|>{2,}")
# Letters of other scripts, zero width and full width must not hide the word from the search either.
_VERDICT = re.compile(
    "(?<![^\\W_])(v[\\W_]{0,2}e[\\W_]{0,2}r[\\W_]{0,2}d[\\W_]{0,2}i[\\W_]{0,2}c[\\W_]{0,2}t)"
    "(?=[\\W_]*[:：=|\\-–—>]|[\\W_]*(?:is[\\W_]+)?(?:pass|fail)|[ \\t*_#]*$)",
    re.IGNORECASE | re.MULTILINE,
)
_BOXED = re.compile(r"\\+(?=boxed\b)", re.IGNORECASE)


@dataclass(frozen=True)
class PromptFile:
    """One prompt. Built by `load`."""

    path: Path
    text: str
    system: str
    template: Template

    def messages(self, values: dict[str, str]) -> tuple[Message, ...]:
        """What the grader is asked. Raises `UsageError` if the template uses what there is not."""
        from jinja2 import TemplateError

        try:
            return messages_of([("system", self.system), ("user", self.template.render(values))])
        except (TemplateError, TypeError) as error:
            raise _wrong(self.path, str(error)) from error


@dataclass(frozen=True)
class Prompts:
    """The prompts of one grader."""

    grade: PromptFile
    passage: PromptFile

    @property
    def text(self) -> str:
        """All that a prompt can change a verdict by: for the grader's identity."""
        return "\0".join((self.grade.text, self.passage.text, str(LONG), Path(__file__).read_text("utf-8")))

    def messages(self, answer: Answer) -> tuple[Message, ...]:
        """What the grader is asked about one answer."""
        item = answer.item
        file = self.passage if len(item.reference.split()) >= LONG else self.grade
        return file.messages(
            {
                "title": " ".join(_shown(item.title).split()),
                "passage": _shown(item.snippet),
                "question": _shown(item.question),
                "reference": _shown(item.reference),
                "answer": defang(answer.text),
                "mark": stable_id("mark", item.id, answer.text)[:8],
                "source_mark": stable_id("source", item.snippet)[:8],
            }
        )


def load(own: Path | None = None) -> Prompts:
    """The project's prompts; those in `own`, a workspace's folder of prompts, win. Raises `UsageError` for a wrong file."""
    return Prompts(_read(GRADE, own), _read(PASSAGE, own))


def messages(answer: Answer) -> tuple[Message, ...]:
    """What the grader is asked about one answer, by the project's own prompts."""
    return _project().messages(answer)


@functools.cache
def _project() -> Prompts:
    return load()


def defang(text: str, whose: str = "the student's word") -> str:
    """`text` as it can be shown to a grader: still readable, no longer able to act."""
    if not text.isascii():
        text = UNSEEN.sub("", text).translate(WIDE)
    text = _MARKER.sub(lambda found: " ".join(found.group()), text)
    text = _TAG.sub(lambda found: found.group() + " ", text)
    text = _BOXED.sub("", text)
    return _VERDICT.sub(rf"\1 ({whose})", text).strip()


@functools.lru_cache(maxsize=4096)
def _shown(text: str) -> str:
    """The same for what stands in the item: several answers share it."""
    return defang(text, "the text's word")


def _read(name: str, own: Path | None) -> PromptFile:
    theirs = own / FOLDER.name / name if own else None
    path = theirs if theirs and theirs.exists() else FOLDER / name
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError as error:
        raise UsageError("the judge's prompt is missing", where=str(path), mend="install the project again") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"the judge's prompt cannot be read: {error}", where=str(path), mend="make it a text file in UTF-8"
        ) from error
    file = _parsed(path, text)
    probe = file.messages({name: f"<{name}>" for name in VARIABLES})[1].content
    for name_ in ("answer", "reference", "question", "mark"):
        if f"<{name_}>" not in probe:
            raise _wrong(path, f"it does not show {{{{ {name_} }}}}")
    return file


def _parsed(path: Path, text: str) -> PromptFile:
    from jinja2 import StrictUndefined, TemplateError
    from jinja2.sandbox import SandboxedEnvironment

    head, divider, user = text.replace("\r\n", "\n").partition("\n# user\n")
    opening, _, system = head.partition("# system\n")
    if not divider or opening.strip() or not system.strip():
        raise UsageError("the judge's prompt lacks a section", where=str(path), mend="it has `# system`, then `# user`")
    environment: Any = SandboxedEnvironment(undefined=StrictUndefined, autoescape=False, trim_blocks=True)
    environment.globals.clear()
    try:
        return PromptFile(path, text, system.strip(), environment.from_string(user.strip()))
    except TemplateError as error:
        raise _wrong(path, str(error)) from error


def _wrong(path: Path, why: str) -> UsageError:
    return UsageError(f"the judge's prompt is wrong: {why}", where=str(path), mend=f"it may use {', '.join(VARIABLES)}")
