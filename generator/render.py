"""Templates to text: the request to the teacher, and the messages of the records made from its answer.

Guarantees: sandboxed Jinja2, an undefined variable is an error, no escaping; the passage as the teacher sees it cannot
close its own delimiters or write chat tags, and as the record shows it is unchanged; the order of options is a
function of the item alone, never the teacher's.
Cost: a template is compiled once a process and fingerprint (1 ms); then 10 to 20 µs a message.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError, meta
from jinja2.sandbox import SandboxedEnvironment

from foundation.errors import UsageError
from foundation.ids import stable_id
from foundation.prompt_type import PromptType
from foundation.records import ChatRequest, Message, Role, Snippet

TEACHER_VARIABLES = ("title", "passage")
OPTION_VARIABLES = ("options", "right", "letters", "right_letter", "first", "second")
LETTERS = tuple("ABCDEF")
Value = str | list[str]

# What could end the passage's delimiters, or be read by a server as a tag of its chat format.
_UNSAFE = re.compile(r"<(?=\s*(?:\||/?\s*passage|/?\s*think))", re.IGNORECASE)


@functools.cache
def environment() -> SandboxedEnvironment:
    """The one Jinja2 environment: no globals, no loader."""
    env = SandboxedEnvironment(undefined=StrictUndefined, autoescape=False, trim_blocks=True, lstrip_blocks=True)
    env.globals.clear()
    return env


@dataclass(frozen=True, slots=True)
class Rendered:
    """The messages of one record; `ordering` says where the right option stands, and is empty without options."""

    ordering: str
    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class _Compiled:
    system: Message
    user: Template
    turns: tuple[tuple[Role, Template], ...]
    schema: dict[str, Any]
    shows_source: bool


_compiled: dict[str, _Compiled] = {}


def _templates(prompt_type: PromptType) -> _Compiled:
    found = _compiled.get(prompt_type.fingerprint)
    if found is None:
        make = environment().from_string
        found = _compiled[prompt_type.fingerprint] = _Compiled(
            Message(role="system", content=_render(make(prompt_type.system), {}, prompt_type)),
            make(prompt_type.user),
            tuple((turn.role, make(turn.template)) for turn in prompt_type.turns),
            prompt_type.output_schema,
            any(_reads(turn.template) & set(TEACHER_VARIABLES) for turn in prompt_type.turns),
        )
    return found


def _reads(template: str) -> set[str]:
    return meta.find_undeclared_variables(environment().parse(template))


def shows_source(prompt_type: PromptType) -> bool:
    """Whether a record of this type shows the passage or its title as they are."""
    return _templates(prompt_type).shows_source


def chat_request(prompt_type: PromptType, snippet: Snippet, item: str, seed: int) -> ChatRequest:
    """What the teacher is asked for one item: the fixed text first, the passage last and delimited."""
    compiled = _templates(prompt_type)
    variables = {"title": _defuse(snippet.title), "passage": _defuse(snippet.text)}
    user = Message(role="user", content=_render(compiled.user, variables, prompt_type))
    return ChatRequest(
        id=item, messages=(compiled.system, user), schema_=compiled.schema, sampling=prompt_type.sampling, seed=seed
    )


def render_records(prompt_type: PromptType, snippet: Snippet, fields: Mapping[str, Value], item: str) -> list[Rendered]:
    """The records of one item: one, or with `options.order: both` one for each ordering."""
    stripped: dict[str, Any] = {name: _strip(value) for name, value in fields.items()}
    variables = stripped | {"title": snippet.title, "passage": snippet.text}
    if prompt_type.options is None:
        return [Rendered("", _messages(prompt_type, variables))]
    texts = [stripped[name] for name in prompt_type.options.fields]
    if prompt_type.options.order == "both":
        orders = [("right_first", [0, 1]), ("wrong_first", [1, 0])]
    else:
        order = sorted(range(len(texts)), key=lambda option: stable_id("option", item, option))
        orders = [(f"right_{order.index(0) + 1}", order)]
    return [Rendered(name, _messages(prompt_type, variables | _options(texts, order))) for name, order in orders]


def _options(texts: list[str], order: list[int]) -> dict[str, Any]:
    options = [texts[option] for option in order]
    return {
        "options": options,
        "right": texts[0],
        "letters": list(LETTERS[: len(options)]),
        "right_letter": LETTERS[order.index(0)],
        "first": options[0],
        "second": options[1],
    }


def _messages(prompt_type: PromptType, variables: dict[str, Any]) -> tuple[Message, ...]:
    turns = _templates(prompt_type).turns
    return tuple(Message(role=role, content=_render(template, variables, prompt_type)) for role, template in turns)


def _render(template: Template, variables: dict[str, Any], prompt_type: PromptType) -> str:
    try:
        return template.render(variables).strip()
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
        raise UsageError(
            f"a template cannot be rendered: {error}",
            where=f"prompts/{prompt_type.id}.md",
            mend="mend the template, and raise its version",
        ) from error


def _strip(value: Value) -> Value:
    return value.strip() if isinstance(value, str) else [text.strip() for text in value]


def _defuse(text: str) -> str:
    """A look-alike for each `<` that would open a delimiter or a chat tag; everything else as it is."""
    return _UNSAFE.sub("‹", text) if "<" in text else text
