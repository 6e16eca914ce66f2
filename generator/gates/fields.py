"""Gates over several fields of one reply: options that can be swapped cleanly, and the checks a prompt type names.

Guarantees: pure functions of the prompt type and the fields; case, punctuation and accents do not matter, and figures
are compared by value. Options (gate `options`): `same-option`, `inside-another`, `named-twice` (an option stands in
the question too), `order-named` (somebody speaks of "the first option"). Checks: `CHECKS`; each is a gate of its name.
Misses: options that are right both, or the same, by meaning alone.
Cost: 20 to 60 µs for a reply with options.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, Literal

from foundation.prompt_type import PromptType
from foundation.records import GateResult
from generator.gates.common_words import FUNCTION
from generator.gates.names import WORD, fold, people_bases, variants
from generator.gates.numbers import Figure, read_figures
from generator.render import shown

BLANK = "____"
_BLANKS = re.compile(r"_+")
_WORD = re.compile(r"\w+")
_ORDER = re.compile(
    r"\b[Tt]he (?:first|second|third|fourth|last|former|latter|other|right|wrong|correct|previous) (?:option|choice|alternative|answer)s?\b"
    r"|\b(?:[Oo]ption|[Cc]hoice|[Aa]lternative|[Aa]nswer|[Ll]etter)s? (?:[A-F]|[1-6]|\([A-F]\)|one|two)(?![\w'’])"
    r"|\b[Oo]f the (?:two|three|four) (?:options|choices|alternatives)\b|\b(?:[Nn]one|[Aa]ll|[Bb]oth|[Nn]either|[Ee]ither) of (?:the above|these|the options|the two options)\b"
    r"|\b[Tt]he (?:former|latter)(?=[.,;:!?]|$| (?:is|was|were|are|has|had|of the two)\b)|^[Bb]oth$|^[Nn]either$|^\(?[A-F]\)(?= )|\b[Bb]oth A and B\b"
)
_FILLERS = frozenset(
    """about around nearly almost over under more less fewer than at least most some only roughly approximately exactly up to early
    late mid in on by of the a an spring summer autumn winter year years month day night morning evening afternoon beginning
    middle end start until since from between and or to monday tuesday wednesday thursday friday saturday sunday""".split()
)
_YEAR = re.compile(r"\D*\b[12]\d{3}\D*")

OptionKind = Literal["date", "number", "year or number", "other"]


def plain_words(text: str) -> str:
    """A text as its words, lower case, one space around each."""
    return f" {' '.join(_WORD.findall(text.casefold()))} "


def clash(one: str, other: str) -> bool:
    """Whether two options are the same, or one stands inside the other, word by word."""
    first, second = plain_words(one), plain_words(other)
    return first in second or second in first


def right_option(prompt_type: PromptType, fields: Mapping[str, Any]) -> str:
    """The name of the field that holds the right option; empty where the fields have an order, and none is right."""
    options = prompt_type.options
    return options.fields[options.right_index(fields)] if options is not None and options.right else ""


def check_options(prompt_type: PromptType, fields: Mapping[str, Any]) -> GateResult:
    """Reject options that are the same, or inside one another, or in the question too, and whoever speaks of their order."""
    if prompt_type.options is None:
        return GateResult.accept()
    names = prompt_type.options.fields
    for one, other in combinations(names, 2):
        if plain_words(fields[one]) == plain_words(fields[other]) or _same_figure(fields[one], fields[other]):
            return GateResult.reject("options", "same-option", "the same option twice", other)
        if clash(fields[one], fields[other]):
            return GateResult.reject("options", "inside-another", "one option inside another", other)
    asked = [(name, plain_words(text), text) for name, text in _texts(fields, shown(prompt_type).asked - set(names))]
    for name in names:
        option = plain_words(fields[name])
        for where, words, text in asked:
            if option in words and not _only_a_date(fields[name], text):
                return GateResult.reject(
                    "options", "named-twice", f"an option stands in the question: {fields[name]}", where
                )
    for where, text in _texts(fields, prompt_type.fields.keys()):
        if found := _ORDER.search(text):
            return GateResult.reject(
                "options", "order-named", f"it speaks of the options' order: {found.group()}", where
            )
    return GateResult.accept()


def check_blank(prompt_type: PromptType, fields: Mapping[str, Any]) -> GateResult:
    """Reject unless exactly one field has the blank `____` (four underscores), and has it once."""
    blanks = [(name, found) for name, text in _texts(fields, fields.keys()) for found in _BLANKS.findall(text)]
    if len(blanks) != 1:
        field = blanks[-1][0] if blanks else ""
        return GateResult.reject("blank", "count", f"{len(blanks)} blanks where one is wanted", field)
    name, found = blanks[0]
    if found != BLANK:
        return GateResult.reject("blank", "form", "the blank is not four underscores", name)
    return GateResult.accept()


def check_answer(prompt_type: PromptType, fields: Mapping[str, Any]) -> GateResult:
    """Reject an answer that does not name what tells the right option from the wrong ones, or names what tells a wrong one."""
    options = prompt_type.options
    right = right_option(prompt_type, fields)
    if options is None or not right:
        return GateResult.accept()
    where = shown(prompt_type).answered - {*options.fields, options.right}
    answers = list(_texts(fields, where))
    answer = " ".join(text for _, text in answers)
    wrong = [fields[name] for name in options.fields if name != right]
    good = _names(answer, fields[right], wrong, least=1)
    bad = next((option for option in wrong if _names(answer, option, [fields[right]], least=0)), "")
    field = answers[0][0] if answers else ""
    gate = "answer-names-right"
    if good and not bad:
        return GateResult.accept()
    if good:
        return GateResult.reject(gate, "both-right", f"the answer names a wrong option too: {bad}", field)
    if bad:
        return GateResult.reject(gate, "answer-names-wrong", f"the answer names a wrong option: {bad}", field)
    return GateResult.reject(gate, "answer-without-right", f"the answer does not name {fields[right]}", field)


def check_kind(prompt_type: PromptType, fields: Mapping[str, Any]) -> GateResult:
    """Reject options of which some are dates or numbers, and others are not."""
    if prompt_type.options is None:
        return GateResult.accept()
    kinds = {name: kind_of(fields[name]) for name in prompt_type.options.fields}
    found = set(kinds.values())
    if len(found) == 1 or found in ({"date", "year or number"}, {"number", "year or number"}):
        return GateResult.accept()
    first = kinds[prompt_type.options.fields[0]]
    odd = next(name for name, kind in kinds.items() if kind != first)
    return GateResult.reject("same-kind", "kind", f"a {first} beside a {kinds[odd]}: {fields[odd]}", odd)


def _elsewhere(prompt_type: PromptType, fields: Mapping[str, Any]) -> GateResult:
    """A check that another gate reads: nothing to do here."""
    return GateResult.accept()


CHECKS: dict[str, Callable[[PromptType, Mapping[str, Any]], GateResult]] = {
    "blank": check_blank,
    "answer-names-right": check_answer,
    "same-kind": check_kind,
    "wrong-on-purpose": _elsewhere,
    "ungrounded": _elsewhere,
}
"""What a prompt type may name under `checks`. The last two tell the grounded gate what to pass over."""
CHECK_NAMES = frozenset(CHECKS)


def check_named(prompt_type: PromptType, fields: Mapping[str, Any]) -> GateResult:
    """The checks that the prompt type names, in its order; the first reject counts."""
    results = (CHECKS[name](prompt_type, fields) for name in prompt_type.checks)
    return next((result for result in results if not result.ok), GateResult.accept())


def _texts(fields: Mapping[str, Any], names: Any) -> Iterator[tuple[str, str]]:
    """The strings of some fields, with the field's name; lists are gone into."""
    for name, value in fields.items():
        if name in names:
            yield from ((name, text) for text in _strings(value))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for entry in value.values():
            yield from _strings(entry)
    elif isinstance(value, (list, tuple)):
        for entry in value:
            yield from _strings(entry)


