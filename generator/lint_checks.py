"""What is wrong with a prompt type that loads all the same: one function for each thing that is looked at.

Guarantees: pure functions of the type; each names the key or section it is about, so that a line can be found for it.
Errors are what would waste teacher's work or make poor records; warnings are habits of the catalogue.
Cost: some 3 ms a type, nearly all of it compiling its templates.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from foundation.errors import UsageError
from foundation.prompt_type import ASK, FieldSpec, Phase, PromptType
from foundation.records import Snippet
from generator.gates.cjk import check_cjk
from generator.gates.standalone import check_standalone
from generator.render import Source, chat_request, render_records, shown

SUMMARY = 120  # characters
CHARACTERS = 4  # of English JSON a token, about: more makes replies that are cut off
WASTE = 64  # tokens above one a character: no reply could be so long
TAKE_ALL = "mend the template: it must take all that its fields allow"
_TAGS = re.compile(r"<\|\w+\|>|</?(?:think|tool_call)>")
_OPTION_CHECKS = ("answer-names-right", "same-kind")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong. `keys` lead to it in the front matter, or it is in the section so called, or the `nth` of them."""

    code: str
    what: str
    mend: str
    keys: tuple[str, ...] = ()
    section: str = ""
    nth: int = 0
    warning: bool = False


def check_type(prompt_type: PromptType) -> list[Finding]:
    """Everything that is wrong with one type, whatever its version."""
    found = [*_summary(prompt_type), *_checks(prompt_type)]
    for phase in prompt_type.chain:
        found += [*_fields(phase), *_tokens(phase), *_prompt(phase)]
    return [*found, *_rendering(prompt_type)]


def _keys(phase: Phase, *keys: str) -> tuple[str, ...]:
    return keys if phase.name == ASK else ("phases", phase.name, *keys)


def _section(phase: Phase, part: str) -> str:
    return part if phase.name == ASK else f"{phase.name}: {part}"


def _summary(prompt_type: PromptType) -> Iterator[Finding]:
    text = prompt_type.summary.strip()
    if not text.endswith("."):
        yield Finding("summary", "the summary does not end with a full stop", "write one sentence", ("summary",))
    if len(text) > SUMMARY or "\n" in text:
        what = f"the summary is too long ({len(text)} characters)"
        yield Finding("summary", what, f"one line of at most {SUMMARY} characters", ("summary",))


def _checks(prompt_type: PromptType) -> Iterator[Finding]:
    for check in prompt_type.checks:
        if check in _OPTION_CHECKS and not prompt_type.options:
            yield Finding("check", f"`{check}` has nothing to check", "it is for types with `options`", ("checks",))
        if check == "blank" and "____" not in prompt_type.system:
            what = "the system prompt never shows the blank ____"
            yield Finding("check", what, "say how it is written: four underscores", section="system")
    if prompt_type.weight == 0:
        yield Finding("weight", "with the weight 0 `factory run` never plans it", "raise it", ("weight",), warning=True)


def _fields(phase: Phase) -> Iterator[Finding]:
    for name, spec in phase.fields.items():
        keys = _keys(phase, "fields", name)
        if not spec.description.strip():
            mend = "say in a few words what belongs there: the teacher reads it in the schema"
            yield Finding("description", f"the field {name!r} has no description", mend, keys)
        if spec.min > spec.max or (spec.type == "list" and spec.items_min > spec.items_max):
            yield Finding("bounds", f"the field {name!r} is at least longer than at most", "turn its bounds", keys)


def longest(fields: dict[str, FieldSpec]) -> int:
    """Characters of the longest reply that these fields allow, as JSON on one line."""
    return _object({name: _longest(spec) for name, spec in fields.items()})


def _longest(spec: FieldSpec) -> int:
    text = spec.max + 2  # its quotes
    if spec.type == "choice":
        return max((len(value) for value in spec.values), default=0) + 2
    if spec.type == "list":
        entry = _object(dict.fromkeys(spec.keys, text)) if spec.keys else text
        return 2 + spec.items_max * (entry + 2)
    return text


def _object(values: dict[str, int]) -> int:
    return 2 + sum(len(name) + len('"": , ') + length for name, length in values.items())


