"""The chain of gates, in its one order; the pipeline and `factory check` run the same code.

Order: finish reason -> JSON and schema -> shape -> standalone -> CJK -> lingua -> really English -> options and the checks
the prompt type names -> grounded. (Last of all the pipeline refuses exact duplicates within a unit.)
Guarantees: the first gate that refuses gives its name, a stable code, a reason and the field; nothing is edited; every
field is looked at raw, at every phase, and so is a passage that the record shows, before anybody is asked about it.
Cost: some 30 µs a question and 90 µs a text of 1,000 characters; on top of it 0.45 µs of lingua a character, but for passages of
Latin letters and marks alone. Verdicts on passages are remembered.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from foundation.prompt_type import ASK, FieldSpec, Phase, PromptType
from foundation.records import ChatReply, GateResult, Record
from generator.gates.cjk import check_cjk
from generator.gates.english import EnglishGate
from generator.gates.fields import check_named, check_options, right_option
from generator.gates.grounded import Grounds, check_grounded
from generator.gates.language import LanguageGate, has_letters
from generator.gates.schema import check_finish, parse_fields
from generator.gates.shape import Leak, check_shape
from generator.gates.standalone import check_standalone
from generator.render import Source, shown

Texts = list[tuple[str, str]]  # a field's path, and its text
SHORT = 12  # words below which the wider look at the language needs more text


@dataclass(frozen=True, slots=True)
class Call:
    """What a reply is judged against: which call of which type, over which text, after which answers."""

    prompt_type: PromptType
    phase: Phase
    source: Source
    grounds: Grounds
    values: Mapping[str, Any] = field(default_factory=dict)


class Gates:
    """One per process. Call `warm()` before a fork, so that children share the loaded detectors."""

    def __init__(self) -> None:
        self._language = LanguageGate()
        self._english = EnglishGate()
        # One snippet is judged once for all the prompt types that show it.
        self._check_passage = functools.lru_cache(maxsize=4096)(self._check_text)
        self._leak = functools.lru_cache(maxsize=256)(Leak)

    def warm(self) -> None:
        """Load what is loaded lazily."""
        self._language.warm()
        self._english.warm()

    def check_source(self, prompt_type: PromptType, source: Source) -> GateResult:
        """Judge what a record shows of its source, before the teacher is asked. It was checked at ingest; this makes it sure."""
        result = check_cjk(source.snippet.title, "title")  # it stands in the record whether a turn shows it or not
        variables = shown(prompt_type).everything
        names = [(name, text) for name, text in source.variables.items() if name not in ("passage", "partner")]
        for name, text in names:
            if result.ok and name in variables:
                result = check_cjk(text, name)
                # (Without letters it has no language, and is judged together with its record.)
                if result.ok and has_letters(text):
                    result = self._language.check_source(text, name)
        if result.ok and "passage" in variables:
            result = self._check_passage(source.snippet.text, "passage")
        if result.ok and source.partner and "partner" in variables:
            result = self._check_passage(source.partner.text, "partner")
        return result

    def check_reply(self, call: Call, reply: ChatReply) -> tuple[GateResult, dict[str, Any]]:
        """Judge one reply. The fields are empty if it was rejected before they could be read."""
        result = check_finish(reply)
        if not result.ok:
            return result, {}
        result, fields = parse_fields(call.phase.fields, reply.text)
        if not result.ok:
            return result, {}
        texts = list(_texts_of(fields, call.phase.fields))
        leak = self._leak(call.phase.system)
        result = _first(check_shape(text, name, leak) for name, text in texts)
        if result.ok:
            result = _first(check_standalone(text, name) for name, text in _standing_alone(call.prompt_type, texts))
        if result.ok and call.phase.name != ASK and not any(has_letters(text) for _, text in texts):
            result = _first(check_cjk(text, name) for name, text in texts)  # figures alone: they have no language yet
        elif result.ok:
            options = call.prompt_type.options.fields if call.prompt_type.options else ()
            result = self._check_language(texts, options)
        if result.ok and call.phase.name == ASK:
            result = _check_answer(call, fields)
        return result, fields

    def check_fields(self, fields: Any) -> GateResult:
        """Shape and languages over every string in `fields`, at any depth; values that are not text are passed over."""
        texts = list(_texts(fields, ""))
        result = _first(check_shape(text, name) for name, text in texts)
        return self._check_language(texts) if result.ok else result

    def check_messages(self, record: Record, prompt_type: PromptType | None) -> GateResult:
        """The title and the messages of a finished record; of a known type, whether they lean on a passage not shown."""
        texts = [(f"messages[{number}]", message.content) for number, message in enumerate(record.messages)]
        result = check_cjk(record.title, "title")
        if result.ok:
            result = _first(check_shape(text, name) for name, text in texts)
        seen = shown(prompt_type) if prompt_type else None
        if result.ok and seen and not seen.asked & {"passage", "partner"}:
            own = [
                texts[n]
                for n, one in enumerate(record.messages)
                if one.role == "user" or "passage" not in seen.answered
            ]
            result = _first(check_standalone(text, name) for name, text in own)
        return self._check_language(texts) if result.ok else result

    @staticmethod
    def has_text(fields: Mapping[str, Any]) -> bool:
        """Whether `check_fields` would find any string to judge."""
        return next(_texts(fields, ""), None) is not None

    def _check_text(self, text: str, name: str) -> GateResult:
        checks = (check_shape, check_cjk, self._language.check_source, self._english.check)
        return _first(check(text, name) for check in checks)

    def _check_language(self, texts: Texts, options: Sequence[str] = ()) -> GateResult:
        """CJK, lingua, and the wider look. A text without letters has no language: it is judged together with its record,
        all texts joined; and so, for the wider look, is what is too short by itself, but for options: four names in a row
        read as another language."""
        result = _first(check_cjk(text, name) for name, text in texts)
        if not result.ok:
            return result
        bare = ""
        for name, text in texts:
            if not has_letters(text):
                bare = bare or name
                continue
            result = self._language.check(text, name)
            if not result.ok:
                return result
        if bare:
            result = self._language.check("\n".join(text for _, text in texts), bare)
        if result.ok:
            result = _first(self._english.check(text, name) for name, text in texts)
        short = [text for name, text in texts if text.count(" ") < SHORT and name not in options]
        if result.ok and len(short) > 1:
            result = self._english.check("\n".join(short))
        return result


def _check_answer(call: Call, fields: Mapping[str, Any]) -> GateResult:
    """Options, the checks the type names, and whether the answer stands in the text."""
    values = {**call.values, **fields}
    result = check_options(call.prompt_type, values)
    if result.ok:
        result = check_named(call.prompt_type, fields)
    if not result.ok or "ungrounded" in call.prompt_type.checks:
        return result
    seen = shown(call.prompt_type)
    also = ""
    if "wrong-on-purpose" in call.prompt_type.checks:
        also = "\n".join(text for name in seen.asked | seen.mistaken for _, text in _texts(values.get(name, ""), name))
    return _first(check_grounded(text, name, call.grounds, also) for name, text in _claims(call.prompt_type, values))


def _claims(prompt_type: PromptType, values: Mapping[str, Any]) -> Texts:
    """What a record says is so: the fields of the turns that are trained on, and the right option; without one, all options."""
    options = prompt_type.options
    # (A choice field may bear the name of a variable: "right" is the right option's text in a template.)
    names = [name for name in values if name in shown(prompt_type).answered and not (options and name == options.right)]
    if options and options.right:
        names = [name for name in names if name not in options.fields] + [right_option(prompt_type, values)]
    elif options:
        names += [name for name in options.fields if name not in names]
    return [found for name in names for found in _texts(values[name], name)]


def _standing_alone(prompt_type: PromptType, texts: Texts) -> Texts:
    """The texts that a reader meets without the passage; none where the record's question shows it."""
    seen = shown(prompt_type)
    if seen.asked & {"passage", "partner"}:
        return []
    options = prompt_type.options.fields if prompt_type.options else ()
    return [(name, text) for name, text in texts if name.partition("[")[0] in {*seen.everything, *options}]


def _first(results: Iterable[GateResult]) -> GateResult:
    """The first reject, or accept."""
    return next((result for result in results if not result.ok), GateResult.accept())


def _texts_of(fields: Mapping[str, Any], specs: Mapping[str, FieldSpec]) -> Iterator[tuple[str, str]]:
    """Every string the teacher wrote in words of its own, with its path."""
    for name, value in fields.items():
        if specs[name].type != "choice":
            yield from _texts(value, name)


def _texts(value: Any, name: str) -> Iterator[tuple[str, str]]:
    """Every string in a JSON value, with its path: `facts[2]`, `messages[0].content`."""
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, Mapping):
        for key, entry in value.items():
            yield from _texts(entry, f"{name}.{key}" if name else str(key))
    elif isinstance(value, Sequence):
        for number, entry in enumerate(value):
            yield from _texts(entry, f"{name}[{number}]")
