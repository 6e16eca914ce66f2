"""Templates to text: the request to the teacher, and the messages of the records made from its answer.

Guarantees: sandboxed Jinja2, an undefined variable is an error, no escaping; the passage as the teacher sees it cannot
close its own delimiters or write chat tags, and as the record shows it is unchanged; the order of options is a
function of the item alone, never the teacher's.
Cost: a template is compiled once a process and fingerprint (1 ms); then 2 µs a message, 10 to 20 µs where the template has more
than text and variables.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError, meta, nodes
from jinja2.sandbox import SandboxedEnvironment

from foundation.errors import UsageError
from foundation.ids import stable_id
from foundation.prompt_type import ASK, PromptType, Turn, output_schema
from foundation.records import ChatRequest, Message, Role, Sampling, Snippet

TEACHER_VARIABLES = ("title", "passage")
PARTNER_VARIABLES = ("partner", "partner_title", "entity")
OPTION_VARIABLES = ("options", "right", "letters", "right_letter", "first", "second", "placed")
LETTERS = tuple("ABCDEF")
Values = Mapping[str, Any]

# What could end the passage's delimiters, or be read by a server or a model as a tag of its chat format; also with white
# space or characters that nobody sees inside.
_GAP = r"[\s\u00ad\u200b-\u200f\u2060-\u2064\ufeff]*+"
_TAGS = r"think(?:ing)?|tool_(?:call|response)s?|(?:start|end)_of_turn|(?:bos|eos|pad|unk|s|sys)\s*>|<\s*/?\s*sys\s*>"
_UNSAFE = re.compile(
    rf"<(?={_GAP}(?:\||/?{_GAP}(?:(?:second-)?passage|{_TAGS})))|\[(?={_GAP}/?{_GAP}inst{_GAP}\])", re.IGNORECASE
)


@functools.cache
def environment() -> SandboxedEnvironment:
    """The one Jinja2 environment: no globals, no loader."""
    env = SandboxedEnvironment(undefined=StrictUndefined, autoescape=False, trim_blocks=True, lstrip_blocks=True)
    env.globals.clear()
    return env


@dataclass(frozen=True, slots=True)
class Source:
    """What an item is made of: its snippet, and for a type with partners the second one, and what they share."""

    snippet: Snippet
    partner: Snippet | None = None
    entity: str = ""

    @property
    def variables(self) -> dict[str, str]:
        found = {"title": self.snippet.title, "passage": self.snippet.text}
        if self.partner:
            found |= {"partner": self.partner.text, "partner_title": self.partner.title, "entity": self.entity}
        return found


@dataclass(frozen=True, slots=True)
class Rendered:
    """The messages of one record; `ordering` says where the right option stands, and is empty without options."""

    ordering: str
    messages: tuple[Message, ...]


class _Plain:
    """A template that is text and variables alone, as most are; Jinja takes 6 µs to prepare what this does in one."""

    def __init__(self, template: Template, parts: Sequence[tuple[str, bool]]) -> None:
        self.template, self.parts = template, parts

    def render(self, variables: Mapping[str, Any]) -> str:
        pieces: list[Any] = [variables.get(part) if named else part for part, named in self.parts]
        if all(type(piece) is str for piece in pieces):
            return "".join(pieces)
        return self.template.render(variables)  # it knows how a list is written, and what to say of what is missing


@dataclass(frozen=True, slots=True)
class _Call:
    system: Message
    user: Template | _Plain
    schema: dict[str, Any]
    sampling: Sampling


@dataclass(frozen=True, slots=True)
class Shown:
    """Which variables a record shows to whom. `asked`: in the user's turns; `answered`: in the turns that are trained on."""

    asked: frozenset[str]
    answered: frozenset[str]
    mistaken: frozenset[str]

    @property
    def everything(self) -> frozenset[str]:
        return self.asked | self.answered | self.mistaken


@dataclass(frozen=True, slots=True)
class _Compiled:
    calls: dict[str, _Call]
    turns: tuple[tuple[Role, Template | _Plain], ...]
    supervised: tuple[int, ...]
    shown: Shown


_compiled: dict[str, _Compiled] = {}


def _templates(prompt_type: PromptType) -> _Compiled:
    found = _compiled.get(prompt_type.fingerprint)
    if found is None:
        make = compile_template
        calls = {
            phase.name: _Call(
                Message(role="system", content=_render(make(phase.system), {}, prompt_type)),
                make(phase.user),
                output_schema(phase.fields),
                phase.sampling,
            )
            for phase in prompt_type.chain
        }
        turns = prompt_type.turns
        found = _compiled[prompt_type.fingerprint] = _Compiled(
            calls,
            tuple((turn.role, make(turn.template)) for turn in turns),
            tuple(index for index, turn in enumerate(turns) if turn.role == "assistant" and turn.trained),
            Shown(
                _read(turn for turn in turns if turn.role != "assistant"),
                _read(turn for turn in turns if turn.role == "assistant" and turn.trained),
                _read(turn for turn in turns if not turn.trained),
            ),
        )
    return found