def _tokens(phase: Phase) -> Iterator[Finding]:
    characters, given = longest(phase.fields), phase.sampling.max_tokens
    wanted = -(-characters // CHARACTERS)
    keys = _keys(phase, "sampling", "max_tokens")
    what = f"max_tokens is {given}, and the longest reply its fields allow has {characters:,} characters"
    if given < wanted:
        yield Finding("max-tokens", f"{what}: it would be cut off", f"make it {wanted} or more", keys)
    elif given > characters + WASTE:
        yield Finding("max-tokens", f"{what}: it is never used up", f"make it about {-(-wanted // 20) * 20}", keys)


def _prompt(phase: Phase) -> Iterator[Finding]:
    """Every field, and every key of a list's entries, is spoken of; so are English and JSON."""
    section = _section(phase, "system")
    names = [*phase.fields, *(key for spec in phase.fields.values() for key in spec.keys)]
    for name in dict.fromkeys(names):
        quote = "[\"`']" if name.isalpha() else r"\b"  # "answer" is a word of any prompt; option_2 is not
        if not re.search(f"{quote}{name}{quote}", phase.system):
            what = f"the system prompt never names the field {name!r}"
            yield Finding("unnamed", what, f'say there what goes into "{name}", in quotes', section=section)
    if "JSON" not in phase.system:
        yield Finding("no-json", "the system prompt does not ask for JSON", "end it so", section=section, warning=True)
    if phase.name == ASK and "English" not in phase.system:
        mend = 'add the rule "Write in English only"'
        yield Finding("no-english", "the system prompt does not ask for English", mend, section=section, warning=True)
    for part, text in (("system", phase.system), ("user", phase.user)):
        if not check_cjk(text, part).ok:
            what = "the template has Chinese, Japanese or Korean characters"
            yield Finding("cjk", what, "take them out", section=_section(phase, part))
        if tag := _TAGS.search(text):
            yield Finding("tag", f"the template has {tag.group()}", "take it out", section=_section(phase, part))


def _sample_source(prompt_type: PromptType) -> Source:
    one, two = (
        Snippet(
            id=f"sample-{number}",
            article_id=f"sample-{number}",
            title=f"Sample {number}",
            source="lint",
            index=0,
            sentences=(f"Sample {number} took place.",),
            text=f"Sample {number} took place.",
        )
        for number in (1, 2)
    )
    return Source(one, two, "Sample") if prompt_type.partner else Source(one)


def _sample(spec: FieldSpec, name: str, full: bool) -> Any:
    """A value that the schema allows: the most of everything, or the least."""
    text = f"Sample {name}" if full or spec.min else ""
    if spec.type == "choice":
        return spec.values[-1 if full else 0]
    if spec.type == "list":
        count = spec.items_max if full else spec.items_min
        return [dict.fromkeys(spec.keys, text) if spec.keys else f"{text} {number}" for number in range(count)]
    return text


def _rendering(prompt_type: PromptType) -> Iterator[Finding]:
    """Every template, rendered with the most and with the least that the fields allow."""
    source = _sample_source(prompt_type)
    seen: set[int] = set()
    for full in (True, False):
        values: dict[str, Any] = {}
        for phase in prompt_type.chain:
            if prompt_type.each and phase.name == ASK:
                values["each"] = "Sample"
            try:
                request = chat_request(prompt_type, source, "sample", 0, phase=phase.name, values=values)
            except UsageError as error:
                yield Finding("render", error.what, TAKE_ALL, section=_section(phase, "user"))
                return
            if full and not request.messages[0].content:
                name = _section(phase, "system")
                yield Finding("empty", f"the section {name!r} renders empty", "let it say something", section=name)
            values |= {name: _sample(spec, name, full) for name, spec in phase.fields.items()}
        try:
            messages = render_records(prompt_type, source, values, "sample")[0].messages
        except UsageError as error:
            section, nth = _place(prompt_type, _broken_turn(prompt_type, source, values))
            yield Finding("render", error.what, TAKE_ALL, section=section, nth=nth)
            return
        for number, message in enumerate(messages):
            if not message.content and number not in seen:
                seen.add(number)
                yield _empty(prompt_type, number, full)
            if full:
                yield from _standing_alone(prompt_type, message.content, number)


def _empty(prompt_type: PromptType, number: int, full: bool) -> Finding:
    section, nth = _place(prompt_type, number)
    what, mend = f"the section {section!r} renders empty", "let it show something"
    if not full:
        what += " where its fields are at their least"
        mend = "raise `min` or `items_min`, or let it show something else"
    return Finding("empty", what, mend, section=section, nth=nth, warning=not full)


def _place(prompt_type: PromptType, number: int) -> tuple[str, int]:
    """The section of a turn, and how many of the same heading stand before it."""
    headings = [f"record: {turn.role}" + ("" if turn.trained else ", untrained") for turn in prompt_type.turns]
    return headings[number], headings[:number].count(headings[number])


def _broken_turn(prompt_type: PromptType, source: Source, values: dict[str, Any]) -> int:
    """The first turn that cannot be rendered by itself."""
    for number, turn in enumerate(prompt_type.turns):
        alone = PromptType.model_validate({**prompt_type.model_dump(), "turns": (turn, turn)})
        try:
            render_records(alone, source, values, "sample")
        except UsageError:
            return number
    return len(prompt_type.turns) - 1


def _standing_alone(prompt_type: PromptType, text: str, number: int) -> Iterator[Finding]:
    """A turn's own words are in every record of the type, and are seen by no gate."""
    if shown(prompt_type).asked & {"passage", "partner"}:
        return
    section, nth = _place(prompt_type, number)
    result = check_standalone(text, section)
    if not result.ok:
        what = f"the record's turn leans on a text that its reader does not have: {result.reason}"
        yield Finding("leaning", what, "write it so that it stands alone", section=section, nth=nth)
