"""The rules grader: normalised fact containment, not a language model.

Guarantees: deterministic, no weights, no network. An answer passes if it states the facts that the reference has and the
question has not (numbers, dates, names; plain words where there are none), and states nothing that stands against
them. Cost: about 1 ms an answer. Misses: synonyms, who did what to whom, and facts told without their names.
"""

from __future__ import annotations

import math
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.ids import stable_id
from judge import choices, words
from judge.facts import Fact, Kind, Read, Token, core, facts_of, holds, known_names, read, same
from judge.outcome import Outcome

if TYPE_CHECKING:
    from foundation.records import Answer, EvalItem

# Up to 12 words an answer is the fact itself, so all of it must be there.
SHORT = 12
# A longer reference tells more than was asked: a good retelling keeps most of its facts, a lucky one a few.
SHARE = 0.6
# Up to 40 words (one or two sentences) a number other than the reference's takes its place; in a longer passage it may
# be another, true, number.
SENTENCES = 40
# With fewer facts than this a long reference is compared by its words as well.
FEW = 3

_STANCE = re.compile(r"\W*(yes|no|true|false)\b\s*(?:[.,;:!-]|$)", re.IGNORECASE)
_DENIES = re.compile(
    r"^\W*no\b(?=\s*(?:[.,;:!-]|$))|\b(?:false|incorrect|untrue|wrong|(?:not|n't) (?:true|correct|right))\b"
)
_AFFIRMS = re.compile(r"^\W*yes\b|\b(?:true|correct)\b")
_ASKS: tuple[tuple[re.Pattern[str], frozenset[Kind]], ...] = (
    (re.compile(r"\bhow (?:many|much|long|far|old|large|big|tall|deep)\b"), frozenset({"number", "year"})),
    (re.compile(r"\b(?:when|(?:what|which) (?:date|day|month|year))\b"), frozenset({"year", "month", "number"})),
    (re.compile(r"\b(?:who|whom|whose|where)\b"), frozenset({"name"})),
)


@dataclass(frozen=True)
class Case:
    """One question with all that its answer is held against, read once."""

    item: EvalItem
    text: str

    @cached_property
    def question(self) -> Read:
        return read(self.item.question)

    @cached_property
    def reference(self) -> Read:
        return read(choices.without_label(self.item.reference))

    @cached_property
    def answer(self) -> Read:
        return read(choices.without_label(self.text))

    @cached_property
    def around(self) -> Read:
        """The passage and its title: what an answer may draw on."""
        return read(f"{self.item.title}.\n{self.item.snippet}")

    @cached_property
    def known(self) -> frozenset[str]:
        return known_names(self.around, self.question, self.reference)

    @cached_property
    def facts(self) -> list[Fact]:
        """The reference's facts; those it denies ("not Ryti") only if it states no other."""
        facts = facts_of(self.reference, self.known)
        return [fact for fact in facts if not fact.denied] or facts

    @cached_property
    def size(self) -> int:
        return len(self.item.reference.split())

    @cached_property
    def stance(self) -> str:
        """`yes`, `no`, or empty: how the reference begins."""
        found = _STANCE.match(self.item.reference)
        return "" if found is None else "yes" if found[1].lower() in ("yes", "true") else "no"


def grade(item: EvalItem, text: str) -> Outcome:
    """Hold one answer against its reference."""
    case = Case(item, text)
    if case.stance:
        wrong = _against_stance(case)
        if wrong or _bare(case):
            return wrong or Outcome("PASS", explanation=f"It says {case.stance}, as the reference does.")
        return _against_facts(case) or _contained(case, _needed(case))
    options = choices.find(item.question, case.reference, case.known, label=choices.label_of(item.reference))
    if options and _right_letter(case, options) and not case.answer.tokens:
        return Outcome("PASS", "", f"It chooses {options.labels[options.right]}, as the reference does.")
    return _against_options(case, options) or _against_facts(case) or _contained(case, _needed(case, options))


def _against_stance(case: Case) -> Outcome | None:
    head = re.sub(r"true or false|yes or no", "", case.answer.text[:120].lower())
    denied, affirmed = _DENIES.search(head), _AFFIRMS.search(head)
    if denied and affirmed and denied.start() <= affirmed.start() < denied.end():
        affirmed = None  # the "true" of "not true"
    said = "" if not (denied or affirmed) else "no"
    if affirmed and (not denied or affirmed.start() < denied.start()):
        said = "yes"
    if said and said != case.stance:
        return Outcome("FAIL", "polarity", f"The reference says {case.stance}, the answer says {said}.")
    if not said and not _novel(case):  # a correction that is right says no by itself; nothing else does
        return Outcome("FAIL", "polarity", f"The reference says {case.stance}; the answer says neither yes nor no.")
    return None


