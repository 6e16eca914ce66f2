"""What a prompt type must be to be used: its fields, its options, and the variables of every template.

Guarantees: each function raises one `UsageError` that names the file's line; none changes anything. Cost: 1 ms a type.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from jinja2 import TemplateSyntaxError, meta, nodes
from jinja2.sandbox import SandboxedEnvironment

from foundation.prompt_type import ASK, FieldSpec, PromptType
from generator.prompt_file import PromptFile, Section, nearest
from generator.render import OPTION_VARIABLES, PARTNER_VARIABLES, TEACHER_VARIABLES, environment

_PASSAGE = r"<passage>\s*\{\{\s*passage\s*\}\}\s*</passage>\s*"
_PARTNER = r"<second-passage>\s*\{\{\s*partner\s*\}\}\s*</second-passage>\s*"


def check_fields(file: PromptFile, prompt_type: PromptType) -> None:
    """Every choice has values; no field has the name of another, or of a variable; `each` is a list of strings."""
    taken = _variables_of(prompt_type)
    seen: dict[str, FieldSpec] = {}
    for phase in prompt_type.chain:
        keys = ["fields"] if phase.name == ASK else ["phases", phase.name, "fields"]
        for name, spec in phase.fields.items():
            line = file.line_of([*keys, name])
            if name in taken:
                what = f"the field {name!r} has the name of a variable, which would stand in its place"
                raise file.error(what, line, "give it another name")
            if name in seen:
                raise file.error(f"the field {name!r} stands in two phases", line, "give one of them another name")
            if (spec.type == "choice") != bool(spec.values):
                raise file.error(
                    f"the field {name!r}: values belong to a choice", line, 'type: choice, values: ["1", "2"]'
                )
            if spec.keys and spec.type != "list":
                raise file.error(
                    f"the field {name!r}: keys belong to a list", line, "type: list, keys: [term, meaning]"
                )
            seen[name] = spec
    each = prompt_type.each
    if each:
        source = prompt_type.phases[-1].fields.get(each) if prompt_type.phases else None
        if source is None or source.type != "list" or source.keys:
            what = f"each: {each!r} is no list of strings of the phase before"
            raise file.error(what, file.line_of(["each"]), "name a list field of the last of `phases`")


def _variables_of(prompt_type: PromptType) -> set[str]:
    """The variables that templates of this type are given besides its fields."""
    names = {*TEACHER_VARIABLES, *(PARTNER_VARIABLES if prompt_type.partner else ())}
    if prompt_type.each:
        names.add("each")
    if prompt_type.options:  # the number of the right option is in no template: `right` is the option's text there
        names |= {*OPTION_VARIABLES} - ({prompt_type.options.right} & {"right"})
    return names


def check_options(file: PromptFile, prompt_type: PromptType) -> None:
    options = prompt_type.options
    if options is None:
        return
    for number, name in enumerate(options.fields):
        line = file.line_of(["options", "fields", number])
        if name not in prompt_type.fields:
            raise file.error(f"the option {name!r} is no field", line, nearest(name, prompt_type.fields))
        if prompt_type.fields[name].type != "string":
            raise file.error(f"the option {name!r} is not a string", line, "an option is one string")
    if options.order == "both" and len(options.fields) != 2:
        raise file.error(
            "`both` orderings need exactly two options",
            file.line_of(["options", "order"]),
            "use `shuffled`, or two options",
        )
    if options.right:
        line = file.line_of(["options", "right"])
        if options.right not in prompt_type.fields:
            raise file.error(
                f"`right`: {options.right!r} is no field", line, nearest(options.right, prompt_type.fields)
            )
        numbers = tuple(str(number) for number in range(1, len(options.fields) + 1))
        if prompt_type.fields[options.right].values != numbers:
            mend = f"type: choice, values: [{', '.join(numbers)}], each in quotes"
            raise file.error(f"the field {options.right!r} does not number the options", line, mend)


def check_variables(file: PromptFile, prompt_type: PromptType) -> None:
    """Every template parses and uses what it may; `user` ends with the delimited passage; no field is written in vain."""
    used = _check_calls(file, prompt_type)
    env = environment()
    source = (*TEACHER_VARIABLES, *(PARTNER_VARIABLES if prompt_type.partner else ()))
    fields = [name for phase in prompt_type.chain for name in phase.fields]
    record = (
        *fields,
        *source,
        *(OPTION_VARIABLES if prompt_type.options else ()),
        *(("each",) if prompt_type.each else ()),
    )
    shown: set[str] = set()
    last = 1
    for section in file.sections:
        if section.name.startswith("record: "):
            shown |= _variables(file, section, env, record)
            last = section.line
    if prompt_type.options:
        if not ("options" in shown or {"first", "second"} <= shown):
            raise file.error(
                "the record never shows the options", last, "use {{ options }}, or {{ first }} and {{ second }}"
            )
        used |= {*prompt_type.options.fields, prompt_type.options.right}
    for phase in prompt_type.chain:
        for name in phase.fields:
            if name not in used | shown:
                raise file.error(
                    f"the field {name!r} is never used in the record",
                    file.line_of(["fields", name]),
                    "use it in a record's turn, or drop it",
                )


def _check_calls(file: PromptFile, prompt_type: PromptType) -> set[str]:
    """The templates of every call to the teacher; the variables they read."""
    env = environment()
    source = (*TEACHER_VARIABLES, *(PARTNER_VARIABLES if prompt_type.partner else ()))
    ending = re.compile(rf"{_PASSAGE}{_PARTNER if prompt_type.partner else ''}\Z")
    sections = {section.name: section for section in file.sections}
    earlier: list[str] = []
    used: set[str] = {prompt_type.each}
    for phase in prompt_type.chain:
        prefix = "" if phase.name == ASK else f"{phase.name}: "
        _variables(file, sections[f"{prefix}system"], env, ())
        section = sections[f"{prefix}user"]
        each = ("each",) if prompt_type.each and phase.name == ASK else ()
        found = _variables(file, section, env, (*source, *earlier, *each))
        for needed in ("passage", *each, *(("partner",) if prompt_type.partner else ())):
            if needed not in found:
                mend = (
                    "end it with <passage>{{ passage }}</passage>" if needed == "passage" else f"use {{{{ {needed} }}}}"
                )
                raise file.error(f"the template never uses the variable {needed!r}", section.line, mend)
        if not ending.search(section.text):
            line = section.line + section.text.count("\n")
            mend = "end with <passage>, {{ passage }}, </passage>"
            if prompt_type.partner:
                mend += ", then <second-passage>, {{ partner }}, </second-passage>"
            raise file.error("the passage is not delimited, or not last", line, mend)
        used |= found
        earlier += phase.fields
    return used


def _variables(file: PromptFile, section: Section, env: SandboxedEnvironment, allowed: Sequence[str]) -> set[str]:
    """The variables a template reads. Raises `UsageError` at the line of the first that it may not."""
    try:
        tree = env.parse(section.text)
    except TemplateSyntaxError as error:
        raise file.error(
            f"the template is wrong: {error.message}", section.line + error.lineno - 1, "mend the line it names"
        ) from error
    for node in tree.find_all((nodes.Filter, nodes.Test, nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)):
        name = getattr(node, "name", None)
        known = env.filters if isinstance(node, nodes.Filter) else env.tests if isinstance(node, nodes.Test) else {}
        if name not in known:
            kind = type(node).__name__.lower()
            raise file.error(
                f"the template uses an unknown {kind} {name or ''}".rstrip(),
                section.line + node.lineno - 1,
                "a template stands alone",
            )
    found = meta.find_undeclared_variables(tree)
    for unknown in sorted(found - set(allowed)):
        node = next(node for node in tree.find_all(nodes.Name) if node.name == unknown)
        raise file.error(
            f"unknown variable {unknown!r} in `{section.name}`",
            section.line + node.lineno - 1,
            nearest(unknown, allowed),
        )
    return found