def kind_of(option: str) -> OptionKind:
    """What an option is: a date, a number (with what it counts), a bare figure that may be either, or something else."""
    figures = [figure for figure in read_figures(option) if figure.kind != "ordinal"]
    if not figures:
        return "other"
    first = figures[0]
    words = [word for word in WORD.findall(option) if fold(word) not in _FILLERS]
    covered = " ".join(figure.shown for figure in figures).casefold()
    rest = [word for word in words if word.casefold() not in covered]
    if not rest and all(figure.kind in ("date", "decade", "century") for figure in figures):
        return "date"
    if not rest and all(figure.kind == "number" for figure in figures):
        bare = not first.word and 1000 <= first.values[0] < 2100 and _YEAR.fullmatch(option)
        return "year or number" if bare else "number"
    if any(figure.kind == "date" for figure in figures) or first.kind not in ("number", "vague"):
        return "other"
    before = [word for word in WORD.findall(option[: first.start]) if fold(word) not in _FILLERS]
    after = WORD.search(option, first.start + len(first.shown))
    name = after is not None and after.group()[0].isupper() and not people_bases(fold(after.group()))
    return "other" if before or name else "number"


def _only_a_date(option: str, text: str) -> bool:
    """Whether a bare number stands in `text` only as part of dates or longer numbers: 4 in "on 4 June"."""
    figures = read_figures(option)
    if len(figures) != 1 or figures[0].kind != "number" or figures[0].shown.casefold() != option.strip().casefold():
        return False
    return not any(set(figures[0].values) & set(other.values) for other in read_figures(text) if other.kind == "number")