def _bare(case: Case) -> bool:
    """Whether the right word alone is enough: it always is for yes; for no only if nothing had to be put right."""
    alone = not [
        token for token in case.answer.tokens if token.kind != "function" and token.form not in ("statement", "claim")
    ]
    return alone and (case.stance == "yes" or not _novel(case))


def _right_letter(case: Case, options: choices.Options) -> bool:
    return bool(options.labels) and choices.label_of(case.text) == options.labels[options.right]


def _against_options(case: Case, options: choices.Options | None) -> Outcome | None:
    """What speaks against an answer to "A or B?", before its facts are looked at."""
    if options is None:
        return None
    label = choices.label_of(case.text)
    if label and options.labels and not _right_letter(case, options):
        return Outcome(
            "FAIL", "competing", f"It chooses {label}; the reference chooses {options.labels[options.right]}."
        )
    for at, option in enumerate(options.texts):
        if at == options.right or not options.states(case.answer, at):
            continue
        # A reference may name the other option too ("X took over from Y"): then the right one must come first.
        first = options.position(case.answer, options.right) < options.position(case.answer, at)
        if not (first and options.states(case.reference, at)):
            return Outcome("FAIL", "competing", f"It names the wrong option: {option}.")
    return None


def _asked(case: Case) -> frozenset[Kind]:
    question = case.question.text.lower()
    return next((kinds for pattern, kinds in _ASKS if pattern.search(question)), frozenset())


def _novel(case: Case) -> list[Fact]:
    """The reference's facts that the question does not give away."""
    return [fact for fact in case.facts if not _anywhere(case.question, fact)]


def _needed(case: Case, options: choices.Options | None = None) -> list[Fact]:
    """The facts an answer is asked for."""
    if options is not None:
        return list(options.facts)
    if case.stance == "yes":
        return case.facts  # the statement stands in the question: repeating it is all there is to say
    novel = _novel(case)
    asked = [fact for fact in novel if fact.kind in _asked(case)]
    return asked or novel or case.facts


def _contained(case: Case, needed: Sequence[Fact]) -> Outcome:
    """PASS if the share of the needed facts that stand in the answer is large enough."""
    found = [fact for fact in needed if holds(case.answer.tokens, fact)]
    missing = [fact for fact in needed if fact not in found]
    short = case.size <= SHORT and case.stance != "yes"
    enough = len(found) >= (len(needed) if short else math.ceil(SHARE * len(needed) - 1e-9))
    shown = _told([fact.shown for fact in found], [fact.shown for fact in missing])
    if not enough:
        return Outcome("FAIL", "missing", shown)
    share = _word_share(case, needed, short)
    if share is None:
        return Outcome("PASS", "", shown)
    hits, misses, least = share
    shown = _told([*(fact.shown for fact in found), *hits], [*(fact.shown for fact in missing), *misses])
    if not needed and not hits and not misses:
        return Outcome("UNSCORED", "reference", "The reference holds nothing that the question does not.")
    return Outcome("PASS" if len(hits) >= least else "FAIL", "" if len(hits) >= least else "missing", shown)


def _word_share(case: Case, needed: Sequence[Fact], short: bool) -> tuple[list[str], list[str], int] | None:
    """Plain words found and missing, and how many are needed. None where the facts alone decide."""
    if needed and (_asked(case) & {fact.kind for fact in needed} or len(needed) >= FEW or case.stance):
        return None
    if needed and all(_anywhere(case.question, fact) for fact in needed):
        return None  # a choice among what the question names
    of_facts = {form for fact in case.facts for form in fact.forms} | words.PARTICLES
    plain = [token for token in case.reference.tokens if token.kind == "word" and token.form not in of_facts]
    asked = {token.form for token in case.question.tokens}
    plain = [token for token in plain if not any(same(token.form, form) for form in asked)] or ([] if needed else plain)
    by_form = {token.form: token.denied for token in plain}
    hits = [
        form
        for form, denied in by_form.items()
        if any(same(form, token.form) and token.denied == denied for token in case.answer.tokens)
    ]
    # Words have synonyms, facts have not: beside facts half of the words are enough.
    share = 0.5 if needed else 1.0 if short else SHARE
    return hits, [form for form in by_form if form not in hits], math.ceil(share * len(by_form) - 1e-9)


def _against_facts(case: Case) -> Outcome | None:
    """What the answer states against the reference, whatever else it holds."""
    if case.size > SENTENCES:
        return _invented(case, list(facts_of(case.answer, case.known)))
    stated = [fact for fact in facts_of(case.answer, case.known) if not fact.denied]
    extra = [fact for fact in stated if not _supported(case.reference, fact) and not _supported(case.question, fact)]
    for fact in case.facts:
        rivals = [other for other in extra if other.kind == fact.kind != "name"]
        if rivals and not fact.denied and not _anywhere(case.answer, fact):
            return Outcome("FAIL", "contradicted", f"It says {rivals[0].shown} where the reference says {fact.shown}.")
    denial = _denied(case)
    if denial:
        return Outcome("FAIL", "negated", f"It denies what the reference states: {denial}.")
    hedge = _hedge(case)
    if hedge:
        return Outcome("FAIL", "hedged", f"It leaves open whether it is {hedge}.")
    return _invented(case, extra if case.size <= SHORT else stated)