def compile_template(text: str) -> Template | _Plain:
    """A template, in its quickest form."""
    template, parts = environment().from_string(text), list[tuple[str, bool]]()
    for output in environment().parse(text).body:
        if not isinstance(output, nodes.Output):
            return template
        for node in output.nodes:
            if isinstance(node, nodes.TemplateData):
                parts.append((node.data, False))
            elif isinstance(node, nodes.Name):
                parts.append((node.name, True))
            else:
                return template
    return _Plain(template, parts)


def _read(turns: Iterable[Turn]) -> frozenset[str]:
    """The variables that templates read."""
    parse = environment().parse
    return frozenset(name for turn in turns for name in meta.find_undeclared_variables(parse(turn.template)))


def shown(prompt_type: PromptType) -> Shown:
    """Which variables a record of this type shows, and to whom."""
    return _templates(prompt_type).shown


def supervised(prompt_type: PromptType) -> tuple[int, ...]:
    """The turns that are trained on."""
    return _templates(prompt_type).supervised


def chat_request(
    prompt_type: PromptType, source: Source, id_: str, seed: int, *, phase: str = ASK, values: Values | None = None
) -> ChatRequest:
    """What the teacher is asked in one phase: the fixed text first, the passage last and delimited.

    `values` are the fields of earlier phases, and `each`; nothing in them can close the delimiters either.
    """
    call = _templates(prompt_type).calls[phase]
    variables = _defused({**(values or {}), **source.variables})
    user = Message(role="user", content=_render(call.user, variables, prompt_type))
    return ChatRequest(id=id_, messages=(call.system, user), schema_=call.schema, sampling=call.sampling, seed=seed)


def render_records(prompt_type: PromptType, source: Source, values: Values, item: str) -> list[Rendered]:
    """The records of one answer: one, or with `options.order: both` one for each ordering. `item` draws a shuffle."""
    variables: dict[str, Any] = {name: _stripped(value) for name, value in values.items()} | source.variables
    options = prompt_type.options
    if options is None:
        return [Rendered("", _messages(prompt_type, variables))]
    texts = [variables[name] for name in options.fields]
    right = options.right_index(values)
    others = [option for option in range(len(texts)) if option != right]
    if options.order == "both":
        orders = [("right_first", [right, *others]), ("wrong_first", [*others, right])]
    else:
        # By the option's place in the list and the item alone: where the right one lands owes nothing to the teacher.
        order = sorted(range(len(texts)), key=lambda option: stable_id("option", item, option))
        orders = [(f"right_{order.index(right) + 1}", order)]
    return [Rendered(name, _messages(prompt_type, variables | _options(texts, order, right))) for name, order in orders]


def _options(texts: list[str], order: list[int], right: int) -> dict[str, Any]:
    options = [texts[option] for option in order]
    return {
        "options": options,
        "right": texts[right],
        "letters": list(LETTERS[: len(options)]),
        "right_letter": LETTERS[order.index(right)],
        "placed": [LETTERS[order.index(option)] for option in range(len(texts))],
        "first": options[0],
        "second": options[1],
    }


def _messages(prompt_type: PromptType, variables: dict[str, Any]) -> tuple[Message, ...]:
    turns = _templates(prompt_type).turns
    return tuple(Message(role=role, content=_render(template, variables, prompt_type)) for role, template in turns)


def _render(template: Template | _Plain, variables: Mapping[str, Any], prompt_type: PromptType) -> str:
    try:
        return template.render(variables).strip()
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
        raise UsageError(
            f"a template cannot be rendered: {error}",
            where=f"prompts/{prompt_type.id}.md",
            mend="mend the template, and raise its version",
        ) from error


def _stripped(value: Any) -> Any:
    """A field's value without white space around its texts."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, Mapping):
        return {key: _stripped(entry) for key, entry in value.items()}
    return [_stripped(entry) for entry in value]


def _defused(value: Any) -> Any:
    """A look-alike for what would open a delimiter or a chat tag; everything else as it is."""
    if isinstance(value, str):
        return _UNSAFE.sub("‹", value) if "<" in value or "[" in value else value
    if isinstance(value, Mapping):
        return {key: _defused(entry) for key, entry in value.items()}
    return [_defused(entry) for entry in value]