def _same_figure(one: str, other: str) -> bool:
    """Whether two options are the same date or number in two writings: "1,200" and "twelve hundred"."""
    if kind_of(one) == "other" or kind_of(other) == "other":
        return False
    first, second = ([(figure.kind, figure.values) for figure in read_figures(text)] for text in (one, other))
    return first == second and _rest(one) == _rest(other)


def _rest(text: str) -> list[str]:
    """The words of an option that are no part of its figures."""
    for figure in read_figures(text):
        text = text.replace(figure.shown, " ")
    return [word for word in map(fold, WORD.findall(text)) if word not in _FILLERS]


def _names(answer: str, option: str, others: Sequence[str], least: int) -> bool:
    """Whether `answer` names what tells `option` from all `others`. With `least` one of its words is enough; without, the
    last of them must stand there, or all."""
    if kind_of(option) != "other":
        return _names_figure(answer, option, others)
    apart = _apart(option, others)
    if not apart:
        return least > 0
    capital = [word for word in apart if word[0].isupper() or word[0].isdigit()]
    spoken = WORD.findall(answer)
    if capital:
        heard = {fold(word) for word in spoken if not word[0].islower()}
        heard |= {part for word in heard if "-" in word for part in word.split("-")}
    else:
        heard = {fold(word) for word in spoken}
    stands = [_stands(fold(word), heard) for word in capital or apart]
    if least:
        return any(stands)
    return all(stands) or bool(capital and stands[-1])


def _apart(option: str, others: Sequence[str]) -> list[str]:
    """The words of an option that stand in none of the others; function words only where it has nothing else."""
    taken = {fold(word) for other in others for word in WORD.findall(other)}
    words = [word for word in WORD.findall(option) if fold(word) not in taken]
    return [word for word in words if fold(word) not in FUNCTION] or words


def _stands(form: str, heard: set[str]) -> bool:
    return form in heard or any(other in heard for other in variants(form))


def _names_figure(answer: str, option: str, others: Sequence[str]) -> bool:
    wanted = read_figures(option)
    unwanted = [figure for other in others for figure in read_figures(other)]
    for said in read_figures(answer):
        if any(_agree(said, figure) for figure in wanted) and not any(_agree(said, figure) for figure in unwanted):
            return True
    return False


def _agree(said: Figure, option: Figure) -> bool:
    """Whether two figures can be one: a date may be given less exactly, and a year stands for a date in it."""
    if said.kind == option.kind != "date":
        return not set(said.values).isdisjoint(option.values)
    return any(
        all(one is None or other is None or one == other for one, other in zip(first, second, strict=True))
        and any(one is not None and one == other for one, other in zip(first, second, strict=True))
        for first in _as_dates(said)
        for second in _as_dates(option)
    )


def _as_dates(figure: Figure) -> list[tuple[Any, Any, Any]]:
    if figure.kind == "date":
        return list(figure.values)
    return [(None, None, int(value)) for value in figure.values if figure.kind == "number" and 1000 <= value < 2100]