def _denied(case: Case) -> str:
    """A plain word of the reference, or of the question, that the answer denies and they do not."""
    if case.stance:
        return ""
    given = [
        token for token in (*case.reference.tokens, *case.question.tokens) if token.kind == "word" and not token.capital
    ]
    for token in case.answer.tokens:
        if token.denied and token.kind == "word" and not token.capital:
            meant = [other for other in given if same(token.form, other.form)]
            if (
                meant
                and not any(other.denied for other in meant)
                and not choices.offered(case.item.question, token.raw)
            ):
                return token.raw
    return ""


def _hedge(case: Case) -> str:
    """`X or Y`, where one is the reference's and the other is not."""
    tokens = case.answer.tokens
    for at in range(1, len(tokens) - 1):
        if tokens[at].form != "or":
            continue
        sides = (
            tokens[at - 1],
            next((token for token in tokens[at + 1 :] if token.kind != "function"), tokens[at + 1]),
        )
        if all(_weighty(token) for token in sides):
            inside = [
                any(same(token.form, other.form, name=True) for other in case.reference.tokens) for token in sides
            ]
            if any(inside) and not all(inside):
                return f"{sides[0].raw} or {sides[1].raw}"
    return ""


def _weighty(token: Token) -> bool:
    return token.kind in ("year", "number", "month") or token.capital


def _invented(case: Case, stated: Sequence[Fact]) -> Outcome | None:
    """Facts that neither reference, question nor passage supports."""
    size = len(case.text.split())
    lenient = size > SHORT or case.size > SHORT  # a list of years from the passage is no answer to "when?"
    loose = [fact for fact in stated if not _backed(case, fact, lenient)]
    if case.size <= SHORT:
        figures = [fact for fact in loose if fact.kind != "name"]
        # one new name in a full sentence may be true; more, or one instead of a sentence, is a guess
        if figures or len(loose) > (1 if size > SHORT else 0):
            return Outcome("FAIL", "unsupported", f"Nothing supports {', '.join(fact.shown for fact in loose)}.")
    elif len(stated) >= FEW and 2 * len(loose) > len(stated):
        return Outcome(
            "FAIL", "unsupported", f"Nothing supports most of what it says: {_some([fact.shown for fact in loose])}."
        )
    return None


def _backed(case: Case, fact: Fact, lenient: bool) -> bool:
    sources = (case.reference, case.question, *((case.around,) if lenient or fact.kind == "name" else ()))
    return any(_supported(source, fact) for source in sources)


def _supported(source: Read, fact: Fact) -> bool:
    """Whether a text has the fact, or, of a name, any word that is its own."""
    if fact.kind != "name":
        return _anywhere(source, fact)
    own = [form for form in fact.forms if form not in words.GENERIC] or list(fact.forms)
    return any(same(form, token.form, name=True) for form in own for token in source.tokens)


def _anywhere(source: Read, fact: Fact) -> bool:
    """Whether a text holds the fact, stated or denied."""
    if fact.kind == "name":
        return all(any(same(form, token.form, name=True) for token in source.tokens) for form in core(fact))
    return any(
        fact.forms[0] == token.form and (fact.kind == "month") == (token.kind == "month") for token in source.tokens
    )


def _some(shown: Sequence[str]) -> str:
    return ", ".join(shown[:8]) + (f" and {len(shown) - 8} more" if len(shown) > 8 else "")


def _told(found: Sequence[str], missing: Sequence[str]) -> str:
    parts = [f"{label}: {_some(shown)}" for label, shown in (("found", found), ("missing", missing)) if shown]
    return "; ".join(parts)


class RulesGrader:
    """The embedded grader. Its identity is the text of its own rules, so a mended rule is a new grader."""

    name = "rules"
    about = "normalised fact containment, not a language model"

    @cached_property
    def identity(self) -> str:
        here = Path(__file__).parent
        return stable_id(
            "rules", *((here / f"{name}.py").read_text("utf-8") for name in ("choices", "facts", "rules", "words"))
        )

    def ready(self) -> AbstractContextManager[None]:
        return nullcontext()

    async def grade(self, answers: Sequence[Answer]) -> AsyncIterator[tuple[int, Outcome]]:
        for index, answer in enumerate(answers):
            yield index, grade(answer.item, answer.text)
